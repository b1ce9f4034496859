//! Request bodies with time limits, and response bodies that count their request as in flight.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep_until};

/// A request body with time limits: it ends in time, or with [`BodyError::Slow`].
pub struct RequestBody {
    body: Incoming,
    idle: Duration,
    deadline: Instant,
    /// Set while waiting for the peer.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a body did not arrive completely.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body paused too long, or took too long as a whole.
    #[error("the body did not arrive in time")]
    Slow,
    /// The connection broke, or the body violates HTTP framing.
    #[error("the body broke off: {0}")]
    Broken(#[from] hyper::Error),
}

impl RequestBody {
    pub(super) fn new(body: Incoming, idle: Duration, total: Duration) -> Self {
        Self { body, idle, deadline: Instant::now() + total, timer: None }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.timer = None;
            if Instant::now() >= this.deadline && frame.is_some() {
                return Poll::Ready(Some(Err(BodyError::Slow)));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        let until = this.deadline.min(Instant::now() + this.idle);
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(until)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Some(Err(BodyError::Slow)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Counts a request as in flight until this is dropped.
pub(super) struct InFlight(Arc<watch::Sender<usize>>);

impl InFlight {
    pub(super) fn new(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|requests| *requests += 1);
        Self(count.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

/// A response body; its request counts as in flight until the whole body is passed to hyper.
pub(super) struct ResponseBody<B> {
    body: B,
    _in_flight: InFlight,
}

impl<B> ResponseBody<B> {
    pub(super) fn new(body: B, in_flight: InFlight) -> Self {
        Self { body, _in_flight: in_flight }
    }
}

impl<B: Body + Unpin> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
