//! The queries for replays, and the numbers that the database uses for their states.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use super::{checksum, totals};
use evoke_model::{Replay, ReplayId, ReplayState, Seq};

/// The states. The number in the column `state` is the index in this list.
const STATES: [ReplayState; 6] = [
    ReplayState::Running,
    ReplayState::Paused,
    ReplayState::Done,
    ReplayState::Cancelling,
    ReplayState::Cancelled,
    ReplayState::Failed,
];

pub(super) fn column(state: ReplayState) -> i64 {
    STATES.iter().position(|s| *s == state).and_then(|place| i64::try_from(place).ok()).unwrap_or(-1)
}

pub(super) fn list(c: &Connection, after: ReplayId, limit: usize) -> rusqlite::Result<Vec<Replay>> {
    let mut found = Vec::new();
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM replays WHERE id > ?1 ORDER BY id"))?;
    let mut rows = statement.query([after.0])?;
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        match replay(row) {
            Ok(replay) => found.push(Replay { deliveries: totals::of_replay(c, replay.id)?, ..replay }),
            // Skip a damaged replay, so that the others continue.
            Err(error) => match checksum::find_damage(&error) {
                Some(what) => {
                    tracing::error!(
                        "{} is damaged: {what}; the replay does not continue",
                        c.path().unwrap_or_default()
                    );
                }
                None => return Err(error),
            },
        }
    }
    Ok(found)
}

pub(super) fn one(c: &Connection, id: ReplayId) -> rusqlite::Result<Option<Replay>> {
    let found = c
        .prepare_cached(&format!("SELECT {COLUMNS} FROM replays WHERE id = ?1"))?
        .query_row([id.0], replay)
        .optional()?;
    let Some(mut found) = found else { return Ok(None) };
    found.deliveries = totals::of_replay(c, id)?;
    Ok(Some(found))
}

/// The columns in the order in which the checksum covers them, then the checksum.
const COLUMNS: &str = "id, filter, created_ms, until, state, position, events, sum";

fn replay(row: &Row<'_>) -> rusqlite::Result<Replay> {
    let id = ReplayId(row.get(0)?);
    let sum = checksum::of_row(row, 0, 4)? + checksum::of_row(row, 4, 3)?;
    if row.get_ref(7)? != ValueRef::Integer(sum) {
        return Err(checksum::corrupt(format!("replay {id}")));
    }
    let state: i64 = row.get(4)?;
    let known = usize::try_from(state).ok().and_then(|place| STATES.get(place));
    Ok(Replay {
        id,
        filter: row.get(1)?,
        created_ms: row.get(2)?,
        state: *known.ok_or(rusqlite::Error::IntegralValueOutOfRange(4, state))?,
        position: Seq(row.get(5)?),
        until: Seq(row.get(3)?),
        events: u64::try_from(row.get::<_, i64>(6)?).unwrap_or_default(),
        deliveries: Default::default(),
    })
}
