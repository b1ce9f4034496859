//! Storage of events and deliveries: one trait, [`Store`], and a conformance suite that runs over every backend.
//!
//! The store records decisions of the bus; it matches no patterns and runs no functions. Each method documents its own
//! guarantees.

#![warn(missing_docs)]

pub mod backlog;
mod future;
pub mod memory;
pub mod validate;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

pub use self::future::StoreFuture;
use evoke_model::clock::UnixMs;
use evoke_model::state::{Entry, Keys, StateItem, Transaction, Usage};

use evoke_model::{
    Accepted, CheckReport, Completed, Completion, DeadFilter, DeliveryId, DeliveryRecord, EventFilter, FunctionId,
    Mark, NewEvent, NewReplay, ReadyDelivery, Replay, ReplayId, ReplayState, Retention, Seq, Step, StoredEvent, Stream,
    Totals,
};

pub use self::backlog::Backlog;

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
    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), StateItem>;

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
