//! Metrics of the functions that run deliveries.

use std::sync::Arc;
use std::time::Duration;

use super::{Counter, Histogram};
use evoke_model::Verdict;
use evoke_model::outcome::Outcome;

/// The metrics of one function.
#[derive(Debug)]
pub struct FunctionMetrics {
    /// The full name, `app/function`.
    pub name: Arc<str>,
    /// Ended attempts: one counter for each kind in [`Outcome::KINDS`], in the same order.
    pub(super) attempts: [Counter; Outcome::KINDS.len()],
    /// Deliveries that ended as done.
    pub done: Counter,
    /// Failed attempts after which the delivery waits for a retry.
    pub retried: Counter,
    /// Deliveries that became dead letters.
    pub dead: Counter,
    /// Runs that were discarded and repeated, because they had read state that another attempt changed.
    pub conflicts: Counter,
    /// Failed requests that tested the function's endpoint while the circuit was open. They do not count as attempts.
    pub failed_probes: Counter,
    /// Events that the function published in attempts that ended as done.
    pub published: Counter,
    /// Durations of attempts.
    pub duration: Histogram,
    /// Time from an event's acceptance to the start of the first attempt, with millisecond precision.
    pub wait: Histogram,
    /// Time from an event's acceptance to the end of the attempt that completed its delivery, with millisecond
    /// precision.
    pub latency: Histogram,
}

impl FunctionMetrics {
    /// Creates the metrics of a function, all zero.
    pub fn new(name: Arc<str>) -> Self {
        Self {
            name,
            attempts: Default::default(),
            done: Counter::default(),
            retried: Counter::default(),
            dead: Counter::default(),
            conflicts: Counter::default(),
            failed_probes: Counter::default(),
            published: Counter::default(),
            duration: Histogram::for_durations(),
            wait: Histogram::for_waits(),
            latency: Histogram::for_waits(),
        }
    }

    /// Counts an ended attempt.
    pub fn attempt_ended(&self, end: &AttemptEnd<'_>) {
        let kind = Outcome::KINDS.iter().position(|kind| *kind == end.outcome);
        let counter = kind.and_then(|at| self.attempts.get(at));
        if let Some(counter) = counter {
            counter.increment();
        }
        self.duration.observe(end.took);
        if let Some(waited) = end.waited {
            self.wait.observe(waited);
        }
        match end.verdict {
            Verdict::Done => {
                self.done.increment();
                self.latency.observe(end.since_accepted);
                if end.published > 0 {
                    self.published.add(end.published as u64);
                }
            }
            Verdict::RetryAt(_) => self.retried.increment(),
            Verdict::Dead(_) => self.dead.increment(),
        }
    }
}

/// An ended attempt, as counted by [`FunctionMetrics`].
#[derive(Debug, Clone, Copy)]
pub struct AttemptEnd<'a> {
    /// The kind of the outcome, from [`Outcome::kind`].
    pub outcome: &'a str,
    /// The decision that follows from the outcome: the delivery is done, is retried, or becomes a dead letter.
    pub verdict: &'a Verdict,
    /// The duration of the attempt.
    pub took: Duration,
    /// Time from the event's acceptance to the start of the attempt. `None` for an attempt that is not the first of its
    /// delivery.
    pub waited: Option<Duration>,
    /// Time from the event's acceptance to the attempt's end.
    pub since_accepted: Duration,
    /// The number of events that the attempt published.
    pub published: usize,
}
