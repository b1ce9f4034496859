//! Traces: one trace covers an event, the attempts of its functions and the events that these publish.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::collector::{Collector, ReceivedSpan, Reply};
use super::scrape;
use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::Evoke;

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// Starts an Evoke that exports its spans to the collector every 20 ms.
fn up_with_collector(manifest: &str, collector: &Collector, environment: &[(&'static str, &str)]) -> Evoke {
    let endpoint = collector.endpoint();
    let defaults = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let mut evoke = Evoke::with(manifest);
    evoke.set_environment(&[&defaults, environment].concat());
    evoke.up();
    evoke
}

/// The only span with this name.
fn named<'a>(spans: &'a [ReceivedSpan], name: &str) -> &'a ReceivedSpan {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    let [one] = found[..] else { panic!("{} spans have the name {name}: {spans:#?}", found.len()) };
    one
}

/// The `traceparent` of the only event of a type.
fn traceparent(evoke: &Evoke, type_: &str) -> String {
    let events = evoke.events(type_);
    let [event] = &events[..] else { panic!("{events:?}") };
    event["traceparent"].as_str().unwrap_or_else(|| panic!("{event:#}")).to_owned()
}

/// The `traceparent` of a sampled span.
fn context(span: &ReceivedSpan) -> String {
    format!("00-{}-{}-01", span.trace, span.id)
}

/// The spans of an order that passes through all functions. The parent of each span is the one before it.
const ORDER_SPANS: [&str; 6] = [
    "accept order.placed",
    "process shop/charge",
    "publish payment.taken",
    "process shop/receipt",
    "publish receipt.issued",
    "process shop/notify",
];

#[test]
fn an_event_its_functions_and_what_they_publish_are_one_trace() {
    let collector = Collector::start(Reply::Ok);
    let environment = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop%20one"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let evoke = up_with_collector(ORDERS, &collector, &environment);
    let id = evoke.post_accepted("/checkout", ORDER);
    let spans = collector.spans(ORDER_SPANS.len());
    assert_eq!(spans.len(), ORDER_SPANS.len(), "{spans:#?}");
    assert_eq!(named(&spans, ORDER_SPANS[0]).parent, "");
    for pair in ORDER_SPANS.windows(2) {
        let (above, below) = (named(&spans, pair[0]), named(&spans, pair[1]));
        assert_eq!((&below.trace, &below.parent), (&above.trace, &above.id), "{pair:?}");
    }
    let kinds = ORDER_SPANS.map(|name| named(&spans, name).kind);
    let (server, consumer, producer) = (SpanKind::Server, SpanKind::Consumer, SpanKind::Producer);
    assert_eq!(kinds, [server, consumer, producer, consumer, producer, consumer]);
    for (type_, name) in
        [("order.placed", ORDER_SPANS[0]), ("payment.taken", ORDER_SPANS[2]), ("receipt.issued", ORDER_SPANS[4])]
    {
        assert_eq!(traceparent(&evoke, type_), context(named(&spans, name)));
    }

    let attempt = named(&spans, ORDER_SPANS[1]);
    for (name, value) in [
        ("messaging.system", "evoke"),
        ("messaging.operation.name", "process"),
        ("messaging.operation.type", "process"),
        ("messaging.message.id", &id),
        ("cloudevents.event_id", &id),
        ("cloudevents.event_source", "/shop/checkout"),
        ("cloudevents.event_type", "order.placed"),
        ("cloudevents.event_spec_version", "1.0"),
        ("evoke.function", "shop/charge"),
        ("evoke.attempt", "1"),
        ("evoke.trigger", "on[0]"),
        ("evoke.outcome", "done"),
        ("evoke.verdict", "done"),
    ] {
        assert_eq!(attempt.attributes[name], value, "{name}");
    }
    assert!(attempt.attributes["evoke.delivery.id"].ends_with("-1"), "{attempt:?}");
    assert_eq!(named(&spans, ORDER_SPANS[0]).attributes["evoke.outcome"], "new");
    assert!(spans.iter().all(|span| span.error.is_none()), "{spans:#?}");
    assert_eq!(attempt.resource["service.name"], "evoke");
    assert_eq!(attempt.resource["deployment.environment.name"], "test");
    assert_eq!(attempt.headers["x-tenant"], "shop one");
    let exported = || scrape(&evoke).value("evoke_trace_spans_total", &[("outcome", "exported")]);
    assert_eventually!(exported() == ORDER_SPANS.len() as f64, "{}", exported());
}

#[test]
fn the_trace_of_a_request_continues() {
    let collector = Collector::start(Reply::Ok);
    let evoke = up_with_collector(ORDERS, &collector, &[("OTEL_SERVICE_NAME", "orders")]);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers =
        [("content-type", "application/json"), ("traceparent", parent.as_str()), ("tracestate", "vendor=1,other=2")];
    assert_eq!(evoke.post_with("/checkout", &headers, ORDER).status, 202);
    let spans = collector.spans(ORDER_SPANS.len());
    assert!(spans.iter().all(|span| span.trace == TRACE && span.trace_state == "vendor=1,other=2"), "{spans:#?}");
    assert_eq!(named(&spans, ORDER_SPANS[0]).parent, SPAN);
    // The parent of the attempt is the `traceparent` of the event, which Evoke stores unchanged.
    assert_eq!(named(&spans, ORDER_SPANS[1]).parent, SPAN);
    assert_eq!(traceparent(&evoke, "order.placed"), parent);
    assert_eq!(traceparent(&evoke, "payment.taken"), context(named(&spans, ORDER_SPANS[2])));
    assert_eq!(evoke.events("payment.taken")[0]["tracestate"], "vendor=1,other=2");
    assert_eq!(spans[0].resource["service.name"], "orders");
}

#[test]
fn long_texts_of_an_event_are_cut_in_its_spans() {
    let collector = Collector::start(Reply::Ok);
    let source = "http: { path: /in, accept: { types: [\"*\"], sources: [\"/producer/*\"] } }";
    let evoke = up_with_collector(&format!("evoke: 1\napp: lab\nsources:\n  in:\n    {source}\n"), &collector, &[]);
    let long = |start: &str| format!("{start}{}", "x".repeat(150_000));
    // The longest id, source and type.
    let (id, source, type_) = ("i".repeat(1_024), format!("{:x<2048}", "/producer/"), format!("{:x<1024}", "t"));
    let event = serde_json::json!({
        "specversion": "1.0", "id": id, "source": source, "type": type_, "subject": long("s"),
        "traceparent": format!("00-{TRACE}-{SPAN}-01"), "tracestate": long("a=")
    });
    let headers = [("content-type", "application/cloudevents+json")];
    assert_eq!(evoke.post_with("/in", &headers, &event.to_string()).status, 202);
    let span = collector.spans(1).remove(0);
    let longest = span.attributes.values().map(String::len).max();
    assert_eq!((longest, span.trace.as_str(), span.trace_state.as_str()), (Some(1_024 + '…'.len_utf8()), TRACE, ""));
    assert!(span.name.starts_with("accept tx") && span.name.len() < 1_100, "{}", span.name);
}

#[test]
fn the_trace_context_of_an_event_wins_over_its_request_and_an_invalid_one_is_replaced() {
    let collector = Collector::start(Reply::Ok);
    let accept = "type: order.placed, accept: { types: [lonely], sources: [/x] } }";
    let evoke = up_with_collector(&ORDERS.replace("type: order.placed }", accept), &collector, &[]);
    let event = |traceparent: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{traceparent}","source":"/x","type":"lonely","traceparent":"{traceparent}"}}"#
        )
    };
    let (of_event, of_request) = (format!("00-{TRACE}-{SPAN}-01"), format!("00-{}-{SPAN}-01", "a".repeat(32)));
    let structured = ("content-type", "application/cloudevents+json");
    for traceparent in [of_event.as_str(), "00-1-2-3"] {
        let response = evoke.post_with("/checkout", &[structured, ("traceparent", &of_request)], &event(traceparent));
        assert_eq!(response.status, 202, "{response:?}");
    }
    assert_eq!(evoke.post_with("/checkout", &[structured, ("traceparent", "bad")], &event("worse")).status, 202);
    let spans = collector.spans(3);
    assert_eq!((spans[0].trace.as_str(), spans[0].parent.as_str()), (TRACE, SPAN));
    assert_eq!((spans[1].trace.as_str(), spans[1].parent.as_str()), ("a".repeat(32).as_str(), SPAN));
    let new_root = &spans[2];
    assert!(
        new_root.parent.is_empty() && ![TRACE, &"a".repeat(32)].contains(&new_root.trace.as_str()),
        "{new_root:#?}"
    );
    let stored: Vec<String> =
        evoke.events("lonely").iter().map(|event| event["traceparent"].as_str().unwrap().to_owned()).collect();
    assert_eq!(stored, [of_event, of_request, context(new_root)]);
}

#[test]
fn a_trace_continues_after_a_kill_between_acceptance_and_attempt() {
    let collector = Collector::start(Reply::Ok);
    let ordered = ORDERS.replacen("    retry:", "    order_by: data.customer\n    retry:", 1);
    let mut evoke = up_with_collector(&ordered, &collector, &[]);
    // The first order becomes a dead letter; the second waits behind it.
    evoke.post_accepted("/checkout", &ORDER.replace("42", "0"));
    collector.spans(2);
    evoke.post_accepted("/checkout", ORDER);
    let before = collector.spans(3);
    evoke.kill();
    evoke.up();
    evoke.stdout(&["dead", "purge", "--all"]);
    let spans = collector.spans(2 + ORDER_SPANS.len());
    let accepted = &before[2];
    assert_eq!(accepted.name, ORDER_SPANS[0]);
    let later: Vec<ReceivedSpan> = spans.into_iter().filter(|span| span.trace == accepted.trace).collect();
    assert_eq!(later.len(), ORDER_SPANS.len(), "{later:#?}");
    for pair in ORDER_SPANS.windows(2) {
        assert_eq!(named(&later, pair[1]).parent, named(&later, pair[0]).id, "{pair:?}");
    }
}

#[test]
fn a_rerun_after_a_state_conflict_is_the_same_attempt_with_a_span_of_its_own() {
    const EVENTS: usize = 100;
    let collector = Collector::start(Reply::Ok);
    let manifest = r#"
evoke: 1
app: lab
sources:
  in: { http: { path: /in, type: lab.in } }
functions:
  counter:
    component: $FUNCTIONS/counter.wasm
    on: [{ events: { type: [lab.in] } }]
    allow: { publish: ["counted"], state: true }
"#;
    let evoke = up_with_collector(manifest, &collector, &[]);
    let event =
        |n| format!(r#"{{"specversion":"1.0","id":"{n}","source":"/lab/in","type":"lab.in","data":{{"key":"k"}}}}"#);
    let batch = format!("[{}]", (0..EVENTS).map(event).collect::<Vec<_>>().join(","));
    assert_eq!(evoke.post_with("/in", &[("content-type", "application/cloudevents-batch+json")], &batch).status, 202);
    evoke.settle();
    let of = [("function", "lab/counter")];
    let done = || scrape(&evoke).by("evoke_attempts_total", of[0], "outcome").get("done").copied();
    assert_eventually!(done() == Some(EVENTS as u64), "{:?}", done());
    let now = scrape(&evoke);
    assert_eq!(now.count("evoke_attempt_duration_seconds", &of), EVENTS as u64);
    assert_eq!(now.value("evoke_events_published_total", &of), EVENTS as f64);
    let conflicts = now.value("evoke_state_conflicts_total", &of) as usize;

    // One span for each accepted event, and for each run of an attempt one span and one for the event that it
    // publishes.
    let spans = collector.spans(EVENTS + 2 * (EVENTS + conflicts));
    let runs: Vec<&ReceivedSpan> = spans.iter().filter(|span| span.name == "process lab/counter").collect();
    let ended_as = |outcome: &str| runs.iter().filter(|span| span.attributes["evoke.outcome"] == outcome).count();
    assert_eq!((ended_as("done"), ended_as("conflict"), runs.len()), (EVENTS, conflicts, EVENTS + conflicts));
    let stored: BTreeSet<String> =
        evoke.events("counted").iter().map(|event| event["traceparent"].as_str().unwrap().to_owned()).collect();
    let published = spans.iter().filter(|span| span.name == "publish counted" && span.error.is_none());
    assert_eq!(stored, published.map(context).collect());
}

#[test]
fn a_failed_attempt_is_an_error_and_each_attempt_has_its_span() {
    let collector = Collector::start(Reply::Ok);
    let evoke = up_with_collector(ORDERS, &collector, &[]);
    evoke.post_accepted("/checkout", &ORDER.replace("}", r#","gateway_failures":1}"#));
    let spans = collector.spans(ORDER_SPANS.len() + 1);
    let attempts: Vec<&ReceivedSpan> = spans.iter().filter(|span| span.name == ORDER_SPANS[1]).collect();
    let [first, second] = attempts[..] else { panic!("{spans:#?}") };
    assert_eq!((&first.parent, &first.trace), (&second.parent, &second.trace));
    assert!(first.error.as_deref().unwrap().contains("the payment gateway is down"), "{first:#?}");
    let of = |span: &ReceivedSpan, name: &str| span.attributes[name].clone();
    assert_eq!((of(first, "evoke.verdict"), of(first, "error.type")), ("retry".into(), "retry".into()));
    assert_eq!((of(second, "evoke.attempt"), &second.error), ("2".into(), &None));

    evoke.post_accepted("/checkout", &ORDER.replace("42", "0"));
    let spans = collector.spans(ORDER_SPANS.len() + 3);
    let dead = spans.iter().find(|span| span.attributes.get("evoke.verdict").is_some_and(|v| v == "dead"));
    assert!(dead.unwrap().error.as_deref().unwrap().contains("total is 0"), "{dead:#?}");
}

#[test]
fn an_unsampled_context_is_propagated_and_not_exported() {
    let collector = Collector::start(Reply::Ok);
    let evoke = up_with_collector(ORDERS, &collector, &[]);
    let parent = format!("00-{TRACE}-{SPAN}-00");
    let headers = [("content-type", "application/json"), ("traceparent", parent.as_str())];
    assert_eq!(evoke.post_with("/checkout", &headers, ORDER).status, 202);
    evoke.settle();
    // Send a sampled order afterwards: only its spans arrive.
    evoke.post_accepted("/checkout", ORDER);
    let spans = collector.spans(ORDER_SPANS.len());
    assert!(spans.iter().all(|span| span.trace != TRACE), "{spans:#?}");
    let published = evoke.events("payment.taken")[0]["traceparent"].as_str().unwrap().to_owned();
    assert!(published.starts_with(&format!("00-{TRACE}-")) && published.ends_with("-00"), "{published}");
}

#[test]
fn without_a_collector_a_context_is_propagated_unchanged_and_none_is_created() {
    let evoke = Evoke::up_with(ORDERS);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers = [("content-type", "application/json"), ("traceparent", parent.as_str())];
    assert_eq!(evoke.post_with("/checkout", &headers, ORDER).status, 202);
    evoke.settle();
    for type_ in ["order.placed", "payment.taken", "receipt.issued"] {
        assert_eq!(traceparent(&evoke, type_), parent);
    }
    evoke.post_accepted("/checkout", ORDER);
    assert!(evoke.events("order.placed")[1].get("traceparent").is_none());
}

#[test]
fn a_failing_collector_blocks_nothing_and_lost_spans_are_counted() {
    let collector = Collector::start(Reply::BadRequest);
    let evoke = up_with_collector(
        ORDERS,
        &collector,
        &[("OTEL_BSP_MAX_QUEUE_SIZE", "4"), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")],
    );
    (0..10).for_each(|_| drop(evoke.post_accepted("/checkout", ORDER)));
    evoke.settle();
    let ended = 10 * ORDER_SPANS.len() as u64;
    let lost = |outcome| scrape(&evoke).value("evoke_trace_spans_total", &[("outcome", outcome)]) as u64;
    assert_eventually!(lost("failed") + lost("dropped") >= ended - 4, "{} {}", lost("failed"), lost("dropped"));
    assert!(lost("failed") > 0 && lost("exported") == 0);
    assert!(evoke.log().contains("400 Bad Request"), "{}", evoke.log());
}

#[test]
fn queued_spans_are_exported_at_shutdown() {
    let collector = Collector::start(Reply::Ok);
    let mut evoke = up_with_collector(ORDERS, &collector, &[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
    evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    assert!(evoke.stop().success());
    let names: BTreeSet<String> = collector.spans(ORDER_SPANS.len()).into_iter().map(|span| span.name).collect();
    assert_eq!(names, ORDER_SPANS.map(str::to_owned).into());
}

#[test]
fn an_endpoint_that_needs_tls_is_rejected_at_the_start_with_an_alternative() {
    let mut evoke = Evoke::with(ORDERS);
    evoke.set_environment(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example:4318")]);
    let output = evoke.run(&["up", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    for word in
        ["OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example:4318", "without TLS", "http://localhost:4318"]
    {
        assert!(message.contains(word), "no {word} in {message}");
    }
}
