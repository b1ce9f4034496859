//! SQL queries for reading events, deliveries and marks.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashSet;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::in_order::{End, Range};
use super::rows::delivery::{COLUMNS as DELIVERY_COLUMNS, Expected};
use super::rows::event::{COLUMN_COUNT as EVENT_COLUMN_COUNT, COLUMNS as EVENT_COLUMNS};
use super::rows::{self, attempt::COLUMNS as ATTEMPT_COLUMNS};
use super::{checksum, inspect};
use evoke_model::clock::UnixMs;
use evoke_model::{
    DamagedEvent, DeadFilter, DeliveryId, DeliveryState, EventFilter, FunctionId, ReadDelivery, ReadEvent,
    ReadyDelivery, Seq, Stream,
};
use evoke_store::LoadLimit;
use evoke_store::descendants::Descendants;

/// Maximum number of steps along a chain. A chain cannot have this many functions, but a damaged row could make it
/// endless.
const CHAIN_MAX: usize = 100;

/// Returns the deliveries that match a condition and are in the expected state, with their events, up to the limit.
/// Leaves out the deliveries in `held`, without reading their events. Also returns the number of rows that were read. A
/// damaged delivery is skipped: it never runs and is never changed, and `evoke check` reports it.
fn ready_where(
    c: &Connection,
    expected: Expected,
    condition: &str,
    values: &[&dyn ToSql],
    held: &HashSet<DeliveryId>,
    limit: LoadLimit,
) -> rusqlite::Result<(Vec<ReadyDelivery>, usize)> {
    let is_held = |row: &Row<'_>, at| -> rusqlite::Result<bool> {
        Ok(!held.is_empty() && held.contains(&DeliveryId(row.get(at)?)))
    };
    let together = format!(
        "SELECT {EVENT_COLUMNS}, {DELIVERY_COLUMNS} FROM deliveries d LEFT JOIN events e ON e.seq = d.event
         WHERE {condition}"
    );
    let found = take(c, &together, values, limit, |row| {
        if is_held(row, EVENT_COLUMN_COUNT)? { Ok(None) } else { rows::delivery::ready(c, row, expected).map(Some) }
    });
    if !matches!(&found, Err(error) if checksum::find_damage(error).is_some()) {
        return found;
    }
    // A page of the events table is damaged, so each event is read on its own.
    let apart = format!("SELECT {DELIVERY_COLUMNS} FROM deliveries d WHERE {condition}");
    take(c, &apart, values, limit, |row| {
        if is_held(row, 0)? {
            return Ok(None);
        }
        let delivery = rows::delivery::without_event(row, 0, expected)?;
        let event = event(c, delivery.event)?;
        Ok(Some(delivery.with_event(c, event)))
    })
}

/// Reads deliveries up to the limit. `read` returns `None` for a delivery that is left out.
fn take(
    c: &Connection,
    sql: &str,
    values: &[&dyn ToSql],
    limit: LoadLimit,
    read: impl Fn(&Row<'_>) -> rusqlite::Result<Option<ReadyDelivery>>,
) -> rusqlite::Result<(Vec<ReadyDelivery>, usize)> {
    let mut statement = c.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let (mut found, mut bytes, mut rows_read) = (Vec::new(), 0, 0);
    while !limit.is_reached(found.len(), bytes)
        && let Some(row) = rows.next()?
    {
        rows_read += 1;
        match read(row) {
            Ok(Some(delivery)) => {
                bytes += delivery.event_size();
                found.push(delivery);
            }
            Ok(None) => {}
            Err(error) => {
                let what = checksum::find_damage(&error).ok_or(error)?;
                tracing::error!("{} is damaged: {what}; the delivery does not run", c.path().unwrap_or_default());
            }
        }
    }
    Ok((found, rows_read))
}

pub(super) fn ready(
    c: &Connection,
    function: FunctionId,
    stream: Stream,
    after: DeliveryId,
    limit: LoadLimit,
) -> rusqlite::Result<Vec<ReadyDelivery>> {
    let condition = format!("d.function = ?1 AND d.state = 0 AND {} AND d.id > ?2 ORDER BY d.id", of(stream));
    let expected = Expected { state: rows::READY, function: Some(function) };
    let none_held = HashSet::default();
    Ok(ready_where(c, expected, &condition, &[&function.0, &after.0], &none_held, limit)?.0)
}

/// Returns the condition for the deliveries of a stream: live or replayed ones. The partial indexes have the same
/// condition.
fn of(stream: Stream) -> &'static str {
    match stream {
        Stream::Live => "d.replay = 0",
        Stream::Replay => "d.replay <> 0",
    }
}

/// Returns true if a delivery is ready or retrying, and `attempt` is the number of its next attempt.
pub(super) fn is_next_attempt(c: &Connection, delivery: DeliveryId, attempt: u32) -> rusqlite::Result<bool> {
    let is_next = c
        .prepare_cached("SELECT state IN (0, 1) AND attempts + 1 = ?2 FROM deliveries WHERE id = ?1")?
        .query_row(params![delivery.0, attempt], |r| r.get(0))
        .optional()?;
    Ok(is_next.unwrap_or_default())
}

/// Counts the events that an event from outside caused through functions. Their size differs a little from
/// `Event::size`: the names of attributes are not counted, except in the JSON of the extensions.
pub(super) fn descendants(c: &Connection, root: Seq) -> rusqlite::Result<Descendants> {
    c.prepare_cached(
        "SELECT COUNT(*), ifnull(SUM(octet_length(id) + octet_length(source) + octet_length(type)
           + ifnull(octet_length(subject), 0) + ifnull(octet_length(time), 0) + ifnull(octet_length(datacontenttype), 0)
           + ifnull(octet_length(dataschema), 0) + ifnull(octet_length(extensions), 0)
           + ifnull(octet_length(data), 0)), 0)
         FROM events WHERE root = ?1 AND hops > 0",
    )?
    .query_row([root.0], |r| {
        let unsigned = |value: i64| u64::try_from(value).unwrap_or_default();
        Ok(Descendants { events: unsigned(r.get(0)?), bytes: unsigned(r.get(1)?) })
    })
}

/// Returns the functions through which a chain came to this delivery, in order.
pub(super) fn chain(c: &Connection, delivery: DeliveryId) -> rusqlite::Result<Vec<String>> {
    let mut step = c.prepare_cached(
        "SELECT f.name, e.cause FROM deliveries d JOIN functions f ON f.id = d.function
           LEFT JOIN events e ON e.seq = d.event WHERE d.id = ?1",
    )?;
    let (mut names, mut next) = (Vec::new(), Some(delivery.0));
    // The limit ends the loop if a damaged row leads back to an earlier one.
    while let Some(id) = next.take()
        && names.len() < CHAIN_MAX
    {
        let found = step.query_row([id], |r| Ok((r.get(0)?, r.get(1)?))).optional()?;
        if let Some((name, cause)) = found {
            names.push(name);
            next = cause;
        }
    }
    names.reverse();
    Ok(names)
}

pub(super) fn ready_one(c: &Connection, id: DeliveryId) -> rusqlite::Result<Option<ReadyDelivery>> {
    let expected = Expected { state: rows::READY, function: None };
    let none_held = HashSet::default();
    Ok(ready_where(c, expected, "d.id = ?1", &[&id.0], &none_held, LoadLimit::of(1))?.0.pop())
}

pub(super) fn due(
    c: &Connection,
    function: FunctionId,
    stream: Stream,
    now_ms: UnixMs,
    held: &HashSet<DeliveryId>,
    limit: LoadLimit,
) -> rusqlite::Result<(Vec<ReadyDelivery>, Option<UnixMs>)> {
    let retries = format!("d.function = ?1 AND d.state = 1 AND {}", of(stream));
    let condition = format!("{retries} AND d.due_ms <= ?2 ORDER BY d.due_ms");
    let expected = Expected { state: rows::RETRYING, function: Some(function) };
    let (due, rows_read) = ready_where(c, expected, &condition, &[&function.0, &now_ms], held, limit)?;
    let next = c
        .prepare_cached(&format!(
            "SELECT d.due_ms FROM deliveries d WHERE {retries} ORDER BY d.due_ms LIMIT 1 OFFSET ?2"
        ))?
        .query_row(params![function.0, count(rows_read)], |r| r.get(0))
        .optional()?;
    Ok((due, next))
}

pub(super) fn marks(c: &Connection, scope: &str) -> rusqlite::Result<BTreeMap<String, Vec<u8>>> {
    let marks = c
        .prepare_cached("SELECT scope, key, value, sum FROM marks WHERE scope = ?1")?
        .query_map([scope], |r| {
            checksum::verify_with_key(r, &[scope.into()], 3, || format!("a mark of {scope}"))?;
            Ok((r.get(1)?, r.get(2)?))
        })?
        .collect();
    checksum::name_damage(marks, || format!("a mark of {scope}"))
}

/// Returns the verified senders of events. An event is missing if it is not in the store or its sender cannot be read.
/// The checksum of an event covers its data, so it is not verified here.
pub(super) fn senders(c: &Connection, events: &[Seq]) -> rusqlite::Result<BTreeMap<Seq, Option<Arc<str>>>> {
    let mut select = c.prepare_cached("SELECT principal FROM events WHERE seq = ?1")?;
    let mut found = BTreeMap::new();
    for seq in events {
        match select.query_row([seq.0], |r| r.get::<_, Option<String>>(0)).optional() {
            Ok(sender) => found.extend(sender.map(|sender| (*seq, sender.map(Arc::from)))),
            Err(error) if checksum::find_damage(&error).is_some() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

pub(super) fn event(c: &Connection, seq: Seq) -> rusqlite::Result<Option<ReadEvent>> {
    let found = c
        .prepare_cached(&format!("SELECT {EVENT_COLUMNS} FROM events e WHERE e.seq = ?1"))?
        .query_row([seq.0], |r| rows::event::read(c, r))
        .optional();
    found.or_else(|error| rows::event::damaged(c, seq, &error).map(|damaged| Some(Err(damaged))).ok_or(error))
}

/// Returns the events that match a condition. If a page with some of these events is damaged, each event is read on its
/// own.
fn events_where(
    c: &Connection,
    condition: &str,
    values: &[&dyn ToSql],
    limits: &EventFilter,
) -> rusqlite::Result<Vec<ReadEvent>> {
    let mut select = c.prepare_cached(&format!("SELECT {EVENT_COLUMNS} FROM events e WHERE {condition}"))?;
    let together = limits.take(select.query_map(values, |r| rows::event::read(c, r))?);
    if !matches!(&together, Err(error) if checksum::find_damage(error).is_some()) {
        return together;
    }
    let seqs: Vec<Seq> = c
        .prepare_cached(&format!("SELECT e.seq FROM events e WHERE {condition}"))?
        .query_map(values, |r| r.get(0).map(Seq))?
        .collect::<rusqlite::Result<_>>()?;
    limits.take(seqs.into_iter().filter_map(|seq| event(c, seq).transpose()))
}

pub(super) fn find(c: &Connection, id: &str) -> rusqlite::Result<Vec<Seq>> {
    c.prepare_cached("SELECT seq FROM events WHERE id = ?1 ORDER BY seq DESC LIMIT 10")?
        .query_map([id], |r| r.get(0).map(Seq))?
        .collect()
}

pub(super) fn event_of(c: &Connection, source: &str, id: &str) -> rusqlite::Result<Option<Seq>> {
    c.prepare_cached(
        "SELECT seq FROM events WHERE id = ?1
           AND (source = ?2 OR cause IS NULL AND origin = (SELECT id FROM origins WHERE uri = ?2))
         ORDER BY seq DESC LIMIT 1",
    )?
    .query_row([id, source], |r| r.get(0).map(Seq))
    .optional()
}

/// Returns true if a live delivery of the event is pending.
pub(super) fn has_pending(c: &Connection, event: Seq) -> rusqlite::Result<bool> {
    c.prepare_cached(
        "SELECT 1 FROM events e JOIN deliveries d ON d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed
         WHERE e.seq = ?1 AND d.state < 3",
    )?
    .exists([event.0])
}

/// Returns the SQL condition for events of which at least one live or replayed delivery matches the filter. The
/// function of the filter is the parameter `?9`.
fn has_delivery(filter: &EventFilter) -> String {
    if filter.function.is_none() && filter.states.is_empty() {
        return "?9 IS NULL".to_owned();
    }
    let mut wanted = "(?9 IS NULL OR d.function = (SELECT id FROM functions WHERE name = ?9))".to_owned();
    if !filter.states.is_empty() {
        // In the database, the number of a state is its position in `ALL`.
        let numbers = DeliveryState::ALL.iter().enumerate().filter(|(_, state)| filter.states.contains(state));
        let numbers: Vec<_> = numbers.map(|(number, _)| number.to_string()).collect();
        wanted += &format!(" AND d.state IN ({})", numbers.join(", "));
    }
    format!(
        "(EXISTS (SELECT 1 FROM deliveries d
             WHERE d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed AND {wanted})
           OR EXISTS (SELECT 1 FROM deliveries d WHERE d.event = e.seq AND d.replay <> 0 AND {wanted}))"
    )
}

pub(super) fn events(c: &Connection, filter: &EventFilter) -> rusqlite::Result<Vec<ReadEvent>> {
    let (exact, prefix) = match filter.type_.as_deref() {
        Some(t) => t.strip_suffix('*').map_or((Some(t), None), |p| (None, Some(p))),
        None => (None, None),
    };
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let after = filter.after.max(filter.above).map_or(0, |seq| seq.0);
    let before = filter.before.map_or(i64::MAX, |seq| seq.0);
    let (since_ms, until_ms) = (filter.since_ms.unwrap_or(UnixMs::MIN), filter.until_ms.unwrap_or(UnixMs::MAX));
    let condition = format!(
        "e.seq > ?1 AND e.seq < ?6 AND (?2 IS NULL OR e.type = ?2) AND (?3 IS NULL OR substr(e.type, 1, length(?3)) = ?3)
           AND (?4 IS NULL OR e.source = ?4) AND e.accepted_ms >= ?7 AND e.accepted_ms < ?8 AND {}
         ORDER BY e.seq {order} LIMIT ?5",
        has_delivery(filter)
    );
    let limit = count(filter.limit);
    let values: [&dyn ToSql; 9] =
        [&after, &exact, &prefix, &filter.source, &limit, &before, &since_ms, &until_ms, &filter.function];
    let mut found = events_where(c, &condition, &values, filter)?;
    found.sort_by_key(DamagedEvent::seq_of);
    Ok(found)
}

fn delivery_records(
    c: &Connection,
    condition: &str,
    values: impl rusqlite::Params,
) -> rusqlite::Result<Vec<ReadDelivery>> {
    let mut records: Vec<ReadDelivery> = c
        .prepare_cached(&format!(
            "SELECT {DELIVERY_COLUMNS}, f.id, f.name, f.sum FROM deliveries d LEFT JOIN functions f ON f.id = d.function
             WHERE {condition}"
        ))?
        .query_map(values, |r| rows::delivery::record(c, r))?
        .collect::<rusqlite::Result<_>>()?;
    let mut attempts =
        c.prepare_cached(&format!("SELECT {ATTEMPT_COLUMNS} FROM attempts WHERE delivery = ?1 ORDER BY attempt"))?;
    for record in &mut records {
        let (id, on_record) = match record {
            Ok(record) => (record.id, &mut record.attempts),
            Err(damaged) => (damaged.id, &mut damaged.attempts),
        };
        let before =
            attempts.query_map([id.0], |r| rows::attempt::read(r, id))?.collect::<rusqlite::Result<Vec<_>>>()?;
        on_record.splice(..0, before);
    }
    Ok(records)
}

/// The condition for deliveries with ids from `?1` to below `?2`. The end must be a bound value. If the end depended
/// on columns of the delivery, SQLite could not stop there, and would read all rows up to the last delivery.
pub(super) const IN_RANGE: &str = "d.id >= ?1 AND d.id < ?2 ORDER BY d.id";

pub(super) fn deliveries(c: &Connection, event: Seq) -> rusqlite::Result<Vec<ReadDelivery>> {
    let range = c
        .prepare_cached("SELECT first_delivery, owed FROM events WHERE seq = ?1")?
        .query_row([event.0], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)))
        .optional()?;
    let Some((first, owed)) = range else { return Ok(Vec::new()) };
    let end = first.saturating_add(owed);
    let mut found = delivery_records(c, IN_RANGE, params![first, end])?;
    found.extend(delivery_records(c, "d.event = ?1 AND d.replay <> 0 ORDER BY d.id", [event.0])?);
    // A damaged event may refer to deliveries of other events.
    found.retain(|record| record.as_ref().map_or(true, |record| record.event == event));
    Ok(found)
}

pub(super) fn delivery(c: &Connection, id: DeliveryId) -> rusqlite::Result<Option<ReadDelivery>> {
    Ok(delivery_records(c, "d.id = ?1", [id.0])?.pop())
}

pub(super) fn published(c: &Connection, delivery: DeliveryId) -> rusqlite::Result<Vec<ReadEvent>> {
    let mut found = events_where(c, "e.cause = ?1 ORDER BY e.seq", &[&delivery.0], &EventFilter::default())?;
    // A damaged index may return events with another cause.
    found.retain(|stored| stored.as_ref().map_or(true, |stored| stored.lineage.cause == Some(delivery)));
    Ok(found)
}

pub(super) fn dead(
    c: &Connection,
    which: &DeadFilter,
    after: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<ReadDelivery>> {
    let mut found = Vec::new();
    for id in dead_ids(c, which, after, limit)? {
        found.extend(delivery_records(c, "d.state = 4 AND d.id = ?1", [id.0])?);
    }
    // A damaged index may return deliveries in another state.
    found.retain(|record| record.as_ref().map_or(true, |record| record.state == DeliveryState::Dead));
    Ok(found)
}

/// Returns the first `limit` dead letters with an id greater than `after`. If `which` gives ids, their deliveries may
/// be in another state: the caller checks the state of each delivery before it changes the delivery.
pub(super) fn dead_ids(
    c: &Connection,
    which: &DeadFilter,
    after: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<DeliveryId>> {
    inspect::dead_ids(c, which, Range { after, before: DeliveryId(i64::MAX) }, End::Oldest, limit)
}

fn count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
