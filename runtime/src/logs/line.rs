//! One line of the log, and the filter that selects lines.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use evoke_model::DeliveryId;
use evoke_model::clock::{Clock, UnixMs, rfc3339};
use evoke_sandbox::LogLine;

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The time, RFC 3339.
    pub at: String,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// `app/function`; absent for Evoke's own lines about the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Arc<str>>,
    /// The delivery that the function was processing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    /// The number of the attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The message, without control characters.
    pub text: String,
}

/// Selects lines.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only lines of this function, by full name.
    pub function: Option<String>,
    /// Only lines of this delivery.
    pub delivery: Option<DeliveryId>,
    /// Only lines of this time or later.
    pub since_ms: Option<UnixMs>,
}

impl Filter {
    /// Returns true if the filter selects the line.
    pub fn matches(&self, line: &Line) -> bool {
        self.function.as_deref().is_none_or(|f| line.function.as_deref() == Some(f))
            && self.delivery.is_none_or(|d| line.delivery == Some(d))
            && self.since_ms.is_none_or(|since_ms| {
                line.at.parse::<jiff::Timestamp>().is_ok_and(|at| at.as_millisecond() >= since_ms)
            })
    }
}

impl Line {
    /// Returns a warning of Evoke itself about the log, such as the number of dropped lines.
    pub fn notice(function: Option<Arc<str>>, text: String) -> Self {
        let at = rfc3339(Clock::system().now_ms());
        Self { at, level: "warn".into(), function, delivery: None, attempt: None, text }
    }
}

impl From<LogLine> for Line {
    fn from(line: LogLine) -> Self {
        Self {
            at: rfc3339(line.at_ms),
            level: line.level.name().into(),
            function: Some(line.function),
            delivery: DeliveryId::from_guest_id(&line.delivery_id),
            attempt: Some(line.attempt),
            text: line.text,
        }
    }
}

const SEQ: &str = "{\"seq\":";

/// Returns a line as it is stored: the JSON of the line, with `seq` as the first field.
pub(super) fn to_stored(seq: u64, line: &Line) -> String {
    // Never fails: strings and numbers always serialise, here to an object with at least one field.
    let text = serde_json::to_string(line).unwrap_or_default();
    format!("{SEQ}{seq},{}", text.strip_prefix('{').unwrap_or_default())
}

/// Splits a stored line into its `seq` and the JSON text of a [`Line`]. Lines of earlier versions have no `seq`.
pub(super) fn from_stored(stored: &str) -> (Option<u64>, String) {
    let parts = stored.strip_prefix(SEQ).and_then(|rest| rest.split_once(','));
    match parts.and_then(|(seq, rest)| Some((seq.parse().ok()?, rest))) {
        Some((seq, rest)) => (Some(seq), format!("{{{rest}")),
        None => (None, stored.to_owned()),
    }
}
