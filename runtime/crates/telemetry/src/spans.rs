//! The spans of an event's path through Evoke, with OpenTelemetry's semantic conventions for messaging and CloudEvents.
//!
//! An event's `traceparent` names the span that created the event. The event keeps this attribute unchanged, as the
//! CloudEvents extension "distributed tracing" requires of intermediaries. The store keeps the event with this
//! attribute, so the trace continues after a restart of Evoke.
//!
//! The bus starts a span `accept` for each event from outside (kind: server or producer). If the event arrived with a
//! `traceparent`, the root of the following tree is the span that this attribute names: the producer's span. The span
//! `accept` is then also a child of this root. Otherwise `accept` is the root, and the event gets the `traceparent` of
//! `accept`.
//!
//! ```text
//! the producer's span or `accept`
//! └─ process          one for each attempt (kind: consumer)
//!    └─ publish       one for each published event (kind: producer); the event gets the `traceparent` of this span
//!       └─ process …
//! ```

use std::borrow::Cow;
use std::str::FromStr as _;
use std::time::Duration;

use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
    Tracer as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SdkTracer, Span};

mod outbound;

use super::{Ingress, Refusal, Traceparent};
use evoke_model::event::Event;
use evoke_model::{Accepted, Verdict};
pub use outbound::{OutboundStart, TraceContext};

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// The maximum length of a text that a span copies from an event, and of the message of a span that failed, in bytes.
/// Producers and functions choose these texts, and a text can be as long as an event. Without the limit, thousands of
/// spans that wait for their export could fill the memory.
const TEXT_BYTES_MAX: usize = 1_024;

/// Starts spans, or does nothing when tracing is off; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<SdkTracer>);

/// A span that has not ended. The span ends when this value is dropped. The value is empty when tracing is off. The
/// span is boxed, because an attempt moves this value several times, and then moves only a pointer.
#[derive(Debug, Default)]
pub struct LiveSpan(Option<Box<Span>>);

/// The description of an attempt that starts.
#[derive(Debug, Clone, Copy)]
pub struct AttemptStart<'a> {
    /// The full name, `app/function`.
    pub function: &'a str,
    /// The delivery's id, which is the same for all attempts at the delivery.
    pub delivery_id: &'a str,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The name of the trigger that matched.
    pub trigger: &'a str,
    /// The event to deliver.
    pub event: &'a Event,
}

impl Spans {
    /// Returns a handle that starts spans with `tracer`, which samples and exports them.
    pub fn new(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// Returns true if tracing is on.
    pub fn is_enabled(&self) -> bool {
        self.0.is_some()
    }

    /// Starts the span of an event from outside, before the bus checks and stores the event.
    pub fn accept(&self, ingress: Ingress, event: &Event) -> LiveSpan {
        let kind = if ingress.is_request { SpanKind::Server } else { SpanKind::Producer };
        self.start(
            || format!("accept {}", cut(&event.type_)),
            kind,
            || parent_of(event),
            |span| {
                describe(span, event, "accept", None);
                span.set_attribute(KeyValue::new("evoke.ingress", ingress.name()));
            },
        )
    }

    /// Starts the span of an attempt.
    pub fn attempt(&self, start: &AttemptStart<'_>) -> LiveSpan {
        let AttemptStart { function, delivery_id, attempt, trigger, event } = *start;
        self.start(
            || format!("process {function}"),
            SpanKind::Consumer,
            || parent_of(event),
            |span| {
                describe(span, event, "process", Some("process"));
                span.set_attributes([
                    KeyValue::new("messaging.destination.subscription.name", function.to_owned()),
                    KeyValue::new("evoke.function", function.to_owned()),
                    KeyValue::new("evoke.delivery.id", delivery_id.to_owned()),
                    KeyValue::new("evoke.attempt", i64::from(attempt)),
                    KeyValue::new("evoke.trigger", trigger.to_owned()),
                ]);
            },
        )
    }

    /// Starts a span for each event that the attempt published, as a child of the attempt's span. Writes the trace
    /// context of the new span into the event. Must be called before the events are stored. If the function set a trace
    /// context of its own in an event, the event keeps that context and gets no span.
    pub fn publish(&self, attempt: &LiveSpan, cause: &Event, published: &mut [Event]) -> Vec<LiveSpan> {
        let Some(parent) = attempt.context() else { return Vec::new() };
        let mut spans = Vec::new();
        for event in published {
            // If the function only copied the trace context of its input event, the context is replaced.
            if event.extensions.get(PARENT) != cause.extensions.get(PARENT) && traceparent(event).is_some() {
                continue;
            }
            let name = || format!("publish {}", cut(&event.type_));
            let span = self.start(
                name,
                SpanKind::Producer,
                || Some(parent.clone()),
                |span| {
                    describe(span, event, "publish", Some("send"));
                },
            );
            span.write(event);
            spans.push(span);
        }
        spans
    }

    fn start(
        &self,
        name: impl FnOnce() -> String,
        kind: SpanKind,
        parent: impl FnOnce() -> Option<SpanContext>,
        describe: impl FnOnce(&mut Span),
    ) -> LiveSpan {
        let Some(tracer) = &self.0 else { return LiveSpan(None) };
        let context = parent().map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let mut span = tracer.span_builder(name()).with_kind(kind).start_with_context(tracer, &context);
        if span.is_recording() {
            describe(&mut span);
        }
        LiveSpan(Some(Box::new(span)))
    }
}

impl LiveSpan {
    /// Writes the trace context of this span into an event that has no valid context.
    pub fn inject_if_missing(&self, event: &mut Event) {
        if self.0.is_some() && traceparent(event).is_none() {
            self.write(event);
        }
    }

    /// Ends the span of an event that was accepted, as new or as a duplicate.
    pub fn accepted(mut self, accepted: Accepted) {
        let Some(span) = &mut self.0 else { return };
        let (outcome, seq) = match accepted {
            Accepted::New(seq) => ("new", seq),
            Accepted::Duplicate(seq) => ("duplicate", seq),
        };
        span.set_attributes([KeyValue::new("evoke.outcome", outcome), KeyValue::new("evoke.event.seq", seq.0)]);
    }

    /// Ends the span of an event that was refused.
    pub fn refused(mut self, reason: Refusal, message: &str) {
        self.failed(reason.name(), message);
    }

    /// Ends the span of an attempt, with the kind of its outcome and the decision that follows.
    pub fn ended(mut self, kind: &str, message: Option<&str>, verdict: &Verdict, took: Duration) {
        let Some(span) = self.0.as_mut().filter(|span| span.is_recording()) else { return };
        let follows = match verdict {
            Verdict::Done => "done",
            Verdict::RetryAt(_) => "retry",
            Verdict::Dead(_) => "dead",
        };
        span.set_attributes([
            KeyValue::new("evoke.outcome", kind.to_owned()),
            KeyValue::new("evoke.verdict", follows),
            KeyValue::new("evoke.duration", took.as_secs_f64()),
        ]);
        if *verdict != Verdict::Done {
            self.failed(kind.to_owned(), message.unwrap_or_default());
        }
    }

    /// Ends the span of an attempt that runs again, because it had read state that another attempt changed.
    pub fn conflicted(mut self) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("evoke.outcome", "conflict"));
        }
    }

    /// Ends the span of an attempt that is not counted: the request to the endpoint failed, and the delivery waits for
    /// the endpoint.
    pub fn not_counted(mut self) {
        self.failed("failed-probe", "the request to the endpoint failed; it is not counted as an attempt");
    }

    /// Ends the span of a published event that was not stored, because its attempt was not committed as done.
    pub fn not_published(mut self) {
        self.failed("not-committed", "the event was not stored: the publishing attempt was not committed as done");
    }

    fn failed(&mut self, error_type: impl Into<Cow<'static, str>>, message: &str) {
        let Some(span) = &mut self.0 else { return };
        span.set_attribute(KeyValue::new("error.type", error_type.into()));
        span.set_status(Status::error(cut(message).into_owned()));
    }

    /// Returns the context for child spans; `None` if tracing is off or the tracer has shut down.
    fn context(&self) -> Option<SpanContext> {
        self.0.as_ref().map(|span| span.span_context()).filter(|context| context.is_valid()).cloned()
    }

    fn write(&self, event: &mut Event) {
        let Some(context) = self.context() else { return };
        let traceparent = Traceparent {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        };
        event.extensions.insert(PARENT.to_owned(), traceparent.to_string());
        match context.trace_state().header() {
            empty if empty.is_empty() => event.extensions.remove(STATE),
            state => event.extensions.insert(STATE.to_owned(), state),
        };
    }
}

/// Cuts a text to [`TEXT_BYTES_MAX`], and marks the cut with `…`.
fn cut(text: &str) -> Cow<'_, str> {
    match text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)) {
        Some(start) if start.len() < text.len() => format!("{start}…").into(),
        _ => text.into(),
    }
}

/// Returns the `tracestate` of an event, or `None` if it is longer than [`TEXT_BYTES_MAX`]. W3C Trace Context, section
/// 3.3.1.5, recommends to pass on at least 512 characters, so a longer `tracestate` can be left out.
fn tracestate(event: &Event) -> Option<&String> {
    event.extensions.get(STATE).filter(|state| state.len() <= TEXT_BYTES_MAX)
}

/// Returns the trace context of an event, or `None` if it is missing or invalid.
fn traceparent(event: &Event) -> Option<Traceparent> {
    event.extensions.get(PARENT).and_then(|text| Traceparent::parse(text))
}

/// Returns the trace context of an event as a parent. A malformed `tracestate` is ignored (W3C Trace Context, section
/// 4.3).
fn parent_of(event: &Event) -> Option<SpanContext> {
    let Traceparent { trace_id, span_id, flags } = traceparent(event)?;
    let state = tracestate(event).and_then(|text| TraceState::from_str(text).ok()).unwrap_or_default();
    let (trace_id, span_id) = (TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id));
    Some(SpanContext::new(trace_id, span_id, TraceFlags::new(flags), true, state))
}

fn describe(span: &mut Span, event: &Event, operation: &'static str, kind: Option<&'static str>) {
    let [id, source, type_] = [&event.id, &event.source, &event.type_].map(|text| cut(text).into_owned());
    span.set_attributes([
        KeyValue::new("messaging.system", "evoke"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.destination.name", source.clone()),
        KeyValue::new("messaging.message.id", id.clone()),
        KeyValue::new("messaging.message.body.size", i64::try_from(event.data.as_bytes().len()).unwrap_or(i64::MAX)),
        KeyValue::new("cloudevents.event_id", id),
        KeyValue::new("cloudevents.event_source", source),
        KeyValue::new("cloudevents.event_spec_version", "1.0"),
        KeyValue::new("cloudevents.event_type", type_),
    ]);
    if let Some(kind) = kind {
        span.set_attribute(KeyValue::new("messaging.operation.type", kind));
    }
    if let Some(subject) = &event.subject {
        span.set_attribute(KeyValue::new("cloudevents.event_subject", cut(subject).into_owned()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::error::OTelSdkResult;
    use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanProcessor};

    use super::*;

    /// Keeps the statuses of ended spans.
    #[derive(Debug, Clone, Default)]
    struct Statuses(Arc<Mutex<Vec<Status>>>);

    impl SpanProcessor for Statuses {
        fn on_start(&self, _: &mut Span, _: &Context) {}
        fn on_end(&self, span: SpanData) {
            self.0.lock().unwrap().push(span.status);
        }
        fn force_flush(&self) -> OTelSdkResult {
            Ok(())
        }
        fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
            Ok(())
        }
    }

    #[test]
    fn the_message_of_a_failed_span_is_cut() {
        let statuses = Statuses::default();
        let provider = SdkTracerProvider::builder().with_span_processor(statuses.clone()).build();
        let spans = Spans::new(provider.tracer("test"));
        let long = "x".repeat(400 * 1024);
        let start = OutboundStart { method: "GET", host: "a.example", port: None };
        spans.outbound(&start, None).ended("trap", Some(&long), &Verdict::Dead(String::new()), Duration::ZERO);
        spans.outbound(&start, None).failed_to_send("dns", &long);
        spans.outbound(&start, None).refused(Refusal::Invalid, &long);
        let expected = Status::error(format!("{}…", "x".repeat(TEXT_BYTES_MAX)));
        assert_eq!(*statuses.0.lock().unwrap(), [expected.clone(), expected.clone(), expected]);
    }
}
