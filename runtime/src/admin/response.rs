//! JSON responses.

use axum::body::Body;
use axum::response::IntoResponse;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;

/// A response with a value as JSON. The text ends with a line break, so that the prompt of a shell starts on a new
/// line.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response<Body> {
        // Never fails: strings, numbers and raw JSON always serialise.
        let mut text = serde_json::to_string(&self.0).unwrap_or_default();
        text.push('\n');
        let mut response = Response::new(Body::from(text));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }
}
