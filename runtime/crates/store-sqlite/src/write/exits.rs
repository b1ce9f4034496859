//! Increments the exit counts of the deliveries that were running when the process exited uncleanly.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{GroupCommit, Write};
use crate::rows;
use crate::{checksum, read};
use evoke_model::{DeliveryId, Mark};
use evoke_store::running::UncleanExit;

/// The mark that stores the number of the process whose exit was recorded last.
const SCOPE: &str = "/evoke/exits";
const KEY: &str = "run";

/// Records an unclean exit of the process once, and returns all exit counts.
pub(crate) struct RecordExit {
    pub(crate) exit: Option<UncleanExit>,
}

impl Write for RecordExit {
    type Output = BTreeMap<DeliveryId, u32>;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Self::Output> {
        let tx = commit.tx;
        if let Some(UncleanExit { run, attempts }) = &self.exit
            && !is_counted(tx, *run)?
        {
            for (id, attempt) in attempts {
                if read::is_next_attempt(tx, *id, *attempt)? {
                    count(tx, *id)?;
                }
            }
            let value = Some(run.to_le_bytes().to_vec());
            rows::put_mark(tx, &Mark { scope: SCOPE.into(), key: KEY.into(), value })?;
        }
        // Removes the counts of deliveries that are done or purged, or that retention removed.
        tx.execute(
            "DELETE FROM exits WHERE NOT EXISTS (
               SELECT 1 FROM deliveries d WHERE d.id = exits.delivery AND (d.state < 3 OR d.state = 4))",
            [],
        )?;
        let mut counts = BTreeMap::new();
        let mut all = tx.prepare(
            "SELECT e.delivery, e.count, e.sum, d.state = 4 FROM exits e JOIN deliveries d ON d.id = e.delivery",
        )?;
        let mut all = all.query([])?;
        while let Some(row) = all.next()? {
            let id = DeliveryId(row.get(0)?);
            match checksum::verify(row, 0, 2, || format!("the exit count of delivery {id}")) {
                // A dead letter runs again only after a redrive, and the redrive sets the count to 1 (`forgive`).
                Ok(()) => drop(counts.insert(id, if row.get(3)? { 1 } else { row.get(1)? })),
                Err(error) => {
                    let what = checksum::find_damage(&error).ok_or(error)?;
                    tracing::error!("{} is damaged: {what}; the count is ignored", tx.path().unwrap_or_default());
                }
            }
        }
        Ok(counts)
    }
}

/// Returns true if the exit that was recorded last is the exit of the process with the number `run`. If the mark is
/// damaged, returns false, so an exit may be counted twice. Then a delivery becomes a dead letter too early, and an
/// operator can redrive it.
fn is_counted(tx: &Connection, run: u64) -> rusqlite::Result<bool> {
    match read::marks(tx, SCOPE) {
        Ok(marks) => Ok(marks.get(KEY).is_some_and(|value| *value == run.to_le_bytes())),
        Err(error) => checksum::find_damage(&error).map(|_| false).ok_or(error),
    }
}

fn count(tx: &Connection, id: DeliveryId) -> rusqlite::Result<()> {
    let before = tx
        .query_row("SELECT count FROM exits WHERE delivery = ?1", [id.0], |r| r.get::<_, i64>(0))
        .optional()?
        .unwrap_or_default();
    tx.execute(
        "INSERT OR REPLACE INTO exits (delivery, count, sum) VALUES (?1, ?2, sum_of(?1, ?2))",
        params![id.0, before + 1],
    )?;
    Ok(())
}

/// Sets the exit count of a redriven delivery to 1. So the delivery runs alone, and becomes a dead letter if the
/// process ends again while it runs.
pub(super) fn forgive(tx: &Connection, id: DeliveryId) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE exits SET count = 1, sum = sum_of(delivery, 1) WHERE delivery = ?1 AND count > 1")?
        .execute([id.0])?;
    Ok(())
}
