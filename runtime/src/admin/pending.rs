//! Lists, retries, cancels and moves pending deliveries.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use foldhash::{HashMap, HashSet};
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;

use super::access::Exchange;
use super::dead::{LIMIT_MAX, event_without_data};
use super::error::ApiError;
use super::request::{Params, list_limit, parse_body};
use super::response::Json;
use super::stream::{Lines, StreamError, ndjson};
use super::view::{Blocker, Count, Move, Pending, PendingSelection};
use super::{Admin, ApiResult, names};
use crate::control::FunctionStatus;
use evoke_http::problem::Problem;
use evoke_model::clock::{UnixMs, rfc3339};
use evoke_model::{Counts, DeliveryId, DeliveryState, PendingFilter, Seq};
use evoke_store::{InspectionStore, StoreError};

const LIMIT_DEFAULT: usize = 100;
/// Maximum number of deliveries that one read of the store returns for a count.
const COUNT_PAGE: usize = 100_000;
/// The cause of cancelled deliveries, which become dead letters.
const CANCELLED: &str = "cancelled: an operator cancelled the delivery";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingQuery {
    function: Option<String>,
    root: Option<Seq>,
    state: Option<String>,
    after: Option<DeliveryId>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(query): Params<PendingQuery>,
) -> ApiResult<Response<Body>> {
    let limit = list_limit(query.limit, LIMIT_DEFAULT, LIMIT_MAX, "deliveries")?;
    let filter = match (query.function, query.root) {
        (Some(_), Some(_)) => {
            return Err(Problem::malformed("function and root cannot be combined; leave one out".to_owned()).into());
        }
        (Some(name), None) => PendingFilter::Function(name),
        (None, Some(root)) => PendingFilter::Root(root),
        (None, None) => PendingFilter::All,
    };
    let filter = check(&admin, filter).await?;
    let state = query.state.as_deref().map(parse_state).transpose()?;
    let ids = admin.store.pending_ids(filter, state, query.after.unwrap_or_default(), limit).await?;
    let now_ms = admin.clock.now_ms();
    let running = admin.control.parts().dispatcher.running_for();
    let held = |function: &FunctionStatus| match (&function.paused, function.is_compiling) {
        (Some(_), _) => Some("paused"),
        (None, true) => Some("compiling"),
        (None, false) => None,
    };
    let functions = admin.control.functions().into_iter().map(|function| (held(&function), function.name));
    let functions = functions.map(|(held, name)| (name, held)).collect();
    let (store, running) = (admin.store.clone(), Running { now_ms, running, functions });
    Ok(ndjson(&admin, async move |lines| write(&*store, ids, running, lines).await))
}

/// The running attempts and the active functions, as they were when the list was requested.
struct Running {
    now_ms: UnixMs,
    running: HashMap<DeliveryId, Duration>,
    /// The active functions by full name, each with the reason why it starts no attempts, if there is one.
    functions: HashMap<String, Option<&'static str>>,
}

impl Running {
    /// Returns the reason why a function starts no attempts: `paused`, `compiling` or `inactive`. Returns `None` if the
    /// function may start attempts.
    fn held(&self, function: &str) -> Option<String> {
        self.functions.get(function).copied().unwrap_or(Some("inactive")).map(str::to_owned)
    }

    /// Returns the start time of the running attempt at the delivery; `None` if no attempt runs.
    fn since(&self, id: DeliveryId) -> Option<String> {
        let elapsed_ms = UnixMs::try_from(self.running.get(&id)?.as_millis()).unwrap_or(UnixMs::MAX);
        Some(rfc3339(self.now_ms.saturating_sub(elapsed_ms).max(0)))
    }
}

/// Writes those of the deliveries `ids` that are still pending. Only one delivery is in memory at a time.
async fn write(
    store: &dyn InspectionStore,
    ids: Vec<DeliveryId>,
    running: Running,
    mut lines: Lines,
) -> Result<(), StreamError> {
    for id in ids {
        lines.ready().await?;
        let Some(read) = store.delivery(id).await? else { continue };
        let state = read.as_ref().map_or_else(|damaged| damaged.state, |record| Some(record.state));
        if state.is_some_and(|state| !is_pending(state)) {
            continue;
        }
        let blocker = if state == Some(DeliveryState::Blocked) { store.blocker(id).await? } else { None };
        let blocked_by = blocker.map(|(delivery, state)| Blocker { delivery, state: state.name().into() });
        let event = event_without_data(store, &read).await?;
        let held = read.as_ref().ok().and_then(|record| running.held(&record.function));
        let running_since = running.since(id);
        lines.json(&Pending { delivery: read.into(), event, running_since, held, blocked_by }).await?;
    }
    Ok(lines.flush().await?)
}

fn is_pending(state: DeliveryState) -> bool {
    matches!(state, DeliveryState::Ready | DeliveryState::Retrying | DeliveryState::Blocked)
}

fn parse_state(text: &str) -> Result<DeliveryState, Problem> {
    let state = DeliveryState::ALL.into_iter().find(|state| is_pending(*state) && state.name() == text);
    state.ok_or_else(|| Problem::malformed(format!("state is \"{text}\"; write ready, retrying or blocked")))
}

pub(super) async fn cancel(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let (filter, dry_run) = parse_selection(&admin, &headers, body).await?;
    let count = match dry_run {
        true => count(&*admin.store, filter, None).await?,
        false => admin.store.cancel(&exchange.actor(), filter, CANCELLED).await?,
    };
    Ok(Json(Count { count }))
}

pub(super) async fn retry(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let (filter, dry_run) = parse_selection(&admin, &headers, body).await?;
    let count = match dry_run {
        true => count(&*admin.store, filter, Some(DeliveryState::Retrying)).await?,
        false => admin.store.retry_now(&exchange.actor(), filter).await?,
    };
    Ok(Json(Count { count }))
}

/// Moves the pending deliveries of an inactive function, which no active manifest declares, to an active function. An
/// operator does this after a function was renamed, for example.
pub(super) async fn transfer(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let Move { from, to, dry_run } = parse_body(&headers, body, r#"send {"from": "app/old", "to": "app/new"}"#)?;
    let (from, to) = (names::function(&admin, &from).await?, names::function(&admin, &to).await?);
    let active = admin.control.function_ids();
    let conflict = |detail: String| ApiError::from(Problem::new(StatusCode::CONFLICT, detail));
    if active.contains_key(&from) {
        let detail = format!("{from} is active and handles its own deliveries; first remove it from its manifest");
        return Err(conflict(detail));
    }
    let takes_deliveries = admin.control.parts().dispatcher.running().into_keys().collect::<HashSet<_>>();
    let Some(to_id) = active.get(&to).copied().filter(|id| takes_deliveries.contains(id)) else {
        return Err(conflict(match active.contains_key(&to) {
            true => format!("{to} handles HTTP requests, so it cannot receive deliveries"),
            false => format!("no active manifest declares {to}; choose an active function"),
        }));
    };
    let count = match dry_run {
        true => count(&*admin.store, PendingFilter::Function(from), None).await?,
        false => {
            let running = admin.control.parts().dispatcher.running_for().into_keys().collect();
            admin.store.move_pending(&exchange.actor(), from, to_id, running).await?
        }
    };
    Ok(Json(Count { count }))
}

/// Returns the number of selected pending deliveries; if `state` is given, of those in this state. For all deliveries
/// and for those of one function, the store has this number. For any other filter, this reads the deliveries and counts
/// them.
async fn count(
    store: &dyn InspectionStore,
    filter: PendingFilter,
    state: Option<DeliveryState>,
) -> Result<u64, StoreError> {
    if let PendingFilter::All | PendingFilter::Function(_) = &filter {
        let totals = store.totals().await?;
        let of_meant = totals.functions.iter().filter(|(name, _)| match &filter {
            PendingFilter::Function(function) => *name == function,
            _ => true,
        });
        let pending = |counts: &Counts| state.map_or_else(|| counts.pending(), |state| counts.get(state));
        return Ok(of_meant.map(|(_, counts)| pending(counts)).sum());
    }
    let (mut count, mut after) = (0, DeliveryId(0));
    loop {
        let found = store.pending_ids(filter.clone(), state, after, COUNT_PAGE).await?;
        count += found.len() as u64;
        match found.last() {
            Some(last) if found.len() >= COUNT_PAGE => after = *last,
            _ => return Ok(count),
        }
    }
}

async fn parse_selection(
    admin: &Admin,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<(PendingFilter, bool)> {
    let expected = r#"send {"delivery": 7}, {"function": "app/function"}, {"root": 17} or {"all": true}"#;
    let selection: PendingSelection = parse_body(headers, body, expected)?;
    let filter = selection.to_filter().ok_or_else(|| {
        Problem::malformed(format!("exactly one of delivery, function, root and all is needed; {expected}"))
    })?;
    Ok((check(admin, filter).await?, selection.dry_run))
}

/// Returns the filter with the full name of its function. Returns an error if the function, the event or the delivery
/// does not exist.
async fn check(admin: &Admin, filter: PendingFilter) -> Result<PendingFilter, ApiError> {
    match &filter {
        PendingFilter::All => {}
        PendingFilter::Function(name) => return Ok(PendingFilter::Function(names::function(admin, name).await?)),
        PendingFilter::Root(seq) => {
            if admin.store.event(*seq).await?.is_none() {
                return Err(Problem::not_found(format!("there is no event {seq}")).into());
            }
        }
        PendingFilter::Delivery(id) => {
            if admin.store.delivery(*id).await?.is_none() {
                return Err(Problem::not_found(format!("there is no delivery {id}")).into());
            }
        }
    }
    Ok(filter)
}
