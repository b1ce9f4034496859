//! How many connections there are, in all and by peer.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Hands out seats for connections.
#[derive(Clone)]
pub(super) struct Peers(Arc<Inner>);

struct Inner {
    max: usize,
    per_peer_max: usize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    total: usize,
    /// By address, without loopback; an entry leaves with its last connection.
    by_peer: HashMap<IpAddr, usize>,
}

/// The room that one connection takes, until it is dropped.
pub(super) struct Seat {
    peers: Peers,
    peer: Option<IpAddr>,
}

impl Peers {
    pub(super) fn new(max: usize, per_peer_max: usize) -> Self {
        Self(Arc::new(Inner { max, per_peer_max, taken: Mutex::default() }))
    }

    /// Room for one more connection of `addr`, if there is.
    pub(super) fn seat(&self, addr: IpAddr) -> Option<Seat> {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= self.0.max {
            return None;
        }
        let peer = counted(addr);
        if let Some(peer) = peer {
            let of_peer = taken.by_peer.entry(peer).or_default();
            if *of_peer >= self.0.per_peer_max {
                return None;
            }
            *of_peer += 1;
        }
        taken.total += 1;
        Some(Seat { peers: self.clone(), peer })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.peers.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total = taken.total.saturating_sub(1);
        if let Some(peer) = self.peer
            && let Some(of_peer) = taken.by_peer.get_mut(&peer)
        {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.by_peer.remove(&peer);
            }
        }
    }
}

/// Whom a connection counts for. One customer has a whole IPv6 /64, so addresses within it are one peer.
fn counted(addr: IpAddr) -> Option<IpAddr> {
    match addr.to_canonical() {
        addr if addr.is_loopback() => None,
        IpAddr::V4(addr) => Some(addr.into()),
        IpAddr::V6(addr) => {
            let [a, b, c, d, ..] = addr.segments();
            Some(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_peer_has_its_bound_and_gets_its_room_back() {
        let peers = Peers::new(10, 2);
        let first = peers.seat(ip("192.0.2.1")).unwrap();
        let _second = peers.seat(ip("::ffff:192.0.2.1")).unwrap();
        assert!(peers.seat(ip("192.0.2.1")).is_none());
        assert!(peers.seat(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(peers.seat(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer() {
        let peers = Peers::new(10, 1);
        let _one = peers.seat(ip("2001:db8:1:2:3::1")).unwrap();
        assert!(peers.seat(ip("2001:db8:1:2:ffff::2")).is_none());
        assert!(peers.seat(ip("2001:db8:1:3::1")).is_some());
    }

    #[test]
    fn loopback_is_bound_by_the_total_alone() {
        let peers = Peers::new(3, 1);
        let seats: Vec<_> = (0..3).map(|_| peers.seat(ip("127.0.0.1")).unwrap()).collect();
        assert!(peers.seat(ip("::1")).is_none());
        drop(seats);
        assert!(peers.seat(ip("::1")).is_some());
        assert!(peers.0.taken.lock().unwrap().by_peer.is_empty());
    }
}
