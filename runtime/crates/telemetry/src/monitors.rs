//! Metrics of monitors.

use super::{Counter, Histogram};

/// Counters over all monitors.
#[derive(Debug)]
pub struct MonitorMetrics {
    /// The number of readings. A monitor takes one reading for each subject that it watches.
    pub readings: Counter,
    /// How long after its scheduled time each reading began.
    pub lateness: Histogram,
}

impl Default for MonitorMetrics {
    fn default() -> Self {
        Self { readings: Counter::default(), lateness: Histogram::for_durations() }
    }
}

/// A thing that a monitor watches, at one scrape.
#[derive(Debug, Clone)]
pub struct MonitorHealth {
    /// The URI of the source.
    pub monitor: String,
    /// The watched thing.
    pub subject: String,
    /// 0 ok, 1 warning, 2 critical, 3 unknown.
    pub state: u8,
    /// The value of the last reading, if it has one.
    pub value: Option<f64>,
    /// The unit of the value, such as `%`.
    pub unit: String,
}
