//! What is counted and traced of an attempt.

use std::time::Duration;

use super::Call;
use crate::clock::UnixMs;
use crate::event::Event;
use crate::store::{Completion, ReadyDelivery, Verdict};
use crate::telemetry::{AttemptEnd, AttemptStart, FunctionMetrics, LiveSpan, Spans};

/// One run of a function, until it is known what became of it: an attempt with state may be in conflict with another
/// until it is committed.
#[derive(Debug)]
pub(super) struct Measured {
    accepted_ms: UnixMs,
    span: LiveSpan,
    /// Of the events that it publishes.
    publishing: Vec<LiveSpan>,
}

impl Measured {
    pub(super) fn start(spans: &Spans, function: &str, delivery: &ReadyDelivery, call: &Call) -> Self {
        let Call { delivery_id, attempt, trigger, event, .. } = call;
        let span = spans.attempt(&AttemptStart { function, delivery_id, attempt: *attempt, trigger, event });
        Self { accepted_ms: delivery.event.accepted_ms, span, publishing: Vec::new() }
    }

    /// Gives what the function published its place in the trace.
    pub(super) fn publishes(&mut self, spans: &Spans, delivery: &ReadyDelivery, events: &mut [Event]) {
        self.publishing = spans.publish(&self.span, &delivery.event.event, events);
    }

    /// It ended like this.
    pub(super) fn ended(self, metrics: &FunctionMetrics, completion: &Completion) {
        let Completion { record, verdict, publishes, .. } = completion;
        let took = Duration::from_micros(record.duration_us);
        let waited = between(self.accepted_ms, record.started_ms);
        metrics.attempt_ended(&AttemptEnd {
            outcome: &record.outcome,
            verdict,
            took,
            waited: (record.attempt == 1).then_some(waited),
            since_accepted: waited + took,
            // What goes with a failure is the runtime's own.
            published: if *verdict == Verdict::Done { publishes.len() } else { 0 },
        });
        if *verdict != Verdict::Done {
            self.publishing.into_iter().for_each(LiveSpan::not_published);
        }
        self.span.ended(&record.outcome, record.message.as_deref(), verdict, took);
    }

    /// It read what another changed: nothing is kept of it, and the function runs again.
    pub(super) fn runs_again(self, metrics: &FunctionMetrics) {
        metrics.conflicts.increment();
        self.publishing.into_iter().for_each(LiveSpan::not_published);
        self.span.conflicted();
    }
}

/// Nothing when the clock was set back meanwhile.
fn between(start_ms: UnixMs, end_ms: UnixMs) -> Duration {
    Duration::from_millis(u64::try_from(end_ms - start_ms).unwrap_or_default())
}
