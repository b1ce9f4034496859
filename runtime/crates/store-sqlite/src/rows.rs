//! Conversion between values and columns; `schema.sql` describes the columns.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::checksum;
use super::totals::{LIVE, Owner};
use evoke_model::clock::UnixMs;
use evoke_model::event::{Data, Event};
use evoke_model::outcome::Outcome;
use evoke_model::{
    AttemptRecord, DeliveryId, DeliveryRecord, DeliveryState, FunctionId, Lineage, Mark, Origin, ReadyDelivery,
    ReplayId, Seq, StoredEvent,
};
use evoke_store::backlog::Share;

pub(super) const READY: i64 = 0;
pub(super) const RETRYING: i64 = 1;
pub(super) const BLOCKED: i64 = 2;
pub(super) const DONE: i64 = 3;
pub(super) const DEAD: i64 = 4;
pub(super) const PURGED: i64 = 5;

pub(super) fn state(value: i64) -> rusqlite::Result<DeliveryState> {
    Ok(match value {
        READY => DeliveryState::Ready,
        RETRYING => DeliveryState::Retrying,
        BLOCKED => DeliveryState::Blocked,
        DONE => DeliveryState::Done,
        DEAD => DeliveryState::Dead,
        PURGED => DeliveryState::Purged,
        _ => return Err(rusqlite::Error::IntegralValueOutOfRange(0, value)),
    })
}

/// The columns of an event for [`event`]: those covered by the checksum, in its order, then the checksum. The table
/// alias is `e`.
pub(super) const EVENT_COLUMNS: &str = "e.seq, e.id, e.source, e.type, e.subject, e.time, e.datacontenttype, \
     e.dataschema, e.extensions, e.data_kind, e.accepted_ms, e.first_delivery, e.owed, e.cause, e.root, e.hops, \
     e.origin, e.data, e.sum";
const EVENT_SUMMED: usize = 18;
const EVENT_COLUMN_COUNT: usize = EVENT_SUMMED + 1;

/// Reads an event; for a corrupt row, returns a placeholder that describes the damage.
pub(super) fn event(c: &Connection, row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let seq = row.get(0)?;
    intact_event(row).or_else(|error| damaged_event(c, seq, &error).ok_or(error))
}

/// Returns a placeholder for an event if an error was caused by damage.
pub(super) fn damaged_event(c: &Connection, seq: Seq, error: &rusqlite::Error) -> Option<StoredEvent> {
    let what = checksum::find_damage(error)?;
    let file = c.path().unwrap_or_default();
    Some(StoredEvent::damaged(seq, format!("event {seq} in {file} is damaged: {what}")))
}

fn intact_event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    checksum::verify(row, 0, EVENT_SUMMED, || "its row".into())?;
    let extensions = match row.get_ref(8)? {
        ValueRef::Null => Default::default(),
        value => serde_json::from_slice(value.as_bytes()?).map_err(|e| unreadable(8, e))?,
    };
    let data = match (row.get(9)?, row.get_ref(17)?) {
        (0, _) => Data::None,
        (1, bytes) => Data::Json(Bytes::copy_from_slice(bytes.as_bytes()?)),
        (2, bytes) => Data::Text(String::from_utf8(bytes.as_bytes()?.to_vec()).map_err(|e| unreadable(17, e))?),
        (3, bytes) => Data::Binary(Bytes::copy_from_slice(bytes.as_bytes()?)),
        (kind, _) => return Err(rusqlite::Error::IntegralValueOutOfRange(9, kind)),
    };
    Ok(StoredEvent {
        seq: row.get(0)?,
        accepted_ms: row.get(10)?,
        lineage: Lineage { cause: row.get(13)?, root: row.get(14)?, hops: row.get(15)?, origin: Origin(row.get(16)?) },
        event: Arc::new(Event {
            id: row.get(1)?,
            source: row.get(2)?,
            type_: row.get(3)?,
            subject: row.get(4)?,
            time: row.get(5)?,
            datacontenttype: row.get(6)?,
            dataschema: row.get(7)?,
            extensions,
            data,
        }),
        damage: None,
    })
}

/// The columns of a delivery: the immutable ones, the mutable ones, then the checksum. The table alias is `d`.
pub(super) const DELIVERY_COLUMNS: &str = "d.id, d.event, d.function, d.trigger, d.order_key, d.origin, d.bytes, \
     d.replay, d.state, d.attempts, d.forgiven, d.since_ms, d.due_ms, d.cause, d.done_ms, d.done_us, d.sum";
const FIXED: usize = 8;
const MUTABLE: usize = 8;
const DELIVERY_COLUMN_COUNT: usize = FIXED + MUTABLE + 1;

/// Verifies the checksum of [`DELIVERY_COLUMNS`] that start at column `at`.
fn verify_delivery(row: &Row<'_>, at: usize) -> rusqlite::Result<()> {
    let sum = checksum::of_row(row, at, FIXED)? + checksum::of_row(row, at + FIXED, MUTABLE)?;
    if row.get_ref(at + FIXED + MUTABLE)? == ValueRef::Integer(sum) {
        return Ok(());
    }
    Err(checksum::corrupt(format!("delivery {}", row.get::<_, DeliveryId>(at)?)))
}

/// Returns true if a delivery matches its checksum and is in one of these states, whatever an index says. A damaged
/// delivery is logged and must not be updated: SQLite would not find its index entries and would fail the whole
/// transaction.
pub(super) fn is_intact(c: &Connection, id: DeliveryId, states: &[i64]) -> rusqlite::Result<bool> {
    let found = c
        .prepare_cached(&format!("SELECT {DELIVERY_COLUMNS} FROM deliveries d WHERE d.id = ?1"))?
        .query_row([id], |r| {
            verify_delivery(r, 0)?;
            r.get::<_, i64>(8)
        })
        .optional();
    match found {
        Ok(state) => Ok(state.is_some_and(|state| states.contains(&state))),
        Err(error) => {
            let what = checksum::find_damage(&error).ok_or(error)?;
            tracing::error!("{} is damaged: {what}; it is left as it is", c.path().unwrap_or_default());
            Ok(false)
        }
    }
}

/// Returns the checksum of a delivery's immutable columns.
pub(super) fn fixed_sum(
    id: DeliveryId,
    event: Seq,
    owner: Owner,
    trigger: &str,
    order_key: Option<&str>,
    share: Share,
) -> i64 {
    use ValueRef::Integer;
    checksum::of_values([
        Integer(id),
        Integer(event),
        Integer(owner.function),
        trigger.into(),
        order_key.into(),
        Integer(share.origin.0.into()),
        Integer(share.bytes),
        Integer(owner.replay),
    ])
}

/// Returns the checksum of a delivery's mutable columns, for one that was never redriven.
pub(super) fn mutable_sum(
    state: i64,
    attempts: i64,
    since_ms: UnixMs,
    due_ms: Option<UnixMs>,
    cause: Option<&str>,
    done: Option<AttemptTiming>,
) -> i64 {
    use ValueRef::{Integer, Null};
    let due = due_ms.map_or(Null, Integer);
    let [done_ms, done_us] =
        done.map_or([Null, Null], |timing| [Integer(timing.started_ms), Integer(timing.duration_us)]);
    checksum::of_values([
        Integer(state),
        Integer(attempts),
        Integer(0),
        Integer(since_ms),
        due,
        cause.into(),
        done_ms,
        done_us,
    ])
}

/// Builds an UPDATE of the delivery with id `?1` from its assignments and the new values of the mutable columns. The
/// checksum is changed by the difference, so a wrong checksum stays wrong.
macro_rules! change_delivery {
    ($sets:literal, $become:literal $(, $returning:literal)?) => {
        concat!(
            "UPDATE deliveries SET ", $sets,
            ", sum = sum - sum_of(state, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us) + sum_of(",
            $become, ") WHERE id = ?1" $(, " RETURNING ", $returning)?
        )
    };
}
pub(super) use change_delivery;

/// The part of a successful attempt that its delivery's row stores.
#[derive(Clone, Copy)]
pub(super) struct AttemptTiming {
    pub(super) started_ms: UnixMs,
    pub(super) duration_us: i64,
}

impl AttemptTiming {
    pub(super) fn of(record: &AttemptRecord) -> Self {
        Self { started_ms: record.started_ms, duration_us: i64::try_from(record.duration_us).unwrap_or(i64::MAX) }
    }
}

/// The values that an index lookup expects in a delivery.
#[derive(Clone, Copy)]
pub(super) struct Expected {
    pub(super) state: i64,
    /// `None` accepts every function.
    pub(super) function: Option<FunctionId>,
}

/// Reads a row of [`EVENT_COLUMNS`], all NULL when there is no event, followed by [`DELIVERY_COLUMNS`]. Returns an
/// error if the delivery is corrupt or differs from the values that the index was searched for.
pub(super) fn ready_delivery(c: &Connection, row: &Row<'_>, expected: Expected) -> rusqlite::Result<ReadyDelivery> {
    let mut delivery = without_event(row, EVENT_COLUMN_COUNT, expected)?;
    let found = if row.get_ref(0)? == ValueRef::Null { None } else { Some(event(c, row)?) };
    set_event(c, &mut delivery, found);
    Ok(delivery)
}

/// Reads [`DELIVERY_COLUMNS`] from column `at` on; the caller then adds the event with [`set_event`].
pub(super) fn without_event(row: &Row<'_>, at: usize, expected: Expected) -> rusqlite::Result<ReadyDelivery> {
    verify_delivery(row, at)?;
    let (id, function, state): (DeliveryId, FunctionId, i64) = (row.get(at)?, row.get(at + 2)?, row.get(at + 8)?);
    if state != expected.state || expected.function.is_some_and(|expected| expected != function) {
        return Err(checksum::corrupt(format!("an index that lists delivery {id} under wrong values")));
    }
    Ok(ReadyDelivery {
        id,
        function,
        trigger: row.get::<_, String>(at + 3)?.into(),
        attempts: row.get(at + 9)?,
        attempts_forgiven: row.get(at + 10)?,
        since_ms: row.get(at + 11)?,
        replay: replay(row.get(at + 7)?),
        event: Arc::new(StoredEvent {
            // Also needed for a damaged event: a runtime event must not cause another one.
            lineage: Lineage { origin: Origin(row.get(at + 5)?), ..Lineage::default() },
            ..StoredEvent::damaged(row.get(at + 1)?, String::new())
        }),
    })
}

/// Sets the event of a delivery, or a placeholder when the event is missing.
pub(super) fn set_event(c: &Connection, delivery: &mut ReadyDelivery, found: Option<StoredEvent>) {
    let seq = delivery.event.seq;
    let missing = || StoredEvent::damaged(seq, format!("event {seq} is missing in {}", c.path().unwrap_or_default()));
    let mut event = found.unwrap_or_else(missing);
    if event.damage.is_some() {
        event.accepted_ms = delivery.since_ms;
        event.lineage = delivery.event.lineage;
    }
    delivery.event = Arc::new(event);
}

/// Reads a row of [`DELIVERY_COLUMNS`] and the id, name and checksum of the function. Contains at most the successful
/// attempt. For a corrupt row, returns a placeholder that describes the damage.
pub(super) fn delivery_record(c: &Connection, row: &Row<'_>) -> rusqlite::Result<DeliveryRecord> {
    let id = row.get(0)?;
    let intact = || {
        verify_delivery(row, 0)?;
        let state = state(row.get(8)?)?;
        checksum::verify(row, DELIVERY_COLUMN_COUNT, 2, || format!("the function of delivery {id}"))?;
        Ok(DeliveryRecord {
            id,
            event: row.get(1)?,
            function: row.get(DELIVERY_COLUMN_COUNT + 1)?,
            trigger: row.get(3)?,
            order_key: row.get(4)?,
            replay: replay(row.get(7)?),
            state,
            cause: row.get(13)?,
            due_ms: if state == DeliveryState::Retrying { row.get(12)? } else { None },
            attempts: attempt_done(row)?.into_iter().collect(),
            damage: None,
        })
    };
    intact().or_else(|error| {
        let what = checksum::find_damage(&error).ok_or(error)?;
        let state = row.get(8).ok().and_then(|value| state(value).ok()).unwrap_or(DeliveryState::Dead);
        let damage = format!("delivery {id} in {} is damaged: {what}", c.path().unwrap_or_default());
        Ok(DeliveryRecord::damaged(id, state, damage))
    })
}

/// Reads the successful attempt, if any, from a row of [`DELIVERY_COLUMNS`].
fn attempt_done(row: &Row<'_>) -> rusqlite::Result<Option<AttemptRecord>> {
    let Some(started_ms) = row.get(14)? else { return Ok(None) };
    Ok(Some(AttemptRecord {
        attempt: row.get(9)?,
        started_ms,
        duration_us: u64::try_from(row.get::<_, i64>(15)?).unwrap_or_default(),
        outcome: Outcome::Done.kind().into(),
        message: None,
    }))
}

/// The columns of an attempt: those covered by the checksum, in its order, then the checksum.
pub(super) const ATTEMPT_COLUMNS: &str = "delivery, attempt, started_ms, duration_us, outcome, message, sum";

/// Reads a row of [`ATTEMPT_COLUMNS`] of a delivery; for a corrupt row, returns a record that describes the damage.
pub(super) fn attempt(row: &Row<'_>, delivery: DeliveryId) -> rusqlite::Result<AttemptRecord> {
    let attempt = row.get(1).unwrap_or_default();
    let intact = || {
        checksum::verify_with_key(row, &[ValueRef::Integer(delivery)], 6, || "this attempt record".into())?;
        Ok(AttemptRecord {
            attempt,
            started_ms: row.get(2)?,
            duration_us: u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default(),
            outcome: row.get::<_, String>(4)?.into(),
            message: row.get(5)?,
        })
    };
    intact().or_else(|error: rusqlite::Error| {
        let message = Some(checksum::find_damage(&error).ok_or(error)?);
        Ok(AttemptRecord { attempt, started_ms: 0, duration_us: 0, outcome: "damaged".into(), message })
    })
}

/// Stores the record of a failed attempt.
pub(super) fn put_attempt(tx: &Connection, delivery: DeliveryId, record: &AttemptRecord) -> rusqlite::Result<()> {
    use ValueRef::Integer;
    let AttemptRecord { attempt, outcome, message, .. } = record;
    let AttemptTiming { started_ms, duration_us } = AttemptTiming::of(record);
    let sum = checksum::of_values([
        Integer(delivery),
        Integer(i64::from(*attempt)),
        Integer(started_ms),
        Integer(duration_us),
        (&**outcome).into(),
        message.as_deref().into(),
    ]);
    tx.prepare_cached(
        "INSERT OR REPLACE INTO attempts (delivery, attempt, started_ms, duration_us, outcome, message, sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![delivery, attempt, started_ms, duration_us, outcome, message, sum])?;
    Ok(())
}

/// Writes or deletes a mark.
pub(super) fn put_mark(tx: &Connection, mark: &Mark) -> rusqlite::Result<()> {
    let Mark { scope, key, value } = mark;
    match value {
        Some(value) => {
            let sum = checksum::of_values([scope.as_str().into(), key.as_str().into(), ValueRef::Blob(value)]);
            tx.prepare_cached("INSERT OR REPLACE INTO marks (scope, key, value, sum) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![scope, key, value, sum])?
        }
        None => tx.prepare_cached("DELETE FROM marks WHERE scope = ?1 AND key = ?2")?.execute(params![scope, key])?,
    };
    Ok(())
}

/// Converts the column `replay`: [`LIVE`] means no replay.
pub(super) fn replay(column: ReplayId) -> Option<ReplayId> {
    (column != LIVE).then_some(column)
}

/// Reads a delivery's function and replay from column `at` on.
pub(super) fn owner(row: &Row<'_>, at: usize) -> rusqlite::Result<Owner> {
    Ok(Owner { function: row.get(at)?, replay: row.get(at + 1)? })
}

/// Reads a delivery's origin and bytes from column `at` on.
pub(super) fn share(row: &Row<'_>, at: usize) -> rusqlite::Result<Share> {
    Ok(Share { origin: Origin(row.get(at)?), bytes: row.get(at + 1)? })
}

/// Inserts an event.
pub(super) fn insert_event(
    tx: &Connection,
    seq: Seq,
    event: &Event,
    lineage: Lineage,
    now_ms: UnixMs,
    first_delivery: DeliveryId,
    owed: usize,
) -> rusqlite::Result<()> {
    use ValueRef::{Integer, Null};
    let extensions = if event.extensions.is_empty() { None } else { serde_json::to_string(&event.extensions).ok() };
    let data = Column(&event.data);
    let owed = i64::try_from(owed).unwrap_or(i64::MAX);
    let sum = checksum::of_values([
        Integer(seq),
        event.id.as_str().into(),
        event.source.as_str().into(),
        event.type_.as_str().into(),
        event.subject.as_deref().into(),
        event.time.as_deref().into(),
        event.datacontenttype.as_deref().into(),
        event.dataschema.as_deref().into(),
        extensions.as_deref().into(),
        Integer(data.kind()),
        Integer(now_ms),
        Integer(first_delivery),
        Integer(owed),
        lineage.cause.map_or(Null, Integer),
        lineage.root.map_or(Null, Integer),
        Integer(lineage.hops.into()),
        Integer(lineage.origin.0.into()),
        data.value(),
    ]);
    tx.prepare_cached(
        "INSERT INTO events (seq, id, source, type, subject, time, datacontenttype, dataschema, extensions,
                             data_kind, data, accepted_ms, first_delivery, owed, cause, root, hops, origin, sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)",
    )?
    .execute(params![
        seq,
        event.id,
        event.source,
        event.type_,
        event.subject,
        event.time,
        event.datacontenttype,
        event.dataschema,
        extensions,
        data.kind(),
        data,
        now_ms,
        first_delivery,
        owed,
        lineage.cause,
        lineage.root,
        lineage.hops,
        lineage.origin.0,
        sum
    ])?;
    Ok(())
}

/// Event data as a value of the column `data`.
struct Column<'a>(&'a Data);

impl<'a> Column<'a> {
    fn value(&self) -> ValueRef<'a> {
        match self.0 {
            Data::None => ValueRef::Null,
            data => ValueRef::Blob(data.as_bytes()),
        }
    }

    fn kind(&self) -> i64 {
        match self.0 {
            Data::None => 0,
            Data::Json(_) => 1,
            Data::Text(_) => 2,
            Data::Binary(_) => 3,
        }
    }
}

impl ToSql for Column<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.value()))
    }
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
}
