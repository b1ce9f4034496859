//! Request bodies with time limits, and response bodies that count their request as in flight.
//!
//! A response may be complete before the body of its request has arrived, for example a 404 or a 413. If the server
//! then closed its socket, the kernel would reset the connection when the rest of the body arrives. The client could
//! lose the response, or the next request that it sends over this connection. So the server reads the rest of a body
//! that the service has dropped, for at most [`LINGER`] (RFC 9112, section 9.6). A client that waits for `100 Continue`
//! and gets another response sends no body, so there is no rest to read: its connection is closed, and the response has
//! `Connection: close`.
//!
//! With HTTP/2, the server could reset the stream after its response (RFC 9113, section 8.1), but some clients, such as
//! curl 7.88, then report an error and not the response. So the server reads the rest of these bodies, too. Until the
//! rest is read, it counts as a further request of its peer (`Limits::further_streams_max`). Beyond this limit, the
//! stream is reset.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, HeaderValue};
use http::{Request, Response, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::limits::Limits;
use super::pace::Pace;
use super::reads::{PIECE_MAX, UnreadResponse};
use super::streams::{StreamLimit, StreamPermit};

/// The longest time in which the rest of a dropped body is read. After that, the connection is closed.
const LINGER: Duration = Duration::from_secs(5);

/// A request body with time limits. A body that exceeds a limit ends with [`BodyError::Slow`].
pub struct RequestBody {
    /// `None` once the request body is being dropped.
    body: Option<TimedBody>,
    rest: Rest,
}

/// How to handle the rest of a request body that is dropped before its end.
enum Rest {
    /// There is no rest.
    Nothing,
    /// A task on this runtime reads the rest. The task ends early if the listener stops, which cancels the token. With
    /// HTTP/2, the task starts only if this limit has a permit for this peer.
    Read(Handle, CancellationToken, Option<(StreamLimit, IpAddr)>),
    /// The client waits for `100 Continue`, so it sends no body. Dropping the body sets the flag, and the response then
    /// gets `Connection: close`.
    Close(Arc<AtomicBool>),
}

/// The flag of [`Rest::Close`]. If it is set, the response gets `Connection: close`. `None` for a request that does not
/// have [`Rest::Close`].
#[derive(Default)]
pub(super) struct ConnectionClose(Option<Arc<AtomicBool>>);

impl ConnectionClose {
    pub(super) fn announce<B>(&self, response: &mut Response<B>) {
        if self.0.as_ref().is_some_and(|is_set| is_set.load(Ordering::Relaxed)) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

struct TimedBody {
    body: Incoming,
    is_ended: bool,
    idle: Duration,
    deadline: Instant,
    pace: Pace,
    /// Set while waiting for the peer.
    wait: Option<Wait>,
}

/// A wait for the peer.
struct Wait {
    /// The time at which the longest allowed pause ends.
    idle_at: Instant,
    timer: Pin<Box<Sleep>>,
}

/// Why a body did not arrive completely.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body paused too long, arrived more slowly than `rate_min` allows, or took too long as a whole.
    #[error("the body did not arrive in time")]
    Slow,
    /// The connection broke, or the body violates HTTP framing.
    #[error("the body broke off: {0}")]
    Broken(#[from] hyper::Error),
}

impl RequestBody {
    /// Puts time limits on the body of a request. The caller must pass the response to [`ConnectionClose::announce`].
    pub(super) fn of(
        request: Request<Incoming>,
        limits: &Limits,
        stop: &CancellationToken,
        streams: &StreamLimit,
        peer: IpAddr,
    ) -> (Request<Self>, ConnectionClose) {
        let (head, body) = request.into_parts();
        let mut close = ConnectionClose::default();
        let is_stream = head.version > Version::HTTP_11;
        let rest = if body.is_end_stream() {
            Rest::Nothing
        } else if head.headers.contains_key(EXPECT) && !is_stream {
            Rest::Close(close.0.insert(Arc::default()).clone())
        } else {
            Rest::Read(Handle::current(), stop.clone(), is_stream.then(|| (streams.clone(), peer)))
        };
        let (idle, deadline) = (limits.body_idle, Instant::now() + limits.body_total);
        let body = TimedBody { body, is_ended: false, idle, deadline, pace: Pace::new(limits.rate_min), wait: None };
        (Request::from_parts(head, Self { body: Some(body), rest }), close)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !body.is_end_stream()) else { return };
        match std::mem::replace(&mut self.rest, Rest::Nothing) {
            Rest::Nothing => {}
            Rest::Close(is_set) => is_set.store(true, Ordering::Relaxed),
            Rest::Read(runtime, stop, stream) => {
                let permit = stream.map(|(limit, peer)| limit.acquire(peer));
                if matches!(permit, Some(None)) {
                    return;
                }
                runtime.spawn(async move {
                    let _permit = permit;
                    let rest = async { while let Some(Ok(_)) = body.frame().await {} };
                    tokio::select! { _ = timeout(LINGER, rest) => {}, () = stop.cancelled() => {} }
                });
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.body.as_mut().map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(TimedBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), TimedBody::size_hint)
    }
}

impl Body for TimedBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.is_ended = !matches!(frame, Some(Ok(_)));
            this.wait = None;
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            this.pace.progress(data.map_or(0, Bytes::len));
            if Instant::now() >= this.deadline && frame.is_some() {
                return Poll::Ready(Some(Err(BodyError::Slow)));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        let now = Instant::now();
        let wait =
            this.wait.get_or_insert_with(|| Wait { idle_at: now + this.idle, timer: Box::pin(sleep_until(now)) });
        loop {
            let now = Instant::now();
            let until = this.deadline.min(wait.idle_at).min(this.pace.wait(now));
            if wait.timer.deadline() != until {
                wait.timer.as_mut().reset(until);
            }
            ready!(wait.timer.as_mut().poll(cx));
            let now = Instant::now();
            if now >= this.deadline || now >= wait.idle_at || this.pace.is_too_slow(now) {
                return Poll::Ready(Some(Err(BodyError::Slow)));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_ended || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts a request as in flight until this is dropped.
pub(super) struct InFlight(Arc<watch::Sender<Activity>>);

/// The requests of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Activity {
    /// The requests in flight.
    pub(super) requests: usize,
    /// True if the connection has received a request.
    pub(super) had_request: bool,
    /// True if a part of the head of a request has arrived, and the rest is missing.
    pub(super) is_in_head: bool,
    /// The number of [`Kept`] that protect the connection.
    pub(super) kept: usize,
}

/// Protects a connection from being replaced by a later one, until this is dropped; see `Limits::replaces_oldest`.
pub struct Kept(Arc<watch::Sender<Activity>>);

impl Kept {
    pub(super) fn new(activity: &Arc<watch::Sender<Activity>>) -> Self {
        change_kept(activity, |kept| kept + 1);
        Self(activity.clone())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        change_kept(&self.0, |kept| kept - 1);
    }
}

/// Changes [`Activity::kept`]. Wakes no task: nothing waits for a change of this number.
fn change_kept(activity: &watch::Sender<Activity>, change: impl FnOnce(usize) -> usize) {
    activity.send_if_modified(|activity| {
        activity.kept = change(activity.kept);
        false
    });
}

impl InFlight {
    pub(super) fn new(activity: &Arc<watch::Sender<Activity>>) -> Self {
        activity.send_modify(|activity| {
            activity.requests += 1;
            activity.had_request = true;
        });
        Self(activity.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|activity| activity.requests -= 1);
    }
}

/// A response body. The request counts as in flight until hyper has received the whole response body.
pub(super) struct ResponseBody<B> {
    /// `None` for an empty body.
    body: Option<B>,
    /// The part of the last frame that hyper has not received yet. Only with HTTP/2, see [`PIECE_MAX`].
    rest: Bytes,
    /// Set with HTTP/2.
    unread: Option<UnreadResponse>,
    _in_flight: InFlight,
    _permit: Option<StreamPermit>,
}

impl<B> ResponseBody<B> {
    pub(super) fn new(
        body: Option<B>,
        unread: Option<UnreadResponse>,
        in_flight: InFlight,
        permit: Option<StreamPermit>,
    ) -> Self {
        Self { body, rest: Bytes::new(), unread, _in_flight: in_flight, _permit: permit }
    }

    /// Returns the next piece of the last frame.
    fn next_piece<E>(&mut self) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let piece = self.rest.split_to(self.rest.len().min(PIECE_MAX));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let Some(unread) = &this.unread else { return Pin::new(body).poll_frame(cx) };
        unread.is_asked();
        if this.rest.is_empty() {
            let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => this.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        unread.waits_for_peer();
        this.next_piece()
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), B::size_hint)
    }
}
