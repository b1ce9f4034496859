//! Traces, from an event through its functions to what they publish.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::collector::{Answers, Collector, Seen};
use super::scrape;
use crate::assert_eventually;
use crate::orders::ORDERS;
use crate::support::Evoke;

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// An Evoke that sends its spans here, soon.
fn traced(manifest: &str, collector: &Collector, more: &[(&'static str, &str)]) -> Evoke {
    let endpoint = collector.endpoint();
    let own = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "20")];
    let mut evoke = Evoke::with(manifest);
    evoke.set_environment(&[&own, more].concat());
    evoke.up();
    evoke
}

fn named<'a>(spans: &'a [Seen], name: &str) -> &'a Seen {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    let [one] = found[..] else { panic!("{} spans are called {name}: {spans:#?}", found.len()) };
    one
}

/// The `traceparent` of the only event of a type.
fn traceparent(evoke: &Evoke, type_: &str) -> String {
    let events = evoke.events(type_);
    let [event] = &events[..] else { panic!("{events:?}") };
    event["traceparent"].as_str().unwrap_or_else(|| panic!("{event:#}")).to_owned()
}

fn context(span: &Seen) -> String {
    format!("00-{}-{}-01", span.trace, span.id)
}

/// Every span of an order that went through all functions, with its parent above it.
const WAY: [&str; 6] = [
    "accept order.placed",
    "process shop/charge",
    "publish payment.taken",
    "process shop/receipt",
    "publish receipt.issued",
    "process shop/notify",
];

#[test]
fn an_event_its_functions_and_what_they_publish_are_one_trace() {
    let collector = Collector::start(Answers::Taken);
    let more = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=shop%20one"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let evoke = traced(ORDERS, &collector, &more);
    let id = evoke.accepted("/checkout", ORDER);
    let spans = collector.spans(WAY.len());
    assert_eq!(spans.len(), WAY.len(), "{spans:#?}");
    assert_eq!(named(&spans, WAY[0]).parent, "");
    for pair in WAY.windows(2) {
        let (above, below) = (named(&spans, pair[0]), named(&spans, pair[1]));
        assert_eq!((&below.trace, &below.parent), (&above.trace, &above.id), "{pair:?}");
    }
    let kinds = WAY.map(|name| named(&spans, name).kind);
    let (server, consumer, producer) = (SpanKind::Server, SpanKind::Consumer, SpanKind::Producer);
    assert_eq!(kinds, [server, consumer, producer, consumer, producer, consumer]);
    for (type_, name) in [("order.placed", WAY[0]), ("payment.taken", WAY[2]), ("receipt.issued", WAY[4])] {
        assert_eq!(traceparent(&evoke, type_), context(named(&spans, name)));
    }

    let attempt = named(&spans, WAY[1]);
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
    assert_eq!(named(&spans, WAY[0]).attributes["evoke.outcome"], "new");
    assert!(spans.iter().all(|span| span.error.is_none()), "{spans:#?}");
    assert_eq!(attempt.resource["service.name"], "evoke");
    assert_eq!(attempt.resource["deployment.environment.name"], "test");
    assert_eq!(attempt.headers["x-tenant"], "shop one");
    let exported = || scrape(&evoke).value("evoke_trace_spans_total", &[("outcome", "exported")]);
    assert_eventually!(exported() == WAY.len() as f64, "{}", exported());
}

#[test]
fn the_trace_of_a_request_goes_on() {
    let collector = Collector::start(Answers::Taken);
    let evoke = traced(ORDERS, &collector, &[("OTEL_SERVICE_NAME", "orders")]);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers =
        [("content-type", "application/json"), ("traceparent", parent.as_str()), ("tracestate", "vendor=1,other=2")];
    assert_eq!(evoke.post_with("/checkout", &headers, ORDER).status, 202);
    let spans = collector.spans(WAY.len());
    assert!(spans.iter().all(|span| span.trace == TRACE && span.state == "vendor=1,other=2"), "{spans:#?}");
    assert_eq!(named(&spans, WAY[0]).parent, SPAN);
    // The event says whose span made it, and nobody in between changes that.
    assert_eq!(named(&spans, WAY[1]).parent, SPAN);
    assert_eq!(traceparent(&evoke, "order.placed"), parent);
    assert_eq!(traceparent(&evoke, "payment.taken"), context(named(&spans, WAY[2])));
    assert_eq!(evoke.events("payment.taken")[0]["tracestate"], "vendor=1,other=2");
    assert_eq!(spans[0].resource["service.name"], "orders");
}

#[test]
fn the_context_of_an_event_wins_over_that_of_its_request_and_an_invalid_one_starts_anew() {
    let collector = Collector::start(Answers::Taken);
    let evoke = traced(ORDERS, &collector, &[]);
    let event = |own: &str| {
        format!(r#"{{"specversion":"1.0","id":"{own}","source":"/x","type":"lonely","traceparent":"{own}"}}"#)
    };
    let (own, of_request) = (format!("00-{TRACE}-{SPAN}-01"), format!("00-{}-{SPAN}-01", "a".repeat(32)));
    let structured = ("content-type", "application/cloudevents+json");
    for traceparent in [own.as_str(), "00-1-2-3"] {
        let answer = evoke.post_with("/checkout", &[structured, ("traceparent", &of_request)], &event(traceparent));
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    assert_eq!(evoke.post_with("/checkout", &[structured, ("traceparent", "bad")], &event("worse")).status, 202);
    let spans = collector.spans(3);
    assert_eq!((spans[0].trace.as_str(), spans[0].parent.as_str()), (TRACE, SPAN));
    assert_eq!((spans[1].trace.as_str(), spans[1].parent.as_str()), ("a".repeat(32).as_str(), SPAN));
    let anew = &spans[2];
    assert!(anew.parent.is_empty() && ![TRACE, &"a".repeat(32)].contains(&anew.trace.as_str()), "{anew:#?}");
    let stored: Vec<String> =
        evoke.events("lonely").iter().map(|event| event["traceparent"].as_str().unwrap().to_owned()).collect();
    assert_eq!(stored, [own, of_request, context(anew)]);
}

#[test]
fn a_trace_goes_on_after_a_kill_between_the_acceptance_and_the_attempt() {
    let collector = Collector::start(Answers::Taken);
    let ordered = ORDERS.replacen("    retry:", "    order_by: data.customer\n    retry:", 1);
    let mut evoke = traced(&ordered, &collector, &[]);
    // The first order dies; the second waits behind its dead letter.
    evoke.accepted("/checkout", &ORDER.replace("42", "0"));
    collector.spans(2);
    evoke.accepted("/checkout", ORDER);
    let before = collector.spans(3);
    evoke.kill();
    evoke.up();
    evoke.stdout(&["dead", "purge", "--all"]);
    let spans = collector.spans(2 + WAY.len());
    let accepted = &before[2];
    assert_eq!(accepted.name, WAY[0]);
    let later: Vec<Seen> = spans.into_iter().filter(|span| span.trace == accepted.trace).collect();
    assert_eq!(later.len(), WAY.len(), "{later:#?}");
    for pair in WAY.windows(2) {
        assert_eq!(named(&later, pair[1]).parent, named(&later, pair[0]).id, "{pair:?}");
    }
}

#[test]
fn an_attempt_that_runs_again_for_its_state_is_counted_once_and_each_run_has_its_span() {
    const EVENTS: usize = 100;
    let collector = Collector::start(Answers::Taken);
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
    let evoke = traced(manifest, &collector, &[]);
    let event = |n| format!(r#"{{"specversion":"1.0","id":"{n}","source":"/x","type":"lab.in","data":{{"key":"k"}}}}"#);
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

    // Each event is accepted, each run is a span, and so is what each publishes.
    let spans = collector.spans(EVENTS + 2 * (EVENTS + conflicts));
    let runs: Vec<&Seen> = spans.iter().filter(|span| span.name == "process lab/counter").collect();
    let ended_as = |outcome: &str| runs.iter().filter(|span| span.attributes["evoke.outcome"] == outcome).count();
    assert_eq!((ended_as("done"), ended_as("conflict"), runs.len()), (EVENTS, conflicts, EVENTS + conflicts));
    let stored: BTreeSet<String> =
        evoke.events("counted").iter().map(|event| event["traceparent"].as_str().unwrap().to_owned()).collect();
    let published = spans.iter().filter(|span| span.name == "publish counted" && span.error.is_none());
    assert_eq!(stored, published.map(context).collect());
}

#[test]
fn a_failed_attempt_is_an_error_and_each_attempt_has_its_span() {
    let collector = Collector::start(Answers::Taken);
    let evoke = traced(ORDERS, &collector, &[]);
    evoke.accepted("/checkout", &ORDER.replace("}", r#","gateway_failures":1}"#));
    let spans = collector.spans(WAY.len() + 1);
    let attempts: Vec<&Seen> = spans.iter().filter(|span| span.name == WAY[1]).collect();
    let [first, second] = attempts[..] else { panic!("{spans:#?}") };
    assert_eq!((&first.parent, &first.trace), (&second.parent, &second.trace));
    assert!(first.error.as_deref().unwrap().contains("the payment gateway is down"), "{first:#?}");
    let of = |span: &Seen, name: &str| span.attributes[name].clone();
    assert_eq!((of(first, "evoke.verdict"), of(first, "error.type")), ("retry".into(), "retry".into()));
    assert_eq!((of(second, "evoke.attempt"), &second.error), ("2".into(), &None));

    evoke.accepted("/checkout", &ORDER.replace("42", "0"));
    let spans = collector.spans(WAY.len() + 3);
    let dead = spans.iter().find(|span| span.attributes.get("evoke.verdict").is_some_and(|v| v == "dead"));
    assert!(dead.unwrap().error.as_deref().unwrap().contains("total is 0"), "{dead:#?}");
}

#[test]
fn what_is_not_sampled_is_carried_on_and_not_sent() {
    let collector = Collector::start(Answers::Taken);
    let evoke = traced(ORDERS, &collector, &[]);
    let parent = format!("00-{TRACE}-{SPAN}-00");
    let headers = [("content-type", "application/json"), ("traceparent", parent.as_str())];
    assert_eq!(evoke.post_with("/checkout", &headers, ORDER).status, 202);
    evoke.settle();
    // One that is sampled comes after it, and alone.
    evoke.accepted("/checkout", ORDER);
    let spans = collector.spans(WAY.len());
    assert!(spans.iter().all(|span| span.trace != TRACE), "{spans:#?}");
    let published = evoke.events("payment.taken")[0]["traceparent"].as_str().unwrap().to_owned();
    assert!(published.starts_with(&format!("00-{TRACE}-")) && published.ends_with("-00"), "{published}");
}

#[test]
fn without_a_collector_a_context_is_carried_on_unchanged_and_none_is_made() {
    let evoke = Evoke::up_with(ORDERS);
    let parent = format!("00-{TRACE}-{SPAN}-01");
    let headers = [("content-type", "application/json"), ("traceparent", parent.as_str())];
    assert_eq!(evoke.post_with("/checkout", &headers, ORDER).status, 202);
    evoke.settle();
    for type_ in ["order.placed", "payment.taken", "receipt.issued"] {
        assert_eq!(traceparent(&evoke, type_), parent);
    }
    evoke.accepted("/checkout", ORDER);
    assert!(evoke.events("order.placed")[1].get("traceparent").is_none());
}

#[test]
fn a_collector_that_takes_nothing_holds_nothing_up_and_what_is_lost_is_counted() {
    let collector = Collector::start(Answers::Refused);
    let evoke = traced(ORDERS, &collector, &[("OTEL_BSP_MAX_QUEUE_SIZE", "4"), ("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
    (0..10).for_each(|_| drop(evoke.accepted("/checkout", ORDER)));
    evoke.settle();
    let ended = 10 * WAY.len() as u64;
    let lost = |outcome| scrape(&evoke).value("evoke_trace_spans_total", &[("outcome", outcome)]) as u64;
    assert_eventually!(lost("failed") + lost("dropped") >= ended - 4, "{} {}", lost("failed"), lost("dropped"));
    assert!(lost("failed") > 0 && lost("exported") == 0);
    assert!(evoke.log().contains("400 Bad Request"), "{}", evoke.log());
}

#[test]
fn spans_that_wait_are_sent_before_the_end() {
    let collector = Collector::start(Answers::Taken);
    let mut evoke = traced(ORDERS, &collector, &[("OTEL_BSP_SCHEDULE_DELAY", "3600000")]);
    evoke.accepted("/checkout", ORDER);
    evoke.settle();
    assert!(evoke.stop().success());
    let names: BTreeSet<String> = collector.spans(WAY.len()).into_iter().map(|span| span.name).collect();
    assert_eq!(names, WAY.map(str::to_owned).into());
}

#[test]
fn an_endpoint_that_needs_tls_is_refused_at_the_start_with_what_would_be_right() {
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
