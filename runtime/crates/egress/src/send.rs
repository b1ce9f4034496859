//! Sends one request.

use std::pin::pin;
use std::sync::Arc;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

use evoke_model::destination::Target;
use evoke_telemetry::OutboundOutcome;

use super::client::{GrantState, Owner};
use super::connect::connect;
use super::connection::Connection;
use super::error::Error;
use super::grant::Grant;
use super::limits::{CONNECT_MAX, FIRST_BYTE_MAX, HEADERS_MAX, Limits, TLS_MAX};
use super::pool::{Key, Lease, Rest};
use super::request_body::{RequestBody, Sending, SentBody};
use super::response_body::ResponseBody;
use super::upload::{Permits, UntilSent, Upload};

/// Headers that describe a connection. They are removed from the caller's request; the connection sets its own headers.
const OF_CONNECTION: [HeaderName; 10] = [
    CONNECTION,
    HOST,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Methods whose response contains the headers of the request (RFC 9110, section 9.3.8).
const ECHOING: [&str; 2] = ["TRACE", "TRACK"];

impl Owner {
    /// Returns the position of the grant that covers a request, and the target of the request. Sends nothing.
    ///
    /// # Errors
    /// The method is not supported, the URI is not valid, or no grant covers the target.
    pub fn grant_of<B>(&self, request: &Request<B>) -> Result<(usize, Target), Error> {
        check_method(request.method())?;
        let recent = &self.0.recent;
        if let Some(granted) = recent.get(request.uri()) {
            return Ok(granted);
        }
        let target = target_of(request.uri())?;
        let (at, _) = self.granted(&target)?;
        recent.set(request.uri(), at, &target);
        Ok((at, target))
    }

    /// Sends a request to the origin of its URI, and returns the response when its head has arrived. Redirects are
    /// returned like other responses. If a pooled connection fails before anything of the request was sent, the request
    /// is sent over another connection.
    ///
    /// # Errors
    /// See [`Error`]. After an error, the peer may have received the request, except where the variant says otherwise.
    pub async fn send(&self, request: Request<RequestBody>, limits: &Limits) -> Result<Response<ResponseBody>, Error> {
        let granted = self.grant_of(&request);
        self.send_granted(request, granted, limits).await
    }

    /// Same as [`Owner::send`], for a caller that has called [`Owner::grant_of`] for the URI of the request already.
    ///
    /// # Errors
    /// See [`Owner::send`].
    pub async fn send_granted(
        &self,
        request: Request<RequestBody>,
        granted: Result<(usize, Target), Error>,
        limits: &Limits,
    ) -> Result<Response<ResponseBody>, Error> {
        let started = Instant::now();
        let granted = granted.and_then(|(grant, target)| match self.0.grants.get(grant) {
            Some(state) => Ok((Key { grant, target }, state)),
            None => Err(Error::NotGranted { target }),
        });
        let (key, state) = match granted {
            Ok(granted) => granted,
            Err(error) => {
                self.refused().ended(OutboundOutcome::Refused, started.elapsed());
                return Err(error);
            }
        };
        let result = match self.0.calls.clone().try_acquire_owned() {
            Err(_) => Err(Error::TooManyCalls),
            Ok(call) => self.exchange(request, key, state, limits, call).await,
        };
        state.metrics.ended(outcome(&result), started.elapsed());
        result
    }

    async fn exchange(
        &self,
        request: Request<RequestBody>,
        key: Key,
        state: &GrantState,
        limits: &Limits,
        call: OwnedSemaphorePermit,
    ) -> Result<Response<ResponseBody>, Error> {
        let sending = Arc::new(Sending::default());
        let call = Arc::new(call);
        let (mut request, upload) = prepare(request, &state.grant, limits, &sending, &call);
        let (connection, rest, response) = loop {
            let (mut connection, is_new) = match self.0.pool.take(&key) {
                Some(connection) => (connection, false),
                None => {
                    let connected = timeout_at(limits.deadline, self.connect(&key, limits)).await;
                    (connected.unwrap_or(Err(Error::Deadline))?, true)
                }
            };
            address(&mut request, &key.target, connection.is_http2())?;
            let rest = Rest::new(&self.0.pool, &connection, &upload);
            let waited = wait_for_head(connection.send(request), &sending, limits).await;
            match waited.inspect_err(|_| self.0.pool.forget(&connection))? {
                Ok(response) => break (connection, rest, response),
                Err(mut error) => match error.take_message() {
                    // Nothing was sent, because the pooled connection was dead. The request is sent over another
                    // connection.
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(sending.error().unwrap_or_else(|| Error::of_connection(error.error()))),
                },
            }
        };
        let mut lease = Lease { pool: Arc::downgrade(&self.0.pool), key, connection, rest };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::Protocol("it switches to another protocol, which was not requested".into()));
        }
        if response.headers().len() > HEADERS_MAX {
            return Err(Error::ResponseHead);
        }
        if sending.may_be_unsent() || !lease.rest.upload.is_over() {
            lease.connection.drive_alone();
        }
        let between_bytes = limits.between_bytes_timeout.min(FIRST_BYTE_MAX);
        Ok(response.map(|body| ResponseBody::new(body, limits, between_bytes, sending, (lease, call))))
    }

    async fn connect(&self, key: &Key, limits: &Limits) -> Result<Connection, Error> {
        let permit = self.0.pool.permit().await?;
        let time = limits.connect_timeout.min(CONNECT_MAX + TLS_MAX);
        // The future is boxed because it is large, and most calls use a pooled connection instead.
        let connection = Box::pin(connect(self, key, time, limits.deadline, permit)).await?;
        self.0.pool.share(key, &connection);
        Ok(connection)
    }
}

fn check_method(method: &Method) -> Result<(), Error> {
    if *method == Method::CONNECT {
        return Err(Error::Invalid("the method CONNECT is not supported".into()));
    }
    if ECHOING.iter().any(|echoing| method.as_str().eq_ignore_ascii_case(echoing)) {
        let message = "the methods TRACE and TRACK are not supported: a server returns the headers of such a request, \
                       including those that the grant adds";
        return Err(Error::Invalid(message.into()));
    }
    Ok(())
}

/// Returns the origin of a URI.
fn target_of(uri: &Uri) -> Result<Target, Error> {
    let (scheme, authority) = (uri.scheme_str(), uri.authority());
    let (Some(scheme), Some(authority)) = (scheme, authority) else {
        return Err(Error::Invalid("its URI must have a scheme and a host".into()));
    };
    if authority.as_str().contains('@') {
        // The message does not quote the credentials, because the message is logged.
        return Err(Error::Invalid("its URI has credentials before the host; send them in a header".into()));
    }
    Target::parse(scheme, authority.as_str()).map_err(|error| Error::Invalid(error.to_string()))
}

/// Removes the headers that describe a connection, adds the headers of the grant, limits the size of the body, and
/// keeps the permit of the call until no byte of the body is in memory.
fn prepare(
    request: Request<RequestBody>,
    grant: &Grant,
    limits: &Limits,
    sending: &Arc<Sending>,
    call: &Arc<OwnedSemaphorePermit>,
) -> (Request<SentBody>, Upload) {
    let (mut head, body) = request.into_parts();
    remove_connection_headers(&mut head.headers);
    for (name, value) in &grant.headers {
        head.headers.insert(name, value.clone());
    }
    let until_sent = head.extensions.remove::<UntilSent>();
    // hyper gets no extensions of the caller, such as a request for an upgrade.
    head.extensions.clear();
    let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let (permits, upload) = if body.is_end_stream() {
        (None, Upload::default())
    } else {
        let (permits, upload) = Permits::new(call.clone(), until_sent);
        (Some(permits), upload)
    };
    let body = SentBody::new(body, length, limits.allowance.clone(), sending.clone(), permits);
    (Request::from_parts(head, body), upload)
}

fn remove_connection_headers(headers: &mut HeaderMap) {
    let listed: Vec<_> = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok()).collect();
    let listed: Vec<_> = listed
        .iter()
        .flat_map(|names| names.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in OF_CONNECTION.iter().chain(&listed) {
        headers.remove(name);
    }
}

/// Writes the target into the request, in the form that the version of HTTP requires. So the caller's own spelling of
/// the target is never sent.
fn address(request: &mut Request<SentBody>, target: &Target, is_http2: bool) -> Result<(), Error> {
    let invalid = |error: http::Error| Error::Invalid(error.to_string());
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let authority = target.authority();
    if is_http2 {
        let uri = Uri::builder().scheme(target.scheme()).authority(authority).path_and_query(path);
        *request.uri_mut() = uri.build().map_err(invalid)?;
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(HOST);
    } else {
        let host = HeaderValue::try_from(authority).map_err(|error| invalid(error.into()))?;
        *request.uri_mut() = path.into();
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().insert(HOST, host);
    }
    Ok(())
}

/// Waits for the head of a response. The time limit for the first byte starts when the request is sent, and again after
/// each part of the request body that the connection reads. It does not run while the connection waits for the caller's
/// next part. The deadline always runs.
async fn wait_for_head<T>(response: impl Future<Output = T>, sending: &Sending, limits: &Limits) -> Result<T, Error> {
    let mut response = pin!(response);
    let (sent, limit) = (Instant::now(), limits.first_byte_timeout);
    let end_after = |start: Instant| start.checked_add(limit).unwrap_or(limits.deadline).min(limits.deadline);
    let mut end = end_after(sent);
    loop {
        if let Ok(response) = timeout_at(end, &mut response).await {
            return Ok(response);
        }
        if Instant::now() >= limits.deadline {
            return Err(Error::Deadline);
        }
        end = end_after(sending.waiting_since(sent));
        if end <= Instant::now() {
            return Err(Error::FirstByteTimeout(limit));
        }
    }
}

fn outcome(result: &Result<Response<ResponseBody>, Error>) -> OutboundOutcome {
    match result {
        Ok(response) => OutboundOutcome::of_status(response.status().as_u16()),
        Err(error) if error.is_refusal() => OutboundOutcome::Refused,
        Err(error) if error.is_timeout() => OutboundOutcome::Timeout,
        Err(_) => OutboundOutcome::Failed,
    }
}
