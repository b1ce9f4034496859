//! What `up` keeps, and how much of it.

use std::time::Duration;

use clap::Args;

use super::{duration, size};
use crate::bus;

#[derive(Debug, Clone, Args)]
pub(super) struct Bounds {
    /// How long a source and id are known: an event that comes again within it is answered as a duplicate
    #[arg(long, env = "EVOKE_DEDUP_WINDOW", default_value = "24h", value_name = "DURATION", value_parser = duration)]
    pub(super) dedup_window: Duration,
    /// Deliveries that may be pending before events are refused, one source's at half of it
    #[arg(long, env = "EVOKE_PENDING_MAX", default_value_t = bus::BACKLOG_MAX.deliveries, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) pending_max: u64,
    /// Bytes of the events of these, the same way
    #[arg(long, env = "EVOKE_PENDING_BYTES_MAX", default_value = "4GiB", value_name = "SIZE", value_parser = size)]
    pub(super) pending_bytes_max: u64,
    /// How long events are kept when all their deliveries are done or purged, or `forever`
    #[arg(long, env = "EVOKE_RETAIN", default_value = "7d", value_name = "DURATION", value_parser = age)]
    pub(super) retain: Duration,
    /// How large the store may be before the oldest of these go earlier, or `unlimited`
    #[arg(long, env = "EVOKE_RETAIN_SIZE", default_value = "10GiB", value_name = "SIZE", value_parser = room)]
    pub(super) retain_size: u64,
    /// What has to be free on the data folder's disk before `evoke.storage.low` is told [default: 5% of it, at most 1GiB]
    #[arg(long, env = "EVOKE_STORAGE_LOW", value_name = "SIZE", value_parser = size)]
    pub(super) storage_low: Option<u64>,
}

fn age(text: &str) -> Result<Duration, String> {
    if text == "forever" { Ok(Duration::MAX) } else { duration(text).map_err(|e| format!("{e}; or write `forever`")) }
}

fn room(text: &str) -> Result<u64, String> {
    if text == "unlimited" { Ok(u64::MAX) } else { size(text).map_err(|e| format!("{e}; or write `unlimited`")) }
}
