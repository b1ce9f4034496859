//! Metrics of monitors.

use super::{Counter, Histogram};

/// Counters over all monitors.
#[derive(Debug)]
pub struct MonitorMetrics {
    /// The number of readings. A monitor takes separate readings of each subject that it watches.
    pub readings: Counter,
    /// How long after its scheduled time each reading began.
    pub lateness: Histogram,
}

impl Default for MonitorMetrics {
    fn default() -> Self {
        Self { readings: Counter::default(), lateness: Histogram::for_durations() }
    }
}

/// The state of one thing that a monitor watches, when the metrics are scraped.
#[derive(Debug, Clone)]
pub struct MonitorHealth {
    /// The URI of the monitor, which is a source.
    pub monitor: String,
    /// The watched thing, as in the label `subject`.
    pub subject: String,
    /// The state: 0 is ok, 1 is warning, 2 is critical, 3 is unknown.
    pub state: u8,
    /// The value of the last reading; `None` if the reading has no value.
    pub value: Option<f64>,
    /// The unit of the value, such as `%`.
    pub unit: String,
}
