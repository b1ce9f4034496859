//! Replays, as JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Counts;
use crate::clock::rfc3339;
use crate::store::{self, ReplayId, Seq};

/// A replay of stored events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Its number.
    pub id: ReplayId,
    /// `running`, `paused`, `done`, `cancelling` or `cancelled`.
    pub state: String,
    /// What was asked for, a [`crate::replay::Filter`].
    pub filter: Value,
    /// When it was asked for.
    pub created: String,
    /// Events up to here were looked at.
    pub position: Seq,
    /// Events up to here are looked at in the end.
    pub until: Seq,
    /// Events that were offered.
    pub events: u64,
    /// Its deliveries by state, as members beside these.
    #[serde(flatten)]
    pub deliveries: Counts,
}

impl From<store::Replay> for Replay {
    fn from(replay: store::Replay) -> Self {
        let store::Replay { id, filter, created_ms, state, position, until, events, deliveries } = replay;
        Self {
            id,
            state: state.name().into(),
            filter: serde_json::from_str(&filter).unwrap_or(Value::String(filter)),
            created: rfc3339(created_ms),
            position,
            until,
            events,
            deliveries: (&deliveries).into(),
        }
    }
}
