//! The schedule: events that wait for the time in their attribute `notbefore`.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{checksum, read};
use evoke_model::clock::UnixMs;
use evoke_model::{DamagedEvent, Seq};
use evoke_store::Scheduled;

/// The columns of a row, then its checksum.
const COLUMNS: &str = "seq, due_ms, origin, bytes, published, sum";

fn verify(row: &Row<'_>) -> rusqlite::Result<()> {
    checksum::verify(row, 0, 5, || "its entry in the schedule".into())
}

/// Returns true if an event is in the schedule.
pub(super) fn contains(c: &Connection, seq: Seq) -> rusqlite::Result<bool> {
    c.prepare_cached("SELECT 1 FROM scheduled WHERE seq = ?1")?.exists([seq.0])
}

/// Returns true if an event is in the schedule and its entry is undamaged. Logs an error if the entry is damaged.
pub(super) fn is_intact(c: &Connection, seq: Seq) -> rusqlite::Result<bool> {
    let found = c
        .prepare_cached(&format!("SELECT {COLUMNS} FROM scheduled WHERE seq = ?1"))?
        .query_row([seq.0], verify)
        .optional();
    match found {
        Ok(found) => Ok(found.is_some()),
        Err(error) => {
            let what = checksum::find_damage(&error).ok_or(error)?;
            tracing::error!("event {seq} in {} is damaged: {what}; it stays scheduled", c.path().unwrap_or_default());
            Ok(false)
        }
    }
}

/// Returns the first `most` entries after a due time and position, in order, with their events.
pub(super) fn after(c: &Connection, (due_ms, seq): (UnixMs, Seq), most: usize) -> rusqlite::Result<Vec<Scheduled>> {
    entries(c, "(due_ms, seq) > (?2, ?3)", &[&limit(most), &due_ms, &seq.0])
}

/// Returns the first `most` entries that are due at `now_ms`, and the time at which the next entry after these is due.
pub(super) fn due(c: &Connection, now_ms: UnixMs, most: usize) -> rusqlite::Result<(Vec<Scheduled>, Option<UnixMs>)> {
    let found = entries(c, "due_ms <= ?2", &[&limit(most), &now_ms])?;
    let next = c
        .prepare_cached("SELECT due_ms FROM scheduled ORDER BY due_ms, seq LIMIT 1 OFFSET ?1")?
        .query_row(params![limit(found.len())], |row| row.get(0))
        .optional()?;
    Ok((found, next))
}

fn entries(c: &Connection, condition: &str, values: &[&dyn rusqlite::ToSql]) -> rusqlite::Result<Vec<Scheduled>> {
    let mut select =
        c.prepare_cached(&format!("SELECT {COLUMNS} FROM scheduled WHERE {condition} ORDER BY due_ms, seq LIMIT ?1"))?;
    let found = select
        .query_map(values, |row| {
            let seq = Seq(row.get(0)?);
            Ok((seq, row.get(1).unwrap_or_default(), verify(row).err()))
        })?
        .collect::<rusqlite::Result<Vec<(Seq, UnixMs, Option<rusqlite::Error>)>>>()?;
    found
        .into_iter()
        .map(|(seq, due_ms, error)| {
            let damage = error.map(|error| checksum::find_damage(&error).ok_or(error)).transpose()?;
            let damaged = |what: String| DamagedEvent { seq, what: what.into() };
            let event = match damage {
                Some(what) => {
                    Err(damaged(format!("event {seq} in {} is damaged: {what}", c.path().unwrap_or_default())))
                }
                None => read::event(c, seq)?.unwrap_or_else(|| {
                    Err(damaged(format!("event {seq} is missing in {}", c.path().unwrap_or_default())))
                }),
            };
            Ok(Scheduled { due_ms, seq, event })
        })
        .collect()
}

fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
