//! Maps how a guest ended to an `Outcome`.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::error::Elapsed;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::bindings::exports::evoke::function::handler::Failure;
use super::command::LineRefused;
use super::host::HostContext;
use super::log::escape_controls;
use super::state::Refusal;
use evoke_model::outcome::Outcome;

/// Number of backtrace frames in a message.
const FRAMES_MAX: usize = 3;
/// The exit code with which a command rejects its event for good: EX_DATAERR of sysexits.h.
const REJECT_CODE: i32 = 65;
/// Length limit of a guest's message, in bytes; longer messages are cut.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// The guest was computing when its deadline passed.
#[derive(Debug, thiserror::Error)]
#[error("the deadline was reached")]
pub(super) struct DeadlineReached;

/// How a guest ended: by the time-out (`Elapsed`), by a panic of the host, or by itself.
pub(super) type GuestResult = Result<Result<wasmtime::Result<Outcome>, Box<dyn Any + Send>>, Elapsed>;

/// Runs a guest for at most `limit`. Most guests end on the first poll and never need a timer. The future stays pinned
/// in the caller, because it has several kilobytes.
pub(super) async fn within(
    limit: Duration,
    guest: Pin<&mut impl Future<Output = wasmtime::Result<Outcome>>>,
) -> GuestResult {
    let mut guest = AssertUnwindSafe(guest).catch_unwind();
    match futures_util::poll!(&mut guest) {
        Poll::Ready(ended) => Ok(ended),
        Poll::Pending => tokio::time::timeout(limit, guest).await,
    }
}

/// Returns the outcome of a guest that ended by time-out, by a panic of the host, or by itself.
pub(super) fn to_outcome(result: GuestResult, context: &HostContext) -> Outcome {
    match result {
        Err(_) => Outcome::Timeout { limit: context.invocation.identity.timeout },
        Ok(Err(panic)) => panic_outcome(&*panic),
        Ok(Ok(Ok(outcome))) => outcome,
        Ok(Ok(Err(error))) => error_outcome(&error, context),
    }
}

/// Returns the outcome of a handler that was called without an event.
pub(super) fn no_event() -> Outcome {
    Outcome::Unavailable { message: "the function was called without an event".into() }
}

/// Returns the outcome of a handler that returned.
pub(super) fn handler_outcome(returned: Result<(), Failure>, context: &HostContext) -> Outcome {
    match returned {
        Ok(()) => Outcome::Done,
        Err(Failure::Reject(message)) => Outcome::Reject { message: sanitize(&message) },
        Err(Failure::Retry(retry)) => {
            let message = sanitize(&retry.message);
            limit_outcome(context, &message)
                .unwrap_or(Outcome::Retry { message, after: retry.after_ms.map(Duration::from_millis) })
        }
    }
}

/// Returns the outcome of a command that exited. The message is its last line on stderr.
pub(super) fn exit_outcome(code: i32, context: &HostContext) -> Outcome {
    if code == 0 {
        return Outcome::Done;
    }
    let message = context.attempt_log().last_on_stderr().unwrap_or_else(|| format!("exited with code {code}"));
    if code == REJECT_CODE {
        return Outcome::Reject { message };
    }
    limit_outcome(context, &message).unwrap_or(Outcome::Retry { message, after: None })
}

/// Returns the outcome of an instance that ended with an error.
fn error_outcome(error: &wasmtime::Error, context: &HostContext) -> Outcome {
    if error.is::<DeadlineReached>() {
        return Outcome::Timeout { limit: context.invocation.identity.timeout };
    }
    if let Some(refused) = error.downcast_ref::<LineRefused>() {
        return Outcome::Denied { message: sanitize(&refused.to_string()) };
    }
    let message = describe(error, context);
    if let Some(outcome) = limit_outcome(context, &message) {
        return outcome;
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Outcome::Unavailable { message };
    }
    Outcome::Trap { message }
}

/// Returns the outcome of an attempt during which the host panicked.
fn panic_outcome(panic: &(dyn Any + Send)) -> Outcome {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let message = format!("a bug in Evoke, not in the function: {}", text.unwrap_or("the host panicked"));
    tracing::error!(message, "an attempt panicked");
    Outcome::Unavailable { message }
}

/// Returns the outcome of a guest that failed after the host refused memory, a publish or a state operation. The
/// refusal is then reported as the cause.
fn limit_outcome(context: &HostContext, message: &str) -> Option<Outcome> {
    if context.limits.memory_denied() {
        return Some(Outcome::OutOfMemory { limit_bytes: context.invocation.identity.memory });
    }
    // A function may continue after a refused state operation and fail for another reason.
    match context.session.refused(message) {
        Some(Refusal::Quota(_)) => return Some(Outcome::Quota { message: message.to_owned() }),
        Some(Refusal::Limit(_)) => return Some(Outcome::Denied { message: message.to_owned() }),
        Some(Refusal::Store(_)) | None => {}
    }
    let refused = context.publisher()?.first_refusal()?;
    Some(Outcome::Denied { message: sanitize(&format!("{refused}; the function then ended with: {message}")) })
}

fn describe(error: &wasmtime::Error, context: &HostContext) -> String {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return format!("called exit({}); a handler must return instead", exit.0);
    }
    let reason = match (context.attempt_log().panic(), error.downcast_ref::<Trap>()) {
        (Some(panic), _) => panic,
        (None, Some(trap)) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        (None, None) => error.root_cause().to_string(),
    };
    let frames = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    sanitize(&if frames.is_empty() { reason } else { format!("{reason}, in {}", frames.join(" < ")) })
}

/// Returns the names of the innermost functions, demangled, without panic machinery and unnamed functions.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let is_noise = |name: &str| {
        [
            "<wasm function",
            "panicking::",
            "rust_panic",
            "rust_begin_unwind",
            "abort",
            "__rust",
            "sys::backtrace",
            "wasi:cli/run@",
        ]
        .iter()
        .any(|part| name.contains(part))
    };
    backtrace
        .to_string()
        .lines()
        .filter_map(|line| Some(line.split_once(" - ")?.1.split_once('!')?.1.to_owned()))
        .filter(|name| !is_noise(name))
        .take(FRAMES_MAX)
        .collect()
}

fn sanitize(text: &str) -> String {
    let escaped = escape_controls(text.as_bytes());
    match escaped.char_indices().find(|(at, _)| *at >= MESSAGE_BYTES_MAX) {
        Some((at, _)) => format!("{}…", escaped.split_at(at).0),
        None => escaped,
    }
}
