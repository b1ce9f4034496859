//! Storage of events and deliveries: one trait, [`Store`], and a conformance suite that runs over every backend.
//!
//! The store records decisions of the bus; it matches no patterns and runs no functions. Each method documents its own
//! guarantees.

mod backlog;
mod counts;
mod filter;
mod future;
pub mod memory;
mod replay;
pub mod sqlite;

mod validate;

#[cfg(test)]
mod conformance;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use self::future::StoreFuture;
use crate::clock::UnixMs;
use crate::event::Event;
use crate::state::{Entry, Keys, Place, Transaction, Usage};

pub use self::backlog::{Amount, Backlog, Origin};
pub use self::counts::{CheckReport, Counts, Removed, Totals};
pub use self::filter::{DeadFilter, EventFilter, Retention};
pub use self::replay::{NewReplay, Replay, ReplayId, ReplayState, Step, Stream};

/// A position in the total order of accepted events; the first is 1.
pub type Seq = i64;
/// Identifies a delivery within one store; ascending in accept order.
pub type DeliveryId = i64;
/// Identifies a function within one store; assigned by [`Store::register`].
pub type FunctionId = i64;

/// How an event was caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lineage {
    /// The delivery whose function published the event, or whose failure a runtime event reports; `None` for an event
    /// from outside.
    pub cause: Option<DeliveryId>,
    /// The event from outside that started the chain; `None` when this event is that one.
    pub root: Option<Seq>,
    /// Number of functions that the chain passed through before this event.
    pub hops: u32,
    /// The source where the chain entered; pending deliveries of the chain count towards this source's share of the
    /// backlog.
    pub origin: Origin,
}

/// An event to be stored, with its deliveries.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event as the producer or the function sent it.
    pub event: Arc<Event>,
    /// The event's cause, root, hop count and origin.
    pub lineage: Lineage,
    /// One delivery for each function whose triggers matched.
    pub deliveries: Vec<NewDelivery>,
}

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

/// A value that a source stores in the same commit as its events, e.g. a timer's last tick or a file's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The source that owns the mark.
    pub scope: String,
    /// Names the mark within its scope.
    pub key: String,
    /// The value to store; `None` deletes the mark.
    pub value: Option<Vec<u8>>,
}

/// The result of accepting one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The event was stored at this position.
    New(Seq),
    /// An event with the same source and id was accepted within the dedup window and is stored at this position; this
    /// one was not stored.
    Duplicate(Seq),
}

/// An event as read from the store.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// The event's position in accept order.
    pub seq: Seq,
    /// Time of acceptance.
    pub accepted_ms: UnixMs,
    /// The event's cause, root, hop count and origin.
    pub lineage: Lineage,
    /// The event itself; empty when `damage` is set.
    pub event: Arc<Event>,
    /// Describes the damage when the stored row is corrupt; `event` and `lineage` are then empty defaults.
    pub damage: Option<Arc<str>>,
}

impl StoredEvent {
    /// Returns a placeholder for an event whose stored row is corrupt.
    pub fn damaged(seq: Seq, damage: impl Into<Arc<str>>) -> Self {
        let (lineage, event, damage) = (Lineage::default(), Arc::default(), Some(damage.into()));
        Self { seq, accepted_ms: 0, lineage, event, damage }
    }
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
    /// Number of these attempts from before the last redrive; the retry policy does not count them.
    pub attempts_forgiven: u32,
    /// Start of `max_age`: the time at which the event was accepted or replayed, or the delivery redriven.
    pub since_ms: UnixMs,
    /// The replay that added the delivery; `None` for a live delivery.
    pub replay: Option<ReplayId>,
    /// The event to deliver. When it is damaged, the caller has to end the delivery as a dead letter.
    pub event: Arc<StoredEvent>,
}

/// The state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// Runs as soon as there is capacity.
    Ready,
    /// The last attempt failed; the next one runs when it is due.
    Retrying,
    /// Waits for an earlier delivery with the same order key.
    Blocked,
    /// An attempt succeeded.
    Done,
    /// A dead letter: no further attempts until it is redriven or purged.
    Dead,
    /// A dead letter that was purged; it stays on record.
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
    /// [`crate::outcome::Outcome::kind`].
    pub outcome: Cow<'static, str>,
    /// [`crate::outcome::Outcome::message`].
    pub message: Option<String>,
}

/// The consequence of an attempt for its delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The delivery is done.
    Done,
    /// The next attempt is due at this time.
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
    /// The source where the event's chain entered.
    pub origin: Origin,
    /// The record of the attempt.
    pub record: AttemptRecord,
    /// The consequence for the delivery.
    pub verdict: Verdict,
    /// Events to store: those the function published when the verdict is `Done`, otherwise runtime events about the
    /// failure.
    pub publishes: Vec<NewEvent>,
    /// State that the attempt read and wrote; contains no writes unless the verdict is `Done`.
    pub state: Transaction,
}

/// The result of a completion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Completed {
    /// The completion was committed, now or by an earlier call.
    #[default]
    Committed,
    /// Another transaction changed state that the attempt had read; nothing was committed.
    Conflict(Place),
    /// The writes would exceed a bucket's quota, as the message describes; nothing was committed.
    OverQuota(String),
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
    /// When the next attempt is due; set for retrying deliveries.
    pub due_ms: Option<UnixMs>,
    /// The attempts that ended, in order.
    pub attempts: Vec<AttemptRecord>,
    /// Describes the damage when the stored row is corrupt; only `id` is then reliable.
    pub damage: Option<String>,
}

impl DeliveryRecord {
    /// Returns a placeholder for a delivery whose stored row is corrupt.
    pub fn damaged(id: DeliveryId, state: DeliveryState, damage: String) -> Self {
        Self {
            id,
            event: 0,
            function: String::new(),
            trigger: String::new(),
            order_key: None,
            replay: None,
            state,
            cause: None,
            due_ms: None,
            attempts: Vec::new(),
            damage: Some(damage),
        }
    }
}

/// Default time for which a source and id are deduplicated: longer than producers retry, and short enough to reuse an
/// id on the next day.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a call to the store failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// An I/O or integrity error. The store rejects all further writes until it is reopened, because after a failed
    /// sync the content of the disk is unknown. Writes of the failed commit may be on disk: either all of them or none.
    #[error("the store failed: {0}")]
    Failed(String),
    /// The stored data is corrupt, and the store returns none of it. If a write finds the damage, the store rejects all
    /// further writes, as after [`StoreError::Failed`]; after a read, other data stays readable.
    #[error("{0}")]
    Damaged(String),
    /// The disk is full. Nothing of the call was committed; writes succeed again when there is space.
    #[error("the store has no room left on its disk; nothing was written")]
    Full,
    /// The store was closed before the call could be executed.
    #[error("the store is closed")]
    Closed,
}

/// The result type of all store calls.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The effects of one commit, or of one that failed.
#[derive(Debug, Default)]
pub struct Committed {
    /// Deliveries that became ready.
    pub ready: Vec<ReadyDelivery>,
    /// Each completion passed to [`Store::settle`], with its result.
    pub settled: Vec<(Arc<Completion>, Result<Completed>)>,
}

/// Receives every commit once, in commit order. The sink must not block.
pub type CommitSink = Box<dyn Fn(Committed) + Send + Sync>;

/// A durable store for the bus.
///
/// Writes are applied in call order. When a write's future resolves to `Ok`, the write is durably committed. When it
/// resolves to an error, nothing of it was committed, except after [`StoreError::Failed`]: then the outcome is unknown.
pub trait Store: Send + Sync + 'static {
    /// Maps full function names to ids that stay the same for the life of the store.
    fn register(&self, functions: Vec<String>) -> StoreFuture<Vec<FunctionId>>;

    /// Sets the sink that receives, after each commit, the deliveries that became ready and the completions that were
    /// settled. Use [`Store::ready`] to find deliveries that were ready earlier.
    fn on_commit(&self, sink: CommitSink);

    /// Stores events with their deliveries and marks, all or nothing. An event whose source and id were accepted within
    /// the dedup window is returned as a duplicate and not stored; marks are written in any case.
    fn accept(&self, events: Vec<NewEvent>, marks: Vec<Mark>) -> StoreFuture<Vec<Accepted>>;

    /// Ends an attempt: the record, the verdict and the published events with their deliveries commit together.
    /// Completing a delivery that is no longer pending changes nothing, so a completion may be repeated.
    ///
    /// The state transaction is validated at the commit, after all earlier completions, including those of the same
    /// commit.
    fn complete(&self, completion: Arc<Completion>) -> StoreFuture<Completed>;

    /// Like [`Store::complete`], but the future resolves as soon as the store has queued the completion. The sink of
    /// [`Store::on_commit`] receives the result, of a commit or of its failure. One sink call per commit is cheaper
    /// than waking a waiter per completion.
    fn settle(&self, completion: Arc<Completion>) -> StoreFuture<()>;

    /// Makes dead letters ready again, with a fresh retry policy. Returns the number of redriven deliveries.
    fn redrive(&self, which: DeadFilter) -> StoreFuture<u64>;

    /// Purges dead letters: they stay on record, and the deliveries they blocked can run. Returns the number of purged
    /// deliveries.
    fn purge(&self, which: DeadFilter) -> StoreFuture<u64>;

    /// Removes finished events, oldest first, with their deliveries and attempts: those older than the retention age,
    /// and as many more as the store exceeds its size limit. Other writes run in between. The removed source and id are
    /// still deduplicated until the dedup window ends. Returns the number of removed events.
    fn retain(&self, retention: Retention) -> StoreFuture<u64>;

    /// Creates a replay that has not offered any events yet.
    fn start_replay(&self, new: NewReplay) -> StoreFuture<ReplayId>;

    /// Adds deliveries for the next events of a running replay and stores its position, all or nothing. Returns
    /// `false`, and does nothing, when the replay is not running or is already at or past this position. Deliveries of
    /// one replay with the same order key run in order; they never wait for live deliveries, nor live ones for them.
    fn advance_replay(&self, replay: ReplayId, step: Step) -> StoreFuture<bool>;

    /// Moves a replay from one of the states `from` to the state `to`. Returns `false` when it was in none of them.
    fn transition_replay(&self, replay: ReplayId, from: &'static [ReplayState], to: ReplayState) -> StoreFuture<bool>;

    /// Purges the pending deliveries of a replay, except some; they stay on record. Returns the number of purged
    /// deliveries.
    fn purge_replay(&self, replay: ReplayId, except: Vec<DeliveryId>) -> StoreFuture<u64>;

    /// Returns all replays, oldest first.
    fn replays(&self) -> StoreFuture<Vec<Replay>>;

    /// Returns one replay, or `None` when there is no such replay.
    fn replay(&self, id: ReplayId) -> StoreFuture<Option<Replay>>;

    /// Returns the first `limit` ready deliveries of a function with an id greater than `after`, in accept order.
    fn ready(
        &self,
        function: FunctionId,
        stream: Stream,
        after: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<ReadyDelivery>>;

    /// Returns the first `limit` retries of a function that are due at `now_ms`, and the time at which the next one
    /// after these is due.
    fn due(
        &self,
        function: FunctionId,
        stream: Stream,
        now_ms: UnixMs,
        limit: usize,
    ) -> StoreFuture<(Vec<ReadyDelivery>, Option<UnixMs>)>;

    /// Returns the value of a key as of some commit between the call and its result. Recently used values come from
    /// memory.
    fn state(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>>;

    /// Like [`Store::state`], but includes staged writes that are not committed yet. For attempts: their reads are
    /// validated when they commit.
    fn state_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>>;

    /// Makes a transaction's writes visible to [`Store::state_with_staged`], so that the next attempt need not wait for
    /// the commit. Returns the changed key, and stages nothing, when a value that the transaction read is known to have
    /// changed: the commit would conflict. A staged transaction must then be settled or completed; its writes stay
    /// visible until it is committed or rejected.
    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), Place>;

    /// Returns the first `limit` keys of a bucket that sort after `after`.
    fn state_keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> StoreFuture<Keys>;

    /// Returns the number of keys and bytes in a bucket, as of the last commit.
    fn state_usage(&self, bucket: &str) -> Usage;

    /// Returns all non-empty buckets with their usage, as of the last commit.
    fn state_buckets(&self) -> BTreeMap<String, Usage>;

    /// Writes state on behalf of a user, outside of any attempt. Running attempts that read these keys conflict, as
    /// with writes of another attempt. Returns the number of keys that existed before.
    fn state_write(&self, changes: Transaction) -> StoreFuture<u64>;

    /// Returns the marks of a source, by key.
    fn marks(&self, scope: String) -> StoreFuture<BTreeMap<String, Vec<u8>>>;

    /// Returns one event, or `None` when it is not in the store.
    fn event(&self, seq: Seq) -> StoreFuture<Option<StoredEvent>>;

    /// Returns the positions of events with this id, newest first, at most 10.
    fn find(&self, id: String) -> StoreFuture<Vec<Seq>>;

    /// Returns the events that match a filter, in ascending order.
    fn events(&self, filter: EventFilter) -> StoreFuture<Vec<StoredEvent>>;

    /// Returns the deliveries of an event in order; those added by replays come last.
    fn deliveries(&self, event: Seq) -> StoreFuture<Vec<DeliveryRecord>>;

    /// Returns one delivery, or `None` when it is not in the store.
    fn delivery(&self, id: DeliveryId) -> StoreFuture<Option<DeliveryRecord>>;

    /// Returns the events that a delivery published and the runtime events about it, in order.
    fn published(&self, delivery: DeliveryId) -> StoreFuture<Vec<StoredEvent>>;

    /// Returns dead letters, oldest first, at most `limit`.
    fn dead(&self, which: DeadFilter, limit: usize) -> StoreFuture<Vec<DeliveryRecord>>;

    /// Returns the running totals. Nothing is counted, so the time does not depend on the number of events.
    fn totals(&self) -> StoreFuture<Totals>;

    /// Returns the total size of the store's files in bytes.
    fn size_bytes(&self) -> StoreFuture<u64>;

    /// Checks conservation and integrity: counts all rows and compares the counts with the running totals.
    fn check(&self) -> StoreFuture<CheckReport>;

    /// Returns a receiver of the position of the newest event.
    fn newest(&self) -> watch::Receiver<Seq>;

    /// Returns the number and size of pending deliveries, as of the last commit.
    fn backlog(&self) -> &Backlog;

    /// Returns the number of pending deliveries (ready, retrying or blocked), as of the last commit.
    fn pending(&self) -> u64 {
        self.backlog().total().deliveries
    }

    /// Resolves with the reason when the store has failed permanently (see [`StoreError::Failed`]).
    fn failure(&self) -> BoxFuture<'static, String>;

    /// Returns the store's unique name, assigned at its creation; generated event ids begin with it.
    fn instance(&self) -> &str;

    /// Commits all queued writes and rejects later ones.
    fn close(&self) -> StoreFuture<()>;
}
