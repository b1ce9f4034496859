//! Endpoints whose function handles requests itself. No events are made of the requests. The events that the function
//! publishes are stored before its response is sent.
//!
//! A request header `evoke-path-NAME` has the value of a path parameter, percent-encoded. If a client sends a header
//! whose name begins with `evoke-`, the header is removed. A header whose name begins with `evoke_` is removed, too,
//! because some programs read `_` as `-`.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::path::PathParameters;
use crate::problem::Problem;
use evoke_core::bus::{Origin, Refused};

/// A streamed body.
pub type Payload = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// Handles the requests of an endpoint.
pub trait RequestHandler: fmt::Debug + Send + Sync + 'static {
    /// Handles one request. Dropping the future, or dropping the response body before its end, cancels the request.
    fn handle(&self, request: Request<Payload>) -> BoxFuture<'_, Result<Response<Payload>, HandlerError>>;
}

/// Why a request has no response from its function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerError {
    /// The function already handles its maximum of concurrent requests.
    Busy,
    /// The component of the function is still being compiled.
    Compiling,
    /// The function sent no response within this time.
    Late(Duration),
    /// The function failed. The reason is in the function's log and is not shown to the client.
    Failed,
    /// The events that the function published were not stored, so its response is not sent.
    NotStored {
        /// The reason, as a message for the client.
        detail: String,
        /// The value of `Retry-After`; `None` if the same request would fail again.
        retry_after: Option<Duration>,
    },
}

impl From<Refused> for HandlerError {
    fn from(refused: Refused) -> Self {
        let is_event_invalid =
            matches!(refused, Refused::Invalid { .. } | Refused::Claimed { .. } | Refused::TooLarge { .. });
        let problem = Problem::from(refused);
        let retry_after = problem.retry_after();
        // The client does not know the published events, so it gets no details about them.
        let detail = match is_event_invalid {
            true => "an event that the function published is not valid; `evoke logs` shows why".to_owned(),
            false => problem.detail,
        };
        Self::NotStored { detail, retry_after }
    }
}

/// An extension of the requests that a handler receives: the source that received the request, and the number of hops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EnteredThrough {
    pub origin: Origin,
    /// The number of functions that the chain of events passed through before the request.
    pub hops: u32,
}

/// The names of request headers that only this server can set for the function (`evoke-path-NAME`) begin with these
/// texts. Headers of clients with such names are removed. The spelling with `_` is included, because some programs read
/// `_` as `-`.
const OWN_HEADERS: [&str; 2] = ["evoke-", "evoke_"];

/// Removes every header whose name begins with a text of [`OWN_HEADERS`], because the client set it. Adds the headers
/// of the path parameters.
fn set_path_headers<'a>(headers: &mut HeaderMap, parameters: impl Iterator<Item = (&'a str, &'a str)>) {
    let forged: Vec<HeaderName> =
        headers.keys().filter(|name| OWN_HEADERS.iter().any(|own| name.as_str().starts_with(own))).cloned().collect();
    forged.iter().for_each(|name| drop(headers.remove(name)));
    for (name, value) in parameters {
        // The value of a header can only have visible ASCII characters. `%` is also encoded, so that decoding gives the
        // same value.
        const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');
        let value = utf8_percent_encode(value, ENCODED).to_string();
        let name = HeaderName::try_from(format!("evoke-path-{}", name.to_ascii_lowercase()));
        headers.extend(name.ok().zip(HeaderValue::try_from(value).ok()));
    }
}

/// Passes a request to `handler`. A body longer than `body_max` bytes is refused if its length is announced; otherwise
/// the handler gets an error when it reads beyond `body_max` bytes.
pub(super) async fn call<B>(
    handler: &dyn RequestHandler,
    mut request: Request<B>,
    entered: EnteredThrough,
    body_max: usize,
) -> Result<Response<Payload>, Problem>
where
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Error + Send + Sync + 'static,
{
    if request.body().size_hint().lower() > body_max as u64 {
        return Err(Problem::too_large(body_max));
    }
    let host = request.headers().get(HOST).is_some_and(|host| host.to_str().is_ok());
    if request.uri().authority().is_none() && !host {
        return Err(Problem::malformed("the request names no host; send a `Host` header"));
    }
    let parameters = request.extensions_mut().remove::<PathParameters>().unwrap_or_default();
    set_path_headers(request.headers_mut(), parameters.iter());
    request.extensions_mut().insert(entered);
    let request = request.map(|body| Limited::new(body, body_max).boxed_unsync());
    Ok(handler.handle(request).await?)
}

impl From<HandlerError> for Problem {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Busy => Self::later(
                Duration::from_secs(1),
                "the function already handles its maximum of concurrent requests (`concurrency`); retry later",
            ),
            HandlerError::Compiling => {
                Self::later(Duration::from_secs(1), "the function is still being compiled; retry later")
            }
            HandlerError::Late(limit) => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                format!("the function sent no response within its `timeout` of {limit:?}"),
            ),
            HandlerError::Failed => Self::new(
                StatusCode::BAD_GATEWAY,
                "the function failed before it sent a response; `evoke logs` shows why",
            ),
            HandlerError::NotStored { detail, retry_after: Some(after) } => Self::later(after, detail),
            HandlerError::NotStored { detail, retry_after: None } => Self::new(StatusCode::SERVICE_UNAVAILABLE, detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_cannot_set_the_headers_of_path_parameters() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("evoke-path-id", "forged"),
            ("evoke-path-id", "twice"),
            ("evoke_path_id", "x"),
            ("evoke-other", "x"),
            ("host", "a"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let values = [("Id", "caf\u{e9} 100%\r\nx: y"), ("rest", "a/b")];
        set_path_headers(&mut headers, values.into_iter());
        let mut found: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
        found.sort();
        assert_eq!(found, ["evoke-path-id=caf%C3%A9%20100%25%0D%0Ax:%20y", "evoke-path-rest=a/b", "host=a"]);
    }
}
