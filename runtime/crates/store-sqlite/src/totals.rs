//! Running totals: updates them with every commit, and reads them.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};
use rusqlite::{Connection, params};

use super::rows;
use evoke_model::clock::UnixMs;
use evoke_model::{Counts, DeliveryId, DeliveryState, FunctionId, Origin, ReplayId, Seq, Totals};
use evoke_store::backlog::{Change, Share};

/// The function id of the store's own totals.
const STORE: FunctionId = 0;
const REMOVED_DONE: &str = "removed done";
const REMOVED_PURGED: &str = "removed purged";

/// The function and replay of a delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) function: FunctionId,
    /// [`LIVE`] for a live delivery.
    pub(super) replay: ReplayId,
}

/// The value of the column `replay` for live deliveries.
pub(super) const LIVE: ReplayId = 0;

/// The last assigned ids and the changes of the current transaction. The writer is the only one to assign ids, so it
/// counts them itself, and an event's deliveries have consecutive ids.
#[derive(Clone)]
pub(super) struct Counters {
    seq: Seq,
    delivery: DeliveryId,
    removed_to: Seq,
    backlog: Change,
    changes: HashMap<(FunctionId, &'static str), i64>,
    recent: RecentDeliveries,
}

/// Deliveries that this writer added as ready and that were not changed since. Their completion needs these values, and
/// otherwise reads them from the table.
#[derive(Default)]
struct RecentDeliveries(HashMap<DeliveryId, Recent>);

/// More deliveries than are usually in progress at once.
const RECENT_MAX: usize = 4096;

/// The values of a delivery that do not change before its first attempt ends.
pub(super) struct Recent {
    pub(super) owner: Owner,
    pub(super) order_key: Option<String>,
    pub(super) share: Share,
    pub(super) since_ms: UnixMs,
    pub(super) fixed_sum: i64,
}

/// A clone is used after a rollback, when its entries might be wrong, so it is empty.
impl Clone for RecentDeliveries {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Counters {
    pub(super) fn load(connection: &Connection) -> rusqlite::Result<Self> {
        let Totals { events, removed, .. } = read(connection)?;
        let delivery = connection.query_row(
            "SELECT COALESCE(MAX(count), 0) FROM totals WHERE function = 0 AND name = 'deliveries'",
            [],
            |r| r.get(0),
        )?;
        let seq = i64::try_from(events).unwrap_or(i64::MAX);
        Ok(Self {
            seq,
            delivery,
            removed_to: removed.to,
            backlog: load_backlog(connection)?,
            changes: HashMap::new(),
            recent: RecentDeliveries::default(),
        })
    }

    pub(super) fn last_seq(&self) -> Seq {
        self.seq
    }

    pub(super) fn last_delivery(&self) -> DeliveryId {
        self.delivery
    }

    /// Returns the change of the backlog since the last commit.
    pub(super) fn backlog_change(&mut self) -> &mut Change {
        &mut self.backlog
    }

    /// Counts a new event.
    pub(super) fn add_event(&mut self) {
        self.seq += 1;
        self.change(STORE, "events", 1);
    }

    /// Counts a new delivery in this state, and returns its id.
    pub(super) fn add_delivery(&mut self, owner: Owner, state: i64, share: Share) -> DeliveryId {
        self.delivery += 1;
        self.change(STORE, "deliveries", 1);
        self.change(STORE, if owner.replay == LIVE { "owed" } else { "replayed" }, 1);
        self.change_for(owner, name(state), 1);
        self.backlog.add(share);
        self.delivery
    }

    /// Remembers a new delivery that is ready.
    pub(super) fn add_recent(&mut self, id: DeliveryId, recent: Recent) {
        if self.recent.0.len() < RECENT_MAX {
            self.recent.0.insert(id, recent);
        }
    }

    /// Removes and returns a remembered delivery. Its state may have changed since.
    pub(super) fn take_recent(&mut self, id: DeliveryId) -> Option<Recent> {
        self.recent.0.remove(&id)
    }

    /// Counts a change of a delivery's state.
    pub(super) fn change_state(&mut self, owner: Owner, from: i64, to: i64) {
        self.change_for(owner, name(from), -1);
        self.change_for(owner, name(to), 1);
    }

    fn change_for(&mut self, owner: Owner, name: &'static str, by: i64) {
        self.change(owner.function, name, by);
        if owner.replay != LIVE {
            self.change(-owner.replay, name, by);
        }
    }

    /// Counts a removed delivery.
    pub(super) fn remove_delivery(&mut self, owner: Owner, state: i64) {
        self.change(owner.function, if state == rows::PURGED { REMOVED_PURGED } else { REMOVED_DONE }, 1);
        self.change(STORE, if owner.replay == LIVE { "removed owed" } else { "removed replayed" }, 1);
    }

    /// Counts a removed event.
    pub(super) fn remove_event(&mut self, seq: Seq) {
        self.change(STORE, "removed", 1);
        let further = (seq - self.removed_to).max(0);
        self.change(STORE, "removed to", further);
        self.removed_to += further;
    }

    fn change(&mut self, function: FunctionId, name: &'static str, by: i64) {
        *self.changes.entry((function, name)).or_default() += by;
    }

    /// Writes the changes as part of the current transaction.
    pub(super) fn write(&mut self, tx: &Connection) -> rusqlite::Result<()> {
        let mut add = tx.prepare_cached(
            "INSERT INTO totals (function, name, count) VALUES (?1, ?2, ?3)
             ON CONFLICT (function, name) DO UPDATE SET count = count + excluded.count",
        )?;
        for ((function, name), by) in self.changes.drain().filter(|(_, by)| *by != 0) {
            add.execute(params![function, name, by])?;
        }
        Ok(())
    }
}

/// Counts the pending deliveries, using the partial indexes of their states.
fn load_backlog(c: &Connection) -> rusqlite::Result<Change> {
    let mut change = Change::default();
    let mut groups = c.prepare(
        "SELECT origin, COUNT(*), SUM(CASE WHEN typeof(bytes) = 'integer' AND bytes BETWEEN 0 AND 1 << 32 THEN bytes ELSE 0 END) FROM (
           SELECT origin, bytes FROM deliveries WHERE state = 0 AND replay = 0 UNION ALL
           SELECT origin, bytes FROM deliveries WHERE state = 1 AND replay = 0 UNION ALL
           SELECT origin, bytes FROM deliveries WHERE state = 0 AND replay <> 0 UNION ALL
           SELECT origin, bytes FROM deliveries WHERE state = 1 AND replay <> 0 UNION ALL
           SELECT origin, bytes FROM deliveries
             WHERE order_key IS NOT NULL AND (state < 3 OR state = 4) AND state = 2)
         GROUP BY origin",
    )?;
    let mut groups = groups.query([])?;
    while let Some(row) = groups.next()? {
        // A damaged origin counts as no source: the delivery never runs, so it must not use up a source's limit.
        change.set(Origin(row.get(0).unwrap_or_default()), row.get(1)?, row.get(2)?);
    }
    Ok(change)
}

fn name(state: i64) -> &'static str {
    rows::state(state).map_or("unknown", DeliveryState::name)
}

/// Reads the running totals.
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
            (None, "removed replayed") => totals.removed.replayed = number,
            (None, "removed") => totals.removed.events = number,
            (None, "removed owed") => totals.removed.owed = number,
            (None, "removed to") => totals.removed.to = count,
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

/// Counts deliveries by function and state; the removed ones come from the running totals.
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
    let mut counts = Counts::default();
    let mut all = c.prepare_cached("SELECT name, count FROM totals WHERE function = -?1")?;
    let mut all = all.query([replay])?;
    while let Some(row) = all.next()? {
        let name: String = row.get(0)?;
        if let Some(state) = DeliveryState::ALL.into_iter().find(|state| state.name() == name) {
            *counts.get_mut(state) = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
        }
    }
    Ok(counts)
}
