//! One HTTP server for every door: HTTP/1.1 and HTTP/2 on a TCP port, each connection bounded in time and memory.
//!
//! Whoever serves here is given requests whose head is complete and whose body ends in time, and needs no limits of
//! its own besides the size of what it reads. A connection on which no request is in flight is closed after
//! [`Limits::idle`]; that one rule covers a peer that sends nothing, one that sends its head byte by byte, and one
//! that only sends HTTP/2 control frames.

#[cfg(test)]
mod abuse;
mod body;
mod peers;
mod stream;
mod strict;

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
use peers::{Peers, Seat};
use stream::Stream;

/// Bounds of a listener and of each of its connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time. One costs about 25 KiB while its head arrives, and never more than twice
    /// `head_size_max` besides its body: 4,096 of them stay near 128 MiB at the very worst. More are answered 503.
    pub connections_max: usize,
    /// Connections at a time from one IPv4 address or one IPv6 /64. Loopback is exempt: what connects from there is
    /// this machine's own, or a reverse proxy that speaks for everyone.
    pub connections_per_peer_max: usize,
    /// How long a connection may be without a request in flight: the time to send a request's head, and the time to
    /// keep a connection open for the next one.
    pub idle: Duration,
    /// The largest request head in bytes; HTTP/1 takes 100 headers at most.
    pub head_size_max: u32,
    /// How long a body may pause.
    pub body_idle: Duration,
    /// How long a body may take as a whole.
    pub body_total: Duration,
    /// How long a peer may take no byte of an answer.
    pub write_stall: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams_max: u32,
    /// How long requests may go on after the stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 4_096,
            connections_per_peer_max: 256,
            idle: Duration::from_secs(9), // with `FAREWELL`, closed within 10 s
            head_size_max: 16 * 1024,
            body_idle: Duration::from_secs(10),
            body_total: Duration::from_secs(30),
            write_stall: Duration::from_secs(10),
            streams_max: 64,
            drain: Duration::from_secs(10),
        }
    }
}

/// How long an idle connection may take to say goodbye.
const FAREWELL: Duration = Duration::from_millis(500);
/// Pauses after an accept that failed, when the process is out of file descriptors: doubled from the first to the last.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// What a peer is told when there is no room for its connection.
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A bound port. Connections wait in its backlog until [`Listener::serve`] is called.
pub struct Listener {
    tcp: TcpListener,
}

impl Listener {
    /// Binds `addr`; port 0 takes a free one.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(addr).await? })
    }

    /// The address that is bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Answers requests with `service` until `stop`. Then nothing more is accepted, requests in flight go on for
    /// [`Limits::drain`], and every connection is closed. Answers how many of them were cut off.
    ///
    /// An axum router is served through [`hyper_util::service::TowerToHyperService`].
    pub async fn serve<S, F, B>(self, service: S, limits: Limits, stop: CancellationToken) -> usize
    where
        S: Fn(Request<RequestBody>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let server = Arc::new(Server { service, http: http(&limits), limits, stop, cut: AtomicUsize::new(0) });
        let peers = Peers::new(limits.connections_max, limits.connections_per_peer_max);
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
                    match peers.seat(peer.ip()) {
                        Some(seat) => drop(connections.spawn(server.clone().connection(tcp, peer, seat))),
                        None => refuse(&tcp, peer),
                    }
                }
                Err(error) if concerns_one_peer(&error) => {}
                Err(error) => {
                    tracing::warn!("no connection is accepted for {pause:?}: {error}");
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
    /// Serves one connection to its end.
    async fn connection(self: Arc<Self>, tcp: TcpStream, peer: SocketAddr, _seat: Seat) {
        // Answers are small and whole: waiting to fill a packet would only delay them.
        let _ = tcp.set_nodelay(true);
        let (in_flight, watched) = watch::channel(0);
        let in_flight = Arc::new(in_flight);
        let service = service_fn(|request: Request<Incoming>| {
            let guard = InFlight::new(&in_flight);
            let request = request.map(|body| RequestBody::new(body, self.limits.body_idle, self.limits.body_total));
            let answer = (self.service)(request, peer);
            async move { Ok::<_, Infallible>(answer.await.map(|body| ResponseBody::new(body, guard))) }
        });
        let io = TokioIo::new(Stream::new(tcp, self.limits.write_stall));
        let mut connection = pin!(self.http.serve_connection(io, service));
        let patience = tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("connection of {peer}: {error}");
                }
                return;
            }
            () = idle(watched.clone(), self.limits.idle) => FAREWELL,
            () = self.stop.cancelled() => self.limits.drain,
        };
        connection.as_mut().graceful_shutdown();
        if timeout(patience, connection).await.is_err() && *watched.borrow() > 0 {
            self.cut.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("connection of {peer} was cut off with a request in flight");
        }
    }
}

/// Resolves when no request was in flight for `bound`.
async fn idle(mut in_flight: watch::Receiver<usize>, bound: Duration) {
    loop {
        // The connection owns the sender and outlives this.
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
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(usize::try_from(limits.head_size_max).unwrap_or(usize::MAX).max(8 * 1024)); // or it panics
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.head_size_max)
        // Rapid reset: streams that the peer opened and reset before they were seen, and that it made us reset.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        // What a connection may make us hold that no one has read yet.
        .initial_stream_window_size(128 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.write_stall);
    http
}

/// Tells a peer that there is no room, as far as its socket takes the answer at once.
fn refuse(tcp: &TcpStream, peer: SocketAddr) {
    tracing::debug!("no room for the connection of {peer}");
    let _ = tcp.try_write(NO_ROOM);
}

/// Whether an accept failed for the one connection only, and the next may follow at once.
fn concerns_one_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
