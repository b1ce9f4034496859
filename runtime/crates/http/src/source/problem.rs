//! Refusals in the form of RFC 9457: what is wrong and what would be right.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::Full;

use evoke_core::bus::Refused;
use evoke_store::StoreError;
use evoke_telemetry::Refusal;

/// The `Retry-After` while the disk is full or the process stops, in seconds.
const RETRY_AFTER_S: u64 = 10;

/// A refusal: `application/problem+json` of type `about:blank`, titled with the reason phrase of its status.
#[derive(Debug)]
pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) detail: String,
    header: Option<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), header: None }
    }

    /// 400: the request does not have the form that it claims.
    pub(super) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 405: the path exists, with other methods (`allow`).
    pub(super) fn method(allow: &str, detail: impl Into<String>) -> Self {
        let header = HeaderValue::from_str(allow).ok().map(|value| (ALLOW, value));
        Self { header, ..Self::new(StatusCode::METHOD_NOT_ALLOWED, detail) }
    }

    /// 408: the body did not arrive in time.
    pub(super) fn slow() -> Self {
        let detail = "the body did not arrive in time; send it without long pauses";
        Self::new(StatusCode::REQUEST_TIMEOUT, detail)
    }

    /// 413: the body is larger than the source accepts.
    pub(super) fn too_large(max: usize) -> Self {
        let detail = format!("the body is larger than the {max} bytes that this source accepts (`max_body`)");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// 503 with `Retry-After`, rounded down to seconds, at least 1.
    pub(super) fn later(after: Duration, detail: impl Into<String>) -> Self {
        let seconds = after.as_secs().max(1);
        Self { header: Some((RETRY_AFTER, seconds.into())), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// The label under which the metrics count a refusal with this status.
    pub(super) fn reason(&self) -> Refusal {
        match self.status {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
            StatusCode::SERVICE_UNAVAILABLE => Refusal::Overloaded,
            StatusCode::TOO_MANY_REQUESTS => Refusal::Crowding,
            _ => Refusal::Invalid,
        }
    }

    /// Whether the same request could succeed later, when there is room.
    pub(super) fn is_lack_of_room(&self) -> bool {
        matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS)
    }

    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let body = json(&Body {
            type_: "about:blank",
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
        });
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().extend(self.header);
        response
    }
}

/// The members, in the order of RFC 9457, section 3.1.
#[derive(serde::Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    type_: &'a str,
    title: &'a str,
    status: u16,
    detail: &'a str,
}

/// Serialises `value` as a body; plain structs never fail to serialise.
pub(super) fn json(value: &impl serde::Serialize) -> Full<Bytes> {
    Full::from(serde_json::to_vec(value).unwrap_or_default())
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let retry_after = Duration::from_secs(RETRY_AFTER_S);
        let detail = refused.to_string();
        match refused {
            Refused::Invalid { .. } => Self::malformed(detail),
            Refused::TooLarge { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
            Refused::Overloaded { retry_after, .. } => Self::later(retry_after, detail),
            Refused::Crowding { retry_after, .. } => {
                Self { status: StatusCode::TOO_MANY_REQUESTS, ..Self::later(retry_after, detail) }
            }
            Refused::Store(StoreError::Full | StoreError::Closed) => Self::later(retry_after, detail),
            // Addresses and names of other processes are for the log and the operator.
            Refused::Store(StoreError::Unreachable(_)) => Self::later(
                retry_after,
                "the store cannot be reached at the moment, and it is not known whether this request was stored: send it again later with the same ids",
            ),
            Refused::Store(StoreError::Fenced(_)) => {
                Self::later(retry_after, "another process took over; nothing of this request was stored")
            }
            // The exact failure is for the log and the operator, not for every client that reaches this port.
            Refused::Store(StoreError::Failed(_) | StoreError::Damaged(_)) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the store failed, and it is not known whether this request was stored: send it again later with the same ids",
            ),
        }
    }
}
