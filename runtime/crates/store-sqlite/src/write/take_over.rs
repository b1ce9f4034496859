//! The write that moves the data stored under earlier names of functions to their present names.

use std::collections::BTreeSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::deliveries::{is_first, unblock_next};
use super::{GroupCommit, Write};
use crate::rows::delivery::{self, change_delivery};
use crate::rows::{self, LIVE, Owner};
use evoke_model::{DeliveryId, FunctionId, MarkNames, Origin, ReplayId, StateConflict, TakeOver, TakenOver};
use evoke_store::take_over::find_conflict;

const UNFINISHED: [i64; 4] = [rows::READY, rows::RETRYING, rows::BLOCKED, rows::DEAD];

/// Renames functions, all or none.
pub(crate) struct TakeOvers {
    pub(crate) functions: Vec<TakeOver>,
    pub(crate) names: &'static [MarkNames],
}

pub(crate) struct Renamed {
    pub(crate) taken: Vec<TakenOver>,
    /// The origins whose URIs changed, with their new URIs, for the table in memory.
    pub(crate) origins: Vec<(Origin, String)>,
}

impl Write for TakeOvers {
    type Output = Result<Renamed, StateConflict>;

    fn apply(&mut self, commit: &mut GroupCommit<'_>) -> rusqlite::Result<Self::Output> {
        if let Some(conflict) = find_conflict(&self.functions, |name| commit.state.keys_of(name)) {
            return Ok(Err(conflict));
        }
        let mut renamed = Renamed { taken: Vec::new(), origins: Vec::new() };
        for take_over in &self.functions {
            renamed.taken.extend(apply(commit, take_over, self.names, &mut renamed.origins)?);
        }
        Ok(Ok(renamed))
    }
}

/// Moves the data of one function. Returns `None` if nothing was stored under the earlier name.
fn apply(
    commit: &mut GroupCommit<'_>,
    take_over: &TakeOver,
    names: &[MarkNames],
    origins: &mut Vec<(Origin, String)>,
) -> rusqlite::Result<Option<TakenOver>> {
    let TakeOver { from, to } = take_over;
    let (pending, dead, is_renamed) = match (id_of(commit.tx, from)?, id_of(commit.tx, to)?) {
        (None, _) => (0, 0, false),
        (Some(id), None) => {
            rename_function(commit.tx, id, to)?;
            let counts = commit.counters.of_function(commit.tx, id)?;
            (counts.pending(), counts.dead, true)
        }
        (Some(from), Some(to)) => {
            let (pending, dead) = move_unfinished(commit, from, to)?;
            (pending, dead, false)
        }
    };
    let keys = commit.state.rename(from, to)?;
    let marks = rename_scopes(commit.tx, take_over)? + rename_keys(commit.tx, take_over, names)?;
    let found = rename_origins(commit.tx, take_over)?;
    let replays = rename_filters(commit.tx, take_over)?;
    let is_changed = is_renamed || !found.is_empty() || pending + dead + keys > 0 || marks + replays > 0;
    origins.extend(found);
    Ok(is_changed.then(|| TakenOver { from: from.clone(), to: to.clone(), pending, dead, keys }))
}

fn id_of(tx: &Connection, name: &str) -> rusqlite::Result<Option<FunctionId>> {
    tx.prepare_cached("SELECT id FROM functions WHERE name = ?1")?
        .query_row([name], |r| r.get(0).map(FunctionId))
        .optional()
}

/// Changes the name of a function. Its deliveries and totals refer to the id of the function, so they need no change.
fn rename_function(tx: &Connection, id: FunctionId, name: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE functions SET name = ?2, sum = sum - sum_of(id, name) + sum_of(id, ?2) WHERE id = ?1")?
        .execute(params![id.0, name])?;
    Ok(())
}

/// Moves the pending deliveries and the dead letters. Returns the number of each. Damaged deliveries are not moved.
fn move_unfinished(commit: &mut GroupCommit<'_>, from: FunctionId, to: FunctionId) -> rusqlite::Result<(u64, u64)> {
    let (mut pending, mut dead, mut chains) = (0, 0, BTreeSet::new());
    for id in unfinished(commit.tx, from)? {
        let Some(moved) = move_one(commit, id, to)? else { continue };
        match moved.state {
            rows::DEAD => dead += 1,
            _ => pending += 1,
        }
        chains.extend(moved.key.map(|key| (moved.replay, key)));
    }
    for (replay, key) in chains {
        put_in_order(commit, Owner { function: to, replay }, &key)?;
    }
    Ok((pending, dead))
}

/// Returns the pending deliveries and the dead letters of a function, in order. Each part of the query reads one
/// partial index.
fn unfinished(tx: &Connection, function: FunctionId) -> rusqlite::Result<Vec<DeliveryId>> {
    tx.prepare_cached(
        "SELECT id FROM deliveries WHERE function = ?1 AND state = 0 AND replay = 0 UNION ALL
         SELECT id FROM deliveries WHERE function = ?1 AND state = 1 AND replay = 0 UNION ALL
         SELECT id FROM deliveries WHERE function = ?1 AND state = 0 AND replay <> 0 UNION ALL
         SELECT id FROM deliveries WHERE function = ?1 AND state = 1 AND replay <> 0 UNION ALL
         SELECT id FROM deliveries WHERE function = ?1 AND state = 2 UNION ALL
         SELECT id FROM deliveries WHERE function = ?1 AND state = 4
         ORDER BY id",
    )?
    .query_map([function.0], |r| r.get(0).map(DeliveryId))?
    .collect()
}

struct Moved {
    replay: ReplayId,
    key: Option<String>,
    state: i64,
}

/// Moves a delivery, but does not put it in order with the other deliveries of its order key. Returns `None` if the
/// delivery is not moved.
fn move_one(commit: &mut GroupCommit<'_>, id: DeliveryId, to: FunctionId) -> rusqlite::Result<Option<Moved>> {
    let tx = commit.tx;
    if !delivery::is_intact(tx, id, &UNFINISHED)? {
        return Ok(None);
    }
    let (from, key, state, event): (Owner, Option<String>, i64, i64) = tx
        .prepare_cached("SELECT function, replay, order_key, state, event FROM deliveries WHERE id = ?1")?
        .query_row([id.0], |r| Ok((rows::owner(r, 0)?, r.get(2)?, r.get(3)?, r.get(4)?)))?;
    // A replay has at most one delivery of an event to a function, so a second one is not moved.
    let is_offered = from.replay != LIVE
        && tx
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM deliveries
                   WHERE event = ?1 AND replay <> 0 AND replay = ?2 AND function = ?3)",
            )?
            .query_row(params![event, from.replay.0, to.0], |r| r.get(0))?;
    if is_offered {
        return Ok(None);
    }
    tx.prepare_cached(
        "UPDATE deliveries SET function = ?2,
           sum = sum - sum_of(id, event, function, trigger, order_key, origin, bytes, replay)
             + sum_of(id, event, ?2, trigger, order_key, origin, bytes, replay)
         WHERE id = ?1",
    )?
    .execute(params![id.0, to.0])?;
    commit.counters.take_recent(id);
    commit.counters.move_delivery((from, state), (Owner { function: to, replay: from.replay }, state));
    Ok(Some(Moved { replay: from.replay, key, state }))
}

/// Puts the deliveries of an order key in order: blocks all but the first one, and makes the first one ready if it is
/// blocked.
fn put_in_order(commit: &mut GroupCommit<'_>, owner: Owner, key: &str) -> rusqlite::Result<()> {
    let tx = commit.tx;
    let startable: Vec<(DeliveryId, i64)> = tx
        .prepare_cached(
            "SELECT id, state FROM deliveries WHERE function = ?1 AND order_key = ?2 AND replay = ?3
               AND order_key IS NOT NULL AND (state < 3 OR state = 4) AND state < 2",
        )?
        .query_map(params![owner.function.0, key, owner.replay.0], |r| Ok((DeliveryId(r.get(0)?), r.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (id, state) in startable {
        if is_first(tx, owner, Some(key), id)? || !delivery::is_intact(tx, id, &[state])? {
            continue;
        }
        tx.prepare_cached(change_delivery!(
            "state = 2, due_ms = NULL",
            "2, attempts, forgiven, since_ms, NULL, cause, done_ms, done_us"
        ))?
        .execute([id.0])?;
        commit.counters.take_recent(id);
        commit.counters.change_state(owner, state, rows::BLOCKED);
        // The delivery may be in `commit.ready`, because an earlier write of the same commit made it ready.
        commit.ready.retain(|ready| ready.id != id);
    }
    unblock_next(commit, owner, key)
}

/// Moves the marks of the function's own sources. Returns the number of moved marks.
fn rename_scopes(tx: &Connection, take_over: &TakeOver) -> rusqlite::Result<usize> {
    let (first, end) = own_uris(&take_over.from);
    let scopes: Vec<String> = tx
        .prepare_cached("SELECT DISTINCT scope FROM marks WHERE scope >= ?1 AND scope < ?2")?
        .query_map([first, end], |r| r.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut count = 0;
    for scope in scopes {
        let Some(new) = take_over.renamed_uri(&scope) else { continue };
        if tx.prepare_cached("SELECT 1 FROM marks WHERE scope = ?1 LIMIT 1")?.exists([&new])? {
            continue;
        }
        count += tx
            .prepare_cached(
                "UPDATE marks SET scope = ?2, sum = sum - sum_of(scope, key, value) + sum_of(?2, key, value)
                 WHERE scope = ?1",
            )?
            .execute([&scope, &new])?;
    }
    Ok(count)
}

/// Replaces the function name in the keys of marks. Each of these marks is for the function itself or for one of its
/// sources. If a mark with the new key already exists, the old mark is not renamed: it stays if it is for a source, and
/// is removed if it is for the function itself. Returns the number of renamed and removed marks.
fn rename_keys(tx: &Connection, take_over: &TakeOver, names: &[MarkNames]) -> rusqlite::Result<usize> {
    let mut count = 0;
    for names in names {
        let keys: Vec<String> = tx
            .prepare_cached("SELECT key FROM marks WHERE scope = ?1")?
            .query_map([names.scope], |r| r.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for key in keys {
            let Some(new) = take_over.renamed_key(names, &key) else { continue };
            let renamed = tx
                .prepare_cached(
                    "UPDATE OR IGNORE marks SET key = ?3,
                       sum = sum - sum_of(scope, key, value) + sum_of(scope, ?3, value)
                     WHERE scope = ?1 AND key = ?2",
                )?
                .execute([names.scope, &key, &new])?;
            count += match renamed {
                0 if take_over.is_name(names, &key) => tx
                    .prepare_cached("DELETE FROM marks WHERE scope = ?1 AND key = ?2")?
                    .execute([names.scope, &key])?,
                renamed => renamed,
            };
        }
    }
    Ok(count)
}

/// Changes the URIs of the origins of the function's own sources. Returns these origins with their new URIs.
fn rename_origins(tx: &Connection, take_over: &TakeOver) -> rusqlite::Result<Vec<(Origin, String)>> {
    let (first, end) = own_uris(&take_over.from);
    let origins: Vec<(Origin, String)> = tx
        .prepare_cached("SELECT id, uri FROM origins WHERE uri >= ?1 AND uri < ?2")?
        .query_map([first, end], |r| Ok((Origin(r.get(0)?), r.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut renamed = Vec::new();
    for (origin, uri) in origins {
        let Some(new) = take_over.renamed_uri(&uri) else { continue };
        let changed = tx
            .prepare_cached(
                "UPDATE OR IGNORE origins SET uri = ?2, sum = sum - sum_of(id, uri) + sum_of(id, ?2) WHERE id = ?1",
            )?
            .execute(params![origin.0, new])?;
        if changed > 0 {
            renamed.push((origin, new));
        }
    }
    Ok(renamed)
}

/// Renames the function in the filters of replays that are not finished. Returns the number of changed filters.
fn rename_filters(tx: &Connection, take_over: &TakeOver) -> rusqlite::Result<usize> {
    let open: Vec<(i64, String)> = tx
        .prepare_cached("SELECT id, filter FROM replays WHERE state IN (0, 1, 3)")?
        .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut count = 0;
    for (id, filter) in open {
        let Some(new) = take_over.renamed_filter(&filter) else { continue };
        count += tx
            .prepare_cached(
                "UPDATE replays SET filter = ?2,
                   sum = sum - sum_of(id, filter, created_ms, until) + sum_of(id, ?2, created_ms, until)
                 WHERE id = ?1",
            )?
            .execute(params![id, new])?;
    }
    Ok(count)
}

/// Returns the range of all URIs that begin with `/app/function/`: the lower end, which is part of the range, and the
/// upper end, which is not.
fn own_uris(function: &str) -> (String, String) {
    // `0` is the character after `/`.
    (format!("/{function}/"), format!("/{function}0"))
}
