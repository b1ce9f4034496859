//! One connection: HTTP/1.1, for one call at a time, or HTTP/2, for several.
//!
//! A connection with HTTP/1.1 has no task of its own: the call that uses the connection also drives it, so a call wakes
//! no second task. The connection gets a task only if the response begins while a part of the request may be unsent.
//! The task then sends the rest of the request, even while the caller does not read the response. A connection with
//! HTTP/2 always has tasks.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::limits::HEAD_BYTES_MAX;
use super::request_body::SentBody;
use super::self_wake::SelfWake;

/// Largest buffer of a connection with HTTP/1.1, in bytes; bodies are read in parts of at most this size.
const BUFFER_BYTES_MAX: usize = 2 * HEAD_BYTES_MAX;
/// Maximum number of unread bytes of one response body over HTTP/2. After these bytes, the peer must wait.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Maximum number of unread bytes of all response bodies of an HTTP/2 connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// While a request over HTTP/2 waits and the peer has sent nothing for this time, the connection sends a ping.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(10);
/// A connection with HTTP/2 is closed if the peer does not respond to a ping within this time.
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of bytes of a request body that are buffered while an HTTP/2 peer does not read.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// A connection that is ready for a call. Dropping it closes the connection, unless other calls use it.
pub(crate) enum Connection {
    Http1(Http1),
    Http2(Arc<Http2>),
}

pub(crate) struct Http1 {
    sender: http1::SendRequest<SentBody>,
    driver: Driver,
    wakes: SelfWake,
}

/// The future that reads and writes the socket of a connection with HTTP/1.1. Dropping it closes the connection.
enum Driver {
    /// The call that uses the connection polls the future.
    Own(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// A task polls the future.
    Task { _tasks: Tasks },
    /// The connection is closed.
    Ended,
}

pub(crate) struct Http2 {
    sender: http2::SendRequest<SentBody>,
    _tasks: Tasks,
}

type Sent = Result<Response<Incoming>, TrySendError<Request<SentBody>>>;

impl Connection {
    /// Starts a connection over a stream. The connection holds `permit` until it is closed.
    pub(crate) async fn start<S>(stream: S, is_http2: bool, permit: OwnedSemaphorePermit) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stream = TokioIo::new(stream);
        if is_http2 {
            let token = CancellationToken::new();
            let executor = Executor { io: Handle::current(), token: token.clone(), permit: Arc::new(permit) };
            let tasks = Tasks(token);
            let (sender, connection) = http2::Builder::new(executor.clone())
                .timer(TokioTimer::new())
                .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_send_buf_size(SEND_BUFFER_BYTES)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .handshake(stream)
                .await?;
            executor.spawn(connection);
            return Ok(Self::Http2(Arc::new(Http2 { sender, _tasks: tasks })));
        }
        let (sender, connection) = http1::Builder::new()
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX)
            .handshake(stream)
            .await?;
        let driver = Driver::Own(Box::pin(async move {
            // The result is ignored, because each request on the connection returns the connection's error.
            let _ = connection.await;
            drop(permit);
        }));
        Ok(Self::Http1(Http1 { sender, driver, wakes: SelfWake::new() }))
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Sends a request. The error contains the request if nothing of it was sent.
    pub(crate) async fn send(&mut self, request: Request<SentBody>) -> Sent {
        match self {
            Self::Http1(Http1 { sender, driver, wakes }) => {
                let mut response = pin!(sender.try_send_request(request));
                std::future::poll_fn(|cx| wakes.poll(cx, |cx| driver.poll_with(cx, |cx| response.as_mut().poll(cx))))
                    .await
            }
            Self::Http2(connection) => connection.sender.clone().try_send_request(request).await,
        }
    }

    /// Polls something that waits for the connection, such as the body of a response, and drives the connection as far
    /// as necessary.
    pub(crate) fn poll_with<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        match self {
            Self::Http1(Http1 { driver, wakes, .. }) => wakes.poll(cx, |cx| driver.poll_with(cx, &mut poll)),
            Self::Http2(_) => poll(cx),
        }
    }

    /// Gives the connection a task, so that the rest of a request is sent even if the response is not read.
    pub(crate) fn drive_alone(&mut self) {
        if let Self::Http1(connection) = self {
            connection.driver.spawn();
        }
    }
}

impl Http1 {
    /// Returns true if a call can start. The connection is polled first, so the result is false if the runtime already
    /// knows that the peer has closed the connection.
    pub(crate) fn is_ready(&mut self) -> bool {
        self.driver.drive(&mut Context::from_waker(Waker::noop()));
        !self.sender.is_closed() && self.sender.is_ready()
    }

    /// Returns true if the connection is closed.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.driver.drive(&mut Context::from_waker(Waker::noop()));
        self.sender.is_closed()
    }
}

impl Driver {
    fn poll_with<T>(&mut self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if let Poll::Ready(value) = poll(cx) {
            return Poll::Ready(value);
        }
        if let Self::Own(_) = self {
            self.drive(cx);
            return poll(cx);
        }
        Poll::Pending
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Self::Own(connection) = self
            && connection.as_mut().poll(cx).is_ready()
        {
            *self = Self::Ended;
        }
    }

    fn spawn(&mut self) {
        *self = match std::mem::replace(self, Self::Ended) {
            Self::Own(connection) => {
                let token = CancellationToken::new();
                let tasks = Tasks(token.clone());
                tokio::spawn(token.run_until_cancelled_owned(connection));
                Self::Task { _tasks: tasks }
            }
            other => other,
        };
    }
}

impl Http2 {
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// When dropped, ends the tasks of a connection, even if the peer does not read.
struct Tasks(CancellationToken);

impl Drop for Tasks {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Spawns the tasks of one connection.
#[derive(Clone)]
struct Executor {
    io: Handle,
    token: CancellationToken,
    permit: Arc<OwnedSemaphorePermit>,
}

impl Executor {
    fn spawn<F: Future + Send + 'static>(&self, future: F) {
        let (token, permit) = (self.token.clone(), self.permit.clone());
        self.io.spawn(async move {
            // The result is ignored, because each request on the connection returns the connection's error.
            tokio::select! {
                () = token.cancelled() => {}
                _ = future => {}
            }
            drop(permit);
        });
    }
}

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}
