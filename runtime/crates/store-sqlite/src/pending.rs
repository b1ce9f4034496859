//! Finds pending deliveries for an operator, and cancels them in portions, so that other writes run in between.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::queue::WriteQueue;
use super::read;
use super::readers::Readers;
use super::write::PORTION_MAX;
use super::write::cancel::Cancel;
use evoke_model::{DeliveryId, DeliveryState, PendingFilter, ReadDelivery};
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
        let found = Readers::run(readers.clone(), move |c| ids(c, &which, after, newest, SEARCH_MAX)).await?;
        let Some(last) = found.last().copied() else { return Ok(count) };
        for portion in found.chunks(PORTION_MAX) {
            count += writes.submit(Cancel { ids: portion.to_vec(), cause: cause.clone() }).await?;
        }
        after = last;
    }
}

/// Returns the first `limit` pending deliveries after `after`, in the order of their ids.
pub(super) fn list(
    c: &Connection,
    which: &PendingFilter,
    after: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<ReadDelivery>> {
    let ids = ids(c, which, after, DeliveryId(i64::MAX), limit)?.into_iter();
    let mut found = ids.filter_map(|id| read::delivery(c, id).transpose()).collect::<rusqlite::Result<Vec<_>>>()?;
    // A damaged index may return deliveries in another state.
    let is_pending = |state| matches!(state, DeliveryState::Ready | DeliveryState::Retrying | DeliveryState::Blocked);
    found.retain(|read| read.as_ref().map_or(true, |record| is_pending(record.state)));
    Ok(found)
}

fn newest_id(c: &Connection) -> rusqlite::Result<DeliveryId> {
    c.query_row("SELECT ifnull(MAX(id), 0) FROM deliveries", [], |r| r.get(0).map(DeliveryId))
}

/// Searches through the partial indexes of the pending states, so that the time does not depend on the number of
/// finished deliveries.
fn ids(
    c: &Connection,
    which: &PendingFilter,
    after: DeliveryId,
    until: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<DeliveryId>> {
    let (function, root) = match which {
        PendingFilter::Delivery(id) => {
            let found = c
                .prepare_cached("SELECT id FROM deliveries WHERE id = ?1 AND id > ?2 AND id <= ?3 AND state < 3")?
                .query_row(params![id.0, after.0, until.0], |r| r.get(0).map(DeliveryId))
                .optional()?;
            return Ok(found.into_iter().take(limit).collect());
        }
        PendingFilter::All => (None, None),
        PendingFilter::Function(name) => (Some(name.as_str()), None),
        PendingFilter::Root(seq) => (None, Some(seq.0)),
    };
    c.prepare_cached(
        "SELECT id FROM (
           SELECT id, event, function FROM deliveries WHERE state = 0 AND replay = 0 UNION ALL
           SELECT id, event, function FROM deliveries WHERE state = 1 AND replay = 0 UNION ALL
           SELECT id, event, function FROM deliveries WHERE state = 0 AND replay <> 0 UNION ALL
           SELECT id, event, function FROM deliveries WHERE state = 1 AND replay <> 0 UNION ALL
           SELECT id, event, function FROM deliveries
             WHERE order_key IS NOT NULL AND (state < 3 OR state = 4) AND state = 2) p
         WHERE id > ?1 AND id <= ?2 AND (?3 IS NULL OR function = (SELECT id FROM functions WHERE name = ?3))
           AND (?4 IS NULL OR event = ?4 OR EXISTS (SELECT 1 FROM events e WHERE e.seq = p.event AND e.root = ?4))
         ORDER BY id LIMIT ?5",
    )?
    .query_map(params![after.0, until.0, function, root, i64::try_from(limit).unwrap_or(i64::MAX)], |r| {
        r.get(0).map(DeliveryId)
    })?
    .collect()
}
