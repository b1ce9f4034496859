//! Options of `up` that limit the store: dedup window, backlog, retention and free disk space.

use std::time::Duration;

use clap::Args;

use super::{parse_duration, parse_size};
use evoke_core::bus;
use evoke_model::DescendantsMax;

#[derive(Debug, Clone, Args)]
pub(super) struct Limits {
    /// How long Evoke remembers the source and id of an event. An event that is sent again within this time is a
    /// duplicate, and is not stored. For signed webhook requests, choose at least twice the allowed clock difference,
    /// which is 5 minutes unless the manifest sets `tolerance`
    #[arg(long, env = "EVOKE_DEDUP_WINDOW", default_value = "24h", value_name = "DURATION", value_parser = parse_duration)]
    pub(super) dedup_window: Duration,
    /// Maximum number of pending deliveries. At this number, Evoke refuses new events. If most deliveries come from
    /// one source, its events are already refused at half of this number. Events that functions publish are never
    /// refused; all their deliveries together count as at most half of this number
    #[arg(long, env = "EVOKE_PENDING_MAX", default_value_t = bus::BACKLOG_MAX.deliveries, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) pending_max: u64,
    /// Maximum total size of the events of all pending deliveries, with the same rules as --pending-max
    #[arg(long, env = "EVOKE_PENDING_BYTES_MAX", default_value = "4GiB", value_name = "SIZE", value_parser = parse_size)]
    pub(super) pending_bytes_max: u64,
    /// Maximum number of dead letters that came of events of one source. At this number, Evoke refuses the source's
    /// events until an operator redrives or purges dead letters
    #[arg(long, env = "EVOKE_DEAD_MAX", default_value_t = bus::DEAD_MAX.deliveries, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) dead_max: u64,
    /// Maximum total size of the events of these dead letters, with the same rules as --dead-max
    #[arg(long, env = "EVOKE_DEAD_BYTES_MAX", default_value = "1GiB", value_name = "SIZE", value_parser = parse_size)]
    pub(super) dead_bytes_max: u64,
    /// Maximum number of events that one event can cause, directly or through events that it caused. A delivery that
    /// would exceed this number becomes a dead letter. `limits` in a manifest replaces this number for events that
    /// enter through the sources of the manifest
    #[arg(long, env = "EVOKE_DESCENDANTS_MAX", default_value_t = DescendantsMax::default().events, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) descendants_max: u64,
    /// Maximum total size of the events that one event can cause, with the same rules as --descendants-max
    #[arg(long, env = "EVOKE_DESCENDANTS_BYTES_MAX", default_value = "64MiB", value_name = "SIZE", value_parser = parse_size)]
    pub(super) descendants_bytes_max: u64,
    /// How long to keep an event after it was accepted or, if it was scheduled, after it became due; or `forever`. An
    /// event with deliveries that are not done or purged is kept longer
    #[arg(long, env = "EVOKE_RETAIN", default_value = "7d", value_name = "DURATION", value_parser = parse_retain)]
    pub(super) retain: Duration,
    /// Maximum size of the store, or `unlimited`. Beyond it, the oldest events whose deliveries are all done or purged
    /// are removed before the time of --retain
    #[arg(long, env = "EVOKE_RETAIN_SIZE", default_value = "10GiB", value_name = "SIZE", value_parser = parse_retain_size)]
    pub(super) retain_size: u64,
    /// If the disk of the data folder has less free space than this, Evoke emits the event `evoke.storage.low`
    /// [default: 5% of the disk, at most 1GiB]
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
