//! The commit of an offer. The offer's value `held` is kept until the commit ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;

use super::Held;
use evoke_store::StoreFuture;

/// Waits for a commit. If this future is dropped before the commit ends, a task keeps `held` until then, because the
/// events are still in memory. Otherwise, clients that send events and disconnect at once could fill the queue of the
/// store beyond all limits.
pub(super) struct Commit<T: Send + 'static> {
    /// `None` after the commit.
    commit: Option<StoreFuture<T>>,
    held: Option<Held>,
}

impl<T: Send + 'static> Commit<T> {
    pub(super) fn new(commit: StoreFuture<T>, held: Option<Held>) -> Self {
        Self { commit: Some(commit), held }
    }
}

impl<T: Send + 'static> Future for Commit<T> {
    type Output = evoke_store::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(commit) = &mut self.commit else { return Poll::Ready(Err(evoke_store::StoreError::Closed)) };
        let result = ready!(commit.poll_unpin(cx));
        self.commit = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for Commit<T> {
    fn drop(&mut self) {
        let (Some(commit), Some(held)) = (self.commit.take(), self.held.take()) else { return };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(commit.map(move |_| drop(held)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_is_held_is_dropped_at_the_end_of_the_commit_and_not_before() {
        let (sender, receiver) = oneshot::channel();
        let held = Arc::new(());
        drop(Commit::new(StoreFuture::from_reply(receiver), Some(held.clone())));
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&held), 2, "the events are still in the queue of the store");
        sender.send(Ok(())).unwrap();
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
