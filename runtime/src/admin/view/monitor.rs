//! The JSON form of the things that monitors watch.

use serde::{Deserialize, Serialize};

use evoke_model::clock::rfc3339;
use evoke_sources::monitor::SubjectStatus;

/// A thing that a monitor watches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Monitor {
    /// The source, `/app/name`.
    pub monitor: String,
    /// The kind of the monitor, such as `disk`.
    pub kind: String,
    /// The watched thing, such as the path of a disk.
    pub subject: String,
    /// `ok`, `warning`, `critical`, `unknown`, or `waiting` before the first reading.
    pub state: String,
    /// The time of the first reading with this state.
    pub since: String,
    /// The value of the last reading, in `unit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// The unit of the value: `%`, `B`, `s`, `°C` or none, with `/s`, `/m` or `/h` for a rate.
    pub unit: String,
    /// The value and its unit, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
    /// The threshold of a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// The threshold of the critical state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<String>,
    /// The message of the last reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// True if the state changes so often that its changes are not reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
    /// The average value of each of the last 60 minutes, oldest first; null for a minute without a reading.
    pub last_hour: Vec<Option<f32>>,
}

impl From<SubjectStatus> for Monitor {
    fn from(status: SubjectStatus) -> Self {
        Self {
            monitor: status.monitor.to_string(),
            kind: status.kind.to_owned(),
            subject: status.subject,
            state: status.state.map_or("waiting", |state| state.name()).to_owned(),
            since: rfc3339(status.since_ms),
            value: status.value,
            unit: status.unit,
            shown: status.shown,
            warning: status.warning,
            critical: status.critical,
            detail: status.detail,
            flapping: status.flapping,
            last_hour: status.last_hour,
        }
    }
}
