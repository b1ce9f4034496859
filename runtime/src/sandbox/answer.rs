//! HTTP components: each request is answered by a fresh instance, which takes and gives bodies piece by piece.
//!
//! A guest that is not done at once goes on in a task of its own while its answer is sent. When the client is gone
//! before all of the answer is, the task ends; when the guest fails midway, the answer ends with an error, never as if
//! it were whole.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
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
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{self as wasi_http, WasiHttpView as _};

use super::fate;
use super::function::{Entry, Function};
use super::host::{State, Task};
use super::log::{AttemptLog, Level, LogSink};
use super::work::Work;
use crate::clock::Clock;
use crate::outcome::Outcome;

/// What goes wrong with a body.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// A request to be answered.
pub struct Visit {
    /// The request. An error of its body is told to the guest as a broken body.
    pub request: Request<UnsyncBoxBody<Bytes, BodyError>>,
    /// What its log lines are marked with, where those of a delivery have its id.
    pub id: Arc<str>,
    /// Kept until the guest is gone.
    pub seat: OwnedSemaphorePermit,
    /// Where the function's log lines go.
    pub logs: LogSink,
    /// What log lines are stamped with.
    pub clock: Clock,
}

impl Function {
    /// Has the guest answer a request. The function's time-out holds for the whole answer, its body included. An error
    /// is how the guest ended without one, and is in the function's log. A function of another kind is unavailable.
    pub async fn answer(self: &Arc<Self>, visit: Visit) -> Result<Response<Answer>, Outcome> {
        let method = visit.request.method().clone();
        let failed = Arc::new(AtomicBool::new(false));
        let (head, mut answered) = oneshot::channel();
        let mut guest = Box::pin(self.clone().serve(visit, head, failed.clone()));
        // Most guests are done within their first turn. They need no task of their own, no thread to wake.
        if let Poll::Ready(outcome) = poll_fn(|cx| Poll::Ready(guest.as_mut().poll(cx))).await {
            let head = answered.try_recv().ok();
            return if outcome == Outcome::Done { whole(&method, head).await } else { Err(outcome) };
        }
        let mut guest = Guest(Some(tokio::spawn(guest)));
        match answered.await {
            Ok(head) => {
                let response = sound(&method, head)?;
                Ok(response.map(|body| Answer(Pieces::Stream { body, failed, guest })))
            }
            Err(_) => match guest.end().await {
                Outcome::Done => Err(unanswered()),
                outcome => Err(outcome),
            },
        }
    }

    /// Runs the guest to its end.
    async fn serve(self: Arc<Self>, visit: Visit, head: oneshot::Sender<Head>, failed: Arc<AtomicBool>) -> Outcome {
        let Visit { request, id, seat: _seat, logs, clock } = visit;
        let limit = self.identity.timeout;
        let Entry::Http(pre) = &self.entry else {
            return Outcome::Unavailable { message: "it handles events and answers no requests".into() };
        };
        let Ok(_room) = timeout(limit, self.shared.room.acquire()).await else {
            return Outcome::Unavailable { message: "every instance is taken".into() };
        };
        let _awake = self.shared.ticker.awake();
        let work = Work::new(self.identity.clone(), (id, 1), None, logs, clock);
        let log = Logged(AttemptLog(work.clone()));
        let mut store = self.store(Task::Answer, work, None);
        self.give_way(&mut store, Instant::now());
        let run = std::panic::AssertUnwindSafe(run(pre, &mut store, request, head)).catch_unwind();
        let ended = timeout(limit, run).await;
        log.0.finish();
        let outcome = fate::ended(ended, store.data());
        if let Some(message) = outcome.message() {
            log.0.message(Level::Error, outcome.kind(), &message);
        }
        // Before the store goes, and with it the guest's end of the answer.
        failed.store(outcome != Outcome::Done, Ordering::Release);
        outcome
    }
}

type Head = Result<Response<HyperOutgoingBody>, ErrorCode>;

async fn run(
    pre: &ProxyPre<State>,
    store: &mut Store<State>,
    request: Request<UnsyncBoxBody<Bytes, BodyError>>,
    head: oneshot::Sender<Head>,
) -> wasmtime::Result<Outcome> {
    let guest = pre.instantiate_async(&mut *store).await?;
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(Scheme::Http, request.map(|body| body.map_err(broken)))?;
    let head = http.new_response_outparam(head)?;
    guest.wasi_http_incoming_handler().call_handle(store, request, head).await?;
    Ok(Outcome::Done)
}

/// A broken request body as the guest is told of it.
fn broken(error: BodyError) -> wasi_http::Error {
    match error.downcast::<LengthLimitError>() {
        Ok(_) => wasi_http::Error::HttpRequestBodySize(None),
        Err(other) => wasi_http::Error::InternalError(Some(other.to_string())),
    }
}

fn trap(message: impl Into<String>) -> Outcome {
    Outcome::Trap { message: message.into() }
}

fn unanswered() -> Outcome {
    trap("returned without an answer")
}

/// The answer of a guest that is done: all of its body is here.
async fn whole(method: &Method, head: Option<Head>) -> Result<Response<Answer>, Outcome> {
    let response = sound(method, head.ok_or_else(unanswered)?)?;
    let (head, mut body) = response.into_parts();
    let (mut frames, mut length) = (Vec::new(), 0);
    let mut has_trailers = false;
    // Its other end is gone: this waits for nothing, except for tokio to give this task another turn.
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| trap(format!("answered with a broken body: {error:?}")))?;
        has_trailers |= frame.is_trailers();
        length += frame.data_ref().map_or(0, Bytes::len) as u64;
        frames.push(frame);
    }
    let announced = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if !stands_for_another(method, head.status) && announced.is_some_and(|announced: u64| announced != length) {
        return Err(trap(format!("answered with {length} bytes where its content-length says otherwise")));
    }
    // Trailers can only follow a body in chunks.
    let left = (!has_trailers).then_some(length);
    Ok(Response::from_parts(head, Answer(Pieces::Whole { frames: frames.into_iter(), left })))
}

/// What can be answered. Takes the length from an answer that has no body, unless it is that of the body which the
/// answer stands for: a client would wait for it.
fn sound(method: &Method, head: Head) -> Result<Response<HyperOutgoingBody>, Outcome> {
    let mut response = head.map_err(|code| trap(format!("answered with an error: {code:?}")))?;
    // hyper would answer in its place.
    if response.status().is_informational() {
        return Err(trap(format!("answered with {}, which is no answer yet", response.status())));
    }
    if response.body().is_end_stream() && !stands_for_another(method, response.status()) {
        response.headers_mut().remove(CONTENT_LENGTH);
    }
    Ok(response)
}

/// Whether an answer has the length of a body that it does not have (RFC 9110, section 8.6).
fn stands_for_another(method: &Method, status: StatusCode) -> bool {
    *method == Method::HEAD || status == StatusCode::NOT_MODIFIED
}

/// The body of an answer.
pub struct Answer(Pieces);

enum Pieces {
    /// The guest is done, and this is all of it; with the bytes that are left, where no trailers follow.
    Whole { frames: std::vec::IntoIter<Frame<Bytes>>, left: Option<u64> },
    /// The guest goes on.
    Stream {
        body: HyperOutgoingBody,
        /// Set before the guest's end of the body goes, when it ended badly.
        failed: Arc<AtomicBool>,
        guest: Guest,
    },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Pieces::Whole { frames, left } => {
                let frame = frames.next();
                let bytes = frame.as_ref().and_then(Frame::data_ref).map_or(0, Bytes::len) as u64;
                *left = left.map(|left| left.saturating_sub(bytes));
                Poll::Ready(frame.map(Ok))
            }
            Pieces::Stream { body, failed, guest } => {
                let frame = ready!(Pin::new(body).poll_frame(cx));
                if frame.is_none() {
                    if failed.load(Ordering::Acquire) {
                        return Poll::Ready(Some(Err("the function failed before its answer was whole".into())));
                    }
                    guest.let_go();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Pieces::Whole { frames, .. } => frames.len() == 0,
            Pieces::Stream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Pieces::Whole { left, .. } => left.map_or_else(SizeHint::default, SizeHint::with_exact),
            Pieces::Stream { body, .. } => body.size_hint(),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // An empty body is never read.
        if let Pieces::Stream { body, guest, .. } = &mut self.0
            && body.is_end_stream()
        {
            guest.let_go();
        }
    }
}

/// The task of a guest, which ends when this is dropped.
struct Guest(Option<JoinHandle<Outcome>>);

impl Guest {
    async fn end(&mut self) -> Outcome {
        let gone = |message: String| Outcome::Unavailable { message };
        match &mut self.0 {
            Some(task) => task.await.unwrap_or_else(|error| gone(error.to_string())),
            None => gone("it was let go".into()),
        }
    }

    /// Has it go on by itself, within its time-out.
    fn let_go(&mut self) {
        self.0 = None;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// A log that is ended even when its task is.
struct Logged(AttemptLog);

impl Drop for Logged {
    fn drop(&mut self) {
        self.0.finish();
    }
}
