//! Command-line programs and HTTP components that were built without the Evoke SDK run unchanged.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::{Evoke, TIMEOUT, request};

/// A manifest with one program behind an HTTP source, with two attempts for each delivery.
fn manifest(fixture: &str, extra: &str) -> String {
    format!(
        r#"
evoke: 1
app: lab
sources:
  in:
    http: {{ path: /in, type: order.placed }}
functions:
  price:
    component: $FUNCTIONS/{fixture}.wasm
    on:
      - events: {{ type: [order.placed] }}
    timeout: 5s
    retry: {{ attempts: 2, backoff: 1ms, max_backoff: 1ms }}
{extra}
"#
    )
}

const ALLOW: &str = "    allow: { publish: [order.priced, event.measured], config: { CURRENCY: EUR } }";

/// Sends an event. Returns the outcomes of its attempts and the message of the last attempt.
fn outcomes_of(evoke: &Evoke, body: &str) -> (Vec<String>, String) {
    let id = evoke.post_accepted("/in", body);
    evoke.settle();
    let trace = evoke.json(&["trace", &id]);
    let attempts = trace["deliveries"][0]["attempts"].as_array().unwrap().clone();
    let outcomes = attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap().to_owned()).collect();
    let message = attempts.last().unwrap()["message"].as_str().unwrap_or_default().to_owned();
    (outcomes, message)
}

/// Tests the outcomes that both builds of the Rust program share.
fn rust_program(fixture: &str) -> Evoke {
    let evoke = Evoke::up_with(&manifest(fixture, ALLOW));
    let (outcomes, _) = outcomes_of(&evoke, r#"{"items": ["tea", "cake"]}"#);
    assert_eq!(outcomes, ["done"]);
    let data: Vec<Value> = evoke.events("order.priced").iter().map(|event| event["data"].clone()).collect();
    let expected = ["tea", "cake"].map(|item| json!({ "item": item, "currency": "EUR" }));
    assert_eq!(data, expected);
    let event = &evoke.events("order.priced")[0];
    assert_eq!(event["source"], "/lab/price");
    assert!(event["id"].is_string() && event["time"].is_string(), "{event}");

    let (outcomes, message) = outcomes_of(&evoke, r#"{"do": "retry"}"#);
    assert_eq!((outcomes.join(" "), message.as_str()), ("retry retry".into(), "the price list is unavailable"));
    let (outcomes, message) = outcomes_of(&evoke, r#"{"do": "panic", "item": 7}"#);
    assert_eq!(outcomes, ["trap", "trap"]);
    assert!(message.contains("no price for 7"), "{message}");
    let (outcomes, message) = outcomes_of(&evoke, r#"{"do": "chatter"}"#);
    assert_eq!(outcomes, ["denied"]);
    assert!(message.starts_with("line 1 on stdout is not published: not a JSON object"), "{message}");
    let (outcomes, message) = outcomes_of(&evoke, r#"{"do": "sneak"}"#);
    assert_eq!(outcomes, ["denied"]);
    assert!(message.contains(r#"allow: { publish: ["payment.taken"] }"#), "{message}");
    let (outcomes, message) = outcomes_of(&evoke, r#"{"do": "pose"}"#);
    assert_eq!(outcomes, ["denied"]);
    assert!(message.contains("the type `evoke.delivery.dead` is reserved for Evoke's own events"), "{message}");
    // None of these published anything.
    assert_eq!(evoke.events("order.priced").len(), 2);
    assert_eq!(evoke.events("payment.taken").len(), 0);
    assert!(evoke.stdout(&["logs"]).contains("priced"));
    evoke
}

#[test]
fn a_rust_program_for_wasip2_runs_unchanged() {
    let evoke = rust_program("command");
    // A WASI 0.2 program can only report success or failure, no other exit code.
    assert_eq!(outcomes_of(&evoke, r#"{"do": "reject"}"#).0, ["retry", "retry"]);
}

#[test]
fn a_rust_program_for_wasip1_runs_unchanged() {
    let evoke = rust_program("command-p1");
    let (outcomes, message) = outcomes_of(&evoke, r#"{"do": "reject"}"#);
    assert_eq!(outcomes, ["reject"]);
    assert!(message.ends_with("is not an order"), "{message}");
}

#[test]
fn a_c_program_runs_unchanged() {
    let evoke = Evoke::up_with(&manifest("command-c", ALLOW));
    assert_eq!(outcomes_of(&evoke, r#"{"n": 1}"#).0, ["done"]);
    let bytes = evoke.events("event.measured")[0]["data"]["bytes"].as_u64().unwrap();
    assert!(bytes > 100, "{bytes}");
    let (outcomes, message) = outcomes_of(&evoke, r#""reject""#);
    assert_eq!((outcomes.join(" "), message.as_str()), ("reject".into(), "not for me"));
    let (outcomes, message) = outcomes_of(&evoke, r#""retry""#);
    assert_eq!((outcomes.join(" "), message.as_str()), ("retry retry".into(), "not now"));
    assert_eq!(outcomes_of(&evoke, r#""trap""#).0, ["trap", "trap"]);
}

/// A manifest with the fixture `http-answer` as the only function.
pub(crate) fn http_manifest(extra: &str) -> String {
    let fixture = "http-answer";
    format!(
        r#"
evoke: 1
app: lab
sources:
  in:
    http: {{ path: /in, type: order.placed }}
functions:
  web:
    component: $FUNCTIONS/{fixture}.wasm
    allow: {{ config: {{ CURRENCY: EUR }} }}
{extra}
"#
    )
}

pub(crate) const PATH: &str = "    on: [{ http: { path: /web, methods: [GET, HEAD, POST], max_body: 64KiB } }]\n";

fn status(evoke: &Evoke, target: &str) -> u16 {
    request("GET", evoke.http(), target, &[], "").unwrap().status
}

/// Opens a connection and sends the start of a request. Replaces each line feed by CR LF.
pub(crate) fn begin_request(evoke: &Evoke, start: &str) -> TcpStream {
    let mut stream = TcpStream::connect(evoke.http()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(start.replace('\n', "\r\n").as_bytes()).unwrap();
    stream
}

/// Reads until the bytes so far contain the text, and returns them.
fn read_until(stream: &mut TcpStream, text: &str) -> String {
    let mut read = Vec::new();
    let mut piece = [0; 1024];
    while !String::from_utf8_lossy(&read).contains(text) {
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "the stream ended without {text:?}: {}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&piece[..length]);
    }
    String::from_utf8(read).unwrap()
}

#[test]
fn an_http_component_answers_the_requests_to_its_path() {
    let evoke = Evoke::up_with(&http_manifest(PATH));
    let response = evoke.post("/web", "hello");
    assert_eq!((response.status, response.body.as_str()), (200, "hello"));
    assert_eq!(response.headers["x-currency"], "EUR");
    assert_eq!(status(&evoke, "/web?created"), 201);
    assert_eq!(request("HEAD", evoke.http(), "/web", &[], "").unwrap().status, 200);
    assert_eq!(status(&evoke, "/web?wrong-length"), 200);
    assert_eq!(status(&evoke, "/web/below"), 404);
    assert_eq!(request("PUT", evoke.http(), "/web", &[], "").unwrap().status, 405);
    assert_eq!(evoke.post("/web", &"x".repeat(65 * 1024)).status, 413);
    let large = "x".repeat(64 * 1024);
    assert_eq!(evoke.post("/web", &large).body, large);
    assert_eventually!(evoke.stdout(&["logs"]).contains("echoed"), "{}", evoke.stdout(&["logs"]));
    // Neither requests nor responses are stored.
    assert_eq!(evoke.stdout(&["events", "--json"]), "");
}

#[test]
fn request_and_response_bodies_are_streamed() {
    let evoke = Evoke::up_with(&http_manifest(PATH));
    let mut stream =
        begin_request(&evoke, "POST /web HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nConnection: close\n\n3\none\n");
    // The first chunk is echoed before the second is sent.
    let head = read_until(&mut stream, "one");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    stream.write_all(b"3\r\ntwo\r\n0\r\n\r\n").unwrap();
    let rest = read_until(&mut stream, "0\r\n\r\n");
    assert!(rest.contains("two"), "{rest}");
}

#[test]
fn a_failed_http_component_gets_a_problem_response_and_a_log_line() {
    let evoke = Evoke::up_with(&http_manifest(&format!("{PATH}    timeout: 1s")));
    for (query, expected, logged) in [
        ("trap", 502, "the query requested a trap"),
        ("silent", 502, "trap"),
        ("early", 502, ""),
        ("spin", 504, "timeout: reached its timeout of 1s"),
    ] {
        let response = request("GET", evoke.http(), &format!("/web?{query}"), &[], "").unwrap();
        assert_eq!(
            (response.status, &response.headers["content-type"]),
            (expected, &"application/problem+json".parse().unwrap())
        );
        assert_eq!(response.json()["status"], expected, "{query}");
        assert!(!response.body.contains("the query requested a trap"), "{response:?}");
        assert_eventually!(evoke.stdout(&["logs"]).contains(logged), "{query}: {}", evoke.stdout(&["logs"]));
    }
    // A response that has begun is cut off without its last chunk. Bytes that were not sent yet are dropped.
    for (query, part) in [("half", ""), ("hang", "and then")] {
        let mut stream = begin_request(&evoke, &format!("GET /web?{query} HTTP/1.1\nHost: a\nConnection: close\n\n"));
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let text = String::from_utf8(all).unwrap();
        assert!(text.contains(part) && !text.ends_with("0\r\n\r\n"), "{text:?}");
        // If nothing was sent yet, the client gets a complete problem response.
        let is_problem = text.starts_with("HTTP/1.1 502 ");
        assert_eq!(is_problem, text.contains("failed before it sent a response"), "{text:?}");
    }
    // The guest gets an error when the request body breaks off.
    let mut stream = begin_request(&evoke, "POST /web HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n20000\n");
    let _ = stream.write_all(&[b'x'; 0x20000]);
    let _ = stream.read_to_end(&mut Vec::new());
    assert_eventually!(evoke.stdout(&["logs"]).contains("the request body failed"), "{}", evoke.stdout(&["logs"]));
    assert_eq!(evoke.post("/web", "still there").body, "still there");
}

#[test]
fn concurrency_limits_requests_and_a_disconnected_client_frees_its_permit() {
    let evoke = Evoke::up_with(&http_manifest(&format!("{PATH}    concurrency: 1\n    timeout: 1m")));
    for query in ["flood", "hang", "spin"] {
        let mut stream = begin_request(&evoke, &format!("GET /web?{query} HTTP/1.1\nHost: a\n\n"));
        match query {
            "flood" => drop(read_until(&mut stream, "xxxx")),
            "hang" => drop(read_until(&mut stream, "and then")),
            _ => assert_eventually!(evoke.stdout(&["logs"]).contains("spinning"), "the guest does not spin"),
        }
        let response = request("GET", evoke.http(), "/web", &[], "").unwrap();
        assert_eq!((response.status, response.headers["retry-after"].as_bytes()), (503, &b"1"[..]), "{query}");
        drop(stream);
        assert_eventually!(
            status(&evoke, "/web") == 200,
            "{query} still holds its permit after its client disconnected"
        );
    }
}

#[test]
fn an_http_component_with_event_triggers_is_a_manifest_error() {
    for (extra, reason, help) in [
        ("    on: [{ events: { type: [order.placed] } }]", "so it receives no events", "on: [{ http:"),
        ("    on: [{ source: in }]", "so it receives no events", "on: [{ http:"),
        ("    on: [{ timer: { every: 1m } }]", "so it receives no events", "on: [{ http:"),
        ("    on: [{ http: { path: /web, type: a.b } }]", "so there are no events", "remove `type`"),
        ("    on: [{ http: { path: /web } }]\n    order_by: subject", "no deliveries to order", "remove `order_by`"),
    ] {
        let output = Evoke::with(&http_manifest(extra)).run(&["validate", "evoke.yaml"]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.contains(reason) && text.contains(help), "{extra}: {text}");
    }
}

#[test]
fn the_smallest_http_component_answers() {
    let manifest =
        http_manifest("    on: [{ http: { path: /hello, methods: [GET] } }]").replace("http-answer", "http-hello");
    let evoke = Evoke::up_with(&manifest);
    let response = request("GET", evoke.http(), "/hello", &[], "").unwrap();
    assert_eq!((response.status, response.body.as_str()), (200, "hello"));
    // A response that the guest completes within its first turn (at most 1 ms) is sent with a content length.
    let length = || request("GET", evoke.http(), "/hello", &[], "").unwrap().headers.get("content-length").cloned();
    assert_eventually!(length().is_some_and(|length| length == "5"), "no response has a content length");
}
