//! Deliveries: one event owed to one function, the attempts at the delivery, and how they ended.

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::recording::NewRecording;
use crate::state::{StateItem, Transaction};
use crate::{DamagedEvent, DeliveryId, FunctionId, NewEvent, Origin, ReplayId, Seq, StoredEvent};

/// One event owed to one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// The function that receives the event.
    pub function: FunctionId,
    /// The name of the first trigger that matched.
    pub trigger: Arc<str>,
    /// Deliveries of a function with the same key run one after another, in accept order.
    pub order_key: Option<String>,
}

/// A delivery that can run now, or as soon as its retry is due.
#[derive(Debug, Clone)]
pub struct ReadyDelivery {
    /// The delivery's id.
    pub id: DeliveryId,
    /// The function that receives the event.
    pub function: FunctionId,
    /// The name of the trigger that matched.
    pub trigger: Arc<str>,
    /// Number of attempts that ended; all of them failed.
    pub attempts: u32,
    /// How many of `attempts` were made before the last redrive. The retry policy does not count them.
    pub attempts_forgiven: u32,
    /// The time from which `max_age` is counted: the event was accepted or replayed, or the delivery was redriven, at
    /// this store time.
    pub since_ms: UnixMs,
    /// The replay that added the delivery; `None` for a live delivery.
    pub replay: Option<ReplayId>,
    /// The source where the event's chain entered.
    pub origin: Origin,
    /// The event to deliver. When it is damaged, the caller has to end the delivery as a dead letter.
    pub event: Result<Arc<StoredEvent>, DamagedEvent>,
}

impl ReadyDelivery {
    /// Returns the size of the event in memory in bytes, attributes and data; 0 when it is damaged.
    pub fn event_size(&self) -> usize {
        self.event.as_ref().map_or(0, |stored| stored.event.size())
    }
}

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Runs as soon as there is capacity.
    Ready,
    /// The last attempt failed; another attempt follows at a later time.
    Retrying,
    /// Waits for an earlier delivery with the same order key.
    Blocked,
    /// An attempt succeeded.
    Done,
    /// A dead letter: no further attempts until it is redriven or purged.
    Dead,
    /// A dead letter that was purged. Its record is kept.
    Purged,
}

impl DeliveryState {
    /// All states, in the order of their numbers in the store.
    pub const ALL: [Self; 6] = [Self::Ready, Self::Retrying, Self::Blocked, Self::Done, Self::Dead, Self::Purged];

    /// The name used in tables and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Retrying => "retrying",
            Self::Blocked => "blocked",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Purged => "purged",
        }
    }
}

/// The stored record of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Number of the attempt within its delivery, from 1.
    pub attempt: u32,
    /// Time at which the attempt started.
    pub started_ms: UnixMs,
    /// Duration of the attempt in microseconds.
    pub duration_us: u64,
    /// [`evoke_model::outcome::Outcome::kind`].
    pub outcome: Cow<'static, str>,
    /// [`evoke_model::outcome::Outcome::message`].
    pub message: Option<String>,
}

/// The consequence of an attempt for its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The delivery is done.
    Done,
    /// The next attempt is due at this store time.
    RetryAt(UnixMs),
    /// The delivery becomes a dead letter with this cause.
    Dead(String),
}

/// The end of an attempt: all parts commit together or not at all.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The delivery that was attempted.
    pub delivery: DeliveryId,
    /// The function that ran.
    pub function: FunctionId,
    /// The event from outside that started the chain; the delivered event itself if it came from outside.
    pub root: Seq,
    /// The source where the event's chain entered.
    pub origin: Origin,
    /// The record of the attempt.
    pub record: AttemptRecord,
    /// The consequence for the delivery.
    pub verdict: Verdict,
    /// The events to store. If the verdict is `Done`: the events that the function published. If the verdict is `Dead`:
    /// the runtime event that reports the dead letter, if there is one. Otherwise empty.
    pub publishes: Vec<NewEvent>,
    /// State that the attempt read and wrote; contains no writes unless the verdict is `Done`.
    pub state: Transaction,
    /// The recording of the attempt; `None` if the function is not recorded or did not run.
    pub recording: Option<NewRecording>,
}

/// The result of a completion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Completed {
    /// The completion was committed.
    #[default]
    Committed,
    /// Nothing was committed: the delivery is not pending, or the store expects the outcome of another attempt. An
    /// earlier call or another owner has ended this attempt already.
    Superseded,
    /// Another transaction changed state that the attempt had read; nothing was committed.
    Conflict(StateItem),
    /// The writes would exceed a bucket's quota, as the message describes; nothing was committed.
    OverQuota(String),
    /// With the published events, the event from outside that started the chain would have caused more events than
    /// [`crate::DescendantsMax`] allows, as the message describes; nothing was committed.
    TooManyDescendants(String),
}

/// A delivery as shown to users.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// The delivery's id.
    pub id: DeliveryId,
    /// The position of its event.
    pub event: Seq,
    /// The function's full name, `app/function`.
    pub function: String,
    /// The name of the trigger that matched.
    pub trigger: String,
    /// Deliveries of the function with the same key run in order; `None` when they are unordered.
    pub order_key: Option<String>,
    /// The replay that added the delivery; `None` for a live delivery.
    pub replay: Option<ReplayId>,
    /// The current state.
    pub state: DeliveryState,
    /// Why the delivery became a dead letter; set for dead and purged deliveries.
    pub cause: Option<String>,
    /// When the next attempt is due by the wall clock; set for retrying deliveries.
    pub due_ms: Option<UnixMs>,
    /// The attempts that ended, in order.
    pub attempts: Vec<AttemptRecord>,
}
