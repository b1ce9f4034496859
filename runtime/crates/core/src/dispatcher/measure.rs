//! Metrics and tracing of an attempt.

use std::time::Duration;

use super::Call;
use evoke_model::clock::UnixMs;
use evoke_model::event::Event;
use evoke_model::{Completion, ReadyDelivery, Verdict};
use evoke_telemetry::{AttemptEnd, AttemptStart, FunctionMetrics, LiveSpan, Spans, TraceContext};

/// The measurement of one run of a function. The measurement is kept until the result of the run is final. For an
/// attempt that used state, the result is final only at the commit: until then, a conflict can discard the run.
#[derive(Debug)]
pub(super) struct Measurement {
    /// The store time of the event's acceptance.
    accepted_ms: UnixMs,
    /// The store time of the end of the run.
    ended_ms: UnixMs,
    span: LiveSpan,
    /// The spans of the events that the attempt publishes.
    publishing: Vec<LiveSpan>,
}

impl Measurement {
    pub(super) fn start(spans: &Spans, function: &str, delivery: &ReadyDelivery, call: &Call) -> Self {
        let Call { delivery_id, attempt, trigger, event, .. } = call;
        let span = spans.attempt(&AttemptStart { function, delivery_id, attempt: *attempt, trigger, event });
        let accepted_ms = delivery.event.as_ref().map_or(delivery.since_ms, |stored| stored.accepted_ms);
        Self { accepted_ms, ended_ms: accepted_ms, span, publishing: Vec::new() }
    }

    /// Records that the run has ended, at this store time.
    pub(super) fn ran(&mut self, ended_ms: UnixMs) {
        self.ended_ms = ended_ms;
    }

    /// Returns the trace context of the run; `None` if tracing is off.
    pub(super) fn trace_context(&self) -> Option<TraceContext> {
        self.span.trace_context()
    }

    /// Starts a span for each published event and writes the trace context into the event.
    pub(super) fn publishes(&mut self, spans: &Spans, cause: &Event, events: &mut [Event]) {
        self.publishing = spans.publish(&self.span, cause, events);
    }

    /// Records the end of the attempt in the metrics and ends its spans.
    pub(super) fn ended(self, metrics: &FunctionMetrics, completion: &Completion) {
        let Completion { record, verdict, publishes, .. } = completion;
        let took = Duration::from_micros(record.duration_us);
        // The wait is the time from the acceptance of the event until the run began. It is computed from the end of the
        // run, because the run can begin long after the call of `start`: a function must wait if other functions use
        // all processors.
        let since_accepted = between(self.accepted_ms, self.ended_ms).max(took);
        let waited = since_accepted.saturating_sub(took);
        metrics.attempt_ended(&AttemptEnd {
            outcome: &record.outcome,
            verdict,
            took,
            waited: (record.attempt == 1).then_some(waited),
            since_accepted,
            // A failed attempt publishes nothing, although its completion may contain a runtime event.
            published: if *verdict == Verdict::Done { publishes.len() } else { 0 },
        });
        if *verdict != Verdict::Done {
            self.publishing.into_iter().for_each(LiveSpan::not_published);
        }
        self.span.ended(&record.outcome, record.message.as_deref(), verdict, took);
    }

    /// Ends the spans of an attempt that does not count: a probe of the endpoint failed, or the endpoint is gone.
    pub(super) fn uncounted(self) {
        self.span.not_counted();
    }

    /// Records that the run was discarded because of a conflict, and ends its spans. The function runs again.
    pub(super) fn runs_again(self, metrics: &FunctionMetrics) {
        metrics.conflicts.increment();
        self.publishing.into_iter().for_each(LiveSpan::not_published);
        self.span.conflicted();
    }
}

/// Returns the time from `start_ms` to `end_ms`; zero if `end_ms` is earlier. That can happen for a replayed event: the
/// time of its acceptance can be that of the wall clock, but the end of the attempt is a store time.
fn between(start_ms: UnixMs, end_ms: UnixMs) -> Duration {
    Duration::from_millis(u64::try_from(end_ms - start_ms).unwrap_or_default())
}
