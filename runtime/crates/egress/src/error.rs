//! Why a request has no response.

use std::net::IpAddr;
use std::time::Duration;

use evoke_model::NotGlobal;
use evoke_model::destination::Target;
use evoke_model::text::count;
use rustls::CertificateError;

use super::limits::{CALLS_MAX, CONNECTIONS_MAX, HEAD_BYTES_MAX, HEADERS_MAX};

/// Largest number of bytes of a peer's text in a message.
const PEER_TEXT_BYTES_MAX: usize = 400;

/// Why a request has no response, or a body ended early. No variant contains a header of a grant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No grant covers the target. Nothing was resolved, connected or sent.
    #[error(
        "requests to {target} are not granted; to allow them, add to the function's `allow`: `http: [\"{target}\"]`"
    )]
    NotGranted {
        /// The target of the request.
        target: Target,
    },
    /// The URI of the request has no valid origin, or the method is not supported.
    #[error("the request is not valid: {0}")]
    Invalid(String),
    /// The target has no address that may be reached. Nothing was connected.
    #[error(
        "{target} has the address {address}, which is {reason}; to allow it, grant `{{ url: \"{target}\", addresses: \
         [\"{address}\"] }}` in `allow: {{ http: … }}`"
    )]
    AddressRefused {
        /// The target of the request.
        target: Target,
        /// The first address that was refused.
        address: IpAddr,
        /// Why the address was refused.
        reason: NotGlobal,
    },
    /// The name of the host has no address.
    #[error("the name {host} cannot be resolved: {message}")]
    Dns {
        /// The name that was looked up.
        host: String,
        /// The error of the operating system.
        message: String,
    },
    /// The addresses of the host did not arrive in time.
    #[error("the name {host} was not resolved within {after:?}")]
    DnsTimeout {
        /// The name that was looked up.
        host: String,
        /// The time limit.
        after: Duration,
    },
    /// No address of the host accepts connections.
    #[error("cannot connect to {target}: {message}")]
    Connect {
        /// The target of the request.
        target: Target,
        /// The error of the address that was tried last.
        message: String,
        /// True if that address actively refused the connection.
        is_refused: bool,
    },
    /// The connection was not made in time.
    #[error("cannot connect to {target} within {after:?}")]
    ConnectTimeout {
        /// The target of the request.
        target: Target,
        /// The time limit.
        after: Duration,
    },
    /// The TLS handshake failed.
    #[error("the TLS handshake with {target} failed: {message}")]
    Tls {
        /// The target of the request.
        target: Target,
        /// The reason, as the TLS library reports it.
        message: String,
        /// True if the certificate of the server was not accepted.
        is_certificate: bool,
    },
    /// The TLS handshake did not end in time.
    #[error("the TLS handshake with {target} did not end within {after:?}")]
    TlsTimeout {
        /// The target of the request.
        target: Target,
        /// The time limit.
        after: Duration,
    },
    /// The response did not begin in time. The request, or a part of it, was sent.
    #[error("the response did not begin within {0:?} after the last part of the request was sent")]
    FirstByteTimeout(Duration),
    /// The response body paused for too long.
    #[error("the response body paused for {0:?}, which is the limit")]
    BetweenBytesTimeout(Duration),
    /// The deadline of the call passed.
    #[error("the deadline of the call passed")]
    Deadline,
    /// The owner has too many calls in progress.
    #[error("the function has {} outbound requests in progress, which is the limit", CALLS_MAX)]
    TooManyCalls,
    /// The owner has too many connections in use.
    #[error("the function has {} connections in use, which is the limit", CONNECTIONS_MAX)]
    TooManyConnections,
    /// The lookup found no place, because too many other lookups of the owner or of the process were running. Nothing
    /// was looked up.
    #[error("the name {host} was not looked up, because other lookups take too long")]
    TooManyLookups {
        /// The name that was to be looked up.
        host: String,
    },
    /// The head of the response is too large.
    #[error("the head of the response has more than {} headers or {} bytes", HEADERS_MAX, HEAD_BYTES_MAX)]
    ResponseHead,
    /// The request bodies of all calls that share the allowance are larger than the allowance in total.
    #[error("the request bodies of this attempt have more than {0} bytes in total, which is the limit")]
    RequestBytes(u64),
    /// The response bodies of all calls that share the allowance are larger than the allowance in total.
    #[error("the response bodies of this attempt have more than {0} bytes in total, which is the limit")]
    ResponseBytes(u64),
    /// The caller's body failed.
    #[error("the request body failed: {0}")]
    RequestBody(String),
    /// The connection ended before the response was complete.
    #[error("the connection ended before the response was complete")]
    Closed,
    /// The peer violates the protocol.
    #[error("the peer violates HTTP: {0}")]
    Protocol(String),
    /// An error on this side, such as a lack of file descriptors.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// Returns true if the request is not valid or the manifest does not allow the request. A retry would fail in the
    /// same way.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::NotGranted { .. } | Self::AddressRefused { .. } | Self::Invalid(_))
    }

    /// Returns true if a time limit ended the request.
    pub fn is_timeout(&self) -> bool {
        matches!(
            self,
            Self::DnsTimeout { .. }
                | Self::ConnectTimeout { .. }
                | Self::TlsTimeout { .. }
                | Self::FirstByteTimeout(_)
                | Self::BetweenBytesTimeout(_)
                | Self::Deadline
        )
    }

    /// Returns the name of the variant for logs and records, such as `connect-timeout`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NotGranted { .. } => "not-granted",
            Self::Invalid(_) => "invalid",
            Self::AddressRefused { .. } => "address-refused",
            Self::Dns { .. } => "dns",
            Self::DnsTimeout { .. } => "dns-timeout",
            Self::Connect { .. } => "connect",
            Self::ConnectTimeout { .. } => "connect-timeout",
            Self::Tls { .. } => "tls",
            Self::TlsTimeout { .. } => "tls-timeout",
            Self::FirstByteTimeout(_) => "first-byte-timeout",
            Self::BetweenBytesTimeout(_) => "between-bytes-timeout",
            Self::Deadline => "deadline",
            Self::TooManyCalls => "too-many-calls",
            Self::TooManyConnections => "too-many-connections",
            Self::TooManyLookups { .. } => "too-many-lookups",
            Self::ResponseHead => "response-head",
            Self::RequestBytes(_) => "request-bytes",
            Self::ResponseBytes(_) => "response-bytes",
            Self::RequestBody(_) => "request-body",
            Self::Closed => "closed",
            Self::Protocol(_) => "protocol",
            Self::Internal(_) => "internal",
        }
    }

    /// Converts an error of a connection.
    pub(crate) fn of_connection(error: &hyper::Error) -> Self {
        if error.is_parse_too_large() {
            return Self::ResponseHead;
        }
        // `is_timeout` means a time-out of the connection itself: the peer did not respond to a ping.
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() || error.is_timeout() {
            return Self::Closed;
        }
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            if let Some(io) = cause.downcast_ref::<std::io::Error>()
                && matches!(
                    io.kind(),
                    std::io::ErrorKind::ConnectionReset
                        | std::io::ErrorKind::BrokenPipe
                        | std::io::ErrorKind::UnexpectedEof
                        | std::io::ErrorKind::ConnectionAborted
                )
            {
                return Self::Closed;
            }
            source = cause.source();
        }
        let mut message = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            let cause = cause.downcast_ref().map_or_else(|| peer_text(cause), of_http2);
            message = format!("{message}: {cause}");
        }
        Self::Protocol(message)
    }
}

/// Describes an error of HTTP/2. A GOAWAY frame can have up to 16 KiB of text from the peer, which may repeat parts of
/// requests, such as secrets. This text is left out.
fn of_http2(error: &h2::Error) -> String {
    match error.reason() {
        Some(reason) if error.is_go_away() && error.is_remote() => format!("GOAWAY received: {reason}"),
        Some(reason) if error.is_go_away() => format!("GOAWAY sent: {reason}"),
        _ => peer_text(error),
    }
}

/// Describes an error of TLS. The text of the TLS library lists all names of a certificate. If there are many names,
/// only their number is given.
pub(crate) fn of_tls(error: &rustls::Error) -> String {
    let text = error.to_string();
    match error {
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })
            if text.len() > PEER_TEXT_BYTES_MAX =>
        {
            let (name, others) = (expected.to_str(), count(presented.len(), "other name"));
            format!("invalid peer certificate: certificate not valid for name \"{name}\"; it has {others}")
        }
        _ => peer_text(text),
    }
}

/// Returns a short text unchanged, and only the length of a long text. The peer may have chosen the text, or a part of
/// it. A long text is not cut: callers replace secrets in messages, and would not recognise a secret of which a cut
/// left only a part.
pub(crate) fn peer_text(text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    if text.len() > PEER_TEXT_BYTES_MAX {
        format!("an error whose text is left out, because it has {} bytes", text.len())
    } else {
        text
    }
}
