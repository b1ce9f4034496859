//! Adds deliveries, and ensures that the deliveries of an order key run one after another.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::GroupCommit;
use crate::read;
use crate::rows::delivery::{self, change_delivery};
use crate::rows::{self, LIVE, Owner};
use crate::totals::Recent;
use evoke_model::{DeliveryId, NewDelivery, Origin, ReadyDelivery, ReplayId, Seq, StoredEvent};
use evoke_store::backlog::Share;

/// Adds a live or replayed delivery of an event.
pub(super) fn insert_delivery(
    commit: &mut GroupCommit<'_>,
    replay: ReplayId,
    event: &Arc<StoredEvent>,
    new: NewDelivery,
) -> rusqlite::Result<()> {
    let share = Share::of(&event.event, &event.lineage);
    // Deliveries of replays do not count towards the limit of a source, because replays have a limit of their own.
    let share = if replay == LIVE { share } else { Share { origin: Origin::default(), ..share } };
    insert_with_share(commit, replay, event, new, share)
}

/// Adds a live delivery of a scheduled event that became due.
pub(super) fn insert_released(
    commit: &mut GroupCommit<'_>,
    event: &Arc<StoredEvent>,
    new: NewDelivery,
) -> rusqlite::Result<()> {
    insert_with_share(commit, LIVE, event, new, Share::of_released(&event.event, &event.lineage))
}

fn insert_with_share(
    commit: &mut GroupCommit<'_>,
    replay: ReplayId,
    event: &Arc<StoredEvent>,
    new: NewDelivery,
    share: Share,
) -> rusqlite::Result<()> {
    let owner = Owner { function: new.function, replay };
    let blocked = match &new.order_key {
        Some(key) => first_unfinished(commit.tx, owner, key)?.is_some(),
        None => false,
    };
    let state = if blocked { rows::BLOCKED } else { rows::READY };
    let (id, fixed_sum) = insert_row(commit, owner, event.seq, &new, (state, None), share)?;
    let (NewDelivery { function, trigger, order_key }, since_ms) = (new, commit.now_ms);
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

/// Adds the row of a delivery in `state`, with its cause, and counts it. Returns its id and the checksum of the columns
/// that never change.
pub(super) fn insert_row(
    commit: &mut GroupCommit<'_>,
    owner: Owner,
    event: Seq,
    new: &NewDelivery,
    (state, cause): (i64, Option<&str>),
    share: Share,
) -> rusqlite::Result<(DeliveryId, i64)> {
    let NewDelivery { trigger, order_key, .. } = new;
    let since_ms = commit.now_ms;
    let id = commit.counters.add_delivery(owner, state, share);
    let fixed_sum = delivery::fixed_sum(id, event, owner, trigger, order_key.as_deref(), share);
    let sum = fixed_sum + delivery::mutable_sum(state, 0, since_ms, None, cause, None);
    commit
        .statements
        .get(
            "INSERT INTO deliveries
               (id, event, function, trigger, order_key, state, since_ms, cause, origin, bytes, replay, sum)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            id.0,
            event.0,
            owner.function.0,
            &**trigger,
            order_key,
            state,
            since_ms,
            cause,
            share.origin.0,
            share.bytes,
            owner.replay.0,
            sum
        ])?;
    Ok((id, fixed_sum))
}

/// Returns true if no earlier delivery of the order key is unfinished.
pub(super) fn is_first(tx: &Connection, owner: Owner, key: Option<&str>, id: DeliveryId) -> rusqlite::Result<bool> {
    let Some(key) = key else { return Ok(true) };
    Ok(first_unfinished(tx, owner, key)?.is_none_or(|(first, _)| first == id))
}

/// Returns the first delivery of an order key that is neither done nor purged. No other delivery of the key may run.
fn first_unfinished(tx: &Connection, owner: Owner, key: &str) -> rusqlite::Result<Option<(DeliveryId, i64)>> {
    tx.prepare_cached(
        "SELECT id, state FROM deliveries WHERE function = ?1 AND order_key = ?2 AND replay = ?3
         AND order_key IS NOT NULL AND (state < 3 OR state = 4) ORDER BY id LIMIT 1",
    )?
    .query_row(params![owner.function.0, key, owner.replay.0], |r| Ok((DeliveryId(r.get(0)?), r.get(1)?)))
    .optional()
}

/// Makes the first unfinished delivery of an order key ready if it is blocked. Must be called when the preceding
/// delivery of the key has become done or purged, and when deliveries of the key have moved to another function.
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
