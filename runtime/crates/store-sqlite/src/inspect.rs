//! Queries for an operator that read no event data: dead letters without their attempts, and the delivery for which a
//! blocked delivery waits.

use rusqlite::{Connection, OptionalExtension, Row};

use super::in_order::{self, DEAD, End, Range};
use super::rows;
use super::rows::delivery::COLUMNS as DELIVERY_COLUMNS;
use evoke_model::clock::UnixMs;
use evoke_model::{DamagedDelivery, DeadFilter, DeadSummary, DeliveryId, DeliveryState, Seq};

/// Returns the position that divides the events by this store time: the events before it were accepted earlier, and
/// the events from it on at this time or later. Retention leaves gaps between positions, so there may be no event at
/// the position itself.
pub(super) fn first_since(c: &Connection, since_ms: UnixMs) -> rusqlite::Result<Seq> {
    let newest: i64 = c.query_row("SELECT ifnull(MAX(seq), 0) FROM events", [], |r| r.get(0))?;
    let mut next =
        c.prepare_cached("SELECT seq, accepted_ms FROM events WHERE seq >= ?1 AND seq < ?2 ORDER BY seq LIMIT 1")?;
    let (mut low, mut high) = (1, newest + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let found = next.query_row([middle, high], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, UnixMs>(1)?))).optional()?;
        match found {
            Some((seq, accepted_ms)) if accepted_ms < since_ms => low = seq + 1,
            _ => high = middle,
        }
    }
    Ok(Seq(low))
}

/// Returns the `limit` newest dead letters with an id below `before`, newest first.
pub(super) fn newest_dead(
    c: &Connection,
    which: &DeadFilter,
    before: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<Result<DeadSummary, DamagedDelivery>>> {
    let range = Range { after: DeliveryId(0), before };
    let ids = dead_ids(c, which, range, End::Newest, limit)?;
    let mut one = c.prepare_cached(&format!(
        "SELECT {DELIVERY_COLUMNS}, f.id, f.name, f.sum,
           (SELECT MAX(a.started_ms + a.duration_us / 1000) FROM attempts a WHERE a.delivery = d.id)
         FROM deliveries d LEFT JOIN functions f ON f.id = d.function WHERE d.state = 4 AND d.id = ?1"
    ))?;
    let mut found = Vec::new();
    for id in ids {
        // A damaged index may return deliveries in another state.
        found.extend(one.query_row([id.0], |row| summary(c, row)).optional()?.flatten());
    }
    Ok(found)
}

/// Returns the ids of the first `limit` dead letters of a range, starting at the given end. If `which` gives ids, their
/// deliveries are not read and may be in another state.
pub(super) fn dead_ids(
    c: &Connection,
    which: &DeadFilter,
    range: Range,
    end: End,
    limit: usize,
) -> rusqlite::Result<Vec<DeliveryId>> {
    let is_within = |id: &DeliveryId| *id > range.after && *id < range.before;
    let function = match which {
        DeadFilter::All => None,
        DeadFilter::Function(name) => Some(name.as_str()),
        // The caller reads the deliveries, and skips those that are not dead letters.
        DeadFilter::Delivery(id) => return Ok(Some(*id).filter(is_within).into_iter().take(limit).collect()),
        DeadFilter::Deliveries(ids) => {
            let ids = ids.iter().copied().filter(is_within);
            return Ok(match end {
                End::Oldest => ids.take(limit).collect(),
                End::Newest => ids.rev().take(limit).collect(),
            });
        }
    };
    in_order::ids(c, DEAD.iter(), function, range, end, limit)
}

/// Reads a dead letter; returns `None` for a delivery in another state.
fn summary(c: &Connection, row: &Row<'_>) -> rusqlite::Result<Option<Result<DeadSummary, DamagedDelivery>>> {
    let ended_ms = row.get(rows::delivery::COLUMN_COUNT + 3)?;
    Ok(match rows::delivery::record(c, row)? {
        Ok(record) if record.state == DeliveryState::Dead => Some(Ok(DeadSummary {
            id: record.id,
            event: record.event,
            function: record.function,
            cause: record.cause.unwrap_or_default(),
            ended_ms,
        })),
        Ok(_) => None,
        Err(damaged) => Some(Err(damaged)),
    })
}

/// Returns the delivery for which a blocked delivery waits: the first unfinished delivery of its order key.
pub(super) fn blocker(c: &Connection, blocked: DeliveryId) -> rusqlite::Result<Option<(DeliveryId, DeliveryState)>> {
    c.prepare_cached(
        "SELECT d.id, d.state FROM deliveries b JOIN deliveries d
           ON d.function = b.function AND d.order_key = b.order_key AND d.replay = b.replay
         WHERE b.id = ?1 AND b.state = 2 AND d.order_key IS NOT NULL AND (d.state < 3 OR d.state = 4) AND d.id < ?1
         ORDER BY d.id LIMIT 1",
    )?
    .query_row([blocked.0], |r| Ok((DeliveryId(r.get(0)?), rows::state(r.get(1)?)?)))
    .optional()
}
