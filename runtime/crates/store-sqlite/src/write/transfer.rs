//! An operator's write that moves pending deliveries to another function.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::deliveries::{is_first, unblock_next};
use super::{GroupCommit, Write};
use crate::read;
use crate::rows::delivery::{self, change_delivery};
use crate::rows::{self, LIVE, Owner};
use evoke_model::{DeliveryId, FunctionId};

const PENDING: [i64; 3] = [rows::READY, rows::RETRYING, rows::BLOCKED];

/// Moves each of these deliveries if it is pending and live. A delivery is not moved if the other function has a later
/// unfinished delivery with the same order key, because that delivery may already be running.
pub(crate) struct Transfer {
    /// In ascending order.
    pub(crate) ids: Vec<DeliveryId>,
    pub(crate) to: FunctionId,
}

impl Write for Transfer {
    /// The number of moved deliveries.
    type Output = u64;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<u64> {
        let (tx, mut count, mut left) = (commit.tx, 0, BTreeSet::new());
        let to = Owner { function: self.to, replay: LIVE };
        for id in &self.ids {
            if !delivery::is_intact(tx, *id, &PENDING)? {
                continue;
            }
            let found: Option<(Owner, Option<String>, i64)> = tx
                .prepare_cached("SELECT function, replay, order_key, state FROM deliveries WHERE id = ?1")?
                .query_row([id.0], |r| Ok((rows::owner(r, 0)?, r.get(2)?, r.get(3)?)))
                .optional()?;
            let Some((from, key, state)) = found else { continue };
            if from.replay != LIVE || from.function == to.function {
                continue;
            }
            if let Some(key) = &key
                && has_later(tx, to, key, *id)?
            {
                continue;
            }
            tx.prepare_cached(
                "UPDATE deliveries SET function = ?2,
                   sum = sum - sum_of(id, event, function, trigger, order_key, origin, bytes, replay)
                     + sum_of(id, event, ?2, trigger, order_key, origin, bytes, replay)
                 WHERE id = ?1",
            )?
            .execute(params![id.0, to.function.0])?;
            let is_first = is_first(tx, to, key.as_deref(), *id)?;
            let new_state = match (is_first, state) {
                (false, _) => rows::BLOCKED,
                (true, rows::RETRYING) => rows::RETRYING,
                (true, _) => rows::READY,
            };
            if new_state != state {
                tx.prepare_cached(change_delivery!(
                    "state = ?2, due_ms = NULL",
                    "?2, attempts, forgiven, since_ms, NULL, cause, done_ms, done_us"
                ))?
                .execute(params![id.0, new_state])?;
            }
            commit.counters.take_recent(*id);
            commit.counters.move_delivery((from, state), (to, new_state));
            left.extend(key.map(|key| (from.function, key)));
            if new_state == rows::READY {
                commit.ready.extend(read::ready_one(tx, *id)?);
            }
            count += 1;
        }
        for (function, key) in left {
            unblock_next(commit, Owner { function, replay: LIVE }, &key)?;
        }
        Ok(count)
    }
}

/// Returns true if a later delivery of the order key is unfinished.
fn has_later(tx: &Connection, owner: Owner, key: &str, id: DeliveryId) -> rusqlite::Result<bool> {
    tx.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM deliveries WHERE function = ?1 AND order_key = ?2 AND replay = ?3
           AND order_key IS NOT NULL AND (state < 3 OR state = 4) AND id > ?4)",
    )?
    .query_row(params![owner.function.0, key, owner.replay.0, id.0], |r| r.get(0))
}
