//! Replays: stored events that are offered again, on request.

use std::sync::Arc;

use super::{Counts, NewDelivery, Seq, StoredEvent};
use crate::clock::UnixMs;

/// Names a replay within one store; ascending, from 1.
pub type ReplayId = i64;

/// Deliveries come in two streams, each with its own windows and its own chains of order keys, so that a replay never
/// stands before what happens now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Of events when they are accepted.
    Live,
    /// Of stored events that are offered again.
    Replay,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Live, Self::Replay];

    /// Where deliveries of this replay belong, or live ones.
    pub fn of(replay: Option<ReplayId>) -> Self {
        if replay.is_some() { Self::Replay } else { Self::Live }
    }
}

/// A replay that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewReplay {
    /// Which events and functions are meant, in the words of who asked: the store only keeps it.
    pub filter: String,
    /// Events after this position are looked at.
    pub after: Seq,
    /// Events up to this position are looked at: what comes later is live.
    pub until: Seq,
}

/// Where a replay stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayState {
    /// Its events are offered one after another.
    Running,
    /// A person stopped it for now.
    Paused,
    /// Every event was looked at, and every delivery ended.
    Done,
    /// A person called it off, and some of its deliveries run still.
    Cancelling,
    /// A person called it off.
    Cancelled,
}

impl ReplayState {
    /// The word for it in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A replay as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Its name.
    pub id: ReplayId,
    /// [`NewReplay::filter`].
    pub filter: String,
    /// When it was asked for.
    pub created_ms: UnixMs,
    /// Where it stands.
    pub state: ReplayState,
    /// Events up to here were looked at.
    pub position: Seq,
    /// Events up to here are looked at in the end.
    pub until: Seq,
    /// Events that were offered.
    pub events: u64,
    /// Its deliveries.
    pub deliveries: Counts,
}

impl Replay {
    /// The cause of a delivery that was let go with its replay.
    pub const CANCELLED: &'static str = "its replay was cancelled";
}

/// What a replay offers in one commit, with how far it came.
#[derive(Debug, Clone, Default)]
pub struct Step {
    /// Events up to here were looked at.
    pub position: Seq,
    /// Events to be offered again, and who to. What retention removed meanwhile is left out.
    pub offers: Vec<(Arc<StoredEvent>, Vec<NewDelivery>)>,
}
