//! Replays: stored events offered again on request.

use std::sync::Arc;

use crate::clock::UnixMs;
use crate::{Counts, NewDelivery, ReplayId, Seq, StoredEvent};

/// Live and replayed deliveries are two streams. Each stream has its own windows and its own order-key chains, so a
/// replayed delivery never delays a live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Deliveries created when events are accepted.
    Live,
    /// Deliveries that replays add for stored events.
    Replay,
}

impl Stream {
    /// Both streams.
    pub const ALL: [Self; 2] = [Self::Live, Self::Replay];

    /// Returns the stream of a replay's deliveries, or of live ones for `None`.
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
    /// Its events are being offered.
    Running,
    /// A user paused it.
    Paused,
    /// All events were processed, and all deliveries ended.
    Done,
    /// A user cancelled it, and some deliveries are still running.
    Cancelling,
    /// A user cancelled it, and no delivery is left running.
    Cancelled,
    /// Its stored filter is not valid for this version of Evoke. No more events are offered; deliveries that were
    /// offered before still run.
    Failed,
}

impl ReplayState {
    /// The name used in tables and JSON.
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
    /// [`NewReplay::filter`].
    pub filter: String,
    /// Time of the request.
    pub created_ms: UnixMs,
    /// The current state.
    pub state: ReplayState,
    /// Events up to this position were processed.
    pub position: Seq,
    /// The last position to process.
    pub until: Seq,
    /// Number of events offered.
    pub events: u64,
    /// Number of its deliveries in each state.
    pub deliveries: Counts,
}

impl Replay {
    /// The cause recorded for deliveries purged with their replay.
    pub const CANCELLED: &'static str = "its replay was cancelled";
}

/// One step of a replay: the events that it offers in one commit, and its new position.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// After this step, the events up to this position are processed.
    pub position: Seq,
    /// The events to offer, each with its new deliveries. The store skips an event that retention has removed since it
    /// was read.
    pub offers: Vec<(Arc<StoredEvent>, Vec<NewDelivery>)>,
}
