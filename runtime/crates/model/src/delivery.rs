//! Deliveries and their attempts. A delivery is the task to run one function with one event.

use std::borrow::Cow;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::recording::NewRecording;
use crate::state::{StateItem, Transaction};
use crate::{DamagedEvent, DeliveryId, FunctionId, NewEvent, Origin, ReplayId, Seq, StoredEvent};

/// A delivery to create: one function must receive one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// The function that receives the event.
    pub function: FunctionId,
    /// The name of the first trigger that matched.
    pub trigger: Arc<str>,
    /// The order key; `None` if the delivery is not ordered. Deliveries of a function with the same key run one after
    /// another, in accept order.
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
    /// The number of attempts that have ended. All of them failed.
    pub attempts: u32,
    /// How many of `attempts` were made before the last redrive (an operator's request to try a dead letter again). The
    /// retry policy does not count them.
    pub attempts_forgiven: u32,
    /// The store time from which `max_age` is counted: when the delivery was created, or when it was last redriven. The
    /// delivery of a scheduled event is created when the event becomes due.
    pub since_ms: UnixMs,
    /// The replay that added the delivery; `None` for a live delivery.
    pub replay: Option<ReplayId>,
    /// The source through which the event's chain entered the runtime.
    pub origin: Origin,
    /// The event to deliver. When it is damaged, the caller has to end the delivery as a dead letter.
    pub event: Result<Arc<StoredEvent>, DamagedEvent>,
}

impl ReadyDelivery {
    /// Returns the size of the event in bytes, attributes and data together; 0 for a damaged event.
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
    /// A dead letter: there are no further attempts unless it is redriven.
    Dead,
    /// A dead letter that was purged. The record of the delivery stays in the store.
    Purged,
}

impl DeliveryState {
    /// All states, in the order of their numbers in the store.
    pub const ALL: [Self; 6] = [Self::Ready, Self::Retrying, Self::Blocked, Self::Done, Self::Dead, Self::Purged];

    /// Returns the name of the state in tables and JSON.
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
    /// When the attempt started, by the wall clock.
    pub started_ms: UnixMs,
    /// Duration of the attempt in microseconds.
    pub duration_us: u64,
    /// The [kind](crate::outcome::Outcome::kind) of the outcome, such as `retry`.
    pub outcome: Cow<'static, str>,
    /// The [message](crate::outcome::Outcome::message) of the outcome.
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

/// The result of an attempt, to be stored. All of its parts are committed together or not at all.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The delivery that was attempted.
    pub delivery: DeliveryId,
    /// The function that ran.
    pub function: FunctionId,
    /// The event from outside that started the chain; the delivered event itself if it came from outside.
    pub root: Seq,
    /// The source through which the event's chain entered the runtime.
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
    /// Nothing was committed: the delivery is not pending, or the store expects the result of an attempt with another
    /// number. An earlier call, an operator or another process has already ended this attempt.
    Superseded,
    /// Nothing was committed: another transaction has changed this item since the attempt read it.
    Conflict(StateItem),
    /// Nothing was committed: the writes would exceed the quota of a bucket, as the message describes.
    OverQuota(String),
    /// Nothing was committed: with the published events, the chain would have more events than
    /// [`crate::DescendantsMax`] allows, as the message describes.
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
    /// The order key; `None` if the delivery is not ordered. Deliveries of the function with the same key run in order.
    pub order_key: Option<String>,
    /// The replay that added the delivery; `None` for a live delivery.
    pub replay: Option<ReplayId>,
    /// The current state.
    pub state: DeliveryState,
    /// Why the delivery became a dead letter; set for dead and purged deliveries.
    pub cause: Option<String>,
    /// When the next attempt is due, by the wall clock; set for retrying deliveries.
    pub due_ms: Option<UnixMs>,
    /// The attempts that ended, in order.
    pub attempts: Vec<AttemptRecord>,
}
