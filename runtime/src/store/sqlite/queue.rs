//! What waits for the writer, and how it is answered.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::retain::Tidied;
use crate::state::Transaction;
use crate::store::{
    Accepted, Completed, Completion, DeadFilter, DeliveryId, FunctionId, Mark, NewEvent, NewReplay, ReplayId,
    ReplayState, Result, Seq, Step, StoreError,
};

type Reply<T> = oneshot::Sender<Result<T>>;

/// How many dead letters one write takes: their events are in memory until they are announced.
pub(super) const PORTION_MAX: usize = 256;

/// A share of the dead letters that a filter names.
#[derive(Default)]
pub(super) struct Portion {
    pub(super) count: u64,
    /// Where the next one starts; `None` when this was the last.
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
    /// Without a reply, the sink is told.
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
    TurnReplay {
        replay: ReplayId,
        from: &'static [ReplayState],
        to: ReplayState,
        reply: Reply<bool>,
    },
    DropReplay {
        replay: ReplayId,
        but_for: Arc<[DeliveryId]>,
        after: DeliveryId,
        reply: Reply<Portion>,
    },
    Remove {
        events: Vec<Seq>,
        reply: Reply<u64>,
    },
    Tidy {
        shrinking: bool,
        reply: Reply<Tidied>,
    },
    /// Has the file take over what was written, and be as short as it became.
    Checkpoint {
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
}

impl Write {
    /// Payload in bytes, roughly.
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

/// A write that was applied, with the answer that goes out when the transaction is committed.
pub(super) enum Settled {
    Ids(Reply<Vec<FunctionId>>, Vec<FunctionId>),
    Accepted(Reply<Vec<Accepted>>, Vec<Accepted>),
    Completed(Reply<Completed>, Completed),
    Count(Reply<u64>, u64),
    Portion(Reply<Portion>, Portion),
    Replay(Reply<ReplayId>, ReplayId),
    Whether(Reply<bool>, bool),
    Tidied(Reply<Tidied>, Tidied),
    Unit(Reply<()>),
    /// For the sink.
    Completion(Arc<Completion>, Completed),
}

impl Settled {
    /// For a write that never was applied: it can only fail.
    pub(super) fn unapplied(write: Write) -> Self {
        match write {
            Write::Register { reply, .. } => Self::Ids(reply, Vec::new()),
            Write::Accept { reply, .. } => Self::Accepted(reply, Vec::new()),
            Write::Complete { completion, reply } => Self::completed(completion, reply, Completed::Committed),
            Write::State { reply, .. } => Self::Count(reply, 0),
            Write::Redrive { reply, .. } | Write::Purge { reply, .. } | Write::DropReplay { reply, .. } => {
                Self::Portion(reply, Portion::default())
            }
            Write::StartReplay { reply, .. } => Self::Replay(reply, 0),
            Write::AdvanceReplay { reply, .. } | Write::TurnReplay { reply, .. } => Self::Whether(reply, false),
            Write::Remove { reply, .. } => Self::Count(reply, 0),
            Write::Tidy { reply, .. } => Self::Tidied(reply, Tidied::default()),
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

    /// What the sink is told of; the others keep their answer.
    pub(super) fn for_sink(self) -> std::result::Result<(Arc<Completion>, Completed), Self> {
        match self {
            Self::Completion(completion, completed) => Ok((completion, completed)),
            other => Err(other),
        }
    }

    /// Sends the answer. Whoever asked may be gone: the commit stands all the same.
    pub(super) fn succeed(self) {
        match self {
            Self::Completion(..) => {}
            Self::Ids(reply, ids) => drop(reply.send(Ok(ids))),
            Self::Accepted(reply, accepted) => drop(reply.send(Ok(accepted))),
            Self::Completed(reply, completed) => drop(reply.send(Ok(completed))),
            Self::Count(reply, count) => drop(reply.send(Ok(count))),
            Self::Portion(reply, portion) => drop(reply.send(Ok(portion))),
            Self::Replay(reply, id) => drop(reply.send(Ok(id))),
            Self::Whether(reply, whether) => drop(reply.send(Ok(whether))),
            Self::Tidied(reply, tidied) => drop(reply.send(Ok(tidied))),
            Self::Unit(reply) => drop(reply.send(Ok(()))),
        }
    }

    /// Tells that nothing of the write was committed.
    pub(super) fn fail(self, error: &StoreError) {
        match self {
            Self::Completion(..) => {}
            Self::Ids(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Accepted(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Completed(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Count(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Portion(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Replay(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Whether(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Tidied(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Unit(reply) => drop(reply.send(Err(error.clone()))),
        }
    }
}
