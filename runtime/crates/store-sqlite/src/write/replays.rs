//! The writes of replays.

use std::sync::Arc;

use rusqlite::params;

use super::deliveries::insert_delivery;
use super::{GroupCommit, PORTION_MAX, Portion, Write};
use crate::replays::column;
use crate::rows::delivery::{self, change_delivery};
use crate::rows::{self, Owner, share_columns};
use crate::schedule;
use evoke_model::{DeliveryId, NewReplay, Replay, ReplayId, ReplayState, Step};
use evoke_store::backlog::Share;

/// Starts a replay and returns its id.
pub(crate) struct Start {
    pub(crate) new: NewReplay,
}

impl Write for Start {
    type Output = ReplayId;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<ReplayId> {
        let Self { new } = self;
        let tx = commit.tx;
        let id = tx
            .prepare_cached(
                "INSERT INTO replays (filter, created_ms, state, position, until) VALUES (?1, ?2, 0, ?3, ?4)",
            )?
            .insert(params![new.filter, commit.now_ms, new.after.0, new.until.0])?;
        tx.prepare_cached(
            "UPDATE replays SET sum = sum_of(id, filter, created_ms, until) + sum_of(state, position, events) WHERE id = ?1",
        )?
        .execute([id])?;
        Ok(ReplayId(id))
    }
}

/// Moves a running replay to a later position, and adds the deliveries of the events up to this position. Returns false
/// if the replay did not move.
pub(crate) struct Advance {
    pub(crate) replay: ReplayId,
    pub(crate) step: Step,
}

impl Write for Advance {
    type Output = bool;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<bool> {
        let (tx, replay) = (commit.tx, self.replay);
        let Step { position, offers } = std::mem::take(&mut self.step);
        let advanced = tx
            .prepare_cached(
                "UPDATE replays SET position = ?2,
                   sum = sum - sum_of(state, position, events) + sum_of(state, ?2, events)
                 WHERE id = ?1 AND state = 0 AND position < ?2",
            )?
            .execute(params![replay.0, position.0])?;
        if advanced == 0 {
            return Ok(false);
        }
        let mut events = 0;
        for (event, deliveries) in offers {
            // Retention may have removed the event since the replay read it. A scheduled event is not replayed before
            // it is due.
            let there = tx.prepare_cached("SELECT 1 FROM events WHERE seq = ?1")?.exists([event.seq.0])?;
            if !there || schedule::contains(tx, event.seq)? {
                continue;
            }
            events += 1;
            for delivery in deliveries {
                insert_delivery(commit, replay, &event, delivery)?;
            }
        }
        tx.prepare_cached(
            "UPDATE replays SET events = events + ?2,
               sum = sum - sum_of(state, position, events) + sum_of(state, position, events + ?2) WHERE id = ?1",
        )?
        .execute(params![replay.0, events])?;
        Ok(true)
    }
}

/// Moves a replay from one of the states `from` to the state `to`. Returns false if the replay is in another state.
pub(crate) struct Transition {
    pub(crate) replay: ReplayId,
    pub(crate) from: &'static [ReplayState],
    pub(crate) to: ReplayState,
}

impl Write for Transition {
    type Output = bool;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<bool> {
        let Self { replay, from, to } = *self;
        let tx = commit.tx;
        let mut update = tx.prepare_cached(
            "UPDATE replays SET state = ?2,
               sum = sum - sum_of(state, position, events) + sum_of(?2, position, events) WHERE id = ?1 AND state = ?3",
        )?;
        for state in from {
            if update.execute(params![replay.0, column(to), column(*state)])? > 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Purges a replay's pending deliveries with an id greater than `after`. No delivery needs to be unblocked, because all
/// pending deliveries of an order key are purged.
pub(crate) struct PurgePending {
    pub(crate) replay: ReplayId,
    /// Deliveries that are running; they are not purged.
    pub(crate) except: Arc<[DeliveryId]>,
    pub(crate) after: DeliveryId,
}

impl Write for PurgePending {
    type Output = Portion;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Portion> {
        let (tx, replay) = (commit.tx, self.replay);
        let found: Vec<(DeliveryId, Owner, i64, Share)> = tx
            .prepare_cached(concat!(
                "SELECT id, function, replay, state, ",
                share_columns!(),
                " FROM deliveries WHERE replay = ?1 AND replay <> 0 AND state < 3 AND id > ?2 ORDER BY id LIMIT ?3",
            ))?
            .query_map(params![replay.0, self.after.0, PORTION_MAX as i64], |r| {
                Ok((DeliveryId(r.get(0)?), rows::owner(r, 1)?, r.get(3)?, rows::share(r, 4)?))
            })?
            .collect::<rusqlite::Result<_>>()?;
        let mut portion = Portion::found(found.iter().map(|(id, ..)| *id));
        for (id, owner, state, share) in found {
            if self.except.contains(&id) || owner.replay != replay || !delivery::is_intact(tx, id, &[state])? {
                continue;
            }
            commit.counters.take_recent(id);
            tx.prepare_cached(change_delivery!(
                "state = 5, due_ms = NULL, cause = ?2",
                "5, attempts, forgiven, since_ms, NULL, ?2, done_ms, done_us"
            ))?
            .execute(params![id.0, Replay::CANCELLED])?;
            commit.counters.change_state(owner, state, rows::PURGED);
            commit.counters.backlog_change().remove(share);
            portion.count += 1;
        }
        Ok(portion)
    }
}
