//! Completes an attempt: stores its record, the delivery's new state, the published events and the changes of the
//! function's state.

use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use super::accept::insert_event;
use super::deliveries::unblock_next;
use super::{GroupCommit, Write};
use crate::rows::attempt::{self, Timing};
use crate::rows::delivery::{self, change_delivery};
use crate::rows::{self, Owner, share_columns};
use crate::totals::Recent;
use crate::{read, recordings};
use evoke_model::clock::UnixMs;
use evoke_model::{Completed, Completion, DeliveryId, Verdict};
use evoke_store::backlog::Share;
use evoke_store::validate::Validation;

/// Commits the outcome of an attempt, or rejects it: for example if a value that the attempt read has changed.
pub(crate) struct Complete {
    pub(crate) completion: Arc<Completion>,
}

impl Write for Complete {
    type Output = Completed;

    fn size(&self) -> usize {
        let Completion { publishes, state, recording, .. } = &*self.completion;
        let recording = recording.as_ref().map_or(0, |recording| recording.data.len());
        publishes.iter().map(|e| e.event.size()).sum::<usize>() + state.size() + recording
    }

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Completed> {
        let completed = complete(commit, &self.completion);
        commit.state.finish(&self.completion);
        completed
    }
}

fn complete(commit: &mut GroupCommit<'_>, completion: &Completion) -> rusqlite::Result<Completed> {
    let Completion { delivery, record, verdict, publishes, state: transaction, .. } = completion;
    let valid = if transaction.is_empty() {
        None
    } else {
        match commit.state.validate(transaction)? {
            Validation::Valid(valid) => Some(valid),
            _ if !read::is_next_attempt(commit.tx, *delivery, record.attempt)? => return Ok(Completed::Superseded),
            Validation::Conflict(place) => return Ok(Completed::Conflict(place)),
            Validation::OverQuota(refusal) => return Ok(Completed::OverQuota(refusal)),
        }
    };
    let mut chain = None;
    if *verdict == Verdict::Done {
        let count = |root| read::descendants(commit.tx, root);
        match commit.chains.check(publishes, &commit.descendants_limits, count)? {
            Ok(checked) => chain = checked,
            Err(_) if !read::is_next_attempt(commit.tx, *delivery, record.attempt)? => {
                return Ok(Completed::Superseded);
            }
            Err(message) => return Ok(Completed::TooManyDescendants(message)),
        }
    }
    let (state, due_ms, cause) = match verdict {
        Verdict::Done => (rows::DONE, None, None),
        Verdict::RetryAt(due_ms) => (rows::RETRYING, Some(*due_ms), None),
        Verdict::Dead(cause) => (rows::DEAD, None, Some(cause.as_str())),
    };
    // The row of a delivery has no column for a message, because few successful attempts have one. An attempt with a
    // message gets its own row.
    let done = (*verdict == Verdict::Done && record.message.is_none()).then(|| Timing::of(record));
    let Some(previous) = end_attempt(commit, *delivery, record.attempt, state, due_ms, cause, done)? else {
        return Ok(Completed::Superseded);
    };
    let Previous { owner, order_key, share, state: before } = previous;
    if let Some(valid) = valid {
        commit.state.apply(transaction, valid)?;
    }
    commit.counters.change_state(owner, before, state);
    if state != rows::RETRYING {
        commit.counters.backlog_change().remove(share);
    }
    if state == rows::DEAD {
        commit.counters.dead_change().add(share);
    }
    if done.is_none() {
        attempt::put(commit.tx, *delivery, record)?;
    }
    recordings::put(commit.tx, completion, commit.now_ms)?;
    if let Some((root, count)) = chain {
        commit.chains.set(root, count);
    }
    for new in publishes {
        insert_event(commit, new.clone())?;
    }
    if state == rows::DONE
        && let Some(key) = order_key
    {
        unblock_next(commit, owner, &key)?;
    }
    Ok(Completed::Committed)
}

/// The values of a delivery before its attempt ended.
struct Previous {
    owner: Owner,
    order_key: Option<String>,
    share: Share,
    state: i64,
}

/// Changes a ready or retrying delivery after an attempt: sets its new state. Returns `None` if the delivery is neither
/// ready nor retrying, or if the attempt is not its next one.
fn end_attempt(
    commit: &mut GroupCommit<'_>,
    id: DeliveryId,
    attempt: u32,
    state: i64,
    due_ms: Option<UnixMs>,
    cause: Option<&str>,
    done: Option<Timing>,
) -> rusqlite::Result<Option<Previous>> {
    let tx = commit.tx;
    let (done_ms, done_us) = done.map(|timing| (timing.started_ms, timing.duration_us)).unzip();
    // A delivery is recent only until its first attempt ends.
    if attempt == 1
        && let Some(recent) = commit.counters.take_recent(id)
    {
        let Recent { owner, order_key, share, since_ms, fixed_sum } = recent;
        let sum = fixed_sum + delivery::mutable_sum(state, 1, since_ms, due_ms, cause, done);
        let ended = commit
            .statements
            .get(
                "UPDATE deliveries SET state = ?2, due_ms = ?3, cause = ?4, done_ms = ?5, done_us = ?6, attempts = 1,
                   sum = ?7
                 WHERE id = ?1 AND state = 0",
            )?
            .execute(params![id.0, state, due_ms, cause, done_ms, done_us, sum])?;
        if ended == 1 {
            return Ok(Some(Previous { owner, order_key, share, state: rows::READY }));
        }
    }
    // Two statements instead of one with RETURNING: SQLite assumes that such an UPDATE may fail half-way, and copies
    // every page that the UPDATE changes.
    let previous = tx
        .prepare_cached(concat!(
            "SELECT function, replay, order_key, state, ",
            share_columns!(),
            " FROM deliveries WHERE id = ?1 AND state IN (0, 1) AND attempts + 1 = ?2",
        ))?
        .query_row(params![id.0, attempt], |r| {
            Ok(Previous {
                owner: rows::owner(r, 0)?,
                order_key: r.get(2)?,
                share: rows::share(r, 4)?,
                state: r.get(3)?,
            })
        })
        .optional()?;
    if previous.is_some() {
        tx.prepare_cached(change_delivery!(
            "state = ?2, due_ms = ?3, cause = ?4, done_ms = ?5, done_us = ?6, attempts = attempts + 1",
            "?2, attempts + 1, forgiven, since_ms, ?3, ?4, ?5, ?6"
        ))?
        .execute(params![id.0, state, due_ms, cause, done_ms, done_us])?;
    }
    Ok(previous)
}
