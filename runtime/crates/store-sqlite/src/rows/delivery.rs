//! The rows of the table `deliveries`.

use std::sync::Arc;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use super::attempt::{self, Timing};
use super::{Owner, event, replay, state};
use crate::checksum;
use evoke_model::clock::UnixMs;
use evoke_model::{
    DamagedDelivery, DamagedEvent, DeliveryId, DeliveryRecord, DeliveryState, FunctionId, Origin, ReadDelivery,
    ReadEvent, ReadyDelivery, ReplayId, Seq,
};
use evoke_store::backlog::Share;

/// The columns of a delivery: the immutable ones, the mutable ones, then the checksum. The table alias is `d`.
pub(crate) const COLUMNS: &str = "d.id, d.event, d.function, d.trigger, d.order_key, d.origin, d.bytes, \
     d.replay, d.state, d.attempts, d.forgiven, d.since_ms, d.due_ms, d.cause, d.done_ms, d.done_us, d.sum";
const FIXED: usize = 8;
const MUTABLE: usize = 8;
/// The number of [`COLUMNS`].
pub(crate) const COLUMN_COUNT: usize = FIXED + MUTABLE + 1;

/// Verifies the checksum of [`COLUMNS`] that start at column `at`.
fn verify(row: &Row<'_>, at: usize) -> rusqlite::Result<()> {
    let sum = checksum::of_row(row, at, FIXED)? + checksum::of_row(row, at + FIXED, MUTABLE)?;
    if row.get_ref(at + FIXED + MUTABLE)? == ValueRef::Integer(sum) {
        return Ok(());
    }
    Err(checksum::corrupt(format!("delivery {}", row.get::<_, i64>(at)?)))
}

/// Returns true if a delivery matches its checksum and is in one of these states. Reads the row itself, because an
/// index may be damaged. A damaged delivery is logged and must not be updated: SQLite would not find the index entries
/// of the row, and the whole transaction would fail.
pub(crate) fn is_intact(c: &Connection, id: DeliveryId, states: &[i64]) -> rusqlite::Result<bool> {
    let found = c
        .prepare_cached(&format!("SELECT {COLUMNS} FROM deliveries d WHERE d.id = ?1"))?
        .query_row([id.0], |r| {
            verify(r, 0)?;
            r.get::<_, i64>(8)
        })
        .optional();
    match found {
        Ok(state) => Ok(state.is_some_and(|state| states.contains(&state))),
        Err(error) => {
            let what = checksum::find_damage(&error).ok_or(error)?;
            tracing::error!("{} is damaged: {what}; the delivery is not changed", c.path().unwrap_or_default());
            Ok(false)
        }
    }
}

/// Returns the checksum of a delivery's immutable columns.
pub(crate) fn fixed_sum(
    id: DeliveryId,
    event: Seq,
    owner: Owner,
    trigger: &str,
    order_key: Option<&str>,
    share: Share,
) -> i64 {
    use ValueRef::Integer;
    checksum::of_values([
        Integer(id.0),
        Integer(event.0),
        Integer(owner.function.0),
        trigger.into(),
        order_key.into(),
        Integer(share.origin.0.into()),
        Integer(share.bytes),
        Integer(owner.replay.0),
    ])
}

/// Returns the checksum of a delivery's mutable columns, for a delivery that was never redriven: its `forgiven` is 0.
pub(crate) fn mutable_sum(
    state: i64,
    attempts: i64,
    since_ms: UnixMs,
    due_ms: Option<UnixMs>,
    cause: Option<&str>,
    done: Option<Timing>,
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

/// Builds an UPDATE of the delivery with the id `?1`. `$sets` has the assignments, and `$become` has the new values of
/// all mutable columns, for the checksum. The checksum changes by the difference between the checksums of the new and
/// the old values, so a wrong checksum stays wrong.
macro_rules! change_delivery {
    ($sets:literal, $become:literal $(, $returning:literal)?) => {
        concat!(
            "UPDATE deliveries SET ", $sets,
            ", sum = sum - sum_of(state, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us) + sum_of(",
            $become, ") WHERE id = ?1" $(, " RETURNING ", $returning)?
        )
    };
}
pub(crate) use change_delivery;

/// The values that a delivery must have. If a query has searched an index for these values and finds a delivery with
/// other values, the index is damaged.
#[derive(Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) state: i64,
    /// `None` allows any function.
    pub(crate) function: Option<FunctionId>,
}

/// Reads a row that consists of [`event::COLUMNS`] (all NULL if there is no event) and [`COLUMNS`]. Returns an error if
/// the delivery is corrupt, or if it does not have the expected values.
pub(crate) fn ready(c: &Connection, row: &Row<'_>, expected: Expected) -> rusqlite::Result<ReadyDelivery> {
    let delivery = without_event(row, event::COLUMN_COUNT, expected)?;
    let found = if row.get_ref(0)? == ValueRef::Null { None } else { Some(event::read(c, row)?) };
    Ok(delivery.with_event(c, found))
}

/// A pending delivery whose event is not read yet.
pub(crate) struct WithoutEvent {
    pub(crate) event: Seq,
    id: DeliveryId,
    function: FunctionId,
    trigger: Arc<str>,
    attempts: u32,
    attempts_forgiven: u32,
    since_ms: UnixMs,
    replay: Option<ReplayId>,
    /// The origin from the row of the delivery, for the case that the event is damaged. It shows whether the event was
    /// a runtime event: a failed delivery of a runtime event must not cause another runtime event.
    origin: Origin,
}

/// Reads [`COLUMNS`] from column `at` on. Returns the same errors as [`ready`].
pub(crate) fn without_event(row: &Row<'_>, at: usize, expected: Expected) -> rusqlite::Result<WithoutEvent> {
    verify(row, at)?;
    let (id, function) = (DeliveryId(row.get(at)?), FunctionId(row.get(at + 2)?));
    let state: i64 = row.get(at + 8)?;
    if state != expected.state || expected.function.is_some_and(|expected| expected != function) {
        return Err(checksum::corrupt(format!("the index entry of delivery {id} (wrong state or function)")));
    }
    Ok(WithoutEvent {
        event: Seq(row.get(at + 1)?),
        id,
        function,
        trigger: row.get::<_, String>(at + 3)?.into(),
        attempts: row.get(at + 9)?,
        attempts_forgiven: row.get(at + 10)?,
        since_ms: row.get(at + 11)?,
        replay: replay(ReplayId(row.get(at + 7)?)),
        origin: Origin(row.get(at + 5)?),
    })
}

impl WithoutEvent {
    /// Adds the event; `None` means that it is missing.
    pub(crate) fn with_event(self, c: &Connection, found: Option<ReadEvent>) -> ReadyDelivery {
        let Self { event: seq, id, function, trigger, attempts, attempts_forgiven, since_ms, replay, origin } = self;
        let missing = || {
            let what = format!("event {seq} is missing in {}", c.path().unwrap_or_default());
            Err(DamagedEvent { seq, what: what.into() })
        };
        let event = found.unwrap_or_else(missing).map(Arc::new);
        let origin = event.as_ref().map_or(origin, |stored| stored.lineage.origin);
        ReadyDelivery { id, function, trigger, attempts, attempts_forgiven, since_ms, replay, origin, event }
    }
}

/// Reads a row that consists of [`COLUMNS`] and the id, name and checksum of the function. The record contains
/// the successful attempt if the row stores one, and no other attempts. For a damaged row, returns the damage.
pub(crate) fn record(c: &Connection, row: &Row<'_>) -> rusqlite::Result<ReadDelivery> {
    let id = DeliveryId(row.get(0)?);
    let intact = || {
        verify(row, 0)?;
        let state = state(row.get(8)?)?;
        checksum::verify(row, COLUMN_COUNT, 2, || format!("the function of delivery {id}"))?;
        Ok(DeliveryRecord {
            id,
            event: Seq(row.get(1)?),
            function: row.get(COLUMN_COUNT + 1)?,
            trigger: row.get(3)?,
            order_key: row.get(4)?,
            replay: replay(ReplayId(row.get(7)?)),
            state,
            cause: row.get(13)?,
            due_ms: if state == DeliveryState::Retrying { row.get(12)? } else { None },
            attempts: attempt::done(row)?.into_iter().collect(),
        })
    };
    intact().map(Ok).or_else(|error: rusqlite::Error| {
        let what = checksum::find_damage(&error).ok_or(error)?;
        let state = row.get(8).ok().and_then(|value| state(value).ok());
        let what = format!("delivery {id} in {} is damaged: {what}", c.path().unwrap_or_default());
        Ok(Err(DamagedDelivery { id, state, attempts: Vec::new(), what }))
    })
}
