//! The future that store calls return. Results that are already there or arrive through a channel need no heap
//! allocation.
//! a channel.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::{Result, StoreError};

/// The result of a store call. Await it immediately.
#[must_use = "only the result tells whether the call succeeded"]
pub struct StoreFuture<T>(Inner<T>);

enum Inner<T> {
    Ready(Option<Result<T>>),
    Reply(oneshot::Receiver<Result<T>>),
    Future(BoxFuture<'static, Result<T>>),
}

impl<T> StoreFuture<T> {
    /// Wraps a result that is already available.
    pub fn ready(result: Result<T>) -> Self {
        Self(Inner::Ready(Some(result)))
    }

    /// Waits for a result from a channel; a dropped sender means [`StoreError::Closed`].
    pub fn from_reply(receiver: oneshot::Receiver<Result<T>>) -> Self {
        Self(Inner::Reply(receiver))
    }

    /// Runs `future`, which starts when this one is first polled.
    pub fn from_future(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(Inner::Future(future.boxed()))
    }
}

// No variant is pinned structurally: the boxed future is `Unpin`.
impl<T> Unpin for StoreFuture<T> {}

impl<T> Future for StoreFuture<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.0 {
            Inner::Ready(result) => result.take().map_or(Poll::Pending, Poll::Ready),
            Inner::Reply(receiver) => receiver.poll_unpin(cx).map(|reply| reply.unwrap_or(Err(StoreError::Closed))),
            Inner::Future(future) => future.poll_unpin(cx),
        }
    }
}
