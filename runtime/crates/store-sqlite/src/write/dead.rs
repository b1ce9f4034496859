//! The writes with which an operator changes dead letters.

use rusqlite::{Connection, params};

use super::accept::insert_event;
use super::deliveries::{is_first, unblock_next};
use super::{GroupCommit, PORTION_MAX, Portion, Write, exits};
use crate::read;
use crate::rows::delivery::{self, change_delivery};
use crate::rows::{self, Owner, share_columns};
use evoke_model::{Accepted, DeadFilter, DeliveryId, NewEvent, Seq};
use evoke_store::backlog::Share;

/// Makes dead letters with an id greater than `after` pending again.
pub(crate) struct Redrive {
    pub(crate) which: DeadFilter,
    pub(crate) after: DeliveryId,
}

impl Write for Redrive {
    type Output = Portion;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Portion> {
        let tx = commit.tx;
        let ids = read::dead_ids(tx, &self.which, self.after, PORTION_MAX)?;
        let (mut portion, mut bytes) = (Portion::found(ids.iter().copied()), 0);
        for id in &ids {
            if !delivery::is_intact(tx, *id, &[rows::DEAD])? {
                continue;
            }
            portion.count += 1;
            let (owner, share, key) = owner_share_and_key(tx, *id)?;
            // If a delivery was blocked when it was cancelled, an earlier delivery of its order key can be unfinished.
            let is_first = is_first(tx, owner, key.as_deref(), *id)?;
            let state = if is_first { rows::READY } else { rows::BLOCKED };
            tx.prepare_cached(change_delivery!(
                "state = ?3, cause = NULL, due_ms = NULL, forgiven = attempts, since_ms = ?2",
                "?3, attempts, attempts, ?2, NULL, NULL, done_ms, done_us"
            ))?
            .execute(params![id.0, commit.now_ms, state])?;
            exits::forgive(tx, *id)?;
            commit.counters.change_state(owner, rows::DEAD, state);
            commit.counters.backlog_change().add(share);
            commit.counters.dead_change().remove(share);
            let earlier = commit.ready.len();
            if is_first {
                commit.ready.extend(read::ready_one(tx, *id)?);
            }
            if portion.ends(*id, &commit.ready[earlier..], &mut bytes) {
                break;
            }
        }
        Ok(portion)
    }
}

fn owner_share_and_key(tx: &Connection, id: DeliveryId) -> rusqlite::Result<(Owner, Share, Option<String>)> {
    tx.prepare_cached(concat!(
        "SELECT function, replay, order_key, ",
        share_columns!(),
        " FROM deliveries WHERE id = ?1"
    ))?
    .query_row([id.0], |r| Ok((rows::owner(r, 0)?, rows::share(r, 3)?, r.get(2)?)))
}

/// Purges dead letters with an id greater than `after`, and unblocks the next deliveries of their order keys.
pub(crate) struct Purge {
    pub(crate) which: DeadFilter,
    pub(crate) after: DeliveryId,
}

impl Write for Purge {
    type Output = Portion;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Portion> {
        let tx = commit.tx;
        let ids = read::dead_ids(tx, &self.which, self.after, PORTION_MAX)?;
        let (mut portion, mut bytes) = (Portion::found(ids.iter().copied()), 0);
        for id in &ids {
            let earlier = commit.ready.len();
            if delivery::is_intact(tx, *id, &[rows::DEAD])? {
                portion.count += 1;
                purge(commit, *id)?;
            }
            if portion.ends(*id, &commit.ready[earlier..], &mut bytes) {
                break;
            }
        }
        Ok(portion)
    }
}

/// Purges an intact dead letter, and unblocks the next delivery of its order key.
fn purge(commit: &mut GroupCommit<'_>, id: DeliveryId) -> rusqlite::Result<()> {
    let (owner, share, order_key) = owner_share_and_key(commit.tx, id)?;
    commit
        .tx
        .prepare_cached(change_delivery!(
            "state = 5",
            "5, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us"
        ))?
        .execute([id.0])?;
    commit.counters.change_state(owner, rows::DEAD, rows::PURGED);
    commit.counters.dead_change().remove(share);
    match order_key {
        Some(key) => unblock_next(commit, owner, &key),
        None => Ok(()),
    }
}

/// Purges a dead letter and accepts an event in its place.
pub(crate) struct Replace {
    pub(crate) dead: DeliveryId,
    /// The event; `None` after the write was applied.
    pub(crate) event: Option<NewEvent>,
}

impl Write for Replace {
    /// The position of the event; `None` if the delivery is not a dead letter.
    type Output = Option<Seq>;

    fn size(&self) -> usize {
        self.event.as_ref().map_or(0, |new| new.event.size())
    }

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Option<Seq>> {
        if !delivery::is_intact(commit.tx, self.dead, &[rows::DEAD])? {
            return Ok(None);
        }
        let Some(event) = self.event.take() else { return Ok(None) };
        let accepted = insert_event(commit, event)?;
        purge(commit, self.dead)?;
        let (Accepted::New(seq) | Accepted::Duplicate(seq)) = accepted;
        Ok(Some(seq))
    }
}
