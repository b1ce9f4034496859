//! The request that a guest has built, in the types of the crate `http`.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt as _, Empty};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::p2::bindings::http::types::{self, ErrorCode, Scheme};
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;

/// Converts a request. If it has no path, the path is `/`. If it has no scheme, the scheme is https. If the guest never
/// called `body`, the body is empty.
///
/// # Errors
/// The method or the URI is not valid, or the header `content-length` contradicts the body.
pub(super) fn to_http(request: HostOutgoingRequest) -> Result<Request<WasiBody>, ErrorCode> {
    let HostOutgoingRequest { method, scheme, authority, path_with_query, headers, body } = request;
    let scheme = match scheme {
        Some(Scheme::Http) => "http",
        Some(Scheme::Https) | None => "https",
        Some(Scheme::Other(_)) => return Err(ErrorCode::HttpProtocolError),
    };
    let path = path_with_query.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned());
    let uri = Uri::builder().scheme(scheme).authority(authority.unwrap_or_default()).path_and_query(path);
    let uri = uri.build().map_err(|_| ErrorCode::HttpRequestUriInvalid)?;
    let headers: HeaderMap = headers.into();
    let length = content_length(&headers)?;
    let body = match body {
        Some(body) => body,
        // wasmtime-wasi-http compares the header `content-length` with the body only if the guest called `body`. If
        // not, the body is empty, and the header is checked here.
        None if length.is_some_and(|length| length > 0) => return Err(ErrorCode::HttpRequestBodySize(Some(0))),
        None => Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync(),
    };
    let mut request = Request::new(body);
    *request.method_mut() = to_method(method)?;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

fn to_method(method: types::Method) -> Result<Method, ErrorCode> {
    Ok(match method {
        types::Method::Get => Method::GET,
        types::Method::Head => Method::HEAD,
        types::Method::Post => Method::POST,
        types::Method::Put => Method::PUT,
        types::Method::Delete => Method::DELETE,
        types::Method::Connect => Method::CONNECT,
        types::Method::Options => Method::OPTIONS,
        types::Method::Trace => Method::TRACE,
        types::Method::Patch => Method::PATCH,
        types::Method::Other(name) => {
            Method::from_bytes(name.as_bytes()).map_err(|_| ErrorCode::HttpRequestMethodInvalid)?
        }
    })
}

/// Returns the value of the header `content-length`. The header must not occur more than once, and must consist of
/// digits (RFC 9110, section 8.6).
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, ErrorCode> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse().ok()) {
        Some(length) if values.next().is_none() => Ok(Some(length)),
        _ => Err(ErrorCode::InternalError(Some("the header `content-length` must occur once and be a number".into()))),
    }
}

#[cfg(test)]
mod tests {
    use wasmtime_wasi_http::FieldMap;

    use super::*;

    fn request(path: Option<&str>, length: Option<&str>) -> HostOutgoingRequest {
        let mut headers = FieldMap::new_mutable(1_000);
        if let Some(length) = length {
            headers.append_raw(CONTENT_LENGTH, length.parse().unwrap()).unwrap();
        }
        HostOutgoingRequest {
            method: types::Method::Other("PURGE".into()),
            scheme: Some(Scheme::Http),
            authority: Some("a.example:8080".into()),
            path_with_query: path.map(str::to_owned),
            headers,
            body: None,
        }
    }

    #[test]
    fn a_request_is_converted_with_its_defaults() {
        let converted = to_http(request(Some("/x?y=1"), Some("0"))).unwrap();
        assert_eq!(
            (converted.method().as_str(), converted.uri().to_string()),
            ("PURGE", "http://a.example:8080/x?y=1".into())
        );
        for path in [None, Some("")] {
            assert_eq!(to_http(request(path, None)).unwrap().uri().to_string(), "http://a.example:8080/");
        }
        let https = HostOutgoingRequest { scheme: None, ..request(None, None) };
        assert_eq!(to_http(https).unwrap().uri().scheme_str(), Some("https"));
    }

    #[test]
    fn a_request_that_cannot_be_sent_has_its_error() {
        let code = |request| format!("{:?}", to_http(request).unwrap_err());
        assert!(code(request(None, Some("5"))).contains("HttpRequestBodySize"));
        let other = HostOutgoingRequest { scheme: Some(Scheme::Other("ftp".into())), ..request(None, None) };
        assert!(code(other).contains("HttpProtocolError"));
        let no_host = HostOutgoingRequest { authority: None, ..request(None, None) };
        assert!(code(no_host).contains("HttpRequestUriInvalid"));
        let method = HostOutgoingRequest { method: types::Method::Other("A B".into()), ..request(None, None) };
        assert!(code(method).contains("HttpRequestMethodInvalid"));
    }
}
