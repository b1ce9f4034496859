//! Options of `up` that bound the store: dedup window, backlog, retention and free disk space.

use std::time::Duration;

use clap::Args;

use super::{parse_duration, parse_size};
use evoke_core::bus;
use evoke_model::DescendantsMax;

#[derive(Debug, Clone, Args)]
pub(super) struct Limits {
    /// How long source and id of an event are remembered: the same event sent again within this time is a duplicate.
    /// Write at least twice the allowed clock difference of signed webhook requests, which is 5 minutes for most
    /// senders
    #[arg(long, env = "EVOKE_DEDUP_WINDOW", default_value = "24h", value_name = "DURATION", value_parser = parse_duration)]
    pub(super) dedup_window: Duration,
    /// Maximum number of pending deliveries. Beyond it, events are refused; a single source is already refused beyond
    /// half of it. Events that functions publish are never refused, and count only up to half of it
    #[arg(long, env = "EVOKE_PENDING_MAX", default_value_t = bus::BACKLOG_MAX.deliveries, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) pending_max: u64,
    /// Maximum size of the events of pending deliveries, with the same rules as --pending-max
    #[arg(long, env = "EVOKE_PENDING_BYTES_MAX", default_value = "4GiB", value_name = "SIZE", value_parser = parse_size)]
    pub(super) pending_bytes_max: u64,
    /// Maximum number of events that one event causes through any number of functions; a delivery that exceeds it
    /// becomes a dead letter; `limits` in a manifest overrides it for events that enter through its sources
    #[arg(long, env = "EVOKE_DESCENDANTS_MAX", default_value_t = DescendantsMax::default().events, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) descendants_max: u64,
    /// Maximum size of the events that one event causes, with the same rules as --descendants-max
    #[arg(long, env = "EVOKE_DESCENDANTS_BYTES_MAX", default_value = "64MiB", value_name = "SIZE", value_parser = parse_size)]
    pub(super) descendants_bytes_max: u64,
    /// How long to keep events whose deliveries are all done or purged, or `forever`
    #[arg(long, env = "EVOKE_RETAIN", default_value = "7d", value_name = "DURATION", value_parser = parse_retain)]
    pub(super) retain: Duration,
    /// Maximum size of the store, or `unlimited`. Beyond it, the oldest events whose deliveries are all done or purged
    /// are removed before the time of --retain
    #[arg(long, env = "EVOKE_RETAIN_SIZE", default_value = "10GiB", value_name = "SIZE", value_parser = parse_retain_size)]
    pub(super) retain_size: u64,
    /// Free space on the data folder's disk below which `evoke.storage.low` is emitted [default: 5% of the disk, at
    /// most 1GiB]
    #[arg(long, env = "EVOKE_STORAGE_LOW", value_name = "SIZE", value_parser = parse_size)]
    pub(super) storage_low: Option<u64>,
}

fn parse_retain(text: &str) -> Result<Duration, String> {
    if text == "forever" {
        Ok(Duration::MAX)
    } else {
        parse_duration(text).map_err(|e| format!("{e}; or write `forever`"))
    }
}

fn parse_retain_size(text: &str) -> Result<u64, String> {
    if text == "unlimited" { Ok(u64::MAX) } else { parse_size(text).map_err(|e| format!("{e}; or write `unlimited`")) }
}
