//! The body of a response, with its limits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use super::allowance::Allowance;
use super::error::Error;
use super::limits::Limits;
use super::pool::Lease;
use super::request_body::Sending;

/// The body of a response. Dropping it before its end closes the connection, or resets the stream of HTTP/2.
pub struct ResponseBody {
    incoming: Incoming,
    allowance: Arc<Allowance>,
    sending: Arc<Sending>,
    between_bytes: Duration,
    deadline: Instant,
    /// The timer of the current wait for the peer; `None` after each part of the body.
    timer: Option<Pin<Box<Sleep>>>,
    /// The connection and the permit of the call, until the body ends.
    held: Option<(Lease, Arc<OwnedSemaphorePermit>)>,
}

impl ResponseBody {
    pub(crate) fn new(
        incoming: Incoming,
        limits: &Limits,
        between_bytes: Duration,
        sending: Arc<Sending>,
        held: (Lease, Arc<OwnedSemaphorePermit>),
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

    /// Returns the connection to the pool if the request body was read to its end; otherwise closes the connection.
    /// While a part of the request body is in memory, that part still holds the permit of the call.
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
        let Self { incoming, held, .. } = &mut *self;
        let mut poll = |cx: &mut Context<'_>| Pin::new(&mut *incoming).poll_frame(cx);
        let polled = match held {
            Some((lease, _)) => lease.connection.poll_with(cx, poll),
            None => poll(cx),
        };
        let frame = match polled {
            Poll::Ready(frame) => frame,
            Poll::Pending => match self.poll_timer(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(error) => {
                    // Here, only a pause of the peer removes an HTTP/2 connection from the pool. A deadline does not:
                    // the peer may have sent all parts so far in time.
                    if let (Error::BetweenBytesTimeout(_), Some((lease, _))) = (&error, self.held.take()) {
                        lease.forget();
                    }
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
