//! Checks a store in one snapshot. Reports damaged structures of SQLite, rows with wrong checksums, and lost events or
//! deliveries.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::failure::{self, store_error};
use super::folder::open_store_for_reading;
use super::{schema, totals, wal};
use evoke_model::{CheckReport, Counts, DeliveryState, Removed, Totals};
use evoke_store::Result;

/// Maximum number of listed problems; a longer list would not help to repair the store.
const PROBLEMS_MAX: usize = 100;

/// Each rule is a query for rows that violate the rule, and the message for such a row. In the message, `{0}` to `{2}`
/// stand for the columns of the row.
const RULES: [(&str, &str); 14] = [
    (
        "SELECT s.seq, 0, 0 FROM scheduled s LEFT JOIN events e ON e.seq = s.seq WHERE e.seq IS NULL",
        "event {0} is scheduled, but it does not exist",
    ),
    (
        "SELECT s.seq, 0, 0 FROM scheduled s JOIN events e ON e.seq = s.seq
         WHERE e.owed <> 0 OR e.released_ms IS NOT NULL",
        "event {0} is still scheduled, but it was already delivered to its functions",
    ),
    (
        "SELECT e.seq, COUNT(d.id), e.owed FROM events e
         LEFT JOIN deliveries d ON d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed AND d.event = e.seq
           AND d.replay = 0
         GROUP BY e.seq HAVING COUNT(d.id) <> e.owed",
        "the store has only {1} of the {2} deliveries of event {0}",
    ),
    (
        "SELECT d.id, d.event, 0 FROM deliveries d LEFT JOIN events e
           ON e.seq = d.event AND (d.replay <> 0 OR d.id >= e.first_delivery AND d.id < e.first_delivery + e.owed)
         WHERE e.seq IS NULL",
        "delivery {0} refers to event {1}, but there is no event {1} with this delivery",
    ),
    (
        "SELECT d.id, d.state, 0 FROM deliveries d WHERE d.state NOT BETWEEN 0 AND 5",
        "delivery {0} has the unknown state {1}; the known states are 0 to 5",
    ),
    (
        "SELECT d.id, d.attempts, COUNT(a.attempt) + (d.done_ms IS NOT NULL) AS recorded
         FROM deliveries d LEFT JOIN attempts a ON a.delivery = d.id GROUP BY d.id HAVING recorded <> d.attempts",
        "the number of attempts of delivery {0} is {1}, but the number of stored attempt records is {2}; the numbers \
         must be equal",
    ),
    (
        // A delivery that is not done may be the cause of an event in two cases. First, a runtime event (`/evoke`)
        // reports the delivery's failure. Second, an operator has edited the event of a dead letter: the dead letter is
        // then purged, and the edited copy of its event has the same hops. A cause that retention removed is not
        // checked.
        "SELECT e.seq, e.cause, 0 FROM events e JOIN deliveries d ON d.id = e.cause
         WHERE e.cause IS NOT NULL AND d.state <> 3 AND e.source <> '/evoke'
           AND NOT (d.state = 5 AND e.hops = (SELECT hops FROM events o WHERE o.seq = d.event))",
        "event {0} was published by delivery {1}, but this delivery is not done",
    ),
    (
        // A blocked delivery needs an earlier unfinished delivery of its order key. Otherwise, nothing would ever
        // unblock it.
        "SELECT b.id, b.event, 0 FROM deliveries b WHERE b.state = 2 AND NOT EXISTS (
           SELECT 1 FROM deliveries d WHERE d.function = b.function AND d.order_key = b.order_key AND d.replay = b.replay
             AND d.order_key IS NOT NULL AND (d.state < 3 OR d.state = 4) AND d.id < b.id)",
        "delivery {0} is blocked, but its order key has no earlier unfinished delivery for which it could wait",
    ),
    (
        "SELECT d.id, d.replay, 0 FROM deliveries d LEFT JOIN replays r ON r.id = d.replay
         WHERE d.replay <> 0 AND r.id IS NULL",
        "delivery {0} belongs to replay {1}, but this replay does not exist",
    ),
    (
        // A replay adds one delivery per event and function, also if it is interrupted and continued.
        "SELECT d.replay, d.event, COUNT(*) FROM deliveries d WHERE d.replay <> 0
         GROUP BY d.replay, d.event, d.function HAVING COUNT(*) > 1",
        "replay {0} has {2} deliveries of event {1} to the same function, but there must be only one",
    ),
    (
        "SELECT r.id, (SELECT COUNT(*) FROM deliveries d WHERE d.replay = r.id AND d.replay <> 0 AND d.state < 3),
           (SELECT ifnull(SUM(t.count), 0) FROM totals t
            WHERE t.function = -r.id AND t.name IN ('ready', 'retrying', 'blocked')) AS noted
         FROM replays r WHERE noted <> (SELECT COUNT(*) FROM deliveries d
           WHERE d.replay = r.id AND d.replay <> 0 AND d.state < 3)",
        "the number of pending deliveries of replay {0} is {1}, but the table `totals` says {2}; the numbers must be \
         equal",
    ),
    (
        "SELECT ifnull((SELECT SUM(count) FROM totals WHERE function < 0), 0) AS of_each,
           ifnull((SELECT count FROM totals WHERE function = 0 AND name = 'replayed'), 0) AS of_all, 0
         WHERE of_each <> of_all",
        "table `totals`: the deliveries of the single replays add up to {0}, but the number of all replayed deliveries \
         is {1}; the numbers must be equal",
    ),
    (
        "SELECT ifnull(SUM(count) FILTER (WHERE name = 'deliveries'), 0) AS given,
           ifnull(SUM(count) FILTER (WHERE name IN ('owed', 'replayed')), 0) AS created, 0
         FROM totals WHERE function = 0 HAVING given <> created",
        "table `totals`: the number of assigned delivery ids is {0}, but the live and the replayed deliveries add up \
         to {1}; the numbers must be equal",
    ),
    (
        // The newest removed event must be gone, and all events after it must exist.
        "SELECT up_to, (SELECT COUNT(*) FROM events WHERE seq > up_to) AS behind, 0 FROM (
           SELECT ifnull(MAX(count) FILTER (WHERE name = 'removed to'), 0) AS up_to,
             ifnull(MAX(count) FILTER (WHERE name = 'removed'), 0) AS removed
           FROM totals WHERE function = 0)
         WHERE behind <> (SELECT COUNT(*) FROM events) + removed - up_to OR EXISTS (SELECT 1 FROM events WHERE seq = up_to)
           OR (removed = 0) <> (up_to = 0)",
        "table `totals`: event {0} is the last one that retention removed, but this does not match the stored events \
         (number of later events: {1})",
    ),
];

/// The tables with checksums. For each table: an expression that names a row, and an expression that computes the
/// checksum of a row.
const CHECKSUMS: [(&str, &str, &str); 13] = [
    ("meta", "key", "sum_of(key, value)"),
    ("functions", "id", "sum_of(id, name)"),
    ("origins", "id", "sum_of(id, uri)"),
    (
        "events",
        "seq",
        "CASE WHEN released_ms IS NOT NULL
           THEN sum_of(seq, id, source, type, subject, time, datacontenttype, dataschema, extensions, data_kind,
             accepted_ms, first_delivery, owed, cause, root, hops, origin, data, principal, released_ms)
           WHEN principal IS NULL
           THEN sum_of(seq, id, source, type, subject, time, datacontenttype, dataschema, extensions, data_kind,
             accepted_ms, first_delivery, owed, cause, root, hops, origin, data)
           ELSE sum_of(seq, id, source, type, subject, time, datacontenttype, dataschema, extensions, data_kind,
             accepted_ms, first_delivery, owed, cause, root, hops, origin, data, principal) END",
    ),
    ("scheduled", "seq", "sum_of(seq, due_ms, origin, bytes, published)"),
    ("known", "seq", "sum_of(seq, id, source, accepted_ms, origin)"),
    (
        "deliveries",
        "id",
        "sum_of(id, event, function, trigger, order_key, origin, bytes, replay)
           + sum_of(state, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us)",
    ),
    ("attempts", "delivery || ' ' || attempt", "sum_of(delivery, attempt, started_ms, duration_us, outcome, message)"),
    ("recordings", "id", "sum_of(id, function, number, delivery, attempt, start_bytes, expires_ms, data)"),
    ("exits", "delivery", "sum_of(delivery, count)"),
    ("replays", "id", "sum_of(id, filter, created_ms, until) + sum_of(state, position, events)"),
    ("marks", "scope || ' ' || key", "sum_of(scope, key, value)"),
    ("state", "bucket || ' ' || key", "sum_of(bucket, key, value, version)"),
];

/// Checks the store in `folder` without opening it for writing; safe while another process has it open.
pub fn check_folder(folder: &Path) -> Result<CheckReport> {
    let path = folder.join("evoke.db");
    let to_store_error = |e: rusqlite::Error| store_error(&path, &e);
    let (_folder, connection) = open_store_for_reading(folder)?;
    // One transaction, so that all rules see one snapshot while a running process keeps writing.
    let snapshot = connection.unchecked_transaction().map_err(to_store_error)?;
    let log = wal::find_damage(&path);
    match schema::check_version(&snapshot).map_err(to_store_error)? {
        // The database file can be empty while all commits are still in the log.
        Err(_) if log.is_some() => Ok(CheckReport { problems: log.into_iter().collect(), ..CheckReport::default() }),
        Err(error) => Err(error),
        Ok(()) => {
            let mut report = check(&snapshot);
            report.problems.splice(0..0, log);
            Ok(report)
        }
    }
}

/// Runs all checks, also on a damaged store: if a query fails, the error is reported as a problem.
pub(super) fn check(c: &Connection) -> CheckReport {
    let file = c.path().unwrap_or_default();
    let mut damage = Vec::new();
    if let Err(error) = find_damage(c, &mut damage) {
        damage.push(error.to_string());
    }
    for (table, row, sum) in CHECKSUMS {
        if let Err(error) = find_wrong_checksums(c, table, row, sum, &mut damage) {
            damage.push(format!("table {table}: {error}"));
        }
    }
    let mut problems: Vec<String> =
        damage.into_iter().take(PROBLEMS_MAX).map(|what| format!("{file}: {what}")).collect();
    for (query, template) in RULES {
        if let Err(error) = find_violations(c, query, template, &mut problems) {
            problems.push(format!("{file}: {error}"));
        }
    }
    let counted = totals::read(c).and_then(|running| {
        let counted = count(c, running.removed)?;
        compare(&running, &counted, &mut problems);
        Ok(counted)
    });
    let totals = counted.unwrap_or_else(|error| {
        problems.push(format!("{file}: {error}"));
        Totals::default()
    });
    problems.truncate(PROBLEMS_MAX - 1);
    if !problems.is_empty() {
        problems.push(failure::remedy(file));
    }
    CheckReport { totals, problems }
}

/// Reports the findings of SQLite's own integrity check.
fn find_damage(c: &Connection, damage: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut integrity = c.prepare("PRAGMA integrity_check")?;
    let mut lines = integrity.query([])?;
    while let Some(line) = lines.next()? {
        let line = String::from_utf8_lossy(line.get_ref(0)?.as_bytes()?).into_owned();
        if line != "ok" {
            damage.push(format!("SQLite's integrity check: {line}"));
        }
    }
    Ok(())
}

/// Reports each row whose checksum does not match its content.
fn find_wrong_checksums(
    c: &Connection,
    table: &str,
    row: &str,
    sum: &str,
    damage: &mut Vec<String>,
) -> rusqlite::Result<()> {
    let mut statement = c.prepare(&format!("SELECT CAST({row} AS BLOB) FROM {table} WHERE sum IS NOT {sum}"))?;
    let mut rows = statement.query([])?;
    while let Some(found) = rows.next()?
        && damage.len() < PROBLEMS_MAX
    {
        let row = found.get_ref(0)?.as_bytes_or_null()?.map(String::from_utf8_lossy).unwrap_or_default();
        damage.push(format!("table {table}, row {row}: the checksum does not match the content"));
    }
    Ok(())
}

/// Reports rows that break a rule.
fn find_violations(c: &Connection, query: &str, template: &str, problems: &mut Vec<String>) -> rusqlite::Result<()> {
    let mut statement = c.prepare(query)?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()?
        && problems.len() < PROBLEMS_MAX
    {
        let mut text = template.to_owned();
        for column in 0..3 {
            let value = match row.get_ref(column)? {
                ValueRef::Integer(number) => number.to_string(),
                _ => "?".into(),
            };
            text = text.replace(&format!("{{{column}}}"), &value);
        }
        problems.push(text);
    }
    Ok(())
}

/// Counts events and deliveries from their rows. The numbers of removed events and deliveries come from the table
/// `totals`.
fn count(c: &Connection, removed: Removed) -> rusqlite::Result<Totals> {
    let unsigned = |value| u64::try_from(value).unwrap_or_default();
    let replayed: i64 = c.query_row("SELECT COUNT(*) FROM deliveries WHERE replay <> 0", [], |r| r.get(0))?;
    let (events, owed) = c.query_row("SELECT COUNT(*), COALESCE(SUM(owed), 0) FROM events", [], |r| {
        Ok((unsigned(r.get::<_, i64>(0)?), unsigned(r.get::<_, i64>(1)?)))
    })?;
    let scheduled: i64 = c.query_row("SELECT COUNT(*) FROM scheduled", [], |r| r.get(0))?;
    Ok(Totals {
        scheduled: unsigned(scheduled),
        events: events + removed.events,
        owed: owed + removed.owed,
        replayed: unsigned(replayed) + removed.replayed,
        removed,
        functions: totals::count(c)?,
    })
}

/// Checks that each accepted event and each created delivery is stored or was removed, and that the table `totals` has
/// the counted numbers.
fn compare(running: &Totals, counted: &Totals, problems: &mut Vec<String>) {
    let stored: u64 = counted.functions.values().map(Counts::total).sum();
    let due = counted.owed + counted.replayed;
    if stored != due {
        problems.push(format!(
            "the number of stored or removed deliveries is {stored}, but events and replays created {due}; the numbers \
             must be equal"
        ));
    }
    let removed: u64 = counted.functions.values().map(|counts| counts.removed).sum();
    let expected = counted.removed.owed + counted.removed.replayed;
    if removed != expected {
        problems.push(format!(
            "table `totals`: the removed deliveries of all functions add up to {removed}, but the removed \
             deliveries of all events and replays add up to {expected}; the numbers must be equal"
        ));
    }
    for (what, expected, stored) in [
        ("stored or removed events", running.events, counted.events),
        ("stored or removed live deliveries", running.owed, counted.owed),
        ("stored or removed replayed deliveries", running.replayed, counted.replayed),
        ("scheduled events", running.scheduled, counted.scheduled),
    ] {
        if expected != stored {
            problems.push(format!(
                "the number of {what} is {stored}, but the table `totals` says {expected}; the numbers must be equal"
            ));
        }
    }
    let names = running.functions.keys().chain(counted.functions.keys()).collect::<BTreeSet<_>>();
    for name in names {
        let of = |totals: &Totals| totals.functions.get(name).cloned().unwrap_or_default();
        let (running, counted) = (of(running), of(counted));
        for state in DeliveryState::ALL {
            let (expected, stored) = (running.get(state), counted.get(state));
            if expected != stored {
                let state = state.name();
                problems.push(format!(
                    "the number of deliveries of {name} in the state `{state}` is {stored}, but the table `totals` \
                     says {expected}; the numbers must be equal"
                ));
            }
        }
    }
}
