//! Explains which triggers match a stored event, and why.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::request::{Params, PathSegments};
use super::{Admin, ApiResult, events};
use crate::control::TriggerExplanation;
use evoke_http::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    function: Option<String>,
}

pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    PathSegments(reference): PathSegments<String>,
    Params(query): Params<ExplainQuery>,
) -> ApiResult<Json<Vec<TriggerExplanation>>> {
    let stored = events::require_intact(events::find(&*admin.store, &reference).await?)?;
    let explained = admin.control.explain(&stored, query.function.as_deref());
    let explained = explained.map_err(|e| Problem::malformed(format!("cannot match the data of the event: {e}")))?;
    match query.function {
        Some(function) if explained.is_empty() => Err(Problem::not_found(format!(
            "no active manifest declares {function}; `evoke status` lists the functions"
        ))
        .into()),
        _ => Ok(Json(explained)),
    }
}
