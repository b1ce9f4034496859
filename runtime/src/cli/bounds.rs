//! What `up` keeps, and how much of it.

use std::time::Duration;

use clap::Args;

use super::duration;

#[derive(Debug, Clone, Args)]
pub(super) struct Bounds {
    /// How long a source and id are known: an event that comes again within it is answered as a duplicate
    #[arg(long, env = "EVOKE_DEDUP_WINDOW", default_value = "24h", value_name = "DURATION", value_parser = duration)]
    pub(super) dedup_window: Duration,
}
