//! The bounds of a listener.

use std::time::Duration;

use super::pace::MinRate;

/// The default of [`Limits::keep_alive`]. Load balancers keep idle connections for 60 s; the server must not close one at
/// the moment at which they send the next request.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Bounds of a listener and of each of its connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most concurrent connections. One costs about 25 KiB while its head arrives, and never more than twice
    /// `head_size_max` besides its body: 4,096 of them stay near 128 MiB in the worst case. Further ones get a 503.
    pub connections_max: usize,
    /// The most concurrent connections from one IPv4 address or one IPv6 /64. Loopback is exempt: its peers are on this
    /// machine, or a reverse proxy that forwards for all clients.
    pub connections_per_peer_max: usize,
    /// Whether a connection beyond `connections_max` replaces the oldest one without a request in flight. Then peers that
    /// only connect cannot keep others out.
    pub replaces_idle: bool,
    /// How long a connection may take until HTTP begins: the header of the PROXY protocol, and the TLS handshake.
    pub handshake: Duration,
    /// The most concurrent connections that are in this phase; a further one replaces the oldest. A handshake holds at
    /// most 64 KiB, so all of them at most 32 MiB.
    pub handshakes_max: usize,
    /// How long a connection may have no request in flight before its first request, and while a request's head arrives.
    pub idle: Duration,
    /// How long a connection stays open for its next request. While most connections are in use, it is [`Self::idle`].
    pub keep_alive: Duration,
    /// The largest request head, in bytes; HTTP/1 also allows at most 100 headers.
    pub head_size_max: u32,
    /// The longest pause within a request body.
    pub body_idle: Duration,
    /// The longest time for a whole request body.
    pub body_total: Duration,
    /// The lowest rate at which a peer must send a body and take a response.
    pub rate_min: MinRate,
    /// How long a peer may accept no byte of a response.
    pub write_stall: Duration,
    /// Whether to serve HTTP/2 beside HTTP/1.1.
    pub http2: bool,
    /// The most concurrent requests on one HTTP/2 connection.
    pub streams_max: u32,
    /// The most concurrent requests on all HTTP/2 connections beyond the first of each; further ones get a 503. A peer may
    /// have as many as are free. One costs up to 30 KiB while its body arrives.
    pub further_streams_max: usize,
    /// How long requests in flight may continue after the stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_peer_max: 256,
            replaces_idle: false,
            handshake: Duration::from_secs(5),
            handshakes_max: 512,
            idle: Duration::from_secs(9), // with `CLOSE_GRACE`, closed within 10 s
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
