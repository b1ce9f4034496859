//! Running numbers: what every commit changes of them, and what they are.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};
use rusqlite::{Connection, params};

use super::rows;
use crate::clock::UnixMs;
use crate::store::backlog::{Change, Share};
use crate::store::{Counts, DeliveryId, DeliveryState, FunctionId, Origin, ReplayId, Seq, Totals};

/// The numbers of the store itself go by this function.
const STORE: FunctionId = 0;
const REMOVED_DONE: &str = "removed done";
const REMOVED_PURGED: &str = "removed purged";

/// Whose a delivery is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) function: FunctionId,
    /// Or [`LIVE`].
    pub(super) replay: ReplayId,
}

/// The column `replay` of a live delivery.
pub(super) const LIVE: ReplayId = 0;

/// The ids given out last, and what the transaction that is under way changes. The writer is alone, so it counts for
/// itself, and an event's deliveries are a range.
#[derive(Clone)]
pub(super) struct Counters {
    seq: Seq,
    delivery: DeliveryId,
    removed_to: Seq,
    backlog: Change,
    changes: HashMap<(FunctionId, &'static str), i64>,
    young: Nursery,
}

/// Deliveries that this writer added, and that were ready and not touched since: what their end has to know of them,
/// which is read back otherwise.
#[derive(Default)]
struct Nursery(HashMap<DeliveryId, Young>);

/// More than are under way at a time when the system keeps up.
const YOUNG_MAX: usize = 4096;

/// What does not change of a delivery before its first attempt ends.
pub(super) struct Young {
    pub(super) owner: Owner,
    pub(super) order_key: Option<String>,
    pub(super) share: Share,
    pub(super) since_ms: UnixMs,
    pub(super) staying_sum: i64,
}

/// A copy is what a transaction that fails goes back to. It may not know what is not so then, and knows nothing.
impl Clone for Nursery {
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
            backlog: pending(connection)?,
            changes: HashMap::new(),
            young: Nursery::default(),
        })
    }

    pub(super) fn newest(&self) -> Seq {
        self.seq
    }

    pub(super) fn last_delivery(&self) -> DeliveryId {
        self.delivery
    }

    /// What changed of the backlog since it was taken last.
    pub(super) fn backlog(&mut self) -> &mut Change {
        &mut self.backlog
    }

    /// An event was added.
    pub(super) fn event(&mut self) {
        self.seq += 1;
        self.change(STORE, "events", 1);
    }

    /// A delivery was added, in this state; answers its name.
    pub(super) fn delivery(&mut self, owner: Owner, state: i64, share: Share) -> DeliveryId {
        self.delivery += 1;
        self.change(STORE, "deliveries", 1);
        self.change(STORE, if owner.replay == LIVE { "owed" } else { "replayed" }, 1);
        self.of(owner, name(state), 1);
        self.backlog.came(share);
        self.delivery
    }

    /// A delivery was added that is ready.
    pub(super) fn is_young(&mut self, id: DeliveryId, young: Young) {
        if self.young.0.len() < YOUNG_MAX {
            self.young.0.insert(id, young);
        }
    }

    /// What is known of a delivery that was added lately; it may be in another state by now.
    pub(super) fn grown_up(&mut self, id: DeliveryId) -> Option<Young> {
        self.young.0.remove(&id)
    }

    /// A delivery went from one state to another.
    pub(super) fn moved(&mut self, owner: Owner, from: i64, to: i64) {
        self.of(owner, name(from), -1);
        self.of(owner, name(to), 1);
    }

    fn of(&mut self, owner: Owner, name: &'static str, by: i64) {
        self.change(owner.function, name, by);
        if owner.replay != LIVE {
            self.change(-owner.replay, name, by);
        }
    }

    /// A delivery was removed.
    pub(super) fn removed_delivery(&mut self, owner: Owner, state: i64) {
        self.change(owner.function, if state == rows::PURGED { REMOVED_PURGED } else { REMOVED_DONE }, 1);
        self.change(STORE, if owner.replay == LIVE { "removed owed" } else { "removed replayed" }, 1);
    }

    /// An event was removed.
    pub(super) fn removed_event(&mut self, seq: Seq) {
        self.change(STORE, "removed", 1);
        let further = (seq - self.removed_to).max(0);
        self.change(STORE, "removed to", further);
        self.removed_to += further;
    }

    fn change(&mut self, function: FunctionId, name: &'static str, by: i64) {
        *self.changes.entry((function, name)).or_default() += by;
    }

    /// Writes what changed, as part of the transaction that changed it.
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

/// What is pending, from the partial indexes of the states.
fn pending(c: &Connection) -> rusqlite::Result<Change> {
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
        // One that is damaged is nobody's: it is never run, and nothing has to wait for that.
        change.found(Origin(row.get(0).unwrap_or_default()), row.get(1)?, row.get(2)?);
    }
    Ok(change)
}

fn name(state: i64) -> &'static str {
    rows::state(state).map_or("unknown", DeliveryState::name)
}

/// The numbers as they are kept.
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
                    *totals.functions.entry(function).or_default().of(state) = number;
                }
            }
        }
    }
    Ok(totals)
}

/// Deliveries by function and state, counted; those that were removed are taken from what is kept of them.
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
        *counts.of(if row.get(1)? { DeliveryState::Purged } else { DeliveryState::Done }) += number;
        counts.removed += number;
    }
    let mut groups = c.prepare_cached(
        "SELECT f.name, d.state, COUNT(*) FROM deliveries d JOIN functions f ON f.id = d.function GROUP BY f.name, d.state",
    )?;
    let mut groups = groups.query([])?;
    while let Some(row) = groups.next()? {
        let state = rows::state(row.get(1)?)?;
        *functions.entry(row.get(0)?).or_default().of(state) +=
            u64::try_from(row.get::<_, i64>(2)?).unwrap_or_default();
    }
    Ok(functions)
}

/// The deliveries of a replay by state.
pub(super) fn of_replay(c: &Connection, replay: ReplayId) -> rusqlite::Result<Counts> {
    let mut counts = Counts::default();
    let mut all = c.prepare_cached("SELECT name, count FROM totals WHERE function = -?1")?;
    let mut all = all.query([replay])?;
    while let Some(row) = all.next()? {
        let name: String = row.get(0)?;
        if let Some(state) = DeliveryState::ALL.into_iter().find(|state| state.name() == name) {
            *counts.of(state) = u64::try_from(row.get::<_, i64>(1)?).unwrap_or_default();
        }
    }
    Ok(counts)
}
