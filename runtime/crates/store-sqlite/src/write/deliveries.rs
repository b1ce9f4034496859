//! Adds deliveries, and keeps those of one order key in order.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::GroupCommit;
use crate::read;
use crate::rows::delivery::{self, change_delivery};
use crate::rows::{self, LIVE, Owner};
use crate::totals::Recent;
use evoke_model::{DeliveryId, NewDelivery, Origin, ReadyDelivery, ReplayId, StoredEvent};
use evoke_store::backlog::Share;

/// Adds a live or replayed delivery of an event.
pub(super) fn insert_delivery(
    commit: &mut GroupCommit<'_>,
    replay: ReplayId,
    event: &Arc<StoredEvent>,
    new: NewDelivery,
) -> rusqlite::Result<()> {
    let (tx, since_ms) = (commit.tx, commit.now_ms);
    let NewDelivery { function, trigger, order_key } = new;
    let owner = Owner { function, replay };
    let blocked = match &order_key {
        Some(key) => first_unfinished(tx, owner, key)?.is_some(),
        None => false,
    };
    let state = if blocked { rows::BLOCKED } else { rows::READY };
    // Replayed deliveries count towards no source, because replays have a limit of their own.
    let origin = if replay == LIVE { event.lineage.origin } else { Origin::default() };
    let bytes = i64::try_from(event.event.size()).unwrap_or(i64::MAX);
    let share = Share { origin, bytes, published: event.lineage.cause.is_some() };
    let id = commit.counters.add_delivery(owner, state, share);
    let key = order_key.as_deref();
    let fixed_sum = delivery::fixed_sum(id, event.seq, owner, &trigger, key, share);
    let sum = fixed_sum + delivery::mutable_sum(state, 0, since_ms, None, None, None);
    tx.prepare_cached(
        "INSERT INTO deliveries (id, event, function, trigger, order_key, state, since_ms, origin, bytes, replay, sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        id.0,
        event.seq.0,
        function.0,
        &*trigger,
        order_key,
        state,
        since_ms,
        share.origin.0,
        share.bytes,
        replay.0,
        sum
    ])?;
    if !blocked {
        commit.counters.add_recent(id, Recent { owner, order_key, share, since_ms, fixed_sum });
        commit.ready.push(ReadyDelivery {
            id,
            function,
            trigger,
            attempts: 0,
            attempts_forgiven: 0,
            since_ms,
            replay: rows::replay(replay),
            origin: event.lineage.origin,
            event: Ok(event.clone()),
        });
    }
    Ok(())
}

/// Returns true if no earlier delivery of the order key is unfinished.
pub(super) fn is_first(tx: &Connection, owner: Owner, key: Option<&str>, id: DeliveryId) -> rusqlite::Result<bool> {
    let Some(key) = key else { return Ok(true) };
    Ok(first_unfinished(tx, owner, key)?.is_none_or(|(first, _)| first == id))
}

/// Returns the first delivery of an order key that is neither done nor purged; only this one may run.
fn first_unfinished(tx: &Connection, owner: Owner, key: &str) -> rusqlite::Result<Option<(DeliveryId, i64)>> {
    tx.prepare_cached(
        "SELECT id, state FROM deliveries WHERE function = ?1 AND order_key = ?2 AND replay = ?3
         AND order_key IS NOT NULL AND (state < 3 OR state = 4) ORDER BY id LIMIT 1",
    )?
    .query_row(params![owner.function.0, key, owner.replay.0], |r| Ok((DeliveryId(r.get(0)?), r.get(1)?)))
    .optional()
}

/// Makes the next delivery of an order key ready, after the one before it was finished.
pub(super) fn unblock_next(commit: &mut GroupCommit<'_>, owner: Owner, key: &str) -> rusqlite::Result<()> {
    let tx = commit.tx;
    let Some((id, rows::BLOCKED)) = first_unfinished(tx, owner, key)? else { return Ok(()) };
    if !delivery::is_intact(tx, id, &[rows::BLOCKED])? {
        return Ok(());
    }
    tx.prepare_cached(change_delivery!(
        "state = 0",
        "0, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us"
    ))?
    .execute([id.0])?;
    commit.counters.change_state(owner, rows::BLOCKED, rows::READY);
    commit.ready.extend(read::ready_one(tx, id)?);
    Ok(())
}
