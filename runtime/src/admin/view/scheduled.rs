//! The JSON form of scheduled events.

use serde::{Deserialize, Serialize};

use super::Envelope;
use evoke_model::clock::UnixMs;
use evoke_model::{Json, Seq};

/// An event that waits for the time in its attribute `notbefore`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScheduledEvent {
    /// The time at which the event is due.
    pub due: String,
    /// The time until `due`, in milliseconds; 0 if this time has come.
    pub wait_ms: u64,
    /// The active functions that would receive the event now, `app/function`. When the event is due, the functions are
    /// determined again.
    pub functions: Vec<String>,
    /// The event, without its data.
    pub event: Envelope,
}

/// Selects scheduled events to cancel: `{"event": "ID or number"}` or `{"pattern": {…}}`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelScheduled {
    /// The id or the number of one event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
    /// All events that match this event pattern.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Json>,
    /// The position after which the search for a pattern continues: `next` of the previous response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Position>,
    /// True to cancel nothing, and only count the selected events.
    #[serde(default)]
    pub dry_run: bool,
}

/// A position in the schedule: time and number of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position(pub UnixMs, pub Seq);

/// The result of a request to cancel scheduled events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CancelledScheduled {
    /// Number of cancelled events; in a dry run, of the events that would be cancelled.
    pub count: u64,
    /// Set if not all events were searched: send the request again with this position as `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Position>,
}
