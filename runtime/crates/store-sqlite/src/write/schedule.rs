//! The writes of the schedule.

use std::sync::Arc;

use rusqlite::params;

use super::deliveries::{insert_released, insert_row};
use super::{GroupCommit, Write};
use crate::rows::{self, LIVE, Owner};
use crate::{read, schedule};
use evoke_model::clock::UnixMs;
use evoke_model::event::Event;
use evoke_model::{Lineage, NewDelivery, Seq, StoredEvent};
use evoke_store::backlog::Share;

pub(super) fn add(
    commit: &mut GroupCommit<'_>,
    seq: Seq,
    due_ms: UnixMs,
    event: &Event,
    lineage: Lineage,
) -> rusqlite::Result<()> {
    let share = Share::of(event, &lineage);
    let Share { origin, bytes, published } = share;
    commit
        .tx
        .prepare_cached(
            "INSERT INTO scheduled (seq, due_ms, origin, bytes, published, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, sum_of(?1, ?2, ?3, ?4, ?5))",
        )?
        .execute(params![seq.0, due_ms, origin.0, bytes, published])?;
    commit.counters.add_scheduled(share);
    commit.scheduled_ms = Some(commit.scheduled_ms.map_or(due_ms, |earliest| earliest.min(due_ms)));
    Ok(())
}

/// Removes events from the schedule and adds their deliveries.
pub(crate) struct Release {
    pub(crate) events: Vec<(Seq, Vec<NewDelivery>)>,
    /// If set, the deliveries are purged with this cause.
    pub(crate) cancel: Option<Arc<str>>,
}

impl Write for Release {
    /// The number of removed events.
    type Output = u64;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<u64> {
        let mut count = 0;
        for (seq, deliveries) in std::mem::take(&mut self.events) {
            count += u64::from(release(commit, seq, deliveries, self.cancel.as_deref())?);
        }
        Ok(count)
    }
}

/// Releases one event. Returns false, and changes nothing, if the event is not scheduled or if its rows are damaged.
fn release(
    commit: &mut GroupCommit<'_>,
    seq: Seq,
    deliveries: Vec<NewDelivery>,
    cancel: Option<&str>,
) -> rusqlite::Result<bool> {
    let tx = commit.tx;
    if !schedule::is_intact(tx, seq)? {
        return Ok(false);
    }
    let Some(Ok(event)) = read::event(tx, seq)? else { return Ok(false) };
    let first_delivery = commit.counters.last_delivery().next();
    rows::event::release(tx, seq, commit.now_ms, first_delivery, deliveries.len())?;
    tx.prepare_cached("DELETE FROM scheduled WHERE seq = ?1")?.execute([seq.0])?;
    commit.counters.remove_scheduled(Share::of(&event.event, &event.lineage));
    let event = Arc::new(event);
    for new in deliveries {
        match cancel {
            None => insert_released(commit, &event, new)?,
            Some(cause) => insert_purged(commit, &event, &new, cause)?,
        }
    }
    Ok(true)
}

/// Adds a live delivery that is already purged, so that it never runs.
fn insert_purged(
    commit: &mut GroupCommit<'_>,
    event: &StoredEvent,
    new: &NewDelivery,
    cause: &str,
) -> rusqlite::Result<()> {
    let share = Share::of(&event.event, &event.lineage);
    let owner = Owner { function: new.function, replay: LIVE };
    insert_row(commit, owner, event.seq, new, (rows::PURGED, Some(cause)), share)?;
    commit.counters.backlog_change().remove(share);
    Ok(())
}
