//! The HTTP server of both listeners (public and admin): HTTP/1.1 and HTTP/2 on a TCP port, each connection bounded in
//! time and memory.
//!
//! A service gets requests whose head is complete and whose body ends in time. It needs no limits of its own except for
//! the size of the bodies that it reads. A connection without a request in flight is closed after [`Limits::idle`];
//! this one rule covers a peer that sends nothing, one that sends its head byte by byte, and one that only sends HTTP/2
//! control frames.

#[cfg(test)]
mod abuse;
mod body;
mod connections;
mod framing;
mod stream;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use body::{BodyError, RequestBody};
use body::{InFlight, ResponseBody};
use connections::{ConnectionLimits, ConnectionPermit};
use stream::Stream;

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
    /// How long a connection may have no request in flight. This limits the time to send a request's head and the time
    /// that a connection stays open for the next request.
    pub idle: Duration,
    /// The largest request head, in bytes; HTTP/1 also allows at most 100 headers.
    pub head_size_max: u32,
    /// The longest pause within a request body.
    pub body_idle: Duration,
    /// The longest time for a whole request body.
    pub body_total: Duration,
    /// How long a peer may accept no byte of a response.
    pub write_stall: Duration,
    /// Whether to serve HTTP/2 beside HTTP/1.1.
    pub http2: bool,
    /// The most concurrent requests on one HTTP/2 connection.
    pub streams_max: u32,
    /// How long requests in flight may continue after the stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_peer_max: 256,
            replaces_idle: false,
            idle: Duration::from_secs(9), // with `CLOSE_GRACE`, closed within 10 s
            head_size_max: 16 * 1024,
            body_idle: Duration::from_secs(10),
            body_total: Duration::from_secs(30),
            write_stall: Duration::from_secs(10),
            http2: true,
            streams_max: 64,
            drain: Duration::from_secs(10),
        }
    }
}

/// How long an idle connection has for its graceful shutdown.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// The first and the longest pause after a failed accept, as when the process is out of file descriptors; doubled after
/// each failure.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// The response to a connection beyond the limits.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A bound port. Connections wait in the kernel's backlog until [`Listener::serve`] is called.
pub struct Listener {
    tcp: TcpListener,
}

impl Listener {
    /// Binds `addr`; with port 0 the system chooses a free port.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(addr).await? })
    }

    /// The bound address, with the real port.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves requests with `service` until `stop`. Then the listener accepts no more connections, requests in flight
    /// may continue for [`Limits::drain`], and every connection is closed. Returns the number of connections that were
    /// cut off with a request in flight.
    ///
    /// Wrap an axum router in [`hyper_util::service::TowerToHyperService`].
    pub async fn serve<S, F, B>(self, service: S, limits: Limits, stop: CancellationToken) -> usize
    where
        S: Fn(Request<RequestBody>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let server = Arc::new(Server { service, http: http(&limits), limits, stop, cut: AtomicUsize::new(0) });
        let open = ConnectionLimits::new(&limits);
        let connections = TaskTracker::new();
        let mut pause = ACCEPT_PAUSE.0;
        loop {
            let accepted = tokio::select! {
                biased;
                () = server.stop.cancelled() => break,
                accepted = self.tcp.accept() => accepted,
            };
            match accepted {
                Ok((tcp, peer)) => {
                    pause = ACCEPT_PAUSE.0;
                    let (in_flight, count) = watch::channel(0);
                    match open.acquire(peer.ip(), count) {
                        Some(permit) => {
                            drop(connections.spawn(server.clone().connection(tcp, peer, in_flight, permit)))
                        }
                        None => refuse(&tcp, peer),
                    }
                }
                Err(error) if is_per_connection(&error) => {}
                Err(error) => {
                    tracing::warn!("cannot accept connections, retrying in {pause:?}: {error}");
                    tokio::select! { () = server.stop.cancelled() => break, () = sleep(pause) => {} }
                    pause = (pause * 2).min(ACCEPT_PAUSE.1);
                }
            }
        }
        drop(self.tcp);
        connections.close();
        connections.wait().await;
        server.cut.load(Ordering::Relaxed)
    }
}

/// An extension of every request: closes its connection.
#[derive(Clone)]
pub struct ConnectionHandle(CancellationToken);

impl ConnectionHandle {
    /// Closes the connection at once; responses in flight are cut off.
    pub fn close(&self) {
        self.0.cancel();
    }
}

struct Server<S> {
    service: S,
    http: auto::Builder<TokioExecutor>,
    limits: Limits,
    stop: CancellationToken,
    cut: AtomicUsize,
}

impl<S, F, B> Server<S>
where
    S: Fn(Request<RequestBody>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// Serves one connection until it is closed.
    async fn connection(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        in_flight: watch::Sender<usize>,
        permit: ConnectionPermit,
    ) {
        // Responses are small and written at once: Nagle's algorithm would only delay them.
        let _ = tcp.set_nodelay(true);
        let (count, in_flight) = (in_flight.subscribe(), Arc::new(in_flight));
        let closed = permit.closed.clone();
        let service = service_fn(|request: Request<Incoming>| {
            let guard = InFlight::new(&in_flight);
            let mut request = request.map(|body| RequestBody::new(body, self.limits.body_idle, self.limits.body_total));
            request.extensions_mut().insert(ConnectionHandle(closed.clone()));
            let response = (self.service)(request, peer);
            async move { Ok::<_, Infallible>(response.await.map(|body| ResponseBody::new(body, guard))) }
        });
        let io = TokioIo::new(Stream::new(tcp, self.limits.write_stall));
        let mut connection = pin!(self.http.serve_connection(io, service));
        let grace = tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("the connection from {peer} failed: {error}");
                }
                return;
            }
            () = closed.cancelled() => return,
            () = idle(count.clone(), self.limits.idle) => CLOSE_GRACE,
            () = self.stop.cancelled() => self.limits.drain,
        };
        connection.as_mut().graceful_shutdown();
        let ended = tokio::select! {
            ended = timeout(grace, connection) => ended.is_ok(),
            () = closed.cancelled() => return,
        };
        if !ended && *count.borrow() > 0 {
            self.cut.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("the connection from {peer} was cut off with a request in flight");
        }
    }
}

/// Resolves once no request was in flight for `bound`.
async fn idle(mut in_flight: watch::Receiver<usize>, bound: Duration) {
    loop {
        // The connection owns the sender and outlives this future.
        if in_flight.wait_for(|&requests| requests == 0).await.is_err() {
            return;
        }
        if timeout(bound, in_flight.changed()).await.is_err() {
            return;
        }
    }
}

fn http(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    if !limits.http2 {
        http = http.http1_only();
    }
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        // hyper panics below 8 KiB.
        .max_buf_size(usize::try_from(limits.head_size_max).unwrap_or(usize::MAX).max(8 * 1024));
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.head_size_max)
        // Against rapid reset: limits the streams that the peer opens and resets before they are processed, and the
        // resets that it provokes.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        // Limits the unread data that a connection can make the server buffer.
        .initial_stream_window_size(128 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.write_stall);
    http
}

/// Sends a 503 to a connection beyond the limits, as far as the socket accepts it without blocking.
fn refuse(tcp: &TcpStream, peer: SocketAddr) {
    tracing::debug!("too many connections: refused one from {peer}");
    let _ = tcp.try_write(TOO_MANY_CONNECTIONS);
}

/// Whether an accept error concerns only that one connection, so that the next accept can follow at once.
fn is_per_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
