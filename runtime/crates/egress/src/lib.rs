//! Outbound HTTP: sends a request to a destination that was granted, and to no other.
//!
//! A [`Client`] is made once for the process, and an [`Owner`] for each function that has grants. [`Owner::send`] sends
//! one request:
//!
//! 1. The target (scheme, host, port) is normalised and must match a [`Grant`]; otherwise nothing is sent.
//! 2. If no pooled connection is ready, the name of the host is resolved: once, within 5 s, and together with the calls
//!    of the same owner that need the name at the same time. Each address is checked: an address that is not global
//!    (loopback, private, link-local and so on) is refused, unless [`Grant::addresses`] contains it.
//! 3. The connection is made to an address that was checked, without another look-up. If connecting fails, the next
//!    checked address is tried.
//! 4. For https, the certificate must be valid for the host of the target. HTTP/2 or HTTP/1.1 is negotiated.
//! 5. The headers of the grant replace the headers of the request that have the same names.
//!
//! A redirect is returned like any other response and is not followed. No proxy is used, even if `HTTP_PROXY` is set.
//! Connections are pooled for each owner, grant and target. If a peer responds before it has taken the request body, no
//! other call gets the connection until the rest is sent. If the peer does not take the rest within 5 s, the connection
//! is closed.
//!
//! Every wait and every size is bounded: see [`Limits`] and the constants. A socket belongs to the tokio runtime of the
//! call that made the connection. The calls of one owner should run on one runtime, so that no call waits for the
//! threads of another runtime. Names are resolved on the runtime that the client was made with.
//!
//! ```no_run
//! # async fn example(io: tokio::runtime::Handle, metrics: std::sync::Arc<evoke_telemetry::Metrics>) -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use evoke_egress::{Client, Grant, Limits, empty};
//! use evoke_model::destination::Destination;
//!
//! let client = Client::new(io, metrics);
//! let grant = Grant::new(Destination::parse("https://api.example.com")?);
//! let owner = client.owner("shop/charge", vec![grant]);
//! let request = http::Request::get("https://api.example.com/prices").body(empty())?;
//! let response = owner.send(request, &Limits::within(Duration::from_secs(10))).await?;
//! # Ok(())
//! # }
//! ```

mod allowance;
pub mod certificate;
mod client;
mod connect;
mod connection;
mod error;
mod grant;
mod limits;
mod pool;
mod probe;
mod recent;
mod request_body;
mod resolve;
mod response_body;
mod self_wake;
mod send;
#[cfg(test)]
mod tests;
mod tls;
mod upload;

pub use allowance::Allowance;
pub use client::{Client, Owner};
pub use error::Error;
pub use grant::{Grant, TrustAnchors, TrustError};
pub use limits::{
    CALLS_MAX, CONNECT_MAX, CONNECTIONS_MAX, DNS_MAX, FIRST_BYTE_MAX, HEAD_BYTES_MAX, HEADERS_MAX, Limits, TLS_MAX,
};
pub use probe::PeerCertificates;
pub use request_body::{BodyError, RequestBody, empty, full};
pub use response_body::ResponseBody;
pub use upload::UntilSent;
