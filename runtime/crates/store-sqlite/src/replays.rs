//! Writes and queries for replays.

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::queue::{PORTION_MAX, Portion};
use super::rows::{Owner, delivery};
use super::totals::{self, Counters};
use super::write::insert_delivery;
use super::{checksum, rows};
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, NewReplay, ReadyDelivery, Replay, ReplayId, ReplayState, Step};
use evoke_store::backlog::Share;

/// The states; the index is the number in the column.
const STATES: [ReplayState; 5] =
    [ReplayState::Running, ReplayState::Paused, ReplayState::Done, ReplayState::Cancelling, ReplayState::Cancelled];

fn column(state: ReplayState) -> i64 {
    STATES.iter().position(|s| *s == state).and_then(|place| i64::try_from(place).ok()).unwrap_or(-1)
}

pub(super) fn start(tx: &Connection, now_ms: UnixMs, new: &NewReplay) -> rusqlite::Result<ReplayId> {
    let id = tx
        .prepare_cached("INSERT INTO replays (filter, created_ms, state, position, until) VALUES (?1, ?2, 0, ?3, ?4)")?
        .insert(params![new.filter, now_ms, new.after, new.until])?;
    tx.prepare_cached(
        "UPDATE replays SET sum = sum_of(id, filter, created_ms, until) + sum_of(state, position, events) WHERE id = ?1",
    )?
    .execute([id])?;
    Ok(id)
}

pub(super) fn advance(
    tx: &Connection,
    counters: &mut Counters,
    now_ms: UnixMs,
    replay: ReplayId,
    step: Step,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<bool> {
    let Step { position, offers } = step;
    let advanced = tx
        .prepare_cached(
            "UPDATE replays SET position = ?2,
               sum = sum - sum_of(state, position, events) + sum_of(state, ?2, events)
             WHERE id = ?1 AND state = 0 AND position < ?2",
        )?
        .execute(params![replay, position])?;
    if advanced == 0 {
        return Ok(false);
    }
    let mut events = 0;
    for (event, deliveries) in offers {
        // Retention may have removed the event since the runner read it.
        let there = tx.prepare_cached("SELECT 1 FROM events WHERE seq = ?1")?.exists([event.seq])?;
        if !there {
            continue;
        }
        events += 1;
        for delivery in deliveries {
            insert_delivery(tx, counters, replay, now_ms, &event, delivery, ready)?;
        }
    }
    tx.prepare_cached(
        "UPDATE replays SET events = events + ?2,
           sum = sum - sum_of(state, position, events) + sum_of(state, position, events + ?2) WHERE id = ?1",
    )?
    .execute(params![replay, events])?;
    Ok(true)
}

pub(super) fn transition(
    tx: &Connection,
    replay: ReplayId,
    from: &[ReplayState],
    to: ReplayState,
) -> rusqlite::Result<bool> {
    let mut update = tx.prepare_cached(
        "UPDATE replays SET state = ?2,
           sum = sum - sum_of(state, position, events) + sum_of(?2, position, events) WHERE id = ?1 AND state = ?3",
    )?;
    for state in from {
        if update.execute(params![replay, column(to), column(*state)])? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Purges a portion of a replay's pending deliveries. The whole order-key chains are purged, so nothing is unblocked.
pub(super) fn purge_pending(
    tx: &Connection,
    counters: &mut Counters,
    replay: ReplayId,
    except: &[DeliveryId],
    after: DeliveryId,
) -> rusqlite::Result<Portion> {
    let found: Vec<(DeliveryId, Owner, i64, Share)> = tx
        .prepare_cached(
            "SELECT id, function, replay, state, origin, bytes FROM deliveries
             WHERE replay = ?1 AND replay <> 0 AND state < 3 AND id > ?2 ORDER BY id LIMIT ?3",
        )?
        .query_map(params![replay, after, PORTION_MAX as i64], |r| {
            Ok((r.get(0)?, rows::owner(r, 1)?, r.get(3)?, rows::share(r, 4)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let ids: Vec<DeliveryId> = found.iter().map(|(id, ..)| *id).collect();
    let mut portion = Portion { count: 0, ..Portion::of(&ids) };
    for (id, owner, state, share) in found {
        if except.contains(&id) || owner.replay != replay || !delivery::is_intact(tx, id, &[state])? {
            continue;
        }
        counters.take_recent(id);
        tx.prepare_cached(delivery::change_delivery!(
            "state = 5, due_ms = NULL, cause = ?2",
            "5, attempts, forgiven, since_ms, NULL, ?2, done_ms, done_us"
        ))?
        .execute(params![id, Replay::CANCELLED])?;
        counters.change_state(owner, state, rows::PURGED);
        counters.backlog_change().remove(share);
        portion.count += 1;
    }
    Ok(portion)
}

pub(super) fn all(c: &Connection) -> rusqlite::Result<Vec<Replay>> {
    let mut found = Vec::new();
    let mut statement = c.prepare_cached(&format!("SELECT {COLUMNS} FROM replays ORDER BY id"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
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
        .query_row([id], replay)
        .optional()?;
    let Some(mut found) = found else { return Ok(None) };
    found.deliveries = totals::of_replay(c, id)?;
    Ok(Some(found))
}

/// The columns covered by the checksum, in its order, then the checksum.
const COLUMNS: &str = "id, filter, created_ms, until, state, position, events, sum";

fn replay(row: &Row<'_>) -> rusqlite::Result<Replay> {
    let id: ReplayId = row.get(0)?;
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
        position: row.get(5)?,
        until: row.get(3)?,
        events: u64::try_from(row.get::<_, i64>(6)?).unwrap_or_default(),
        deliveries: Default::default(),
    })
}
