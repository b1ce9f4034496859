//! The bounds of a listener.

use std::time::Duration;

use super::pace::MinRate;

/// The default of [`Limits::keep_alive`]. Load balancers keep idle connections for 60 s. The server keeps them longer:
/// otherwise, it could close a connection at the moment at which the load balancer sends the next request.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Bounds of a listener and of each of its connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The maximum number of concurrent connections. While a head arrives, a connection uses about 25 KiB of memory.
    /// Without bodies, a connection never uses more than twice `head_size_max`, so 4,096 connections use about 128 MiB
    /// in the worst case. Further connections get a 503.
    pub connections_max: usize,
    /// The most concurrent connections from one IPv4 address or one IPv6 /64, but never more than half of
    /// `connections_max`. Loopback is exempt: its peers are programs on this machine, such as a reverse proxy that
    /// forwards the requests of all clients.
    pub connections_per_peer_max: usize,
    /// True if a new connection beyond these two limits replaces the oldest connection that no [`super::Kept`]
    /// protects; beyond the limit of its peer, the oldest one of this peer. So peers that connect and send nothing, or
    /// only requests that everybody may send, cannot keep other peers out.
    pub replaces_oldest: bool,
    /// The longest time from the acceptance of a connection until HTTP begins on it. This time includes the header of
    /// the PROXY protocol and the TLS handshake.
    pub handshake: Duration,
    /// The maximum number of connections on which HTTP has not begun (see `handshake`); a further connection replaces
    /// the oldest of them. A handshake uses at most 64 KiB, so 512 handshakes use at most 32 MiB.
    pub handshakes_max: usize,
    /// How long a connection without a request in flight stays open before its first request, and while the head of a
    /// request arrives.
    pub idle: Duration,
    /// How long a connection stays open between two requests. While more than three quarters of the allowed connections
    /// are open, [`Self::idle`] applies instead.
    pub keep_alive: Duration,
    /// The largest request head, in bytes; HTTP/1 also allows at most 100 headers.
    pub head_size_max: u32,
    /// The longest wait for the next bytes of a request body.
    pub body_idle: Duration,
    /// The longest time from the end of a request head until the whole body has arrived.
    pub body_total: Duration,
    /// The lowest allowed rate at which a peer sends a request body or reads a response.
    pub rate_min: MinRate,
    /// The longest time in which a peer reads no byte of a response. After that, the connection is cut off.
    pub write_stall: Duration,
    /// True if HTTP/2 is served beside HTTP/1.1.
    pub http2: bool,
    /// The most concurrent requests on one HTTP/2 connection.
    pub streams_max: u32,
    /// The maximum number of concurrent further requests on all HTTP/2 connections together. A further request begins
    /// while its connection has another request in flight. Beyond the maximum, a further request gets a 503. It also
    /// gets a 503 if its peer already has as many further requests in flight as can still be added before the maximum
    /// is reached. So one peer gets at most half of the maximum. A request uses up to 30 KiB while its body arrives.
    pub further_streams_max: usize,
    /// How long requests in flight may continue after the listener begins to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_peer_max: 256,
            replaces_oldest: false,
            handshake: Duration::from_secs(5),
            handshakes_max: 512,
            idle: Duration::from_secs(9), // with `CLOSE_GRACE`, a connection closes within 10 s
            keep_alive: KEEP_ALIVE,
            head_size_max: 16 * 1024,
            body_idle: Duration::from_secs(10),
            body_total: Duration::from_secs(30),
            rate_min: MinRate { bytes_per_s: 500, window: Duration::from_secs(5) },
            write_stall: Duration::from_secs(10),
            http2: true,
            streams_max: 64,
            further_streams_max: 4_096,
            drain: Duration::from_secs(10),
        }
    }
}
