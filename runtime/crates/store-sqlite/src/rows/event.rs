//! The rows of the table `events`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, Row, ToSql, params};

use crate::checksum;
use crate::statements::Statements;
use evoke_model::clock::UnixMs;
use evoke_model::event::{Data, Event};
use evoke_model::{DamagedEvent, DeliveryId, Lineage, Origin, ReadEvent, Seq, StoredEvent};

/// The columns of an event for [`read`], in the order in which the checksum covers them, then the checksum. The last
/// column that the checksum covers is `data` if `principal` and `released_ms` are NULL, `principal` if only
/// `released_ms` is NULL, and otherwise `released_ms`. The table alias is `e`.
pub(crate) const COLUMNS: &str = "e.seq, e.id, e.source, e.type, e.subject, e.time, e.datacontenttype, \
     e.dataschema, e.extensions, e.data_kind, e.accepted_ms, e.first_delivery, e.owed, e.cause, e.root, e.hops, \
     e.origin, e.data, e.principal, e.released_ms, e.sum";
const PRINCIPAL: usize = 18;
const RELEASED: usize = PRINCIPAL + 1;
const SUM: usize = RELEASED + 1;
pub(crate) const COLUMN_COUNT: usize = SUM + 1;

/// Reads an event. If its row is damaged, returns a description of the damage.
pub(crate) fn read(c: &Connection, row: &Row<'_>) -> rusqlite::Result<ReadEvent> {
    let seq = Seq(row.get(0)?);
    intact(row).map(Ok).or_else(|error| damaged(c, seq, &error).map(Err).ok_or(error))
}

/// Returns a description of the damage if damaged data caused the error; otherwise `None`.
pub(crate) fn damaged(c: &Connection, seq: Seq, error: &rusqlite::Error) -> Option<DamagedEvent> {
    let what = checksum::find_damage(error)?;
    let file = c.path().unwrap_or_default();
    Some(DamagedEvent { seq, what: format!("event {seq} in {file} is damaged: {what}").into() })
}

fn intact(row: &Row<'_>) -> rusqlite::Result<StoredEvent> {
    let is_null = |column: usize| Ok::<_, rusqlite::Error>(row.get_ref(column)? == ValueRef::Null);
    let summed = match (is_null(PRINCIPAL)?, is_null(RELEASED)?) {
        (true, true) => PRINCIPAL,
        (false, true) => RELEASED,
        (_, false) => SUM,
    };
    if row.get_ref(SUM)? != ValueRef::Integer(checksum::of_row(row, 0, summed)?) {
        return Err(checksum::corrupt("its row"));
    }
    let extensions = match row.get_ref(8)? {
        ValueRef::Null => Default::default(),
        value => serde_json::from_slice::<BTreeMap<String, String>>(value.as_bytes()?).map_err(|e| unreadable(8, e))?,
    };
    let data = match (row.get(9)?, row.get_ref(17)?) {
        (0, _) => Data::None,
        (1, bytes) => Data::Json(Bytes::copy_from_slice(bytes.as_bytes()?)),
        (2, bytes) => Data::Text(String::from_utf8(bytes.as_bytes()?.to_vec()).map_err(|e| unreadable(17, e))?),
        (3, bytes) => Data::Binary(Bytes::copy_from_slice(bytes.as_bytes()?)),
        (kind, _) => return Err(rusqlite::Error::IntegralValueOutOfRange(9, kind)),
    };
    Ok(StoredEvent {
        seq: Seq(row.get(0)?),
        accepted_ms: row.get(10)?,
        lineage: Lineage {
            cause: row.get::<_, Option<_>>(13)?.map(DeliveryId),
            root: row.get::<_, Option<_>>(14)?.map(Seq),
            hops: row.get(15)?,
            origin: Origin(row.get(16)?),
        },
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
            principal: row.get::<_, Option<String>>(PRINCIPAL)?.map(Arc::from),
        }),
    })
}

pub(crate) fn insert(
    statements: &mut Statements<'_>,
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
    let (cause, root) = (lineage.cause.map(|delivery| delivery.0), lineage.root.map(|seq| seq.0));
    let principal = event.principal.as_deref();
    let values = [
        Integer(seq.0),
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
        Integer(first_delivery.0),
        Integer(owed),
        cause.map_or(Null, Integer),
        root.map_or(Null, Integer),
        Integer(lineage.hops.into()),
        Integer(lineage.origin.0.into()),
        data.value(),
    ];
    let sum = checksum::of_values(values.into_iter().chain(principal.map(ValueRef::from)));
    let insert = statements.get(
        "INSERT INTO events (seq, id, source, type, subject, time, datacontenttype, dataschema, extensions,
                             data_kind, data, accepted_ms, first_delivery, owed, cause, root, hops, origin, principal,
                             sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20)",
    )?;
    insert.execute(params![
        seq.0,
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
        first_delivery.0,
        owed,
        cause,
        root,
        lineage.hops,
        lineage.origin.0,
        principal,
        sum
    ])?;
    Ok(())
}

/// Stores the first delivery, the number of deliveries and the time of release of an event that was scheduled. The row
/// must be intact.
pub(crate) fn release(
    tx: &Connection,
    seq: Seq,
    now_ms: UnixMs,
    first_delivery: DeliveryId,
    owed: usize,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE events SET first_delivery = ?2, owed = ?3, released_ms = ?4,
           sum = sum_of(seq, id, source, type, subject, time, datacontenttype, dataschema, extensions, data_kind,
             accepted_ms, ?2, ?3, cause, root, hops, origin, data, principal, ?4)
         WHERE seq = ?1",
    )?
    .execute(params![seq.0, first_delivery.0, i64::try_from(owed).unwrap_or(i64::MAX), now_ms])?;
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
