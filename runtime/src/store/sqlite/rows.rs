//! How values stand in columns; `schema.sql` has the words.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::sums;
use super::totals::{LIVE, Owner};
use crate::clock::UnixMs;
use crate::event::{Data, Event};
use crate::outcome::Outcome;
use crate::store::backlog::Share;
use crate::store::{
    AttemptRecord, DeliveryId, DeliveryRecord, DeliveryState, FunctionId, Lineage, Mark, Origin, ReadyDelivery,
    ReplayId, Seq, StoredEvent,
};

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

/// The columns of an event, for `event` below: as they are summed, and the sum. `e` is the table's alias.
pub(super) const EVENT_COLUMNS: &str = "e.seq, e.id, e.source, e.type, e.subject, e.time, e.datacontenttype, \
     e.dataschema, e.extensions, e.data_kind, e.accepted_ms, e.first_delivery, e.owed, e.cause, e.root, e.hops, \
     e.origin, e.data, e.sum";
const EVENT_SUMMED: usize = 18;
const EVENT_COLUMN_COUNT: usize = EVENT_SUMMED + 1;

/// An event; where it is not what was written, that and nothing of it.
pub(super) fn event(c: &Connection, row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let seq = row.get(0)?;
    intact_event(row).or_else(|error| damaged_event(c, seq, &error).ok_or(error))
}

/// What stands for an event of which an error tells that it is damaged.
pub(super) fn damaged_event(c: &Connection, seq: Seq, error: &rusqlite::Error) -> Option<StoredEvent> {
    let what = sums::damaged(error)?;
    let file = c.path().unwrap_or_default();
    Some(StoredEvent::damaged(seq, format!("event {seq} in {file} is damaged: {what}")))
}

fn intact_event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    sums::verify(row, 0, EVENT_SUMMED, || "its row".into())?;
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

/// The columns of a delivery: those that stay, those that change, and the sum. `d` is the table's alias.
pub(super) const DELIVERY_COLUMNS: &str = "d.id, d.event, d.function, d.trigger, d.order_key, d.origin, d.bytes, \
     d.replay, d.state, d.attempts, d.forgiven, d.since_ms, d.due_ms, d.cause, d.done_ms, d.done_us, d.sum";
const STAYING: usize = 8;
const CHANGING: usize = 8;
const DELIVERY_COLUMN_COUNT: usize = STAYING + CHANGING + 1;

/// [`DELIVERY_COLUMNS`] from this one on are what was written.
fn verify_delivery(row: &Row<'_>, at: usize) -> rusqlite::Result<()> {
    let sum = sums::of_row(row, at, STAYING)? + sums::of_row(row, at + STAYING, CHANGING)?;
    if row.get_ref(at + STAYING + CHANGING)? == ValueRef::Integer(sum) {
        return Ok(());
    }
    Err(sums::damage(format!("delivery {}", row.get::<_, DeliveryId>(at)?)))
}

/// Whether a delivery is what was written, and in one of these states, whatever an index says. One that is not is told
/// and left alone: a change would not find its entries in the indexes, for which SQLite fails the whole transaction.
pub(super) fn is_sound(c: &Connection, id: DeliveryId, states: &[i64]) -> rusqlite::Result<bool> {
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
            let what = sums::damaged(&error).ok_or(error)?;
            tracing::error!("{} is damaged: {what}; it is left as it is", c.path().unwrap_or_default());
            Ok(false)
        }
    }
}

/// The sum of the columns of a delivery that stay.
pub(super) fn staying_sum(
    id: DeliveryId,
    event: Seq,
    owner: Owner,
    trigger: &str,
    order_key: Option<&str>,
    share: Share,
) -> i64 {
    use ValueRef::Integer;
    sums::sum([
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

/// The sum of the columns of a delivery that change, as long as it was not redriven.
pub(super) fn changing_sum(
    state: i64,
    attempts: i64,
    since_ms: UnixMs,
    due_ms: Option<UnixMs>,
    cause: Option<&str>,
    done: Option<Took>,
) -> i64 {
    use ValueRef::{Integer, Null};
    let due = due_ms.map_or(Null, Integer);
    let [done_ms, done_us] = done.map_or([Null, Null], |took| [Integer(took.started_ms), Integer(took.us)]);
    sums::sum([Integer(state), Integer(attempts), Integer(0), Integer(since_ms), due, cause.into(), done_ms, done_us])
}

/// An update of one delivery, `?1`: what it sets, and what its columns that change are then, for the sum. What of the
/// sum is wrong stays wrong.
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

/// The attempt that was done, as far as its delivery keeps it.
#[derive(Clone, Copy)]
pub(super) struct Took {
    pub(super) started_ms: UnixMs,
    pub(super) us: i64,
}

impl Took {
    pub(super) fn of(record: &AttemptRecord) -> Self {
        Self { started_ms: record.started_ms, us: i64::try_from(record.duration_us).unwrap_or(i64::MAX) }
    }
}

/// What an index finds a delivery for.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) state: i64,
    /// `None` for whoever's it is.
    pub(super) function: Option<FunctionId>,
}

/// A row of [`EVENT_COLUMNS`], of which all may be NULL, followed by [`DELIVERY_COLUMNS`]. An error when the delivery is
/// damaged, or is not what an index found it for.
pub(super) fn ready_delivery(c: &Connection, row: &Row<'_>, asked: Asked) -> rusqlite::Result<ReadyDelivery> {
    let mut delivery = without_event(row, EVENT_COLUMN_COUNT, asked)?;
    let found = if row.get_ref(0)? == ValueRef::Null { None } else { Some(event(c, row)?) };
    owe(c, &mut delivery, found);
    Ok(delivery)
}

/// [`DELIVERY_COLUMNS`] from this one on, with an event that [`owe`] has to put in.
pub(super) fn without_event(row: &Row<'_>, at: usize, asked: Asked) -> rusqlite::Result<ReadyDelivery> {
    verify_delivery(row, at)?;
    let (id, function, state): (DeliveryId, FunctionId, i64) = (row.get(at)?, row.get(at + 2)?, row.get(at + 8)?);
    if state != asked.state || asked.function.is_some_and(|asked| asked != function) {
        return Err(sums::damage(format!("an index, which names delivery {id} for what it is not,")));
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
            // Known also of an event that is not: what the runtime says of its own is no cause for more.
            lineage: Lineage { origin: Origin(row.get(at + 5)?), ..Lineage::default() },
            ..StoredEvent::damaged(row.get(at + 1)?, String::new())
        }),
    })
}

/// Puts in the event that is owed, or that it is not there.
pub(super) fn owe(c: &Connection, delivery: &mut ReadyDelivery, found: Option<StoredEvent>) {
    let seq = delivery.event.seq;
    let missing =
        || StoredEvent::damaged(seq, format!("event {seq} is not in {} any more", c.path().unwrap_or_default()));
    let mut event = found.unwrap_or_else(missing);
    if event.damage.is_some() {
        event.accepted_ms = delivery.since_ms;
        event.lineage = delivery.event.lineage;
    }
    delivery.event = Arc::new(event);
}

/// A row of [`DELIVERY_COLUMNS`] and of the function its id, name and sum, with the attempt that was done alone; where it
/// is not what was written, that.
pub(super) fn delivery_record(c: &Connection, row: &Row<'_>) -> rusqlite::Result<DeliveryRecord> {
    let id = row.get(0)?;
    let intact = || {
        verify_delivery(row, 0)?;
        let state = state(row.get(8)?)?;
        sums::verify(row, DELIVERY_COLUMN_COUNT, 2, || format!("the function of delivery {id}"))?;
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
        let what = sums::damaged(&error).ok_or(error)?;
        let state = row.get(8).ok().and_then(|value| state(value).ok()).unwrap_or(DeliveryState::Dead);
        let damage = format!("delivery {id} in {} is damaged: {what}", c.path().unwrap_or_default());
        Ok(DeliveryRecord::damaged(id, state, damage))
    })
}

/// The attempt that was done, of a row of [`DELIVERY_COLUMNS`].
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

/// The columns of an attempt as they are summed, and the sum.
pub(super) const ATTEMPT_COLUMNS: &str = "delivery, attempt, started_ms, duration_us, outcome, message, sum";

/// A row of [`ATTEMPT_COLUMNS`] that was found for a delivery; where it is not what was written, that.
pub(super) fn attempt(row: &Row<'_>, delivery: DeliveryId) -> rusqlite::Result<AttemptRecord> {
    let attempt = row.get(1).unwrap_or_default();
    let intact = || {
        sums::verify_asked(row, &[ValueRef::Integer(delivery)], 6, || "this record of an attempt".into())?;
        Ok(AttemptRecord {
            attempt,
            started_ms: row.get(2)?,
            duration_us: u64::try_from(row.get::<_, i64>(3)?).unwrap_or_default(),
            outcome: row.get::<_, String>(4)?.into(),
            message: row.get(5)?,
        })
    };
    intact().or_else(|error: rusqlite::Error| {
        let message = Some(sums::damaged(&error).ok_or(error)?);
        Ok(AttemptRecord { attempt, started_ms: 0, duration_us: 0, outcome: "damaged".into(), message })
    })
}

/// Keeps how an attempt went that was not done.
pub(super) fn put_attempt(tx: &Connection, delivery: DeliveryId, record: &AttemptRecord) -> rusqlite::Result<()> {
    use ValueRef::Integer;
    let AttemptRecord { attempt, outcome, message, .. } = record;
    let Took { started_ms, us: duration_us } = Took::of(record);
    let sum = sums::sum([
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

/// Writes a mark, or removes it.
pub(super) fn put_mark(tx: &Connection, mark: &Mark) -> rusqlite::Result<()> {
    let Mark { scope, key, value } = mark;
    match value {
        Some(value) => {
            let sum = sums::sum([scope.as_str().into(), key.as_str().into(), ValueRef::Blob(value)]);
            tx.prepare_cached("INSERT OR REPLACE INTO marks (scope, key, value, sum) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![scope, key, value, sum])?
        }
        None => tx.prepare_cached("DELETE FROM marks WHERE scope = ?1 AND key = ?2")?.execute(params![scope, key])?,
    };
    Ok(())
}

/// The replay that a delivery is of.
pub(super) fn replay(column: ReplayId) -> Option<ReplayId> {
    (column != LIVE).then_some(column)
}

/// A delivery's function and replay, from this column on.
pub(super) fn owner(row: &Row<'_>, at: usize) -> rusqlite::Result<Owner> {
    Ok(Owner { function: row.get(at)?, replay: row.get(at + 1)? })
}

/// A delivery's origin and bytes, from this column on.
pub(super) fn share(row: &Row<'_>, at: usize) -> rusqlite::Result<Share> {
    Ok(Share { origin: Origin(row.get(at)?), bytes: row.get(at + 1)? })
}

/// Adds an event.
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
    let sum = sums::sum([
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

/// A payload as the column `data`.
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
