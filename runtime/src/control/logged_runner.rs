//! Logs each failed attempt of a function, in the log of the function.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use evoke_core::dispatcher::{AttemptResult, Call, CircuitPolicy, Runner};
use evoke_model::clock::Clock;
use evoke_model::outcome::Outcome;
use evoke_model::text::is_deceptive;
use evoke_sandbox::{Level, LogLine, LogSink};

/// The start of each line about a failed attempt.
pub const FAILED: &str = "the attempt failed: ";
/// Maximum number of characters of a line; the record of the attempt has the full message.
const CHARS_MAX: usize = 2_000;

/// A runner that logs a line when an attempt fails.
pub(super) struct LoggedRunner {
    pub(super) runner: Arc<dyn Runner>,
    /// `app/function`.
    pub(super) function: Arc<str>,
    pub(super) logs: LogSink,
    pub(super) clock: Clock,
}

impl Runner for LoggedRunner {
    fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult> {
        let (delivery_id, attempt) = (Arc::<str>::from(call.delivery_id.as_str()), call.attempt);
        async move {
            let result = self.runner.run(call).await;
            if result.outcome != Outcome::Done {
                let (function, at_ms) = (self.function.clone(), self.clock.now_ms());
                let text = describe(&result.outcome);
                (self.logs)(LogLine { level: Level::Error, function, delivery_id, attempt, text, at_ms });
            }
            result
        }
        .boxed()
    }

    fn circuit(&self) -> Option<CircuitPolicy> {
        self.runner.circuit()
    }
}

/// Returns the kind of the outcome and the first line of its message. Control characters are escaped.
fn describe(outcome: &Outcome) -> String {
    let mut text = format!("{FAILED}{}", outcome.kind());
    let message = outcome.message().unwrap_or_default();
    let mut lines = message.lines();
    if let Some(first) = lines.next() {
        text += ": ";
        for char in first.chars().take(CHARS_MAX) {
            match is_deceptive(char) {
                true => text.extend(char.escape_unicode()),
                false => text.push(char),
            }
        }
        if lines.next().is_some() || first.chars().nth(CHARS_MAX).is_some() {
            text += " …";
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_bounded_line() {
        let reject = |message: &str| describe(&Outcome::Reject { message: message.to_owned() });
        assert_eq!(reject("no total"), "the attempt failed: reject: no total");
        assert_eq!(reject("first\nsecond"), "the attempt failed: reject: first …");
        assert_eq!(reject("a\u{1b}[31m"), "the attempt failed: reject: a\\u{1b}[31m");
        assert_eq!(reject(&"x".repeat(5_000)).chars().count(), "the attempt failed: reject:  …".len() - 2 + 2_000);
    }
}
