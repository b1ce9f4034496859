//! The bodies of requests and responses, with their limits.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use super::allowance::Allowance;
use super::error::Error;
use super::limits::Limits;
use super::pool::Lease;

/// The error of a request body that the caller makes.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request. It is read as fast as the peer takes it.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// Returns a body without bytes.
pub fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body with these bytes.
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// What the sender knows of a request body that the connection reads.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    state: Mutex<SendingState>,
    is_complete: AtomicBool,
}

#[derive(Debug, Default)]
struct SendingState {
    /// The last time that the connection took a part, or that the body had none.
    last: Option<Instant>,
    /// True while the connection waits for the body.
    waits_for_body: bool,
    error: Option<Error>,
}

impl Sending {
    /// Returns true if the body was read to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Returns the error of the body.
    pub(crate) fn error(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    /// Returns when the wait for the response began: now, while the body is not yet complete and has no next part.
    pub(crate) fn waiting_since(&self, sent: Instant) -> Instant {
        let state = self.lock();
        if state.waits_for_body { Instant::now() } else { state.last.map_or(sent, |last| last.max(sent)) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SendingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of a request, as the connection reads it.
pub(crate) struct SentBody {
    inner: RequestBody,
    allowance: Arc<Allowance>,
    sending: Arc<Sending>,
}

impl SentBody {
    pub(crate) fn new(inner: RequestBody, allowance: Arc<Allowance>, sending: Arc<Sending>) -> Self {
        if inner.is_end_stream() {
            sending.is_complete.store(true, Ordering::Release);
        }
        Self { inner, allowance, sending }
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let mut state = self.sending.lock();
        state.waits_for_body = polled.is_pending();
        state.last = Some(Instant::now());
        let frame = match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => None,
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                Some(self.allowance.send(bytes).map(|()| frame).map_err(Error::RequestBytes))
            }
            Poll::Ready(Some(Err(error))) => Some(Err(Error::RequestBody(error.to_string()))),
        };
        if let Some(Err(error)) = &frame {
            state.error = Some(error.clone());
        }
        drop(state);
        if frame.is_none() || self.inner.is_end_stream() {
            self.sending.is_complete.store(true, Ordering::Release);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// The body of a response. Dropping it before its end closes the connection, or resets the stream of HTTP/2.
pub struct ResponseBody {
    incoming: Incoming,
    allowance: Arc<Allowance>,
    sending: Arc<Sending>,
    between_bytes: Duration,
    deadline: Instant,
    /// Fires at the next time-out. Made when the body first has to be waited for.
    timer: Option<Pin<Box<Sleep>>>,
    /// The connection and the permit of the call, until the body ends.
    held: Option<(Lease, OwnedSemaphorePermit)>,
}

impl ResponseBody {
    pub(crate) fn new(
        incoming: Incoming,
        limits: &Limits,
        between_bytes: Duration,
        sending: Arc<Sending>,
        held: (Lease, OwnedSemaphorePermit),
    ) -> Self {
        let mut body = Self {
            incoming,
            allowance: limits.allowance.clone(),
            sending,
            between_bytes,
            deadline: limits.deadline,
            timer: None,
            held: Some(held),
        };
        if body.incoming.is_end_stream() {
            body.finish();
        }
        body
    }

    /// Gives the connection back.
    fn finish(&mut self) {
        if let Some((lease, _permit)) = self.held.take()
            && self.sending.is_complete()
        {
            lease.give_back();
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let (deadline, between_bytes) = (self.deadline, self.between_bytes);
        let at = deadline.min(Instant::now() + between_bytes);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        timer.as_mut().poll(cx).map(|()| {
            if Instant::now() >= deadline { Error::Deadline } else { Error::BetweenBytesTimeout(between_bytes) }
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => match self.poll_timer(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(error) => {
                    self.held = None;
                    return Poll::Ready(Some(Err(error)));
                }
            },
        };
        // The next wait has a timer of its own.
        self.timer = None;
        let frame = match frame {
            None => None,
            Some(Ok(frame)) => match self.allowance.receive(frame.data_ref().map_or(0, Bytes::len)) {
                Ok(()) => Some(Ok(frame)),
                Err(max) => Some(Err(Error::ResponseBytes(max))),
            },
            Some(Err(error)) => Some(Err(self.sending.error().unwrap_or_else(|| Error::of_connection(&error)))),
        };
        match &frame {
            Some(Err(_)) => self.held = None,
            _ if frame.is_none() || self.incoming.is_end_stream() => self.finish(),
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
