//! An operator's write that cancels pending deliveries.

use rusqlite::params;

use super::{GroupCommit, Write};
use crate::rows::delivery::{self, change_delivery};
use crate::rows::{self, share_columns};
use evoke_model::DeliveryId;

const PENDING: [i64; 3] = [rows::READY, rows::RETRYING, rows::BLOCKED];

/// Makes each of these deliveries a dead letter if it is pending.
pub(crate) struct Cancel {
    pub(crate) ids: Vec<DeliveryId>,
    pub(crate) cause: String,
}

impl Write for Cancel {
    /// The number of cancelled deliveries.
    type Output = u64;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<u64> {
        let (tx, mut count) = (commit.tx, 0);
        for id in &self.ids {
            if !delivery::is_intact(tx, *id, &PENDING)? {
                continue;
            }
            count += 1;
            let (owner, share, state) = tx
                .prepare_cached(concat!(
                    "SELECT function, replay, state, ",
                    share_columns!(),
                    " FROM deliveries WHERE id = ?1"
                ))?
                .query_row([id.0], |r| Ok((rows::owner(r, 0)?, rows::share(r, 3)?, r.get(2)?)))?;
            tx.prepare_cached(change_delivery!(
                "state = 4, due_ms = NULL, cause = ?2",
                "4, attempts, forgiven, since_ms, NULL, ?2, done_ms, done_us"
            ))?
            .execute(params![id.0, self.cause])?;
            commit.counters.take_recent(*id);
            commit.counters.change_state(owner, state, rows::DEAD);
            commit.counters.backlog_change().remove(share);
            commit.counters.dead_change().add(share);
            commit.cancelled.push((owner.function, *id));
        }
        Ok(count)
    }
}
