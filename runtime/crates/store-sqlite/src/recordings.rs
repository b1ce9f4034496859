//! Recordings of attempts. A recording is stored in the commit of its attempt, and nothing else in the store depends on
//! it. The same commit removes the recordings of the function that exceed the limits; an index finds them quickly.
//!
//! Unlike an event or a delivery, a recording is removed without a check of its checksum: a damaged recording need not
//! stay for a repair, because no recording is needed for long.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::readers::Reader;
use super::{SqliteStore, checksum};
use evoke_model::clock::UnixMs;
use evoke_model::recording::{NewRecording, RecordingLimits, RecordingNumber, StoredRecording};
use evoke_model::{Completion, DeliveryId, FunctionId};
use evoke_store::{RecordingStore, StoreFuture};

/// Maximum number of recordings that one write removes because of their age, so that other writes do not wait long.
const EXPIRED_MAX: usize = 64;

/// The columns of a recording in the order in which the checksum covers them, then the checksum.
const COLUMNS: &str = "id, function, number, delivery, attempt, start_bytes, expires_ms, data, sum";

/// Stores the recording of a completion, if it has one, and removes the oldest recordings of its function that exceed
/// the limits.
pub(super) fn put(tx: &Connection, completion: &Completion, now_ms: UnixMs) -> rusqlite::Result<()> {
    use ValueRef::Integer;
    let Some(NewRecording { data, limits }) = &completion.recording else { return Ok(()) };
    let Completion { function: FunctionId(function), delivery: DeliveryId(delivery), record, .. } = completion;
    let RecordingLimits { count, bytes, age } = *limits;
    let last = tx
        .prepare_cached(
            "SELECT number, start_bytes + length(data) FROM recordings WHERE function = ?1
             ORDER BY number DESC LIMIT 1",
        )?
        .query_row([function], |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)))
        .optional()?;
    let (last, start_bytes) = last.unwrap_or_default();
    let number = last.saturating_add(1);
    let age_ms = UnixMs::try_from(age.as_millis()).unwrap_or(UnixMs::MAX);
    let expires_ms = now_ms.saturating_add(age_ms);
    let id: i64 = tx
        .prepare_cached("SELECT ifnull(MAX(id), 0) FROM recordings")?
        .query_row([], |r| r.get::<_, i64>(0))?
        .saturating_add(1);
    let sum = checksum::of_values([
        Integer(id),
        Integer(*function),
        Integer(number),
        Integer(*delivery),
        Integer(i64::from(record.attempt)),
        Integer(start_bytes),
        Integer(expires_ms),
        ValueRef::Blob(data),
    ]);
    tx.prepare_cached(
        "INSERT INTO recordings (id, function, number, delivery, attempt, start_bytes, expires_ms, sum, data)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![id, function, number, delivery, record.attempt, start_bytes, expires_ms, sum, &data[..]])?;
    let end_bytes = start_bytes.saturating_add(i64::try_from(data.len()).unwrap_or(i64::MAX));
    let first_bytes = end_bytes.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    // The inner query is ordered by number, so that it reads only the recordings to remove and one more.
    tx.prepare_cached(
        "DELETE FROM recordings WHERE function = ?1 AND number < ?2 AND (number <= ?3 OR number < ifnull(
           (SELECT number FROM recordings WHERE function = ?1 AND start_bytes >= ?4 ORDER BY number LIMIT 1), ?2))",
    )?
    .execute(params![function, number, number.saturating_sub(i64::from(count)), first_bytes])?;
    Ok(())
}

/// Removes the recordings of a delivery that retention removes.
pub(super) fn remove(tx: &Connection, delivery: DeliveryId) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM recordings WHERE delivery = ?1")?.execute([delivery.0])?;
    Ok(())
}

/// Removes recordings that have reached their maximum age, at most [`EXPIRED_MAX`]. Returns true if there may be more
/// of them.
pub(super) fn remove_expired(tx: &Connection, now_ms: UnixMs) -> rusqlite::Result<bool> {
    let removed = tx
        .prepare_cached(
            "DELETE FROM recordings WHERE id IN (SELECT id FROM recordings WHERE expires_ms <= ?1
             ORDER BY expires_ms LIMIT ?2)",
        )?
        .execute(params![now_ms, i64::try_from(EXPIRED_MAX).unwrap_or(i64::MAX)])?;
    Ok(removed == EXPIRED_MAX)
}

fn of_delivery(c: &Connection, delivery: DeliveryId, after: u32, limit: i64) -> rusqlite::Result<Vec<StoredRecording>> {
    c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM recordings WHERE delivery = ?1 AND attempt > ?2 ORDER BY attempt LIMIT ?3"
    ))?
    .query_map(params![delivery.0, after, limit], read)?
    .collect()
}

fn newest(c: &Connection, function: &str, before: i64, limit: i64) -> rusqlite::Result<Vec<StoredRecording>> {
    c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM recordings WHERE function = (SELECT id FROM functions WHERE name = ?1) AND number < ?2
         ORDER BY number DESC LIMIT ?3"
    ))?
    .query_map(params![function, before, limit], read)?
    .collect()
}

/// Reads a row of [`COLUMNS`]. If the row is damaged, the result contains an error instead of the data.
fn read(row: &Row<'_>) -> rusqlite::Result<StoredRecording> {
    let (delivery, attempt) = (DeliveryId(row.get(3)?), row.get(4)?);
    let data = if row.get_ref(8)? == ValueRef::Integer(checksum::of_row(row, 0, 8)?) {
        Ok(row.get::<_, Vec<u8>>(7)?.into())
    } else {
        Err(format!("the recording of attempt {attempt} at delivery {delivery} is corrupt"))
    };
    Ok(StoredRecording { function: FunctionId(row.get(1)?), number: row.get(2)?, delivery, attempt, data })
}

impl RecordingStore for SqliteStore {
    fn recordings_of(&self, delivery: DeliveryId, after: u32, limit: usize) -> StoreFuture<Vec<StoredRecording>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(Reader::Inspection, move |c| of_delivery(c, delivery, after, limit))
    }

    fn newest_recordings(
        &self,
        function: String,
        before: RecordingNumber,
        limit: usize,
    ) -> StoreFuture<Vec<StoredRecording>> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.read(Reader::Inspection, move |c| newest(c, &function, before, limit))
    }
}
