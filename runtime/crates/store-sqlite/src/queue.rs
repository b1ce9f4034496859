//! The queue of the writer thread, and how callers receive the results of their writes.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::write::accept::Accept;
use super::write::complete::Complete;
use super::write::{GroupCommit, Portion, Write};
use evoke_model::{Accepted, Completed, Completion, DeliveryId};
use evoke_store::{Result, StoreError, StoreFuture};

/// Maximum number of writes in the queue: four full group commits. If the queue is full, callers wait until it has
/// space.
const WAITING_MAX: usize = 4096;

pub(super) type Reply<T> = oneshot::Sender<Result<T>>;

/// A request to the writer thread.
pub(super) enum Message {
    Write(Pending),
    /// Stops the writer after it has committed the writes that were queued before this message.
    Close(Reply<()>),
}

/// A write that waits for its commit. The frequent writes have their own variants, so that they need no allocation.
pub(super) enum Pending {
    Accept(Call<Accept>),
    Complete(Call<Complete>),
    /// A completion whose result goes to the sink.
    Settle(Complete, Option<Completed>),
    Rare(Box<dyn RareCall>),
}

/// A write, and the channel to the caller that waits for its result.
pub(super) struct Call<W: Write> {
    write: W,
    /// The result; `None` until the write was applied.
    output: Option<W::Output>,
    reply: Reply<W::Output>,
}

/// A [`Call`] with any type of write.
pub(super) trait RareCall: Send {
    fn size(&self) -> usize;
    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<()>;
    fn reply(self: Box<Self>, committed: &Result<()>);
}

impl Pending {
    /// Returns the approximate size of the payload in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Accept(call) => call.write.size(),
            Self::Complete(call) => call.write.size(),
            Self::Settle(write, _) => write.size(),
            Self::Rare(call) => call.size(),
        }
    }

    /// Applies the write and keeps its result until the commit.
    pub(super) fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<()> {
        match self {
            Self::Accept(call) => call.apply(commit),
            Self::Complete(call) => call.apply(commit),
            Self::Settle(write, output) => {
                *output = Some(write.apply(commit)?);
                Ok(())
            }
            Self::Rare(call) => call.apply(commit),
        }
    }

    /// If the result belongs to the sink, returns the completion with its result. Otherwise, returns the write itself
    /// as the error.
    pub(super) fn for_sink(
        self,
        committed: &Result<()>,
    ) -> std::result::Result<(Arc<Completion>, Result<Completed>), Self> {
        match self {
            Self::Settle(write, output) => Ok((write.completion, result(committed, output))),
            other => Err(other),
        }
    }

    /// Sends the result of the write, or the error of the commit, to the caller.
    pub(super) fn reply(self, committed: &Result<()>) {
        match self {
            Self::Accept(call) => call.reply(committed),
            Self::Complete(call) => call.reply(committed),
            // The sink receives the result.
            Self::Settle(..) => {}
            Self::Rare(call) => call.reply(committed),
        }
    }
}

impl<W: Write> Call<W> {
    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<()> {
        self.output = Some(self.write.apply(commit)?);
        Ok(())
    }

    fn reply(self, committed: &Result<()>) {
        let Self { write, output, reply } = self;
        // Drop the write before the reply. Data that the caller shares is then freed by the caller, and not by the
        // writer thread.
        drop(write);
        // The caller may have stopped waiting; the commit is valid anyway.
        let _ = reply.send(result(committed, output));
    }
}

impl<W: Write> RareCall for Call<W> {
    fn size(&self) -> usize {
        self.write.size()
    }

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<()> {
        Call::apply(self, commit)
    }

    fn reply(self: Box<Self>, committed: &Result<()>) {
        Call::reply(*self, committed);
    }
}

/// Returns the result of a write, or the error of its commit. A commit succeeds only if all of its writes were applied.
fn result<T>(committed: &Result<()>, output: Option<T>) -> Result<T> {
    committed.clone().and_then(|()| output.ok_or(StoreError::Closed))
}

#[derive(Clone)]
pub(super) struct WriteQueue(mpsc::Sender<Message>);

impl WriteQueue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    pub(super) fn accept(&self, write: Accept) -> StoreFuture<Vec<Accepted>> {
        self.call(write, Pending::Accept)
    }

    pub(super) fn complete(&self, write: Complete) -> StoreFuture<Completed> {
        self.call(write, Pending::Complete)
    }

    /// Queues a completion whose result goes to the sink.
    pub(super) fn settle(&self, write: Complete) -> StoreFuture<()> {
        match self.0.try_send(Message::Write(Pending::Settle(write, None))) {
            Ok(()) => StoreFuture::ready(Ok(())),
            Err(TrySendError::Closed(_)) => StoreFuture::ready(Err(StoreError::Closed)),
            Err(TrySendError::Full(message)) => {
                let queue = self.0.clone();
                StoreFuture::from_future(async move { queue.send(message).await.map_err(|_| StoreError::Closed) })
            }
        }
    }

    /// Executes a write that is rare enough to be boxed.
    pub(super) fn submit<W: Write>(&self, write: W) -> StoreFuture<W::Output> {
        self.call(write, |call| Pending::Rare(Box::new(call)))
    }

    /// Executes a write that the start or a reload of the process needs. Tries again as long as another program has
    /// locked the store.
    pub(super) fn submit_patiently<W: Write>(&self, make: impl Fn() -> W + Send + 'static) -> StoreFuture<W::Output> {
        let queue = self.clone();
        StoreFuture::from_future(async move {
            loop {
                match queue.submit(make()).await {
                    // No pause is needed here, because the writer has already waited for the lock.
                    Err(StoreError::Busy) => {}
                    result => return result,
                }
            }
        })
    }

    /// Executes a write in portions: each portion continues after the last delivery of the portion before. Returns the
    /// total number of changed deliveries.
    pub(super) fn submit_in_portions<W: Write<Output = Portion>>(
        &self,
        make: impl Fn(DeliveryId) -> W + Send + 'static,
    ) -> StoreFuture<u64> {
        let queue = self.clone();
        StoreFuture::from_future(async move {
            let (mut count, mut next_after) = (0, Some(DeliveryId(0)));
            while let Some(after) = next_after {
                let portion = queue.submit(make(after)).await?;
                count += portion.count;
                next_after = portion.next_after;
            }
            Ok(count)
        })
    }

    /// Stops the writer after it has committed the writes that are already queued.
    pub(super) fn close(&self) -> StoreFuture<()> {
        let (reply, result) = oneshot::channel();
        self.send(Message::Close(reply), result)
    }

    fn call<W: Write>(&self, write: W, pending: impl FnOnce(Call<W>) -> Pending) -> StoreFuture<W::Output> {
        let (reply, result) = oneshot::channel();
        self.send(Message::Write(pending(Call { write, output: None, reply })), result)
    }

    fn send<T: Send + 'static>(&self, message: Message, result: oneshot::Receiver<Result<T>>) -> StoreFuture<T> {
        match self.0.try_send(message) {
            Ok(()) => StoreFuture::from_reply(result),
            Err(TrySendError::Closed(_)) => StoreFuture::ready(Err(StoreError::Closed)),
            Err(TrySendError::Full(message)) => {
                let queue = self.0.clone();
                StoreFuture::from_future(async move {
                    queue.send(message).await.map_err(|_| StoreError::Closed)?;
                    result.await.map_err(|_| StoreError::Closed)?
                })
            }
        }
    }
}
