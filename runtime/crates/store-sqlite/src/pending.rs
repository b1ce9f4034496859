//! Finds pending deliveries for an operator, and cancels, retries or moves them. Changes are made in portions, so that
//! other writes can be committed between two portions.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};

use super::in_order::{self, End, PENDING, Range};
use super::queue::WriteQueue;
use super::readers::{Reader, Readers};
use super::rows;
use super::write::PORTION_MAX;
use super::write::cancel::Cancel;
use super::write::retry::RetryNow;
use super::write::transfer::Transfer;
use evoke_model::{DeliveryId, DeliveryState, FunctionId, PendingFilter, Seq};
use evoke_store::Result;

/// Maximum number of ids that one search returns; further searches find the others.
const SEARCH_MAX: usize = 16 * 1024;

/// Cancels the deliveries that are pending now. Returns their number.
pub(super) async fn cancel(
    writes: WriteQueue,
    readers: Arc<Readers>,
    which: PendingFilter,
    cause: String,
) -> Result<u64> {
    let newest = Readers::run(readers.clone(), Reader::Inspection, newest_id).await?;
    let (mut count, mut after) = (0, DeliveryId(0));
    loop {
        let found = search(&readers, which.clone(), None, after, newest).await?;
        let Some(last) = found.last().copied() else { return Ok(count) };
        for portion in found.chunks(PORTION_MAX) {
            count += writes.submit(Cancel { ids: portion.to_vec(), cause: cause.clone() }).await?;
        }
        after = last;
    }
}

/// Makes retrying deliveries ready, except for those whose retry is already due. Returns the number of changed
/// deliveries.
pub(super) async fn retry_now(writes: WriteQueue, readers: Arc<Readers>, which: PendingFilter) -> Result<u64> {
    let newest = Readers::run(readers.clone(), Reader::Inspection, newest_id).await?;
    let (mut count, mut after) = (0, DeliveryId(0));
    let retrying = Some(DeliveryState::Retrying);
    loop {
        let found = search(&readers, which.clone(), retrying, after, newest).await?;
        let Some(last) = found.last().copied() else { return Ok(count) };
        for portion in found.chunks(PORTION_MAX) {
            count += writes.submit(RetryNow { ids: portion.to_vec() }).await?;
        }
        after = last;
    }
}

/// Moves the deliveries that are pending now from the function `from` to the function `to`, except for those in
/// `except`. Returns the number of moved deliveries.
pub(super) async fn transfer(
    writes: WriteQueue,
    readers: Arc<Readers>,
    from: String,
    to: FunctionId,
    except: Vec<DeliveryId>,
) -> Result<u64> {
    let newest = Readers::run(readers.clone(), Reader::Inspection, newest_id).await?;
    let (mut count, mut after) = (0, DeliveryId(0));
    loop {
        let which = PendingFilter::Function(from.clone());
        let found = search(&readers, which, None, after, newest).await?;
        let Some(last) = found.last().copied() else { return Ok(count) };
        let wanted: Vec<_> = found.into_iter().filter(|id| !except.contains(id)).collect();
        for portion in wanted.chunks(PORTION_MAX) {
            count += writes.submit(Transfer { ids: portion.to_vec(), to }).await?;
        }
        after = last;
    }
}

/// Returns the ids of at most [`SEARCH_MAX`] pending deliveries after `after` and up to `until`.
async fn search(
    readers: &Arc<Readers>,
    which: PendingFilter,
    state: Option<DeliveryState>,
    after: DeliveryId,
    until: DeliveryId,
) -> Result<Vec<DeliveryId>> {
    Readers::run(readers.clone(), Reader::Inspection, move |c| ids(c, &which, state, after, until, SEARCH_MAX)).await
}

/// Returns the ids of the first `limit` pending deliveries after `after`, in ascending order. With `state`, returns
/// only deliveries in this state.
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

/// Returns the ids of the first `limit` pending deliveries after `after` and up to `until`.
fn ids(
    c: &Connection,
    which: &PendingFilter,
    state: Option<DeliveryState>,
    after: DeliveryId,
    until: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<DeliveryId>> {
    let is_wanted = |found: DeliveryState| state.is_none_or(|wanted| wanted == found);
    let function = match which {
        PendingFilter::All => None,
        PendingFilter::Function(name) => Some(name.as_str()),
        PendingFilter::Root(root) => return of_chain(c, *root, is_wanted, after, until, limit),
        PendingFilter::Delivery(id) => {
            let found = c
                .prepare_cached(
                    "SELECT id, state FROM deliveries WHERE id = ?1 AND id > ?2 AND id <= ?3 AND state < 3",
                )?
                .query_row(params![id.0, after.0, until.0], |r| Ok((DeliveryId(r.get(0)?), rows::state(r.get(1)?)?)))
                .optional()?;
            let wanted = found.filter(|(_, state)| is_wanted(*state)).map(|(id, _)| id);
            return Ok(wanted.into_iter().take(limit).collect());
        }
    };
    let parts = PENDING.iter().filter(|part| is_wanted(part.state));
    let range = Range { after, before: DeliveryId(until.0.saturating_add(1)) };
    in_order::ids(c, parts, function, range, End::Oldest, limit)
}

/// Returns the ids of pending deliveries of an event and of all events that it caused. The query reads all deliveries
/// of these events; their number is limited, because the size of a chain is limited.
fn of_chain(
    c: &Connection,
    root: Seq,
    is_wanted: impl Fn(DeliveryState) -> bool,
    after: DeliveryId,
    until: DeliveryId,
    limit: usize,
) -> rusqlite::Result<Vec<DeliveryId>> {
    let mut select = c.prepare_cached(
        "WITH chain (seq, first, owed) AS (
           SELECT seq, first_delivery, owed FROM events WHERE seq = ?1 UNION ALL
           SELECT seq, first_delivery, owed FROM events WHERE root = ?1)
         SELECT d.id, d.state FROM chain CROSS JOIN deliveries d
           WHERE d.id >= first AND d.id < first + owed AND d.event = seq AND d.state < 3 AND d.id > ?2 AND d.id <= ?3
         UNION
         SELECT d.id, d.state FROM chain CROSS JOIN deliveries d
           WHERE d.event = seq AND d.replay <> 0 AND d.state < 3 AND d.id > ?2 AND d.id <= ?3
         ORDER BY 1",
    )?;
    let mut rows = select.query(params![root.0, after.0, until.0])?;
    let mut found = Vec::new();
    while found.len() < limit
        && let Some(row) = rows.next()?
    {
        if is_wanted(rows::state(row.get(1)?)?) {
            found.push(DeliveryId(row.get(0)?));
        }
    }
    Ok(found)
}
