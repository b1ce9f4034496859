//! The health of functions. A function is failing after several failed attempts in a row, counted over all its
//! deliveries.

use foldhash::HashMap;

use super::Dispatcher;
use super::function::Function;
use crate::runtime_events::{self, FAILING_ATTEMPTS};
use evoke_model::clock::UnixMs;
use evoke_model::outcome::Outcome;
use evoke_model::{AttemptRecord, Completion, DeliveryId, FunctionId, Verdict};

/// A function that is failing: at least [`FAILING_ATTEMPTS`] attempts in a row failed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Failing {
    /// When the function started to fail.
    pub since_ms: UnixMs,
    /// The number of failed attempts in a row. 0 if they all failed before this process started, because the number is
    /// then unknown.
    pub attempts: u32,
    /// The delivery of the last failed attempt.
    pub delivery: DeliveryId,
    /// The outcome kind of the last failed attempt.
    pub outcome: String,
    /// The error message of the last failed attempt.
    pub message: Option<String>,
}

/// The last failed attempt of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastFailure {
    /// When the attempt started, by the wall clock.
    pub at_ms: UnixMs,
    /// The delivery of the attempt.
    pub delivery: DeliveryId,
    /// The outcome kind of the attempt.
    pub outcome: String,
    /// The error message of the attempt.
    pub message: Option<String>,
}

/// Counts the failed attempts of a function in a row.
#[derive(Default)]
pub(super) struct Streak {
    /// The number of failed attempts since the last success.
    failed: u32,
    failing: Option<Failing>,
}

impl Streak {
    /// Restores the streak of a function that was failing before this process started.
    pub(super) fn failing_since(since_ms: UnixMs) -> Self {
        Self { failed: FAILING_ATTEMPTS, failing: Some(Failing { since_ms, ..Failing::default() }) }
    }

    pub(super) fn failing(&self) -> Option<&Failing> {
        self.failing.as_ref()
    }

    /// Returns true if an attempt has failed since the last success.
    pub(super) fn has_failures(&self) -> bool {
        self.failed > 0
    }

    /// Records a successful attempt. Returns true if the function was failing until now.
    pub(super) fn succeeded(&mut self) -> bool {
        self.failed = 0;
        self.failing.take().is_some()
    }

    /// Records a failed attempt. Returns true if the function is failing from now on.
    pub(super) fn failed(&mut self, delivery: DeliveryId, record: &AttemptRecord, now_ms: UnixMs) -> bool {
        self.failed = self.failed.saturating_add(1);
        if self.failed < FAILING_ATTEMPTS {
            return false;
        }
        let since_ms = self.failing.as_ref().map(|failing| failing.since_ms);
        self.failing = Some(Failing {
            since_ms: since_ms.unwrap_or(now_ms),
            attempts: self.failed,
            delivery,
            outcome: record.outcome.clone().into_owned(),
            message: record.message.clone(),
        });
        since_ms.is_none()
    }
}

impl Dispatcher {
    /// Returns the functions that are failing.
    pub fn failing(&self) -> HashMap<FunctionId, Failing> {
        let failing = |(id, function): (&FunctionId, &Function)| Some((*id, function.streak.failing()?.clone()));
        self.lock().functions.iter().filter_map(failing).collect()
    }

    /// Returns the last failed attempt of each function since this process started.
    pub fn last_failures(&self) -> HashMap<FunctionId, LastFailure> {
        let failure = |(id, function): (&FunctionId, &Function)| Some((*id, function.last_failure.clone()?));
        self.lock().functions.iter().filter_map(failure).collect()
    }

    /// Restores the functions that were failing before this process started. `since_ms` maps the full name of each
    /// function to the time when it started to fail. Each function counts as failing until one of its attempts
    /// succeeds. Call this before [`Dispatcher::set_functions`].
    pub fn restore_failing(&self, since_ms: HashMap<String, UnixMs>) {
        self.lock().was_failing = since_ms;
    }

    /// Waits until a function starts or stops failing, a circuit opens or closes, or an endpoint turns out to be gone
    /// for good. Only one task may wait.
    pub async fn health_changed(&self) {
        self.0.health.notified().await;
    }

    /// Updates the function's failure streak after an attempt. Attempts are processed in the order of their commits.
    pub(super) fn update_health(&self, function: &mut Function, completion: &Completion) {
        let is_done = completion.verdict == Verdict::Done;
        if !is_done {
            let AttemptRecord { started_ms, outcome, message, .. } = &completion.record;
            function.last_failure = Some(LastFailure {
                at_ms: *started_ms,
                delivery: completion.delivery,
                outcome: outcome.clone().into_owned(),
                message: message.clone(),
            });
        }
        let streak = &mut function.streak;
        if is_done && !streak.has_failures() {
            return;
        }
        // A delivery that a runtime event caused does not count: the report of its failure would be another runtime
        // event, whose delivery could fail, too. The outcomes `damaged` and `crashed` do not count, because the
        // function did not run.
        if completion.origin == runtime_events::origin()
            || [Outcome::DAMAGED, Outcome::CRASHED].contains(&&*completion.record.outcome)
        {
            return;
        }
        let has_changed = if is_done {
            streak.succeeded()
        } else {
            streak.failed(completion.delivery, &completion.record, self.0.clock.now_ms())
        };
        if has_changed {
            self.0.health.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(streak: &mut Streak, now_ms: UnixMs) -> bool {
        let message = Some("gateway down".to_owned());
        let record = AttemptRecord { attempt: 1, started_ms: 0, duration_us: 0, outcome: "retry".into(), message };
        streak.failed(DeliveryId(now_ms), &record, now_ms)
    }

    #[test]
    fn a_function_is_failing_from_the_fifth_failure_in_a_row_to_the_next_success() {
        let mut streak = Streak::default();
        for n in 1..=20 {
            assert_eq!(fail(&mut streak, n), n == 5, "{n}");
        }
        let failing = streak.failing().cloned().unwrap_or_default();
        assert_eq!((failing.since_ms, failing.attempts, failing.delivery), (5, 20, DeliveryId(20)));
        assert_eq!((failing.outcome.as_str(), failing.message.as_deref()), ("retry", Some("gateway down")));
        assert!(streak.succeeded());
        assert!(!streak.succeeded() && !streak.has_failures() && streak.failing().is_none());
    }

    #[test]
    fn a_success_resets_the_count() {
        let mut streak = Streak::default();
        for _ in 0..10 {
            assert!((1..5).all(|n| !fail(&mut streak, n)));
            assert!(!streak.succeeded());
        }
    }

    #[test]
    fn a_function_that_was_failing_before_the_start_is_still_failing() {
        let mut streak = Streak::failing_since(7);
        assert!(!fail(&mut streak, 9), "it was failing already");
        assert_eq!(streak.failing().map(|failing| failing.since_ms), Some(7));
        assert!(streak.succeeded());
    }
}
