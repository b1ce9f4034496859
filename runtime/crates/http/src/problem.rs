//! Error responses in the form of RFC 9457. Each one describes the mistake and its correction.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::{Map, Value};

use evoke_model::text::escape_json;

/// The longest detail of a response, in bytes. Code that repeats text of a request in a detail shortens that text, so
/// this limit is only a second safeguard. A limit is needed because the memory of error responses is not counted.
const DETAIL_BYTES_MAX: usize = 4 * 1024;

/// An error response: `application/problem+json` of type `about:blank`, whose title is the reason phrase of its status.
#[derive(Debug)]
pub struct Problem {
    /// Status of the response.
    pub status: StatusCode,
    /// The mistake in the request, and how to correct it.
    pub detail: String,
    /// Value of `Allow`.
    allow: Option<String>,
    /// Value of `Retry-After`, in seconds.
    retry_after_s: Option<u64>,
    /// One more header. Few problems have one, so it is boxed: a `Result` with a problem stays small.
    header: Option<Box<(HeaderName, HeaderValue)>>,
    /// Members in addition to those that every problem has (RFC 9457, section 3.2).
    extensions: Map<String, Value>,
}

impl Problem {
    /// Makes a problem without additional headers or members.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        let extensions = Map::new();
        Self { status, detail: detail.into(), allow: None, retry_after_s: None, header: None, extensions }
    }

    /// 400: the request is malformed.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: the requested object does not exist.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405: the path exists, but only for the methods in `allow`.
    pub fn method(allow: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { allow: Some(allow.into()), ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail) }
    }

    /// 503 with `Retry-After`: `after` rounded down to seconds, but at least 1.
    pub fn later(after: Duration, detail: impl Into<String>) -> Self {
        let retry_after_s = Some(after.as_secs().max(1));
        Self { retry_after_s, ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// Returns the time after which the client can send the request again. `None` if there is none.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_s.map(Duration::from_secs)
    }

    /// Adds an extension member.
    #[must_use]
    pub fn with_member(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self { header: Some(Box::new((name, value))), ..self }
    }

    /// Returns the response, with its headers and JSON body. The detail can repeat parts of the request, so characters
    /// that deceive the reader of a terminal are escaped.
    pub fn response(mut self) -> Response<Full<Bytes>> {
        if self.detail.len() > DETAIL_BYTES_MAX {
            self.detail.truncate(self.detail.floor_char_boundary(DETAIL_BYTES_MAX));
            self.detail.push('…');
        }
        let body = json(&Body {
            type_: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            extensions: &self.extensions,
        });
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.extend(self.allow.and_then(|allow| Some((ALLOW, HeaderValue::try_from(allow).ok()?))));
        headers.extend(self.header.map(|header| *header));
        headers.extend(self.retry_after_s.map(|seconds| (RETRY_AFTER, HeaderValue::from(seconds))));
        response
    }
}

/// The members, in the order of RFC 9457, section 3.1.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(flatten)]
    extensions: &'a Map<String, Value>,
}

/// Serialises `value` as a body that ends with a line break, so that the prompt of a shell starts on a new line.
/// `value` must be a plain struct, which cannot fail to serialise.
pub(crate) fn json(value: &impl Serialize) -> Full<Bytes> {
    let mut text = escape_json(&serde_json::to_string(value).unwrap_or_default()).into_owned();
    text.push('\n');
    Full::from(text)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn the_body_has_the_members_in_the_order_of_the_rfc() {
        let problem = Problem::new(StatusCode::CONFLICT, "two events have this id").with_member("seqs", vec![3, 1]);
        let body = problem.response().into_body().collect().await.unwrap().to_bytes();
        let expected =
            r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"two events have this id","seqs":[3,1]}"#;
        assert_eq!(body, format!("{expected}\n"));
    }

    #[tokio::test]
    async fn a_long_detail_is_cut() {
        for (detail, length) in [("x".repeat(DETAIL_BYTES_MAX), DETAIL_BYTES_MAX), ("ä".repeat(1 << 20), 4_099)] {
            let body = Problem::malformed(detail).response().into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["detail"].as_str().unwrap().len(), length);
        }
    }

    #[tokio::test]
    async fn text_of_the_request_cannot_control_a_terminal() {
        let problem = Problem::not_found("nothing at /\u{1b}[2J\u{9b}\u{202e}");
        let body = problem.response().into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.into()).unwrap();
        assert!(text.contains(r"nothing at /\u001b[2J\u009b\u202e"), "{text}");
    }
}
