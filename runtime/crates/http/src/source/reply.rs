//! Requests that wait for the result of their event (`reply: { event: TYPE }`). After the event is stored, the request
//! waits for the reply: the first event of this type that a function publishes in the chain of the stored event. The
//! chain contains all events that follow from the stored event.
//!
//! | response | `evoke-reply` | when |
//! |---|---|---|
//! | the reply: its data, its media type, and the status in its attribute `httpstatus` (200 to 599, else 200) | `event` | the reply is stored |
//! | 502 with the kind of the failure in `cause` | `dead` | a delivery of the chain is a dead letter, and there is no reply |
//! | 202 | `none` | every delivery of the chain is done, and there is no reply; or the event was accepted before, and retention has removed it |
//! | 202 | `busy` | there is a reply, but no memory for it, because other clients read their responses slowly |
//! | 202 | `timeout` | there was no reply within the time limit |
//! | 202 | `stopping` | the process stops |
//! | 202 | `unknown` | the chain cannot be read |
//! | 400 | | the request is a batch |
//! | 422 | | the id belongs to an event with other content or of another principal, so its reply is not for this sender |
//! | 503 | | too many requests wait; nothing was stored |
//!
//! A request with an id that was accepted before gets the reply to the first request with this id, or waits for it. So
//! a client whose connection broke can send the same request again. The reply is in the store, so a restart does not
//! lose it.

mod config;

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub use self::config::ReplyEvent;
pub(super) use self::config::{parse, schema};
use super::attributes::Templates;
use crate::problem::Problem;
use evoke_core::bus::{Bus, Origin, Reply, ReplyPermit};
use evoke_model::event::{Data, Event};
use evoke_model::{Accepted, Seq};
use evoke_store::TypeFilter;

/// The response header that contains `event` if the response is the reply, and otherwise the reason why it is not.
pub const REPLY_HEADER: HeaderName = HeaderName::from_static("evoke-reply");
/// The extension attribute of an event that sets the status of the response.
pub const STATUS_ATTRIBUTE: &str = "httpstatus";

/// The attributes of the trace context, which differs for each request.
const TRACE_CONTEXT: [&str; 2] = ["traceparent", "tracestate"];

/// The `Retry-After` while too many requests wait. A request usually waits for a few seconds, so the number of waiting
/// requests soon falls.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// An extension of every request, which ends its wait for a reply when the listener stops.
#[derive(Debug, Clone)]
pub(super) struct Stopping {
    /// Cancelled when the listener stops.
    pub(super) stop: CancellationToken,
    /// How long a request may wait after `stop` is cancelled.
    pub(super) grace: Duration,
}

impl Stopping {
    async fn ended(stopping: Option<Self>) {
        match stopping {
            Some(Self { stop, grace }) => {
                stop.cancelled().await;
                sleep(grace).await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Why a response is not the reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoReply {
    Finished,
    TimedOut,
    Stopping,
    Removed,
    Unknown,
    /// The memory for responses is used up.
    Busy,
}

/// The member `reply` of a response that is not the reply.
#[derive(Debug, Serialize)]
pub(super) struct NoReplyBody {
    state: &'static str,
    detail: String,
}

impl NoReply {
    fn name(self) -> &'static str {
        match self {
            Self::Finished | Self::Removed => "none",
            Self::TimedOut => "timeout",
            Self::Stopping => "stopping",
            Self::Unknown => "unknown",
            Self::Busy => "busy",
        }
    }

    pub(super) fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.name())
    }

    pub(super) fn body(self, reply: &ReplyEvent, seq: Seq) -> NoReplyBody {
        let event = reply.event.as_str();
        let again = "send the request again with the same id to wait for the reply";
        let detail = match self {
            Self::Finished => {
                format!("all functions are done, and no function published an event `{event}`; see `evoke trace {seq}`")
            }
            Self::TimedOut => {
                format!("there was no event `{event}` within {:?}; {again}, or see `evoke trace {seq}`", reply.timeout)
            }
            Self::Stopping => format!("Evoke is stopping, and there is no event `{event}` yet; {again}"),
            Self::Removed => {
                "the event was accepted before, and its retention time is over; send it with a new id to repeat it"
                    .into()
            }
            Self::Busy => format!("no memory is free for the reply; {again}, or see `evoke trace {seq}`"),
            Self::Unknown => format!("it is not known whether there is an event `{event}`; {again}"),
        };
        NoReplyBody { state: self.name(), detail }
    }
}

/// Why a source with a reply takes no batch.
pub(super) const BATCH_REFUSED: &str = "a batch has no single reply; send each event in a request of its own, or the batch to a \
                                source without `reply`";

/// Reserves a place among the requests that wait for a reply. Returns the error 503 if too many requests wait.
pub(super) fn reserve(bus: &Bus, source: Origin) -> Result<ReplyPermit, Problem> {
    let busy = || Problem::later(RETRY_AFTER, "too many requests wait for a reply; retry later");
    bus.reserve_reply(source).ok_or_else(busy)
}

/// If the event was accepted before, compares it with the stored event. To get the reply, the sender must send the
/// whole event again and have the same principal, because the id alone can be easy to guess. The trace context, and
/// attributes that contain headers of the request, are not compared, because they can differ in a repeated request. If
/// the events cannot be compared, returns the reason why there is no reply.
pub(super) async fn check_duplicate(
    bus: &Bus,
    accepted: Accepted,
    sent: &Event,
    templates: Option<&Templates>,
) -> Result<Option<NoReply>, Problem> {
    let Accepted::Duplicate(seq) = accepted else { return Ok(None) };
    let stored = match bus.accepted(seq).await {
        Ok(Some(Ok(stored))) => stored,
        // Retention has removed the event, but maybe not yet its reply.
        Ok(None) => return Ok(Some(NoReply::Removed)),
        Ok(Some(Err(_))) | Err(_) => return Ok(Some(NoReply::Unknown)),
    };
    let counts = |(name, _): &(&String, &String)| {
        !TRACE_CONTEXT.contains(&name.as_str()) && !templates.is_some_and(|templates| templates.is_of_header(name))
    };
    let same = |a: &Event, b: &Event| {
        a.principal == b.principal
            && a.type_ == b.type_
            && a.subject == b.subject
            && a.data == b.data
            && a.extensions.iter().filter(counts).eq(b.extensions.iter().filter(counts))
    };
    if same(&stored.event, sent) {
        return Ok(None);
    }
    // The response does not reveal whether the content or the principal differs.
    let detail = "an event with this id was accepted before, with other content or from another sender; send this \
                  event with a new id";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

/// Waits for the reply to an accepted event. The error is the reason why there is no reply.
pub(super) async fn wait(
    bus: &Bus,
    reply: &ReplyEvent,
    permit: ReplyPermit,
    root: Seq,
    stopping: Option<Stopping>,
) -> Result<Response<Full<Bytes>>, NoReply> {
    let glob = reply.event.clone();
    let wanted: TypeFilter = std::sync::Arc::new(move |type_: &str| glob.matches(type_));
    let deadline = Instant::now() + reply.timeout;
    let reply = tokio::select! {
        reply = bus.wait_for_reply(&permit, root, wanted, deadline) => reply,
        () = Stopping::ended(stopping) => return Err(NoReply::Stopping),
    };
    match reply {
        Ok(Reply::Event(Ok(stored))) => Ok(response(&stored.event)),
        Ok(Reply::Dead { delivery, kind }) => Ok(dead(root, &delivery.to_string(), &kind)),
        Ok(Reply::Finished) => Err(NoReply::Finished),
        Ok(Reply::TimedOut) => Err(NoReply::TimedOut),
        // The store has reported its error.
        Ok(Reply::Event(Err(_))) | Err(_) => Err(NoReply::Unknown),
    }
}

/// Makes the response from an event, which has the status, the media type and the data.
fn response(event: &Event) -> Response<Full<Bytes>> {
    let status = event.extensions.get(STATUS_ATTRIBUTE).and_then(|status| status.parse::<u16>().ok());
    let status = status.filter(|status| (200..=599).contains(status)).and_then(|s| StatusCode::from_u16(s).ok());
    let status = status.unwrap_or(StatusCode::OK);
    let (data, default_type) = match &event.data {
        Data::None => (Bytes::new(), None),
        Data::Json(json) => (json.clone(), Some("application/json")),
        Data::Text(text) => (Bytes::copy_from_slice(text.as_bytes()), Some("text/plain; charset=utf-8")),
        Data::Binary(bytes) => (bytes.clone(), Some("application/octet-stream")),
    };
    // Responses with these statuses have no body (RFC 9110, sections 15.3.5, 15.3.6 and 15.4.5).
    let has_body = ![StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::NOT_MODIFIED].contains(&status);
    let mut response = Response::new(if has_body { Full::from(data) } else { Full::default() });
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(REPLY_HEADER, HeaderValue::from_static("event"));
    if has_body {
        let declared = event.datacontenttype.as_deref().and_then(|type_| HeaderValue::from_str(type_).ok());
        headers
            .extend(declared.or_else(|| default_type.map(HeaderValue::from_static)).map(|type_| (CONTENT_TYPE, type_)));
    }
    response
}

/// Returns the response if a delivery of the chain has become a dead letter. The response does not contain the message
/// of the function, because the message can contain secrets of other services, or data of other users.
fn dead(root: Seq, delivery: &str, kind: &str) -> Response<Full<Bytes>> {
    let detail = format!(
        "a function failed for the event, or for an event that followed from it, and is not retried. The operator sees the \
         reason with `evoke trace {root}` and `evoke dead show {delivery}`"
    );
    let problem = Problem::new(StatusCode::BAD_GATEWAY, detail).with_member("cause", kind).with_member("event", root.0);
    problem.with_header(REPLY_HEADER, HeaderValue::from_static("dead")).response()
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    async fn of(status: &str, type_: Option<&str>, data: Data) -> (u16, Option<String>, Bytes) {
        let extensions = [(STATUS_ATTRIBUTE.to_owned(), status.to_owned())].into();
        let event = Event { datacontenttype: type_.map(str::to_owned), data, extensions, ..Event::default() };
        let (head, body) = response(&event).into_parts();
        let content_type = head.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        (head.status.as_u16(), content_type, body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn a_response_has_the_status_the_media_type_and_the_data_of_the_event() {
        let json = || Data::Json(Bytes::from_static(b"{}"));
        let json_type = || Some("application/json".to_owned());
        assert_eq!(of("201", Some("application/hal+json"), json()).await.1, Some("application/hal+json".into()));
        assert_eq!(of("201", None, json()).await, (201, json_type(), Bytes::from_static(b"{}")));
        assert_eq!(of("599", None, Data::None).await, (599, None, Bytes::new()));
        let text = of("404", None, Data::Text("no".into())).await;
        assert_eq!(text, (404, Some("text/plain; charset=utf-8".into()), Bytes::from_static(b"no")));
        let binary = of("200", None, Data::Binary(Bytes::from_static(b"\xff"))).await;
        assert_eq!(binary.1, Some("application/octet-stream".into()));
        for without_body in ["204", "205", "304"] {
            assert_eq!(of(without_body, Some("text/plain"), json()).await.2, Bytes::new());
        }
        for invalid in ["", "100", "199", "600", "+200", "2e2", "teapot", "65736"] {
            assert_eq!(of(invalid, None, json()).await.0, 200, "{invalid}");
        }
        // A media type with characters that a header cannot have is replaced.
        assert_eq!(of("200", Some("text/plain\r\nset-cookie: a=b"), json()).await.1, json_type());
    }
}
