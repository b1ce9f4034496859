//! Converts the errors of requests between three types: the errors of `evoke-egress`, which sends the requests; the
//! kinds of error in tests and recordings; and the errors of `wasi:http`. The guest learns only what happened to its
//! own request.

use wasmtime_wasi_http as wasi_http;

use evoke_egress::Error;
use evoke_model::recording::RequestError;

pub(super) fn to_wasi(error: Error) -> wasi_http::Error {
    use wasi_http::Error as Wasi;
    match error {
        Error::RequestBytes(max) => Wasi::HttpRequestBodySize(Some(max)),
        Error::ResponseBytes(max) => Wasi::HttpResponseBodySize(Some(max)),
        Error::RequestBody(message) | Error::Internal(message) => Wasi::InternalError(Some(message)),
        error => kind_to_wasi(kind_of(&error)),
    }
}

/// Returns the kind of an error. Apart from numbers and messages, a guest cannot distinguish errors of one kind.
pub(super) fn kind_of(error: &Error) -> RequestError {
    match error {
        Error::NotGranted { .. } => RequestError::NotGranted,
        Error::Invalid(_) => RequestError::Invalid,
        Error::AddressRefused { .. } => RequestError::AddressRefused,
        Error::Dns { .. } => RequestError::Dns,
        Error::DnsTimeout { .. } => RequestError::DnsTimeout,
        Error::Connect { is_refused: true, .. } => RequestError::Refused,
        Error::Connect { is_refused: false, .. } => RequestError::Connect,
        Error::ConnectTimeout { .. } | Error::TlsTimeout { .. } => RequestError::ConnectTimeout,
        Error::Tls { is_certificate: true, .. } => RequestError::Certificate,
        Error::Tls { is_certificate: false, .. } => RequestError::Tls,
        Error::FirstByteTimeout(_) | Error::Deadline => RequestError::Timeout,
        Error::BetweenBytesTimeout(_) => RequestError::BetweenBytesTimeout,
        Error::TooManyCalls | Error::TooManyConnections | Error::TooManyLookups { .. } => RequestError::TooMany,
        Error::ResponseHead => RequestError::ResponseHead,
        Error::RequestBytes(_) => RequestError::RequestBytes,
        Error::ResponseBytes(_) => RequestError::ResponseBytes,
        Error::Closed => RequestError::Closed,
        Error::Protocol(_) => RequestError::Protocol,
        Error::RequestBody(_) | Error::Internal(_) => RequestError::Internal,
    }
}

pub(super) fn kind_to_wasi(kind: RequestError) -> wasi_http::Error {
    use wasi_http::Error as Wasi;
    match kind {
        RequestError::NotGranted => Wasi::HttpRequestDenied,
        RequestError::Invalid => Wasi::HttpRequestUriInvalid,
        RequestError::AddressRefused => Wasi::DestinationIpProhibited,
        RequestError::Dns => Wasi::DnsError { rcode: None, info_code: None },
        RequestError::DnsTimeout => Wasi::DnsTimeout,
        RequestError::Refused => Wasi::ConnectionRefused,
        RequestError::Connect => Wasi::DestinationUnavailable,
        RequestError::ConnectTimeout => Wasi::ConnectionTimeout,
        RequestError::Certificate => Wasi::TlsCertificateError,
        RequestError::Tls => Wasi::TlsProtocolError,
        RequestError::Timeout => Wasi::HttpResponseTimeout,
        RequestError::BetweenBytesTimeout => Wasi::ConnectionReadTimeout,
        RequestError::TooMany => Wasi::ConnectionLimitReached,
        RequestError::ResponseHead => Wasi::HttpResponseHeaderSectionSize(None),
        RequestError::RequestBytes => Wasi::HttpRequestBodySize(None),
        RequestError::ResponseBytes => Wasi::HttpResponseBodySize(None),
        RequestError::Closed => Wasi::HttpResponseIncomplete,
        RequestError::Protocol => Wasi::HttpProtocolError,
        RequestError::Internal => Wasi::InternalError(None),
    }
}
