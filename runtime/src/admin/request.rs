//! Reads requests: path segments, query parameters and JSON bodies.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path, Query};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::error::ApiError;
use evoke_http::problem::Problem;
use evoke_model::clock::UnixMs;
use evoke_model::media_type::is_json;

/// Query parameters of the URL. Unknown parameters are rejected if `T` denies unknown fields.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::try_from_uri(&parts.uri).map_err(|refused| Problem::malformed(refused.body_text()))?;
        Ok(Self(query.0))
    }
}

/// The decoded variable segments of the path.
pub(super) struct PathSegments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathSegments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        Ok(Self(path.map_err(|refused| Problem::malformed(refused.body_text()))?.0))
    }
}

/// Parses an RFC 3339 time of the query parameter or member `name`. Returns wall-clock time.
pub(super) fn parse_time(name: &str, text: Option<&str>) -> Result<Option<UnixMs>, Problem> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Some(time.as_millisecond())),
        Err(_) => Err(Problem::malformed(format!("{name} is \"{text}\"; write a time such as 2026-01-31T12:00:00Z"))),
    }
}

/// Returns the body if its content type is JSON.
pub(super) fn json_body(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_json(media_type) {
        let detail = format!("the content type is \"{media_type}\"; it must be application/json");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    body.map_err(|refused| Problem::new(refused.status(), refused.body_text()))
}
