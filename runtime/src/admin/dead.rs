//! Lists, shows, redrives and purges dead letters.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::{HeaderMap, Response};
use serde::Deserialize;

use super::access::Exchange;
use super::request::{Params, PathSegments, json_body};
use super::stream::{Lines, StreamError, ndjson};
use super::view::{Count, DeadLetter, DeadSelection, Envelope};
use super::{Admin, ApiResult};
use evoke_http::problem::Problem;
use evoke_model::event::Data;
use evoke_model::{DamagedEvent, DeadFilter, DeliveryId, DeliveryState, PendingFilter, ReadDelivery, ReadEvent, Seq};
use evoke_store::{InspectionStore, StoreError};

const LIMIT_DEFAULT: usize = 100;
/// Maximum number of deliveries per list.
pub(super) const LIMIT_MAX: usize = 10_000;
/// Number of dead letters read from the store at a time: each has the messages of all its attempts.
const PAGE: usize = 8;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DeadQuery {
    function: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(query): Params<DeadQuery>,
) -> ApiResult<Response<Body>> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > LIMIT_MAX {
        let detail = format!("limit is {limit}; at most {LIMIT_MAX} dead letters can be listed");
        return Err(Problem::malformed(detail).into());
    }
    let filter = query.function.map_or(DeadFilter::All, DeadFilter::Function);
    let store = admin.store.clone();
    Ok(ndjson(&admin, |lines| write(store, Selection::Dead(filter), DeliveryId(0), limit, lines)))
}

/// Selects the deliveries of a list.
pub(super) enum Selection {
    Dead(DeadFilter),
    Pending(PendingFilter),
}

/// Writes the selected deliveries after `after` with their events, but without the data of the events.
pub(super) async fn write(
    store: Arc<dyn InspectionStore>,
    selection: Selection,
    mut after: DeliveryId,
    limit: usize,
    mut lines: Lines,
) -> Result<(), StreamError> {
    let mut remaining = limit;
    while remaining > 0 {
        lines.ready().await?;
        let page = remaining.min(PAGE);
        let found = match &selection {
            Selection::Dead(filter) => store.dead(filter.clone(), after, page).await?,
            Selection::Pending(filter) => store.list_pending(filter.clone(), after, page).await?,
        };
        if found.is_empty() {
            break;
        }
        remaining = remaining.saturating_sub(found.len());
        for record in found {
            after = record.as_ref().map_or_else(|damaged| damaged.id, |record| record.id);
            let mut event = event_of(&*store, &record).await?;
            if let Ok(stored) = &mut event {
                Arc::make_mut(&mut stored.event).data = Data::None;
            }
            let event = Envelope::of(&*store, &event);
            lines.json(&DeadLetter { delivery: record.into(), event }).await?;
        }
    }
    Ok(lines.flush().await?)
}

/// Returns the event of a delivery. The event of a damaged delivery is unknown.
async fn event_of(store: &dyn InspectionStore, delivery: &ReadDelivery) -> Result<ReadEvent, StoreError> {
    let seq = delivery.as_ref().map_or(Seq(0), |record| record.event);
    let missing = || Err(DamagedEvent { seq, what: "the event is no longer in the store".into() });
    Ok(store.event(seq).await?.unwrap_or_else(missing))
}

pub(super) async fn show(
    State(admin): State<Arc<Admin>>,
    PathSegments(delivery): PathSegments<String>,
) -> ApiResult<Json<DeadLetter>> {
    let missing = || Problem::not_found(format!("there is no dead letter {delivery}"));
    let Ok(id) = delivery.parse() else { return Err(missing().into()) };
    let record = admin.store.delivery(id).await?.ok_or_else(missing)?;
    let state = record.as_ref().map_or_else(|damaged| damaged.state, |record| Some(record.state));
    if let Some(state) = state
        && !matches!(state, DeliveryState::Dead | DeliveryState::Purged)
    {
        let detail = format!("delivery {id} is not a dead letter: its state is {}", state.name());
        return Err(Problem::not_found(detail).into());
    }
    let event = event_of(&*admin.store, &record).await?;
    Ok(Json(DeadLetter { delivery: record.into(), event: Envelope::of(&*admin.store, &event) }))
}

pub(super) async fn redrive(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let count = admin.store.redrive(&exchange.actor(), parse_selection(&headers, body)?).await?;
    Ok(Json(Count { count }))
}

pub(super) async fn purge(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let count = admin.store.purge(&exchange.actor(), parse_selection(&headers, body)?).await?;
    Ok(Json(Count { count }))
}

fn parse_selection(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<DeadFilter, Problem> {
    let malformed = |reason: String| {
        let expected = r#"send {"delivery": 7}, {"function": "app/function"} or {"all": true}"#;
        Problem::malformed(format!("{reason}; {expected}"))
    };
    let selection: DeadSelection =
        serde_json::from_slice(&json_body(headers, body)?).map_err(|e| malformed(e.to_string()))?;
    selection.into_filter().ok_or_else(|| malformed("nothing is selected".into()))
}
