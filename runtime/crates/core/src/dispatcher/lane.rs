//! The lane of one function and one stream (live deliveries or replayed deliveries): the running deliveries, and a
//! bounded number of waiting deliveries, the *window*. The other ready deliveries are only in the store. Plain data, no
//! I/O, no clock.
//!
//! Every ready delivery is either *held* here or will be found by a later load. After each commit, the store announces
//! the deliveries that became ready, and the dispatcher offers them to their lanes. When the window is full, the lane
//! leaves an offered delivery in the store and is then *behind*. Once there is room, the lane loads the deliveries with
//! ids after its cursor. The lane has already received the ready deliveries with ids up to the cursor. If it has left
//! some of them in the store, the load starts at the first of these.

use std::collections::VecDeque;

use foldhash::HashSet;

use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, ReadyDelivery};

/// The maximum number of deliveries of a lane that wait in memory. Running that many takes longer than loading the next
/// ones, so the lane does not become empty.
pub(super) const WINDOW_MAX: usize = 256;

/// The maximum size in bytes of the events that wait in a lane. With this size, 100 busy lanes stay under 1 GiB.
const WINDOW_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The maximum number of deliveries per load: 64 MiB if all events have the largest size.
pub(super) const LOAD_MAX: usize = 64;

/// When both first attempts and retries wait, one retry runs after this many first attempts. So retries make progress,
/// and new work is hardly delayed.
const FRESH_PER_RETRY: u32 = 4;

#[derive(Default)]
pub(super) struct Lane {
    fresh: VecDeque<ReadyDelivery>,
    retries: VecDeque<ReadyDelivery>,
    /// The deliveries that wait, that run, or whose attempt is not committed yet.
    held: HashSet<DeliveryId>,
    /// The size in bytes of the waiting events.
    bytes: usize,
    fresh_since_retry: u32,
    pub(super) running: u32,

    /// The lane holds or held all ready deliveries with ids up to this one. Only deliveries with ids from `missed` on
    /// can be exceptions.
    cursor: DeliveryId,
    /// The lowest id among the deliveries that the lane has left in the store since the last load began.
    missed: Option<DeliveryId>,
    /// True if ready deliveries were left in the store.
    behind: bool,
    loading: bool,

    /// The time at which the earliest retry that is not held is due.
    next_retry_ms: Option<UnixMs>,
    loading_retries: bool,

    /// Deliveries that were completed while a load was running. The load may have read them before their completion,
    /// when they were still ready. The lane must not hold them again.
    completed_while_loading: HashSet<DeliveryId>,
    /// The deliveries that were completed while a load of retries was running. One set for both kinds of loads would be
    /// wrong. Example: an attempt fails while first attempts are loaded. Then a load of retries starts and finds the
    /// retry of this attempt. The lane must hold the retry, because no other load would find it.
    completed_while_loading_retries: HashSet<DeliveryId>,
}

impl Lane {
    /// Creates a lane that first loads the deliveries that the store already has.
    pub(super) fn new_behind_store() -> Self {
        Self { behind: true, next_retry_ms: Some(UnixMs::MIN), ..Self::default() }
    }

    /// Holds a delivery that became ready. Leaves the delivery in the store if the window is full or the lane is
    /// behind. Also leaves it there during a load, because the lane cannot know if this load finds the delivery.
    pub(super) fn offer(&mut self, delivery: ReadyDelivery) {
        if self.behind || self.loading || self.is_full() {
            self.leave(delivery.id);
        } else {
            self.cursor = self.cursor.max(delivery.id);
            self.hold(delivery);
        }
    }

    /// Leaves a ready delivery in the store, for a later load.
    fn leave(&mut self, id: DeliveryId) {
        self.behind = true;
        self.missed = Some(self.missed.map_or(id, |first| first.min(id)));
    }

    /// Removes the waiting deliveries from memory, and returns their ids. They stay in the store, where later loads
    /// find them.
    pub(super) fn release_waiting(&mut self) -> Vec<DeliveryId> {
        let waiting: Vec<_> = self.fresh.drain(..).chain(self.retries.drain(..)).map(|delivery| delivery.id).collect();
        for id in &waiting {
            self.held.remove(id);
            self.leave(*id);
        }
        self.bytes = 0;
        if !waiting.is_empty() {
            // Retries must be loaded again, too. Even if `retries` was empty, `fresh` may have contained a retry: one
            // that must run again after a conflict.
            self.next_retry_ms = Some(UnixMs::MIN);
        }
        waiting
    }

    fn is_full(&self) -> bool {
        self.fresh.len() >= WINDOW_MAX || self.bytes >= WINDOW_BYTES_MAX
    }

    fn hold(&mut self, delivery: ReadyDelivery) {
        if !self.completed_while_loading.contains(&delivery.id) && self.held.insert(delivery.id) {
            self.bytes += delivery.event_size();
            self.fresh.push_back(delivery);
        }
    }

    fn hold_retry(&mut self, delivery: ReadyDelivery) {
        if !self.completed_while_loading_retries.contains(&delivery.id) && self.held.insert(delivery.id) {
            self.bytes += delivery.event_size();
            self.retries.push_back(delivery);
        }
    }

    /// Takes the next delivery to run, if any, and counts it as running.
    pub(super) fn pick(&mut self) -> Option<ReadyDelivery> {
        let retry = self.fresh.is_empty() || self.fresh_since_retry >= FRESH_PER_RETRY;
        let delivery = if retry && !self.retries.is_empty() {
            self.fresh_since_retry = 0;
            self.retries.pop_front()
        } else {
            self.fresh_since_retry += 1;
            self.fresh.pop_front()
        }?;
        self.bytes = self.bytes.saturating_sub(delivery.event_size());
        self.running += 1;
        Some(delivery)
    }

    pub(super) fn holds(&self, id: DeliveryId) -> bool {
        self.held.contains(&id)
    }

    /// Returns the deliveries that were picked and are not committed yet.
    pub(super) fn started(&self) -> Vec<DeliveryId> {
        let waiting: HashSet<_> = self.fresh.iter().chain(&self.retries).map(|delivery| delivery.id).collect();
        self.held.difference(&waiting).copied().collect()
    }

    /// Returns true if no delivery was picked, is being loaded, or waits for the commit of its attempt.
    pub(super) fn is_quiet(&self) -> bool {
        !self.loading && !self.loading_retries && self.started().is_empty()
    }

    /// Makes the lane load all deliveries from the store again, except those that it holds.
    pub(super) fn load_again(&mut self) {
        self.leave(DeliveryId(1));
        self.next_retry_ms = Some(UnixMs::MIN);
    }

    /// Returns the number of deliveries that wait in memory.
    pub(super) fn waiting(&self) -> u32 {
        u32::try_from(self.fresh.len() + self.retries.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn has_work(&self) -> bool {
        !self.fresh.is_empty() || !self.retries.is_empty()
    }

    /// Puts a delivery back at the front, because its attempt must run again. The delivery is still held.
    pub(super) fn put_back(&mut self, delivery: ReadyDelivery) {
        self.bytes += delivery.event_size();
        self.fresh.push_front(delivery);
    }

    /// Puts a delivery back at the end, because its attempt does not count. The delivery is still held.
    pub(super) fn put_back_last(&mut self, delivery: ReadyDelivery) {
        self.bytes += delivery.event_size();
        self.fresh.push_back(delivery);
    }

    /// Takes up to `limit` waiting deliveries with a `since_ms` before the given one. They stay held until they are
    /// completed. Stops at the first younger delivery of each queue, because the oldest are usually first.
    pub(super) fn take_older(&mut self, since_ms: UnixMs, limit: usize) -> Vec<ReadyDelivery> {
        let mut taken = Vec::new();
        for waiting in [&mut self.fresh, &mut self.retries] {
            while taken.len() < limit
                && let Some(delivery) = waiting.pop_front_if(|delivery| delivery.since_ms < since_ms)
            {
                self.bytes = self.bytes.saturating_sub(delivery.event_size());
                taken.push(delivery);
            }
        }
        taken
    }

    /// Makes room for another delivery after an attempt ran. The attempted delivery stays held until its completion is
    /// committed. Until then, a load can find it ready in the store, and the lane must not run it again.
    pub(super) fn release_slot(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Removes a delivery after the result of its attempt was committed. `retry_at_ms` is the time of the retry, if
    /// there is one.
    pub(super) fn completed(&mut self, id: DeliveryId, retry_at_ms: Option<UnixMs>) {
        self.held.remove(&id);
        if self.loading {
            self.completed_while_loading.insert(id);
        }
        if self.loading_retries {
            self.completed_while_loading_retries.insert(id);
        }
        if let Some(due_ms) = retry_at_ms {
            self.next_retry_ms = Some(self.next_retry_ms.map_or(due_ms, |next| next.min(due_ms)));
        }
    }

    /// Removes a cancelled delivery if it waits here. If a running load finds the delivery, the lane does not hold it.
    pub(super) fn cancel(&mut self, id: DeliveryId) {
        for waiting in [&mut self.fresh, &mut self.retries] {
            if let Some(at) = waiting.iter().position(|delivery| delivery.id == id)
                && let Some(delivery) = waiting.remove(at)
            {
                self.bytes = self.bytes.saturating_sub(delivery.event_size());
                self.held.remove(&id);
            }
        }
        // A started delivery stays held until the store reports the result of its completion.
        if !self.held.contains(&id) {
            self.completed(id, None);
        }
    }

    /// Starts a load if the lane is behind and has room. Returns the id after which to load.
    pub(super) fn start_load(&mut self) -> Option<DeliveryId> {
        if !self.behind || self.loading || self.fresh.len() >= WINDOW_MAX / 2 || self.bytes >= WINDOW_BYTES_MAX {
            return None;
        }
        // A delivery can become ready after the cursor has passed its id: it was blocked, or it was a dead letter that
        // an operator runs again.
        let after = self.missed.take().map_or(self.cursor, |first| self.cursor.min(DeliveryId(first.0 - 1)));
        self.behind = false;
        self.loading = true;
        Some(after)
    }

    /// Ends a load of deliveries with ids after `after`. `found` are the deliveries that it read.
    pub(super) fn loaded(&mut self, after: DeliveryId, found: Vec<ReadyDelivery>) {
        self.cursor = found.last().map_or(after, |d| d.id);
        self.behind |= found.len() >= LOAD_MAX;
        for delivery in found {
            self.hold(delivery);
        }
        self.loading = false;
        self.completed_while_loading.clear();
    }

    /// Returns when retries must be loaded next; `None` while there is no room or a load of retries is running.
    pub(super) fn next_retry_ms(&self) -> Option<UnixMs> {
        if self.loading_retries || self.retries.len() >= LOAD_MAX { None } else { self.next_retry_ms }
    }

    /// Starts a load of retries, and returns the maximum number of retries to load. The store may still list held
    /// deliveries as due, so their number is added to the maximum.
    pub(super) fn start_retry_load(&mut self) -> usize {
        self.loading_retries = true;
        self.next_retry_ms = None;
        LOAD_MAX + self.held.len()
    }

    /// Ends a load of retries. `found` are the due retries that it found, and `next_retry_ms` is when the next retry is
    /// due.
    pub(super) fn retries_loaded(&mut self, found: Vec<ReadyDelivery>, next_retry_ms: Option<UnixMs>) {
        for delivery in found {
            self.hold_retry(delivery);
        }
        self.next_retry_ms = [self.next_retry_ms, next_retry_ms].into_iter().flatten().min();
        self.loading_retries = false;
        self.completed_while_loading_retries.clear();
    }

    /// Ends a failed load of deliveries with ids after `after`. The lane stays behind, so it starts the load again.
    pub(super) fn load_failed(&mut self, after: DeliveryId) {
        self.loaded(after, Vec::new());
        self.behind = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use evoke_model::event::Event;
    use evoke_model::{FunctionId, Lineage, Origin, Seq, StoredEvent};

    /// Returns the delivery with this number, of the event with the same number.
    fn delivery(number: i64) -> ReadyDelivery {
        let (id, seq, function) = (DeliveryId(number), Seq(number), FunctionId(1));
        let event = Event::from_json(br#"{"id":"1","source":"/a","type":"t"}"#, |_| {}).unwrap();
        let (lineage, event) = (Lineage::default(), Arc::new(event));
        let event = StoredEvent { seq, accepted_ms: 0, lineage, event };
        let (trigger, origin, event) = ("on[0]".into(), Origin::default(), Ok(Arc::new(event)));
        let (attempts, attempts_forgiven, since_ms, replay) = (0, 0, 0, None);
        ReadyDelivery { id, function, trigger, attempts, attempts_forgiven, since_ms, replay, origin, event }
    }

    /// Runs all waiting deliveries, and returns their numbers.
    fn run_all(lane: &mut Lane) -> Vec<i64> {
        std::iter::from_fn(|| {
            let id = lane.pick()?.id;
            lane.release_slot();
            lane.completed(id, None);
            Some(id.0)
        })
        .collect()
    }

    #[test]
    fn a_full_window_leaves_deliveries_in_the_store_and_loads_them_later() {
        let mut lane = Lane::default();
        let total = WINDOW_MAX as i64 + 10;
        (1..=total).for_each(|id| lane.offer(delivery(id)));
        assert_eq!(lane.start_load(), None);
        assert_eq!(run_all(&mut lane).len(), WINDOW_MAX);
        let after = lane.start_load().unwrap();
        assert_eq!(after, DeliveryId(WINDOW_MAX as i64));
        lane.loaded(after, (after.0 + 1..=total).map(delivery).collect());
        assert_eq!(run_all(&mut lane), (after.0 + 1..=total).collect::<Vec<_>>());
        assert_eq!(lane.start_load(), None);
    }

    #[test]
    fn deliveries_announced_during_a_load_are_neither_lost_nor_run_twice() {
        let mut lane = Lane::new_behind_store();
        assert_eq!(lane.start_load(), Some(DeliveryId(0)));
        (3..=5).for_each(|id| lane.offer(delivery(id)));
        lane.loaded(DeliveryId(0), vec![delivery(1), delivery(2), delivery(3)]);
        assert_eq!(lane.start_load(), Some(DeliveryId(2)));
        lane.loaded(DeliveryId(2), vec![delivery(3), delivery(4), delivery(5)]);
        assert_eq!(run_all(&mut lane), vec![1, 2, 3, 4, 5]);
        assert_eq!(lane.start_load(), None);
        lane.offer(delivery(6));
        assert_eq!(run_all(&mut lane), vec![6]);
    }

    #[test]
    fn a_load_that_read_a_delivery_before_its_completion_does_not_run_it_again() {
        let mut lane = Lane::default();
        lane.offer(delivery(1));
        let running = lane.pick().unwrap();
        lane.behind = true;
        let after = lane.start_load().unwrap();
        lane.completed(running.id, None);
        lane.loaded(after, vec![delivery(1), delivery(2)]);
        assert_eq!(run_all(&mut lane), vec![2]);
    }

    #[test]
    fn a_delivery_redriven_while_the_lane_is_behind_is_loaded() {
        let mut lane = Lane { behind: true, cursor: DeliveryId(500), ..Lane::default() };
        lane.offer(delivery(7));
        assert_eq!(lane.start_load(), Some(DeliveryId(6)));
    }

    #[test]
    fn released_deliveries_are_loaded_again_and_running_ones_stay_held() {
        let mut lane = Lane::default();
        (1..=3).for_each(|id| lane.offer(delivery(id)));
        lane.start_retry_load();
        lane.retries_loaded(vec![delivery(4)], None);
        assert_eq!(lane.pick().map(|picked| picked.id), Some(DeliveryId(1)));
        assert_eq!(lane.release_waiting(), [2, 3, 4].map(DeliveryId));
        assert_eq!(
            (lane.has_work(), lane.started(), lane.next_retry_ms()),
            (false, vec![DeliveryId(1)], Some(UnixMs::MIN))
        );
        let after = lane.start_load().unwrap();
        lane.loaded(after, (1..=3).map(delivery).collect());
        lane.start_retry_load();
        lane.retries_loaded(vec![delivery(4)], None);
        assert_eq!(run_all(&mut lane), [2, 3, 4]);
    }

    #[test]
    fn a_lane_that_loads_again_finds_deliveries_before_its_cursor_and_earlier_retries() {
        let mut lane = Lane::default();
        lane.offer(delivery(9));
        assert!(lane.is_quiet());
        let running = lane.pick().unwrap();
        lane.release_slot();
        assert!(!lane.is_quiet(), "the attempt is not committed yet");
        lane.completed(running.id, Some(90));
        assert!(lane.is_quiet());
        lane.load_again();
        assert_eq!((lane.start_load(), lane.next_retry_ms()), (Some(DeliveryId(0)), Some(UnixMs::MIN)));
        assert!(!lane.is_quiet(), "a load is running");
        lane.loaded(DeliveryId(0), vec![delivery(3)]);
        lane.start_retry_load();
        assert!(!lane.is_quiet(), "a load of retries is running");
        lane.retries_loaded(vec![delivery(4)], None);
        assert_eq!(run_all(&mut lane), [3, 4]);
    }

    #[test]
    fn a_cancelled_delivery_does_not_run_and_is_not_held_by_a_running_load() {
        let mut lane = Lane::default();
        (1..=3).for_each(|id| lane.offer(delivery(id)));
        let running = lane.pick().unwrap();
        lane.behind = true;
        let after = lane.start_load().unwrap();
        for id in [1, 2, 5] {
            lane.cancel(DeliveryId(id));
        }
        assert_eq!(lane.started(), vec![running.id]);
        lane.loaded(after, vec![delivery(2), delivery(3), delivery(4), delivery(5)]);
        assert_eq!(run_all(&mut lane), vec![3, 4]);
        lane.completed(running.id, None);
        assert!(!lane.holds(running.id));
    }

    #[test]
    fn a_full_load_is_followed_by_another_load_from_its_end() {
        let mut lane = Lane::new_behind_store();
        lane.start_load().unwrap();
        lane.loaded(DeliveryId(0), (1..=LOAD_MAX as i64).map(delivery).collect());
        assert_eq!(lane.start_load(), Some(DeliveryId(LOAD_MAX as i64)));
    }

    #[test]
    fn the_next_retry_is_the_earliest_even_if_its_attempt_ended_during_a_load() {
        let mut lane = Lane::default();
        for id in [1, 2] {
            lane.offer(delivery(id));
            lane.pick().unwrap();
        }
        lane.completed(DeliveryId(1), Some(90));
        assert_eq!(lane.next_retry_ms(), Some(90));
        lane.start_retry_load();
        assert_eq!(lane.next_retry_ms(), None);
        lane.completed(DeliveryId(2), Some(50));
        lane.retries_loaded(vec![], Some(90));
        assert_eq!(lane.next_retry_ms(), Some(50));
    }

    #[test]
    fn a_retry_due_during_a_load_of_first_attempts_is_not_lost() {
        let mut lane = Lane::default();
        lane.offer(delivery(1));
        lane.pick().unwrap();
        lane.behind = true;
        let after = lane.start_load().unwrap();
        lane.completed(DeliveryId(1), Some(90));
        lane.start_retry_load();
        lane.retries_loaded(vec![delivery(1)], None);
        lane.loaded(after, vec![delivery(1), delivery(2)]);
        assert_eq!(run_all(&mut lane), vec![2, 1]);
    }

    #[test]
    fn a_retry_load_that_read_a_delivery_before_its_completion_is_repeated() {
        let mut lane = Lane::default();
        lane.start_retry_load();
        lane.offer(delivery(1));
        lane.pick().unwrap();
        lane.completed(DeliveryId(1), Some(90));
        lane.retries_loaded(vec![delivery(1)], None);
        assert_eq!((lane.has_work(), lane.next_retry_ms()), (false, Some(90)));
    }

    #[test]
    fn retries_make_progress_without_displacing_first_attempts() {
        let mut lane = Lane::default();
        (1..=8).for_each(|id| lane.offer(delivery(id)));
        lane.start_retry_load();
        lane.retries_loaded(vec![delivery(101), delivery(102), delivery(103)], None);
        assert_eq!(run_all(&mut lane), vec![1, 2, 3, 4, 101, 5, 6, 7, 8, 102, 103]);
    }
}
