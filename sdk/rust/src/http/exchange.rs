//! Sends a request over `wasi:http`.

use super::{Error, Request, Response};
use std::time::Duration;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme,
};
use wasip2::io::streams::StreamError;

/// Maximum number of bytes that `blocking-write-and-flush` of WASI accepts in one call.
const WRITE_BYTES_MAX: usize = 4096;
/// Maximum number of bytes that one read of a response body may return.
const READ_BYTES_MAX: u64 = 64 * 1024;

/// Sends the request, and reads the response to its end.
pub(super) fn exchange(request: &Request) -> Result<Response, Error> {
    let outgoing = outgoing(request)?;
    // If `body` is not called, the host sends the request without a body.
    let body = if request.body.is_empty() { None } else { outgoing.body().ok() };
    let future = outgoing_handler::handle(outgoing, options(request)?).map_err(to_error)?;
    // The server may respond before it has read the whole body, and then the write fails. So errors of the write are
    // ignored; only the response counts.
    if let Some(body) = body {
        write(body, &request.body);
    }
    future.subscribe().block();
    let response = match future.get() {
        Some(Ok(response)) => response.map_err(to_error)?,
        Some(Err(())) | None => return Err(Error::Failed("the host returned no response".into())),
    };
    read(&response, request.body_bytes_max)
}

/// Builds the head of the request.
fn outgoing(request: &Request) -> Result<OutgoingRequest, Error> {
    let invalid = |what: &str| Error::Invalid(format!("{what} is not valid"));
    let Url { scheme, authority, path } = Url::parse(&request.url)?;
    let mut headers = request.headers.clone();
    let has_length = headers.iter().any(|(name, _)| name == "content-length");
    if !has_length && (!request.body.is_empty() || !["GET", "HEAD"].contains(&request.method.as_str())) {
        headers.push(("content-length".into(), request.body.len().to_string().into_bytes()));
    }
    let headers =
        Fields::from_list(&headers).map_err(|error| Error::Invalid(format!("a header is not valid: {error}")))?;
    let outgoing = OutgoingRequest::new(headers);
    // A new request already has the method GET, so this comparison saves a call of the host.
    if request.method != "GET" {
        outgoing.set_method(&method(&request.method)).map_err(|()| invalid("the method"))?;
    }
    outgoing.set_scheme(Some(&scheme)).map_err(|()| invalid("the scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| invalid("the host"))?;
    outgoing.set_path_with_query(Some(&path)).map_err(|()| invalid("the path"))?;
    Ok(outgoing)
}

fn method(name: &str) -> Method {
    match name {
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

/// Returns the time limits of the request; `None` if it sets none, so that only those of the host apply.
fn options(request: &Request) -> Result<Option<RequestOptions>, Error> {
    let limits = [request.connect_timeout, request.first_byte_timeout, request.between_bytes_timeout];
    if limits == [None; 3] {
        return Ok(None);
    }
    let options = RequestOptions::new();
    let nanos = |limit: Option<Duration>| limit.map(|limit| u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX));
    let set = options
        .set_connect_timeout(nanos(request.connect_timeout))
        .and_then(|()| options.set_first_byte_timeout(nanos(request.first_byte_timeout)))
        .and_then(|()| options.set_between_bytes_timeout(nanos(request.between_bytes_timeout)));
    set.map_err(|()| Error::Invalid("a time limit is not valid".into()))?;
    Ok(Some(options))
}

fn write(body: OutgoingBody, bytes: &[u8]) {
    let Ok(stream) = body.write() else { return };
    for part in bytes.chunks(WRITE_BYTES_MAX) {
        if stream.blocking_write_and_flush(part).is_err() {
            return;
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn read(response: &IncomingResponse, body_bytes_max: usize) -> Result<Response, Error> {
    let (status, headers) = (response.status(), response.headers().entries());
    let incoming = response.consume().map_err(|()| Error::Failed("the host returned no body".into()))?;
    let stream = incoming.stream().map_err(|()| Error::Failed("the host returned no body".into()))?;
    let mut body = Vec::new();
    let length = content_length(&headers);
    // If the head contains the length of the body, the loop ends without a last call, which would only report the end
    // of the body.
    while length != Some(body.len()) {
        match stream.blocking_read(READ_BYTES_MAX) {
            Ok(part) if body.len() + part.len() > body_bytes_max => return Err(Error::BodyTooLarge(body_bytes_max)),
            Ok(part) if body.is_empty() => body = part,
            Ok(part) => body.extend_from_slice(&part),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                let code = wasip2::http::types::http_error_code(&error);
                return Err(code.map_or_else(|| Error::Failed(error.to_debug_string()), to_error));
            }
        }
    }
    Ok(Response { status, headers, body })
}

/// Returns the length of the body according to the header `content-length`; `None` if there is no such header.
fn content_length(headers: &[(String, Vec<u8>)]) -> Option<usize> {
    let (_, value) = headers.iter().find(|(name, _)| name == "content-length")?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn to_error(code: ErrorCode) -> Error {
    match code {
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => Error::Denied,
        ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestMethodInvalid => {
            Error::Invalid("the URL or the method is not valid".into())
        }
        ErrorCode::DnsTimeout => Error::Timeout("the host name was not resolved in time".into()),
        ErrorCode::ConnectionTimeout => Error::Timeout("the connection was not made in time".into()),
        ErrorCode::ConnectionReadTimeout => Error::Timeout("the response paused for too long".into()),
        ErrorCode::HttpResponseTimeout => Error::Timeout("the response did not arrive in time".into()),
        ErrorCode::DnsError(_) => Error::Failed("the host name could not be resolved".into()),
        ErrorCode::ConnectionRefused => Error::Failed("the connection was refused".into()),
        ErrorCode::TlsCertificateError => Error::Failed("the certificate of the server is not trusted".into()),
        ErrorCode::HttpResponseIncomplete => {
            Error::Failed("the connection ended before the response was complete".into())
        }
        other => Error::Failed(other.to_string()),
    }
}

struct Url<'a> {
    scheme: Scheme,
    authority: &'a str,
    path: String,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::Invalid(format!("the URL `{url}` {reason}"));
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("has no scheme, such as `https://`"))?;
        let scheme = match scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(invalid("must start with `http://` or `https://`")),
        };
        // A fragment is never sent.
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if authority.is_empty() {
            return Err(invalid("has no host"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { scheme, authority, path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_into_its_parts() {
        for (url, authority, path) in [
            ("https://a.example", "a.example", "/"),
            ("http://a.example:80/x?y=1#z", "a.example:80", "/x?y=1"),
            ("https://a.example?y", "a.example", "/?y"),
            ("https://[::1]:8080/", "[::1]:8080", "/"),
        ] {
            let parsed = Url::parse(url).unwrap();
            assert_eq!((parsed.authority, parsed.path.as_str()), (authority, path), "{url}");
        }
        for url in ["", "a.example", "ftp://a", "https://", "https:///x", "https://#x"] {
            assert!(matches!(Url::parse(url), Err(Error::Invalid(_))), "{url}");
        }
    }
}
