//! An operator's write that makes deliveries ready before their retry is due.

use rusqlite::OptionalExtension;

use super::{GroupCommit, Write};
use crate::read;
use crate::rows::delivery::{self, change_delivery};
use crate::rows::{self, Owner};
use evoke_model::DeliveryId;
use evoke_model::clock::UnixMs;

/// Makes each of these deliveries ready if it waits for a retry that is not due yet. A delivery whose retry is due is
/// not changed, because the retry may already be running.
pub(crate) struct RetryNow {
    pub(crate) ids: Vec<DeliveryId>,
}

impl Write for RetryNow {
    /// The number of changed deliveries.
    type Output = u64;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<u64> {
        let (tx, mut count) = (commit.tx, 0);
        for id in &self.ids {
            if !delivery::is_intact(tx, *id, &[rows::RETRYING])? {
                continue;
            }
            let waiting: Option<(Owner, Option<UnixMs>)> = tx
                .prepare_cached("SELECT function, replay, due_ms FROM deliveries WHERE id = ?1")?
                .query_row([id.0], |r| Ok((rows::owner(r, 0)?, r.get(2)?)))
                .optional()?;
            let Some((owner, Some(due_ms))) = waiting else { continue };
            if due_ms <= commit.now_ms {
                continue;
            }
            tx.prepare_cached(change_delivery!(
                "state = 0, due_ms = NULL",
                "0, attempts, forgiven, since_ms, NULL, cause, done_ms, done_us"
            ))?
            .execute([id.0])?;
            commit.counters.change_state(owner, rows::RETRYING, rows::READY);
            commit.ready.extend(read::ready_one(tx, *id)?);
            count += 1;
        }
        Ok(count)
    }
}
