//! The http source: accepted forms of events, and refusals.

use crate::assert_eventually;
use crate::support::{Evoke, request};

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;

const HTTP: &str = r#"
evoke: 1
app: shop
sources:
  checkout:
    http: { path: /checkout, type: order.placed, max_body: 4KiB }
  events:
    http: { path: /events, methods: [POST, PUT], accept: { types: [order.placed], sources: [/till] } }
functions:
  charge:
    component: $FUNCTIONS/charge.wasm
    on:
      - events: { type: [order.placed] }
    allow: { publish: ["payment.*"] }
"#;

#[test]
fn cloudevents_are_accepted_structured_binary_and_batched() {
    let evoke = Evoke::up_with(HTTP);
    let structured =
        format!(r#"{{"specversion":"1.0","id":"s1","source":"/till","type":"order.placed","data":{ORDER}}}"#);
    let response = evoke.post_with("/events", &[("content-type", "application/cloudevents+json")], &structured);
    assert_eq!(response.status, 202, "{response:?}");

    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "b1"),
        ("ce-source", "/till"),
        ("ce-type", "order.placed"),
        ("ce-subject", "caf%C3%A9"),
        ("ce-region", "eu"),
    ];
    assert_eq!(evoke.post_with("/events", &headers, ORDER).status, 202);

    let batch = format!("[{structured},{}]", structured.replace("s1", "s2"));
    let response = evoke.post_with("/events", &[("content-type", "application/cloudevents-batch+json")], &batch);
    assert_eq!(response.status, 202, "{response:?}");
    let events = response.json()["events"].clone();
    assert_eq!((events[0]["duplicate"].as_bool(), events[1]["duplicate"].as_bool()), (Some(true), Some(false)));

    evoke.settle();
    assert_eq!(evoke.events("payment.taken").len(), 3);
    let binary = evoke.events("order.placed").into_iter().find(|e| e["id"] == "b1").unwrap();
    assert_eq!((binary["subject"].as_str(), binary["region"].as_str()), (Some("café"), Some("eu")));
}

#[test]
fn requests_with_the_same_idempotency_key_are_one_event() {
    let evoke = Evoke::up_with(HTTP);
    let headers = [("content-type", "application/json"), ("idempotency-key", "order-7")];
    let first = evoke.post_with("/checkout", &headers, ORDER).json();
    let second = evoke.post_with("/checkout", &headers, ORDER).json();
    assert_eq!(first["events"][0]["duplicate"], false);
    assert_eq!(second["events"][0]["duplicate"], true);
    assert_eq!(first["events"][0]["seq"], second["events"][0]["seq"]);
    evoke.settle();
    assert_eq!(evoke.events("payment.taken").len(), 1);
}

#[test]
fn refused_requests_get_a_reason_and_are_not_stored() {
    let evoke = Evoke::up_with(HTTP);
    let json = [("content-type", "application/json")];
    let structured = [("content-type", "application/cloudevents+json")];
    let large = format!(r#"{{"x":"{}"}}"#, "y".repeat(5000));
    let refusals = [
        ("POST", "/nowhere", &json[..], ORDER, 404, "/nowhere"),
        ("POST", "/checkout/", &json[..], ORDER, 404, "/checkout"),
        ("PUT", "/checkout", &json[..], ORDER, 405, "POST"),
        ("POST", "/checkout", &json[..], r#"{"customer": }"#, 400, "JSON"),
        ("POST", "/checkout", &json[..], &large, 413, "4096"),
        ("POST", "/events", &json[..], ORDER, 415, "CloudEvents"),
        ("POST", "/events", &structured[..], r#"{"specversion":"1.0","id":"1","source":"/s"}"#, 400, "type"),
        ("POST", "/events", &structured[..], r#"{"specversion":"0.3","id":"1","source":"/s","type":"t"}"#, 400, "1.0"),
    ];
    for (method, path, headers, body, status, expected) in refusals {
        let response = request(method, evoke.http(), path, headers, body).unwrap();
        assert_eq!(response.status, status, "{method} {path} {body}: {response:?}");
        assert_eq!(response.headers["content-type"], "application/problem+json", "{response:?}");
        let problem = response.json();
        assert_eq!(problem["status"], status);
        assert!(problem["detail"].as_str().unwrap().contains(expected), "{problem}");
    }
    assert!(evoke.json_lines(&["events"]).is_empty());
}

#[test]
fn events_from_parallel_clients_are_all_handled() {
    let evoke = Evoke::up_with(HTTP);
    std::thread::scope(|scope| {
        for client in 0..4 {
            let evoke = &evoke;
            scope.spawn(move || {
                for n in 0..250 {
                    let body = format!(r#"{{"customer":"c{client}","total":{},"items":["x"]}}"#, n + 1);
                    evoke.post_accepted("/checkout", &body);
                }
            });
        }
    });
    assert_eventually!(evoke.delivery_count("done") == 1000, "{}", evoke.stdout(&["check"]));
    assert_eq!(evoke.events("payment.taken").len(), 1000);
}

#[test]
fn a_handler_reads_the_clock_of_the_host() {
    let fixture = "entry-time";
    let evoke = Evoke::up_with(&format!(
        "evoke: 1\napp: lab\nfunctions:\n  f:\n    component: $FUNCTIONS/{fixture}.wasm\n    \
         on: [{{ http: {{ path: /in, type: a.b }} }}]\n    allow: {{ publish: [entered] }}\n"
    ));
    let now_us = || std::time::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    let before_us = now_us();
    let id = evoke.post_accepted("/in", ORDER);
    evoke.settle();
    let entered = &evoke.events("entered")[0]["data"];
    assert_eq!(entered[0], id);
    let entered_us = entered[1].as_u64().unwrap();
    assert!((before_us..=now_us()).contains(&entered_us), "{before_us} {entered_us} {}", now_us());
}
