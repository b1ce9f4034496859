//! What a store answers: often it is there at once, or comes through a channel; only what is more than that is boxed.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::{Result, StoreError};

/// An answer to come; it is to be waited for at once.
#[must_use = "only the answer says whether it was done"]
pub struct Answer<T>(Way<T>);

enum Way<T> {
    There(Option<Result<T>>),
    Reply(oneshot::Receiver<Result<T>>),
    Later(BoxFuture<'static, Result<T>>),
}

impl<T> Answer<T> {
    /// It is there.
    pub fn now(result: Result<T>) -> Self {
        Self(Way::There(Some(result)))
    }

    /// It comes through a channel. A sender that goes without a word was closed.
    pub fn reply(receiver: oneshot::Receiver<Result<T>>) -> Self {
        Self(Way::Reply(receiver))
    }

    /// `future` works it out, from when the answer is first waited for.
    pub fn later(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(Way::Later(future.boxed()))
    }
}

// Nothing in it is pinned in place: what needs that is boxed.
impl<T> Unpin for Answer<T> {}

impl<T> Future for Answer<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.0 {
            Way::There(result) => result.take().map_or(Poll::Pending, Poll::Ready),
            Way::Reply(receiver) => receiver.poll_unpin(cx).map(|reply| reply.unwrap_or(Err(StoreError::Closed))),
            Way::Later(future) => future.poll_unpin(cx),
        }
    }
}
