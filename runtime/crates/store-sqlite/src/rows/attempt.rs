//! The records of attempts. Failed attempts, and successful ones with a message, have rows in the table `attempts`. The
//! values of a successful attempt without a message are in the row of its delivery.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use crate::checksum;
use evoke_model::clock::UnixMs;
use evoke_model::outcome::Outcome;
use evoke_model::{AttemptRecord, DeliveryId};

/// The values of a successful attempt without a message, which are stored in the row of its delivery.
#[derive(Clone, Copy)]
pub(crate) struct Timing {
    pub(crate) started_ms: UnixMs,
    pub(crate) duration_us: i64,
}

impl Timing {
    pub(crate) fn of(record: &AttemptRecord) -> Self {
        Self { started_ms: record.started_ms, duration_us: i64::try_from(record.duration_us).unwrap_or(i64::MAX) }
    }
}

/// The columns of an attempt in the order in which the checksum covers them, then the checksum.
pub(crate) const COLUMNS: &str = "delivery, attempt, started_ms, duration_us, outcome, message, sum";

/// Reads a row of [`COLUMNS`] that belongs to `delivery`. For a corrupt row, returns a record whose message describes
/// the damage.
pub(crate) fn read(row: &Row<'_>, delivery: DeliveryId) -> rusqlite::Result<AttemptRecord> {
    let attempt = row.get(1).unwrap_or_default();
    let intact = || {
        checksum::verify_with_key(row, &[ValueRef::Integer(delivery.0)], 6, || "this attempt record".into())?;
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

/// Stores the record of an attempt that failed, or that has a message.
pub(crate) fn put(tx: &Connection, delivery: DeliveryId, record: &AttemptRecord) -> rusqlite::Result<()> {
    use ValueRef::Integer;
    let AttemptRecord { attempt, outcome, message, .. } = record;
    let Timing { started_ms, duration_us } = Timing::of(record);
    let sum = checksum::of_values([
        Integer(delivery.0),
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
    .execute(params![delivery.0, attempt, started_ms, duration_us, outcome, message, sum])?;
    Ok(())
}

/// Reads the successful attempt from a row of [`delivery::COLUMNS`](super::delivery::COLUMNS); `None` if the row
/// contains none.
pub(super) fn done(row: &Row<'_>) -> rusqlite::Result<Option<AttemptRecord>> {
    let Some(started_ms) = row.get(14)? else { return Ok(None) };
    Ok(Some(AttemptRecord {
        attempt: row.get(9)?,
        started_ms,
        duration_us: u64::try_from(row.get::<_, i64>(15)?).unwrap_or_default(),
        outcome: Outcome::Done.kind().into(),
        message: None,
    }))
}
