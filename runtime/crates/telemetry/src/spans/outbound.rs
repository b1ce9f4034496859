//! The spans of requests that functions send, with OpenTelemetry's semantic conventions for HTTP clients.

use std::str::FromStr as _;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, SpanContext, SpanId, SpanKind, TraceFlags, TraceId, TraceState};

use super::{LiveSpan, PARENT, Spans, tracestate};
use crate::Traceparent;
use evoke_model::event::Event;

/// A W3C trace context in the form of its two headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The value of `traceparent`.
    pub traceparent: String,
    /// The value of `tracestate`.
    pub tracestate: Option<String>,
}

/// The description of a request that is sent.
#[derive(Debug, Clone, Copy)]
pub struct OutboundStart<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// The host of the request.
    pub host: &'a str,
    /// The port, if it is not the default port of the scheme.
    pub port: Option<u16>,
}

impl TraceContext {
    /// Returns the context of an event; `None` if the event has none or an invalid one.
    pub fn of_event(event: &Event) -> Option<Self> {
        let traceparent = event.extensions.get(PARENT).filter(|text| Traceparent::parse(text).is_some())?.clone();
        Some(Self { traceparent, tracestate: tracestate(event).cloned() })
    }

    fn to_parent(&self) -> Option<SpanContext> {
        let Traceparent { trace_id, span_id, flags } = Traceparent::parse(&self.traceparent)?;
        let state = self.tracestate.as_ref().and_then(|text| TraceState::from_str(text).ok()).unwrap_or_default();
        let (trace_id, span_id) = (TraceId::from_bytes(trace_id), SpanId::from_bytes(span_id));
        Some(SpanContext::new(trace_id, span_id, TraceFlags::new(flags), true, state))
    }
}

impl Spans {
    /// Starts the span of a request that a function sends, as a child of `parent`.
    pub fn outbound(&self, start: &OutboundStart<'_>, parent: Option<&TraceContext>) -> LiveSpan {
        self.start(
            || start.method.to_owned(),
            SpanKind::Client,
            || parent.and_then(TraceContext::to_parent),
            |span| {
                span.set_attributes([
                    KeyValue::new("http.request.method", start.method.to_owned()),
                    KeyValue::new("server.address", start.host.to_owned()),
                ]);
                if let Some(port) = start.port {
                    span.set_attribute(KeyValue::new("server.port", i64::from(port)));
                }
            },
        )
    }
}

impl LiveSpan {
    /// Returns the trace context of this span; `None` when tracing is off.
    pub fn trace_context(&self) -> Option<TraceContext> {
        let context = self.context()?;
        let traceparent = Traceparent {
            trace_id: context.trace_id().to_bytes(),
            span_id: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        };
        let state = context.trace_state().header();
        let tracestate = (!state.is_empty()).then_some(state);
        Some(TraceContext { traceparent: traceparent.to_string(), tracestate })
    }

    /// Ends the span of a request whose response began.
    pub fn responded(mut self, status: u16) {
        let Some(span) = &mut self.0 else { return };
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 400 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(opentelemetry::trace::Status::error(""));
        }
    }

    /// Ends the span of a request without a response.
    pub fn failed_to_send(mut self, kind: &'static str, message: &str) {
        self.failed(kind, message);
    }
}
