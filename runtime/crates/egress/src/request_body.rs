//! The body of a request, its limits, and its progress.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use tokio::time::Instant;

use super::allowance::Allowance;
use super::error::Error;
use super::upload::Permits;

/// The error type of the caller's request body.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A request body of at most this size, in bytes, fits into the buffer of the socket, so it is written as soon as the
/// connection has read it. Parts of a larger body may stay in the buffer of the connection for longer.
const SENT_AT_ONCE: u64 = 4 * 1024;

/// The body of a request, which is read as fast as the peer receives it.
pub type RequestBody = UnsyncBoxBody<Bytes, BodyError>;

/// Returns a body without bytes.
pub fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Returns a body with these bytes.
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// The progress of a request body. The connection updates the progress while it reads the body; the sender of the
/// request reads the progress.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    state: Mutex<SendingState>,
    is_complete: AtomicBool,
}

#[derive(Debug, Default)]
struct SendingState {
    /// The last time at which the connection polled the body, even if no part was ready.
    last: Option<Instant>,
    /// True while the connection waits for the body.
    waits_for_body: bool,
    /// The bytes that the connection has read.
    bytes: u64,
    error: Option<Error>,
}

impl Sending {
    /// Returns true if the body was read to its end.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete.load(Ordering::Acquire)
    }

    /// Returns true if a part of the body is perhaps not written to the socket yet. Such a part was not read yet, or is
    /// in the buffer of the connection.
    pub(crate) fn may_be_unsent(&self) -> bool {
        !self.is_complete() || self.lock().bytes > SENT_AT_ONCE
    }

    /// Returns the error of the body.
    pub(crate) fn error(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    /// Returns the time at which the wait for the response began: the time at which the connection last read a part of
    /// the body, or `sent` if `sent` is later. While the connection waits for the next part of the body, returns the
    /// current time.
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
    /// The bytes that are still to be read, if the header `content-length` gives the size of the body. After the last
    /// byte, the connection does not poll the body again.
    remaining: Option<u64>,
    allowance: Arc<Allowance>,
    sending: Arc<Sending>,
    /// `None` if the rest of the body has no bytes.
    permits: Option<Arc<Permits>>,
}

impl SentBody {
    pub(crate) fn new(
        inner: RequestBody,
        length: Option<u64>,
        allowance: Arc<Allowance>,
        sending: Arc<Sending>,
        permits: Option<Arc<Permits>>,
    ) -> Self {
        let body = Self { inner, remaining: length, allowance, sending, permits };
        if body.is_complete() {
            body.sending.is_complete.store(true, Ordering::Release);
        }
        body
    }

    fn is_complete(&self) -> bool {
        self.remaining == Some(0) || self.inner.is_end_stream()
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        let sending = self.sending.clone();
        let mut state = sending.lock();
        state.waits_for_body = polled.is_pending();
        state.last = Some(Instant::now());
        let frame = match polled {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => None,
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                state.bytes = state.bytes.saturating_add(bytes as u64);
                self.remaining = self.remaining.map(|remaining| remaining.saturating_sub(bytes as u64));
                Some(self.allowance.send(bytes).map(|()| frame).map_err(Error::RequestBytes))
            }
            Poll::Ready(Some(Err(error))) => Some(Err(Error::RequestBody(error.to_string()))),
        };
        if let Some(Err(error)) = &frame {
            state.error = Some(error.clone());
        }
        drop(state);
        if frame.is_none() || self.is_complete() {
            self.sending.is_complete.store(true, Ordering::Release);
        }
        let Some(permits) = self.permits.clone() else { return Poll::Ready(frame) };
        let is_data = matches!(&frame, Some(Ok(frame)) if frame.is_data());
        if !is_data || self.inner.is_end_stream() {
            // Only the parts that were read hold the permits now. `remaining` is not used here, because a body can have
            // more bytes than `content-length`.
            self.permits = None;
        }
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(|bytes| permits.held_by(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
