//! A minimal OpenTelemetry collector: receives OTLP over HTTP on a loopback port and stores the spans.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

use crate::assert_eventually;

/// A received span, with identifiers in hexadecimal and attribute values as text.
#[derive(Debug, Clone)]
pub(crate) struct ReceivedSpan {
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for a root span.
    pub(crate) parent: String,
    /// The W3C `tracestate`.
    pub(crate) trace_state: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) error: Option<String>,
    pub(crate) resource: BTreeMap<String, String>,
    /// The headers of the request that contained the span, with names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

/// The response to every export request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reply {
    Ok,
    /// Status 400, which the exporter does not retry: the batch is lost.
    BadRequest,
}

/// Runs on threads that end with the test process.
pub(crate) struct Collector {
    address: String,
    spans: Arc<Mutex<Vec<ReceivedSpan>>>,
}

impl Collector {
    pub(crate) fn start(reply: Reply) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let spans: Arc<Mutex<Vec<ReceivedSpan>>> = Arc::default();
        let all = spans.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let all = all.clone();
                std::thread::spawn(move || serve(connection, reply, &all));
            }
        });
        Self { address, spans }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for at least `count` spans and returns all of them.
    pub(crate) fn spans(&self, count: usize) -> Vec<ReceivedSpan> {
        let received = || self.spans.lock().unwrap().clone();
        assert_eventually!(received().len() >= count, "fewer than {count} spans: {:#?}", received());
        received()
    }
}

/// Serves all requests of a connection.
fn serve(connection: TcpStream, reply: Reply, spans: &Mutex<Vec<ReceivedSpan>>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let mut connection = connection;
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        assert_eq!(lines[0], "POST /v1/traces HTTP/1.1");
        let header = |line: &String| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        let headers: BTreeMap<String, String> = lines[1..].iter().map(header).collect();
        assert_eq!(headers["content-type"], "application/x-protobuf");
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body).unwrap();
        let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        spans.lock().unwrap().extend(spans_of(request, &headers));
        let status = if reply == Reply::Ok { "200 OK" } else { "400 Bad Request" };
        let response =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        connection.write_all(response.as_bytes()).unwrap();
    }
}

fn spans_of(request: ExportTraceServiceRequest, headers: &BTreeMap<String, String>) -> Vec<ReceivedSpan> {
    let mut spans = Vec::new();
    for group in request.resource_spans {
        let resource = attributes(group.resource.map(|r| r.attributes).unwrap_or_default());
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(received(span, &resource, headers));
        }
    }
    spans
}

fn received(span: Span, resource: &BTreeMap<String, String>, headers: &BTreeMap<String, String>) -> ReceivedSpan {
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    let error = span.status.as_ref().filter(|status| status.code == 2).map(|status| status.message.clone());
    ReceivedSpan {
        kind: span.kind(),
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        trace_state: span.trace_state,
        attributes: attributes(span.attributes),
        error,
        resource: resource.clone(),
        headers: headers.clone(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    };
    pairs.into_iter().map(|pair| (pair.key, text(pair.value))).collect()
}
