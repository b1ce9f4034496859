//! Explains which triggers match a stored event, and why.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse as _;
use http::Response;
use serde::Deserialize;

use super::access::Exchange;
use super::request::{Params, PathSegments};
use super::response::Json;
use super::{Admin, ApiResult, events, names};
use evoke_http::problem::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    function: Option<String>,
}

pub(super) async fn explain(
    State(admin): State<Arc<Admin>>,
    exchange: Exchange,
    PathSegments(reference): PathSegments<String>,
    Params(query): Params<ExplainQuery>,
) -> ApiResult<Response<Body>> {
    let stored = events::require_intact(events::find(&*admin.store, &reference).await?)?;
    let function = names::optional_function(&admin, query.function.as_deref()).await?;
    // The patterns of all manifests are matched, and the response can be as large as all manifests. So this work
    // needs a permit for a scan.
    let explain = move || {
        let explained = admin.control.explain(&stored, function.as_deref());
        let explained =
            explained.map_err(|e| Problem::malformed(format!("cannot match the data of the event: {e}")))?;
        match function {
            Some(function) if explained.is_empty() => Err(Problem::not_found(format!(
                "no active manifest declares {function}; `evoke status` lists the functions"
            ))),
            _ => Ok(Json(explained).into_response()),
        }
    };
    Ok(exchange.scan().await.run(explain).await??)
}
