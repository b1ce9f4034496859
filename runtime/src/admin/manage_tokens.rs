//! Lists, makes and revokes tokens.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::{HeaderMap, Response, StatusCode};

use super::request::{PathSegments, parse_body};
use super::response::Json;
use super::stream::ndjson;
use super::tokens::TokenError;
use super::view::{Count, NewToken, TokenRequest};
use super::{Admin, ApiResult};
use evoke_http::problem::Problem;

pub(super) async fn list(State(admin): State<Arc<Admin>>) -> Response<Body> {
    let tokens = admin.tokens.list();
    ndjson(&admin, async move |mut lines| {
        for token in tokens {
            lines.json(&token).await?;
        }
        Ok(lines.flush().await?)
    })
}

pub(super) async fn create(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<(StatusCode, Json<NewToken>)> {
    let expected = r#"send {"name": "grafana", "role": "viewer", "expires_in_s": 604800}"#;
    let TokenRequest { name, role, expires_in_s } = parse_body(&headers, body, expected)?;
    let expires_in = expires_in_s.map(Duration::from_secs);
    let token = change(&admin, move |admin| admin.tokens.create(&name, role, expires_in)).await?;
    Ok((StatusCode::CREATED, Json(token)))
}

pub(super) async fn revoke(
    State(admin): State<Arc<Admin>>,
    PathSegments(name): PathSegments<String>,
) -> ApiResult<Json<Count>> {
    change(&admin, move |admin| admin.tokens.revoke(&name)).await?;
    Ok(Json(Count { count: 1 }))
}

/// Changes tokens on a thread that may block.
async fn change<T: Send + 'static>(
    admin: &Arc<Admin>,
    change: impl FnOnce(&Admin) -> Result<T, TokenError> + Send + 'static,
) -> ApiResult<T> {
    let admin = admin.clone();
    let changed = tokio::task::spawn_blocking(move || change(&admin)).await;
    let failed = |detail: String| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail);
    let result = changed.map_err(|error| failed(error.to_string()))?;
    Ok(result.map_err(|error| {
        let detail = error.to_string();
        match error {
            TokenError::Name => Problem::malformed(detail),
            TokenError::NotFound(_) => Problem::not_found(detail),
            TokenError::Exists(_) | TokenError::TooMany | TokenError::Owner(_) => {
                Problem::new(StatusCode::CONFLICT, detail)
            }
            TokenError::Write { .. } => failed(detail),
        }
    })?)
}
