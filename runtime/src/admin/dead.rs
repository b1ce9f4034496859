//! Dead letters: listed, looked at, redriven, purged.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use http::{HeaderMap, Response};
use serde::Deserialize;

use super::problem::{Params, Problem, json_body};
use super::stream::{Ended, Lines, ndjson};
use super::view::{Count, DeadLetter, Envelope, Which};
use super::{Admin, Answer};
use crate::event::Data;
use crate::store::{DeadFilter, DeliveryRecord, DeliveryState, Store, StoredEvent};

const LIMIT_DEFAULT: usize = 100;
/// Dead letters of one list; each has its attempts, some hundred bytes.
const LIMIT_MAX: usize = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    function: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(State(admin): State<Arc<Admin>>, Params(wanted): Params<Wanted>) -> Answer<Response<Body>> {
    let limit = wanted.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > LIMIT_MAX {
        return Err(Problem::malformed(format!("limit is {limit}; at most {LIMIT_MAX} are listed")));
    }
    let which = wanted.function.map_or(DeadFilter::All, DeadFilter::Function);
    let found = admin.store.dead(which, limit).await?;
    let store = admin.store.clone();
    Ok(ndjson(&admin, |lines| write(store, found, lines)))
}

async fn write(store: Arc<dyn Store>, found: Vec<DeliveryRecord>, lines: Lines) -> Result<(), Ended> {
    for record in found {
        let missing = || StoredEvent::damaged(record.event, "it is not in the store any more");
        let mut stored = store.event(record.event).await?.unwrap_or_else(missing);
        Arc::make_mut(&mut stored.event).data = Data::None;
        let event = Envelope::from(&stored);
        // Strings, numbers and JSON always serialise.
        let line = serde_json::to_string(&DeadLetter { delivery: record.into(), event }).unwrap_or_default();
        lines.send([line]).await?;
    }
    Ok(())
}

pub(super) async fn one(State(admin): State<Arc<Admin>>, Path(delivery): Path<String>) -> Answer<Json<DeadLetter>> {
    let missing = || Problem::not_found(format!("there is no dead letter {delivery}"));
    let Ok(id) = delivery.parse() else { return Err(missing()) };
    let record = admin.store.delivery(id).await?.ok_or_else(missing)?;
    if !matches!(record.state, DeliveryState::Dead | DeliveryState::Purged) {
        let detail = format!("delivery {id} is no dead letter: it is {}", record.state.name());
        return Err(Problem::not_found(detail));
    }
    let gone = || StoredEvent::damaged(record.event, "it is not in the store any more");
    let event = admin.store.event(record.event).await?.unwrap_or_else(gone);
    Ok(Json(DeadLetter { delivery: record.into(), event: (&event).into() }))
}

pub(super) async fn redrive(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<Count>> {
    let count = admin.store.redrive(which(&headers, body)?).await?;
    Ok(Json(Count { count }))
}

pub(super) async fn purge(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Json<Count>> {
    let count = admin.store.purge(which(&headers, body)?).await?;
    Ok(Json(Count { count }))
}

fn which(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Answer<DeadFilter> {
    let wrong = |reason: String| {
        let right = r#"send {"delivery": 7}, {"function": "app/function"} or {"all": true}"#;
        Problem::malformed(format!("{reason}; {right}"))
    };
    let which: Which = serde_json::from_slice(&json_body(headers, body)?).map_err(|e| wrong(e.to_string()))?;
    which.filter().ok_or_else(|| wrong("nothing is meant".into()))
}
