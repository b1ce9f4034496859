//! HTTP components that publish: their events are stored before their response is sent.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::assert_eventually;
use crate::support::{Evoke, Response, TIMEOUT, request};

const MANIFEST: &str = r#"
evoke: 1
app: shop
functions:
  web:
    component: $FUNCTIONS/http-publish.wasm
    on:
      - http: { path: /orders }
      - http: { path: /other, methods: [GET] }
      - http: { path: "/items/{id}/{rest...}", methods: [GET] }
    allow: { publish: [order.placed] }
  bill:
    component: $FUNCTIONS/relay.wasm
    on: [{ events: { type: [order.placed] } }]
    allow: { publish: [bill.sent], config: { NEXT: bill.sent } }
"#;

fn send(evoke: &Evoke, query: &str, body: &str) -> Response {
    request("POST", evoke.http(), &format!("/orders{query}"), &[], body).unwrap()
}

#[test]
fn what_an_http_component_publishes_is_stored_and_handled() {
    let evoke = Evoke::up_with(MANIFEST);
    let response = send(&evoke, "", r#"{"n":1}"#);
    assert_eq!(response.status, 202, "{response:?}");
    let event = &evoke.events("order.placed")[0];
    assert_eq!((event["id"].as_str(), event["source"].as_str()), (Some(response.body.as_str()), Some("/shop/web")));
    assert_eq!(event["data"], serde_json::json!({ "n": 1 }));
    evoke.settle();
    let bill = &evoke.events("bill.sent")[0];
    assert_eq!((bill["source"].as_str(), bill["data"]["n"].as_u64()), (Some("/shop/bill"), Some(1)));
    // The chain begins with the event, through the source of the request.
    let trace = evoke.json(&["trace", &response.body]);
    assert_eq!(trace["origin"], "/shop/web/http-1", "{trace}");
    assert_eq!(trace["deliveries"].as_array().unwrap().len(), 1);

    // Each request has other ids, unless the component gives one: then the second event is a duplicate.
    assert_ne!(send(&evoke, "", "{}").body, response.body);
    for _ in 0..2 {
        assert_eq!((send(&evoke, "?id=a", "{}").status, send(&evoke, "?id=a", "{}").body.as_str()), (202, "a"));
    }
    assert_eq!(evoke.events("order.placed").len(), 3);
    let metrics = evoke.get_admin("/metrics", &[]).body;
    let accepted = |outcome: &str, count: &str| {
        let mut lines = metrics.lines().filter(|line| line.starts_with("evoke_events_accepted_total"));
        lines.any(|line| line.contains(r#"source="http""#) && line.contains(outcome) && line.ends_with(count))
    };
    assert!(accepted("new", " 3") && accepted("duplicate", " 3"), "{metrics}");
}

#[test]
fn a_component_that_fails_before_its_response_publishes_nothing() {
    let evoke = Evoke::up_with(MANIFEST);
    assert_eq!(send(&evoke, "?trap-before", "{}").status, 502);
    assert_eq!(send(&evoke, "?silent", "{}").status, 502);
    // A refused publish is an error value of the call.
    let response = send(&evoke, "?other-type", "{}");
    assert!(response.status == 403 && response.body.contains("order.other"), "{response:?}");
    let response = send(&evoke, "?late", "{}");
    assert!(response.status == 200 && response.body.contains("the response is already set"), "{response:?}");
    // More events than one request may publish.
    let response = send(&evoke, "?more=1000", "{}");
    assert!(response.status == 403 && response.body.contains("at most 1000 events"), "{response:?}");
    // The first 1,000 of that request are stored: the component chose to respond.
    assert_eq!(evoke.events("order.placed").len(), 1000);
}

/// Sends a request and reads until the text is there. Returns the open connection.
fn read_until(evoke: &Evoke, query: &str, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(evoke.http()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(stream, "POST /orders{query} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}").unwrap();
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&all).contains(text) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the response ended: {}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
    stream
}

#[test]
fn the_events_are_stored_before_the_first_byte_of_the_response() {
    let mut evoke = Evoke::up_with(MANIFEST);
    for n in 0..5 {
        let _open = read_until(&evoke, &format!("?id=k{n}"), "H");
        evoke.kill();
        evoke.up();
        let ids: Vec<_> = evoke.events("order.placed").iter().map(|event| event["id"].clone()).collect();
        assert!(ids.contains(&format!("k{n}").into()), "{n}: {ids:?}");
    }
    evoke.settle();
    assert_eq!(evoke.events("bill.sent").len(), 5);
}

#[test]
fn a_trap_after_the_response_was_sent_does_not_undo_the_events() {
    let evoke = Evoke::up_with(MANIFEST);
    let _open = read_until(&evoke, "?trap-after", "200");
    assert_eventually!(evoke.stdout(&["logs", "--function", "shop/web"]).contains("trap"), "no trap is logged");
    assert_eq!(evoke.events("order.placed").len(), 1);
}

#[test]
fn a_response_whose_events_cannot_be_stored_is_not_sent() {
    let mut evoke = Evoke::with(MANIFEST);
    evoke.up_with_arguments(&["--pending-max", "2"]);
    evoke.stdout(&["pause", "shop/bill"]);
    // The source may own half of the backlog.
    let refused = (0..4).map(|_| send(&evoke, "", "{}")).find(|response| response.status != 202);
    let refused = refused.expect("the backlog has a limit");
    assert_eq!(refused.status, 503, "{refused:?}");
    let after: u64 = refused.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!(after >= 1);
    assert!(refused.json()["detail"].as_str().unwrap().contains("pending"), "{refused:?}");
    let stored = evoke.events("order.placed").len();
    assert_eventually!(
        evoke.stdout(&["logs", "--function", "shop/web"]).contains("the published events were not stored"),
        "the function's log has no reason"
    );
    evoke.stdout(&["resume", "shop/bill"]);
    evoke.settle();
    assert_eq!(send(&evoke, "", "{}").status, 202);
    assert_eq!(evoke.events("order.placed").len(), stored + 1);
}

#[test]
fn while_the_store_is_locked_the_client_is_told_when_to_retry() {
    let evoke = Evoke::up_with(MANIFEST);
    let other = rusqlite::Connection::open(evoke.path(".evoke/evoke.db")).unwrap();
    other.busy_timeout(TIMEOUT).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let response = send(&evoke, "?id=a", "{}");
    assert_eq!((response.status, response.headers["retry-after"].to_str().unwrap()), (503, "10"), "{response:?}");
    assert!(response.body.contains("another program has locked the store"), "{response:?}");
    other.execute_batch("ROLLBACK").unwrap();
    assert_eventually!(send(&evoke, "?id=a", "{}").status == 202, "the store is still locked");
    assert_eq!(evoke.events("order.placed").len(), 1);
}

#[test]
fn a_component_gets_all_methods_and_no_headers_of_the_runtime_from_clients() {
    let evoke = Evoke::up_with(MANIFEST);
    for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let response = request(method, evoke.http(), "/orders?headers", &[("evoke-path-id", "forged")], "").unwrap();
        assert_eq!(response.status, 200, "{method}: {response:?}");
        assert!(response.body.to_uppercase().contains(method), "{response:?}");
        assert!(!response.body.contains("forged"), "{response:?}");
    }
    assert_eq!(request("POST", evoke.http(), "/other?headers", &[], "").unwrap().status, 405);
    let forged = [("evoke-path-id", "forged"), ("evoke-path-other", "forged")];
    let response = request("GET", evoke.http(), "/items/caf%C3%A9%20%25/a/b?headers", &forged, "").unwrap();
    let mut lines: Vec<_> = response.body.lines().skip(1).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["evoke-path-id=caf%C3%A9%20%25", "evoke-path-rest=a/b"]);
}

#[test]
fn a_component_that_responds_itself_cannot_wait_for_a_reply() {
    let evoke = Evoke::with(&MANIFEST.replace("path: /orders", "path: /orders, reply: { event: bill.sent }"));
    let output = evoke.run(&["validate", "evoke.yaml"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("remove `reply`"), "{message}");
}
