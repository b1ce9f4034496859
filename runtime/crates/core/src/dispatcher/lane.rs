//! The lane of one function and one stream (live deliveries or replayed deliveries): the running deliveries, and a
//! bounded number of waiting deliveries, the *window*. The other ready deliveries are only in the store. Plain data, no
//! I/O, no clock.
//!
//! Every ready delivery is either *held* here or will be found by a later load. After each commit, the store announces
//! the deliveries that became ready, and the dispatcher offers them to their lanes. When the window is full, the lane
//! leaves an offered delivery in the store and is then *behind*. Once there is room, the lane loads the deliveries with
//! ids after its cursor. The lane has already received the ready deliveries with ids up to the cursor. If it has left
//! some of them in the store, the load starts at the first of these.

mod queue;
#[cfg(test)]
mod tests;

use foldhash::HashSet;

use self::queue::Queue;
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, ReadyDelivery, ReplayId};
use evoke_store::LoadLimit;

/// The maximum number of first attempts of a lane that wait in memory. Running that many takes longer than loading the
/// next ones, so the lane does not become empty.
pub(super) const WINDOW_MAX: usize = 256;

/// A lane takes no more first attempts while their events have at least this number of bytes in total. So the last
/// event that it takes can exceed this limit. The same holds for the limit of retries. With both limits, two such last
/// events and `newest_left`, a lane has at most 10 MiB, and 100 busy lanes stay under 1 GiB.
const WINDOW_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The limit for the events of waiting retries, in bytes. Retries have a limit of their own, so that they can be loaded
/// however many first attempts wait.
const RETRY_BYTES_MAX: usize = 1024 * 1024;

/// The maximum number and size in bytes of the copies that [`Lane::keep_newest`] keeps. One is kept whatever its size.
const NEWEST_MAX: LoadLimit = LoadLimit { deliveries: 32, bytes: 1024 * 1024 };

/// The maximum number of deliveries per load.
pub(super) const LOAD_MAX: usize = 64;

/// When both first attempts and retries wait, one retry runs after this many first attempts. So retries make progress,
/// and new work is hardly delayed.
const FRESH_PER_RETRY: u32 = 4;

#[derive(Default)]
pub(super) struct Lane {
    fresh: Queue,
    retries: Queue,
    /// The deliveries that wait, that run, or whose attempt is not committed yet.
    held: HashSet<DeliveryId>,
    fresh_since_retry: u32,
    pub(super) running: u32,

    /// The lane holds or held all ready deliveries with ids up to this one. Only deliveries with ids from `missed` on
    /// can be exceptions.
    cursor: DeliveryId,
    /// The lowest id among the deliveries that the lane has left in the store since the last load began.
    missed: Option<DeliveryId>,
    /// True if ready deliveries were left in the store.
    behind: bool,
    /// Copies of the last deliveries that were left in the store while the function's circuit was open, oldest first.
    /// They are not held, so a load can find them, too.
    newest_left: Queue,
    /// The limit of the load that is running.
    loading: Option<LoadLimit>,

    /// The time at which the earliest retry that is not held is due.
    next_retry_ms: Option<UnixMs>,
    loading_retries: bool,
    /// True if there was room for more retries at the last call of [`Lane::has_regained_retry_room`].
    had_retry_room: bool,

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
    /// Returns the delivery if it was left in the store.
    pub(super) fn offer(&mut self, delivery: ReadyDelivery) -> Option<ReadyDelivery> {
        if self.behind || self.loading.is_some() || self.is_full() {
            self.leave(delivery.id);
            return Some(delivery);
        }
        self.cursor = self.cursor.max(delivery.id);
        self.hold(delivery);
        None
    }

    /// Leaves a ready delivery in the store, for a later load.
    fn leave(&mut self, id: DeliveryId) {
        self.behind = true;
        self.missed = Some(self.missed.map_or(id, |first| first.min(id)));
    }

    /// Removes the waiting deliveries from memory, and returns their ids. They stay in the store, where later loads
    /// find them.
    pub(super) fn release_waiting(&mut self) -> Vec<DeliveryId> {
        let waiting: Vec<_> = self.fresh.ids().chain(self.retries.ids()).collect();
        self.fresh.clear();
        self.retries.clear();
        self.newest_left.clear();
        for id in &waiting {
            self.held.remove(id);
            self.leave(*id);
        }
        if !waiting.is_empty() {
            // Retries must be loaded again, too. Even if `retries` was empty, `fresh` may have contained a retry: one
            // that must run again after a conflict.
            self.next_retry_ms = Some(UnixMs::MIN);
        }
        waiting
    }

    fn is_full(&self) -> bool {
        self.fresh.len() >= WINDOW_MAX || self.fresh.bytes() >= WINDOW_BYTES_MAX
    }

    /// Keeps a copy of a delivery that was left in the store, for [`Lane::pick_newest`].
    pub(super) fn keep_newest(&mut self, delivery: ReadyDelivery) {
        self.forget_newest(delivery.id);
        self.newest_left.push_back(delivery);
        while self.newest_left.len() > 1 && NEWEST_MAX.is_reached(self.newest_left.len() - 1, self.newest_left.bytes())
        {
            self.newest_left.pop_front();
        }
    }

    /// Forgets the copy of a delivery: the lane holds the delivery now, or it is completed.
    fn forget_newest(&mut self, id: DeliveryId) {
        self.newest_left.remove(id);
    }

    fn hold(&mut self, delivery: ReadyDelivery) {
        self.forget_newest(delivery.id);
        if !self.completed_while_loading.contains(&delivery.id) && self.held.insert(delivery.id) {
            self.fresh.push_back(delivery);
        }
    }

    fn hold_retry(&mut self, delivery: ReadyDelivery) {
        self.forget_newest(delivery.id);
        if !self.completed_while_loading_retries.contains(&delivery.id) && self.held.insert(delivery.id) {
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
        self.running += 1;
        Some(delivery)
    }

    /// Takes the newest first attempt that is known, also if it was left in the store, and counts it as running. If
    /// none is known, takes the next retry.
    pub(super) fn pick_newest(&mut self) -> Option<ReadyDelivery> {
        while let Some(delivery) = self.newest_left.pop_back() {
            // The lane may have been offered a delivery that it holds.
            if self.held.insert(delivery.id) {
                self.running += 1;
                return Some(delivery);
            }
        }
        let Some(newest) = self.fresh.ids().max() else { return self.pick() };
        self.running += 1;
        self.fresh.remove(newest)
    }

    pub(super) fn holds(&self, id: DeliveryId) -> bool {
        self.held.contains(&id)
    }

    /// Returns the deliveries that were picked and are not committed yet.
    pub(super) fn started(&self) -> Vec<DeliveryId> {
        let waiting: HashSet<_> = self.fresh.ids().chain(self.retries.ids()).collect();
        self.held.difference(&waiting).copied().collect()
    }

    /// Returns true if no delivery was picked, is being loaded, or waits for the commit of its attempt.
    pub(super) fn is_quiet(&self) -> bool {
        self.loading.is_none() && !self.loading_retries && self.started().is_empty()
    }

    /// Makes the lane load all deliveries from the store again, except those that it holds.
    pub(super) fn load_again(&mut self) {
        self.newest_left.clear();
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
        self.fresh.push_front(delivery);
    }

    /// Puts a delivery back at the end, because its attempt does not count. The delivery is still held. If the window
    /// is full, leaves the delivery in the store instead.
    pub(super) fn put_back_last(&mut self, delivery: ReadyDelivery) {
        if self.is_full() {
            self.held.remove(&delivery.id);
            self.leave(delivery.id);
            // The delivery may be a retry.
            self.next_retry_ms = Some(UnixMs::MIN);
        } else {
            self.fresh.push_back(delivery);
        }
    }

    /// Takes up to `limit` waiting deliveries with a `since_ms` before the given one. They stay held until they are
    /// completed. Stops at the first younger delivery of each queue, because the oldest are usually first.
    pub(super) fn take_older(&mut self, since_ms: UnixMs, limit: usize) -> Vec<ReadyDelivery> {
        let mut taken = Vec::new();
        for waiting in [&mut self.fresh, &mut self.retries] {
            while taken.len() < limit
                && let Some(delivery) = waiting.pop_front_if(|delivery| delivery.since_ms < since_ms)
            {
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
        self.forget_newest(id);
        self.held.remove(&id);
        if self.loading.is_some() {
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
        if self.fresh.remove(id).or_else(|| self.retries.remove(id)).is_some() {
            self.held.remove(&id);
        }
        // A started delivery stays held until the store reports the result of its completion.
        if !self.held.contains(&id) {
            self.completed(id, None);
        }
    }

    /// Removes the waiting deliveries of a replay that was cancelled.
    pub(super) fn forget_replay(&mut self, replay: ReplayId) {
        let waiting = [&self.fresh, &self.retries, &self.newest_left];
        let purged: Vec<_> = waiting.iter().flat_map(|queue| queue.ids_of(replay)).collect();
        purged.into_iter().for_each(|id| self.cancel(id));
    }

    /// Starts a load if the lane is behind and half of the window is free. Returns the id after which to load, and the
    /// limit of the load.
    pub(super) fn start_load(&mut self) -> Option<(DeliveryId, LoadLimit)> {
        let is_half_free = self.fresh.len() < WINDOW_MAX / 2 && self.fresh.bytes() < WINDOW_BYTES_MAX / 2;
        if !self.behind || self.loading.is_some() || !is_half_free {
            return None;
        }
        // A delivery can become ready after the cursor has passed its id: it was blocked, or it was a dead letter that
        // an operator runs again.
        let after = self.missed.take().map_or(self.cursor, |first| self.cursor.min(DeliveryId(first.0 - 1)));
        self.behind = false;
        let limit = LoadLimit { deliveries: LOAD_MAX, bytes: WINDOW_BYTES_MAX - self.fresh.bytes() };
        self.loading = Some(limit);
        Some((after, limit))
    }

    /// Ends a load of deliveries with ids after `after`. `found` are the deliveries that it read.
    pub(super) fn loaded(&mut self, after: DeliveryId, found: Vec<ReadyDelivery>) {
        self.cursor = found.last().map_or(after, |d| d.id);
        self.behind |= self.loading.take().is_some_and(|limit| limit.is_reached_by(&found));
        for delivery in found {
            self.hold(delivery);
        }
        self.completed_while_loading.clear();
    }

    /// Returns when retries must be loaded next; `None` while there is no room or a load of retries is running.
    pub(super) fn next_retry_ms(&self) -> Option<UnixMs> {
        if self.loading_retries || !self.has_retry_room() { None } else { self.next_retry_ms }
    }

    fn has_retry_room(&self) -> bool {
        self.retries.len() < LOAD_MAX && self.retries.bytes() < RETRY_BYTES_MAX / 2
    }

    /// Returns true if the lane has room for more retries, had none at the last call, and knows of a later retry. The
    /// caller then wakes the task that loads retries.
    pub(super) fn has_regained_retry_room(&mut self) -> bool {
        let has_room = self.has_retry_room();
        let had_room = std::mem::replace(&mut self.had_retry_room, has_room);
        has_room && !had_room && self.next_retry_ms.is_some()
    }

    /// Starts a load of retries, and returns its limit. Also returns the held deliveries, because the store may still
    /// list them as due.
    pub(super) fn start_retry_load(&mut self) -> (HashSet<DeliveryId>, LoadLimit) {
        self.loading_retries = true;
        self.next_retry_ms = None;
        let bytes = RETRY_BYTES_MAX.saturating_sub(self.retries.bytes());
        (self.held.clone(), LoadLimit { deliveries: LOAD_MAX, bytes })
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
