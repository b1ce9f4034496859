//! The table `totals`: the numbers of events and deliveries. Every commit updates them, so that no rows need to be
//! counted.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};
use rusqlite::{Connection, params};

use super::rows::{self, LIVE, Owner, is_published};
use evoke_model::clock::UnixMs;
use evoke_model::{Counts, DeliveryId, DeliveryState, FunctionId, Origin, ReplayId, Seq, Totals};
use evoke_store::backlog::{Change, Share};

const REMOVED_DONE: &str = "removed done";
const REMOVED_PURGED: &str = "removed purged";

/// The store, function or replay whose events or deliveries a row of the table `totals` counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Scope {
    Store,
    Function(FunctionId),
    Replay(ReplayId),
}

impl Scope {
    /// Returns the value of the column `function`.
    fn column(self) -> i64 {
        match self {
            Self::Store => 0,
            Self::Function(id) => id.0,
            Self::Replay(id) => -id.0,
        }
    }
}

/// The last assigned ids, and the last event that retention removed.
#[derive(Clone, Copy)]
pub(super) struct LastIds {
    seq: Seq,
    delivery: DeliveryId,
    removed_to: Seq,
}

/// The last assigned ids, and the changes of the current transaction to the table `totals`. Only the writer assigns
/// ids. So the last ids can be kept in memory, and the deliveries of an event have consecutive ids.
pub(super) struct Counters {
    last: LastIds,
    backlog: Change,
    /// The change of the backlog of scheduled events.
    schedule: Change,
    /// The change of the numbers of dead letters.
    dead: Change,
    changes: HashMap<(Scope, &'static str), i64>,
    /// Deliveries that this writer added as ready and that were not changed since. When such a delivery is completed,
    /// its values come from here. The values of other deliveries are read from the table.
    recent: HashMap<DeliveryId, Recent>,
}

/// Maximum number of recent deliveries: more than are usually in progress at the same time.
const RECENT_MAX: usize = 4096;

/// The values of a delivery that do not change before its first attempt ends.
pub(super) struct Recent {
    pub(super) owner: Owner,
    pub(super) order_key: Option<String>,
    pub(super) share: Share,
    pub(super) since_ms: UnixMs,
    pub(super) fixed_sum: i64,
}

impl Counters {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let Totals { events, removed, .. } = read(connection)?;
        let delivery = connection.query_row(
            "SELECT COALESCE(MAX(count), 0) FROM totals WHERE function = 0 AND name = 'deliveries'",
            [],
            |r| r.get(0).map(DeliveryId),
        )?;
        let seq = Seq(i64::try_from(events).unwrap_or(i64::MAX));
        Ok(Self {
            last: LastIds { seq, delivery, removed_to: removed.to },
            backlog: load_backlog(connection)?,
            schedule: load_schedule(connection)?,
            dead: load_dead(connection)?,
            changes: HashMap::new(),
            recent: HashMap::new(),
        })
    }

    pub(super) fn last_seq(&self) -> Seq {
        self.last.seq
    }

    pub(super) fn last_delivery(&self) -> DeliveryId {
        self.last.delivery
    }

    /// Returns the ids to restore with [`roll_back`](Self::roll_back) if the next transaction fails.
    pub(super) fn last_ids(&self) -> LastIds {
        self.last
    }

    /// Discards the changes of a failed transaction and restores the ids before it. Also discards the recent
    /// deliveries, because the transaction may have added or removed some of them.
    pub(super) fn roll_back(&mut self, last: LastIds) {
        self.last = last;
        (self.backlog, self.schedule, self.dead) = Default::default();
        self.changes.clear();
        self.recent.clear();
    }

    /// Returns the change of the backlog since the last commit.
    pub(super) fn backlog_change(&mut self) -> &mut Change {
        &mut self.backlog
    }

    /// Returns the change of the backlog of scheduled events since the last commit.
    pub(super) fn schedule_change(&mut self) -> &mut Change {
        &mut self.schedule
    }

    /// Returns the change of the numbers of dead letters since the last commit.
    pub(super) fn dead_change(&mut self) -> &mut Change {
        &mut self.dead
    }

    pub(super) fn add_scheduled(&mut self, share: Share) {
        self.change(Scope::Store, "scheduled", 1);
        self.schedule.add(share);
    }

    pub(super) fn remove_scheduled(&mut self, share: Share) {
        self.change(Scope::Store, "scheduled", -1);
        self.schedule.remove(share);
    }

    /// Assigns the next position to a new event, and counts the event.
    pub(super) fn add_event(&mut self) {
        self.last.seq = self.last.seq.next();
        self.change(Scope::Store, "events", 1);
    }

    /// Assigns an id to a new delivery in this state, and counts it. Returns the id.
    pub(super) fn add_delivery(&mut self, owner: Owner, state: i64, share: Share) -> DeliveryId {
        self.last.delivery = self.last.delivery.next();
        self.change(Scope::Store, "deliveries", 1);
        self.change(Scope::Store, if owner.replay == LIVE { "owed" } else { "replayed" }, 1);
        self.change_for(owner, name(state), 1);
        self.backlog.add(share);
        self.last.delivery
    }

    /// Adds a new ready delivery to the recent deliveries, unless there are already [`RECENT_MAX`] of them.
    pub(super) fn add_recent(&mut self, id: DeliveryId, recent: Recent) {
        if self.recent.len() < RECENT_MAX {
            self.recent.insert(id, recent);
        }
    }

    /// Removes a delivery from the recent deliveries and returns it. Its state in the table may have changed meanwhile.
    pub(super) fn take_recent(&mut self, id: DeliveryId) -> Option<Recent> {
        self.recent.remove(&id)
    }

    pub(super) fn change_state(&mut self, owner: Owner, from: i64, to: i64) {
        self.change_for(owner, name(from), -1);
        self.change_for(owner, name(to), 1);
    }

    fn change_for(&mut self, owner: Owner, name: &'static str, by: i64) {
        self.change(Scope::Function(owner.function), name, by);
        if owner.replay != LIVE {
            self.change(Scope::Replay(owner.replay), name, by);
        }
    }

    /// Moves the count of a delivery from its old owner and state to its new owner and state.
    pub(super) fn move_delivery(&mut self, (from, state): (Owner, i64), (to, new_state): (Owner, i64)) {
        self.change_for(from, name(state), -1);
        self.change_for(to, name(new_state), 1);
    }

    pub(super) fn remove_delivery(&mut self, owner: Owner, state: i64) {
        self.change(
            Scope::Function(owner.function),
            if state == rows::PURGED { REMOVED_PURGED } else { REMOVED_DONE },
            1,
        );
        self.change(Scope::Store, if owner.replay == LIVE { "removed owed" } else { "removed replayed" }, 1);
    }

    pub(super) fn remove_event(&mut self, seq: Seq) {
        self.change(Scope::Store, "removed", 1);
        let further = (seq.0 - self.last.removed_to.0).max(0);
        self.change(Scope::Store, "removed to", further);
        self.last.removed_to = self.last.removed_to.max(seq);
    }

    fn change(&mut self, scope: Scope, name: &'static str, by: i64) {
        *self.changes.entry((scope, name)).or_default() += by;
    }

    /// Returns the number of a function's deliveries in each state, including the changes of the current transaction.
    pub(super) fn of_function(&mut self, tx: &Connection, function: FunctionId) -> rusqlite::Result<Counts> {
        self.write(tx)?;
        by_state(tx, Scope::Function(function))
    }

    /// Writes the changes to the table `totals`, as part of the current transaction.
    pub(super) fn write(&mut self, tx: &Connection) -> rusqlite::Result<()> {
        let mut add = tx.prepare_cached(
            "INSERT INTO totals (function, name, count) VALUES (?1, ?2, ?3)
             ON CONFLICT (function, name) DO UPDATE SET count = count + excluded.count",
        )?;
        for ((scope, name), by) in self.changes.drain().filter(|(_, by)| *by != 0) {
            add.execute(params![scope.column(), name, by])?;
        }
        Ok(())
    }
}

/// Counts the pending deliveries. The query uses the partial indexes of their states.
fn load_backlog(c: &Connection) -> rusqlite::Result<Change> {
    let mut change = Change::default();
    let mut groups = c.prepare(concat!(
        "SELECT origin, ",
        is_published!(),
        " AS published, COUNT(*),
           SUM(CASE WHEN typeof(bytes) = 'integer' AND bytes BETWEEN 0 AND 1 << 32 THEN bytes ELSE 0 END) FROM (
           SELECT origin, bytes, event, replay FROM deliveries WHERE state = 0 AND replay = 0 UNION ALL
           SELECT origin, bytes, event, replay FROM deliveries WHERE state = 1 AND replay = 0 UNION ALL
           SELECT origin, bytes, event, replay FROM deliveries WHERE state = 0 AND replay <> 0 UNION ALL
           SELECT origin, bytes, event, replay FROM deliveries WHERE state = 1 AND replay <> 0 UNION ALL
           SELECT origin, bytes, event, replay FROM deliveries WHERE state = 2)
         GROUP BY 1, 2",
    ))?;
    let mut groups = groups.query([])?;
    while let Some(row) = groups.next()? {
        // A delivery with a damaged origin never runs, so it must not use up the limit of a source. It counts for no
        // source.
        change.load(Origin(row.get(0).unwrap_or_default()), row.get(1)?, (row.get(2)?, row.get(3)?));
    }
    Ok(change)
}

fn load_schedule(c: &Connection) -> rusqlite::Result<Change> {
    load_each(c, "SELECT origin, bytes, published FROM scheduled")
}

/// Counts the dead letters. The bus never asks which of them were published. An operator cannot purge a damaged one, so
/// a size that no event has counts as 0.
fn load_dead(c: &Connection) -> rusqlite::Result<Change> {
    load_each(c, "SELECT origin, iif(bytes > 16777216, 0, bytes), 0 FROM deliveries WHERE state = 4")
}

/// Counts the rows of a query one by one: their origin, bytes, and whether they count as published. A query with groups
/// would take longer for a million rows, because SQLite would sort them.
fn load_each(c: &Connection, query: &str) -> rusqlite::Result<Change> {
    let mut change = Change::default();
    let mut all = c.prepare(query)?;
    let mut all = all.query([])?;
    while let Some(row) = all.next()? {
        // A damaged row must not use up the limit of a source.
        let bytes = row.get::<_, i64>(1).ok().filter(|bytes| (0..=1 << 32).contains(bytes)).unwrap_or_default();
        change.load(Origin(row.get(0).unwrap_or_default()), row.get(2).unwrap_or_default(), (1, bytes));
    }
    Ok(change)
}

fn name(state: i64) -> &'static str {
    rows::state(state).map_or("unknown", DeliveryState::name)
}

/// Reads all numbers of the table `totals`.
pub(super) fn read(c: &Connection) -> rusqlite::Result<Totals> {
    let mut totals = Totals::default();
    let mut all =
        c.prepare_cached("SELECT f.name, t.name, t.count FROM totals t LEFT JOIN functions f ON f.id = t.function")?;
    let mut all = all.query([])?;
    while let Some(row) = all.next()? {
        let (function, name, count): (Option<String>, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let number = u64::try_from(count).unwrap_or_default();
        match (function, name.as_str()) {
            (None, "events") => totals.events = number,
            (None, "owed") => totals.owed = number,
            (None, "replayed") => totals.replayed = number,
            (None, "scheduled") => totals.scheduled = number,
            (None, "removed replayed") => totals.removed.replayed = number,
            (None, "removed") => totals.removed.events = number,
            (None, "removed owed") => totals.removed.owed = number,
            (None, "removed to") => totals.removed.to = Seq(count),
            (None, _) => {}
            (Some(function), REMOVED_DONE | REMOVED_PURGED) => {
                totals.functions.entry(function).or_default().removed += number;
            }
            (Some(function), name) => {
                let state = DeliveryState::ALL.into_iter().find(|state| state.name() == name);
                if let Some(state) = state {
                    *totals.functions.entry(function).or_default().get_mut(state) = number;
                }
            }
        }
    }
    Ok(totals)
}

/// Counts deliveries by function and state. The numbers of removed deliveries come from the table `totals`.
pub(super) fn count(c: &Connection) -> rusqlite::Result<BTreeMap<String, Counts>> {
    let mut functions: BTreeMap<String, Counts> = BTreeMap::new();
    let mut removed = c.prepare(
        "SELECT f.name, t.name = 'removed purged', t.count FROM totals t JOIN functions f ON f.id = t.function
         WHERE t.name IN ('removed done', 'removed purged')",
    )?;
    let mut removed = removed.query([])?;
    while let Some(row) = removed.next()? {
        let counts = functions.entry(row.get(0)?).or_default();
        let number = u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default();
        *counts.get_mut(if row.get(1)? { DeliveryState::Purged } else { DeliveryState::Done }) += number;
        counts.removed += number;
    }
    let mut groups = c.prepare_cached(
        "SELECT f.name, d.state, COUNT(*) FROM deliveries d JOIN functions f ON f.id = d.function GROUP BY f.name, d.state",
    )?;
    let mut groups = groups.query([])?;
    while let Some(row) = groups.next()? {
        let state = rows::state(row.get(1)?)?;
        *functions.entry(row.get(0)?).or_default().get_mut(state) +=
            u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default();
    }
    Ok(functions)
}

/// Returns the number of a replay's deliveries in each state.
pub(super) fn of_replay(c: &Connection, replay: ReplayId) -> rusqlite::Result<Counts> {
    by_state(c, Scope::Replay(replay))
}

fn by_state(c: &Connection, scope: Scope) -> rusqlite::Result<Counts> {
    let mut counts = Counts::default();
    let mut all = c.prepare_cached("SELECT name, count FROM totals WHERE function = ?1")?;
    let mut all = all.query([scope.column()])?;
    while let Some(row) = all.next()? {
        let name: String = row.get(0)?;
        if let Some(state) = DeliveryState::ALL.into_iter().find(|state| state.name() == name) {
            *counts.get_mut(state) = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
        }
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollback_restores_the_ids_and_discards_all_changes() {
        let mut counters = Counters {
            last: LastIds { seq: Seq(7), delivery: DeliveryId(9), removed_to: Seq(2) },
            backlog: Change::default(),
            schedule: Change::default(),
            dead: Change::default(),
            changes: HashMap::new(),
            recent: HashMap::new(),
        };
        let before = counters.last_ids();
        let owner = Owner { function: FunctionId(1), replay: ReplayId(3) };
        let share = Share::default();
        counters.add_event();
        let id = counters.add_delivery(owner, rows::READY, share);
        counters.add_recent(id, Recent { owner, order_key: None, share, since_ms: 0, fixed_sum: 0 });
        counters.remove_event(Seq(5));
        let last = |counters: &Counters| (counters.last.seq.0, counters.last.delivery.0, counters.last.removed_to.0);
        assert_eq!(last(&counters), (8, 10, 5));
        assert_eq!(counters.changes[&(Scope::Replay(ReplayId(3)), "ready")], 1);
        counters.roll_back(before);
        assert_eq!(last(&counters), (7, 9, 2));
        assert!(counters.changes.is_empty() && counters.take_recent(id).is_none());
        let backlog = evoke_store::Backlog::default();
        backlog.apply(counters.backlog_change());
        assert_eq!(backlog.total().deliveries, 0);
    }
}
