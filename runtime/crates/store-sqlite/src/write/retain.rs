//! The writes of retention.

use rusqlite::Connection;

use super::{GroupCommit, Write};
use crate::rows::{self, Owner, delivery};
use crate::schedule;
use crate::space::{Space, space};
use crate::{read, recordings};
use evoke_model::{DeliveryId, Seq};

/// Maximum number of ids that one write deletes from the table `known`.
const FORGET_MAX: usize = 512;
/// Maximum number of pages that one write cuts off the end of the file. SQLite may have to move each of them first.
const PAGES_MAX: i64 = 128;
/// When more than the first fraction of the file is free, the file is truncated until only the second fraction is free.
const FREE: (f64, f64) = (0.25, 0.1);
/// The file is not truncated if fewer pages than this are free: 4 MiB.
const FREE_PAGES_MIN: i64 = 1024;

/// Removes these events, except for those that are no longer removable. Returns the number of removed events.
pub(crate) struct Remove {
    pub(crate) events: Vec<Seq>,
}

impl Write for Remove {
    type Output = u64;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<u64> {
        let mut removed = 0;
        for seq in &self.events {
            removed += u64::from(remove(commit, *seq)?);
        }
        Ok(removed)
    }
}

/// Removes an event with its deliveries. Returns false if the event must stay.
fn remove(commit: &mut GroupCommit<'_>, seq: Seq) -> rusqlite::Result<bool> {
    let tx = commit.tx;
    let deliveries: Vec<(DeliveryId, Seq, Owner, i64)> = tx
        .prepare_cached(
            "SELECT d.id, d.event, d.function, d.replay, d.state FROM events e
             JOIN deliveries d ON d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed WHERE e.seq = ?1
             UNION ALL SELECT id, event, function, replay, state FROM deliveries WHERE event = ?1 AND replay <> 0",
        )?
        .query_map([seq.0], |r| Ok((DeliveryId(r.get(0)?), Seq(r.get(1)?), rows::owner(r, 2)?, r.get(4)?)))?
        .collect::<rusqlite::Result<_>>()?;
    // A damaged delivery may be unfinished, also if its row says that it is done. So the event stays, and `evoke check`
    // reports the delivery.
    for (id, event, ..) in &deliveries {
        if *event != seq || !delivery::is_intact(tx, *id, &[rows::DONE, rows::PURGED])? {
            return Ok(false);
        }
    }
    let event = read::event(tx, seq)?;
    let Some(Ok(event)) = event else { return Ok(false) };
    if schedule::contains(tx, seq)? {
        return Ok(false);
    }
    let begin_ms = tx
        .prepare_cached("SELECT ifnull(released_ms, accepted_ms) FROM events WHERE seq = ?1")?
        .query_row([seq.0], |r| r.get(0))?;
    for (delivery, _, owner, state) in deliveries {
        tx.prepare_cached("DELETE FROM attempts WHERE delivery = ?1")?.execute([delivery.0])?;
        tx.prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute([delivery.0])?;
        recordings::remove(tx, delivery)?;
        commit.counters.remove_delivery(owner, state);
    }
    tx.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([seq.0])?;
    commit.counters.remove_event(seq);
    commit.dedup.remember(tx, &event, begin_ms, commit.now_ms)?;
    Ok(true)
}

/// Deletes ids whose dedup window has ended and recordings that have reached their maximum age, and truncates the file.
pub(crate) struct Maintain {
    /// True if the previous write truncated the file.
    pub(crate) shrinking: bool,
}

/// Reports whether there is more work for [`Maintain`].
pub(crate) struct Maintained {
    pub(crate) more: bool,
    /// True while the file is being truncated.
    pub(crate) shrinks: bool,
}

impl Write for Maintain {
    type Output = Maintained;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Maintained> {
        let forgotten = commit.dedup.forget(commit.tx, FORGET_MAX, commit.now_ms)?;
        let expired = recordings::remove_expired(commit.tx, commit.now_ms)?;
        let shrinks = shrink(commit.tx, self.shrinking)?;
        Ok(Maintained { more: forgotten == FORGET_MAX || expired || shrinks, shrinks })
    }
}

fn shrink(tx: &Connection, shrinking: bool) -> rusqlite::Result<bool> {
    const INCREMENTAL: i64 = 2;
    let Space { pages, free, .. } = space(tx)?;
    let part = if shrinking { FREE.1 } else { FREE.0 };
    let mode: i64 = tx.query_row("PRAGMA auto_vacuum", [], |r| r.get(0))?;
    if mode != INCREMENTAL || free < FREE_PAGES_MIN || (free as f64) < part * pages as f64 {
        return Ok(false);
    }
    let mut vacuum = tx.prepare(&format!("PRAGMA incremental_vacuum({PAGES_MAX})"))?;
    let mut steps = vacuum.query([])?;
    while steps.next()?.is_some() {}
    Ok(true)
}

/// Requests a checkpoint. The checkpoint copies the log into the database file; only then is the file truncated.
pub(crate) struct Checkpoint;

impl Write for Checkpoint {
    type Output = ();

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<()> {
        commit.checkpoint = true;
        Ok(())
    }
}
