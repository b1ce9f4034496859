//! What is counted and traced of an attempt.

use std::time::Duration;

use super::{Call, Inner};
use crate::clock::UnixMs;
use crate::event::Event;
use crate::outcome::Outcome;
use crate::store::{ReadyDelivery, Verdict};
use crate::telemetry::{Attempted, Attempting, FunctionMetrics, Live};

/// One run of a function, until it is known what became of it.
pub(super) struct Measured<'a> {
    inner: &'a Inner,
    metrics: &'a FunctionMetrics,
    delivery: &'a ReadyDelivery,
    started_ms: UnixMs,
    /// How long the function ran.
    pub(super) took: Duration,
    span: Live,
    /// Of the events that it publishes.
    publishing: Vec<Live>,
}

impl<'a> Measured<'a> {
    pub(super) fn start(
        inner: &'a Inner,
        metrics: &'a FunctionMetrics,
        delivery: &'a ReadyDelivery,
        call: &Call,
        started_ms: UnixMs,
    ) -> Self {
        let span = inner.bus.spans().attempt(&Attempting {
            function: &metrics.name,
            delivery_id: &call.delivery_id,
            attempt: call.attempt,
            trigger: &call.trigger,
            event: &call.event,
        });
        Self { inner, metrics, delivery, started_ms, took: Duration::ZERO, span, publishing: Vec::new() }
    }

    /// Gives what the function published its place in the trace.
    pub(super) fn publishes(&mut self, events: &mut [Event]) {
        self.publishing = self.inner.bus.spans().publish(&self.span, &self.delivery.event.event, events);
    }

    /// It ended like this, with so many published events.
    pub(super) fn ended(self, outcome: &Outcome, verdict: &Verdict, published: usize) {
        let accepted_ms = self.delivery.event.accepted_ms;
        self.metrics.attempted(&Attempted {
            outcome,
            verdict,
            took: self.took,
            waited: (self.delivery.attempts == 0).then(|| between(accepted_ms, self.started_ms)),
            since_accepted: between(accepted_ms, self.inner.clock.now_ms()),
            published,
        });
        if *outcome != Outcome::Done {
            self.publishing.into_iter().for_each(Live::not_published);
        }
        self.span.ended(outcome, verdict, self.took);
    }

    /// It read what another changed: nothing is kept of it, and the function runs again.
    pub(super) fn runs_again(self) {
        self.metrics.conflicts.increment();
        self.publishing.into_iter().for_each(Live::not_published);
        self.span.conflicted();
    }
}

/// Nothing when the clock was set back meanwhile.
fn between(start_ms: UnixMs, end_ms: UnixMs) -> Duration {
    Duration::from_millis(u64::try_from(end_ms - start_ms).unwrap_or_default())
}
