//! How values stand in columns; `schema.sql` has the words.

use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, ToSql, params};

use super::totals::{LIVE, Owner};
use crate::clock::UnixMs;
use crate::event::{Data, Event};
use crate::store::backlog::Share;
use crate::store::{DeliveryId, DeliveryState, Lineage, Origin, ReadyDelivery, ReplayId, Seq, StoredEvent};

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

/// The columns of an event, for `event` below; `e` is the table's alias.
pub(super) const EVENT_COLUMNS: &str = "e.seq, e.id, e.source, e.type, e.subject, e.time, e.datacontenttype, \
     e.dataschema, e.extensions, e.data_kind, e.data, e.accepted_ms, e.cause, e.root, e.hops, e.origin";
const EVENT_COLUMN_COUNT: usize = 16;

pub(super) fn event(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let extensions = match row.get_ref(8)? {
        ValueRef::Null => Default::default(),
        value => serde_json::from_slice(value.as_bytes()?).map_err(|e| unreadable(8, e))?,
    };
    let data = match (row.get(9)?, row.get_ref(10)?) {
        (0, _) => Data::None,
        (1, bytes) => Data::Json(Bytes::copy_from_slice(bytes.as_bytes()?)),
        (2, bytes) => Data::Text(String::from_utf8(bytes.as_bytes()?.to_vec()).map_err(|e| unreadable(10, e))?),
        (3, bytes) => Data::Binary(Bytes::copy_from_slice(bytes.as_bytes()?)),
        (kind, _) => return Err(rusqlite::Error::IntegralValueOutOfRange(9, kind)),
    };
    Ok(StoredEvent {
        seq: row.get(0)?,
        accepted_ms: row.get(11)?,
        lineage: Lineage { cause: row.get(12)?, root: row.get(13)?, hops: row.get(14)?, origin: Origin(row.get(15)?) },
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
    })
}

/// A row of [`EVENT_COLUMNS`] followed by a delivery's id, function, trigger, attempts, forgiven, since_ms and replay.
pub(super) fn ready_delivery(row: &Row<'_>) -> rusqlite::Result<ReadyDelivery> {
    const AT: usize = EVENT_COLUMN_COUNT;
    Ok(ReadyDelivery {
        id: row.get(AT)?,
        function: row.get(AT + 1)?,
        trigger: row.get::<_, String>(AT + 2)?.into(),
        attempts: row.get(AT + 3)?,
        attempts_forgiven: row.get(AT + 4)?,
        since_ms: row.get(AT + 5)?,
        replay: replay(row.get(AT + 6)?),
        event: Arc::new(event(row)?),
    })
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
    let extensions = if event.extensions.is_empty() { None } else { serde_json::to_string(&event.extensions).ok() };
    let data = Column(&event.data);
    tx.prepare_cached(
        "INSERT INTO events (seq, id, source, type, subject, time, datacontenttype, dataschema, extensions,
                             data_kind, data, accepted_ms, first_delivery, owed, cause, root, hops, origin)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
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
        i64::try_from(owed).unwrap_or(i64::MAX),
        lineage.cause,
        lineage.root,
        lineage.hops,
        lineage.origin.0
    ])?;
    Ok(())
}

/// A payload as the column `data`.
struct Column<'a>(&'a Data);

impl Column<'_> {
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
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Data::None => ValueRef::Null,
            data => ValueRef::Blob(data.as_bytes()),
        }))
    }
}

fn unreadable(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
}
