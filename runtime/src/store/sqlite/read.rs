//! The questions, each as the SQL that it is.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::rows::{self, EVENT_COLUMNS};
use crate::clock::UnixMs;
use crate::store::{
    AttemptRecord, DeadFilter, DeliveryId, DeliveryRecord, DeliveryState, EventFilter, FunctionId, ReadyDelivery, Seq,
    StoredEvent, Stream,
};

fn ready_where(condition: &str) -> String {
    format!(
        "SELECT {EVENT_COLUMNS}, d.id, d.function, d.trigger, d.attempts, d.forgiven, d.since_ms, d.replay
         FROM deliveries d JOIN events e ON e.seq = d.event WHERE {condition}"
    )
}

pub(super) fn ready(
    c: &Connection,
    function: FunctionId,
    stream: Stream,
    after: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<ReadyDelivery>> {
    let stream = of(stream);
    let condition = format!("d.function = ?1 AND d.state = 0 AND {stream} AND d.id > ?2 ORDER BY d.id LIMIT ?3");
    c.prepare_cached(&ready_where(&condition))?
        .query_map(params![function, after, count(limit)], rows::ready_delivery)?
        .collect()
}

/// What the partial indexes of a stream say.
fn of(stream: Stream) -> &'static str {
    match stream {
        Stream::Live => "d.replay = 0",
        Stream::Replay => "d.replay <> 0",
    }
}

pub(super) fn is_pending(c: &Connection, delivery: DeliveryId) -> rusqlite::Result<bool> {
    let state = c
        .prepare_cached("SELECT state IN (0, 1) FROM deliveries WHERE id = ?1")?
        .query_row([delivery], |r| r.get(0))
        .optional()?;
    Ok(state.unwrap_or_default())
}

pub(super) fn ready_one(c: &Connection, id: DeliveryId) -> rusqlite::Result<Option<ReadyDelivery>> {
    c.prepare_cached(&ready_where("d.id = ?1"))?.query_row([id], rows::ready_delivery).optional()
}

pub(super) fn due(
    c: &Connection,
    function: FunctionId,
    stream: Stream,
    now_ms: UnixMs,
    limit: usize,
) -> rusqlite::Result<(Vec<ReadyDelivery>, Option<UnixMs>)> {
    let retries = format!("d.function = ?1 AND d.state = 1 AND {}", of(stream));
    let due: Vec<_> = c
        .prepare_cached(&ready_where(&format!("{retries} AND d.due_ms <= ?2 ORDER BY d.due_ms LIMIT ?3")))?
        .query_map(params![function, now_ms, count(limit)], rows::ready_delivery)?
        .collect::<rusqlite::Result<_>>()?;
    let next = c
        .prepare_cached(&format!(
            "SELECT d.due_ms FROM deliveries d WHERE {retries} ORDER BY d.due_ms LIMIT 1 OFFSET ?2"
        ))?
        .query_row(params![function, count(due.len())], |r| r.get(0))
        .optional()?;
    Ok((due, next))
}

pub(super) fn marks(c: &Connection, scope: &str) -> rusqlite::Result<BTreeMap<String, Vec<u8>>> {
    c.prepare_cached("SELECT key, value FROM marks WHERE scope = ?1")?
        .query_map([scope], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect()
}

pub(super) fn event(c: &Connection, seq: Seq) -> rusqlite::Result<Option<StoredEvent>> {
    c.prepare_cached(&format!("SELECT {EVENT_COLUMNS} FROM events e WHERE e.seq = ?1"))?
        .query_row([seq], rows::event)
        .optional()
}

pub(super) fn find(c: &Connection, id: &str) -> rusqlite::Result<Vec<Seq>> {
    c.prepare_cached("SELECT seq FROM events WHERE id = ?1 ORDER BY seq DESC LIMIT 10")?
        .query_map([id], |r| r.get(0))?
        .collect()
}

pub(super) fn events(c: &Connection, filter: &EventFilter) -> rusqlite::Result<Vec<StoredEvent>> {
    let (exact, prefix) = match filter.type_.as_deref() {
        Some(t) => t.strip_suffix('*').map_or((Some(t), None), |p| (None, Some(p))),
        None => (None, None),
    };
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let (after, before) = (filter.after.unwrap_or(0), filter.before.unwrap_or(Seq::MAX));
    let (since_ms, until_ms) = (filter.since_ms.unwrap_or(UnixMs::MIN), filter.until_ms.unwrap_or(UnixMs::MAX));
    let mut found: Vec<StoredEvent> = c
        .prepare_cached(&format!(
            "SELECT {EVENT_COLUMNS} FROM events e
             WHERE e.seq > ?1 AND e.seq < ?6 AND (?2 IS NULL OR e.type = ?2) AND (?3 IS NULL OR substr(e.type, 1, length(?3)) = ?3)
               AND (?4 IS NULL OR e.source = ?4) AND e.accepted_ms >= ?7 AND e.accepted_ms < ?8
             ORDER BY e.seq {order} LIMIT ?5"
        ))?
        .query_map(params![after, exact, prefix, filter.source, count(filter.limit), before, since_ms, until_ms], rows::event)?
        .collect::<rusqlite::Result<_>>()?;
    found.sort_by_key(|e| e.seq);
    Ok(found)
}

const DELIVERY_COLUMNS: &str = "d.id, d.event, f.name, d.trigger, d.order_key, d.state, d.cause, d.due_ms, d.replay FROM deliveries d JOIN functions f ON f.id = d.function";

fn delivery_records(
    c: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<Vec<DeliveryRecord>> {
    let mut records: Vec<DeliveryRecord> = c
        .prepare_cached(&format!("SELECT {DELIVERY_COLUMNS} WHERE {condition}"))?
        .query_map(values, |r| {
            let state = rows::state(r.get(5)?)?;
            Ok(DeliveryRecord {
                id: r.get(0)?,
                event: r.get(1)?,
                function: r.get(2)?,
                trigger: r.get(3)?,
                order_key: r.get(4)?,
                replay: rows::replay(r.get(8)?),
                state,
                cause: r.get(6)?,
                due_ms: if state == DeliveryState::Retrying { r.get(7)? } else { None },
                attempts: Vec::new(),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut attempts = c.prepare_cached(
        "SELECT attempt, started_ms, duration_us, outcome, message FROM attempts WHERE delivery = ?1 ORDER BY attempt",
    )?;
    for record in &mut records {
        record.attempts = attempts
            .query_map([record.id], |r| {
                Ok(AttemptRecord {
                    attempt: r.get(0)?,
                    started_ms: r.get(1)?,
                    duration_us: u64::try_from(r.get::<_, i64>(2)?).unwrap_or_default(),
                    outcome: r.get::<_, String>(3)?.into(),
                    message: r.get(4)?,
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
    }
    Ok(records)
}

pub(super) fn deliveries(c: &Connection, event: Seq) -> rusqlite::Result<Vec<DeliveryRecord>> {
    let range = c
        .prepare_cached("SELECT first_delivery, owed FROM events WHERE seq = ?1")?
        .query_row([event], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)))
        .optional()?;
    let Some((first, owed)) = range else { return Ok(Vec::new()) };
    let mut found = delivery_records(c, "d.id >= ?1 AND d.id < ?1 + ?2 ORDER BY d.id", params![first, owed])?;
    found.extend(delivery_records(c, "d.event = ?1 AND d.replay <> 0 ORDER BY d.id", [event])?);
    Ok(found)
}

pub(super) fn delivery(c: &Connection, id: DeliveryId) -> rusqlite::Result<Option<DeliveryRecord>> {
    Ok(delivery_records(c, "d.id = ?1", [id])?.pop())
}

pub(super) fn published(c: &Connection, delivery: DeliveryId) -> rusqlite::Result<Vec<StoredEvent>> {
    c.prepare_cached(&format!("SELECT {EVENT_COLUMNS} FROM events e WHERE e.cause = ?1 ORDER BY e.seq"))?
        .query_map([delivery], rows::event)?
        .collect()
}

pub(super) fn dead(c: &Connection, which: &DeadFilter, limit: usize) -> rusqlite::Result<Vec<DeliveryRecord>> {
    let limit = count(limit);
    match which {
        DeadFilter::All => delivery_records(c, "d.state = 4 ORDER BY d.id LIMIT ?1", [limit]),
        DeadFilter::Function(name) => {
            delivery_records(c, "d.state = 4 AND f.name = ?1 ORDER BY d.id LIMIT ?2", params![name, limit])
        }
        DeadFilter::Delivery(id) => delivery_records(c, "d.state = 4 AND d.id = ?1", [id]),
    }
}

/// The first `limit` dead letters behind `after`.
pub(super) fn dead_ids(
    c: &Connection,
    which: &DeadFilter,
    after: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<DeliveryId>> {
    let (function, delivery) = match which {
        DeadFilter::All => (None, None),
        DeadFilter::Function(name) => (Some(name.as_str()), None),
        DeadFilter::Delivery(id) => (None, Some(*id)),
    };
    c.prepare_cached(
        "SELECT d.id FROM deliveries d WHERE d.state = 4 AND d.id > ?1 AND (?2 IS NULL OR d.id = ?2)
         AND (?3 IS NULL OR d.function = (SELECT id FROM functions WHERE name = ?3)) ORDER BY d.id LIMIT ?4",
    )?
    .query_map(params![after, delivery, function, count(limit)], |r| r.get(0))?
    .collect()
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
