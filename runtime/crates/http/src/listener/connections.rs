//! Limits the number of connections, in all and by peer.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::body::Activity;

/// Issues a permit for each connection within the limits; cheap to clone.
#[derive(Clone)]
pub(super) struct ConnectionLimits(Arc<Inner>);

struct Inner {
    max: usize,
    per_peer_max: usize,
    replaces_idle: bool,
    open: Mutex<Open>,
    /// Notified when the listener becomes crowded.
    crowded: Notify,
}

#[derive(Default)]
struct Open {
    /// The open connections in the order in which they were accepted.
    connections: BTreeMap<u64, Connection>,
    /// Number of connections accepted so far.
    accepted: u64,
    /// The open connections by peer, without loopback; the last connection of a peer removes its entry.
    by_peer: HashMap<IpAddr, usize>,
}

struct Connection {
    peer: Option<IpAddr>,
    activity: watch::Receiver<Activity>,
    closed: CancellationToken,
}

/// Counts one connection as open until this is dropped.
pub(super) struct ConnectionPermit {
    limits: ConnectionLimits,
    number: u64,
    /// Cancelled to close the connection at once.
    pub(super) closed: CancellationToken,
}

impl ConnectionLimits {
    pub(super) fn new(limits: &Limits) -> Self {
        Self(Arc::new(Inner {
            max: limits.connections_max,
            per_peer_max: limits.connections_per_peer_max,
            replaces_idle: limits.replaces_idle,
            open: Mutex::default(),
            crowded: Notify::new(),
        }))
    }

    /// Resolves when most connections are in use, so that idle ones should be closed.
    pub(super) async fn crowded(&self) {
        let notified = self.0.crowded.notified();
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner).connections.len();
        if !self.0.is_crowded(open) {
            notified.await;
        }
    }

    /// Returns a permit for one more connection from `addr`; `None` when a limit is reached. `activity` tells how
    /// many requests are in flight on the new connection.
    pub(super) fn acquire(&self, addr: IpAddr, activity: watch::Receiver<Activity>) -> Option<ConnectionPermit> {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.connections.len() >= self.0.max && !(self.0.replaces_idle && open.close_oldest_idle()) {
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
        let (number, closed) = (open.accepted, CancellationToken::new());
        open.accepted += 1;
        open.connections.insert(number, Connection { peer, activity, closed: closed.clone() });
        if self.0.is_crowded(open.connections.len()) {
            self.0.crowded.notify_waiters();
        }
        Some(ConnectionPermit { limits: self.clone(), number, closed })
    }
}

impl Open {
    /// Closes the oldest connection that has no request in flight. Returns false if there is none.
    fn close_oldest_idle(&mut self) -> bool {
        let mut idle = self.connections.iter().filter(|(_, connection)| connection.activity.borrow().requests == 0);
        let Some((&number, connection)) = idle.next() else { return false };
        connection.closed.cancel();
        self.remove(number);
        true
    }

    /// Removes a connection, if it was not removed before.
    fn remove(&mut self, number: u64) {
        if let Some(Connection { peer: Some(peer), .. }) = self.connections.remove(&number)
            && let Some(open_of_peer) = self.by_peer.get_mut(&peer)
        {
            *open_of_peer -= 1;
            if *open_of_peer == 0 {
                self.by_peer.remove(&peer);
            }
        }
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
        self.limits.0.open.lock().unwrap_or_else(PoisonError::into_inner).remove(self.number);
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

    fn limits(connections_max: usize, connections_per_peer_max: usize) -> ConnectionLimits {
        ConnectionLimits::new(&Limits { connections_max, connections_per_peer_max, ..Limits::default() })
    }

    /// Acquires a permit for a connection without requests.
    fn acquire(limits: &ConnectionLimits, addr: &str) -> Option<ConnectionPermit> {
        limits.acquire(addr.parse().unwrap(), watch::channel(Activity::default()).1)
    }

    #[test]
    fn a_peer_is_limited_and_may_connect_again_after_closing() {
        let limits = limits(10, 2);
        let first = acquire(&limits, "192.0.2.1").unwrap();
        let _second = acquire(&limits, "::ffff:192.0.2.1").unwrap();
        assert!(acquire(&limits, "192.0.2.1").is_none());
        assert!(acquire(&limits, "192.0.2.2").is_some());
        drop(first);
        assert!(acquire(&limits, "192.0.2.1").is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_peer() {
        let limits = limits(10, 1);
        let _one = acquire(&limits, "2001:db8:1:2:3::1").unwrap();
        assert!(acquire(&limits, "2001:db8:1:2:ffff::2").is_none());
        assert!(acquire(&limits, "2001:db8:1:3::1").is_some());
    }

    #[test]
    fn loopback_is_limited_by_the_total_only() {
        let limits = limits(3, 1);
        let permits: Vec<_> = (0..3).map(|_| acquire(&limits, "127.0.0.1").unwrap()).collect();
        assert!(acquire(&limits, "::1").is_none());
        drop(permits);
        assert!(acquire(&limits, "::1").is_some());
        assert!(limits.0.open.lock().unwrap().by_peer.is_empty());
    }

    #[test]
    fn a_new_connection_replaces_the_oldest_idle_one_if_the_listener_says_so() {
        let limits = Limits { connections_max: 3, replaces_idle: true, ..Limits::default() };
        let limits = ConnectionLimits::new(&limits);
        let open =
            |activity: &watch::Sender<Activity>| limits.acquire("127.0.0.1".parse().unwrap(), activity.subscribe());
        let connection = |requests| watch::Sender::new(Activity { requests, ..Activity::default() });
        let (busy, idle, later) = (connection(1), connection(0), connection(0));
        let permits = [open(&busy), open(&idle), open(&later)].map(Option::unwrap);
        let fourth = open(&later).unwrap();
        assert_eq!(permits.each_ref().map(|permit| permit.closed.is_cancelled()), [false, true, false]);
        // Dropping the permit of the replaced connection frees nothing twice.
        drop(permits);
        assert_eq!(limits.0.open.lock().unwrap().connections.len(), 1);
        drop(fourth);
        let _busy = [open(&busy), open(&busy), open(&busy)].map(Option::unwrap);
        assert!(open(&idle).is_none());
    }
}
