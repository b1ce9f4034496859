//! What waits and runs of one function: a bounded window over the store. Pure state, no I/O, no time of its own.
//!
//! Every delivery that is ready is either *held* here or will be found by a load. The store announces deliveries as
//! they become ready; when the window is full they are left to the store and the lane is *behind*, until it has
//! room and loads what it left, from its cursor on.

use std::collections::VecDeque;

use foldhash::HashSet;

use crate::clock::UnixMs;
use crate::store::{DeliveryId, ReadyDelivery};

/// Deliveries that wait in memory: enough that a load of this many takes longer to run than to read.
pub(super) const WINDOW_MAX: usize = 256;

/// Their payload: a hundred busy lanes stay under a gigabyte.
const WINDOW_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How many a load asks for: at events of the largest size, 64 MiB.
pub(super) const LOAD_MAX: usize = 64;

/// One retry runs after so many fresh deliveries when both wait: retries go on, and do not crowd out fresh work.
const FRESH_PER_RETRY: u32 = 4;

#[derive(Default)]
pub(super) struct Lane {
    fresh: VecDeque<ReadyDelivery>,
    retries: VecDeque<ReadyDelivery>,
    /// Everything that waits or runs here.
    held: HashSet<DeliveryId>,
    bytes: usize,
    fresh_since_retry: u32,
    pub(super) running: u32,

    /// Every ready delivery up to here is held or was, but for those from `missed` on.
    cursor: DeliveryId,
    /// The first delivery that was left to the store since the last load began.
    missed: Option<DeliveryId>,
    behind: bool,
    loading: bool,

    /// When the first retry that is not held is due.
    next_due_ms: Option<UnixMs>,
    loading_due: bool,

    /// What ended while a load was under way: the load may have read it as it was before.
    ended_while_loading: HashSet<DeliveryId>,
    /// The same for a load of retries. Each load has its own: what ended before a load of retries began may well be
    /// found by it, and no other would look for it again.
    ended_while_loading_due: HashSet<DeliveryId>,
}

impl Lane {
    /// A lane that has to load what a store holds from earlier.
    pub(super) fn behind_store() -> Self {
        Self { behind: true, next_due_ms: Some(UnixMs::MIN), ..Self::default() }
    }

    /// Takes a delivery that the store announced, or leaves it to the store: also during a load, which may or may
    /// not have read it.
    pub(super) fn offer(&mut self, delivery: ReadyDelivery) {
        if self.behind || self.loading || self.is_full() {
            self.behind = true;
            self.missed = Some(self.missed.map_or(delivery.id, |first| first.min(delivery.id)));
        } else {
            self.cursor = self.cursor.max(delivery.id);
            self.hold(delivery);
        }
    }

    fn is_full(&self) -> bool {
        self.fresh.len() >= WINDOW_MAX || self.bytes >= WINDOW_BYTES_MAX
    }

    fn hold(&mut self, delivery: ReadyDelivery) {
        if !self.ended_while_loading.contains(&delivery.id) && self.held.insert(delivery.id) {
            self.bytes += delivery.event.event.size();
            self.fresh.push_back(delivery);
        }
    }

    fn hold_retry(&mut self, delivery: ReadyDelivery) {
        if !self.ended_while_loading_due.contains(&delivery.id) && self.held.insert(delivery.id) {
            self.bytes += delivery.event.event.size();
            self.retries.push_back(delivery);
        }
    }

    /// The next delivery to run, if there is one.
    pub(super) fn pick(&mut self) -> Option<ReadyDelivery> {
        let retry = self.fresh.is_empty() || self.fresh_since_retry >= FRESH_PER_RETRY;
        let delivery = if retry && !self.retries.is_empty() {
            self.fresh_since_retry = 0;
            self.retries.pop_front()
        } else {
            self.fresh_since_retry += 1;
            self.fresh.pop_front()
        }?;
        self.bytes = self.bytes.saturating_sub(delivery.event.event.size());
        self.running += 1;
        Some(delivery)
    }

    pub(super) fn holds(&self, id: DeliveryId) -> bool {
        self.held.contains(&id)
    }

    /// What was picked and is not committed yet.
    pub(super) fn started(&self) -> Vec<DeliveryId> {
        let waiting: HashSet<_> = self.fresh.iter().chain(&self.retries).map(|delivery| delivery.id).collect();
        self.held.difference(&waiting).copied().collect()
    }

    /// Deliveries that wait here.
    pub(super) fn waiting(&self) -> u32 {
        u32::try_from(self.fresh.len() + self.retries.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn has_work(&self) -> bool {
        !self.fresh.is_empty() || !self.retries.is_empty()
    }

    /// Takes a delivery back whose attempt ran and has to run again, before others: it is held still.
    pub(super) fn again(&mut self, delivery: ReadyDelivery) {
        self.bytes += delivery.event.event.size();
        self.fresh.push_front(delivery);
    }

    /// An attempt ran: there is room for another. Until it is committed the delivery is held, as a load would find it
    /// ready still.
    pub(super) fn ran(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// The end of an attempt is committed; `retry_at_ms` when another follows.
    pub(super) fn ended(&mut self, id: DeliveryId, retry_at_ms: Option<UnixMs>) {
        self.held.remove(&id);
        if self.loading {
            self.ended_while_loading.insert(id);
        }
        if self.loading_due {
            self.ended_while_loading_due.insert(id);
        }
        if let Some(due_ms) = retry_at_ms {
            self.next_due_ms = Some(self.next_due_ms.map_or(due_ms, |next| next.min(due_ms)));
        }
    }

    /// Where to load from, when it is time to.
    pub(super) fn start_load(&mut self) -> Option<DeliveryId> {
        if !self.behind || self.loading || self.fresh.len() >= WINDOW_MAX / 2 || self.bytes >= WINDOW_BYTES_MAX {
            return None;
        }
        // A redriven or unblocked one comes late, from before the cursor.
        let after = self.missed.take().map_or(self.cursor, |first| self.cursor.min(first - 1));
        self.behind = false;
        self.loading = true;
        Some(after)
    }

    /// Takes what a load from `after` found.
    pub(super) fn loaded(&mut self, after: DeliveryId, found: Vec<ReadyDelivery>) {
        self.cursor = found.last().map_or(after, |d| d.id);
        self.behind |= found.len() >= LOAD_MAX;
        for delivery in found {
            self.hold(delivery);
        }
        self.loading = false;
        self.ended_while_loading.clear();
    }

    /// When retries have to be loaded next; `None` while there is no room for them.
    pub(super) fn next_due_ms(&self) -> Option<UnixMs> {
        if self.loading_due || self.retries.len() >= LOAD_MAX { None } else { self.next_due_ms }
    }

    /// Starts loading retries; answers how many to ask for, beyond those that run and are in the store as due.
    pub(super) fn start_load_due(&mut self) -> usize {
        self.loading_due = true;
        self.next_due_ms = None;
        LOAD_MAX + self.held.len()
    }

    /// Takes the retries that were due, and when the next one is.
    pub(super) fn loaded_due(&mut self, found: Vec<ReadyDelivery>, next_due_ms: Option<UnixMs>) {
        for delivery in found {
            self.hold_retry(delivery);
        }
        self.next_due_ms = [self.next_due_ms, next_due_ms].into_iter().flatten().min();
        self.loading_due = false;
        self.ended_while_loading_due.clear();
    }

    /// A load from `after` failed: it is to be tried again.
    pub(super) fn load_failed(&mut self, after: DeliveryId) {
        self.loaded(after, Vec::new());
        self.behind = true;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::Event;
    use crate::store::{Lineage, StoredEvent};

    fn delivery(id: DeliveryId) -> ReadyDelivery {
        let event = Event::from_json(br#"{"id":"1","source":"/a","type":"t"}"#, |_| {}).unwrap();
        let (lineage, event) = (Lineage::default(), Arc::new(event));
        let event = StoredEvent { seq: id, accepted_ms: 0, lineage, event, damage: None };
        let (trigger, event) = ("on[0]".into(), Arc::new(event));
        ReadyDelivery { id, function: 1, trigger, attempts: 0, attempts_forgiven: 0, since_ms: 0, replay: None, event }
    }

    fn run_all(lane: &mut Lane) -> Vec<DeliveryId> {
        std::iter::from_fn(|| {
            let id = lane.pick()?.id;
            lane.ran();
            lane.ended(id, None);
            Some(id)
        })
        .collect()
    }

    #[test]
    fn a_full_window_leaves_deliveries_to_the_store_and_loads_them_later() {
        let mut lane = Lane::default();
        let total = WINDOW_MAX as DeliveryId + 10;
        (1..=total).for_each(|id| lane.offer(delivery(id)));
        assert_eq!(lane.start_load(), None);
        assert_eq!(run_all(&mut lane).len(), WINDOW_MAX);
        let after = lane.start_load().unwrap();
        assert_eq!(after, WINDOW_MAX as DeliveryId);
        lane.loaded(after, (after + 1..=total).map(delivery).collect());
        assert_eq!(run_all(&mut lane), (after + 1..=total).collect::<Vec<_>>());
        assert_eq!(lane.start_load(), None);
    }

    #[test]
    fn what_is_announced_during_a_load_is_neither_lost_nor_run_twice() {
        let mut lane = Lane::behind_store();
        assert_eq!(lane.start_load(), Some(0));
        (3..=5).for_each(|id| lane.offer(delivery(id)));
        lane.loaded(0, vec![delivery(1), delivery(2), delivery(3)]);
        assert_eq!(lane.start_load(), Some(2));
        lane.loaded(2, vec![delivery(3), delivery(4), delivery(5)]);
        assert_eq!(run_all(&mut lane), vec![1, 2, 3, 4, 5]);
        assert_eq!(lane.start_load(), None);
        lane.offer(delivery(6));
        assert_eq!(run_all(&mut lane), vec![6]);
    }

    #[test]
    fn a_load_that_read_an_attempt_before_its_end_does_not_run_it_again() {
        let mut lane = Lane::default();
        lane.offer(delivery(1));
        let running = lane.pick().unwrap();
        lane.behind = true;
        let after = lane.start_load().unwrap();
        lane.ended(running.id, None);
        lane.loaded(after, vec![delivery(1), delivery(2)]);
        assert_eq!(run_all(&mut lane), vec![2]);
    }

    #[test]
    fn one_that_was_redriven_while_behind_is_loaded() {
        let mut lane = Lane { behind: true, cursor: 500, ..Lane::default() };
        lane.offer(delivery(7));
        assert_eq!(lane.start_load(), Some(6));
    }

    #[test]
    fn a_full_load_is_followed_by_another_from_its_end() {
        let mut lane = Lane::behind_store();
        lane.start_load().unwrap();
        lane.loaded(0, (1..=LOAD_MAX as DeliveryId).map(delivery).collect());
        assert_eq!(lane.start_load(), Some(LOAD_MAX as DeliveryId));
    }

    #[test]
    fn the_earliest_retry_is_waited_for_also_when_it_ended_during_a_load() {
        let mut lane = Lane::default();
        for id in [1, 2] {
            lane.offer(delivery(id));
            lane.pick().unwrap();
        }
        lane.ended(1, Some(90));
        assert_eq!(lane.next_due_ms(), Some(90));
        lane.start_load_due();
        assert_eq!(lane.next_due_ms(), None);
        lane.ended(2, Some(50));
        lane.loaded_due(vec![], Some(90));
        assert_eq!(lane.next_due_ms(), Some(50));
    }

    #[test]
    fn a_retry_that_is_due_before_a_load_of_fresh_work_is_over_is_not_lost() {
        let mut lane = Lane::default();
        lane.offer(delivery(1));
        lane.pick().unwrap();
        lane.behind = true;
        let after = lane.start_load().unwrap();
        lane.ended(1, Some(90));
        lane.start_load_due();
        lane.loaded_due(vec![delivery(1)], None);
        lane.loaded(after, vec![delivery(1), delivery(2)]);
        assert_eq!(run_all(&mut lane), vec![2, 1]);
    }

    #[test]
    fn a_load_of_retries_that_read_an_attempt_before_its_end_is_made_again() {
        let mut lane = Lane::default();
        lane.start_load_due();
        lane.offer(delivery(1));
        lane.pick().unwrap();
        lane.ended(1, Some(90));
        lane.loaded_due(vec![delivery(1)], None);
        assert_eq!((lane.has_work(), lane.next_due_ms()), (false, Some(90)));
    }

    #[test]
    fn retries_run_beside_fresh_work_and_do_not_crowd_it_out() {
        let mut lane = Lane::default();
        (1..=8).for_each(|id| lane.offer(delivery(id)));
        lane.start_load_due();
        lane.loaded_due(vec![delivery(101), delivery(102), delivery(103)], None);
        assert_eq!(run_all(&mut lane), vec![1, 2, 3, 4, 101, 5, 6, 7, 8, 102, 103]);
    }
}
