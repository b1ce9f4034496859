//! The writes of the schedule.

use std::sync::Arc;

use rusqlite::params;

use super::deliveries::insert_delivery;
use super::{GroupCommit, Write};
use crate::rows::delivery;
use crate::rows::{self, LIVE, Owner};
use crate::{read, schedule};
use evoke_model::clock::UnixMs;
use evoke_model::event::Event;
use evoke_model::{Lineage, NewDelivery, Seq, StoredEvent};
use evoke_store::backlog::Share;

/// Adds a new event to the schedule.
pub(super) fn add(
    commit: &mut GroupCommit<'_>,
    seq: Seq,
    due_ms: UnixMs,
    event: &Event,
    lineage: Lineage,
) -> rusqlite::Result<()> {
    let share = share(event, lineage);
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

fn share(event: &Event, lineage: Lineage) -> Share {
    let bytes = i64::try_from(event.size()).unwrap_or(i64::MAX);
    Share { origin: lineage.origin, bytes, published: lineage.cause.is_some() }
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

/// Returns false if the event is not scheduled, or if its rows are damaged: then they stay as they are.
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
    commit.counters.remove_scheduled(share(&event.event, event.lineage));
    let event = Arc::new(event);
    for new in deliveries {
        match cancel {
            None => insert_delivery(commit, LIVE, &event, new)?,
            Some(cause) => insert_purged(commit, &event, &new, cause)?,
        }
    }
    Ok(true)
}

/// Adds a live delivery that never runs.
fn insert_purged(
    commit: &mut GroupCommit<'_>,
    event: &StoredEvent,
    new: &NewDelivery,
    cause: &str,
) -> rusqlite::Result<()> {
    let (since_ms, share) = (commit.now_ms, share(&event.event, event.lineage));
    let NewDelivery { function, trigger, order_key } = new;
    let owner = Owner { function: *function, replay: LIVE };
    let id = commit.counters.add_delivery(owner, rows::PURGED, share);
    commit.counters.backlog_change().remove(share);
    let sum = delivery::fixed_sum(id, event.seq, owner, trigger, order_key.as_deref(), share)
        + delivery::mutable_sum(rows::PURGED, 0, since_ms, None, Some(cause), None);
    commit
        .tx
        .prepare_cached(
            "INSERT INTO deliveries (id, event, function, trigger, order_key, state, since_ms, cause, origin, bytes, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            id.0,
            event.seq.0,
            function.0,
            &**trigger,
            order_key,
            rows::PURGED,
            since_ms,
            cause,
            share.origin.0,
            share.bytes,
            sum
        ])?;
    Ok(())
}
