//! The progress of a chain, for a request that waits until a function of the chain publishes an event.

use rusqlite::{Connection, OptionalExtension, params};

use super::read;
use super::rows;
use evoke_model::{ChainState, DeliveryId, Origin, Seq};

/// One event of a chain. The ids of its live deliveries are consecutive: `owed` ids from `first_delivery` on.
struct Link {
    seq: Seq,
    first_delivery: i64,
    owed: i64,
}

/// Returns the first event of a wanted type that a function of the chain published. If there is none, returns the state
/// of the chain's deliveries. Reads the data of no event except the returned one.
pub(super) fn state(c: &Connection, root: Seq, wanted: &dyn Fn(&str) -> bool) -> rusqlite::Result<ChainState> {
    let of_root = "SELECT seq, first_delivery, owed, hops, type FROM events WHERE seq = ?1 AND origin <> ?2";
    let caused =
        "SELECT seq, first_delivery, owed, hops, type FROM events WHERE root = ?1 AND origin <> ?2 ORDER BY seq";
    let mut links = Vec::new();
    for sql in [of_root, caused] {
        let mut select = c.prepare_cached(sql)?;
        let mut found = select.query(params![root.0, Origin::RUNTIME.0])?;
        while let Some(row) = found.next()? {
            let seq = Seq(row.get(0)?);
            if row.get::<_, i64>(3)? > 0
                && wanted(row.get_ref(4)?.as_str()?)
                && let Some(event) = read::event(c, seq)?
                // The event is checked again, because a damaged index may return other events.
                && event.as_ref().map_or(true, |found| found.lineage.root == Some(root) && wanted(&found.event.type_))
            {
                return Ok(ChainState::Published(event));
            }
            links.push(Link { seq, first_delivery: row.get(1)?, owed: row.get(2)? });
        }
    }
    of_deliveries(c, &links)
}

fn of_deliveries(c: &Connection, links: &[Link]) -> rusqlite::Result<ChainState> {
    let mut select =
        c.prepare_cached("SELECT id, state, event, cause FROM deliveries WHERE id >= ?1 AND id < ?2 AND state <> 3")?;
    let mut is_pending = false;
    for Link { seq, first_delivery, owed } in links.iter().filter(|link| link.owed > 0) {
        let mut found = select.query([*first_delivery, first_delivery.saturating_add(*owed)])?;
        while let Some(row) = found.next()? {
            // A damaged event may refer to deliveries of other events.
            if row.get::<_, i64>(2)? != seq.0 {
                continue;
            }
            let (id, state) = (DeliveryId(row.get(0)?), row.get::<_, i64>(1)?);
            if state == rows::DEAD {
                let cause: Option<String> = row.get(3)?;
                return Ok(ChainState::dead(id, cause.as_deref(), last_outcome(c, id)?));
            }
            is_pending |= [rows::READY, rows::RETRYING, rows::BLOCKED].contains(&state);
        }
    }
    Ok(if is_pending { ChainState::Pending } else { ChainState::Finished })
}

fn last_outcome(c: &Connection, delivery: DeliveryId) -> rusqlite::Result<Option<String>> {
    c.prepare_cached("SELECT outcome FROM attempts WHERE delivery = ?1 ORDER BY attempt DESC LIMIT 1")?
        .query_row([delivery.0], |r| r.get(0))
        .optional()
}
