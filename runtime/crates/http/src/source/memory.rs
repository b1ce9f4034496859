//! The memory for request bodies whose events are not committed yet.
//!
//! Large bodies together may use at most [`LARGE_BYTES`]. Small bodies may use all free memory up to [`TOTAL_BYTES`],
//! so large bodies always leave some memory for them. A body with a large announced length is a large one from its
//! first byte, so that many large bodies that begin to arrive take no memory of small ones. In each class (small and
//! large), the bodies of one source or of one peer may not use more memory than is still free. So one source or peer
//! alone can use half of the memory, and two can use a third each. If there is no memory for a body, the bodies that
//! have been arriving for the longest time are refused to make room, provided that they have been arriving for longer
//! than [`YIELD_AGE`], and that this makes enough room.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use evoke_core::bus::Origin;

/// The memory for all requests, in bytes: enough for 16,000 small ones. With 1,000 slow connections,
/// which use about 25 KiB each, the process uses at most 64 MiB more than at rest.
pub(super) const TOTAL_BYTES: usize = 32 * 1024 * 1024;
/// The part of the memory that large bodies can use, in bytes. Only 23 bodies of 1 MiB fit, because each of them takes
/// [`REQUEST_BYTES`] more.
pub(super) const LARGE_BYTES: usize = 24 * 1024 * 1024;
/// The memory that a request with an event takes besides its body, in bytes: the event, its deliveries, their message to
/// the store, and the task that waits for the commit. A request with a longer event takes more.
pub(super) const REQUEST_BYTES: usize = 2 * 1024;
/// The largest memory of a small request, in bytes.
pub(super) const SMALL_MAX: usize = 64 * 1024;
/// If another body needs memory, a body that has been arriving for longer than this time can be refused to free its
/// memory.
pub(super) const YIELD_AGE: Duration = Duration::from_secs(1);

/// The source and the peer for which the memory of a body is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Owners {
    pub(super) source: Origin,
    pub(super) peer: IpAddr,
}

/// Why a body gets no more memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// The memory is used up, or the share of the source or of the peer is used up.
    Full,
    /// The body arrived slowly, and another body needed its memory.
    GaveWay,
}

/// The memory that all bodies share; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Budget(Arc<Mutex<Pool>>);

/// The memory of one body; returned when this is dropped.
pub(super) struct Memory {
    budget: Budget,
    id: u64,
    /// The bytes that were granted. Most requests need no more after their body is complete, so they need no lock then.
    granted: AtomicUsize,
    gives_way: Arc<Notify>,
}

#[derive(Default)]
struct Pool {
    next: u64,
    bodies: HashMap<u64, Body>,
    /// The used bytes of each class.
    used: HashMap<Class, usize>,
    /// The used bytes of each class and owner; an owner without bodies has no entry.
    shares: HashMap<(Class, Owner), usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Class {
    Small,
    Large,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Owner {
    Source(Origin),
    Peer(IpAddr),
}

struct Body {
    owners: [Owner; 2],
    held: usize,
    /// The class of the announced length. The body has at least this class.
    class_min: Class,
    since: Instant,
    /// False when the body is complete. Its events are then about to be committed, so the body does not give way.
    is_arriving: bool,
    gives_way: Arc<Notify>,
}

impl Class {
    fn of(bytes: u64) -> Self {
        if bytes > SMALL_MAX as u64 { Self::Large } else { Self::Small }
    }
}

impl Body {
    /// Returns the class of the body when it has `bytes` bytes.
    fn class(&self, bytes: usize) -> Class {
        self.class_min.max(Class::of(bytes as u64))
    }
}

impl Budget {
    /// Registers a body that will have at least `announced` bytes. It has no memory at first.
    pub(super) fn register(&self, owners: Owners, announced: u64) -> Memory {
        let gives_way = Arc::<Notify>::default();
        let mut pool = self.lock();
        let id = pool.next;
        pool.next += 1;
        let body = Body {
            owners: [Owner::Source(owners.source), Owner::Peer(owners.peer)],
            held: 0,
            class_min: Class::of(announced),
            since: Instant::now(),
            is_arriving: true,
            gives_way: gives_way.clone(),
        };
        pool.bodies.insert(id, body);
        Memory { budget: self.clone(), id, granted: AtomicUsize::new(0), gives_way }
    }

    /// Returns the used bytes.
    #[cfg(test)]
    pub(super) fn used(&self) -> usize {
        self.lock().used.values().sum()
    }

    fn lock(&self) -> MutexGuard<'_, Pool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Grows the memory of the body to `bytes` bytes in total.
    pub(super) fn grow(&self, bytes: usize) -> Result<(), Refused> {
        if bytes <= self.granted.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.budget.lock().grow(self.id, bytes)?;
        self.granted.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Records that the whole body has arrived, and grows its memory to `bytes` bytes in total. From now on, the body
    /// does not give way to other bodies.
    pub(super) fn complete(&self, bytes: usize) -> Result<(), Refused> {
        let mut pool = self.budget.lock();
        pool.grow(self.id, bytes)?;
        if let Some(body) = pool.bodies.get_mut(&self.id) {
            body.is_arriving = false;
        }
        self.granted.fetch_max(bytes, Ordering::Relaxed);
        Ok(())
    }

    /// Resolves when the body has to give way. Its memory has been freed then, and [`Memory::complete`] fails.
    pub(super) async fn gives_way(&self) {
        self.gives_way.notified().await;
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut pool = self.budget.lock();
        if let Some(body) = pool.bodies.remove(&self.id) {
            pool.remove(&body);
        }
    }
}

impl Pool {
    fn grow(&mut self, id: u64, bytes: usize) -> Result<(), Refused> {
        // A body that is larger than the memory for large bodies counts as using all of that memory.
        let bytes = bytes.min(LARGE_BYTES);
        let Some(mut body) = self.bodies.remove(&id) else { return Err(Refused::GaveWay) };
        if bytes <= body.held {
            self.bodies.insert(id, body);
            return Ok(());
        }
        self.remove(&body);
        let class = body.class(bytes);
        let (mut slow, mut gave_way) = (None, Vec::new());
        let granted = loop {
            let Some(full) = self.obstacle(class, &body.owners, bytes) else { break Ok(()) };
            let slow = slow.get_or_insert_with(|| self.slow_bodies(class));
            let is_of_owner = |id: &u64| {
                full.is_none_or(|owner| self.bodies.get(id).is_some_and(|body| body.owners.contains(&owner)))
            };
            let Some(oldest) = slow.iter().position(is_of_owner).and_then(|at| slow.remove(at)) else {
                break Err(Refused::Full);
            };
            if let Some(other) = self.bodies.remove(&oldest) {
                self.remove(&other);
                gave_way.push((oldest, other));
            }
        };
        for (id, other) in gave_way {
            if granted.is_ok() {
                other.gives_way.notify_one();
            } else {
                self.add(&other);
                self.bodies.insert(id, other);
            }
        }
        if granted.is_ok() {
            body.held = bytes;
        }
        self.add(&body);
        self.bodies.insert(id, body);
        granted
    }

    /// Returns `None` if a body of `class` can have `bytes` bytes. Otherwise returns the owner whose share is used up,
    /// or `Some(None)` if the memory of the whole class is used up. The caller must first release the memory that the
    /// body already had.
    fn obstacle(&self, class: Class, owners: &[Owner; 2], bytes: usize) -> Option<Option<Owner>> {
        let used = |class| self.used.get(&class).copied().unwrap_or_default();
        let total_free = TOTAL_BYTES.saturating_sub(used(Class::Small) + used(Class::Large));
        let free = match class {
            Class::Small => total_free,
            Class::Large => total_free.min(LARGE_BYTES.saturating_sub(used(Class::Large))),
        };
        let share = |owner: &Owner| self.shares.get(&(class, *owner)).copied().unwrap_or_default();
        if let Some(owner) = owners.iter().find(|owner| share(owner) >= free && share(owner) > 0) {
            return Some(Some(*owner));
        }
        (bytes > free).then_some(None)
    }

    /// Returns the bodies of the class that have been arriving for longer than [`YIELD_AGE`], the oldest first.
    fn slow_bodies(&self, class: Class) -> VecDeque<u64> {
        let is_slow = |body: &Body| {
            body.is_arriving && body.held > 0 && body.class(body.held) == class && body.since.elapsed() > YIELD_AGE
        };
        let mut slow: Vec<u64> = self.bodies.iter().filter(|(_, body)| is_slow(body)).map(|(id, _)| *id).collect();
        slow.sort_unstable();
        slow.into()
    }

    fn add(&mut self, body: &Body) {
        if body.held == 0 {
            return;
        }
        let class = body.class(body.held);
        *self.used.entry(class).or_default() += body.held;
        for owner in body.owners {
            *self.shares.entry((class, owner)).or_default() += body.held;
        }
    }

    fn remove(&mut self, body: &Body) {
        if body.held == 0 {
            return;
        }
        let class = body.class(body.held);
        if let Some(used) = self.used.get_mut(&class) {
            *used -= body.held;
        }
        for owner in body.owners {
            if let Some(share) = self.shares.get_mut(&(class, owner)) {
                *share -= body.held;
                if *share == 0 {
                    self.shares.remove(&(class, owner));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn owners(source: u32, peer: u8) -> Owners {
        Owners { source: Origin(source), peer: IpAddr::from([192, 0, 2, peer]) }
    }

    /// Registers bodies of `bytes` bytes until one is refused. Returns the memory of the bodies that were not refused.
    fn fill(budget: &Budget, owners: Owners, bytes: usize) -> Vec<Memory> {
        std::iter::from_fn(|| {
            let memory = budget.register(owners, 0);
            memory.grow(bytes).is_ok().then_some(memory)
        })
        .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_and_a_peer_get_half_of_the_memory_and_two_a_third_each() {
        let budget = Budget::default();
        let first = fill(&budget, owners(1, 1), MIB);
        assert_eq!(first.len(), 12);
        assert_eq!(fill(&budget, owners(1, 2), MIB).len(), 0, "the share of the source is full");
        assert_eq!(fill(&budget, owners(2, 1), MIB).len(), 0, "the share of the peer is full");
        let second = fill(&budget, owners(2, 2), MIB);
        assert_eq!(second.len(), 6);
        drop((first, second));
        assert_eq!(budget.used(), 0);
        assert!(budget.lock().shares.is_empty() && budget.lock().bodies.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn large_bodies_leave_memory_for_small_ones() {
        let budget = Budget::default();
        let large: Vec<_> = (1..=24).flat_map(|n| fill(&budget, owners(u32::from(n), n), MIB)).collect();
        assert_eq!(budget.used(), LARGE_BYTES);
        let small = fill(&budget, owners(1, 1), SMALL_MAX);
        assert_eq!(small.len() * SMALL_MAX, (TOTAL_BYTES - LARGE_BYTES) / 2);
        assert!(fill(&budget, owners(2, 2), SMALL_MAX + 1).is_empty());
        drop(large);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_gives_way_and_a_fast_or_complete_one_does_not() {
        let budget = Budget::default();
        let held = fill(&budget, owners(1, 1), SMALL_MAX);
        let newcomer = budget.register(owners(1, 1), 0);
        assert_eq!(newcomer.grow(1_000), Err(Refused::Full));
        held[0].complete(SMALL_MAX).unwrap();
        tokio::time::advance(YIELD_AGE * 2).await;
        newcomer.grow(1_000).unwrap();
        // `held[0]` is complete, so the oldest of the other bodies gave way.
        held[1].gives_way().await;
        assert_eq!(held[1].grow(SMALL_MAX + 1), Err(Refused::GaveWay));
        held[0].grow(SMALL_MAX).unwrap();
        drop(held);
        assert_eq!(budget.used(), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn no_body_gives_way_if_that_makes_too_little_room() {
        let budget = Budget::default();
        let complete = fill(&budget, owners(1, 1), MIB);
        complete.iter().for_each(|memory| memory.complete(MIB).unwrap());
        let slow = budget.register(owners(2, 2), MIB as u64);
        slow.grow(1_000).unwrap();
        tokio::time::advance(YIELD_AGE * 2).await;
        let before = budget.used();
        assert_eq!(budget.register(owners(1, 3), 0).grow(16 * MIB), Err(Refused::Full));
        assert_eq!(budget.register(owners(3, 2), 0).grow(16 * MIB), Err(Refused::Full));
        assert_eq!(budget.used(), before);
        slow.grow(2_000).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_larger_than_the_memory_is_read_alone() {
        let budget = Budget::default();
        let huge = budget.register(owners(1, 1), 0);
        huge.grow(64 * MIB).unwrap();
        assert_eq!(fill(&budget, owners(2, 2), MIB).len(), 0);
        assert!(!fill(&budget, owners(2, 2), SMALL_MAX).is_empty());
        drop(huge);
        assert!(!fill(&budget, owners(2, 2), MIB).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_growth_changes_nothing() {
        let budget = Budget::default();
        let _first = fill(&budget, owners(1, 1), MIB);
        let body = budget.register(owners(1, 1), 0);
        body.grow(1_000).unwrap();
        let before = budget.used();
        assert_eq!(body.grow(2 * MIB), Err(Refused::Full));
        assert_eq!(budget.used(), before);
        body.grow(2_000).unwrap();
        assert_eq!(budget.used(), before + 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_are_announced_as_large_take_no_memory_of_small_ones() {
        let budget = Budget::default();
        let begins = || {
            let memory = budget.register(owners(1, 1), MIB as u64);
            memory.grow(SMALL_MAX).is_ok().then_some(memory)
        };
        let large: Vec<_> = std::iter::from_fn(begins).collect();
        assert_eq!(large.len() * SMALL_MAX, LARGE_BYTES / 2);
        assert!(!fill(&budget, owners(1, 1), 1_000).is_empty());
        drop(large);
        assert_eq!(budget.used(), 0);
    }
}
