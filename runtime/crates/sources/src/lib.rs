//! Sources that watch: files and timers. Each hands what it sees to the bus and knows neither functions nor stores.

pub mod files;
pub mod timer;
