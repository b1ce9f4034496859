//! The store of the admin API: reads everything, and changes deliveries for an operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::StoreFuture;
use evoke_model::clock::UnixMs;
use evoke_model::{
    Actor, CheckReport, DamagedDelivery, DeadFilter, DeadSummary, DeliveryId, DeliveryState, EventFilter, FunctionId,
    NewEvent, Origin, PendingFilter, ReadDelivery, ReadEvent, Seq, Totals,
};

/// Lists and finds events and deliveries, and redrives and purges dead letters. A damaged row is an error value in its
/// place, so that it hides no other row.
pub trait InspectionStore: Send + Sync + 'static {
    /// Returns one event, or `None` when it is not in the store.
    fn event(&self, seq: Seq) -> StoreFuture<Option<ReadEvent>>;

    /// Returns the URI of an origin; `None` when it has none, or when a store before version 5 did not record it.
    fn origin_uri(&self, origin: Origin) -> Option<Arc<str>>;

    /// Returns the positions of events with this id, newest first, at most 10.
    fn find(&self, id: String) -> StoreFuture<Vec<Seq>>;

    /// Returns the events that match a filter, in ascending order.
    fn events(&self, filter: EventFilter) -> StoreFuture<Vec<ReadEvent>>;

    /// Returns the position of the first event that was accepted at this wall-clock time or later, or the position
    /// after the newest event. Positions are in the order of the acceptance times, so this reads only a few rows.
    fn first_since(&self, wall_ms: UnixMs) -> StoreFuture<Seq>;

    /// Returns the deliveries of an event in order; those added by replays come last.
    fn deliveries(&self, event: Seq) -> StoreFuture<Vec<ReadDelivery>>;

    /// Returns one delivery, or `None` when it is not in the store.
    fn delivery(&self, id: DeliveryId) -> StoreFuture<Option<ReadDelivery>>;

    /// Returns the events that a delivery published and the runtime events about it, in order.
    fn published(&self, delivery: DeliveryId) -> StoreFuture<Vec<ReadEvent>>;

    /// Returns the first `limit` dead letters with a number after `after`, in order.
    fn dead(&self, which: DeadFilter, after: DeliveryId, limit: usize) -> StoreFuture<Vec<ReadDelivery>>;

    /// Returns the `limit` newest dead letters with a number below `before`, newest first, without their attempts.
    fn newest_dead(
        &self,
        which: DeadFilter,
        before: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<Result<DeadSummary, DamagedDelivery>>>;

    /// Returns the ids of pending deliveries greater than `after`, ascending, at most `limit`. If `state` is given,
    /// returns only deliveries in this state. The time depends on `limit` and on the number of retrying deliveries, and
    /// for a root on the size of its chain.
    fn pending_ids(
        &self,
        which: PendingFilter,
        state: Option<DeliveryState>,
        after: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<DeliveryId>>;

    /// Returns the delivery that a blocked delivery waits for: the first unfinished one of its order key. Returns
    /// `None` if the delivery waits for no other.
    fn blocker(&self, blocked: DeliveryId) -> StoreFuture<Option<(DeliveryId, DeliveryState)>>;

    /// Returns, for each function that has ready or retrying live deliveries, the wall-clock time since which the
    /// oldest of these deliveries has been pending. A redrive restarts this time. Blocked deliveries do not count,
    /// because each of them waits for another delivery.
    fn pending_since(&self) -> StoreFuture<BTreeMap<String, UnixMs>>;

    /// Makes retrying deliveries that are not due yet ready now. Their attempts still count. Returns the number of
    /// changed deliveries.
    fn retry_now(&self, actor: &Actor, which: PendingFilter) -> StoreFuture<u64>;

    /// Moves the pending live deliveries of a function, given by its full name, to another function, except for the
    /// deliveries in `except`. No attempt at the moved deliveries may be running. A delivery is not moved if the other
    /// function has a later unfinished delivery of its order key. Returns the number of moved deliveries.
    fn move_pending(&self, actor: &Actor, from: String, to: FunctionId, except: Vec<DeliveryId>) -> StoreFuture<u64>;

    /// Purges a dead letter and accepts `event` in its place, in one commit. Returns the position of the new event, or
    /// `None` if the delivery is no dead letter; nothing changes then.
    fn replace_dead(&self, actor: &Actor, dead: DeliveryId, event: NewEvent) -> StoreFuture<Option<Seq>>;

    /// Makes pending deliveries dead letters with this cause. An attempt that runs now is superseded: nothing of it is
    /// committed. A cancelled delivery can be redriven like any dead letter, and until then it blocks its order key.
    /// Deliveries that become pending during the call are not cancelled. Returns the number of cancelled deliveries.
    fn cancel(&self, actor: &Actor, which: PendingFilter, cause: &str) -> StoreFuture<u64>;

    /// Returns the running totals. No rows are counted, so the time does not depend on the number of events.
    fn totals(&self) -> StoreFuture<Totals>;

    /// Returns the total size of the store's files in bytes.
    fn size_bytes(&self) -> StoreFuture<u64>;

    /// Checks conservation and integrity: counts all rows and compares the counts with the running totals.
    fn check(&self) -> StoreFuture<CheckReport>;

    /// Makes dead letters pending again, with a fresh retry policy. A dead letter behind an unfinished delivery of its
    /// order key becomes blocked, the others become ready. Returns the number of redriven deliveries.
    fn redrive(&self, actor: &Actor, which: DeadFilter) -> StoreFuture<u64>;

    /// Purges dead letters: they stay on record, and the deliveries they blocked can run. Returns the number of purged
    /// deliveries.
    fn purge(&self, actor: &Actor, which: DeadFilter) -> StoreFuture<u64>;
}
