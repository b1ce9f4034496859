//! The writes, each as the SQL that it is. All of a batch run in one transaction.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::dedup::Dedup;
use super::queue::{PORTION_MAX, Portion, Settled, Write};
use super::read;
use super::replays;
use super::retain;
use super::rows::{self, Took, change_delivery};
use super::state::Batch;
use super::totals::{Counters, LIVE, Owner, Young};
use crate::clock::UnixMs;
use crate::store::backlog::Share;
use crate::store::judge::Judged;
use crate::store::{
    Accepted, Completed, Completion, DeadFilter, DeliveryId, FunctionId, Mark, NewDelivery, NewEvent, Origin,
    ReadyDelivery, ReplayId, StoredEvent, Verdict,
};

/// Applies one write. The answer comes back in any case, so that whoever asked hears of a failure too.
pub(super) fn apply(
    tx: &Connection,
    dedup: &mut Dedup,
    counters: &mut Counters,
    now_ms: UnixMs,
    write: Write,
    state: &mut Batch<'_>,
    ready: &mut Vec<ReadyDelivery>,
) -> (Settled, rusqlite::Result<()>) {
    fn settle<T: Default>(result: rusqlite::Result<T>) -> (T, rusqlite::Result<()>) {
        match result {
            Ok(value) => (value, Ok(())),
            Err(error) => (T::default(), Err(error)),
        }
    }
    match write {
        Write::Register { names, reply } => {
            let (ids, result) = settle(register(tx, &names));
            (Settled::Ids(reply, ids), result)
        }
        Write::Accept { events, marks, reply } => {
            let (accepted, result) = settle(accept(tx, dedup, counters, now_ms, events, &marks, ready));
            (Settled::Accepted(reply, accepted), result)
        }
        Write::Complete { completion, reply } => {
            let result = complete(tx, dedup, counters, now_ms, &completion, state, ready);
            state.over(&completion);
            let (completed, result) = settle(result);
            (Settled::completed(completion, reply, completed), result)
        }
        Write::State { changes, reply } => {
            let (existed, result) = settle(state.write(&changes));
            (Settled::Count(reply, existed), result)
        }
        Write::Redrive { which, after, reply } => {
            let (portion, result) = settle(redrive(tx, counters, now_ms, &which, after, ready));
            (Settled::Portion(reply, portion), result)
        }
        Write::Purge { which, after, reply } => {
            let (portion, result) = settle(purge(tx, counters, &which, after, ready));
            (Settled::Portion(reply, portion), result)
        }
        Write::StartReplay { new, reply } => {
            let (id, result) = settle(replays::start(tx, now_ms, &new));
            (Settled::Replay(reply, id), result)
        }
        Write::AdvanceReplay { replay, step, reply } => {
            let (advanced, result) = settle(replays::advance(tx, counters, now_ms, replay, step, ready));
            (Settled::Whether(reply, advanced), result)
        }
        Write::TurnReplay { replay, from, to, reply } => {
            let (turned, result) = settle(replays::turn(tx, replay, from, to));
            (Settled::Whether(reply, turned), result)
        }
        Write::DropReplay { replay, but_for, after, reply } => {
            let (portion, result) = settle(replays::let_go(tx, counters, replay, &but_for, after));
            (Settled::Portion(reply, portion), result)
        }
        Write::Remove { events, reply } => {
            let (removed, result) = settle(retain::remove(tx, dedup, counters, now_ms, &events));
            (Settled::Count(reply, removed), result)
        }
        Write::Tidy { shrinking, reply } => {
            let (tidied, result) = settle(retain::tidy(tx, dedup, now_ms, shrinking));
            (Settled::Tidied(reply, tidied), result)
        }
        Write::Checkpoint { reply } | Write::Close { reply } => (Settled::Unit(reply), Ok(())),
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
    if let Some(known) = dedup.known(tx, &event, lineage, now_ms)? {
        return Ok(Accepted::Duplicate(known));
    }
    counters.event();
    let seq = counters.newest();
    rows::insert_event(tx, seq, &event, lineage, now_ms, counters.last_delivery() + 1, deliveries.len())?;
    let stored = Arc::new(StoredEvent { seq, accepted_ms: now_ms, lineage, event, damage: None });
    for delivery in deliveries {
        insert_delivery(tx, counters, LIVE, now_ms, &stored, delivery, ready)?;
    }
    Ok(Accepted::New(seq))
}

/// Adds a delivery of an event, live or of a replay.
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
    // What replays add is nobody's share: they are bounded on their own.
    let origin = if replay == LIVE { event.lineage.origin } else { Origin::default() };
    let share = Share { origin, bytes: i64::try_from(event.event.size()).unwrap_or(i64::MAX) };
    let id = counters.delivery(owner, state, share);
    let key = order_key.as_deref();
    let staying_sum = rows::staying_sum(id, event.seq, owner, &trigger, key, share);
    let sum = staying_sum + rows::changing_sum(state, 0, since_ms, None, None, None);
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
        counters.is_young(id, Young { owner, order_key, share, since_ms, staying_sum });
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
    kept: &mut Batch<'_>,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<Completed> {
    let Completion { delivery, record, verdict, publishes, state: transaction, .. } = completion;
    let stands = if transaction.is_empty() {
        None
    } else {
        match kept.judge(transaction)? {
            Judged::Stands(stands) => Some(stands),
            _ if !read::is_pending(tx, *delivery)? => return Ok(Completed::Committed),
            Judged::Conflict(place) => return Ok(Completed::Conflict(place)),
            Judged::OverQuota(refusal) => return Ok(Completed::OverQuota(refusal)),
        }
    };
    let (state, due_ms, cause) = match verdict {
        Verdict::Done => (rows::DONE, None, None),
        Verdict::RetryAt(due_ms) => (rows::RETRYING, Some(*due_ms), None),
        Verdict::Dead(cause) => (rows::DEAD, None, Some(cause.as_str())),
    };
    let done = (*verdict == Verdict::Done).then(|| Took::of(record));
    let Some(was) = end_attempt(tx, counters, *delivery, state, due_ms, cause, done)? else {
        return Ok(Completed::Committed);
    };
    let Was { owner, order_key, share, state: before } = was;
    if let Some(stands) = stands {
        kept.apply(transaction, stands)?;
    }
    counters.moved(owner, before, state);
    if state != rows::RETRYING {
        counters.backlog().went(share);
    }
    if done.is_none() {
        rows::put_attempt(tx, *delivery, record)?;
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
struct Was {
    owner: Owner,
    order_key: Option<String>,
    share: Share,
    state: i64,
}

/// Brings a delivery that is ready or retrying to the state that its attempt ended in; `None` when it is neither.
fn end_attempt(
    tx: &Connection,
    counters: &mut Counters,
    id: DeliveryId,
    state: i64,
    due_ms: Option<UnixMs>,
    cause: Option<&str>,
    done: Option<Took>,
) -> rusqlite::Result<Option<Was>> {
    let (done_ms, done_us) = done.map(|took| (took.started_ms, took.us)).unzip();
    if let Some(young) = counters.grown_up(id) {
        let Young { owner, order_key, share, since_ms, staying_sum } = young;
        let sum = staying_sum + rows::changing_sum(state, 1, since_ms, due_ms, cause, done);
        let ended = tx
            .prepare_cached(
                "UPDATE deliveries SET state = ?2, due_ms = ?3, cause = ?4, done_ms = ?5, done_us = ?6, attempts = 1,
                   sum = ?7
                 WHERE id = ?1 AND state = 0",
            )?
            .execute(params![id, state, due_ms, cause, done_ms, done_us, sum])?;
        if ended == 1 {
            return Ok(Some(Was { owner, order_key, share, state: rows::READY }));
        }
    }
    // Two statements: an UPDATE that returns its row may fail half-way for all that SQLite knows, and copies every page
    // that it changes for that.
    let was = tx
        .prepare_cached(
            "SELECT function, replay, order_key, origin, bytes, state FROM deliveries
             WHERE id = ?1 AND state IN (0, 1)",
        )?
        .query_row([id], |r| {
            Ok(Was { owner: rows::owner(r, 0)?, order_key: r.get(2)?, share: rows::share(r, 3)?, state: r.get(5)? })
        })
        .optional()?;
    if was.is_some() {
        tx.prepare_cached(change_delivery!(
            "state = ?2, due_ms = ?3, cause = ?4, done_ms = ?5, done_us = ?6, attempts = attempts + 1",
            "?2, attempts + 1, forgiven, since_ms, ?3, ?4, ?5, ?6"
        ))?
        .execute(params![id, state, due_ms, cause, done_ms, done_us])?;
    }
    Ok(was)
}

/// The first delivery of an order key that is neither done nor purged: only it may run.
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
    if !rows::is_sound(tx, id, &[rows::BLOCKED])? {
        return Ok(());
    }
    tx.prepare_cached(change_delivery!(
        "state = 0",
        "0, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us"
    ))?
    .execute([id])?;
    counters.moved(owner, rows::BLOCKED, rows::READY);
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
        if !rows::is_sound(tx, *id, &[rows::DEAD])? {
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
        counters.moved(owner, rows::DEAD, rows::READY);
        counters.backlog().came(share);
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
        if !rows::is_sound(tx, *id, &[rows::DEAD])? {
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
        counters.moved(owner, rows::DEAD, rows::PURGED);
        if let Some(key) = order_key {
            unblock_next(tx, counters, owner, &key, ready)?;
        }
    }
    Ok(portion)
}
