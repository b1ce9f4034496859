//! Retention: removes finished events, oldest first. Each write removes only a small portion, so that other writes do
//! not wait long.
//!
//! A reader searches for removable events; the writer checks them again and removes them. Freed pages are reused. When
//! a large part of the file is free, the file is truncated. The file of a store that was created with schema version 1
//! cannot be truncated: its free pages are only reused.

use std::sync::Arc;

use rusqlite::{Connection, params};
use tokio::time::Instant;

use super::queue::WriteQueue;
use super::readers::{Reader, Readers};
use super::space::{Space, space};
use super::write::retain::{Checkpoint, Maintain, Maintained, Remove};
use evoke_model::Seq;
use evoke_model::clock::UnixMs;
use evoke_store::Result;

/// Maximum number of events that one write removes. This takes one or two milliseconds, because the pages of these
/// events are scattered over the file.
const EVENTS_MAX: usize = 32;
/// A write gets no further events to remove once its events have at least this many live deliveries in total.
const DELIVERIES_MAX: i64 = 256;
/// A write gets no further events to remove once the data of its events has at least this many bytes in total,
/// because SQLite frees the pages of the data one by one.
const BYTES_MAX: i64 = 4 * 1024 * 1024;
/// Maximum number of events that one search reads. Without this limit, a search could read all events, because
/// possibly none of them is removable.
const SEARCH_MAX: i64 = 2048;

/// Removes all removable events and truncates the file. Returns the number of removed events.
pub(super) async fn sweep(writes: WriteQueue, readers: Arc<Readers>, before_ms: UnixMs, bytes_max: u64) -> Result<u64> {
    let (mut count, mut next_after) = (0, Some(Seq(0)));
    while let Some(after) = next_after {
        let found =
            Readers::run(readers.clone(), Reader::Runtime, move |c| find(c, after, before_ms, bytes_max)).await?;
        next_after = found.next_after;
        if !found.events.is_empty() {
            let started = Instant::now();
            count += writes.submit(Remove { events: found.events }).await?;
            if !found.urgent {
                // Wait as long as the write took, so that the writer has time for other callers.
                tokio::time::sleep(started.elapsed()).await;
            }
        }
    }
    let mut maintained = Maintained { more: true, shrinks: false };
    while maintained.more {
        let shrinking = maintained.shrinks;
        maintained = writes.submit(Maintain { shrinking }).await?;
        if shrinking && !maintained.shrinks {
            writes.submit(Checkpoint).await?;
        }
    }
    Ok(count)
}

/// The removable events found by one search.
struct Candidates {
    events: Vec<Seq>,
    /// The position after which the next search starts; `None` after the last search.
    next_after: Option<Seq>,
    /// True if the store exceeds its size limit by more than 10 %.
    urgent: bool,
}

/// Searches for removable events after position `after`. A finished event is removable if it was accepted before
/// `before_ms`; an event that was scheduled must also have been released before `before_ms`. While the store is larger
/// than `bytes_max`, all finished events are removable.
fn find(c: &Connection, after: Seq, before_ms: UnixMs, bytes_max: u64) -> rusqlite::Result<Candidates> {
    let Space { pages, free, page_size } = space(c)?;
    let used = u64::try_from((pages - free) * page_size).unwrap_or_default();
    let excess = i64::try_from(used.saturating_sub(bytes_max)).unwrap_or(i64::MAX);
    let mut rows = c.prepare_cached(
        "SELECT e.seq, e.owed, ifnull(length(e.data), 0), e.accepted_ms < ?2, EXISTS (
           SELECT 1 FROM deliveries d
           WHERE d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed AND d.state NOT IN (3, 5))
           OR EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.seq AND d.replay <> 0 AND d.state NOT IN (3, 5))
           OR EXISTS (SELECT 1 FROM scheduled s WHERE s.seq = e.seq) OR (?4 AND ifnull(e.released_ms >= ?2, 0))
         FROM events e WHERE e.seq > ?1 ORDER BY e.seq LIMIT ?3",
    )?;
    let mut rows = rows.query(params![after.0, before_ms, SEARCH_MAX, excess == 0])?;
    let urgent = used.saturating_sub(bytes_max) > bytes_max / 10;
    let mut found = Candidates { events: Vec::new(), next_after: None, urgent };
    let (mut rows_read, mut deliveries, mut bytes, mut last) = (0, 0, 0, after);
    while let Some(row) = rows.next()? {
        let (seq, owed, size): (_, i64, i64) = (Seq(row.get(0)?), row.get(1)?, row.get(2)?);
        let (old, stays): (bool, bool) = (row.get(3)?, row.get(4)?);
        if !old && bytes >= excess {
            // The freed space is known only after the removal, so another search follows.
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
