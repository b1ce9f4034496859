//! A small HTTP client. The function reaches only the origins that its manifest grants under `allow: http`; the host
//! resolves names, checks addresses, connects, and adds the headers of the grant, such as credentials.
//!
//! ```no_run
//! # extern crate evoke_sdk as evoke;
//! use evoke::{Failure, http};
//!
//! #[derive(serde::Deserialize)]
//! struct Rate { euro: f64 }
//!
//! # fn handle() -> Result<(), Failure> {
//! let rate: Rate = http::get("https://rates.example/today").send()?.ok()?.json()?;
//! http::post("https://api.example/orders").json(&rate.euro)?.send()?.ok()?;
//! # Ok(()) }
//! ```
//!
//! A function can run again for the same delivery after a server has already received a request. So requests with
//! unsafe methods carry the header `Idempotency-Key`: see [`Request::idempotency_key`]. Redirects are not followed.

use crate::Failure;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

mod exchange;
mod response;

pub use response::Response;

/// The default of [`Request::max_body`].
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The id of the delivery that the function handles. The idempotency keys of requests are made of it.
static DELIVERY: OnceLock<String> = OnceLock::new();
/// The number of idempotency keys that this attempt has used so far.
static KEYS: AtomicU32 = AtomicU32::new(0);

/// Stores the id of the delivery of this attempt. Must be called before the function runs.
pub(crate) fn start(delivery_id: &str) {
    let _ = DELIVERY.set(delivery_id.to_owned());
}

/// A request that is not sent yet.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    connect_timeout: Option<Duration>,
    first_byte_timeout: Option<Duration>,
    between_bytes_timeout: Option<Duration>,
    body_bytes_max: usize,
    key: Key,
}

/// The idempotency key of a request.
#[derive(Debug, Clone)]
enum Key {
    /// The next key made of the delivery's id, unless the method is safe or the caller has set the header itself.
    OfDelivery,
    Own(String),
    None,
}

/// Starts a GET request.
pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

/// Starts a POST request.
pub fn post(url: impl Into<String>) -> Request {
    Request::new("POST", url)
}

/// Starts a PUT request.
pub fn put(url: impl Into<String>) -> Request {
    Request::new("PUT", url)
}

/// Starts a PATCH request.
pub fn patch(url: impl Into<String>) -> Request {
    Request::new("PATCH", url)
}

/// Starts a DELETE request.
pub fn delete(url: impl Into<String>) -> Request {
    Request::new("DELETE", url)
}

impl Request {
    /// Starts a request with any method. The URL has a scheme (`http` or `https`) and a host, and can have a port, a
    /// path and a query.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            connect_timeout: None,
            first_byte_timeout: None,
            between_bytes_timeout: None,
            body_bytes_max: BODY_BYTES_MAX,
            key: Key::OfDelivery,
        }
    }

    /// Adds a header. Put credentials into the `headers` of the grant instead, where the function cannot see them.
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_ascii_lowercase(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets a JSON body and the header `content-type`.
    ///
    /// # Errors
    /// The value cannot be JSON.
    pub fn json(self, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        let body = serde_json::to_vec(value)?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// Sets one limit for three waits: for the connection, for the head of the response, and for each further part of
    /// the response. Evoke also has its own limits, most of them 5 s, which a function cannot exceed.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self.first_byte_timeout = Some(timeout);
        self.between_bytes_timeout = Some(timeout);
        self
    }

    /// Limits the wait for the connection.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Limits the wait for the head of the response.
    pub fn first_byte_timeout(mut self, timeout: Duration) -> Self {
        self.first_byte_timeout = Some(timeout);
        self
    }

    /// Sets the maximum size of the response body, in bytes. The default is 8 MiB.
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// Sets the value of the header `Idempotency-Key`.
    ///
    /// Without this call, a request with an unsafe method (any except GET, HEAD, OPTIONS and TRACE) gets a key made of
    /// the delivery's id. The first such request of an attempt has the key `ID`, the second `ID-2`, the third `ID-3`,
    /// and so on. If a function sends its requests in the same order on each attempt, a repeated request has the same
    /// key. Otherwise the function must set the keys itself.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Key::Own(key.into());
        self
    }

    /// Sends no `Idempotency-Key`.
    pub fn no_idempotency_key(mut self) -> Self {
        self.key = Key::None;
        self
    }

    /// Sends the request and reads the whole response. A response is not an error, whatever its status is: see
    /// [`Response::ok`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn send(mut self) -> Result<Response, Error> {
        let is_safe = ["GET", "HEAD", "OPTIONS", "TRACE"].contains(&self.method.as_str());
        let has_key = self.headers.iter().any(|(name, _)| name == IDEMPOTENCY_KEY);
        let key = match std::mem::replace(&mut self.key, Key::None) {
            Key::Own(key) => Some(key),
            Key::OfDelivery if !is_safe && !has_key => next_key(),
            Key::OfDelivery | Key::None => None,
        };
        self.headers.extend(key.map(|key| (IDEMPOTENCY_KEY.to_owned(), key.into_bytes())));
        exchange::exchange(&self)
    }
}

/// Returns the next idempotency key of this attempt; `None` if no delivery was set by [`start`].
fn next_key() -> Option<String> {
    let delivery = DELIVERY.get()?;
    Some(match KEYS.fetch_add(1, Ordering::Relaxed) {
        0 => delivery.clone(),
        earlier => format!("{delivery}-{}", earlier + 1),
    })
}

/// The reason why there is no response, or why [`Response::ok`] does not accept a response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The URL, the method or a header is not valid.
    Invalid(String),
    /// The manifest does not grant the origin, or does not allow its address. `?` converts this error to a failure. If
    /// the function then fails, Evoke does not retry: the delivery becomes a dead letter, and its cause names the line
    /// to add to the manifest.
    Denied,
    /// A time limit was reached.
    Timeout(String),
    /// The request failed in another way.
    Failed(String),
    /// The body of the response is larger than [`Request::max_body`].
    BodyTooLarge(usize),
    /// The status of the response is not 2xx. Only [`Response::ok`] returns this error.
    Status {
        /// The status of the response, such as 404.
        status: u16,
        /// The header `retry-after`, if it is a number of seconds.
        retry_after: Option<Duration>,
        /// The start of the body.
        body: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(message) => write!(f, "HTTP: {message}"),
            Self::Denied => f.write_str("HTTP: the request is not allowed"),
            Self::Timeout(message) | Self::Failed(message) => write!(f, "HTTP: {message}"),
            Self::BodyTooLarge(max) => write!(f, "HTTP: the body of the response has more than {max} bytes"),
            Self::Status { status, body, .. } if body.is_empty() => write!(f, "HTTP: the response has status {status}"),
            Self::Status { status, body, .. } => write!(f, "HTTP: the response has status {status}: {body}"),
        }
    }
}

impl std::error::Error for Error {}

/// An invalid request is a reject. A status is a reject, too, unless it is 408, 425, 429, or at least 500: these are
/// retries, because a later attempt may get another status. All other errors are retries. If the response has a header
/// `retry-after` with a number of seconds, the next attempt waits at least for this time.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::Invalid(_) => Self::reject(message),
            Error::Status { status: 408 | 425 | 429 | 500.., retry_after, .. } => {
                let failure = Self::retry(message);
                retry_after.map_or(failure.clone(), |delay| failure.retry_after(delay))
            }
            Error::Status { .. } => Self::reject(message),
            Error::Denied | Error::Timeout(_) | Error::Failed(_) | Error::BodyTooLarge(_) => Self::retry(message),
        }
    }
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_the_delivery_and_a_number() {
        start("s-7");
        let keys = [next_key(), next_key(), next_key()].map(Option::unwrap);
        assert_eq!(keys, ["s-7", "s-7-2", "s-7-3"]);
    }

    #[test]
    fn a_status_that_a_repetition_may_change_is_a_retry() {
        let failure = |status, retry_after| Failure::from(Error::Status { status, retry_after, body: String::new() });
        assert!(matches!(failure(404, None), Failure::Reject(_)));
        assert!(matches!(failure(302, None), Failure::Reject(_)));
        assert!(matches!(failure(503, None), Failure::Retry(retry) if retry.after_ms.is_none()));
        let after = failure(429, Some(Duration::from_secs(2)));
        assert!(matches!(after, Failure::Retry(retry) if retry.after_ms == Some(2_000)));
        assert!(matches!(Failure::from(Error::Denied), Failure::Retry(_)), "the host reports the refusal as the cause");
    }
}
