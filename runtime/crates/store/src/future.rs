//! The future that store calls return. It needs no heap allocation for a result that is already available or that
//! arrives through a channel.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use crate::{Result, StoreError};

/// The future of a store call. Await it immediately, because some calls start only when the future is first polled. If
/// the future is polled again after its result, it returns [`StoreError::Closed`].
#[must_use = "await the call and check its result: nothing else shows whether it succeeded"]
pub struct StoreFuture<T>(Inner<T>);

enum Inner<T> {
    /// `None` after the result was returned.
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

    /// Runs `future`, which starts when the returned future is first polled.
    pub fn from_future(future: impl Future<Output = Result<T>> + Send + 'static) -> Self {
        Self(Inner::Future(future.boxed()))
    }
}

// No variant is pinned structurally: the boxed future is `Unpin`.
impl<T> Unpin for StoreFuture<T> {}

impl<T> Future for StoreFuture<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let result = match &mut self.0 {
            Inner::Ready(result) => return Poll::Ready(result.take().unwrap_or(Err(StoreError::Closed))),
            Inner::Reply(receiver) => ready!(receiver.poll_unpin(cx)).unwrap_or(Err(StoreError::Closed)),
            Inner::Future(future) => ready!(future.poll_unpin(cx)),
        };
        // The channel and the boxed future would panic when polled again.
        self.0 = Inner::Ready(None);
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_polled_after_its_result_reports_a_closed_store() {
        let (sender, receiver) = oneshot::channel();
        sender.send(Ok(1)).unwrap();
        let futures = [
            StoreFuture::ready(Ok(1)),
            StoreFuture::from_reply(receiver),
            StoreFuture::from_future(std::future::ready(Ok(1))),
        ];
        for mut future in futures {
            assert!(matches!((&mut future).now_or_never(), Some(Ok(1))));
            assert!(matches!((&mut future).now_or_never(), Some(Err(StoreError::Closed))));
            assert!(matches!((&mut future).now_or_never(), Some(Err(StoreError::Closed))));
        }
    }
}
