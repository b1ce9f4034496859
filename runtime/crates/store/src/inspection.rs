//! The store of the admin API: reads everything, and changes deliveries for an operator.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::StoreFuture;
use evoke_model::clock::UnixMs;
use evoke_model::{
    Actor, CheckReport, DamagedDelivery, DeadFilter, DeadSummary, DeliveryId, DeliveryState, EventFilter, FunctionId,
    NewEvent, Origin, PendingFilter, ReadDelivery, ReadEvent, Seq, Totals,
};

/// Lists and finds events and deliveries, and redrives and purges dead letters. A damaged row does not make a list
/// fail: the list contains an error at the place of the row.
pub trait InspectionStore: Send + Sync + 'static {
    /// Returns one event, or `None` when it is not in the store.
    fn event(&self, seq: Seq) -> StoreFuture<Option<ReadEvent>>;

    /// Returns the URI of an origin; `None` if the store does not know the origin, or if the origin was last registered
    /// while the store had a schema version before 5: these versions did not record URIs.
    fn origin_uri(&self, origin: Origin) -> Option<Arc<str>>;

    /// Returns the positions of events with this id, newest first, at most 10.
    fn find(&self, id: String) -> StoreFuture<Vec<Seq>>;

    /// Returns the events that match a filter, in ascending order of their positions.
    fn events(&self, filter: EventFilter) -> StoreFuture<Vec<ReadEvent>>;

    /// Returns the position that divides the events by this wall-clock time: the events before it were accepted
    /// earlier, and the events from it on at this time or later. There may be no event at the position itself. If
    /// all events were accepted earlier, returns the position after the newest event. Positions are in the order of
    /// the acceptance times, so this reads only a few rows.
    fn first_since(&self, wall_ms: UnixMs) -> StoreFuture<Seq>;

    /// Returns the deliveries of an event in order; those added by replays come last.
    fn deliveries(&self, event: Seq) -> StoreFuture<Vec<ReadDelivery>>;

    /// Returns one delivery, or `None` when it is not in the store.
    fn delivery(&self, id: DeliveryId) -> StoreFuture<Option<ReadDelivery>>;

    /// Returns, in order, the events that a delivery published and the events with which the runtime reported failures
    /// of the delivery.
    fn published(&self, delivery: DeliveryId) -> StoreFuture<Vec<ReadEvent>>;

    /// Returns the first `limit` dead letters with an id greater than `after`, in ascending order.
    fn dead(&self, which: DeadFilter, after: DeliveryId, limit: usize) -> StoreFuture<Vec<ReadDelivery>>;

    /// Returns the `limit` newest dead letters with an id below `before`, newest first, without their attempts.
    fn newest_dead(
        &self,
        which: DeadFilter,
        before: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<Result<DeadSummary, DamagedDelivery>>>;

    /// Returns the ids of the first `limit` pending deliveries with an id greater than `after`, in ascending order.
    /// With `state`, returns only deliveries in this state. The duration of the call grows with `limit` and with the
    /// number of retrying deliveries; for [`PendingFilter::Root`], it grows with the size of the chain.
    fn pending_ids(
        &self,
        which: PendingFilter,
        state: Option<DeliveryState>,
        after: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<DeliveryId>>;

    /// Returns the delivery for which a blocked delivery waits: the first unfinished one of its order key. Returns
    /// `None` if the delivery is not blocked.
    fn blocker(&self, blocked: DeliveryId) -> StoreFuture<Option<(DeliveryId, DeliveryState)>>;

    /// For each function that has ready or retrying live deliveries, returns the wall-clock time since which the oldest
    /// of these deliveries has been pending. A redrive restarts this time. Blocked deliveries do not count, because
    /// each of them waits for another delivery. The result can be outdated by 1 ms for each 1,000 retrying deliveries.
    fn pending_since(&self) -> StoreFuture<BTreeMap<String, UnixMs>>;

    /// Makes retrying deliveries ready before they are due. For the retry policy, their earlier attempts still count.
    /// Returns the number of changed deliveries.
    fn retry_now(&self, actor: &Actor, which: PendingFilter) -> StoreFuture<u64>;

    /// Moves the pending live deliveries of the function `from` (a full name) to another function, except for the
    /// deliveries in `except`. The caller ensures that no attempt at the moved deliveries is running. A delivery is not
    /// moved if the other function has a later unfinished delivery with the same order key. Returns the number of moved
    /// deliveries.
    fn move_pending(&self, actor: &Actor, from: String, to: FunctionId, except: Vec<DeliveryId>) -> StoreFuture<u64>;

    /// Purges a dead letter and accepts `event` in its place, in one commit. Returns the position of the new event.
    /// Returns `None`, and changes nothing, if the delivery is not a dead letter.
    fn replace_dead(&self, actor: &Actor, dead: DeliveryId, event: NewEvent) -> StoreFuture<Option<Seq>>;

    /// Turns pending deliveries into dead letters with this cause. A running attempt at such a delivery is superseded:
    /// none of its effects is committed. A cancelled delivery can be redriven like any dead letter, and until then it
    /// blocks its order key. Deliveries that become pending during the call are not cancelled. Returns the number of
    /// cancelled deliveries.
    fn cancel(&self, actor: &Actor, which: PendingFilter, cause: &str) -> StoreFuture<u64>;

    /// Returns the numbers of events and deliveries. Every commit updates these numbers, and this call counts no rows.
    /// So the duration of the call does not depend on the number of events.
    fn totals(&self) -> StoreFuture<Totals>;

    /// Returns the total size of the store's files in bytes.
    fn size_bytes(&self) -> StoreFuture<u64>;

    /// Checks that no row is damaged and that no event or delivery was lost: counts all rows and compares the counts
    /// with the totals that every commit updates.
    fn check(&self) -> StoreFuture<CheckReport>;

    /// Makes dead letters pending again; their retry policy starts from the beginning. A dead letter behind an
    /// unfinished delivery of its order key becomes blocked, the others become ready. Returns the number of redriven
    /// deliveries.
    fn redrive(&self, actor: &Actor, which: DeadFilter) -> StoreFuture<u64>;

    /// Purges dead letters. Purged deliveries stay in the store, and the deliveries that waited for them can run.
    /// Returns the number of purged deliveries.
    fn purge(&self, actor: &Actor, which: DeadFilter) -> StoreFuture<u64>;
}
