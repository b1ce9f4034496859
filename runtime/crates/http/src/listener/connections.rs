//! Limits the number of connections, in total and for each peer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::body::Activity;
use super::proxies::Proxies;

/// Issues a permit for each connection that is within the limits. Cheap to clone.
#[derive(Clone)]
pub(super) struct ConnectionLimits(Arc<Inner>);

struct Inner {
    max: usize,
    per_peer_max: usize,
    replaces_oldest: bool,
    handshakes_max: usize,
    /// Connections of these proxies are not limited by peer, because one proxy carries the requests of many clients.
    proxies: Arc<Proxies>,
    open: Mutex<Open>,
    /// Notified when more than three quarters of the allowed connections are open.
    crowded: Notify,
}

#[derive(Default)]
struct Open {
    /// The open connections in the order in which they were accepted.
    connections: BTreeMap<u64, Connection>,
    /// Number of connections accepted so far.
    accepted: u64,
    /// The number of open connections of each peer. Loopback addresses, proxies and peers without connections have no
    /// entry.
    by_peer: HashMap<IpAddr, usize>,
    /// The numbers of the connections whose handshake is not complete, the oldest first.
    handshakes: BTreeSet<u64>,
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
    /// Cancelled to close the connection immediately.
    pub(super) closed: CancellationToken,
}

impl ConnectionLimits {
    pub(super) fn new(limits: &Limits, proxies: Arc<Proxies>) -> Self {
        Self(Arc::new(Inner {
            max: limits.connections_max,
            per_peer_max: limits.connections_per_peer_max.min(limits.connections_max.div_ceil(2)),
            replaces_oldest: limits.replaces_oldest,
            handshakes_max: limits.handshakes_max,
            proxies,
            open: Mutex::default(),
            crowded: Notify::new(),
        }))
    }

    /// Resolves when more than three quarters of the allowed connections are open. Idle connections should then be
    /// closed.
    pub(super) async fn crowded(&self) {
        let notified = self.0.crowded.notified();
        let open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner).connections.len();
        if !self.0.is_crowded(open) {
            notified.await;
        }
    }

    /// Returns a permit for one more connection from `addr`; `None` when a limit is reached and no connection is
    /// replaced. `activity` has the requests in flight on the new connection, and whether it is kept.
    pub(super) fn acquire(&self, addr: IpAddr, activity: watch::Receiver<Activity>) -> Option<ConnectionPermit> {
        let Inner { max, per_peer_max, replaces_oldest, .. } = *self.0;
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = self.0.counted_peer(addr);
        // The limit of the peer is first: a peer that has reached this limit must not replace connections of others.
        let has_room = open.has_room(peer, per_peer_max) || (replaces_oldest && open.close_oldest(peer));
        if !has_room {
            return None;
        }
        let has_room = open.connections.len() < max || (replaces_oldest && open.close_oldest(None));
        if !has_room {
            return None;
        }
        open.count(peer, per_peer_max);
        let (number, closed) = (open.accepted, CancellationToken::new());
        open.accepted += 1;
        open.connections.insert(number, Connection { peer, activity, closed: closed.clone() });
        if self.0.is_crowded(open.connections.len()) {
            self.0.crowded.notify_waiters();
        }
        Some(ConnectionPermit { limits: self.clone(), number, closed })
    }
}

impl ConnectionPermit {
    /// From now on, counts the connection for `addr`, the client that the proxy has named, instead of its previous
    /// peer. Returns false if this client has too many connections; the connection then counts for no peer.
    pub(super) fn move_to(&self, addr: IpAddr) -> bool {
        let inner = &self.limits.0;
        let mut open = inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = inner.counted_peer(addr);
        // A connection that was replaced in the meantime is no longer counted.
        let Some(connection) = open.connections.get_mut(&self.number) else { return true };
        let before = std::mem::take(&mut connection.peer);
        open.uncount(before);
        if !open.count(peer, inner.per_peer_max) {
            return false;
        }
        if let Some(connection) = open.connections.get_mut(&self.number) {
            connection.peer = peer;
        }
        true
    }

    /// Counts the connection as being in its handshake. If this exceeds the limit of handshakes, the connection with
    /// the oldest handshake is closed. That connection is most likely not a real client: real clients complete their
    /// handshake quickly.
    pub(super) fn begin_handshake(&self) {
        let inner = &self.limits.0;
        let mut open = inner.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !open.connections.contains_key(&self.number) {
            return;
        }
        open.handshakes.insert(self.number);
        if open.handshakes.len() > inner.handshakes_max
            && let Some(oldest) = open.handshakes.pop_first()
            && let Some(connection) = open.connections.get(&oldest)
        {
            connection.closed.cancel();
            open.remove(oldest);
        }
    }

    /// No longer counts the connection as being in its handshake.
    pub(super) fn end_handshake(&self) {
        self.limits.0.open.lock().unwrap_or_else(PoisonError::into_inner).handshakes.remove(&self.number);
    }
}

impl Open {
    /// Counts one more connection of a peer. Returns false, and counts nothing, if the peer already has `max`
    /// connections.
    fn count(&mut self, peer: Option<IpAddr>, max: usize) -> bool {
        let has_room = self.has_room(peer, max);
        if let (Some(peer), true) = (peer, has_room) {
            *self.by_peer.entry(peer).or_default() += 1;
        }
        has_room
    }

    /// Returns true if a peer has fewer than `max` connections.
    fn has_room(&self, peer: Option<IpAddr>, max: usize) -> bool {
        peer.is_none_or(|peer| self.by_peer.get(&peer).copied().unwrap_or_default() < max)
    }

    fn uncount(&mut self, peer: Option<IpAddr>) {
        if let Some(peer) = peer
            && let Some(open_of_peer) = self.by_peer.get_mut(&peer)
        {
            *open_of_peer -= 1;
            if *open_of_peer == 0 {
                self.by_peer.remove(&peer);
            }
        }
    }

    /// Closes the oldest connection that is not kept; if `peer` is given, the oldest one of this peer. Returns false if
    /// there is none.
    fn close_oldest(&mut self, peer: Option<IpAddr>) -> bool {
        let mut replaceable = self.connections.iter().filter(|(_, connection)| {
            (peer.is_none() || connection.peer == peer) && connection.activity.borrow().kept == 0
        });
        let Some((&number, connection)) = replaceable.next() else { return false };
        connection.closed.cancel();
        self.remove(number);
        true
    }

    /// Removes a connection, if it was not removed before.
    fn remove(&mut self, number: u64) {
        self.handshakes.remove(&number);
        if let Some(connection) = self.connections.remove(&number) {
            self.uncount(connection.peer);
        }
    }
}

impl Inner {
    /// Returns true if more than three quarters of the allowed connections are open.
    fn is_crowded(&self, total: usize) -> bool {
        total > self.max - self.max / 4
    }

    /// Returns the peer under which a connection is counted; `None` for loopback and for proxies.
    fn counted_peer(&self, addr: IpAddr) -> Option<IpAddr> {
        (!addr.to_canonical().is_loopback() && !self.proxies.is_trusted(addr)).then(|| counted_network(addr))
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.limits.0.open.lock().unwrap_or_else(PoisonError::into_inner).remove(self.number);
    }
}

/// Returns the network that counts as one peer: an IPv4 address or an IPv6 /64, because one customer of a provider
/// usually has a whole /64.
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
        let limits = Limits { connections_max, connections_per_peer_max, ..Limits::default() };
        ConnectionLimits::new(&limits, Arc::default())
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
    fn a_peer_gets_at_most_half_of_the_connections_whatever_its_own_limit_is() {
        let limits = limits(4, 256);
        let _own = [(); 2].map(|()| acquire(&limits, "192.0.2.1").unwrap());
        assert!(acquire(&limits, "192.0.2.1").is_none());
        assert!(acquire(&limits, "192.0.2.2").is_some());
    }

    #[test]
    fn a_peer_at_its_limit_replaces_its_own_connections_and_none_of_others() {
        let limits = Limits { connections_max: 4, replaces_oldest: true, ..Limits::default() };
        let limits = ConnectionLimits::new(&limits, Arc::default());
        let closed = |permits: &[ConnectionPermit]| {
            permits.iter().map(|permit| permit.closed.is_cancelled()).collect::<Vec<_>>()
        };
        let of_others = [(); 2].map(|()| acquire(&limits, "192.0.2.1").unwrap());
        let own = [(); 5].map(|()| acquire(&limits, "192.0.2.2").unwrap());
        assert_eq!(closed(&own), [true, true, true, false, false]);
        assert_eq!(closed(&of_others), [false, false]);
        drop((own, of_others));
        assert!(limits.0.open.lock().unwrap().by_peer.is_empty());
    }

    #[test]
    fn a_new_connection_replaces_the_oldest_one_that_is_not_kept_if_the_listener_says_so() {
        let limits = Limits { connections_max: 3, replaces_oldest: true, ..Limits::default() };
        let limits = ConnectionLimits::new(&limits, Arc::default());
        let open =
            |activity: &watch::Sender<Activity>| limits.acquire("127.0.0.1".parse().unwrap(), activity.subscribe());
        let connection = |kept| watch::Sender::new(Activity { requests: 1, kept, ..Activity::default() });
        let (kept, first, later) = (connection(1), connection(0), connection(0));
        let permits = [open(&kept), open(&first), open(&later)].map(Option::unwrap);
        let fourth = open(&later).unwrap();
        assert_eq!(permits.each_ref().map(|permit| permit.closed.is_cancelled()), [false, true, false]);
        // The replaced connection is already removed, so dropping its permit does not remove another one.
        drop(permits);
        assert_eq!(limits.0.open.lock().unwrap().connections.len(), 1);
        drop(fourth);
        let _kept = [open(&kept), open(&kept), open(&kept)].map(Option::unwrap);
        assert!(open(&first).is_none());
    }

    #[test]
    fn a_proxy_is_not_limited_and_its_connections_count_for_their_clients() {
        let limits = Limits { connections_per_peer_max: 2, ..Limits::default() };
        let proxies = Proxies { networks: vec!["192.0.2.0/24".parse().unwrap()], protocol: true };
        let limits = ConnectionLimits::new(&limits, Arc::new(proxies));
        let permits: Vec<_> = (0..5).map(|_| acquire(&limits, "192.0.2.1").unwrap()).collect();
        let client = "198.51.100.1".parse().unwrap();
        assert!(permits[0].move_to(client) && permits[1].move_to(client));
        assert!(!permits[2].move_to(client));
        assert!(acquire(&limits, "198.51.100.1").is_none());
        // A connection that is moved to the client that it already counts for is not counted twice.
        assert!(permits[1].move_to(client));
        assert!(permits[1].move_to("198.51.100.2".parse().unwrap()));
        assert!(permits[3].move_to(client));
        drop(permits);
        assert!(limits.0.open.lock().unwrap().by_peer.is_empty());
    }

    #[test]
    fn beyond_the_limit_of_handshakes_the_oldest_one_is_closed() {
        let limits = Limits { handshakes_max: 2, ..Limits::default() };
        let limits = ConnectionLimits::new(&limits, Arc::default());
        let permits: Vec<_> = (0..4).map(|_| acquire(&limits, "127.0.0.1").unwrap()).collect();
        let closed = || permits.iter().map(|permit| permit.closed.is_cancelled()).collect::<Vec<_>>();
        for permit in &permits[..2] {
            permit.begin_handshake();
        }
        permits[0].end_handshake();
        permits[2].begin_handshake();
        assert_eq!(closed(), [false; 4]);
        permits[3].begin_handshake();
        assert_eq!(closed(), [false, true, false, false]);
        drop(permits);
        let open = limits.0.open.lock().unwrap();
        assert!(open.handshakes.is_empty() && open.connections.is_empty());
    }
}
