//! The queries of an operator's lists that need no event: dead letters without their attempts, what a blocked delivery
//! waits for, and the age of the backlog.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::rows;
use super::rows::delivery::COLUMNS as DELIVERY_COLUMNS;
use evoke_model::clock::UnixMs;
use evoke_model::{DamagedDelivery, DeadFilter, DeadSummary, DeliveryId, DeliveryState, Seq};

/// Returns the position of the first event with this store time or a later one. Retention leaves gaps between positions,
/// so the result may be the position of no event.
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
    let select = |condition: &str| {
        format!(
            "SELECT {DELIVERY_COLUMNS}, f.id, f.name, f.sum,
               (SELECT MAX(a.started_ms + a.duration_us / 1000) FROM attempts a WHERE a.delivery = d.id)
             FROM deliveries d LEFT JOIN functions f ON f.id = d.function
             WHERE d.state = 4 AND d.id < ?1 AND {condition} ORDER BY d.id DESC LIMIT ?2"
        )
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = |row: &Row<'_>| summary(c, row);
    let found: Vec<_> = match which {
        DeadFilter::All => {
            c.prepare_cached(&select("TRUE"))?.query_map(params![before.0, limit], read)?.collect::<Result<_, _>>()?
        }
        DeadFilter::Function(name) => c
            .prepare_cached(&select("d.function = (SELECT id FROM functions WHERE name = ?3)"))?
            .query_map(params![before.0, limit, name], read)?
            .collect::<Result<_, _>>()?,
        DeadFilter::Delivery(id) => c
            .prepare_cached(&select("d.id = ?3"))?
            .query_map(params![before.0, limit, id.0], read)?
            .collect::<Result<_, _>>()?,
        DeadFilter::Deliveries(ids) => {
            let mut one = c.prepare_cached(&select("d.id = ?3"))?;
            let mut found = Vec::new();
            for id in ids.iter().rev() {
                if let Some(row) = one.query_row(params![before.0, limit, id.0], read).optional()? {
                    found.push(row);
                }
            }
            found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            found
        }
    };
    // A damaged index may return deliveries in another state.
    Ok(found.into_iter().flatten().collect())
}

/// Reads a dead letter; `None` for a delivery in another state.
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

/// Returns the first unfinished delivery of the order key of a blocked delivery.
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

/// Returns for each function the store time since which its oldest ready or retrying live delivery is pending.
pub(super) fn pending_since(c: &Connection) -> rusqlite::Result<BTreeMap<String, UnixMs>> {
    let mut oldest = c.prepare_cached(
        "SELECT MIN(since_ms) FROM deliveries WHERE id IN (
           (SELECT id FROM deliveries WHERE function = ?1 AND state = 0 AND replay = 0 ORDER BY id LIMIT 1),
           (SELECT MIN(id) FROM deliveries WHERE function = ?1 AND state = 1 AND replay = 0))",
    )?;
    let mut names = c.prepare_cached("SELECT id, name FROM functions")?;
    let mut found = BTreeMap::new();
    let mut rows = names.query([])?;
    while let Some(row) = rows.next()? {
        let since_ms: Option<UnixMs> = oldest.query_row([row.get::<_, i64>(0)?], |r| r.get(0))?;
        if let Some(since_ms) = since_ms {
            found.insert(row.get(1)?, since_ms);
        }
    }
    Ok(found)
}
