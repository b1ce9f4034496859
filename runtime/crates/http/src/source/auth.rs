//! Verification of senders: `auth:` of an http source.
//!
//! A [`Guard`] first checks the headers of a request, so that a request without credentials is refused before its body
//! is read. If the request is signed, the guard then verifies the raw body, before any part of the body is parsed. A
//! refusal is a 401 with the same body for every reason. The reason is counted, and logged at a limited rate.
//!
//! | preset | signed text | time | id of the request |
//! |---|---|---|---|
//! | `standard-webhooks` | `ID.TIME.BODY`, HMAC-SHA256 (`v1`) or ed25519 (`v1a`) | ± 5 min | `webhook-id` |
//! | `github` | the body, HMAC-SHA256 | | `X-GitHub-Delivery`, which is not signed |
//! | `stripe` | `TIME.BODY`, HMAC-SHA256 (`v1`) | ± 5 min | `id` in the body |
//! | `slack` | `v0:TIME:BODY`, HMAC-SHA256 (`v0`) | ± 5 min | `event_id` in the body |
//! | `hmac` | the body, or a template of time and body | if signed | |
//! | `bearer`, `basic` | nothing: the request contains the secret | | |
//!
//! If a request has a signed time but no id, the id of its event is made from the signature, so that a repeated request
//! is stored only once. A signature covers the body and the signed time, not the other headers and not the query. So
//! presets with signatures refuse CloudEvents in binary mode, which have their attributes in headers, and they refuse
//! data in the query. Values that placeholders take from headers, path and query are not signed either: the manifest
//! decides which of them an event uses.
//!
//! A comparison with a secret takes the same time for all values, see `keys.rs`. The principal of a sender is the
//! preset, followed by the name of the secret, if it has one, or by the name of the user: `github`, `github:new`,
//! `basic:ada`.

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use http_body_util::Full;

mod basic;
mod bearer;
mod config;
mod github;
mod guard;
mod headers;
mod hmac;
mod keys;
mod log;
mod preset;
mod slack;
mod standard_webhooks;
mod stripe;
#[cfg(test)]
mod tests;

pub use config::{Auth, Basic, Hmac, HmacTimestamp, SecretAuth, SignedTemplate};
pub(super) use guard::{Admitted, Sender};
pub use guard::{Guard, SecretError};

/// The error for a signed CloudEvent in binary mode. The signature covers only the body.
pub(super) const BINARY_MODE: &str = "the signature does not cover the `ce-` headers of binary mode; send the event as \
     application/cloudevents+json";

/// The error for a signed request whose query would become the data of an event. The signature covers only the body.
pub(super) const QUERY_DATA: &str =
    "the signature does not cover the query; send the data as the body of a POST request";

/// Returns the response to a request that only tests the endpoint. The text has visible ASCII characters only.
pub(super) fn challenge_response(challenge: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(challenge));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
