//! Where events and deliveries live. One trait, a conformance suite over every backend.
//!
//! The store holds what the bus decided; it matches nothing and runs nothing. Its promises stand at the methods.

mod answer;
mod backlog;
mod counts;
mod filter;
pub mod memory;
mod replay;
pub mod sqlite;

mod judge;

#[cfg(test)]
mod conformance;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use self::answer::Answer;
use crate::clock::UnixMs;
use crate::event::Event;
use crate::state::{Entry, Keys, StateItem, Transaction, Usage};

pub use self::backlog::{Amount, Backlog, Origin};
pub use self::counts::{CheckReport, Counts, Removed, Totals};
pub use self::filter::{DeadFilter, EventFilter, Retention};
pub use self::replay::{NewReplay, Replay, ReplayId, ReplayState, Step, Stream};

/// A position in the total order of accepted events; the first is 1.
pub type Seq = i64;
/// Names a delivery within one store; ascending in accept order.
pub type DeliveryId = i64;
/// Names a function within one store, given by [`Store::register`].
pub type FunctionId = i64;

/// How an event came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lineage {
    /// The delivery whose function published it, or that the runtime says something of; `None` for an event from
    /// outside.
    pub cause: Option<DeliveryId>,
    /// The event from outside that started the chain; `None` when it is that event.
    pub root: Option<Seq>,
    /// How many functions the chain went through to this event.
    pub hops: u32,
    /// The source where the chain came in: its backlog is this source's share.
    pub origin: Origin,
}

/// An event as it is to be stored, with the deliveries it is owed.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event.
    pub event: Arc<Event>,
    /// Where it comes from.
    pub lineage: Lineage,
    /// One per function that it matched.
    pub deliveries: Vec<NewDelivery>,
}

/// One event owed to one function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDelivery {
    /// The function.
    pub function: FunctionId,
    /// The name of the trigger that matched first.
    pub trigger: Arc<str>,
    /// Deliveries of a function with the same key run one after another, in accept order.
    pub order_key: Option<String>,
}

/// A note that a source keeps beside its events, in the same commit: a timer's last tick, a file's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The source that keeps it.
    pub scope: String,
    /// What it is about.
    pub key: String,
    /// What is noted; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// What became of an offered event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// It is stored at this position.
    New(Seq),
    /// Its source and id were accepted within the dedup window: it was stored at this position before, and nothing
    /// was stored now.
    Duplicate(Seq),
}

/// An event as it stands in the store.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its position.
    pub seq: Seq,
    /// When it was accepted.
    pub accepted_ms: UnixMs,
    /// Where it comes from.
    pub lineage: Lineage,
    /// The event.
    pub event: Arc<Event>,
    /// What is wrong, where it is not what was written: then there is nothing in `event` or `lineage`, and nobody is
    /// handed it.
    pub damage: Option<Arc<str>>,
}

impl StoredEvent {
    /// What stands for an event that is not what was written.
    pub fn damaged(seq: Seq, damage: impl Into<Arc<str>>) -> Self {
        let (lineage, event, damage) = (Lineage::default(), Arc::default(), Some(damage.into()));
        Self { seq, accepted_ms: 0, lineage, event, damage }
    }
}

/// A delivery that can run now, or could when its retry is due.
#[derive(Debug, Clone)]
pub struct ReadyDelivery {
    /// Its name.
    pub id: DeliveryId,
    /// Who it is for.
    pub function: FunctionId,
    /// The trigger that matched.
    pub trigger: Arc<str>,
    /// Attempts that ended, all of them failures.
    pub attempts: u32,
    /// How many of these came before it was redriven, and do not count for its retry policy.
    pub attempts_forgiven: u32,
    /// When the event was accepted, offered again, or the delivery redriven: what `max_age` counts from.
    pub since_ms: UnixMs,
    /// The replay that offers the event again; `None` for a live delivery.
    pub replay: Option<ReplayId>,
    /// The event that is owed. Where it is damaged, the delivery has to be given up.
    pub event: Arc<StoredEvent>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It runs as soon as there is room.
    Ready,
    /// It failed and runs again when it is due.
    Retrying,
    /// An earlier delivery of its order key is not done.
    Blocked,
    /// It is done.
    Done,
    /// It was given up and waits for a person.
    Dead,
    /// It was given up and a person let it go.
    Purged,
}

impl DeliveryState {
    /// Every one.
    pub const ALL: [Self; 6] = [Self::Ready, Self::Retrying, Self::Blocked, Self::Done, Self::Dead, Self::Purged];

    /// The word for it in tables and JSON.
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

/// How one attempt went, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Counts from 1 within the delivery.
    pub attempt: u32,
    /// When it started.
    pub started_ms: UnixMs,
    /// How long it took.
    pub duration_us: u64,
    /// [`crate::outcome::Outcome::kind`].
    pub outcome: Cow<'static, str>,
    /// [`crate::outcome::Outcome::message`].
    pub message: Option<String>,
}

/// What becomes of the delivery, as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Done.
    Done,
    /// Again at this time.
    RetryAt(UnixMs),
    /// A dead letter with this cause.
    Dead(String),
}

/// The end of an attempt: everything in it commits together or not at all.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Which delivery.
    pub delivery: DeliveryId,
    /// Whose it is.
    pub function: FunctionId,
    /// Where its event's chain came in.
    pub origin: Origin,
    /// How the attempt went.
    pub record: AttemptRecord,
    /// What follows.
    pub verdict: Verdict,
    /// What the function published when the verdict is `Done`; else what the runtime says of the failure.
    pub publishes: Vec<NewEvent>,
    /// What it read of its state, and what it writes to it; no writes unless the verdict is `Done`.
    pub state: Transaction,
}

/// What became of a completion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Completed {
    /// It is committed, or was before.
    #[default]
    Committed,
    /// The attempt read what another changed meanwhile: nothing of it was committed.
    Conflict(StateItem),
    /// A bucket would hold more than it may, as this says: nothing of it was committed.
    OverQuota(String),
}

/// A delivery as people look at it.
#[derive(Debug, Clone)]
pub struct DeliveryRecord {
    /// Its name.
    pub id: DeliveryId,
    /// The event it is for.
    pub event: Seq,
    /// The function's full name, `app/function`.
    pub function: String,
    /// The trigger that matched.
    pub trigger: String,
    /// Its order key.
    pub order_key: Option<String>,
    /// The replay that offered the event again; `None` for a live delivery.
    pub replay: Option<ReplayId>,
    /// Where it stands.
    pub state: DeliveryState,
    /// Why it was given up, for a dead or purged one.
    pub cause: Option<String>,
    /// When it is tried again, for a retrying one.
    pub due_ms: Option<UnixMs>,
    /// The attempts that ended, in order.
    pub attempts: Vec<AttemptRecord>,
    /// What is wrong, where it is not what was written: then nothing but `id` is known of it.
    pub damage: Option<String>,
}

impl DeliveryRecord {
    /// What stands for a delivery that is not what was written.
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

/// How long a source and id are known by default: longer than producers try again, short enough that nobody waits for
/// an id to be free.
pub const DEDUP_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

/// Why the store did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// An I/O or integrity error. The store takes no more writes until it is opened again: after a failed sync nobody
    /// knows what is on disk. What was written with it may be there then, or not: whole or not at all.
    #[error("the store failed: {0}")]
    Failed(String),
    /// What is on disk is not what was written there: nothing of it is handed out. When writing comes upon it the store
    /// takes no more writes, as after [`StoreError::Failed`]; whoever only reads can read something else.
    #[error("{0}")]
    Damaged(String),
    /// The disk is full. Nothing of the call was committed; writes work again when there is room.
    #[error("the store has no room left on its disk; nothing was written")]
    Full,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// A result of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What one commit brought about, or failed to.
#[derive(Debug, Default)]
pub struct Committed {
    /// Deliveries that became ready.
    pub ready: Vec<ReadyDelivery>,
    /// What [`Store::settle`] was given, each with what became of it.
    pub settled: Vec<(Arc<Completion>, Result<Completed>)>,
}

/// Told of every commit, in commit order and once a commit. It must not block.
pub type CommitSink = Box<dyn Fn(Committed) + Send + Sync>;

/// A durable bus store.
///
/// Writes are applied in the order of the calls. When the answer to a write resolves to `Ok`, the write is durably
/// committed; when it resolves to an error, nothing of it is, but for [`StoreError::Failed`], after which nobody knows.
pub trait Store: Send + Sync + 'static {
    /// Names that belong to functions, to ids that stay the same for the life of the store.
    fn register(&self, functions: Vec<String>) -> Answer<Vec<FunctionId>>;

    /// From now on tells `sink` of every delivery that becomes ready through a commit, and of what was settled.
    /// Deliveries that were ready before are found with [`Store::ready`].
    fn on_commit(&self, sink: CommitSink);

    /// Stores events with their deliveries and marks, all or nothing. An event whose source and id were accepted
    /// within the dedup window is answered as a duplicate and stores nothing; marks are written all the same.
    fn accept(&self, events: Vec<NewEvent>, marks: Vec<Mark>) -> Answer<Vec<Accepted>>;

    /// Ends an attempt: record, verdict, published events and their deliveries commit together. A delivery that is
    /// not pending any more is left alone: a completion that is repeated changes nothing.
    ///
    /// The state's part is judged at the commit, after all completions before it, also those of the same commit.
    fn complete(&self, completion: Arc<Completion>) -> Answer<Completed>;

    /// Like [`Store::complete`], but the answer only says that the store has taken it over: the sink of
    /// [`Store::on_commit`] is told when it is committed, or was not. One call for a whole commit is cheaper than
    /// waking who waits for each.
    fn settle(&self, completion: Arc<Completion>) -> Answer<()>;

    /// Makes dead letters ready again, with fresh attempts; answers how many.
    fn redrive(&self, which: DeadFilter) -> Answer<u64>;

    /// Lets dead letters go: they stay on record as purged, and what they blocked goes on. Answers how many.
    fn purge(&self, which: DeadFilter) -> Answer<u64>;

    /// Removes events that are over, with their deliveries and attempts, the oldest first: those that are older than
    /// is kept, and as many as the store is too large. Other writes go on in between. Their source and id are known
    /// for the dedup window all the same. Answers how many.
    fn retain(&self, retention: Retention) -> Answer<u64>;

    /// Begins a replay, with nothing offered yet.
    fn start_replay(&self, new: NewReplay) -> Answer<ReplayId>;

    /// Offers events of a running replay again and notes how far it came, all or nothing; answers `false`, with
    /// nothing done, when it is not running or came as far before. Their deliveries are the replay's own: with the
    /// same order key they run one after another, and never wait for live ones, nor live ones for them.
    fn advance_replay(&self, replay: ReplayId, step: Step) -> Answer<bool>;

    /// Has a replay go from any of these states to another; answers `false` when it was in none of them.
    fn turn_replay(&self, replay: ReplayId, from: &'static [ReplayState], to: ReplayState) -> Answer<bool>;

    /// Lets pending deliveries of a replay go, but for some: they stay on record as purged. Answers how many.
    fn drop_replay(&self, replay: ReplayId, but_for: Vec<DeliveryId>) -> Answer<u64>;

    /// All replays, the oldest first.
    fn replays(&self) -> Answer<Vec<Replay>>;

    /// One replay.
    fn replay(&self, id: ReplayId) -> Answer<Option<Replay>>;

    /// The first `limit` deliveries of a function behind `after` that are ready, in accept order.
    fn ready(
        &self,
        function: FunctionId,
        stream: Stream,
        after: DeliveryId,
        limit: usize,
    ) -> Answer<Vec<ReadyDelivery>>;

    /// The first `limit` retries of a function that are due at `now_ms`, and when the next one after these is due.
    fn due(
        &self,
        function: FunctionId,
        stream: Stream,
        now_ms: UnixMs,
        limit: usize,
    ) -> Answer<(Vec<ReadyDelivery>, Option<UnixMs>)>;

    /// The value of a key, as of some commit between the call and the answer. One that was used lately is answered
    /// from memory.
    fn state(&self, bucket: &str, key: &str) -> Answer<Option<Entry>>;

    /// The same, with what was staged and is not committed yet: for an attempt, which is judged in its turn.
    fn state_ahead(&self, bucket: &str, key: &str) -> Answer<Option<Entry>>;

    /// Shows what a transaction writes to those that read ahead, so that an attempt need not wait for the commit of
    /// the one before. The error is what was changed since it was read: it would be a conflict, and nothing is shown.
    /// What was staged has to be settled or completed; it is shown until that is committed or refused.
    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), StateItem>;

    /// The first `limit` keys of a bucket behind `after`.
    fn state_keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> Answer<Keys>;

    /// What a bucket holds, as of the last commit.
    fn state_usage(&self, bucket: &str) -> Usage;

    /// The buckets that hold something, as of the last commit.
    fn state_buckets(&self) -> BTreeMap<String, Usage>;

    /// Writes state outside of any attempt, for a person. What attempts under way read of it is changed like by
    /// another attempt. Answers how many of the keys were there before.
    fn state_write(&self, changes: Transaction) -> Answer<u64>;

    /// The marks of a source, by key.
    fn marks(&self, scope: String) -> Answer<BTreeMap<String, Vec<u8>>>;

    /// One event.
    fn event(&self, seq: Seq) -> Answer<Option<StoredEvent>>;

    /// The positions of events with this id, newest first, at most 10.
    fn find(&self, id: String) -> Answer<Vec<Seq>>;

    /// Events by filter, in ascending order.
    fn events(&self, filter: EventFilter) -> Answer<Vec<StoredEvent>>;

    /// The deliveries of an event, in order; those of replays last.
    fn deliveries(&self, event: Seq) -> Answer<Vec<DeliveryRecord>>;

    /// One delivery.
    fn delivery(&self, id: DeliveryId) -> Answer<Option<DeliveryRecord>>;

    /// What a delivery published, and what the runtime said of it, in order.
    fn published(&self, delivery: DeliveryId) -> Answer<Vec<StoredEvent>>;

    /// Dead letters, oldest first, at most `limit`.
    fn dead(&self, which: DeadFilter, limit: usize) -> Answer<Vec<DeliveryRecord>>;

    /// The numbers, which run along: nothing is counted, so that it takes the same time with any number of events.
    fn totals(&self) -> Answer<Totals>;

    /// Its files on disk, in bytes.
    fn size_bytes(&self) -> Answer<u64>;

    /// Verifies conservation and integrity: counts, and compares with the numbers that run along.
    fn check(&self) -> Answer<CheckReport>;

    /// The position of the newest event, as it changes.
    fn newest(&self) -> watch::Receiver<Seq>;

    /// What is owed now, as of the last commit.
    fn backlog(&self) -> &Backlog;

    /// Deliveries that are owed now: ready, retrying or blocked, as of the last commit.
    fn pending(&self) -> u64 {
        self.backlog().total().deliveries
    }

    /// Resolves when the store has failed for good (see [`StoreError::Failed`]), with the reason.
    fn failure(&self) -> BoxFuture<'static, String>;

    /// A name that this store alone has, given when it was made: prefixes the ids that it hands out.
    fn instance(&self) -> &str;

    /// Commits what is under way and takes nothing more.
    fn close(&self) -> Answer<()>;
}
