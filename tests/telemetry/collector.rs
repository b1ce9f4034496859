//! A small OpenTelemetry collector: takes OTLP over HTTP on the loopback, and keeps the spans.

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

/// A span as tests look at it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for a root.
    pub(crate) parent: String,
    pub(crate) state: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) error: Option<String>,
    pub(crate) resource: BTreeMap<String, String>,
    /// The headers of the request that brought it, in lower case.
    pub(crate) headers: BTreeMap<String, String>,
}

/// How it answers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Answers {
    Taken,
    /// 400: the batch is gone.
    Refused,
}

/// It ends with the test's process; its port is free again then.
pub(crate) struct Collector {
    address: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Collector {
    pub(crate) fn start(answers: Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let all = seen.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let all = all.clone();
                std::thread::spawn(move || serve(connection, answers, &all));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans, once there are at least so many.
    pub(crate) fn spans(&self, count: usize) -> Vec<Seen> {
        let seen = || self.seen.lock().unwrap().clone();
        assert_eventually!(seen().len() >= count, "{count} spans are awaited: {:#?}", seen());
        seen()
    }
}

/// Answers request after request of a connection.
fn serve(connection: TcpStream, answers: Answers, all: &Mutex<Vec<Seen>>) {
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
        all.lock().unwrap().extend(spans(request, &headers));
        let status = if answers == Answers::Taken { "200 OK" } else { "400 Bad Request" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n");
        connection.write_all(answer.as_bytes()).unwrap();
    }
}

fn spans(request: ExportTraceServiceRequest, headers: &BTreeMap<String, String>) -> Vec<Seen> {
    let mut seen = Vec::new();
    for of_resource in request.resource_spans {
        let resource = attributes(of_resource.resource.map(|r| r.attributes).unwrap_or_default());
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            seen.push(one(span, &resource, headers));
        }
    }
    seen
}

fn one(span: Span, resource: &BTreeMap<String, String>, headers: &BTreeMap<String, String>) -> Seen {
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
    let error = span.status.as_ref().filter(|status| status.code == 2).map(|status| status.message.clone());
    Seen {
        kind: span.kind(),
        name: span.name,
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        state: span.trace_state,
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
