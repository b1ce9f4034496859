//! Limits the number of connections, in all and by peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Issues a permit for each connection within the limits; cheap to clone.
#[derive(Clone)]
pub(super) struct ConnectionLimits(Arc<Inner>);

struct Inner {
    max: usize,
    per_peer_max: usize,
    open: Mutex<Open>,
    /// Notified when the listener becomes crowded.
    crowded: Notify,
}

#[derive(Default)]
struct Open {
    total: usize,
    /// The open connections by peer, without loopback; the last connection of a peer removes its entry.
    by_peer: HashMap<IpAddr, usize>,
}

/// Counts one connection as open until this is dropped.
pub(super) struct ConnectionPermit {
    limits: ConnectionLimits,
    peer: Option<IpAddr>,
}

impl ConnectionLimits {
    pub(super) fn new(max: usize, per_peer_max: usize) -> Self {
        Self(Arc::new(Inner { max, per_peer_max, open: Mutex::default(), crowded: Notify::new() }))
    }

    /// Resolves when most connections are in use, so that idle ones should be closed.
    pub(super) async fn crowded(&self) {
        let notified = self.0.crowded.notified();
        if !self.0.is_crowded(self.0.open.lock().unwrap_or_else(PoisonError::into_inner).total) {
            notified.await;
        }
    }

    /// Returns a permit for one more connection from `addr`; `None` when a limit is reached.
    pub(super) fn acquire(&self, addr: IpAddr) -> Option<ConnectionPermit> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.total >= self.0.max {
            return None;
        }
        let peer = counted_peer(addr);
        if let Some(peer) = peer {
            let open_of_peer = open.by_peer.entry(peer).or_default();
            if *open_of_peer >= self.0.per_peer_max {
                return None;
            }
            *open_of_peer += 1;
        }
        open.total += 1;
        if self.0.is_crowded(open.total) {
            self.0.crowded.notify_waiters();
        }
        Some(ConnectionPermit { limits: self.clone(), peer })
    }
}

impl Inner {
    /// Returns true if more than three quarters of the connections are open.
    fn is_crowded(&self, total: usize) -> bool {
        total > self.max - self.max / 4
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut open = self.limits.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        if let Some(peer) = self.peer
            && let Some(open_of_peer) = open.by_peer.get_mut(&peer)
        {
            *open_of_peer -= 1;
            if *open_of_peer == 0 {
                open.by_peer.remove(&peer);
            }
        }
    }
}

/// Returns the peer under which a connection is counted; `None` for loopback.
fn counted_peer(addr: IpAddr) -> Option<IpAddr> {
    (!addr.to_canonical().is_loopback()).then(|| counted_network(addr))
}

/// Returns the network that counts as one peer: an IPv4 address or an IPv6 /64, because one customer usually has a whole
/// /64.
pub fn counted_network(addr: IpAddr) -> IpAddr {
    match addr.to_canonical() {
        IpAddr::V4(addr) => addr.into(),
        IpAddr::V6(addr) => {
            let [a, b, c, d, ..] = addr.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_is_limited_and_may_connect_again_after_closing() {
        let limits = ConnectionLimits::new(10, 2);
        let first = limits.acquire(ip("192.0.2.1")).unwrap();
        let _second = limits.acquire(ip("::ffff:192.0.2.1")).unwrap();
        assert!(limits.acquire(ip("192.0.2.1")).is_none());
        assert!(limits.acquire(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(limits.acquire(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer() {
        let limits = ConnectionLimits::new(10, 1);
        let _one = limits.acquire(ip("2001:db8:1:2:3::1")).unwrap();
        assert!(limits.acquire(ip("2001:db8:1:2:ffff::2")).is_none());
        assert!(limits.acquire(ip("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn loopback_is_limited_by_the_total_only() {
        let limits = ConnectionLimits::new(3, 1);
        let permits: Vec<_> = (0..3).map(|_| limits.acquire(ip("127.0.0.1")).unwrap()).collect();
        assert!(limits.acquire(ip("::1")).is_none());
        drop(permits);
        assert!(limits.acquire(ip("::1")).is_some());
        assert!(limits.0.open.lock().unwrap().by_peer.is_empty());
    }
}
