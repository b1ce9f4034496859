//! The JSON form of a replay.

use serde::{Deserialize, Serialize};

use evoke_model::clock::rfc3339;
use evoke_model::{Counts, Json, ReplayId, Seq};

/// A replay of stored events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Replay {
    /// Number of the replay.
    pub id: ReplayId,
    /// `running`, `paused`, `done`, `cancelling`, `cancelled` or `failed`.
    pub state: String,
    /// Why the replay failed; absent in other states.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The requested [`evoke_core::replay::Filter`].
    pub filter: Json,
    /// When the replay was requested.
    pub created: String,
    /// Number of the last event that was read.
    pub position: Seq,
    /// Number of the last event to read.
    pub until: Seq,
    /// Number of events that were delivered again.
    pub events: u64,
    /// Number of deliveries of the replay by state, flattened into this object.
    #[serde(flatten)]
    pub deliveries: Counts,
}

impl From<evoke_model::Replay> for Replay {
    fn from(replay: evoke_model::Replay) -> Self {
        let evoke_model::Replay { id, filter, created_ms, state, position, until, events, deliveries } = replay;
        let is_failed = state == evoke_model::ReplayState::Failed;
        Self {
            id,
            state: state.name().into(),
            reason: if is_failed { evoke_core::replay::stored_filter_error(&filter) } else { None },
            filter: serde_json::from_str::<Json>(&filter).unwrap_or_else(|_| Json(filter.into())),
            created: rfc3339(created_ms),
            position,
            until,
            events,
            deliveries,
        }
    }
}
