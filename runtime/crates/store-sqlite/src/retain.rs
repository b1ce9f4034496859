//! Retention: removes finished events, oldest first, in portions small enough not to delay other writes.
//!
//! A reader searches for removable events; the writer checks them again and removes them. Freed pages are reused. When
//! a large part of the file is free, the file is truncated. Stores created by version 1 do not support that and can
//! only reuse their pages.

use std::sync::Arc;

use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::dedup::Dedup;
use super::queue::Write;
use super::rows::{Owner, delivery};
use super::totals::Counters;
use super::{Readers, read, rows, send};
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, Seq, StoredEvent};
use evoke_store::Result;

/// Events removed per write: one or two milliseconds of work, because their pages are scattered over the file.
const EVENTS_MAX: usize = 32;
/// Deliveries removed per write, for events with many of them.
const DELIVERIES_MAX: i64 = 256;
/// Event data removed per write, in bytes: SQLite frees its pages one by one.
const BYTES_MAX: i64 = 4 * 1024 * 1024;
/// Events read per search, because none of them may be removable.
const SEARCH_MAX: i64 = 2048;
/// Ids deleted per write.
const FORGET_MAX: usize = 512;
/// Pages truncated per write; each may have to be moved first.
const PAGES_MAX: i64 = 128;
/// The file is truncated when more than the first fraction of it is free, until only the second fraction is.
const FREE: (f64, f64) = (0.25, 0.1);
/// Minimum number of free pages for a truncation: 4 MiB.
const FREE_PAGES_MIN: i64 = 1024;

/// Removes all removable events and truncates the file. Returns the number of removed events.
pub(super) async fn sweep(
    writes: mpsc::Sender<Write>,
    readers: Arc<Readers>,
    before_ms: UnixMs,
    bytes_max: u64,
) -> Result<u64> {
    let (mut count, mut next_after) = (0, Some(0));
    while let Some(after) = next_after {
        let found = Readers::run(readers.clone(), move |c| find(c, after, before_ms, bytes_max)).await?;
        next_after = found.next_after;
        if !found.events.is_empty() {
            let started = Instant::now();
            count += submit(&writes, |reply| Write::Remove { events: found.events, reply }).await?;
            if !found.urgent {
                // Pause as long as the write took, to leave the writer to other callers.
                tokio::time::sleep(started.elapsed()).await;
            }
        }
    }
    let mut maintained = Maintained { more: true, shrinks: false };
    while maintained.more {
        let shrinking = maintained.shrinks;
        maintained = submit(&writes, |reply| Write::Maintain { shrinking, reply }).await?;
        if shrinking && !maintained.shrinks {
            submit(&writes, |reply| Write::Checkpoint { reply }).await?;
        }
    }
    Ok(count)
}

async fn submit<T>(writes: &mpsc::Sender<Write>, make: impl FnOnce(oneshot::Sender<Result<T>>) -> Write) -> Result<T> {
    let (reply, result) = oneshot::channel();
    send(writes.clone(), make(reply), result).await
}

/// The removable events found by one search.
pub(super) struct Candidates {
    pub(super) events: Vec<Seq>,
    /// Start of the next search; `None` after the last one.
    pub(super) next_after: Option<Seq>,
    /// True if the store exceeds its size limit by more than 10 %.
    pub(super) urgent: bool,
}

/// Searches for removable events after position `after`: events accepted before `before_ms`, and while the store is
/// larger than `bytes_max`, any finished events.
pub(super) fn find(c: &Connection, after: Seq, before_ms: UnixMs, bytes_max: u64) -> rusqlite::Result<Candidates> {
    let Space { pages, free, page_size } = space(c)?;
    let used = u64::try_from((pages - free) * page_size).unwrap_or_default();
    let excess = i64::try_from(used.saturating_sub(bytes_max)).unwrap_or(i64::MAX);
    let mut rows = c.prepare_cached(
        "SELECT e.seq, e.owed, ifnull(length(e.data), 0), e.accepted_ms < ?2, EXISTS (
           SELECT 1 FROM deliveries d
           WHERE d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed AND d.state NOT IN (3, 5))
           OR EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.seq AND d.replay <> 0 AND d.state NOT IN (3, 5))
         FROM events e WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?3",
    )?;
    let mut rows = rows.query(params![after, before_ms, SEARCH_MAX])?;
    let urgent = used.saturating_sub(bytes_max) > bytes_max / 10;
    let mut found = Candidates { events: Vec::new(), next_after: None, urgent };
    let (mut rows_read, mut deliveries, mut bytes, mut last) = (0, 0, 0, after);
    while let Some(row) = rows.next()? {
        let (seq, owed, size): (Seq, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (old, stays): (bool, bool) = (row.get(3)?, row.get(4)?);
        if !old && bytes >= excess {
            // The freed space is known only after the removal: search again after it.
            found.next_after = (excess > 0 && !found.events.is_empty()).then_some(last);
            return Ok(found);
        }
        (rows_read, last) = (rows_read + 1, seq);
        if !stays {
            found.events.push(seq);
            (deliveries, bytes) = (deliveries + owed, bytes + size);
        }
        if found.events.len() >= EVENTS_MAX || deliveries >= DELIVERIES_MAX || bytes >= BYTES_MAX {
            found.next_after = Some(last);
            return Ok(found);
        }
    }
    if rows_read == SEARCH_MAX {
        found.next_after = Some(last);
    }
    Ok(found)
}

/// Removes those of the events that are still removable. Returns the number of removed events.
pub(super) fn remove(
    tx: &Connection,
    dedup: &mut Dedup,
    counters: &mut Counters,
    now_ms: UnixMs,
    events: &[Seq],
) -> rusqlite::Result<u64> {
    let mut removed = 0;
    for seq in events {
        removed += u64::from(remove_one(tx, dedup, counters, now_ms, *seq)?);
    }
    Ok(removed)
}

fn remove_one(
    tx: &Connection,
    dedup: &mut Dedup,
    counters: &mut Counters,
    now_ms: UnixMs,
    seq: Seq,
) -> rusqlite::Result<bool> {
    let deliveries: Vec<(DeliveryId, Seq, Owner, i64)> = tx
        .prepare_cached(
            "SELECT d.id, d.event, d.function, d.replay, d.state FROM events e
             JOIN deliveries d ON d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed WHERE e.seq = ?1
             UNION ALL SELECT id, event, function, replay, state FROM deliveries WHERE event = ?1 AND replay <> 0",
        )?
        .query_map([seq], |r| Ok((r.get(0)?, r.get(1)?, rows::owner(r, 2)?, r.get(4)?)))?
        .collect::<rusqlite::Result<_>>()?;
    // A damaged delivery may be unfinished, whatever its row contains. Keep it; `check` reports it.
    for (id, event, ..) in &deliveries {
        if *event != seq || !delivery::is_intact(tx, *id, &[rows::DONE, rows::PURGED])? {
            return Ok(false);
        }
    }
    let event = read::event(tx, seq)?;
    let Some(StoredEvent { event, accepted_ms, damage: None, .. }) = event else { return Ok(false) };
    for (delivery, _, owner, state) in deliveries {
        tx.prepare_cached("DELETE FROM attempts WHERE delivery = ?1")?.execute([delivery])?;
        tx.prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute([delivery])?;
        counters.remove_delivery(owner, state);
    }
    tx.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([seq])?;
    counters.remove_event(seq);
    dedup.remember(tx, seq, (&event.id, &event.source), accepted_ms, now_ms)?;
    Ok(true)
}

/// Deletes ids whose dedup window has ended, and truncates the file. The result reports whether more work is left.
pub(super) fn maintain(
    tx: &Connection,
    dedup: &mut Dedup,
    now_ms: UnixMs,
    shrinking: bool,
) -> rusqlite::Result<Maintained> {
    let forgotten = dedup.forget(tx, FORGET_MAX, now_ms)?;
    let shrinks = shrink(tx, shrinking)?;
    Ok(Maintained { more: forgotten == FORGET_MAX || shrinks, shrinks })
}

#[derive(Default)]
pub(super) struct Maintained {
    pub(super) more: bool,
    /// True while the file is being truncated.
    pub(super) shrinks: bool,
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

struct Space {
    pages: i64,
    free: i64,
    page_size: i64,
}

fn space(c: &Connection) -> rusqlite::Result<Space> {
    let pragma = |name: &str| c.query_row(&format!("PRAGMA {name}"), [], |r| r.get(0));
    Ok(Space { pages: pragma("page_count")?, free: pragma("freelist_count")?, page_size: pragma("page_size")? })
}
