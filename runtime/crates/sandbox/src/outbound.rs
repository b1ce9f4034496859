//! `wasi:http/outgoing-handler`: the requests that a guest sends. The crate `evoke-egress` checks the grants and the
//! addresses, and bounds every wait and size; without a grant, every request is refused.
//!
//! Requests run on the threads of guests, so a response wakes only the thread that runs the guest. Guests that compute
//! yield at every tick, so they delay requests only briefly. Dropping the guest ends its requests. The guest never sees
//! the headers that its grant adds.

use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio::time::Instant;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::{self, Host};
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostOutgoingRequest};
use wasmtime_wasi_http::p2::{HttpError, HttpResult};
use wasmtime_wasi_http::{self as wasi_http, RequestOptions, WasiBody, WasiHttpHooks};

use super::answers::{self, BodyAnswer};
use super::http_types::{CHUNK_BYTES_MAX, HttpTypes, HttpTypesHost};
use super::invocation::Invocation;
use super::log::Level;
use super::outgoing_request;
use super::outside::RecordedExchange;
use super::pending_response::PendingResponse;
use super::refusal::{Refusal, SharedRefusal};
use super::request_error::{kind_of, to_wasi};
use super::secrets::Redactor;
use evoke_egress::{Allowance, CONNECT_MAX, Error, FIRST_BYTE_MAX, Limits, RequestBody, ResponseBody, TLS_MAX};
use evoke_model::HOPS_HEADER;
use evoke_model::recording::RequestError;
use evoke_model::text::count;
use evoke_telemetry::{OutboundStart, TraceContext};

/// The memory that the host needs for a request in addition to its fields and its body, in bytes.
const CALL_BYTES: usize = 16 * 1024;
/// Estimate of the memory that a field of a response takes in addition to its name and value, in bytes.
const FIELD_BYTES: usize = 128;
/// Limit on the number of outbound requests that are listed in the note, which is stored with an attempt.
const NOTES_MAX: usize = 10;
/// Length limits of a method, and of a host, in records and spans, in bytes. The limit for the host is that of a DNS
/// name.
const METHOD_BYTES_MAX: usize = 64;
const HOST_BYTES_MAX: usize = 253;
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

pub(super) fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> HttpTypes<'_>,
) -> wasmtime::Result<()> {
    outgoing_handler::add_to_linker::<T, HttpTypesHost>(linker, view)
}

impl Host for HttpTypes<'_> {
    fn handle(
        &mut self,
        request: Resource<HostOutgoingRequest>,
        options: Option<Resource<RequestOptions>>,
    ) -> HttpResult<Resource<HostFutureIncomingResponse>> {
        self.budget.charge(CALL_BYTES).map_err(HttpError::trap)?;
        let options = options.and_then(|options| self.view.table.get(&options).ok()).cloned();
        let request = self.view.table.delete(request)?;
        let has_body = request.body.is_some();
        let request = outgoing_request::to_http(request)?;
        let response = self.view.hooks.send_request(request, options, Box::new(ready(Ok(()))));
        let response = async move { Box::into_pin(response).await.map(|(response, _)| response) };
        Ok(PendingResponse::handle(&self.unfinished.start(self.view.table, response, has_body)?))
    }
}

pub(super) struct Outbound {
    invocation: Arc<Invocation>,
    /// The bytes of bodies that all requests of the attempt may send and receive together.
    allowance: Arc<Allowance>,
    deadline: Instant,
    refusal: SharedRefusal,
    notes: Arc<Notes>,
}

/// One line for each request of an attempt, and the number of requests beyond [`NOTES_MAX`].
#[derive(Default)]
struct Notes(Mutex<(Vec<String>, usize)>);

impl Notes {
    fn add(&self, line: String) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.0.len() < NOTES_MAX {
            notes.0.push(line);
        } else {
            notes.1 += 1;
        }
    }
}

impl Outbound {
    pub(super) fn new(invocation: Arc<Invocation>, deadline: Instant, refusal: SharedRefusal) -> Self {
        let (allowance, notes) = Default::default();
        Self { invocation, allowance, deadline, refusal, notes }
    }

    /// Returns a text that lists the requests of the attempt and how they ended; `None` without requests. The text may
    /// contain secrets.
    pub(super) fn note(&self) -> Option<String> {
        let notes = self.notes.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (lines, more) = &*notes;
        let mut text = lines.join("; ");
        if *more > 0 {
            text += &format!("; and {}", count(*more, "more request"));
        }
        (!text.is_empty()).then_some(text)
    }

    fn limits(&self, options: Option<RequestOptions>) -> Limits {
        let options = options.unwrap_or_default();
        let limit = |wanted: Option<Duration>, max: Duration| wanted.map_or(max, |wanted| wanted.min(max));
        Limits {
            deadline: self.deadline,
            connect_timeout: limit(options.connect_timeout, CONNECT_MAX + TLS_MAX),
            first_byte_timeout: limit(options.first_byte_timeout, FIRST_BYTE_MAX),
            between_bytes_timeout: limit(options.between_bytes_timeout, FIRST_BYTE_MAX),
            allowance: self.allowance.clone(),
        }
    }
}

type Sent<T> = Box<dyn Future<Output = wasi_http::Result<T>> + Send>;

impl WasiHttpHooks for Outbound {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Sent<()>,
    ) -> Sent<(Response<WasiBody>, Sent<()>)> {
        let (invocation, refusal, limits) = (self.invocation.clone(), self.refusal.clone(), self.limits(options));
        let notes = self.notes.clone();
        // Concurrent requests run in any order. So each request gets its answer, or its place in the recording, here,
        // in the order of the calls.
        let (way, request) = Way::of(&invocation, request.map(|body| body.map_err(Into::into).boxed_unsync()));
        Box::new(async move {
            let response = send(&invocation, (&refusal, &notes), (way, request), &limits).await?;
            let nothing_left: Sent<()> = Box::new(ready(Ok(())));
            Ok((response, nothing_left))
        })
    }

    /// Returns false, because `evoke-egress` sets the header `host` to the granted host.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        1
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// Where a request goes.
enum Way {
    /// Over the network. The request is recorded if there is an exchange.
    Live(Option<RecordedExchange>),
    /// To a test, which answers it.
    Answered(BodyAnswer),
    /// Nowhere, because no grant allows it. The grants of the manifest also apply in a test.
    Refused(Error),
}

impl Way {
    /// Returns where a request goes, and the request to send.
    fn of(invocation: &Invocation, request: Request<RequestBody>) -> (Self, Request<RequestBody>) {
        if let Some(recorder) = invocation.outside.recorder() {
            let (exchange, request) = RecordedExchange::start(recorder, request);
            return (Self::Live(Some(exchange)), request);
        }
        let Some(answers) = invocation.outside.answers() else { return (Self::Live(None), request) };
        if let Err(error) = invocation.outbound().grant_of(&request) {
            return (Self::Refused(error), request);
        }
        let (head, body) = request.into_parts();
        let answer = answers(&head);
        (Self::Answered(answer), Request::from_parts(head, body))
    }
}

async fn send(
    invocation: &Invocation,
    (refusal, notes): (&SharedRefusal, &Notes),
    (way, mut request): (Way, Request<RequestBody>),
    limits: &Limits,
) -> wasi_http::Result<Response<WasiBody>> {
    let exchange = match way {
        Way::Live(exchange) => exchange,
        Way::Answered(answer) => {
            let (answer, line) = answers::respond(answer, refusal, request).await?;
            invocation.log().message(Level::Debug, "http", &line);
            return answer;
        }
        Way::Refused(error) => {
            refusal.record(Refusal::Denied(error.to_string()));
            return Err(to_wasi(error));
        }
    };
    // The use of the grant is recorded before the request is sent, because the guest can end before the response
    // arrives.
    let granted = invocation.outbound().grant_of(&request);
    invocation.grant_use().request_checked(&granted);
    let (method, host) = shown_method_and_host(&request, invocation.redactor());
    let port = request.uri().port_u16();
    let start = OutboundStart { method: &method, host: &host, port };
    let context = invocation.trace();
    let span = invocation.spans().outbound(&start, context.as_ref());
    trace(request.headers_mut(), span.trace_context().or(context));
    request.headers_mut().insert(HOPS_HEADER, invocation.hops_out().into());
    let started = Instant::now();
    let result = invocation.outbound().send_granted(request, granted, limits).await;
    let took = started.elapsed();
    match &result {
        Ok(response) => span.responded(response.status().as_u16()),
        Err(error) => {
            span.failed_to_send(error.kind(), &invocation.redactor().redact_text(&error.to_string()));
            invocation.grant_use().request_failed(error);
        }
    }
    notes.add(note(invocation, &method, &host, took, &result));
    let response = result.map_err(|error| {
        let reason = error.is_refusal().then(|| invocation.redactor().redact_text(&error.to_string()).into_owned());
        if let Some(exchange) = &exchange {
            exchange.failed(kind_of(&error), reason.as_deref());
            exchange.ended(&error);
        }
        reason.into_iter().for_each(|reason| refusal.record(Refusal::Denied(reason)));
        to_wasi(error)
    })?;
    if invocation.budget.charge(fields(response.headers())).is_err() {
        if let Some(exchange) = &exchange {
            exchange.failed(RequestError::ResponseHead, None);
        }
        return Err(wasi_http::Error::HttpResponseHeaderSectionSize(None));
    }
    let budget = invocation.budget.clone();
    // The host keeps trailers until the guest drops them. Trailers beyond the budget are replaced with empty ones.
    let bounded = move |frame: Frame<Bytes>| match frame.trailers_ref() {
        Some(trailers) if budget.charge(fields(trailers)).is_err() => Frame::trailers(HeaderMap::new()),
        _ => frame,
    };
    Ok(match exchange {
        Some(exchange) => {
            exchange.responded(response).map(|body| body.map_frame(bounded).map_err(to_wasi).boxed_unsync())
        }
        None => response.map(|body| body.map_frame(bounded).map_err(to_wasi).boxed_unsync()),
    })
}

/// Returns the method and the host (without credentials) of a request, for spans, logs and records. The guest chooses
/// both texts, so the values of secrets in them are replaced, and their length is limited.
fn shown_method_and_host<B>(request: &Request<B>, redactor: &Redactor) -> (String, String) {
    let (method, host) = (request.method().as_str(), request.uri().host().unwrap_or_default());
    (redactor.redacted_start(method, METHOD_BYTES_MAX), redactor.redacted_start(host, HOST_BYTES_MAX))
}

/// Returns the memory of headers or trailers, in bytes.
fn fields(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_BYTES).sum()
}

/// Adds the trace context, unless the guest has set one.
fn trace(headers: &mut HeaderMap, context: Option<TraceContext>) {
    let Some(context) = context else { return };
    if headers.contains_key(TRACEPARENT) {
        return;
    }
    if let Ok(parent) = HeaderValue::try_from(context.traceparent) {
        headers.insert(TRACEPARENT, parent);
    }
    if let Some(state) = context.tracestate.and_then(|state| HeaderValue::try_from(state).ok()) {
        headers.insert(TRACESTATE, state);
    }
}

/// Logs a request: method, host, status or error, and duration. Path and query are left out, because they may contain
/// personal data. Returns the line. If the request failed, the returned line has only the kind of the error.
fn note(
    invocation: &Invocation,
    method: &str,
    host: &str,
    took: Duration,
    result: &Result<Response<ResponseBody>, Error>,
) -> String {
    let milliseconds = took.as_secs_f64() * 1_000.0;
    let request = format!("{method} {host}");
    let (level, line) = match result {
        Ok(response) => (Level::Debug, format!("{request} {} in {milliseconds:.1} ms", response.status().as_u16())),
        Err(error) => (Level::Warn, format!("{request} failed in {milliseconds:.1} ms: {error}")),
    };
    invocation.log().message(level, "http", &line);
    match result {
        Ok(_) => line,
        Err(error) => format!("{request} failed in {milliseconds:.1} ms: {}", error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_context_of_the_guest_is_kept() {
        let context = TraceContext { traceparent: "00-1-2-01".into(), tracestate: Some("a=b".into()) };
        let mut headers = HeaderMap::new();
        trace(&mut headers, Some(context.clone()));
        assert_eq!(
            (headers.len(), &headers[TRACEPARENT], &headers[TRACESTATE]),
            (2, &"00-1-2-01".parse().unwrap(), &"a=b".parse().unwrap())
        );
        let mut headers = HeaderMap::from_iter([(TRACEPARENT.parse().unwrap(), HeaderValue::from_static("00-3-4-01"))]);
        trace(&mut headers, Some(context));
        assert_eq!((headers.len(), headers[TRACEPARENT].to_str().unwrap()), (1, "00-3-4-01"));
    }
}
