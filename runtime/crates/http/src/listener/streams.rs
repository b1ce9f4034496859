//! Limits the number of concurrent requests on HTTP/2 connections. A request is not counted if it begins while its
//! connection has no other request in flight, because the limit of connections covers it. Each request holds its head
//! in memory. One connection can have 64 requests, so without this limit the connections could use 64 times as much
//! memory.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::connections::counted_network;

/// Issues the permits; cheap to clone.
#[derive(Clone)]
pub(super) struct StreamLimit {
    max: usize,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    total: usize,
    /// A peer without permits has no entry.
    by_peer: HashMap<IpAddr, usize>,
}

/// Counts one request until this is dropped.
pub(super) struct StreamPermit {
    limit: StreamLimit,
    peer: IpAddr,
}

impl StreamLimit {
    pub(super) fn new(max: usize) -> Self {
        Self { max, open: Arc::default() }
    }

    /// Returns a permit for one more request of a peer; `None` if the peer already has as many permits as are free. So
    /// one peer alone can have half of all permits, and two peers can have a third each.
    pub(super) fn acquire(&self, addr: IpAddr) -> Option<StreamPermit> {
        let peer = counted_network(addr);
        let mut open = self.lock();
        let free = self.max.saturating_sub(open.total);
        let own = open.by_peer.get(&peer).copied().unwrap_or_default();
        if own >= free {
            return None;
        }
        open.total += 1;
        open.by_peer.insert(peer, own + 1);
        Some(StreamPermit { limit: self.clone(), peer })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut open = self.limit.lock();
        open.total = open.total.saturating_sub(1);
        if let Some(own) = open.by_peer.get_mut(&self.peer) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                open.by_peer.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_as_many_requests_as_are_free_for_others() {
        let limit = StreamLimit::new(6);
        let fill = |peer: &str| {
            let addr = peer.parse().unwrap();
            std::iter::from_fn(|| limit.acquire(addr)).collect::<Vec<_>>()
        };
        let first = fill("192.0.2.1");
        let second = fill("2001:db8::1");
        let neighbour = fill("2001:db8::2");
        let third = fill("192.0.2.3");
        assert_eq!((first.len(), second.len(), neighbour.len(), third.len()), (3, 2, 0, 1));
        drop((first, second, third));
        assert_eq!(fill("192.0.2.4").len(), 3);
        assert!(limit.lock().by_peer.is_empty());
    }
}
