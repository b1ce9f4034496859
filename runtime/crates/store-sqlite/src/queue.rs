//! Writes that wait for the writer thread, and their replies.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::retain::Maintained;
use evoke_model::state::Transaction;
use evoke_model::{
    Accepted, Completed, Completion, DeadFilter, DeliveryId, FunctionId, Mark, NewEvent, NewReplay, ReplayId,
    ReplayState, Seq, Step,
};
use evoke_store::{Result, StoreError};

type Reply<T> = oneshot::Sender<Result<T>>;

/// Dead letters per write. Their events stay in memory until the commit is announced.
pub(super) const PORTION_MAX: usize = 256;

/// The result of one write over a portion of the matching deliveries.
#[derive(Default)]
pub(super) struct Portion {
    pub(super) count: u64,
    /// Start of the next portion; `None` after the last one.
    pub(super) next_after: Option<DeliveryId>,
}

impl Portion {
    pub(super) fn of(ids: &[DeliveryId]) -> Self {
        let next_after = if ids.len() < PORTION_MAX { None } else { ids.last().copied() };
        Self { count: ids.len() as u64, next_after }
    }
}

/// A write that waits for the next commit.
pub(super) enum Write {
    Register {
        names: Vec<String>,
        reply: Reply<Vec<FunctionId>>,
    },
    Accept {
        events: Vec<NewEvent>,
        marks: Vec<Mark>,
        reply: Reply<Vec<Accepted>>,
    },
    /// Without a reply channel, the result goes to the sink.
    Complete {
        completion: Arc<Completion>,
        reply: Option<Reply<Completed>>,
    },
    State {
        changes: Transaction,
        reply: Reply<u64>,
    },
    Redrive {
        which: DeadFilter,
        after: DeliveryId,
        reply: Reply<Portion>,
    },
    Purge {
        which: DeadFilter,
        after: DeliveryId,
        reply: Reply<Portion>,
    },
    StartReplay {
        new: NewReplay,
        reply: Reply<ReplayId>,
    },
    AdvanceReplay {
        replay: ReplayId,
        step: Step,
        reply: Reply<bool>,
    },
    TransitionReplay {
        replay: ReplayId,
        from: &'static [ReplayState],
        to: ReplayState,
        reply: Reply<bool>,
    },
    PurgeReplay {
        replay: ReplayId,
        except: Arc<[DeliveryId]>,
        after: DeliveryId,
        reply: Reply<Portion>,
    },
    Remove {
        events: Vec<Seq>,
        reply: Reply<u64>,
    },
    Maintain {
        shrinking: bool,
        reply: Reply<Maintained>,
    },
    /// Copies the log into the database file, which then shrinks to its current size.
    Checkpoint {
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
}

impl Write {
    /// Returns the approximate size of the payload in bytes.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Accept { events, .. } => events.iter().map(|e| e.event.size()).sum(),
            Self::Complete { completion, .. } => {
                completion.publishes.iter().map(|e| e.event.size()).sum::<usize>() + completion.state.size()
            }
            Self::State { changes, .. } => changes.size(),
            _ => 0,
        }
    }

    pub(super) fn is_checkpoint(&self) -> bool {
        matches!(self, Self::Checkpoint { .. })
    }

    pub(super) fn is_close(&self) -> bool {
        matches!(self, Self::Close { .. })
    }
}

/// An applied write with its result, which is sent after the commit.
pub(super) enum Applied {
    Ids(Reply<Vec<FunctionId>>, Vec<FunctionId>),
    Accepted(Reply<Vec<Accepted>>, Vec<Accepted>),
    Completed(Reply<Completed>, Completed),
    Count(Reply<u64>, u64),
    Portion(Reply<Portion>, Portion),
    Replay(Reply<ReplayId>, ReplayId),
    Flag(Reply<bool>, bool),
    Maintained(Reply<Maintained>, Maintained),
    Unit(Reply<()>),
    /// A completion whose result goes to the sink.
    Completion(Arc<Completion>, Completed),
}

impl Applied {
    /// Wraps a write that was never applied; the caller then has to call [`Applied::fail`].
    pub(super) fn unapplied(write: Write) -> Self {
        match write {
            Write::Register { reply, .. } => Self::Ids(reply, Vec::new()),
            Write::Accept { reply, .. } => Self::Accepted(reply, Vec::new()),
            Write::Complete { completion, reply } => Self::completed(completion, reply, Completed::Committed),
            Write::State { reply, .. } => Self::Count(reply, 0),
            Write::Redrive { reply, .. } | Write::Purge { reply, .. } | Write::PurgeReplay { reply, .. } => {
                Self::Portion(reply, Portion::default())
            }
            Write::StartReplay { reply, .. } => Self::Replay(reply, 0),
            Write::AdvanceReplay { reply, .. } | Write::TransitionReplay { reply, .. } => Self::Flag(reply, false),
            Write::Remove { reply, .. } => Self::Count(reply, 0),
            Write::Maintain { reply, .. } => Self::Maintained(reply, Maintained::default()),
            Write::Checkpoint { reply } | Write::Close { reply } => Self::Unit(reply),
        }
    }

    pub(super) fn completed(
        completion: Arc<Completion>,
        reply: Option<Reply<Completed>>,
        completed: Completed,
    ) -> Self {
        match reply {
            Some(reply) => Self::Completed(reply, completed),
            None => Self::Completion(completion, completed),
        }
    }

    /// Returns the completion if its result goes to the sink, otherwise the write itself.
    pub(super) fn for_sink(self) -> std::result::Result<(Arc<Completion>, Completed), Self> {
        match self {
            Self::Completion(completion, completed) => Ok((completion, completed)),
            other => Err(other),
        }
    }

    /// Sends the result. The caller may have stopped waiting; the commit is valid anyway.
    pub(super) fn succeed(self) {
        match self {
            Self::Completion(..) => {}
            Self::Ids(reply, ids) => drop(reply.send(Ok(ids))),
            Self::Accepted(reply, accepted) => drop(reply.send(Ok(accepted))),
            Self::Completed(reply, completed) => drop(reply.send(Ok(completed))),
            Self::Count(reply, count) => drop(reply.send(Ok(count))),
            Self::Portion(reply, portion) => drop(reply.send(Ok(portion))),
            Self::Replay(reply, id) => drop(reply.send(Ok(id))),
            Self::Flag(reply, flag) => drop(reply.send(Ok(flag))),
            Self::Maintained(reply, maintained) => drop(reply.send(Ok(maintained))),
            Self::Unit(reply) => drop(reply.send(Ok(()))),
        }
    }

    /// Reports that nothing of the write was committed.
    pub(super) fn fail(self, error: &StoreError) {
        match self {
            Self::Completion(..) => {}
            Self::Ids(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Accepted(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Completed(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Count(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Portion(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Replay(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Flag(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Maintained(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Unit(reply) => drop(reply.send(Err(error.clone()))),
        }
    }
}
