//! Requests that wait for the event that a function publishes because of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::assert_eventually;
use crate::support::{Evoke, Response, TIMEOUT, post};
use crate::telemetry::scrape;

const MANIFEST: &str = r#"
evoke: 1
app: shop
sources:
  ask:
    http: { path: /ask, type: asked, reply: { event: "answer.*", timeout: TIMEOUT } }
  tell:
    http: { path: /tell, type: asked }
functions:
  respond:
    component: $FUNCTIONS/respond.wasm
    on: [{ events: { type: [asked] } }]
    retry: { attempts: 2, max_age: 24h }
    allow: { publish: ["*"] }
  relay:
    component: $FUNCTIONS/relay.wasm
    on: [{ events: { type: [next] } }]
    allow: { publish: [answer.relayed], config: { NEXT: answer.relayed } }
"#;

fn manifest(timeout: &str) -> String {
    MANIFEST.replace("TIMEOUT", timeout)
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn ask(evoke: &Evoke, body: &serde_json::Value) -> Response {
    evoke.post("/ask", &body.to_string())
}

fn ask_as(address: &str, key: &str, body: &serde_json::Value) -> Result<Response, ureq::Error> {
    post(address, "/ask", &[JSON, ("idempotency-key", key)], &body.to_string())
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[test]
fn the_event_that_a_function_publishes_is_the_response() {
    let evoke = Evoke::up_with(&manifest("60s"));
    let answer = json!({ "type": "answer.yes", "status": "201", "data": { "paid": 1.10 } });
    let response = ask(&evoke, &json!({ "publish": [{ "type": "other", "data": 1 }, answer] }));
    assert_eq!((response.status, response.body.as_str()), (201, r#"{"paid":1.1}"#), "{response:?}");
    assert_eq!((header(&response, "content-type"), header(&response, "evoke-reply")), ("application/json", "event"));

    let answer = json!({ "type": "answer.no", "status": "404", "datacontenttype": "text/html", "data": "<p>no</p>" });
    let response = ask(&evoke, &json!({ "publish": [answer] }));
    assert_eq!((response.status, response.body.as_str()), (404, "<p>no</p>"));
    assert_eq!(header(&response, "content-type"), "text/html");
    for status in ["100", "99999", "not a number"] {
        let answer = json!({ "type": "answer.no", "status": status, "data": {} });
        assert_eq!(ask(&evoke, &json!({ "publish": [answer] })).status, 200, "{status}");
    }
    // Through another function.
    let response = ask(&evoke, &json!({ "publish": [{ "type": "next", "data": { "reject": "no" } }] }));
    assert_eq!((response.status, response.body.as_str()), (200, r#"{"reject":"no"}"#));
    // A retry on the way only takes longer.
    let answer = json!({ "type": "answer.yes", "data": 2 });
    let response = ask(&evoke, &json!({ "retry_ms": 1, "publish": [answer] }));
    assert_eq!((response.status, response.body.as_str()), (200, "2"));
    // The other source responds as always.
    assert_eq!(evoke.post("/tell", r#"{"publish": []}"#).status, 202);
}

#[test]
fn a_dead_letter_is_a_502_that_names_its_kind_and_keeps_the_reason_for_the_operator() {
    let evoke = Evoke::up_with(&manifest("60s"));
    let response = ask(&evoke, &json!({ "reject": "the password is hunter2" }));
    assert_eq!((response.status, header(&response, "content-type")), (502, "application/problem+json"));
    let problem = response.json();
    assert_eq!(problem["cause"], "reject");
    assert!(!response.body.contains("hunter2") && !response.body.contains("shop"), "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains(&format!("evoke trace {}", problem["event"])), "{problem}");
    // After an operator's cancel, too.
    std::thread::scope(|scope| {
        let request = scope.spawn(|| ask(&evoke, &json!({ "retry_ms": 3_600_000 })));
        assert_eventually!(evoke.delivery_count("retrying") == 1, "no retry");
        evoke.stdout(&["pending", "cancel", "--function", "shop/respond"]);
        let problem = request.join().unwrap().json();
        assert_eq!((&problem["status"], &problem["cause"]), (&json!(502), &json!("cancelled")));
    });
}

#[test]
fn without_an_answer_the_response_is_202_and_says_where_to_look() {
    let evoke = Evoke::up_with(&manifest("200ms"));
    let response = ask(&evoke, &json!({ "retry_ms": 3_600_000 }));
    assert_eq!((response.status, header(&response, "evoke-reply")), (202, "timeout"));
    let body = response.json();
    assert_eq!((&body["accepted"], &body["reply"]["state"]), (&json!(1), &json!("timeout")));
    let trace = format!("evoke trace {}", body["events"][0]["seq"]);
    assert!(body["reply"]["detail"].as_str().unwrap().contains(&trace), "{body}");
    drop(evoke);

    // When no function has anything left to do, the request does not wait for the time-out.
    let evoke = Evoke::up_with(&manifest("60s"));
    let started = Instant::now();
    let response = ask(&evoke, &json!({ "publish": [{ "type": "ignored", "data": {} }] }));
    assert_eq!((response.status, header(&response, "evoke-reply")), (202, "none"));
    assert!(started.elapsed() < Duration::from_secs(30));
    // Failures of the functions that only watch the runtime's events would not count, nor would their answers.
    assert_eq!(response.json()["reply"]["state"], "none");
}

#[test]
fn a_repeated_request_gets_the_answer_of_the_first_one() {
    let evoke = Evoke::up_with(&manifest("60s"));
    let body = json!({ "retry_ms": 300, "publish": [{ "type": "answer.yes", "status": "203", "data": 7 }] });
    let responses: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(|| ask_as(evoke.http(), "k", &body).unwrap())).collect();
        asked.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let again = ask_as(evoke.http(), "k", &body).unwrap();
    for response in responses.iter().chain([&again]) {
        assert_eq!((response.status, response.body.as_str()), (203, "7"), "{response:?}");
    }
    assert_eq!(evoke.events("answer.yes").len(), 1);
    // A sender that only knows the id does not get the reply.
    let stranger = ask_as(evoke.http(), "k", &json!({ "publish": [] })).unwrap();
    assert_eq!(stranger.status, 422, "{stranger:?}");
    assert!(!stranger.body.contains('7'), "{stranger:?}");
}

#[test]
fn the_answer_is_for_the_same_path_and_not_for_another_one_with_the_same_id() {
    let source =
        "path: \"/ask/{user}\", attributes: { user: \"{path.user}\", request: \"{header.x-request-id|none}\" }";
    let evoke = Evoke::up_with(&manifest("60s").replace("path: /ask", source));
    let body = json!({ "publish": [{ "type": "answer.yes", "data": 7 }] }).to_string();
    let ask_for = |path: &str, request_id: &str| {
        let headers = [JSON, ("idempotency-key", "k"), ("x-request-id", request_id)];
        post(evoke.http(), path, &headers, &body).unwrap()
    };
    assert_eq!((ask_for("/ask/ada", "1").status, ask_for("/ask/ada", "2").status), (200, 200));
    let other = ask_for("/ask/eve", "1");
    assert!(other.status == 422 && !other.body.contains('7'), "{other:?}");
    assert_eq!(evoke.events("answer.yes").len(), 1);
}

#[test]
fn a_client_that_repeats_its_request_after_a_kill_gets_the_answer() {
    let mut evoke = Evoke::up_with(&manifest("60s"));
    let address = evoke.http().to_owned();
    let body = json!({ "retry_ms": 500, "publish": [{ "type": "answer.yes", "data": 7 }] });
    let lost = std::thread::scope(|scope| {
        let request = scope.spawn(|| ask_as(&address, "k", &body));
        assert_eventually!(evoke.delivery_count("retrying") == 1, "no retry");
        evoke.kill();
        request.join().unwrap()
    });
    assert!(lost.is_err(), "{lost:?}");
    evoke.up();
    let response = ask_as(evoke.http(), "k", &body).unwrap();
    assert_eq!((response.status, response.body.as_str()), (200, "7"));
    assert_eq!(evoke.events("answer.yes").len(), 1);
}

#[test]
fn a_stop_ends_the_wait_with_a_response() {
    let mut evoke = Evoke::with(&manifest("60s"));
    evoke.up_with_arguments(&["--drain", "2s"]);
    let address = evoke.http().to_owned();
    let response = std::thread::scope(|scope| {
        let request = scope.spawn(|| ask_as(&address, "k", &json!({ "retry_ms": 3_600_000 })).unwrap());
        assert_eventually!(evoke.delivery_count("retrying") == 1, "no retry");
        assert!(evoke.stop().success());
        request.join().unwrap()
    });
    assert_eq!((response.status, header(&response, "evoke-reply")), (202, "stopping"));
}

#[test]
fn a_batch_is_refused_before_anything_is_stored() {
    let evoke = Evoke::up_with(&manifest("60s"));
    let batch = r#"[{"specversion":"1.0","id":"1","source":"/shop/ask","type":"asked","data":{"publish":[]}}]"#;
    let response = evoke.post_with("/ask", &[("content-type", "application/cloudevents-batch+json")], batch);
    assert_eq!(response.status, 400, "{response:?}");
    assert!(response.json()["detail"].as_str().unwrap().contains("without `reply`"), "{response:?}");
    assert!(evoke.json_lines(&["events"]).is_empty());
}

/// Opens a connection, sends a request that waits, and reads no response.
fn begin(evoke: &Evoke) -> TcpStream {
    let body = r#"{"retry_ms":3600000}"#;
    let mut stream = TcpStream::connect(evoke.http()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let head = format!("POST /ask HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    stream
}

#[test]
fn waiting_requests_are_bounded_and_those_of_clients_that_left_are_freed() {
    let evoke = Evoke::up_with(&manifest("60s"));
    // One source may own as many places as are free: half of 2,048.
    let mut waiting: Vec<_> = (0..1024).map(|_| begin(&evoke)).collect();
    assert_eventually!(evoke.delivery_count("retrying") == 1024, "{} retries", evoke.delivery_count("retrying"));
    let gauge = || scrape(&evoke).value("evoke_replies_waiting", &[]);
    assert_eq!(gauge(), 1024.0);
    let stored = evoke.events("asked").len();
    let mut response = String::new();
    begin(&evoke).read_to_string(&mut response).unwrap();
    let response = response.to_lowercase();
    assert!(response.starts_with("http/1.1 503 ") && response.contains("\r\nretry-after: 2\r\n"), "{response}");
    assert_eq!(evoke.events("asked").len(), stored, "nothing of a refused request is stored");
    assert_eq!(evoke.post("/tell", r#"{"publish": []}"#).status, 202, "other requests are accepted");
    waiting.clear();
    let answer = json!({ "publish": [{ "type": "answer.yes", "data": 7 }] });
    assert_eventually!(ask(&evoke, &answer).status == 200, "the places are not free");
    assert_eventually!(gauge() == 0.0, "{} requests wait", gauge());
}
