//! Finds pending deliveries for an operator, and cancels or retries them in portions, so that other writes run in between.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::queue::WriteQueue;
use super::readers::Readers;
use super::rows;
use super::write::PORTION_MAX;
use super::write::cancel::Cancel;
use super::write::retry::RetryNow;
use super::write::transfer::Transfer;
use evoke_model::{DeliveryId, DeliveryState, FunctionId, PendingFilter};
use evoke_store::Result;

/// The maximum number of ids per search. A search reads all pending deliveries, so it must find many at once.
const SEARCH_MAX: usize = 16 * 1024;

/// Cancels the pending deliveries that exist now. Returns their number.
pub(super) async fn cancel(
    writes: WriteQueue,
    readers: Arc<Readers>,
    which: PendingFilter,
    cause: String,
) -> Result<u64> {
    let newest = Readers::run(readers.clone(), newest_id).await?;
    let (mut count, mut after) = (0, DeliveryId(0));
    loop {
        let which = which.clone();
        let found = Readers::run(readers.clone(), move |c| ids(c, &which, None, after, newest, SEARCH_MAX)).await?;
        let Some(last) = found.last().copied() else { return Ok(count) };
        for portion in found.chunks(PORTION_MAX) {
            count += writes.submit(Cancel { ids: portion.to_vec(), cause: cause.clone() }).await?;
        }
        after = last;
    }
}

/// Makes the retrying deliveries that exist now ready, unless they are due. Returns their number.
pub(super) async fn retry_now(writes: WriteQueue, readers: Arc<Readers>, which: PendingFilter) -> Result<u64> {
    let newest = Readers::run(readers.clone(), newest_id).await?;
    let (mut count, mut after) = (0, DeliveryId(0));
    let retrying = Some(DeliveryState::Retrying);
    loop {
        let which = which.clone();
        let found = Readers::run(readers.clone(), move |c| ids(c, &which, retrying, after, newest, SEARCH_MAX)).await?;
        let Some(last) = found.last().copied() else { return Ok(count) };
        for portion in found.chunks(PORTION_MAX) {
            count += writes.submit(RetryNow { ids: portion.to_vec() }).await?;
        }
        after = last;
    }
}

/// Moves the pending deliveries of a function that exist now to another one, except for these. Returns the number of moved
/// deliveries.
pub(super) async fn transfer(
    writes: WriteQueue,
    readers: Arc<Readers>,
    from: String,
    to: FunctionId,
    except: Vec<DeliveryId>,
) -> Result<u64> {
    let newest = Readers::run(readers.clone(), newest_id).await?;
    let (mut count, mut after) = (0, DeliveryId(0));
    loop {
        let which = PendingFilter::Function(from.clone());
        let found = Readers::run(readers.clone(), move |c| ids(c, &which, None, after, newest, SEARCH_MAX)).await?;
        let Some(last) = found.last().copied() else { return Ok(count) };
        let wanted: Vec<_> = found.into_iter().filter(|id| !except.contains(id)).collect();
        for portion in wanted.chunks(PORTION_MAX) {
            count += writes.submit(Transfer { ids: portion.to_vec(), to }).await?;
        }
        after = last;
    }
}

/// Returns the ids of the first `limit` pending deliveries after `after`, ascending; with a state only those in it.
pub(super) fn list_ids(
    c: &Connection,
    which: &PendingFilter,
    state: Option<DeliveryState>,
    after: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<DeliveryId>> {
    ids(c, which, state, after, DeliveryId(i64::MAX), limit)
}

fn newest_id(c: &Connection) -> rusqlite::Result<DeliveryId> {
    c.query_row("SELECT ifnull(MAX(id), 0) FROM deliveries", [], |r| r.get(0).map(DeliveryId))
}

/// The conditions of the partial indexes over each pending state, for live deliveries and for those of replays.
const PARTS: [(DeliveryState, &str); 5] = [
    (DeliveryState::Ready, "state = 0 AND replay = 0"),
    (DeliveryState::Retrying, "state = 1 AND replay = 0"),
    (DeliveryState::Ready, "state = 0 AND replay <> 0"),
    (DeliveryState::Retrying, "state = 1 AND replay <> 0"),
    (DeliveryState::Blocked, "order_key IS NOT NULL AND (state < 3 OR state = 4) AND state = 2"),
];

/// Searches through the partial indexes of the pending states, so that the time does not depend on the number of
/// finished deliveries. With a function, reads the part of each index that belongs to it.
fn ids(
    c: &Connection,
    which: &PendingFilter,
    state: Option<DeliveryState>,
    after: DeliveryId,
    until: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<DeliveryId>> {
    let (function, root) = match which {
        PendingFilter::Delivery(id) => {
            let found = c
                .prepare_cached(
                    "SELECT id, state FROM deliveries WHERE id = ?1 AND id > ?2 AND id <= ?3 AND state < 3",
                )?
                .query_row(params![id.0, after.0, until.0], |r| Ok((DeliveryId(r.get(0)?), rows::state(r.get(1)?)?)))
                .optional()?;
            let meant = found.filter(|(_, found)| state.is_none_or(|wanted| wanted == *found));
            return Ok(meant.into_iter().map(|(id, _)| id).take(limit).collect());
        }
        PendingFilter::All => (None, None),
        PendingFilter::Function(name) => (Some(name.as_str()), None),
        PendingFilter::Root(seq) => (None, Some(seq.0)),
    };
    let of_function = match function {
        Some(_) => "function = (SELECT id FROM functions WHERE name = :function)",
        None => ":function IS NULL",
    };
    let parts: Vec<String> = PARTS
        .iter()
        .filter(|(of, _)| state.is_none_or(|wanted| wanted == *of))
        .map(|(_, condition)| format!("SELECT id, event FROM deliveries WHERE {of_function} AND {condition}"))
        .collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    c.prepare_cached(&format!(
        "SELECT id FROM ({}) p
         WHERE id > :after AND id <= :until
           AND (:root IS NULL OR event = :root OR EXISTS (SELECT 1 FROM events e WHERE e.seq = p.event AND e.root = :root))
         ORDER BY id LIMIT :limit",
        parts.join(" UNION ALL ")
    ))?
    .query_map(
        named_params! {
            ":after": after.0, ":until": until.0, ":function": function, ":root": root,
            ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
        },
        |r| r.get(0).map(DeliveryId),
    )?
    .collect()
}
