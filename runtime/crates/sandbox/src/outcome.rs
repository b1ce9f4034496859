//! Maps how a guest ended to an `Outcome`.

use std::any::Any;
use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::error::Elapsed;
use wasmtime::{FrameInfo, PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use super::budget::DeadlineReached;
use super::context::HostContext;
use super::event_lines::LineRefused;
use super::log::escape_controls;
use super::refusal::Refusal;
use super::secrets::Redactor;
use super::symbol;
use evoke_model::outcome::Outcome;

/// Number of backtrace frames in a message.
const FRAMES_MAX: usize = 3;
/// Length limit of a guest's message, in bytes; longer messages are cut.
const MESSAGE_BYTES_MAX: usize = 4 * 1024;

/// How a guest ended: by the time-out (`Elapsed`), by a panic of the host, or by itself.
pub(super) type GuestResult = Result<Result<wasmtime::Result<Outcome>, Box<dyn Any + Send>>, Elapsed>;

/// Runs a guest for at most `limit`. Most guests end on the first poll and never need a timer. The caller pins the
/// future, because moving it would copy several kilobytes.
pub(super) async fn within(
    limit: Duration,
    guest: Pin<&mut impl Future<Output = wasmtime::Result<Outcome>>>,
) -> GuestResult {
    let mut guest = AssertUnwindSafe(guest).catch_unwind();
    if let Poll::Ready(ended) = futures_util::poll!(&mut guest) {
        return Ok(ended);
    }
    // The guest was just polled, so the first poll here polls only the timer. Later polls mean that the guest or the
    // timer woke the task.
    let mut timer = pin!(tokio::time::timeout(limit, pending::<Infallible>()));
    let mut is_woken = false;
    poll_fn(|context| {
        if std::mem::replace(&mut is_woken, true)
            && let Poll::Ready(ended) = guest.poll_unpin(context)
        {
            return Poll::Ready(Ok(ended));
        }
        timer.as_mut().poll(context).map(|Err(elapsed)| Err(elapsed))
    })
    .await
}

pub(super) fn to_outcome(result: GuestResult, context: &HostContext) -> Outcome {
    match result {
        Err(_) => Outcome::Timeout { limit: context.invocation.identity.timeout },
        Ok(Err(panic)) => panic_outcome(&*panic, context.invocation.redactor()),
        Ok(Ok(Ok(outcome))) => outcome,
        Ok(Ok(Err(error))) => error_outcome(&error, context),
    }
}

fn error_outcome(error: &wasmtime::Error, context: &HostContext) -> Outcome {
    if error.is::<DeadlineReached>() {
        return Outcome::Timeout { limit: context.invocation.identity.timeout };
    }
    if let Some(refused) = error.downcast_ref::<LineRefused>() {
        return Outcome::Denied { message: sanitize(context.invocation.redactor(), &refused.to_string()) };
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

fn panic_outcome(panic: &(dyn Any + Send), redactor: &Redactor) -> Outcome {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("the host panicked");
    // The text may quote the guest.
    let message = sanitize(redactor, &format!("a bug in Evoke, not in the function: {text}"));
    tracing::error!(message, "the host panicked during an attempt");
    Outcome::Unavailable { message }
}

/// Returns the outcome of a guest that failed with this message after the host refused memory or a call. The refusal
/// then counts as the cause of the failure. Returns `None` if the host refused nothing.
pub(super) fn limit_outcome(context: &HostContext, message: &str) -> Option<Outcome> {
    if context.limits.memory_denied() {
        return Some(Outcome::OutOfMemory { limit_bytes: context.invocation.identity.memory });
    }
    let refusal = context.refusals.cause()?;
    let reason = refusal.reason();
    let message = if message.contains(reason) {
        message.to_owned()
    } else {
        sanitize(context.invocation.redactor(), &format!("{reason}; the function then ended with: {message}"))
    };
    Some(match refusal {
        Refusal::Denied(_) => Outcome::Denied { message },
        Refusal::Quota(_) => Outcome::Quota { message },
    })
}

fn describe(error: &wasmtime::Error, context: &HostContext) -> String {
    let exit = error.downcast_ref::<I32Exit>();
    let reason = match (context.invocation.log().panic(), exit, error.downcast_ref::<Trap>()) {
        (Some(panic), ..) => panic,
        (None, Some(exit), _) => format!("called exit({}); a handler must return instead", exit.0),
        (None, None, Some(trap)) => trap.to_string().trim_start_matches("wasm trap: ").to_owned(),
        (None, None, None) => error.root_cause().to_string(),
    };
    // The functions that called `exit` say nothing about the reason.
    let backtrace = error.downcast_ref::<WasmBacktrace>().filter(|_| exit.is_none());
    let frames = backtrace.map(frames).unwrap_or_default();
    let text = if frames.is_empty() { reason } else { format!("{reason}, in {}", frames.join(" < ")) };
    sanitize(context.invocation.redactor(), &text)
}

/// Returns the names of the innermost functions, demangled, without unnamed functions and those that handle panics.
/// wasmtime's own text of a backtrace is not used, because names in it can have any length.
fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let is_noise = |name: &str| {
        ["panicking::", "rust_panic", "rust_begin_unwind", "abort", "__rust", "sys::backtrace", "wasi:cli/run@"]
            .iter()
            .any(|part| name.contains(part))
    };
    let names = backtrace.frames().iter().filter_map(FrameInfo::func_name).map(symbol::readable);
    names.filter(|name| !is_noise(name)).take(FRAMES_MAX).collect()
}

/// Replaces the values of secrets, escapes control characters, and cuts the text to a bounded length.
pub(super) fn sanitize(redactor: &Redactor, text: &str) -> String {
    // The text is redacted before it is cut, because a cut could leave a part of a secret. One character more than the
    // limit is kept, to show below that the text continues.
    let (text, _) = redactor.redact_start(text, MESSAGE_BYTES_MAX + '…'.len_utf8() + 1);
    // The text is cut before it is escaped, to bound the work. It is cut again afterwards, because escaping makes it
    // longer.
    let start = text.get(..text.floor_char_boundary(MESSAGE_BYTES_MAX)).unwrap_or(&text);
    let escaped = escape_controls(start.as_bytes());
    match escaped.get(..escaped.floor_char_boundary(MESSAGE_BYTES_MAX)) {
        Some(cut) if cut.len() < escaped.len() || start.len() < text.len() => format!("{cut}…"),
        _ => escaped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failure_after_a_refused_call_has_the_refusal_as_its_cause() {
        let mut context = HostContext::for_test();
        assert_eq!(limit_outcome(&context, "gateway down"), None);

        context.refusals.record_state(Some(Refusal::Quota("the bucket is full".into())));
        let quota = |message: &str| Some(Outcome::Quota { message: message.into() });
        let expected = "the bucket is full; the function then ended with: cannot save the cart";
        assert_eq!(limit_outcome(&context, "cannot save the cart"), quota(expected));
        assert_eq!(limit_outcome(&context, "state: the bucket is full"), quota("state: the bucket is full"));

        context.refusals.record_state(None);
        context.refusals.record_publish(Refusal::Denied("no grant".into()));
        let message = "no grant; the function then ended with: gateway down".into();
        assert_eq!(limit_outcome(&context, "gateway down"), Some(Outcome::Denied { message }));
    }
}
