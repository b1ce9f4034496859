//! Conversion between values and columns; `schema.sql` describes the columns.

pub(super) mod attempt;
pub(super) mod delivery;
pub(super) mod event;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row, params};

use super::checksum;
use evoke_model::{DeliveryState, FunctionId, Mark, Origin, ReplayId};
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

/// The value of the column `replay` for live deliveries.
pub(super) const LIVE: ReplayId = ReplayId(0);

/// The function and replay of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) function: FunctionId,
    /// [`LIVE`] for a live delivery.
    pub(super) replay: ReplayId,
}

/// Converts a value of the column `replay`; returns `None` for [`LIVE`].
pub(super) fn replay(column: ReplayId) -> Option<ReplayId> {
    (column != LIVE).then_some(column)
}

/// Reads a delivery's function and replay from column `at` on.
pub(super) fn owner(row: &Row<'_>, at: usize) -> rusqlite::Result<Owner> {
    Ok(Owner { function: FunctionId(row.get(at)?), replay: ReplayId(row.get(at + 1)?) })
}

/// The columns that [`share`] reads, for a query of the table `deliveries`.
macro_rules! share_columns {
    () => {
        concat!("origin, bytes, ", $crate::rows::is_published!())
    };
}
pub(super) use share_columns;

/// An SQL expression for queries of the table `deliveries`: true if the delivery counts as [`Share::published`]. Only
/// events that a delivery caused have a `cause`, and only events that were scheduled have a `released_ms`. Replayed
/// deliveries of scheduled events do not count as published.
macro_rules! is_published {
    () => {
        "IFNULL((SELECT cause IS NOT NULL OR (released_ms IS NOT NULL AND replay = 0) FROM events WHERE seq = event), 0)"
    };
}
pub(super) use is_published;

/// Reads the contribution of a delivery to the backlog from [`share_columns`]; the first of these columns is `at`.
pub(super) fn share(row: &Row<'_>, at: usize) -> rusqlite::Result<Share> {
    Ok(Share { origin: Origin(row.get(at)?), bytes: row.get(at + 1)?, published: row.get(at + 2)? })
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
