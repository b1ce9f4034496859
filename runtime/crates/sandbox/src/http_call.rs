//! HTTP components: a fresh instance responds to each request. Request and response bodies are streamed in chunks.
//!
//! The guest runs as a task on the threads for guests, so the connection's thread never waits for it. If the guest lets
//! other tasks run after it has set its response, the response is sent while the guest runs. If the client disconnects
//! before the response is complete, the task is aborted. If the guest fails after its response has begun, the response body ends
//! with an error, so that it never looks complete.
//!
//! The events that a guest published before it set its response are returned with the head of the response. The caller
//! stores them before it sends the head.

use std::any::Any;
use std::error::Error;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, LengthLimitError};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{self as wasi_http, WasiHttpView as _};

use super::context::{HostContext, Task};
use super::function::{Entry, Function};
use super::guest_task::{GuestTask, on_guest_threads};
use super::invocation::Invocation;
use super::log::{Level, LogSink};
use super::outside::Outside;
use super::secrets::Redactor;
use super::warm_pool::Use;
use super::{budget, instance, outcome};
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_model::text::count;
use evoke_telemetry::TraceContext;

/// The error type of a body.
pub type BodyError = Box<dyn Error + Send + Sync>;

type GuestRequest = Request<UnsyncBoxBody<Bytes, BodyError>>;

/// An HTTP request for a function.
pub struct HttpCall {
    /// The request. If its body fails, the guest's read of the body fails.
    pub request: GuestRequest,
    /// The trace context of the request; `None` without a trace.
    pub trace: Option<TraceContext>,
    /// The number of functions that the chain of events and requests passed through before this request.
    pub hops: u32,
    /// Id of the request. Log lines have this id in place of a delivery id.
    pub id: Arc<str>,
    /// Values of the caller that must be dropped only when the guest has ended, which can be after its response was
    /// sent: for example a concurrency permit, and the record that the request is running.
    pub held: Box<dyn Any + Send>,
    /// Receives the function's log lines.
    pub logs: LogSink,
    /// Clock for the timestamps of log lines.
    pub clock: Clock,
}

/// The response of a guest, with the events that are part of it.
pub struct HttpAnswer {
    /// The response. Dropping it ends the guest.
    pub response: Response<ResponseBody>,
    /// The events that the guest published before it set the response. They must be stored before the head of the
    /// response is sent.
    pub published: Vec<Event>,
}

impl Function {
    /// Runs the guest for one request and returns its response. The function's time-out applies to the whole response,
    /// including its body. An error is the outcome of a guest that ended without a valid response; its message is also
    /// in the function's log. If the guest did not run, for example because the function handles events, the outcome is
    /// `Unavailable`, and its message is not logged.
    pub async fn call_http(self: &Arc<Self>, call: HttpCall) -> Result<HttpAnswer, Outcome> {
        self.identity.grant_use.attempt();
        let HttpCall { request, trace, hops, id, held, logs, clock } = call;
        let method = request.method().clone();
        let invocation =
            Invocation::new(self.identity.clone(), (id, 1), (None, trace, hops), logs, (clock, Outside::Live));
        let redactor = self.identity.grants.secrets.redactor();
        let failed = Arc::new(AtomicBool::new(false));
        let (head_sender, head) = oneshot::channel();
        let (begun_sender, begun) = oneshot::channel();
        let guest = self.clone().serve(request, held, invocation.clone(), head_sender, failed.clone());
        let mut guest =
            GuestTask::start(self.shared.threads.handle(), until_the_response_begins(guest, head, begun_sender));
        match begun.await {
            Ok(Begun::Ended { outcome: Outcome::Done, head }) => {
                let response = complete_response(&method, head, redactor).await;
                let response = response.inspect_err(|outcome| log_failure(&invocation, outcome))?;
                Ok(HttpAnswer { response, published: invocation.publisher().take() })
            }
            Ok(Begun::Ended { outcome, .. }) => Err(outcome),
            Ok(Begun::Streams(head)) => {
                let response = check_head(&method, head, redactor);
                let response = response
                    .inspect_err(|outcome| log_failure(&invocation, outcome))?
                    .map(|body| ResponseBody(BodySource::Stream { body, failed, guest }));
                Ok(HttpAnswer { response, published: invocation.publisher().take() })
            }
            // The task ended without an outcome: it panicked, or the threads for guests have stopped.
            Err(_) => Err(guest.end().await),
        }
    }

    /// Runs the guest to its end.
    async fn serve(
        self: Arc<Self>,
        request: GuestRequest,
        _held: Box<dyn Any + Send>,
        invocation: Arc<Invocation>,
        head: oneshot::Sender<Head>,
        failed: Arc<AtomicBool>,
    ) -> Outcome {
        let limit = self.identity.timeout;
        let Some(instances) = &self.requests else {
            return Outcome::Unavailable {
                message: "the function handles events and receives no HTTP requests".into(),
            };
        };
        // The time limit covers the wait for an instance and the response, because the client waits for both.
        let requested = Instant::now();
        let Ok(_instance) = timeout(limit, instances.acquire()).await else {
            return Outcome::Unavailable {
                message: "all instances for HTTP requests stayed in use until the time-out".into(),
            };
        };
        let _awake = self.shared.ticker.keep_awake();
        let Ok(turn) = timeout(limit.saturating_sub(requested.elapsed()), self.turns.first(self.warm.is_some())).await
        else {
            return Outcome::Unavailable { message: "other attempts used all processors until the time-out".into() };
        };
        on_guest_threads().await;
        let (entry, warm) = self.entry_for(Use::Waiting);
        let Entry::Http(pre) = entry else {
            return Outcome::Unavailable { message: "the function receives no HTTP requests".into() };
        };
        let _finish_log = FinishLogOnDrop(invocation.clone());
        // The time without yields begins here. After a long wait for its first turn, the guest would otherwise yield at
        // its first host call, and most guests would be in progress at the same time.
        let (started, left) = (Instant::now(), limit.saturating_sub(requested.elapsed()));
        let mut store = instance::new_store(entry.engine(), Task::HttpCall, invocation.clone(), None, requested);
        budget::yield_at_ticks(&mut store, left, started, Self::undivided(warm.as_ref()));
        let run = std::panic::AssertUnwindSafe(run(pre, &mut store, request, head)).catch_unwind();
        let result = timeout(left, self.turns.run(turn, pin!(run))).await;
        invocation.log().finish();
        let outcome = outcome::to_outcome(result, store.data());
        if let Some(warm) = &warm {
            warm.keep_pages();
        }
        log_failure(&invocation, &outcome);
        // Set before the store is dropped. Dropping the store ends the response body, and the reader of the body then
        // checks this flag.
        failed.store(outcome != Outcome::Done, Ordering::Release);
        outcome
    }
}

/// Logs the message of an outcome, if it has one.
fn log_failure(invocation: &Invocation, outcome: &Outcome) {
    if let Some(message) = outcome.message() {
        invocation.log().message(Level::Error, outcome.kind(), &message);
    }
}

type Head = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// How the response of a guest begins.
enum Begun {
    /// The guest has ended. If it set a response, the whole body is there.
    Ended { outcome: Outcome, head: Option<Head> },
    /// The guest set its response, and waits or still computes.
    Streams(Head),
}

/// Runs the guest to its end, and sends the beginning of its response. Most guests end soon after they have set their
/// response. So the head is sent only when the guest has ended or lets other tasks run: then a short response is sent as
/// a whole, and wakes the thread of its connection only once.
async fn until_the_response_begins(
    guest: impl Future<Output = Outcome>,
    mut head: oneshot::Receiver<Head>,
    begun: oneshot::Sender<Begun>,
) -> Outcome {
    let (mut guest, mut begun) = (pin!(guest), Some(begun));
    let outcome = poll_fn(|cx| {
        let polled = guest.as_mut().poll(cx);
        if polled.is_pending()
            && begun.is_some()
            && let Ok(head) = head.try_recv()
            && let Some(begun) = begun.take()
        {
            let _ = begun.send(Begun::Streams(head));
        }
        polled
    })
    .await;
    if let Some(begun) = begun {
        let _ = begun.send(Begun::Ended { outcome: outcome.clone(), head: head.try_recv().ok() });
    }
    outcome
}

async fn run(
    pre: &ProxyPre<HostContext>,
    store: &mut Store<HostContext>,
    request: GuestRequest,
    head: oneshot::Sender<Head>,
) -> wasmtime::Result<Outcome> {
    let guest = pre.instantiate_async(&mut *store).await?;
    let mut http = store.data_mut().http();
    let scheme = match request.extensions().get::<http::uri::Scheme>() {
        Some(scheme) if *scheme == http::uri::Scheme::HTTPS => Scheme::Https,
        _ => Scheme::Http,
    };
    let request = http.new_incoming_request(scheme, request.map(|body| body.map_err(body_error)))?;
    let head = http.new_response_outparam(head)?;
    guest.wasi_http_incoming_handler().call_handle(store, request, head).await?;
    Ok(Outcome::Done)
}

/// Converts the error of a request body for the guest.
fn body_error(error: BodyError) -> wasi_http::Error {
    match error.downcast::<LengthLimitError>() {
        Ok(_) => wasi_http::Error::HttpRequestBodySize(None),
        Err(other) => wasi_http::Error::InternalError(Some(other.to_string())),
    }
}

fn trap(message: impl Into<String>) -> Outcome {
    Outcome::Trap { message: message.into() }
}

fn no_response() -> Outcome {
    trap("the function returned without setting a response")
}

/// Returns the response of a guest that has ended, with its complete body.
async fn complete_response(
    method: &Method,
    head: Option<Head>,
    redactor: &Redactor,
) -> Result<Response<ResponseBody>, Outcome> {
    let response = check_head(method, head.ok_or_else(no_response)?, redactor)?;
    let (head, mut body) = response.into_parts();
    let (mut frames, mut length) = (Vec::new(), 0);
    let mut has_trailers = false;
    // The guest has ended, so all of the body is there. This waits only when tokio makes the task yield.
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            trap(outcome::sanitize(redactor, &format!("the function's response body failed: {error:?}")))
        })?;
        has_trailers |= frame.is_trailers();
        length += frame.data_ref().map_or(0, Bytes::len) as u64;
        frames.push(frame);
    }
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if !length_without_body(method, head.status) && announced.is_some_and(|announced: u64| announced != length) {
        let (bytes, announced) = (count(length, "byte"), announced.unwrap_or_default());
        return Err(trap(format!(
            "the body of the function's response has {bytes}, but its header `content-length` is {announced}"
        )));
    }
    // Trailers require a chunked body, whose length is not announced.
    let left = (!has_trailers).then_some(length);
    Ok(Response::from_parts(head, ResponseBody(BodySource::Complete { frames: frames.into_iter(), left })))
}

/// Checks the head of a response. If the response has no body, removes its header `content-length`, because a client
/// would wait for the body. Some responses may have this header without a body; they keep it.
fn check_head(method: &Method, head: Head, redactor: &Redactor) -> Result<Response<HyperOutgoingBody>, Outcome> {
    // The error may contain a long text of the guest.
    let mut response =
        head.map_err(|code| trap(outcome::sanitize(redactor, &format!("the function returned an error: {code:?}"))))?;
    // hyper would send another response in place of an informational one.
    if response.status().is_informational() {
        return Err(trap(format!(
            "the function returned status {}; the lowest status allowed is 200",
            response.status()
        )));
    }
    if response.body().is_end_stream() && !length_without_body(method, response.status()) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    Ok(response)
}

/// Returns true if the response may have the header `content-length` without having a body (RFC 9110, section 8.6).
fn length_without_body(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || status == StatusCode::NOT_MODIFIED
}

/// The body of a response.
pub struct ResponseBody(BodySource);

enum BodySource {
    /// The guest has ended. `left` is the number of bytes left to send, or `None` if trailers follow.
    Complete { frames: std::vec::IntoIter<Frame<Bytes>>, left: Option<u64> },
    /// The guest is still running.
    Stream {
        body: HyperOutgoingBody,
        /// True if the guest failed. Set before the store of the guest is dropped, which ends `body`.
        failed: Arc<AtomicBool>,
        guest: GuestTask,
    },
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            BodySource::Complete { frames, left } => {
                let frame = frames.next();
                let bytes = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
                *left = left.map(|left| left.saturating_sub(bytes));
                Poll::Ready(frame.map(Ok))
            }
            BodySource::Stream { body, failed, guest } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                if frame.is_none() {
                    if failed.load(Ordering::Acquire) {
                        return Poll::Ready(Some(Err("the function failed before its response was complete".into())));
                    }
                    guest.detach();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            BodySource::Complete { frames, .. } => frames.len() == 0,
            BodySource::Stream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            BodySource::Complete { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
            BodySource::Stream { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // An empty body is never polled, so `poll_frame` did not detach the task.
        if let BodySource::Stream { body, guest, .. } = &mut self.0
            && body.is_end_stream()
        {
            guest.detach();
        }
    }
}

/// Ends the log of the guest when this value is dropped, even if the task is aborted.
struct FinishLogOnDrop(Arc<Invocation>);

impl Drop for FinishLogOnDrop {
    fn drop(&mut self) {
        self.0.log().finish();
    }
}
