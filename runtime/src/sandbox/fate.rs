//! How an attempt that did not succeed is told.

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
use super::host::State;
use super::log::harmless;
use super::state::Refusal;
use crate::outcome::Outcome;

/// Of a backtrace, the frames that are told.
const FRAMES_MAX: usize = 3;
/// The exit code of a command that will never be able to handle its event: EX_DATAERR of sysexits.h.
const REJECT_CODE: i32 = 65;
/// The longest message of a guest that is kept.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// The guest computed past its deadline.
#[derive(Debug, thiserror::Error)]
#[error("the deadline is reached")]
pub(super) struct DeadlineReached;

/// What a guest came to: nothing in time, a panic of the host, or its own end.
pub(super) type Ended = Result<Result<wasmtime::Result<Outcome>, Box<dyn Any + Send>>, Elapsed>;

/// Runs a guest for at most `limit`. Most end the first time they are polled, and never need a timer. It stays where
/// it was pinned: a guest's future has kilobytes.
pub(super) async fn within(limit: Duration, guest: Pin<&mut impl Future<Output = wasmtime::Result<Outcome>>>) -> Ended {
    let mut guest = AssertUnwindSafe(guest).catch_unwind();
    match futures_util::poll!(&mut guest) {
        Poll::Ready(ended) => Ok(ended),
        Poll::Pending => tokio::time::timeout(limit, guest).await,
    }
}

/// How a guest ended, by its `timeout`, by a panic of the host, or by itself.
pub(super) fn ended(ended: Ended, state: &State) -> Outcome {
    match ended {
        Err(_) => Outcome::Timeout { limit: state.work.identity.timeout },
        Ok(Err(panic)) => panicked(&*panic),
        Ok(Ok(Ok(outcome))) => outcome,
        Ok(Ok(Err(error))) => trapped(&error, state),
    }
}

/// There is nothing that a handler could be given.
pub(super) fn no_event() -> Outcome {
    Outcome::Unavailable { message: "there is no event to handle".into() }
}

/// The function returned.
pub(super) fn handled(handled: Result<(), Failure>, state: &State) -> Outcome {
    match handled {
        Ok(()) => Outcome::Done,
        Err(Failure::Reject(message)) => Outcome::Reject { message: bounded(&message) },
        Err(Failure::Retry(retry)) => {
            let message = bounded(&retry.message);
            cause_in_limits(state, &message)
                .unwrap_or(Outcome::Retry { message, after: retry.after_ms.map(Duration::from_millis) })
        }
    }
}

/// A command ended by itself. Its message is its last line on stderr.
pub(super) fn exited(code: i32, state: &State) -> Outcome {
    if code == 0 {
        return Outcome::Done;
    }
    let message = state.attempt_log().last_on_stderr().unwrap_or_else(|| format!("exited with code {code}"));
    if code == REJECT_CODE {
        return Outcome::Reject { message };
    }
    cause_in_limits(state, &message).unwrap_or(Outcome::Retry { message, after: None })
}

/// The instance ended with an error.
fn trapped(error: &wasmtime::Error, state: &State) -> Outcome {
    if error.is::<DeadlineReached>() {
        return Outcome::Timeout { limit: state.work.identity.timeout };
    }
    if let Some(refused) = error.downcast_ref::<LineRefused>() {
        return Outcome::Denied { message: bounded(&refused.to_string()) };
    }
    let message = describe(error, state);
    if let Some(outcome) = cause_in_limits(state, &message) {
        return outcome;
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Outcome::Unavailable { message };
    }
    Outcome::Trap { message }
}

/// The host itself panicked while it served the guest.
fn panicked(panic: &(dyn Any + Send)) -> Outcome {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let message = format!("a fault in Evoke, not in the function: {}", text.unwrap_or("it panicked"));
    tracing::error!(message, "an attempt panicked");
    Outcome::Unavailable { message }
}

/// A guest that fails after it was refused memory, a publish or state fails for that: the refusal is what has to be
/// told.
fn cause_in_limits(state: &State, message: &str) -> Option<Outcome> {
    if state.limits.memory_denied() {
        return Some(Outcome::OutOfMemory { limit_bytes: state.work.identity.memory });
    }
    // A function may well go on without what it cannot keep, and fail for something else.
    match state.session.refused(message) {
        Some(Refusal::Quota(_)) => return Some(Outcome::Quota { message: message.to_owned() }),
        Some(Refusal::Bound(_)) => return Some(Outcome::Denied { message: message.to_owned() }),
        Some(Refusal::Store(_)) | None => {}
    }
    let refused = state.publisher()?.refused()?;
    Some(Outcome::Denied { message: bounded(&format!("{refused}; the function then ended with: {message}")) })
}

fn describe(error: &wasmtime::Error, state: &State) -> String {
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return format!("called exit({}); a handler returns instead", exit.0);
    }
    let reason = match (state.attempt_log().panic(), error.downcast_ref::<Trap>()) {
        (Some(panic), _) => panic,
        (None, Some(trap)) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        (None, None) => error.root_cause().to_string(),
    };
    let frames = error.downcast_ref::<WasmBacktrace>().map(frames).unwrap_or_default();
    bounded(&if frames.is_empty() { reason } else { format!("{reason}, in {}", frames.join(" < ")) })
}

/// The innermost functions, demangled, without those of a panic's own machinery and those without a name.
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

fn bounded(text: &str) -> String {
    let harmless = harmless(text.as_bytes());
    match harmless.char_indices().find(|(at, _)| *at >= MESSAGE_BYTES_MAX) {
        Some((at, _)) => format!("{}…", harmless.split_at(at).0),
        None => harmless,
    }
}
