//! Conservation and integrity, verified in one moment of the store.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::totals;
use crate::store::{CheckReport, Counts, DeliveryState, Removed, Totals};

/// Problems that are listed; a store with more has no use for the rest of the list.
const PROBLEMS_MAX: usize = 100;

/// Each rule as a query for what breaks it, with the words for a finding.
const RULES: [(&str, &str); 9] = [
    (
        "SELECT e.seq, COUNT(d.id), e.owed FROM events e
         LEFT JOIN deliveries d ON d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed AND d.event = e.seq
           AND d.replay = 0
         GROUP BY e.seq HAVING COUNT(d.id) <> e.owed",
        "event {0} has {1} deliveries and is owed {2}",
    ),
    (
        "SELECT d.id, d.event, 0 FROM deliveries d LEFT JOIN events e
           ON e.seq = d.event AND (d.replay <> 0 OR d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed)
         WHERE e.seq IS NULL",
        "delivery {0} is for event {1}, which does not own it",
    ),
    (
        "SELECT d.id, d.state, 0 FROM deliveries d WHERE d.state NOT BETWEEN 0 AND 5",
        "delivery {0} has the unknown state {1}",
    ),
    (
        "SELECT d.id, d.attempts, COUNT(a.attempt) FROM deliveries d LEFT JOIN attempts a ON a.delivery = d.id
         GROUP BY d.id HAVING COUNT(a.attempt) <> d.attempts",
        "delivery {0} counts {1} attempts and has {2} on record",
    ),
    (
        // Its delivery may have been removed before it, and was done then. What the runtime says goes with failures.
        "SELECT e.seq, e.cause, 0 FROM events e JOIN deliveries d ON d.id = e.cause
         WHERE e.cause IS NOT NULL AND d.state <> 3 AND e.source <> '/evoke'",
        "event {0} was published by delivery {1}, which is not done",
    ),
    (
        // A blocked delivery needs someone before it: else nothing would ever wake it.
        "SELECT b.id, b.event, 0 FROM deliveries b WHERE b.state = 2 AND NOT EXISTS (
           SELECT 1 FROM deliveries d WHERE d.function = b.function AND d.order_key = b.order_key AND d.replay = b.replay
             AND d.order_key IS NOT NULL AND (d.state < 3 OR d.state = 4) AND d.id < b.id)",
        "delivery {0} is blocked and nothing is before it",
    ),
    (
        "SELECT d.id, d.replay, 0 FROM deliveries d LEFT JOIN replays r ON r.id = d.replay
         WHERE d.replay <> 0 AND r.id IS NULL",
        "delivery {0} is of replay {1}, which is not there",
    ),
    (
        // Once for each event and function, however often it was interrupted.
        "SELECT d.replay, d.event, COUNT(*) FROM deliveries d WHERE d.replay <> 0
         GROUP BY d.replay, d.event, d.function HAVING COUNT(*) > 1",
        "replay {0} offered event {1} {2} times to one function",
    ),
    (
        "SELECT r.id, (SELECT COUNT(*) FROM deliveries d WHERE d.replay = r.id AND d.replay <> 0 AND d.state < 3),
           (SELECT ifnull(SUM(t.count), 0) FROM totals t
            WHERE t.function = -r.id AND t.name IN ('ready', 'retrying', 'blocked')) AS noted
         FROM replays r WHERE noted <> (SELECT COUNT(*) FROM deliveries d
           WHERE d.replay = r.id AND d.replay <> 0 AND d.state < 3)",
        "replay {0} has {1} pending deliveries, and its running number says {2}",
    ),
];

pub(super) fn check(c: &Connection) -> rusqlite::Result<CheckReport> {
    let mut problems = Vec::new();
    let mut integrity = c.prepare("PRAGMA integrity_check")?;
    for line in integrity.query_map([], |r| r.get::<_, String>(0))? {
        let line = line?;
        if line != "ok" {
            problems.push(format!("integrity: {line}"));
        }
    }
    for (query, words) in RULES {
        let mut statement = c.prepare(query)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            if problems.len() >= PROBLEMS_MAX {
                break;
            }
            let mut text = words.to_owned();
            for column in 0..3 {
                text = text.replace(&format!("{{{column}}}"), &row.get::<_, i64>(column)?.to_string());
            }
            problems.push(text);
        }
    }
    let running = totals::read(c)?;
    let counted = count(c, running.removed)?;
    compare(&running, &counted, &mut problems);
    problems.truncate(PROBLEMS_MAX);
    Ok(CheckReport { totals: counted, problems })
}

/// The numbers, counted; what was removed is taken from what is kept of it.
fn count(c: &Connection, removed: Removed) -> rusqlite::Result<Totals> {
    let unsigned = |value| u64::try_from(value).unwrap_or_default();
    let replayed: i64 = c.query_row("SELECT COUNT(*) FROM deliveries WHERE replay <> 0", [], |r| r.get(0))?;
    let (events, owed) = c.query_row("SELECT COUNT(*), COALESCE(SUM(owed), 0) FROM events", [], |r| {
        Ok((unsigned(r.get::<_, i64>(0)?), unsigned(r.get::<_, i64>(1)?)))
    })?;
    Ok(Totals {
        events: events + removed.events,
        owed: owed + removed.owed,
        replayed: unsigned(replayed) + removed.replayed,
        removed,
        functions: totals::count(c)?,
    })
}

/// What was accepted has to be there or to have been removed, and the numbers that run along have to be those that are
/// counted.
fn compare(running: &Totals, counted: &Totals, problems: &mut Vec<String>) {
    let there: u64 = counted.functions.values().map(Counts::total).sum();
    let due = counted.owed + counted.replayed;
    if there != due {
        problems.push(format!("{due} deliveries are owed or replayed, and {there} are there"));
    }
    let removed: u64 = counted.functions.values().map(|counts| counts.removed).sum();
    let noted = counted.removed.owed + counted.removed.replayed;
    if removed != noted {
        problems.push(format!("{removed} deliveries of functions were removed, and {noted} of events"));
    }
    if (running.events, running.owed) != (counted.events, counted.owed) {
        problems.push(format!(
            "{} events with {} deliveries were accepted, and {} with {} are there or were removed",
            running.events, running.owed, counted.events, counted.owed
        ));
    }
    if running.replayed != counted.replayed {
        let (noted, there) = (running.replayed, counted.replayed);
        problems.push(format!("{noted} deliveries were replayed, and {there} are there or were removed"));
    }
    let names = running.functions.keys().chain(counted.functions.keys()).collect::<BTreeSet<_>>();
    for name in names {
        let of = |totals: &Totals| totals.functions.get(name).cloned().unwrap_or_default();
        let (running, counted) = (of(running), of(counted));
        for state in DeliveryState::ALL {
            let (noted, there) = (running.get(state), counted.get(state));
            if noted != there {
                let state = state.name();
                problems.push(format!("{name} has {there} {state} deliveries, and its running number says {noted}"));
            }
        }
    }
}
