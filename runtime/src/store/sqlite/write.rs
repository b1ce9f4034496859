//! The writes, each as the SQL that it is. All of a batch run in one transaction.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use tokio::sync::oneshot;

use super::dedup::Dedup;
use super::read;
use super::retain::{self, Tidied};
use super::rows;
use super::totals::Counters;
use crate::clock::UnixMs;
use crate::store::backlog::Share;
use crate::store::{
    Accepted, Completion, DeadFilter, DeliveryId, FunctionId, Mark, NewDelivery, NewEvent, ReadyDelivery, Result, Seq,
    StoreError, StoredEvent, Verdict,
};

type Reply<T> = oneshot::Sender<Result<T>>;

/// How many dead letters one write takes: their events are in memory until they are announced.
pub(super) const PORTION_MAX: usize = 256;

/// A share of the dead letters that a filter names.
#[derive(Default)]
pub(super) struct Portion {
    pub(super) count: u64,
    /// Where the next one starts; `None` when this was the last.
    pub(super) next_after: Option<DeliveryId>,
}

impl Portion {
    fn of(ids: &[DeliveryId]) -> Self {
        let next_after = if ids.len() < PORTION_MAX { None } else { ids.last().copied() };
        Self { count: ids.len() as u64, next_after }
    }
}

/// A write that waits for the next commit.
pub(super) enum Write {
    Register {
        names: Vec<String>,
        reply: Reply<Vec<FunctionId>>,
    },
    Accept {
        events: Vec<NewEvent>,
        marks: Vec<Mark>,
        reply: Reply<Vec<Accepted>>,
    },
    /// Without a reply, the sink is told.
    Complete {
        completion: Arc<Completion>,
        reply: Option<Reply<()>>,
    },
    Redrive {
        which: DeadFilter,
        after: DeliveryId,
        reply: Reply<Portion>,
    },
    Purge {
        which: DeadFilter,
        after: DeliveryId,
        reply: Reply<Portion>,
    },
    Remove {
        events: Vec<Seq>,
        reply: Reply<u64>,
    },
    Tidy {
        shrinking: bool,
        reply: Reply<Tidied>,
    },
    /// Has the file take over what was written, and be as short as it became.
    Checkpoint {
        reply: Reply<()>,
    },
    Close {
        reply: Reply<()>,
    },
}

impl Write {
    /// Payload in bytes, roughly.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Accept { events, .. } => events.iter().map(|e| e.event.size()).sum(),
            Self::Complete { completion, .. } => completion.publishes.iter().map(|e| e.event.size()).sum(),
            _ => 0,
        }
    }

    pub(super) fn is_checkpoint(&self) -> bool {
        matches!(self, Self::Checkpoint { .. })
    }

    pub(super) fn is_close(&self) -> bool {
        matches!(self, Self::Close { .. })
    }
}

/// A write that was applied, with the answer that goes out when the transaction is committed.
pub(super) enum Settled {
    Ids(Reply<Vec<FunctionId>>, Vec<FunctionId>),
    Accepted(Reply<Vec<Accepted>>, Vec<Accepted>),
    Portion(Reply<Portion>, Portion),
    Count(Reply<u64>, u64),
    Tidied(Reply<Tidied>, Tidied),
    Unit(Reply<()>),
    /// For the sink.
    Completion(Arc<Completion>),
}

impl Settled {
    /// For a write that never was applied: it can only fail.
    pub(super) fn unapplied(write: Write) -> Self {
        match write {
            Write::Register { reply, .. } => Self::Ids(reply, Vec::new()),
            Write::Accept { reply, .. } => Self::Accepted(reply, Vec::new()),
            Write::Redrive { reply, .. } | Write::Purge { reply, .. } => Self::Portion(reply, Portion::default()),
            Write::Remove { reply, .. } => Self::Count(reply, 0),
            Write::Tidy { reply, .. } => Self::Tidied(reply, Tidied::default()),
            Write::Complete { reply: Some(reply), .. } | Write::Checkpoint { reply } | Write::Close { reply } => {
                Self::Unit(reply)
            }
            Write::Complete { completion, reply: None } => Self::Completion(completion),
        }
    }

    /// What the sink is told of; the others keep their answer.
    pub(super) fn for_sink(self) -> std::result::Result<Arc<Completion>, Self> {
        match self {
            Self::Completion(completion) => Ok(completion),
            other => Err(other),
        }
    }

    /// Sends the answer. Whoever asked may be gone: the commit stands all the same.
    pub(super) fn succeed(self) {
        match self {
            Self::Completion(_) => {}
            Self::Ids(reply, ids) => drop(reply.send(Ok(ids))),
            Self::Accepted(reply, accepted) => drop(reply.send(Ok(accepted))),
            Self::Portion(reply, portion) => drop(reply.send(Ok(portion))),
            Self::Count(reply, count) => drop(reply.send(Ok(count))),
            Self::Tidied(reply, tidied) => drop(reply.send(Ok(tidied))),
            Self::Unit(reply) => drop(reply.send(Ok(()))),
        }
    }

    /// Tells that nothing of the write was committed.
    pub(super) fn fail(self, error: &StoreError) {
        match self {
            Self::Completion(_) => {}
            Self::Ids(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Accepted(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Portion(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Count(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Tidied(reply, _) => drop(reply.send(Err(error.clone()))),
            Self::Unit(reply) => drop(reply.send(Err(error.clone()))),
        }
    }
}

/// Applies one write. The answer comes back in any case, so that whoever asked hears of a failure too.
pub(super) fn apply(
    tx: &Connection,
    dedup: &mut Dedup,
    counters: &mut Counters,
    now_ms: UnixMs,
    write: Write,
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
            let result = complete(tx, dedup, counters, now_ms, &completion, ready);
            (reply.map_or(Settled::Completion(completion), Settled::Unit), result)
        }
        Write::Redrive { which, after, reply } => {
            let (portion, result) = settle(redrive(tx, counters, now_ms, &which, after, ready));
            (Settled::Portion(reply, portion), result)
        }
        Write::Purge { which, after, reply } => {
            let (portion, result) = settle(purge(tx, counters, &which, after, ready));
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
    let mut select = tx.prepare_cached("SELECT id FROM functions WHERE name = ?1")?;
    names
        .iter()
        .map(|name| {
            insert.execute([name])?;
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
        match &mark.value {
            Some(value) => tx
                .prepare_cached("INSERT OR REPLACE INTO marks (scope, key, value) VALUES (?1, ?2, ?3)")?
                .execute(params![mark.scope, mark.key, value])?,
            None => tx
                .prepare_cached("DELETE FROM marks WHERE scope = ?1 AND key = ?2")?
                .execute(params![mark.scope, mark.key])?,
        };
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
    let stored = Arc::new(StoredEvent { seq, accepted_ms: now_ms, lineage, event });
    for delivery in deliveries {
        insert_delivery(tx, counters, &stored, delivery, ready)?;
    }
    Ok(Accepted::New(seq))
}

fn insert_delivery(
    tx: &Connection,
    counters: &mut Counters,
    event: &Arc<StoredEvent>,
    new: NewDelivery,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<()> {
    let NewDelivery { function, trigger, order_key } = new;
    let blocked = match &order_key {
        Some(key) => first_unfinished(tx, function, key)?.is_some(),
        None => false,
    };
    let state = if blocked { rows::BLOCKED } else { rows::READY };
    let share = Share { origin: event.lineage.origin, bytes: i64::try_from(event.event.size()).unwrap_or(i64::MAX) };
    let id = counters.delivery(function, state, share);
    tx.prepare_cached(
        "INSERT INTO deliveries (id, event, function, trigger, order_key, state, since_ms, origin, bytes)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        id,
        event.seq,
        function,
        &*trigger,
        order_key,
        state,
        event.accepted_ms,
        share.origin.0,
        share.bytes
    ])?;
    if !blocked {
        let (since_ms, event) = (event.accepted_ms, event.clone());
        ready.push(ReadyDelivery { id, function, trigger, attempts: 0, attempts_forgiven: 0, since_ms, event });
    }
    Ok(())
}

fn complete(
    tx: &Connection,
    dedup: &Dedup,
    counters: &mut Counters,
    now_ms: UnixMs,
    completion: &Completion,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<()> {
    let Completion { delivery, record, verdict, publishes, .. } = completion;
    let (state, due_ms, cause) = match verdict {
        Verdict::Done => (rows::DONE, None, None),
        Verdict::RetryAt(due_ms) => (rows::RETRYING, Some(*due_ms), None),
        Verdict::Dead(cause) => (rows::DEAD, None, Some(cause)),
    };
    // Who has no attempt that counts was ready, who has one was retrying.
    let owner: Option<(FunctionId, Option<String>, bool, Share)> = tx
        .prepare_cached(
            "UPDATE deliveries SET state = ?2, due_ms = ?3, cause = ?4, attempts = attempts + 1
             WHERE id = ?1 AND state IN (0, 1) RETURNING function, order_key, attempts - 1 = forgiven, origin, bytes",
        )?
        .query_row(params![delivery, state, due_ms, cause], |r| {
            Ok((r.get(0)?, r.get(1)?, r.get(2)?, rows::share(r, 3)?))
        })
        .optional()?;
    let Some((function, order_key, was_ready, share)) = owner else { return Ok(()) };
    counters.moved(function, if was_ready { rows::READY } else { rows::RETRYING }, state);
    if state != rows::RETRYING {
        counters.backlog().went(share);
    }
    tx.prepare_cached(
        "INSERT OR REPLACE INTO attempts (delivery, attempt, started_ms, duration_us, outcome, message) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        delivery,
        record.attempt,
        record.started_ms,
        i64::try_from(record.duration_us).unwrap_or(i64::MAX),
        record.outcome,
        record.message
    ])?;
    if state == rows::DONE {
        for new in publishes {
            insert_event(tx, dedup, counters, now_ms, new.clone(), ready)?;
        }
        if let Some(key) = order_key {
            unblock_next(tx, counters, function, &key, ready)?;
        }
    }
    Ok(())
}

/// The first delivery of an order key that is neither done nor purged: only it may run.
fn first_unfinished(tx: &Connection, function: FunctionId, key: &str) -> rusqlite::Result<Option<(DeliveryId, i64)>> {
    tx.prepare_cached(
        "SELECT id, state FROM deliveries WHERE function = ?1 AND order_key = ?2 AND order_key IS NOT NULL
         AND state IN (0, 1, 2, 4) ORDER BY id LIMIT 1",
    )?
    .query_row(params![function, key], |r| Ok((r.get(0)?, r.get(1)?)))
    .optional()
}

fn unblock_next(
    tx: &Connection,
    counters: &mut Counters,
    function: FunctionId,
    key: &str,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<()> {
    let Some((id, rows::BLOCKED)) = first_unfinished(tx, function, key)? else { return Ok(()) };
    tx.prepare_cached("UPDATE deliveries SET state = 0 WHERE id = ?1")?.execute([id])?;
    counters.moved(function, rows::BLOCKED, rows::READY);
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
    for id in &ids {
        let (function, share) = tx
            .prepare_cached(
                "UPDATE deliveries SET state = 0, cause = NULL, due_ms = NULL, forgiven = attempts, since_ms = ?2
                 WHERE id = ?1 RETURNING function, origin, bytes",
            )?
            .query_row(params![id, now_ms], |r| Ok((r.get(0)?, rows::share(r, 1)?)))?;
        counters.moved(function, rows::DEAD, rows::READY);
        counters.backlog().came(share);
        ready.extend(read::ready_one(tx, *id)?);
    }
    Ok(Portion::of(&ids))
}

fn purge(
    tx: &Connection,
    counters: &mut Counters,
    which: &DeadFilter,
    after: DeliveryId,
    ready: &mut Vec<ReadyDelivery>,
) -> rusqlite::Result<Portion> {
    let ids = read::dead_ids(tx, which, after, PORTION_MAX)?;
    for id in &ids {
        let (function, order_key): (FunctionId, Option<String>) = tx
            .prepare_cached("UPDATE deliveries SET state = 5 WHERE id = ?1 RETURNING function, order_key")?
            .query_row([id], |r| Ok((r.get(0)?, r.get(1)?)))?;
        counters.moved(function, rows::DEAD, rows::PURGED);
        if let Some(key) = order_key {
            unblock_next(tx, counters, function, &key, ready)?;
        }
    }
    Ok(Portion::of(&ids))
}
