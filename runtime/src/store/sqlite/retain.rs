//! Retention: removes what is over, the oldest first, in portions that other writes hardly feel.
//!
//! Events that may go are looked for by a reader; the writer looks again and removes them. Space that becomes free is
//! used again; when much of the file is free, its end is given back to the file system. A store that was made by
//! version 1 can only use its space again.

use std::sync::Arc;

use rusqlite::{Connection, params};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::dedup::Dedup;
use super::queue::Write;
use super::totals::{Counters, Owner};
use super::{Readers, read, rows, send};
use crate::clock::UnixMs;
use crate::store::{DeliveryId, Result, Seq, StoredEvent};

/// Events that one write removes: a millisecond or two of work, as their pages are anywhere in the file.
const EVENTS_MAX: usize = 32;
/// Their deliveries, when they have many.
const DELIVERIES_MAX: i64 = 256;
/// Their data: its pages are freed one by one.
const BYTES_MAX: i64 = 4 * 1024 * 1024;
/// Events that one search looks at: it may find nothing but events that have to stay.
const SEARCH_MAX: i64 = 2048;
/// Ids that one write forgets.
const FORGET_MAX: usize = 512;
/// Pages that one write gives back, each of which may have to be moved.
const PAGES_MAX: i64 = 128;
/// A file this much of which is free is made smaller, until the second is left for what comes.
const FREE: (f64, f64) = (0.25, 0.1);
/// Less is not worth it: 4 MiB.
const FREE_PAGES_MIN: i64 = 1024;

/// Removes what may go, and puts the file in order; answers how many events went.
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
            let asked = Instant::now();
            count += ask(&writes, |reply| Write::Remove { events: found.events, reply }).await?;
            if !found.urgent {
                // As long again is for others alone.
                tokio::time::sleep(asked.elapsed()).await;
            }
        }
    }
    let mut tidied = Tidied { more: true, shrinks: false };
    while tidied.more {
        let shrinking = tidied.shrinks;
        tidied = ask(&writes, |reply| Write::Tidy { shrinking, reply }).await?;
        if shrinking && !tidied.shrinks {
            ask(&writes, |reply| Write::Checkpoint { reply }).await?;
        }
    }
    Ok(count)
}

async fn ask<T>(writes: &mpsc::Sender<Write>, make: impl FnOnce(oneshot::Sender<Result<T>>) -> Write) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    send(writes.clone(), make(reply), answer).await
}

/// What may go, as far as one search came.
pub(super) struct Found {
    pub(super) events: Vec<Seq>,
    /// Where the next search starts; `None` when everything was looked at.
    pub(super) next_after: Option<Seq>,
    /// The store is larger than it may be by more than a tenth.
    pub(super) urgent: bool,
}

/// Looks for events behind `after` that may go: accepted before `before_ms`, or any as long as the store is larger
/// than `bytes_max`.
pub(super) fn find(c: &Connection, after: Seq, before_ms: UnixMs, bytes_max: u64) -> rusqlite::Result<Found> {
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
    let mut found = Found { events: Vec::new(), next_after: None, urgent };
    let (mut looked_at, mut deliveries, mut bytes, mut last) = (0, 0, 0, after);
    while let Some(row) = rows.next()? {
        let (seq, owed, size): (Seq, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (old, stays): (bool, bool) = (row.get(3)?, row.get(4)?);
        if !old && bytes >= excess {
            // How much space became free is seen when they are removed.
            found.next_after = (excess > 0 && !found.events.is_empty()).then_some(last);
            return Ok(found);
        }
        (looked_at, last) = (looked_at + 1, seq);
        if !stays {
            found.events.push(seq);
            (deliveries, bytes) = (deliveries + owed, bytes + size);
        }
        if found.events.len() >= EVENTS_MAX || deliveries >= DELIVERIES_MAX || bytes >= BYTES_MAX {
            found.next_after = Some(last);
            return Ok(found);
        }
    }
    if looked_at == SEARCH_MAX {
        found.next_after = Some(last);
    }
    Ok(found)
}

/// Removes those of these events that may go still; answers how many.
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
    // What is damaged may not be over, whatever it says; it stays, for `check` to name.
    for (id, event, ..) in &deliveries {
        if *event != seq || !rows::is_sound(tx, *id, &[rows::DONE, rows::PURGED])? {
            return Ok(false);
        }
    }
    let event = read::event(tx, seq)?;
    let Some(StoredEvent { event, accepted_ms, damage: None, .. }) = event else { return Ok(false) };
    for (delivery, _, owner, state) in deliveries {
        tx.prepare_cached("DELETE FROM attempts WHERE delivery = ?1")?.execute([delivery])?;
        tx.prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute([delivery])?;
        counters.removed_delivery(owner, state);
    }
    tx.prepare_cached("DELETE FROM events WHERE seq = ?1")?.execute([seq])?;
    counters.removed_event(seq);
    dedup.keep(tx, seq, (&event.id, &event.source), accepted_ms, now_ms)?;
    Ok(true)
}

/// Forgets ids whose dedup window is over, and gives back space; answers whether there is more to do.
pub(super) fn tidy(tx: &Connection, dedup: &mut Dedup, now_ms: UnixMs, shrinking: bool) -> rusqlite::Result<Tidied> {
    let forgotten = dedup.forget(tx, FORGET_MAX, now_ms)?;
    let shrinks = shrink(tx, shrinking)?;
    Ok(Tidied { more: forgotten == FORGET_MAX || shrinks, shrinks })
}

#[derive(Default)]
pub(super) struct Tidied {
    pub(super) more: bool,
    /// It is making the file smaller.
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
