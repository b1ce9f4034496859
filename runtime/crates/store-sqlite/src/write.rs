//! The writes, as SQL. All writes of a batch run in one transaction.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::dedup::Dedup;
use super::queue::{Applied, PORTION_MAX, Portion, Write};
use super::read;
use super::replays;
use super::retain;
use super::rows::attempt::{self, Timing};
use super::rows::delivery::{self, change_delivery};
use super::rows::{self, LIVE, Owner};
use super::state::Batch;
use super::totals::{Counters, Recent};
use evoke_model::clock::UnixMs;
use evoke_model::{
    Accepted, Completed, Completion, DeadFilter, DeliveryId, FunctionId, Mark, NewDelivery, NewEvent, Origin,
    ReadyDelivery, ReplayId, StoredEvent, Verdict,
};
use evoke_store::backlog::Share;
use evoke_store::validate::Validation;

/// Applies one write. The write is returned in any case, so that its caller also receives a failure.
pub(super) fn apply(
    tx: &Connection,
    dedup: &mut Dedup,
    counters: &mut Counters,
    now_ms: UnixMs,
    write: Write,
    state: &mut Batch<'_>,
    ready: &mut Vec<ReadyDelivery>,
) -> (Applied, rusqlite::Result<()>) {
    fn split<T: Default>(result: rusqlite::Result<T>) -> (T, rusqlite::Result<()>) {
        match result {
            Ok(value) => (value, Ok(())),
            Err(error) => (T::default(), Err(error)),
        }
    }
    match write {
        Write::Register { names, reply } => {
            let (ids, result) = split(register(tx, &names));
            (Applied::Ids(reply, ids), result)
        }
        Write::Accept { events, marks, reply } => {
            let (accepted, result) = split(accept(tx, dedup, counters, now_ms, events, &marks, ready));
            (Applied::Accepted(reply, accepted), result)
        }
        Write::Complete { completion, reply } => {
            let result = complete(tx, dedup, counters, now_ms, &completion, state, ready);
            state.finish(&completion);
            let (completed, result) = split(result);
            (Applied::completed(completion, reply, completed), result)
        }
        Write::State { changes, reply } => {
            let (existed, result) = split(state.write(&changes));
            (Applied::Count(reply, existed), result)
        }
        Write::Redrive { which, after, reply } => {
            let (portion, result) = split(redrive(tx, counters, now_ms, &which, after, ready));
            (Applied::Portion(reply, portion), result)
        }
        Write::Purge { which, after, reply } => {
            let (portion, result) = split(purge(tx, counters, &which, after, ready));
            (Applied::Portion(reply, portion), result)
        }
        Write::StartReplay { new, reply } => {
            let (id, result) = split(replays::start(tx, now_ms, &new));
            (Applied::Replay(reply, id), result)
        }
        Write::AdvanceReplay { replay, step, reply } => {
            let (advanced, result) = split(replays::advance(tx, counters, now_ms, replay, step, ready));
            (Applied::Flag(reply, advanced), result)
        }
        Write::TransitionReplay { replay, from, to, reply } => {
            let (moved, result) = split(replays::transition(tx, replay, from, to));
            (Applied::Flag(reply, moved), result)
        }
        Write::PurgeReplay { replay, except, after, reply } => {
            let (portion, result) = split(replays::purge_pending(tx, counters, replay, &except, after));
            (Applied::Portion(reply, portion), result)
        }
        Write::Remove { events, reply } => {
            let (removed, result) = split(retain::remove(tx, dedup, counters, now_ms, &events));
            (Applied::Count(reply, removed), result)
        }
        Write::Maintain { shrinking, reply } => {
            let (maintained, result) = split(retain::maintain(tx, dedup, now_ms, shrinking));
            (Applied::Maintained(reply, maintained), result)
        }
        Write::Checkpoint { reply } | Write::Close { reply } => (Applied::Unit(reply), Ok(())),
    }
}

fn register(tx: &Connection, names: &[String]) -> rusqlite::Result<Vec<FunctionId>> {
    let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO functions (name) VALUES (?1)")?;
    let mut sum = tx.prepare_cached("UPDATE functions SET sum = sum_of(id, name) WHERE name = ?1")?;
    let mut select = tx.prepare_cached("SELECT id FROM functions WHERE name = ?1")?;
    names
        .iter()
        .map(|name| {
            if insert.execute([name])? > 0 {
                sum.execute([name])?;
            }
            select.query_row([name], |r| r.get(0))
        })
        .collect()
}

fn accept(
    tx: &Connection,
    dedup: &Dedup,
    counters: &mut Counters,
    now_ms: UnixMs,
    events: Vec<NewEvent>,
    marks: &[Mark],
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<Vec<Accepted>> {
    let accepted = events
        .into_iter()
        .map(|new| insert_event(tx, dedup, counters, now_ms, new, ready))
        .collect::<rusqlite::Result<_>>()?;
    for mark in marks {
        rows::put_mark(tx, mark)?;
    }
    Ok(accepted)
}

fn insert_event(
    tx: &Connection,
    dedup: &Dedup,
    counters: &mut Counters,
    now_ms: UnixMs,
    new: NewEvent,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<Accepted> {
    let NewEvent { event, lineage, deliveries } = new;
    if let Some(known) = dedup.find_accepted(tx, &event, lineage, now_ms)? {
        return Ok(Accepted::Duplicate(known));
    }
    counters.add_event();
    let seq = counters.last_seq();
    rows::event::insert(tx, seq, &event, lineage, now_ms, counters.last_delivery() + 1, deliveries.len())?;
    let stored = Arc::new(StoredEvent { seq, accepted_ms: now_ms, lineage, event, damage: None });
    for delivery in deliveries {
        insert_delivery(tx, counters, LIVE, now_ms, &stored, delivery, ready)?;
    }
    Ok(Accepted::New(seq))
}

/// Adds a live or replayed delivery of an event.
pub(super) fn insert_delivery(
    tx: &Connection,
    counters: &mut Counters,
    replay: ReplayId,
    since_ms: UnixMs,
    event: &Arc<StoredEvent>,
    new: NewDelivery,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<()> {
    let NewDelivery { function, trigger, order_key } = new;
    let owner = Owner { function, replay };
    let blocked = match &order_key {
        Some(key) => first_unfinished(tx, owner, key)?.is_some(),
        None => false,
    };
    let state = if blocked { rows::BLOCKED } else { rows::READY };
    // Replayed deliveries count towards no source, because replays have a limit of their own.
    let origin = if replay == LIVE { event.lineage.origin } else { Origin::default() };
    let share = Share { origin, bytes: i64::try_from(event.event.size()).unwrap_or(i64::MAX) };
    let id = counters.add_delivery(owner, state, share);
    let key = order_key.as_deref();
    let fixed_sum = delivery::fixed_sum(id, event.seq, owner, &trigger, key, share);
    let sum = fixed_sum + delivery::mutable_sum(state, 0, since_ms, None, None, None);
    tx.prepare_cached(
        "INSERT INTO deliveries (id, event, function, trigger, order_key, state, since_ms, origin, bytes, replay, sum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        id,
        event.seq,
        function,
        &*trigger,
        order_key,
        state,
        since_ms,
        share.origin.0,
        share.bytes,
        replay,
        sum
    ])?;
    if !blocked {
        counters.add_recent(id, Recent { owner, order_key, share, since_ms, fixed_sum });
        ready.push(ReadyDelivery {
            id,
            function,
            trigger,
            attempts: 0,
            attempts_forgiven: 0,
            since_ms,
            replay: rows::replay(replay),
            event: event.clone(),
        });
    }
    Ok(())
}

fn complete(
    tx: &Connection,
    dedup: &Dedup,
    counters: &mut Counters,
    now_ms: UnixMs,
    completion: &Completion,
    state_batch: &mut Batch<'_>,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<Completed> {
    let Completion { delivery, record, verdict, publishes, state: transaction, .. } = completion;
    let valid = if transaction.is_empty() {
        None
    } else {
        match state_batch.validate(transaction)? {
            Validation::Valid(valid) => Some(valid),
            _ if !read::is_pending(tx, *delivery)? => return Ok(Completed::Committed),
            Validation::Conflict(place) => return Ok(Completed::Conflict(place)),
            Validation::OverQuota(refusal) => return Ok(Completed::OverQuota(refusal)),
        }
    };
    let (state, due_ms, cause) = match verdict {
        Verdict::Done => (rows::DONE, None, None),
        Verdict::RetryAt(due_ms) => (rows::RETRYING, Some(*due_ms), None),
        Verdict::Dead(cause) => (rows::DEAD, None, Some(cause.as_str())),
    };
    let done = (*verdict == Verdict::Done).then(|| Timing::of(record));
    let Some(previous) = end_attempt(tx, counters, *delivery, state, due_ms, cause, done)? else {
        return Ok(Completed::Committed);
    };
    let Previous { owner, order_key, share, state: before } = previous;
    if let Some(valid) = valid {
        state_batch.apply(transaction, valid)?;
    }
    counters.change_state(owner, before, state);
    if state != rows::RETRYING {
        counters.backlog_change().remove(share);
    }
    if done.is_none() {
        attempt::put(tx, *delivery, record)?;
    }
    for new in publishes {
        insert_event(tx, dedup, counters, now_ms, new.clone(), ready)?;
    }
    if state == rows::DONE
        && let Some(key) = order_key
    {
        unblock_next(tx, counters, owner, &key, ready)?;
    }
    Ok(Completed::Committed)
}

/// A delivery before its attempt ended.
struct Previous {
    owner: Owner,
    order_key: Option<String>,
    share: Share,
    state: i64,
}

/// Moves a ready or retrying delivery to the state in which its attempt ended. Returns `None` when it is in another
/// state.
fn end_attempt(
    tx: &Connection,
    counters: &mut Counters,
    id: DeliveryId,
    state: i64,
    due_ms: Option<UnixMs>,
    cause: Option<&str>,
    done: Option<Timing>,
) -> rusqlite::Result<Option<Previous>> {
    let (done_ms, done_us) = done.map(|timing| (timing.started_ms, timing.duration_us)).unzip();
    if let Some(recent) = counters.take_recent(id) {
        let Recent { owner, order_key, share, since_ms, fixed_sum } = recent;
        let sum = fixed_sum + delivery::mutable_sum(state, 1, since_ms, due_ms, cause, done);
        let ended = tx
            .prepare_cached(
                "UPDATE deliveries SET state = ?2, due_ms = ?3, cause = ?4, done_ms = ?5, done_us = ?6, attempts = 1,
                   sum = ?7
                 WHERE id = ?1 AND state = 0",
            )?
            .execute(params![id, state, due_ms, cause, done_ms, done_us, sum])?;
        if ended == 1 {
            return Ok(Some(Previous { owner, order_key, share, state: rows::READY }));
        }
    }
    // Two statements: SQLite assumes that an UPDATE with RETURNING may fail half-way, and copies every page it changes.
    let previous = tx
        .prepare_cached(
            "SELECT function, replay, order_key, origin, bytes, state FROM deliveries
             WHERE id = ?1 AND state IN (0, 1)",
        )?
        .query_row([id], |r| {
            Ok(Previous {
                owner: rows::owner(r, 0)?,
                order_key: r.get(2)?,
                share: rows::share(r, 3)?,
                state: r.get(5)?,
            })
        })
        .optional()?;
    if previous.is_some() {
        tx.prepare_cached(change_delivery!(
            "state = ?2, due_ms = ?3, cause = ?4, done_ms = ?5, done_us = ?6, attempts = attempts + 1",
            "?2, attempts + 1, forgiven, since_ms, ?3, ?4, ?5, ?6"
        ))?
        .execute(params![id, state, due_ms, cause, done_ms, done_us])?;
    }
    Ok(previous)
}

/// Returns the first delivery of an order key that is neither done nor purged; only this one may run.
fn first_unfinished(tx: &Connection, owner: Owner, key: &str) -> rusqlite::Result<Option<(DeliveryId, i64)>> {
    tx.prepare_cached(
        "SELECT id, state FROM deliveries WHERE function = ?1 AND order_key = ?2 AND replay = ?3
         AND order_key IS NOT NULL AND (state < 3 OR state = 4) ORDER BY id LIMIT 1",
    )?
    .query_row(params![owner.function, key, owner.replay], |r| Ok((r.get(0)?, r.get(1)?)))
    .optional()
}

fn unblock_next(
    tx: &Connection,
    counters: &mut Counters,
    owner: Owner,
    key: &str,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<()> {
    let Some((id, rows::BLOCKED)) = first_unfinished(tx, owner, key)? else { return Ok(()) };
    if !delivery::is_intact(tx, id, &[rows::BLOCKED])? {
        return Ok(());
    }
    tx.prepare_cached(change_delivery!(
        "state = 0",
        "0, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us"
    ))?
    .execute([id])?;
    counters.change_state(owner, rows::BLOCKED, rows::READY);
    ready.extend(read::ready_one(tx, id)?);
    Ok(())
}

fn redrive(
    tx: &Connection,
    counters: &mut Counters,
    now_ms: UnixMs,
    which: &DeadFilter,
    after: DeliveryId,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<Portion> {
    let ids = read::dead_ids(tx, which, after, PORTION_MAX)?;
    let mut portion = Portion { count: 0, ..Portion::of(&ids) };
    for id in &ids {
        if !delivery::is_intact(tx, *id, &[rows::DEAD])? {
            continue;
        }
        portion.count += 1;
        let (owner, share) = tx
            .prepare_cached(change_delivery!(
                "state = 0, cause = NULL, due_ms = NULL, forgiven = attempts, since_ms = ?2",
                "0, attempts, attempts, ?2, NULL, NULL, done_ms, done_us",
                "function, replay, origin, bytes"
            ))?
            .query_row(params![id, now_ms], |r| Ok((rows::owner(r, 0)?, rows::share(r, 2)?)))?;
        counters.change_state(owner, rows::DEAD, rows::READY);
        counters.backlog_change().add(share);
        ready.extend(read::ready_one(tx, *id)?);
    }
    Ok(portion)
}

fn purge(
    tx: &Connection,
    counters: &mut Counters,
    which: &DeadFilter,
    after: DeliveryId,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<Portion> {
    let ids = read::dead_ids(tx, which, after, PORTION_MAX)?;
    let mut portion = Portion { count: 0, ..Portion::of(&ids) };
    for id in &ids {
        if !delivery::is_intact(tx, *id, &[rows::DEAD])? {
            continue;
        }
        portion.count += 1;
        let (owner, order_key): (Owner, Option<String>) = tx
            .prepare_cached(change_delivery!(
                "state = 5",
                "5, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us",
                "function, replay, order_key"
            ))?
            .query_row([id], |r| Ok((rows::owner(r, 0)?, r.get(2)?)))?;
        counters.change_state(owner, rows::DEAD, rows::PURGED);
        if let Some(key) = order_key {
            unblock_next(tx, counters, owner, &key, ready)?;
        }
    }
    Ok(portion)
}
