//! The HTTP server of both listeners (public and admin): HTTP/1.1 and HTTP/2 on a TCP port, with or without TLS. Each
//! connection has limits of time and memory.
//!
//! The listener calls the service as soon as the head of a request is complete. The body then either arrives within the
//! time limits, or reading it fails with [`BodyError::Slow`]. So a service needs no time limits, and only has to limit
//! the size of the bodies that it reads. A connection without a request in flight is closed: after
//! [`Limits::keep_alive`] if it waits for a further request, and after [`Limits::idle`] if it waits for its first
//! request or for the rest of a head. These two limits cover a peer that sends nothing, one that sends its head byte by
//! byte, and one that only sends HTTP/2 control frames. [`Limits::handshake`] limits the time before HTTP begins: the
//! header of the PROXY protocol, and the TLS handshake.
//!
//! Requests have these extensions: [`ConnectionHandle`]; [`http::uri::Scheme`], the scheme that the client used;
//! [`ClientCertificate`], if the client sent one.

#[cfg(test)]
mod abuse;
mod body;
mod connections;
mod framing;
mod host;
mod limits;
mod notice;
mod opening;
mod pace;
mod paced;
mod proxies;
mod reads;
mod socket;
mod stream;
mod streams;
mod tls;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use evoke_telemetry::ConnectionMetrics;
use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::uri::Scheme;
use http::{Request, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use body::{Activity, InFlight, ResponseBody};
pub use body::{BodyError, Kept, RequestBody};
pub use connections::counted_network;
use connections::{ConnectionLimits, ConnectionPermit};
pub use limits::{KEEP_ALIVE, Limits};
use opening::{Opened, Opening};
pub use pace::MinRate;
#[cfg(any(test, feature = "test-util"))]
use paced::Paced;
use proxies::Client;
pub use proxies::{Network, Proxies};
use reads::UnreadResponses;
use stream::Stream;
use streams::StreamLimit;
pub use tls::{Certificate, CertificatePem, ClientAuthorities, ClientCertificate};
pub use tls::{Tls, TlsConfig, TlsError, TlsPart, TlsSettings};

/// The longest time for the graceful shutdown of an idle connection. After that, the connection is cut off.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// The first and the longest pause after `accept` fails, for example because the process has no free file descriptors.
/// The pause doubles with each failure.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A bound port. Connections wait in the kernel's backlog until [`Listener::serve`] is called.
pub struct Listener {
    tcp: TcpListener,
    opening: Opening,
}

impl Listener {
    /// Binds `addr`; with port 0 the system chooses a free port.
    pub async fn bind(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind(addr).await?, opening: Opening::default() })
    }

    /// Serves over TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Tls) -> Self {
        self.opening.tls = Some(tls);
        self
    }

    /// Trusts the headers in which these proxies name their clients.
    #[must_use]
    pub fn with_proxies(mut self, proxies: Proxies) -> Self {
        self.opening.proxies = Arc::new(proxies);
        self
    }

    /// Counts refused connections in `metrics`.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Arc<ConnectionMetrics>) -> Self {
        self.opening.metrics = metrics;
        self
    }

    /// Returns the bound address. If port 0 was requested, the address has the port that the system chose.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves requests with `service` until `stop` is cancelled. The service gets the address of the client. If a proxy
    /// named the client, the port of this address can be 0. After `stop`, the listener accepts no more connections,
    /// requests in flight may continue for at most [`Limits::drain`], and every connection is closed. Returns the
    /// number of connections that were cut off with a request in flight.
    ///
    /// To serve an axum router, wrap it in [`hyper_util::service::TowerToHyperService`].
    pub async fn serve<S, F, B>(self, service: S, limits: Limits, stop: CancellationToken) -> usize
    where
        S: Fn(Request<RequestBody>, SocketAddr) -> F + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let open = ConnectionLimits::new(&limits, self.opening.proxies.clone());
        let (opening, cut) = (self.opening, AtomicUsize::new(0));
        let (http, streams) = (http(&limits), StreamLimit::new(limits.further_streams_max));
        let server = Arc::new(Server { service, http, limits, open: open.clone(), streams, opening, stop, cut });
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
                    let (sender, activity) = watch::channel(Activity::default());
                    match open.acquire(peer.ip(), activity) {
                        Some(permit) => {
                            // Most responses are small and written in one piece. Nagle's algorithm would only delay
                            // them.
                            let _ = tcp.set_nodelay(true);
                            drop(connections.spawn(server.clone().open(tcp, peer, sender, permit)));
                        }
                        None => server.opening.refuse(&tcp, peer),
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

/// An extension of every request. With it, a service can close the connection that the request came from, or protect
/// the connection.
#[derive(Clone)]
pub struct ConnectionHandle(Arc<Controls>);

struct Controls {
    closed: CancellationToken,
    activity: Arc<watch::Sender<Activity>>,
}

impl ConnectionHandle {
    /// Closes the connection immediately. Responses that are not completely sent are cut off.
    pub fn close(&self) {
        self.0.closed.cancel();
    }

    /// Protects the connection from being replaced by a later one ([`Limits::replaces_oldest`]), until the result is
    /// dropped.
    #[must_use]
    pub fn keep(&self) -> Kept {
        Kept::new(&self.0.activity)
    }
}

struct Server<S> {
    service: S,
    http: auto::Builder<TokioExecutor>,
    limits: Limits,
    open: ConnectionLimits,
    streams: StreamLimit,
    opening: Opening,
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
    /// Opens a connection, and serves it until it is closed.
    async fn open(
        self: Arc<Self>,
        tcp: TcpStream,
        peer: SocketAddr,
        sender: watch::Sender<Activity>,
        permit: ConnectionPermit,
    ) {
        let opened = tokio::select! {
            opened = self.opening.open(tcp, peer, &permit, &self.limits) => opened,
            () = permit.closed.cancelled() => {
                tracing::debug!("the connection from {peer} was closed to make room for a later connection");
                return;
            }
            () = self.stop.cancelled() => return,
        };
        if let Some(Opened { socket, client, certificate }) = opened {
            self.connection(socket, client, certificate, sender, permit).await;
        }
    }

    /// Serves one connection until it is closed.
    async fn connection<T: AsyncRead + AsyncWrite + Unpin + 'static>(
        self: Arc<Self>,
        io: T,
        client: Client,
        certificate: Option<ClientCertificate>,
        sender: watch::Sender<Activity>,
        permit: ConnectionPermit,
    ) {
        let peer = client.address;
        let (activity, sender) = (sender.subscribe(), Arc::new(sender));
        let closed = permit.closed.clone();
        let handle = ConnectionHandle(Arc::new(Controls { closed: closed.clone(), activity: sender.clone() }));
        let unread = UnreadResponses::default();
        let service = service_fn(|request: Request<Incoming>| {
            let (is_http2, unread) = (request.version() == Version::HTTP_2, unread.clone());
            let is_further = sender.borrow().requests > 0;
            let guard = InFlight::new(&sender);
            let client = client.of_request(request.headers(), &self.opening.proxies);
            let address = client.address;
            let (mut request, close) = RequestBody::of(request, &self.limits, &self.stop, &self.streams, address.ip());
            client.apply(&mut request);
            request.extensions_mut().insert(handle.clone());
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            let permit = is_further.then(|| self.streams.acquire(address.ip()));
            let response = if matches!(permit, Some(None)) {
                Err(StatusCode::SERVICE_UNAVAILABLE)
            } else if host::is_ambiguous(&request) {
                Err(StatusCode::BAD_REQUEST)
            } else {
                Ok((self.service)(request, address))
            };
            async move {
                let mut response = match response {
                    Ok(response) => {
                        let response = response.await;
                        let unread = is_http2.then(|| unread.add());
                        response.map(|body| ResponseBody::new(Some(body), unread, guard, permit.flatten()))
                    }
                    Err(status) => refuse(status, is_http2).map(|()| ResponseBody::new(None, None, guard, None)),
                };
                close.announce(&mut response);
                Ok::<_, Infallible>(response)
            }
        });
        let plain_peer = (client.scheme == Scheme::HTTP).then_some(peer);
        let io = TokioIo::new(Stream::new(io, sender.clone(), plain_peer));
        let mut connection = pin!(self.http.serve_connection(io, service));
        let grace = tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("the connection from {peer} failed: {error}");
                }
                return;
            }
            () = closed.cancelled() => return,
            () = unread.stalled(&self.limits, activity.clone()) => {
                tracing::debug!("the connection from {peer} was closed: its peer does not read a response");
                return;
            }
            () = self.idle(activity.clone()) => CLOSE_GRACE,
            () = self.stop.cancelled() => self.limits.drain,
        };
        connection.as_mut().graceful_shutdown();
        let ended = tokio::select! {
            ended = timeout(grace, connection) => ended.is_ok(),
            () = closed.cancelled() => return,
        };
        if !ended && activity.borrow().requests > 0 {
            self.cut.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("the connection from {peer} was cut off with a request in flight");
        }
    }

    /// Resolves when the connection has had no request in flight for the longest time that the limits allow.
    async fn idle(&self, mut activity: watch::Receiver<Activity>) {
        loop {
            // `wait_for` fails only without a sender. The connection owns the sender and outlives this future.
            let Ok(now) = activity.wait_for(|activity| activity.requests == 0).await.map(|activity| *activity) else {
                return;
            };
            let since = Instant::now();
            let ends_at = async {
                if now.had_request && !now.is_in_head {
                    tokio::select! {
                        () = sleep(self.limits.keep_alive) => return,
                        () = self.open.crowded() => {}
                    }
                }
                sleep_until(since + self.limits.idle).await;
            };
            tokio::select! {
                () = ends_at => return,
                changed = activity.changed() => if changed.is_err() { return },
            }
        }
    }
}

/// The response to a request beyond [`Limits::further_streams_max`] (503), or with an ambiguous host (400).
fn refuse(status: StatusCode, is_http2: bool) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    } else if !is_http2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Serves one connection over `io` until the connection is closed, with the limits of [`Listener::serve`]. Tests use it
/// with a stream in memory: no socket is involved, so all time limits follow tokio's clock, which a test can pause.
#[cfg(any(test, feature = "test-util"))]
pub async fn serve_stream<T, S, F, B>(io: T, service: S, limits: Limits)
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    S: Fn(Request<RequestBody>, SocketAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, activity) = watch::channel(Activity::default());
    let (opening, peer) = (Opening::default(), SocketAddr::from(([127, 0, 0, 1], 0)));
    let open = ConnectionLimits::new(&limits, opening.proxies.clone());
    let Some(permit) = open.acquire(peer.ip(), activity) else { return };
    let (stop, cut) = (CancellationToken::new(), AtomicUsize::new(0));
    let (io, client) = (Paced::new(io, &limits), Client::of_connection(peer, false, false));
    let (http, streams) = (http(&limits), StreamLimit::new(limits.further_streams_max));
    let server = Server { service, http, limits, open, streams, opening, stop, cut };
    Arc::new(server).connection(io, client, None, sender, permit).await;
}

fn http(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    if !limits.http2 {
        http = http.http1_only();
    }
    http.http1()
        .timer(TokioTimer::new())
        // `Server::idle` limits how long a head may take. The timeout of hyper would also end connections that wait for
        // their next request.
        .header_read_timeout(None)
        // hyper panics if the buffer is smaller than 8 KiB.
        .max_buf_size(usize::try_from(limits.head_size_max).unwrap_or(usize::MAX).max(8 * 1024));
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_header_list_size(limits.head_size_max)
        // Against rapid reset attacks: limits the streams that the peer resets before they are processed, and the
        // streams that the server resets because of errors of the peer.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        // Limits the data that the server buffers because the service or the peer does not read it.
        .initial_stream_window_size(128 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(limits.idle)
        .keep_alive_timeout(limits.write_stall);
    http
}

/// Returns true if an error of `accept` concerns only the connection that was to be accepted. The next `accept` then
/// needs no pause.
fn is_per_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
