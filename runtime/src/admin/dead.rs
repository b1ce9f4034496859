//! Lists, shows, redrives and purges dead letters.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use http::{HeaderMap, Response};
use serde::Deserialize;

use super::problem::{Params, Problem, json_body};
use super::stream::{Lines, StreamError, ndjson};
use super::view::{Count, DeadLetter, DeadSelection, Envelope};
use super::{Admin, ApiResult, operator};
use evoke_model::event::Data;
use evoke_model::{DeadFilter, DeliveryRecord, DeliveryState, StoredEvent};
use evoke_store::InspectionStore;

const LIMIT_DEFAULT: usize = 100;
/// Maximum number of dead letters per list. All are held in memory, each with its attempts: some hundred bytes.
const LIMIT_MAX: usize = 10_000;

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
        return Err(Problem::malformed(format!("limit is {limit}; at most {LIMIT_MAX} dead letters can be listed")));
    }
    let filter = query.function.map_or(DeadFilter::All, DeadFilter::Function);
    let found = admin.store.dead(filter, limit).await?;
    let store = admin.store.clone();
    Ok(ndjson(&admin, |lines| write(store, found, lines)))
}

async fn write(store: Arc<dyn InspectionStore>, found: Vec<DeliveryRecord>, lines: Lines) -> Result<(), StreamError> {
    for record in found {
        let missing_event = || StoredEvent::damaged(record.event, "the event is no longer in the store");
        let mut stored = store.event(record.event).await?.unwrap_or_else(missing_event);
        Arc::make_mut(&mut stored.event).data = Data::None;
        let event = Envelope::from(&stored);
        // Strings, numbers and JSON always serialise.
        let line = serde_json::to_string(&DeadLetter { delivery: record.into(), event }).unwrap_or_default();
        lines.send([line]).await?;
    }
    Ok(())
}

pub(super) async fn show(State(admin): State<Arc<Admin>>, Path(delivery): Path<String>) -> ApiResult<Json<DeadLetter>> {
    let missing = || Problem::not_found(format!("there is no dead letter {delivery}"));
    let Ok(id) = delivery.parse() else { return Err(missing()) };
    let record = admin.store.delivery(id).await?.ok_or_else(missing)?;
    if !matches!(record.state, DeliveryState::Dead | DeliveryState::Purged) {
        let detail = format!("delivery {id} is not a dead letter: its state is {}", record.state.name());
        return Err(Problem::not_found(detail));
    }
    let missing_event = || StoredEvent::damaged(record.event, "the event is no longer in the store");
    let event = admin.store.event(record.event).await?.unwrap_or_else(missing_event);
    Ok(Json(DeadLetter { delivery: record.into(), event: (&event).into() }))
}

pub(super) async fn redrive(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let count = admin.store.redrive(&operator(), parse_selection(&headers, body)?).await?;
    Ok(Json(Count { count }))
}

pub(super) async fn purge(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let count = admin.store.purge(&operator(), parse_selection(&headers, body)?).await?;
    Ok(Json(Count { count }))
}

fn parse_selection(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> ApiResult<DeadFilter> {
    let malformed = |reason: String| {
        let expected = r#"send {"delivery": 7}, {"function": "app/function"} or {"all": true}"#;
        Problem::malformed(format!("{reason}; {expected}"))
    };
    let selection: DeadSelection =
        serde_json::from_slice(&json_body(headers, body)?).map_err(|e| malformed(e.to_string()))?;
    selection.into_filter().ok_or_else(|| malformed("nothing is selected".into()))
}
