//! Replays: on request of an operator, stored events are delivered to functions again.

use std::sync::Arc;

use crate::clock::UnixMs;
use crate::{Counts, NewDelivery, ReplayId, Seq, StoredEvent};

/// Live and replayed deliveries are two streams. For each stream of a function, the dispatcher has a separate queue and
/// a separate order of deliveries with the same order key. So a replayed delivery never delays a live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Deliveries created when events are accepted.
    Live,
    /// Deliveries that replays add for stored events.
    Replay,
}

impl Stream {
    /// The two streams.
    pub const ALL: [Self; 2] = [Self::Live, Self::Replay];

    /// Returns the stream of a delivery that `replay` added, or of a live delivery if `replay` is `None`.
    pub fn of(replay: Option<ReplayId>) -> Self {
        if replay.is_some() { Self::Replay } else { Self::Live }
    }
}

/// A request for a new replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    /// The filter that selects the events and functions to replay, as JSON text. The store does not parse the filter.
    pub filter: String,
    /// Only events after this position are replayed.
    pub after: Seq,
    /// Only events up to this position are replayed. Later events already have live deliveries.
    pub until: Seq,
}

/// The state of a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// Some events were not processed yet, or some deliveries of the replay have not ended.
    Running,
    /// A user paused the replay.
    Paused,
    /// All events were processed, and all deliveries of the replay have ended.
    Done,
    /// A user cancelled the replay, and some of its deliveries are still running.
    Cancelling,
    /// A user cancelled the replay, and none of its deliveries is running any more.
    Cancelled,
    /// The stored filter is not valid for this version of Evoke. The replay adds no more deliveries. Deliveries that it
    /// added before still run.
    Failed,
}

impl ReplayState {
    /// Returns the name of the state in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }
}

/// A replay as read from the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// The replay's id.
    pub id: ReplayId,
    /// The filter of the request, see [`NewReplay::filter`].
    pub filter: String,
    /// Time of the request.
    pub created_ms: UnixMs,
    /// The current state.
    pub state: ReplayState,
    /// Events up to this position were processed.
    pub position: Seq,
    /// The last position to process.
    pub until: Seq,
    /// The number of events for which the replay added deliveries.
    pub events: u64,
    /// The number of the replay's deliveries in each state.
    pub deliveries: Counts,
}

impl Replay {
    /// The recorded cause of a delivery that was purged because its replay was cancelled.
    pub const CANCELLED: &'static str = "its replay was cancelled";
}

/// One step of a replay, stored in one commit: new deliveries of events, and the new position of the replay.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// After this step, the events up to this position are processed.
    pub position: Seq,
    /// The events to replay, each with its new deliveries. The store skips an event that retention has removed since
    /// the event was read.
    pub offers: Vec<(Arc<StoredEvent>, Vec<NewDelivery>)>,
}
