//! Reads requests: path segments, query parameters and JSON bodies.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path, Query};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::ApiResult;
use super::access::Exchange;
use super::error::ApiError;
use evoke_http::problem::Problem;
use evoke_model::Json;
use evoke_model::clock::UnixMs;
use evoke_model::media_type::is_json;
use evoke_model::text::parser_message;
use evoke_pattern::{Matcher, Pattern};

/// Query parameters of the URL. Unknown parameters are rejected if `T` denies unknown fields.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = Query::try_from_uri(&parts.uri).map_err(|refused| Problem::malformed(refused.body_text()))?;
        Ok(Self(query.0))
    }
}

/// The values of the variable segments of the path, with percent-encoding removed.
pub(super) struct PathSegments<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathSegments<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::from_request_parts(parts, state).await;
        Ok(Self(path.map_err(|refused| Problem::malformed(refused.body_text()))?.0))
    }
}

/// Returns the `limit` of a list, or `default` if no limit is given. Returns an error if the limit is above `max`. The
/// error names the listed things, `what`.
pub(super) fn list_limit(given: Option<usize>, default: usize, max: usize, what: &str) -> Result<usize, Problem> {
    match given.unwrap_or(default) {
        limit if limit > max => {
            Err(Problem::malformed(format!("limit is {limit}; at most {max} {what} can be listed")))
        }
        limit => Ok(limit),
    }
}

/// Parses the RFC 3339 time of the query parameter or JSON member `name`. Returns the time in Unix milliseconds.
pub(super) fn parse_time(name: &str, text: Option<&str>) -> Result<Option<UnixMs>, Problem> {
    let Some(text) = text else { return Ok(None) };
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Some(time.as_millisecond())),
        Err(_) => Err(Problem::malformed(format!("{name} is \"{text}\"; write a time such as 2026-01-31T12:00:00Z"))),
    }
}

/// Compiles the query parameter `pattern`, which is the JSON text of a pattern. Compiles with a permit for a scan, on a
/// thread for blocking work, because a long pattern takes long.
pub(super) async fn optional_matcher(pattern: Option<String>, exchange: &Exchange) -> ApiResult<Option<Matcher<()>>> {
    let Some(text) = pattern else { return Ok(None) };
    let compile = move || {
        let json = serde_json::from_str::<Json>(&text);
        let json = json.map_err(|error| Problem::malformed(format!("the pattern is not JSON: {error}")))?;
        matcher(&json)
    };
    Ok(Some(exchange.scan().await.run(compile).await??))
}

/// Compiles a pattern to a matcher, which can match many events. The error lists all mistakes in the pattern.
pub(super) fn matcher(json: &serde_json::Value) -> Result<Matcher<()>, Problem> {
    let pattern = Pattern::parse(json).map_err(|mistakes| {
        let all: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
        Problem::malformed(format!("the pattern is not valid: {}", all.join("; ")))
    })?;
    Ok(pattern.matcher())
}

/// Parses the JSON body of a request. `expected` is the advice in the error for a wrong body, such as
/// `send {"all": true}`. Parses on the current thread, so the request must not accept a large body
/// ([`parse_large_body`]).
pub(super) fn parse_body<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    expected: &str,
) -> Result<T, Problem> {
    parse_json(&json_body(headers, body)?, expected)
}

/// Like [`parse_body`], for a request that accepts large bodies: parses a large one on a thread for blocking work
/// ([`Exchange::read_body`]).
pub(super) async fn parse_large_body<T: DeserializeOwned + Send + 'static>(
    exchange: &Exchange,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
    expected: &'static str,
) -> ApiResult<T> {
    let json = json_body(headers, body)?;
    Ok(exchange.read_body(json.len(), move || parse_json::<T>(&json, expected)).await??)
}

/// Parses the JSON text of a body, like [`parse_body`]. A body with a JSON pattern must be parsed with a permit for a
/// scan, on a thread for blocking work, because the values of a pattern that is too large take much time and memory.
pub(super) fn parse_json<T: DeserializeOwned>(json: &[u8], expected: &str) -> Result<T, Problem> {
    serde_json::from_slice::<T>(json)
        .map_err(|error| Problem::malformed(format!("{}; {expected}", parser_message(&error))))
}

/// Returns the body of a request; an error if its content type is not JSON.
pub(super) fn json_body(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !is_json(media_type) {
        let detail = format!("the content type is \"{media_type}\"; it must be application/json");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    body.map_err(|refused| Problem::new(refused.status(), refused.body_text()))
}
