//! The store of the dispatcher.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashSet;

use crate::running::UncleanExit;
use crate::{Result, StoreFuture};
use evoke_model::clock::UnixMs;
use evoke_model::state::{StateItem, Transaction};
use evoke_model::{Completed, Completion, DeliveryId, DescendantsLimits, FunctionId, ReadyDelivery, Stream};

/// The results of a commit. After a commit that failed, only `settled` has entries, each with the error.
#[derive(Debug, Default)]
pub struct Committed {
    /// Deliveries that became ready. The store has already claimed them for this owner, as [`DeliveryStore::claim`]
    /// does.
    pub ready: Vec<ReadyDelivery>,
    /// Each completion passed to [`DeliveryStore::settle`], with its result.
    pub settled: Vec<(Arc<Completion>, Result<Completed>)>,
    /// Deliveries that an operator cancelled, with their functions. No attempt at them may start any more.
    pub cancelled: Vec<(FunctionId, DeliveryId)>,
}

/// Receives every commit once, in commit order. The sink must not block.
pub type CommitSink = Box<dyn Fn(Committed) + Send + Sync>;

/// Limits the deliveries that one call returns, and so the memory that the call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadLimit {
    /// The maximum number of deliveries.
    pub deliveries: usize,
    /// The call ends after the delivery whose event brings the total size of the returned events to this number of
    /// bytes or more. So the call returns at least one delivery, and exceeds this number by less than the size of one
    /// event.
    pub bytes: usize,
}

impl LoadLimit {
    /// Limits only the number of deliveries.
    pub fn of(deliveries: usize) -> Self {
        Self { deliveries, bytes: usize::MAX }
    }

    /// Returns true if a call that has found this many deliveries and bytes must end, although there may be more
    /// deliveries to return.
    pub fn is_reached(self, deliveries: usize, bytes: usize) -> bool {
        deliveries >= self.deliveries || (deliveries > 0 && bytes >= self.bytes)
    }

    /// Returns true if the list `found` ended at this limit.
    pub fn is_reached_by(self, found: &[ReadyDelivery]) -> bool {
        // If the number of deliveries has reached its limit, the sizes of their events are not needed.
        self.is_reached(found.len(), 0)
            || self.is_reached(found.len(), found.iter().map(ReadyDelivery::event_size).sum())
    }
}

/// Returns the deliveries that are to run, and stores the results of their attempts.
///
/// A delivery is *claimed* before it runs. If several owners (processes) share one store, no other owner runs a claimed
/// delivery. The claim ends when the attempt ends, when the owner releases the delivery, or when the owner no longer
/// exists. A store with one owner tracks no claims, so it may return a delivery again that this owner already has.
pub trait DeliveryStore: Send + Sync + 'static {
    /// Returns the id of each full function name, and assigns new ids to new names. An id stays the same for the life
    /// of the store.
    fn register(&self, functions: Vec<String>) -> StoreFuture<Vec<FunctionId>>;

    /// Sets the sink that receives, after each commit, the deliveries that became ready and the completions that were
    /// settled. [`DeliveryStore::claim`] finds the deliveries that became ready before this call.
    fn on_commit(&self, sink: CommitSink);

    /// Claims ready deliveries of a function and returns them in accept order: the first ones whose ids are greater
    /// than `after`, up to the limit. The result includes deliveries that this owner has already claimed, but none that
    /// another owner has claimed.
    fn claim(
        &self,
        function: FunctionId,
        stream: Stream,
        after: DeliveryId,
        limit: LoadLimit,
    ) -> StoreFuture<Vec<ReadyDelivery>>;

    /// Claims and returns the first retries of a function that are due at `now_ms`, up to the limit. Also returns the
    /// time at which the next retry after these is due. Both times are store times. The deliveries in `held`, which
    /// the caller already has, are neither returned nor counted: otherwise, they could use up the limit, and the
    /// call would return no other retry. But the returned time can be that of a delivery in `held`.
    fn due(
        &self,
        function: FunctionId,
        stream: Stream,
        now_ms: UnixMs,
        held: HashSet<DeliveryId>,
        limit: LoadLimit,
    ) -> StoreFuture<(Vec<ReadyDelivery>, Option<UnixMs>)>;

    /// Ends the claims on deliveries that this owner will not run, because it stops or because their function is no
    /// longer active. [`DeliveryStore::claim`] and [`DeliveryStore::due`] then return these deliveries again.
    /// Deliveries that are not claimed are ignored.
    fn release(&self, deliveries: Vec<DeliveryId>) -> StoreFuture<()>;

    /// Makes the writes of a transaction visible to [`crate::StateStore::state_with_staged`], so that the next attempt
    /// need not wait for the commit. A staged transaction must later be settled or completed; its writes stay visible
    /// until it is committed or rejected. If an item that the transaction read is already known to have changed, the
    /// commit would conflict. In this case, the call stages nothing and returns the item as the error.
    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), StateItem>;

    /// Ends an attempt: one commit stores the record, the verdict and the published events with their deliveries.
    ///
    /// The attempt must be the next one of its delivery, and the delivery must be pending. Otherwise nothing changes,
    /// and the result is [`Completed::Superseded`]. So it is safe to repeat a completion.
    ///
    /// The state transaction is checked against the state that all earlier completions produce, including those in the
    /// same commit.
    fn complete(&self, completion: Arc<Completion>) -> StoreFuture<Completed>;

    /// Like [`DeliveryStore::complete`], but the future resolves as soon as the store has queued the completion. The
    /// sink of [`DeliveryStore::on_commit`] receives the result, also if the commit fails. One call of the sink per
    /// commit is cheaper than waking one waiting task per completion.
    fn settle(&self, completion: Arc<Completion>) -> StoreFuture<()>;

    /// Returns the order key of a delivery; `None` when the delivery has no order key or is not in the store.
    fn order_key(&self, delivery: DeliveryId) -> StoreFuture<Option<String>>;

    /// Limits the number and the total size of the events that one event from outside may cause; the default is
    /// [`DescendantsLimits::default`]. The result of a completion that would exceed a limit is
    /// [`Completed::TooManyDescendants`]. Events with which the runtime reports failures do not count.
    fn limit_descendants(&self, limits: DescendantsLimits);

    /// Returns the full names of the functions through which a chain came to this delivery, in order; the last one is
    /// the function of the delivery. If retention has removed events of the chain, the functions of these events and of
    /// earlier ones are missing.
    fn chain(&self, delivery: DeliveryId) -> StoreFuture<Vec<String>>;

    /// Records an unclean exit of the process. Increments the exit count of each delivery in `exit` that is still
    /// pending and whose next attempt is still the one that was running. An exit is recorded only once: a call with the
    /// [`UncleanExit::run`] of the last recorded exit changes nothing. With `None`, the call records nothing.
    ///
    /// Returns the exit counts of all pending deliveries and dead letters that have one. For a dead letter, the
    /// returned count is 1: the count that the dead letter has after a redrive.
    fn record_exit(&self, exit: Option<UncleanExit>) -> StoreFuture<BTreeMap<DeliveryId, u32>>;

    /// Returns the store's unique name, assigned at its creation; generated event ids begin with it.
    fn instance(&self) -> &str;
}
