//! Error responses (RFC 9457), and extractors that return them.

use axum::body::{Body, Bytes};
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Query};
use axum::response::IntoResponse;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode};
use serde::de::DeserializeOwned;

use evoke_core::bus::Refused;
use evoke_model::Seq;
use evoke_model::event;
use evoke_store::StoreError;

/// `Retry-After` while the disk is full or the process stops, in seconds.
const RETRY_AFTER_S: u64 = 10;

/// An error response: `application/problem+json` of type `about:blank`; the title is the phrase of the status.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    seqs: Vec<Seq>,
    retry_after_s: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), seqs: Vec::new(), retry_after_s: None }
    }

    /// 400: the request is malformed.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: the requested object does not exist.
    pub(super) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: several events have the requested id.
    pub(super) fn ambiguous(detail: impl Into<String>, seqs: Vec<Seq>) -> Self {
        Self { seqs, ..Self::new(StatusCode::CONFLICT, detail) }
    }

    /// 503 with `Retry-After`, at least one second.
    pub(super) fn unavailable(after_s: u64, detail: impl Into<String>) -> Self {
        Self { retry_after_s: Some(after_s.max(1)), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response<Body> {
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or_default(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.seqs.is_empty() {
            body["seqs"] = self.seqs.into();
        }
        let mut response = Response::new(Body::from(body.to_string()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().extend(self.retry_after_s.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))));
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full | StoreError::Unreachable(_) | StoreError::Fenced(_) | StoreError::Closed => {
                Self::unavailable(RETRY_AFTER_S, error.to_string())
            }
            StoreError::Failed(_) | StoreError::Damaged(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let detail = refused.to_string();
        match refused {
            Refused::Invalid { .. } => Self::malformed(detail),
            Refused::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            Refused::Overloaded { retry_after, .. } => Self::unavailable(retry_after.as_secs(), detail),
            Refused::Crowding { retry_after, .. } => {
                Self { status: StatusCode::TOO_MANY_REQUESTS, ..Self::unavailable(retry_after.as_secs(), detail) }
            }
            Refused::Store(error) => error.into(),
        }
    }
}

/// Query parameters of the URL. Unknown parameters are rejected if `T` denies unknown fields.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = Query::try_from_uri(&parts.uri).map_err(|refused| Problem::malformed(refused.body_text()))?;
        Ok(Self(query.0))
    }
}

/// Returns the body if its content type is JSON.
pub(super) fn json_body(headers: &HeaderMap, body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !event::is_json(media_type) {
        let detail = format!("the content type is \"{media_type}\"; it must be application/json");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    body.map_err(|refused| Problem::new(refused.status(), refused.body_text()))
}
