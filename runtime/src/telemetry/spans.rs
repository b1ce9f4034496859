//! The spans of an event's way, with OpenTelemetry's semantic conventions for messaging and CloudEvents.
//!
//! An event's `traceparent` says whose span made it. It is carried in the event and never rewritten, as the CloudEvents
//! extension "distributed tracing" demands of those in between, and so it survives a restart:
//!
//! ```text
//! the producer's span, when the event brought one      accept   (server or producer; the event's own, when it did not)
//! └─ process (consumer: one for each attempt) ─ publish (producer: one for each event, whose context it is) ─ process …
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

use super::{Ingress, Refusal, Traceparent};
use crate::event::Event;
use crate::store::{Accepted, Verdict};

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

/// Starts spans, or nothing when nothing is traced; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Spans(Option<SdkTracer>);

/// A span that has not ended; it ends at the latest when it is dropped. Nothing, when nothing is traced: it is boxed, as
/// an attempt carries it about.
#[derive(Debug, Default)]
pub struct Live(Option<Box<Span>>);

/// An attempt that starts.
#[derive(Debug, Clone, Copy)]
pub struct Attempting<'a> {
    /// `app/function`.
    pub function: &'a str,
    /// The delivery's id, the same on every attempt.
    pub delivery_id: &'a str,
    /// Counts from 1.
    pub attempt: u32,
    /// The trigger that matched.
    pub trigger: &'a str,
    /// The event that is owed.
    pub event: &'a Event,
}

impl Spans {
    /// Spans that this tracer samples and sends on.
    pub fn of(tracer: SdkTracer) -> Self {
        Self(Some(tracer))
    }

    /// Whether anything is traced.
    pub fn are_on(&self) -> bool {
        self.0.is_some()
    }

    /// An event is offered.
    pub fn accept(&self, ingress: Ingress, event: &Event) -> Live {
        let kind = match ingress {
            Ingress::Http | Ingress::Api => SpanKind::Server,
            Ingress::Files | Ingress::Timer => SpanKind::Producer,
        };
        self.start(
            || format!("accept {}", event.type_),
            kind,
            || remote(event),
            |span| {
                describe(span, event, "accept", None);
                span.set_attribute(KeyValue::new("evoke.ingress", ingress.name()));
            },
        )
    }

    /// An attempt starts.
    pub fn attempt(&self, attempting: &Attempting<'_>) -> Live {
        let Attempting { function, delivery_id, attempt, trigger, event } = *attempting;
        self.start(
            || format!("process {function}"),
            SpanKind::Consumer,
            || remote(event),
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

    /// What an attempt published is about to be stored: each event gets a span of its own below the attempt's as its
    /// context. One that the function gave a context of its own keeps it, and has no span.
    pub fn publish(&self, attempt: &Live, cause: &Event, published: &mut [Event]) -> Vec<Live> {
        let Some(parent) = attempt.context() else { return Vec::new() };
        let mut spans = Vec::new();
        for event in published {
            // What it only passed on from its cause is not its own.
            if event.extensions.get(PARENT) != cause.extensions.get(PARENT) && traceparent(event).is_some() {
                continue;
            }
            let name = || format!("publish {}", event.type_);
            let live = self.start(
                name,
                SpanKind::Producer,
                || Some(parent.clone()),
                |span| {
                    describe(span, event, "publish", Some("send"));
                },
            );
            live.write(event);
            spans.push(live);
        }
        spans
    }

    fn start(
        &self,
        name: impl FnOnce() -> String,
        kind: SpanKind,
        parent: impl FnOnce() -> Option<SpanContext>,
        describe: impl FnOnce(&mut Span),
    ) -> Live {
        let Some(tracer) = &self.0 else { return Live(None) };
        let context = parent().map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let mut span = tracer.span_builder(name()).with_kind(kind).start_with_context(tracer, &context);
        if span.is_recording() {
            describe(&mut span);
        }
        Live(Some(Box::new(span)))
    }
}

impl Live {
    /// Makes this span the context of an event that has no valid one.
    pub fn mark(&self, event: &mut Event) {
        if self.0.is_some() && traceparent(event).is_none() {
            self.write(event);
        }
    }

    /// The event was acknowledged.
    pub fn accepted(mut self, accepted: Accepted) {
        let Some(span) = &mut self.0 else { return };
        let (outcome, seq) = match accepted {
            Accepted::New(seq) => ("new", seq),
            Accepted::Duplicate(seq) => ("duplicate", seq),
        };
        span.set_attributes([KeyValue::new("evoke.outcome", outcome), KeyValue::new("evoke.event.seq", seq)]);
    }

    /// The event was refused.
    pub fn refused(mut self, reason: Refusal, message: &str) {
        self.failed(reason.name(), message.to_owned());
    }

    /// The attempt ended as an outcome of this kind, and this follows from it.
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
            self.failed(kind.to_owned(), message.unwrap_or_default().to_owned());
        }
    }

    /// The attempt read state that another changed, and runs again.
    pub fn conflicted(mut self) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("evoke.outcome", "conflict"));
        }
    }

    /// The event is not published: its attempt was not committed.
    pub fn not_published(mut self) {
        self.failed("not-committed", "the attempt that published it was not committed");
    }

    fn failed(&mut self, error_type: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) {
        let Some(span) = &mut self.0 else { return };
        span.set_attribute(KeyValue::new("error.type", error_type.into()));
        span.set_status(Status::error(message));
    }

    /// What its children have as parent; `None` when nothing is traced, or nothing more.
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

/// The context that an event brings.
fn traceparent(event: &Event) -> Option<Traceparent> {
    event.extensions.get(PARENT).and_then(|text| Traceparent::parse(text))
}

/// The same as a parent. A malformed `tracestate` is as good as none (W3C Trace Context, section 4.3).
fn remote(event: &Event) -> Option<SpanContext> {
    let Traceparent { trace_id, span_id, flags } = traceparent(event)?;
    let state = event.extensions.get(STATE).and_then(|text| TraceState::from_str(text).ok()).unwrap_or_default();
    let (trace_id, span_id) = (TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id));
    Some(SpanContext::new(trace_id, span_id, TraceFlags::new(flags), true, state))
}

fn describe(span: &mut Span, event: &Event, operation: &'static str, kind: Option<&'static str>) {
    span.set_attributes([
        KeyValue::new("messaging.system", "evoke"),
        KeyValue::new("messaging.operation.name", operation),
        KeyValue::new("messaging.destination.name", event.source.clone()),
        KeyValue::new("messaging.message.id", event.id.clone()),
        KeyValue::new("messaging.message.body.size", i64::try_from(event.data.as_bytes().len()).unwrap_or(i64::MAX)),
        KeyValue::new("cloudevents.event_id", event.id.clone()),
        KeyValue::new("cloudevents.event_source", event.source.clone()),
        KeyValue::new("cloudevents.event_spec_version", "1.0"),
        KeyValue::new("cloudevents.event_type", event.type_.clone()),
    ]);
    if let Some(kind) = kind {
        span.set_attribute(KeyValue::new("messaging.operation.type", kind));
    }
    if let Some(subject) = &event.subject {
        span.set_attribute(KeyValue::new("cloudevents.event_subject", subject.clone()));
    }
}
