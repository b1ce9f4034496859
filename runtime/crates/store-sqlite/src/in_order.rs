//! Reads the ids of deliveries in one state from the partial index of this state, in ascending or descending order. The
//! first column of each index is the function, so the ids are read function by function. For each function, only ids
//! that can be in the result are read. So the time depends on the number of functions and of wanted ids, and not on the
//! number of deliveries. One exception: the index of retrying deliveries has the order of their next attempts, so all
//! ids of a function in this index are read and sorted.

use rusqlite::{Connection, OptionalExtension, params};

use evoke_model::{DeliveryId, DeliveryState};

/// A partial index. SQLite uses it for a query that contains the same condition.
pub(super) struct Part {
    pub(super) state: DeliveryState,
    condition: &'static str,
    index: &'static str,
}

/// The indexes of pending deliveries. Ready and retrying deliveries have one index for live deliveries and one for
/// replayed deliveries; blocked deliveries have one index for both.
pub(super) const PENDING: [Part; 5] = [
    Part { state: DeliveryState::Ready, condition: "state = 0 AND replay = 0", index: "deliveries_ready" },
    Part { state: DeliveryState::Retrying, condition: "state = 1 AND replay = 0", index: "deliveries_due" },
    Part { state: DeliveryState::Ready, condition: "state = 0 AND replay <> 0", index: "replayed_ready" },
    Part { state: DeliveryState::Retrying, condition: "state = 1 AND replay <> 0", index: "replayed_due" },
    Part { state: DeliveryState::Blocked, condition: "state = 2", index: "deliveries_blocked" },
];
pub(super) const DEAD: [Part; 1] =
    [Part { state: DeliveryState::Dead, condition: "state = 4", index: "deliveries_dead" }];

/// The end of the range at which the returned ids begin.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Oldest,
    Newest,
}

/// The range of the wanted ids: greater than `after` and less than `before`.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) after: DeliveryId,
    pub(super) before: DeliveryId,
}

impl Part {
    fn sql(&self, end: End) -> String {
        let Self { condition, index, .. } = self;
        let order = match end {
            End::Oldest => "ASC",
            End::Newest => "DESC",
        };
        format!(
            "SELECT id FROM deliveries INDEXED BY {index}
             WHERE function = ?1 AND {condition} AND id > ?2 AND id < ?3 ORDER BY id {order} LIMIT ?4"
        )
    }
}

/// Returns the first `limit` ids of a range, starting at the given end. With `function`, returns only ids of this
/// function.
pub(super) fn ids<'a>(
    c: &Connection,
    parts: impl Iterator<Item = &'a Part>,
    function: Option<&str>,
    range: Range,
    end: End,
    limit: usize,
) -> rusqlite::Result<Vec<DeliveryId>> {
    let functions = functions(c, function)?;
    let Range { mut after, mut before } = range;
    let mut found: Vec<DeliveryId> = Vec::new();
    for part in parts {
        let mut select = c.prepare_cached(&part.sql(end))?;
        for function in &functions {
            let wanted = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut rows = select.query(params![function, after.0, before.0, wanted])?;
            let start = found.len();
            while let Some(row) = rows.next()? {
                found.push(DeliveryId(row.get(0)?));
            }
            // Ids beyond the last one found cannot be in the result any more, so the next queries read a smaller range.
            if found.len() > start && found.len() >= limit {
                sort(&mut found, end);
                found.truncate(limit);
                match (end, found.last()) {
                    (End::Oldest, Some(last)) => before = *last,
                    (End::Newest, Some(last)) => after = *last,
                    (_, None) => return Ok(found),
                }
            }
        }
    }
    sort(&mut found, end);
    Ok(found)
}

/// Sorts ids, and removes duplicates, which a damaged index may return.
fn sort(found: &mut Vec<DeliveryId>, end: End) {
    match end {
        End::Oldest => found.sort_unstable(),
        End::Newest => found.sort_unstable_by(|a, b| b.cmp(a)),
    }
    found.dedup();
}

/// Returns the id of the function with this name, or the ids of all functions if `name` is `None`.
fn functions(c: &Connection, name: Option<&str>) -> rusqlite::Result<Vec<i64>> {
    match name {
        Some(name) => {
            let id = c.prepare_cached("SELECT id FROM functions WHERE name = ?1")?.query_row([name], |r| r.get(0));
            Ok(id.optional()?.into_iter().collect())
        }
        None => c.prepare_cached("SELECT id FROM functions")?.query_map([], |r| r.get(0))?.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a store with deliveries of three functions. Every tenth delivery is done, and all others have the given
    /// state.
    fn store(state: i64, replay: i64) -> Connection {
        let c = Connection::open_in_memory().unwrap();
        c.execute_batch(include_str!("schema.sql")).unwrap();
        c.execute_batch(&format!(
            "INSERT INTO functions (id, name) VALUES (1, 'shop/a'), (2, 'shop/b'), (3, 'shop/c');
             WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 300)
             INSERT INTO deliveries (id, event, function, trigger, state, since_ms, due_ms, replay)
               SELECT id, id, 1 + id * 7 % 5 % 3, 't', iif(id % 10 = 0, 3, {state}), 0, id * 37 % 300, {replay} FROM n"
        ))
        .unwrap();
        c
    }

    fn part_of(state: DeliveryState, condition: &str) -> impl Iterator<Item = &'static Part> {
        PENDING.iter().chain(&DEAD).filter(move |part| part.state == state && part.condition == condition)
    }

    fn numbers(found: &[DeliveryId]) -> Vec<i64> {
        found.iter().map(|id| id.0).collect()
    }

    #[test]
    fn ids_of_all_functions_are_merged_from_either_end_within_the_range() {
        for (part, replay) in PENDING.iter().chain(&DEAD).zip([0, 0, 1, 1, 0, 0]) {
            let number = DeliveryState::ALL.iter().position(|state| *state == part.state).unwrap();
            let c = store(i64::try_from(number).unwrap(), replay);
            let range = Range { after: DeliveryId(17), before: DeliveryId(280) };
            let all: Vec<i64> = (18..280).filter(|id| id % 10 != 0).collect();
            for limit in [0, 1, 2, 50, 234, 235, 236, 237, 1_000] {
                let read = |function, end| ids(&c, part_of(part.state, part.condition), function, range, end, limit);
                let oldest = numbers(&read(None, End::Oldest).unwrap());
                assert_eq!(oldest, all.iter().copied().take(limit).collect::<Vec<_>>(), "{}", part.index);
                let newest = numbers(&read(None, End::Newest).unwrap());
                assert_eq!(newest, all.iter().rev().copied().take(limit).collect::<Vec<_>>(), "{}", part.index);
                let of_b = numbers(&read(Some("shop/b"), End::Newest).unwrap());
                let b = |id: &i64| 1 + id * 7 % 5 % 3 == 2;
                assert_eq!(of_b, all.iter().rev().copied().filter(b).take(limit).collect::<Vec<_>>());
                assert!(read(Some("shop/d"), End::Oldest).unwrap().is_empty());
            }
        }
    }

    #[test]
    fn each_part_is_a_search_in_its_index_alone() {
        let c = store(0, 0);
        for part in PENDING.iter().chain(&DEAD) {
            for end in [End::Oldest, End::Newest] {
                let plan: Vec<String> = c
                    .prepare(&format!("EXPLAIN QUERY PLAN {}", part.sql(end)))
                    .unwrap()
                    .query_map(params![1, 0, i64::MAX, 1], |r| r.get(3))
                    .unwrap()
                    .collect::<rusqlite::Result<_>>()
                    .unwrap();
                let is_sorted = plan.iter().any(|step| step.contains("TEMP B-TREE"));
                assert_eq!(is_sorted, part.state == DeliveryState::Retrying, "{plan:?}");
                let search = format!("INDEX {} (function=?", part.index);
                assert!(plan[0].starts_with("SEARCH deliveries USING") && plan[0].contains(&search), "{plan:?}");
            }
        }
    }
}
