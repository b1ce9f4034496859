//! The memory for the decoders of a coding, and the shares of it.
//!
//! One source can use half of the memory, and one peer can use half of it at each source. A single decoder that needs
//! more waits for a whole share, and then uses more. A decoder waits for the share of its peer first, then for the
//! share of its source, and then for the memory. So if many bodies of a peer or of a source wait, a body of another
//! source waits for at most one share of each source, and not for all these bodies.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::source::memory::Owners;
use evoke_core::bus::Origin;

/// The memory for decoders; cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Room {
    kib: u32,
    memory: Arc<Semaphore>,
    shares: Arc<Mutex<HashMap<Sharer, Share>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Sharer {
    Source(Origin),
    /// A peer at one source.
    Peer(Origin, IpAddr),
}

/// The share of a source or a peer. A sharer without bodies has none.
#[derive(Debug)]
struct Share {
    memory: Arc<Semaphore>,
    /// The number of bodies that use the share or wait for it.
    bodies: usize,
}

/// The memory of one decoder; returned when this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    _memory: OwnedSemaphorePermit,
    _source: OfShare,
    _peer: OfShare,
}

#[derive(Debug)]
struct OfShare {
    _memory: OwnedSemaphorePermit,
    _entry: Entry,
}

/// Counts a body of a share until this is dropped.
#[derive(Debug)]
struct Entry {
    room: Room,
    sharer: Sharer,
}

impl Room {
    pub(super) fn new(kib: u32) -> Self {
        Self { kib, memory: Arc::new(Semaphore::new(kib as usize)), shares: Arc::default() }
    }

    /// Waits for memory for a decoder of a body. `kib` is at most the memory of the room. Fails only if a semaphore is
    /// closed, which never happens.
    pub(super) async fn acquire(&self, kib: u32, Owners { source, peer }: Owners) -> Result<Held, AcquireError> {
        let peer = self.acquire_share(Sharer::Peer(source, peer), kib).await?;
        let source = self.acquire_share(Sharer::Source(source), kib).await?;
        let memory = self.memory.clone().acquire_many_owned(kib).await?;
        Ok(Held { _memory: memory, _source: source, _peer: peer })
    }

    async fn acquire_share(&self, sharer: Sharer, kib: u32) -> Result<OfShare, AcquireError> {
        let half = self.kib / 2;
        let (entry, memory) = self.enter(sharer, half);
        Ok(OfShare { _memory: memory.acquire_many_owned(kib.min(half)).await?, _entry: entry })
    }

    fn enter(&self, sharer: Sharer, kib: u32) -> (Entry, Arc<Semaphore>) {
        let mut shares = self.lock();
        let new = || Share { memory: Arc::new(Semaphore::new(kib as usize)), bodies: 0 };
        let share = shares.entry(sharer).or_insert_with(new);
        share.bodies += 1;
        (Entry { room: self.clone(), sharer }, share.memory.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Sharer, Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Returns the memory in KiB.
    #[cfg(test)]
    pub(super) fn kib(&self) -> usize {
        self._memory.num_permits()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut shares = self.room.lock();
        if let Some(share) = shares.get_mut(&self.sharer) {
            share.bodies -= 1;
            if share.bodies == 0 {
                shares.remove(&self.sharer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokio::task::yield_now;

    use super::*;

    fn owners(source: u32, peer: u8) -> Owners {
        Owners { source: Origin(source), peer: IpAddr::from([192, 0, 2, peer]) }
    }

    #[tokio::test]
    async fn many_bodies_of_a_peer_or_a_source_delay_another_one_by_one_decoder() {
        for other in [owners(1, 2), owners(2, 1), owners(2, 2)] {
            let room = Room::new(24);
            let first = room.acquire(20, owners(1, 1)).await.unwrap();
            let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(room.acquire(20, owners(1, 1)))).collect();
            for body in &mut waiting {
                assert!(poll!(body).is_pending());
            }
            let mut other_body = Box::pin(room.acquire(20, other));
            assert!(poll!(&mut other_body).is_pending());
            yield_now().await;
            drop(first);
            // The other body is next, although these bodies came first.
            for body in &mut waiting {
                assert!(poll!(body).is_pending(), "{other:?}");
            }
            let poll = poll!(&mut other_body);
            assert!(poll.is_ready(), "{other:?}");
            drop((poll, other_body, waiting));
            assert!(room.lock().is_empty() && room.memory.available_permits() == 24);
        }
    }

    #[tokio::test]
    async fn a_source_and_a_peer_of_a_source_use_half_of_the_memory() {
        let room = Room::new(24);
        let held = [room.acquire(6, owners(1, 1)).await.unwrap(), room.acquire(6, owners(1, 1)).await.unwrap()];
        for owners in [owners(1, 1), owners(1, 2)] {
            assert!(poll!(&mut Box::pin(room.acquire(1, owners))).is_pending());
        }
        let _others = [room.acquire(6, owners(2, 1)).await.unwrap(), room.acquire(6, owners(3, 1)).await.unwrap()];
        assert_eq!(room.memory.available_permits(), 0);
        drop(held);
        assert!(poll!(&mut Box::pin(room.acquire(1, owners(1, 2)))).is_ready());
    }
}
