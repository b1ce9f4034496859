//! Pauses and resumes functions and apps; lists and cancels pending deliveries.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::{HeaderMap, Response, StatusCode};
use serde::Deserialize;

use super::access::Exchange;
use super::dead::{self, LIMIT_MAX, Selection};
use super::error::ApiError;
use super::request::{Params, json_body};
use super::stream::ndjson;
use super::view::{Changed, Count, PauseTarget, PendingSelection};
use super::{Admin, ApiResult};
use crate::control::BrakeError;
use evoke_http::problem::Problem;
use evoke_manifest::parser::nearest;
use evoke_model::{DeliveryId, PendingFilter, Seq};

const LIMIT_DEFAULT: usize = 100;
/// The cause of a dead letter that an operator made.
const CANCELLED: &str = "cancelled: an operator cancelled the delivery";

impl From<BrakeError> for ApiError {
    fn from(error: BrakeError) -> Self {
        match error {
            BrakeError::NotFound(detail) => Problem::not_found(detail).into(),
            BrakeError::Conflict(detail) => Problem::new(StatusCode::CONFLICT, detail).into(),
            BrakeError::Store(error) => error.into(),
        }
    }
}

pub(super) async fn pause(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Changed>> {
    let changed = admin.control.pause(&parse_target(&headers, body)?.name).await?;
    Ok(Json(Changed { changed }))
}

pub(super) async fn resume(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Changed>> {
    let changed = admin.control.resume(&parse_target(&headers, body)?.name).await?;
    Ok(Json(Changed { changed }))
}

fn parse_target(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<PauseTarget, Problem> {
    serde_json::from_slice(&json_body(headers, body)?).map_err(|error| {
        Problem::malformed(format!(r#"{error}; send {{"name": "app/function"}} or {{"name": "app"}}"#))
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingQuery {
    function: Option<String>,
    root: Option<Seq>,
    after: Option<DeliveryId>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(admin): State<Arc<Admin>>,
    Params(query): Params<PendingQuery>,
) -> ApiResult<Response<Body>> {
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if limit > LIMIT_MAX {
        let detail = format!("limit is {limit}; at most {LIMIT_MAX} deliveries can be listed");
        return Err(Problem::malformed(detail).into());
    }
    let filter = match (query.function, query.root) {
        (Some(_), Some(_)) => {
            return Err(Problem::malformed("choose either a function or a root event".to_owned()).into());
        }
        (Some(name), None) => PendingFilter::Function(name),
        (None, Some(root)) => PendingFilter::Root(root),
        (None, None) => PendingFilter::All,
    };
    check_exists(&admin, &filter).await?;
    let (store, after) = (admin.store.clone(), query.after.unwrap_or_default());
    Ok(ndjson(&admin, |lines| dead::write(store, Selection::Pending(filter), after, limit, lines)))
}

pub(super) async fn cancel(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Count>> {
    let selection: PendingSelection = serde_json::from_slice(&json_body(&headers, body)?).map_err(|error| {
        let expected = r#"send {"delivery": 7}, {"function": "app/function"} or {"root": 17}"#;
        Problem::malformed(format!("{error}; {expected}"))
    })?;
    let filter = selection.into();
    check_exists(&admin, &filter).await?;
    let count = admin.store.cancel(&exchange.actor(), filter, CANCELLED).await?;
    Ok(Json(Count { count }))
}

/// Returns an error if the function, the event or the delivery does not exist.
async fn check_exists(admin: &Admin, filter: &PendingFilter) -> Result<(), ApiError> {
    match filter {
        PendingFilter::All => {}
        PendingFilter::Function(name) => {
            let (totals, active) = (admin.store.totals().await?, admin.control.function_ids());
            if !totals.functions.contains_key(name) && !active.contains_key(name) {
                let known = totals.functions.keys().chain(active.keys()).map(String::as_str);
                let help = nearest(name, known).map(|nearest| format!("; did you mean `{nearest}`?"));
                let detail = format!("there is no function `{name}`{}", help.unwrap_or_default());
                return Err(Problem::not_found(detail).into());
            }
        }
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
    Ok(())
}
