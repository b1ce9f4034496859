//! Pauses and resumes functions and apps.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::{HeaderMap, StatusCode};

use super::error::ApiError;
use super::request::parse_body;
use super::response::Json;
use super::view::{Changed, PauseTarget};
use super::{Admin, ApiResult, names};
use crate::control::PauseError;
use evoke_http::problem::Problem;

impl From<PauseError> for ApiError {
    fn from(error: PauseError) -> Self {
        match error {
            PauseError::NotFound(detail) => Problem::not_found(detail).into(),
            PauseError::Conflict(detail) => Problem::new(StatusCode::CONFLICT, detail).into(),
            PauseError::Store(error) => error.into(),
        }
    }
}

pub(super) async fn pause(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Changed>> {
    let name = full_name(&admin, parse_target(&headers, body)?.name).await;
    let changed = admin.control.pause(&name).await?;
    Ok(Json(Changed { changed }))
}

pub(super) async fn resume(
    State(admin): State<Arc<Admin>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> ApiResult<Json<Changed>> {
    let name = full_name(&admin, parse_target(&headers, body)?.name).await;
    let changed = admin.control.resume(&name).await?;
    Ok(Json(Changed { changed }))
}

/// Returns the full name of a function that is given without its app. Returns the name of an app, and an unknown name,
/// unchanged.
async fn full_name(admin: &Admin, name: String) -> String {
    if name.contains('/') || admin.control.has_app(&name) {
        return name;
    }
    names::function(admin, &name).await.unwrap_or(name)
}

fn parse_target(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<PauseTarget, Problem> {
    parse_body(headers, body, r#"send {"name": "app/function"} or {"name": "app"}"#)
}
