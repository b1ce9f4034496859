//! A fixed number of slots that functions share fairly. The slots are either turns (a turn is the permission to run a
//! guest on a processor until the next tick) or instances for HTTP requests.
//!
//! A free slot goes to the function that has held slots for the shortest total time. The attempts of one function get
//! slots in the order in which they request them. When a function without a slot requests one, its total time is first
//! raised to the highest total time that any function had when it got a slot. So a function has no advantage because it
//! was idle. The last free slots can be reserved for functions without a slot, one for each such function, so that no
//! function can hold all slots.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use futures_util::task::AtomicWaker;

pub(super) struct FairSlots(Mutex<Inner>);

struct Inner {
    free: u32,
    /// Limit on the number of slots that are reserved for functions without a slot.
    reserved_max: u32,
    /// The number of functions without a slot.
    idle: u32,
    /// The highest total that any function had when it got a slot. The total of an idle function is raised to this
    /// value.
    served_us: u64,
    /// The functions, by the number in their [`Share`].
    functions: BTreeMap<u64, Usage>,
    next_function: u64,
    /// The functions that wait for a slot, each with its total and its number. The smallest total is first.
    waiting: BTreeSet<(u64, u64)>,
}

/// The slots of one function.
#[derive(Default)]
struct Usage {
    /// Total time for which the function held slots.
    total_us: u64,
    held: u32,
    waiting: VecDeque<Arc<Waiter>>,
}

/// Where an attempt is put in the queue of its function.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    First,
    Last,
}

#[derive(Default)]
struct Waiter {
    has_slot: AtomicBool,
    waker: AtomicWaker,
}

impl FairSlots {
    /// Creates `slots` free slots. At most `reserved_max` of them are reserved for functions without a slot.
    pub(super) fn new(slots: u32, reserved_max: u32) -> Arc<Self> {
        let (functions, waiting) = Default::default();
        let inner = Inner { free: slots, reserved_max, idle: 0, served_us: 0, functions, next_function: 0, waiting };
        Arc::new(Self(Mutex::new(inner)))
    }

    /// Adds a function. The function can request slots through the returned share.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        let mut inner = self.lock();
        let function = inner.next_function;
        inner.next_function += 1;
        inner.idle += 1;
        inner.functions.insert(function, Usage::default());
        drop(inner);
        Share { slots: self.clone(), function }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Takes a slot for a function. Returns false if no slot is free for it, or if other attempts of the function wait.
    /// Released slots go to waiting functions immediately, except for reserved slots. So the functions that wait can be
    /// overtaken only by a function without a slot, which can take a reserved slot.
    fn try_take(&mut self, function: u64) -> bool {
        let reserved = self.reserved();
        let Self { free, idle, served_us, functions, .. } = self;
        let Some(usage) = functions.get_mut(&function) else { return false };
        let is_idle = usage.held == 0 && usage.waiting.is_empty();
        if is_idle {
            usage.total_us = usage.total_us.max(*served_us);
        }
        let takes = usage.waiting.is_empty() && *free > if is_idle { 0 } else { reserved };
        if takes {
            *free -= 1;
            *idle -= u32::from(is_idle);
            usage.held += 1;
            *served_us = (*served_us).max(usage.total_us);
        }
        takes
    }

    fn wait(&mut self, function: u64, place: Place) -> Arc<Waiter> {
        let waiter = Arc::<Waiter>::default();
        if let Some(usage) = self.functions.get_mut(&function) {
            match place {
                Place::First => usage.waiting.push_front(waiter.clone()),
                Place::Last => usage.waiting.push_back(waiter.clone()),
            }
            self.waiting.insert((usage.total_us, function));
        }
        waiter
    }

    /// Takes a slot back, and adds the time for which it was held to the total of the function. Returns the waiters
    /// that got a slot; the caller must wake them.
    fn release(&mut self, function: u64, held_us: u64) -> Vec<Arc<Waiter>> {
        self.free += 1;
        if let Some(usage) = self.functions.get_mut(&function) {
            let is_waiting = self.waiting.remove(&(usage.total_us, function));
            usage.held -= 1;
            self.idle += u32::from(usage.held == 0);
            usage.total_us += held_us;
            if is_waiting {
                self.waiting.insert((usage.total_us, function));
            }
        }
        self.give()
    }

    /// Gives the free slots to waiters, and returns those waiters.
    fn give(&mut self) -> Vec<Arc<Waiter>> {
        let mut served = Vec::new();
        while let Some(next) = self.next() {
            self.waiting.remove(&next);
            let Some(usage) = self.functions.get_mut(&next.1) else { continue };
            let Some(waiter) = usage.waiting.pop_front() else { continue };
            self.free -= 1;
            self.idle -= u32::from(usage.held == 0);
            usage.held += 1;
            self.served_us = self.served_us.max(usage.total_us);
            if !usage.waiting.is_empty() {
                self.waiting.insert(next);
            }
            waiter.has_slot.store(true, Ordering::Release);
            served.push(waiter);
        }
        served
    }

    fn reserved(&self) -> u32 {
        self.idle.min(self.reserved_max)
    }

    /// Returns the waiting function that gets the next free slot.
    fn next(&self) -> Option<(u64, u64)> {
        let mut waiting = self.waiting.iter().copied();
        match self.free {
            0 => None,
            free if free > self.reserved() => waiting.next(),
            _ => waiting.find(|(_, function)| self.functions.get(function).is_some_and(|usage| usage.held == 0)),
        }
    }
}

/// The right of one function to take slots. Dropping it removes the function.
pub(super) struct Share {
    slots: Arc<FairSlots>,
    function: u64,
}

impl Share {
    /// Waits for a slot. Dropping the slot releases it.
    pub(super) async fn acquire(&self) -> Slot<'_> {
        self.acquire_at(Place::Last).await
    }

    /// Like [`Share::acquire`], but waits at this place in the queue of the function.
    pub(super) async fn acquire_at(&self, place: Place) -> Slot<'_> {
        let waiter = {
            let mut inner = self.slots.lock();
            if inner.try_take(self.function) { None } else { Some(inner.wait(self.function, place)) }
        };
        if let Some(waiter) = waiter {
            let mut wait = Wait { share: self, waiter, is_over: false };
            poll_fn(|context| wait.poll(context)).await;
        }
        Slot { share: self, since: Instant::now() }
    }

    fn release(&self, held_us: u64) {
        let served = self.slots.lock().release(self.function, held_us);
        served.iter().for_each(|waiter| waiter.waker.wake());
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut inner = self.slots.lock();
        // The function holds no slot and has no waiter, because both borrow the share. So it counts as idle, and a slot
        // can be reserved for it. This slot becomes free for other functions.
        if inner.functions.remove(&self.function).is_some() {
            inner.idle -= 1;
        }
        let served = inner.give();
        drop(inner);
        served.iter().for_each(|waiter| waiter.waker.wake());
    }
}

pub(super) struct Slot<'a> {
    share: &'a Share,
    since: Instant,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.share.release(u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}

/// A wait for a slot. If the wait is dropped early, it leaves the queue, or releases the slot that it has got in the
/// meantime.
struct Wait<'a> {
    share: &'a Share,
    waiter: Arc<Waiter>,
    is_over: bool,
}

impl Wait<'_> {
    fn poll(&mut self, context: &Context<'_>) -> Poll<()> {
        self.waiter.waker.register(context.waker());
        self.is_over = self.waiter.has_slot.load(Ordering::Acquire);
        if self.is_over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let Share { slots, function } = self.share;
        let mut inner = slots.lock();
        if self.waiter.has_slot.load(Ordering::Acquire) {
            drop(inner);
            self.share.release(0);
            return;
        }
        let Inner { functions, waiting, .. } = &mut *inner;
        if let Some(usage) = functions.get_mut(function) {
            usage.waiting.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
            if usage.waiting.is_empty() {
                waiting.remove(&(usage.total_us, *function));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt as _;

    use super::*;

    type Waiting<'a> = Pin<Box<dyn Future<Output = Slot<'a>> + 'a>>;

    fn take(share: &Share) -> Option<Slot<'_>> {
        share.acquire().now_or_never()
    }

    /// Starts to wait for a slot. Panics if a slot is free for the function.
    fn wait(share: &Share) -> Waiting<'_> {
        let mut waiting: Waiting<'_> = Box::pin(share.acquire());
        assert!(waiting.as_mut().now_or_never().is_none());
        waiting
    }

    /// Releases a slot as if it had been held for this time.
    fn hold(slot: Slot<'_>, held_us: u64) {
        let share = slot.share;
        std::mem::forget(slot);
        share.release(held_us);
    }

    #[test]
    fn the_function_that_held_slots_for_the_shortest_time_is_next() {
        let slots = FairSlots::new(1, 0);
        let (busy, light) = (slots.share(), slots.share());
        let first = take(&busy).unwrap();
        let (mut busy_1, mut busy_2, mut light_1) = (wait(&busy), wait(&busy), wait(&light));
        hold(first, 1_000);
        let slot = light_1.as_mut().now_or_never().expect("the light function is first");
        assert!(busy_1.as_mut().now_or_never().is_none());
        hold(slot, 400);
        let slot = busy_1.as_mut().now_or_never().expect("no other function waits");
        let mut light_2 = wait(&light);
        hold(slot, 1_000);
        let slot = light_2.as_mut().now_or_never().expect("the light function has held slots for a shorter time");
        hold(slot, 5_000);
        assert!(busy_2.as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_function_that_was_idle_has_no_claim_on_the_time_before() {
        let slots = FairSlots::new(1, 0);
        let (old, new) = (slots.share(), slots.share());
        hold(take(&old).unwrap(), 1_000_000);
        let slot = take(&old).unwrap();
        let (mut old_1, mut new_1, mut new_2) = (wait(&old), wait(&new), wait(&new));
        hold(slot, 1_000);
        hold(new_1.as_mut().now_or_never().expect("the new function is first"), 2_000);
        let slot = old_1.as_mut().now_or_never().expect("now the new function has held slots for longer");
        hold(slot, 0);
        assert!(new_2.as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_slot_is_reserved_for_each_function_without_one() {
        let slots = FairSlots::new(4, 1);
        let (greedy, other) = (slots.share(), slots.share());
        let mut held: Vec<_> = std::iter::from_fn(|| take(&greedy)).collect();
        assert_eq!(held.len(), 3, "one slot is left for the other function");
        let mut more = wait(&greedy);
        let one = take(&other).expect("the reserved slot");
        // Now every function has a slot, so none is reserved.
        drop(held.pop());
        let third = more.as_mut().now_or_never().expect("a free slot");
        let mut again = wait(&greedy);
        drop(one);
        assert!(again.as_mut().now_or_never().is_none(), "the slot is reserved again");
        drop(third);
        let third = again.as_mut().now_or_never().expect("two slots are free");
        // No slot is reserved for a function that was removed.
        let mut last = wait(&greedy);
        drop(other);
        assert!(last.as_mut().now_or_never().is_some());
        drop((third, held));
    }

    #[test]
    fn a_dropped_wait_leaves_the_queue_or_returns_its_slot() {
        let slots = FairSlots::new(1, 0);
        let (a, b) = (slots.share(), slots.share());
        let slot = take(&a).unwrap();
        let (gone, served_and_gone, mut last) = (wait(&a), wait(&a), wait(&b));
        drop(gone);
        hold(slot, 0);
        drop(served_and_gone);
        assert!(last.as_mut().now_or_never().is_some());
        drop(last);
        drop(take(&a).expect("the slot is free again"));
        drop((a, b));
        let inner = slots.lock();
        assert!(inner.functions.is_empty() && inner.waiting.is_empty() && (inner.free, inner.idle) == (1, 0));
    }
}
