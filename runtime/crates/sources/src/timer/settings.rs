//! The settings of a timer.

use std::time::Duration;

use serde::Serialize;

use evoke_manifest::units::DurationText;

/// A timer: creates an event at each time of its schedule.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimerSource {
    /// Times of the ticks.
    #[serde(flatten)]
    pub schedule: Schedule,
    /// Which ticks to run later if their time passed while Evoke was not running.
    pub missed: Missed,
}

/// Times at which a timer ticks.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Schedule {
    /// At the times of a cron expression, in the local time of a time zone.
    Cron {
        /// Five fields, or six with seconds first, or a nickname such as `@daily`. The croner crate accepts it, and it
        /// has a next time.
        #[serde(rename = "cron")]
        expr: String,
        /// IANA name from the time zone database of the jiff crate.
        timezone: String,
    },
    /// At fixed intervals.
    Every {
        /// Time between two ticks, at least 100 ms.
        #[serde(with = "DurationText")]
        every: Duration,
    },
}

/// Which ticks to run later if their time passed while Evoke was not running (missed ticks).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// Skip them all.
    None,
    /// Run only the last one.
    #[default]
    Last,
    /// Run at most this many of the last ones, in order. `all` without a number means 1,000.
    All(u32),
}
