//! Functions send requests: to what their manifest grants, and to nothing else.

mod escapes;
mod network;
pub(crate) mod peer;
mod secrets;
mod trust;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::{Evoke, descriptors, request};
use crate::telemetry::collector::{Collector, Reply};
use peer::Peer;

/// A manifest with the fixture `call` as the only function, and these entries of `allow.http`.
pub(crate) fn manifest(grants: &str) -> String {
    format!(
        "
evoke: 1
app: lab
sources:
  in: {{ http: {{ path: /in, type: lab.in }} }}
functions:
  call:
    component: $FUNCTIONS/call.wasm
    on: [{{ source: in }}]
    timeout: 20s
    retry: {{ attempts: 1 }}
    allow:
      publish: [called]
      http: {grants}
"
    )
}

/// An entry of `allow.http` for a peer on this machine.
fn grant(peer: &Peer) -> String {
    format!("{{ url: \"{}\", addresses: [127.0.0.1] }}", peer.url())
}

/// Sends an event to the function, and returns what it published.
pub(crate) fn call(evoke: &Evoke, order: &Value) -> Vec<Value> {
    let before = evoke.events("called").len();
    evoke.post_accepted("/in", &order.to_string());
    evoke.settle();
    evoke.events("called").into_iter().skip(before).map(|event| event["data"].clone()).collect()
}

/// The messages of the dead letters, oldest first.
fn dead(evoke: &Evoke) -> Vec<String> {
    let text = |letter: &Value| letter.to_string();
    evoke.json_lines(&["dead", "list"]).iter().map(text).collect()
}

#[test]
fn handlers_commands_and_http_components_reach_a_granted_peer_and_no_other() {
    let (peer, other) = (Peer::start(peer::ok), Peer::start(peer::ok));
    let grant = grant(&peer);
    let mut text = manifest(&format!("[{grant}]"));
    text += &format!(
        "
  program:
    component: $FUNCTIONS/command-call.wasm
    on: [{{ http: {{ path: /program, type: lab.program }} }}]
    retry: {{ attempts: 1 }}
    allow: {{ publish: [called], http: [{grant}] }}
  web:
    component: $FUNCTIONS/http-call.wasm
    on: [{{ http: {{ path: /web, methods: [GET] }} }}]
    allow: {{ http: [{grant}] }}
"
    );
    let evoke = Evoke::up_with(&text);

    let called = call(&evoke, &json!({ "url": format!("{}/a?b=1", peer.url()), "method": "POST", "bytes": 100_000 }));
    assert_eq!((&called[0]["status"], &called[0]["body"]), (&json!(200), &json!("ok")), "{called:?}");
    let seen = peer.seen();
    assert!(seen[0].head.starts_with("POST /a?b=1 HTTP/1.1\r\n"), "{}", seen[0].head);
    assert_eq!(seen[0].body.len(), 100_000);
    let refused = call(&evoke, &json!({ "url": other.url() }));
    assert_eq!(refused, [json!({ "error": "HTTP: the request is not allowed" })]);

    evoke.post_accepted("/program", &json!({ "host": peer.host() }).to_string());
    evoke.settle();
    assert_eq!(evoke.events("called").last().unwrap()["data"]["status"], 200);
    evoke.post_accepted("/program", &json!({ "host": other.host() }).to_string());
    evoke.settle();
    let letters = dead(&evoke);
    assert!(letters[0].contains("not granted") && letters[0].contains(&other.url()), "{letters:?}");

    let web = |host: &str| request("GET", evoke.http(), "/web", &[("x-host", host)], "").unwrap();
    let answer = web(peer.host());
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
    let answer = web(other.host());
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("HttpRequestDenied"), "{}", answer.body);
    assert_eq!(other.connections(), 0);
    let logs = || evoke.stdout(&["logs"]);
    assert_eventually!(
        logs().matches(&format!("requests to {} are not granted", other.url())).count() >= 3,
        "{}",
        logs()
    );
}

#[test]
fn a_refused_request_is_the_cause_of_the_dead_letter_and_names_the_line_to_add() {
    let peer = Peer::start(peer::ok);
    let mut evoke = Evoke::up_with(&manifest("[\"https://api.example\"]"));
    assert_eq!(call(&evoke, &json!({ "url": peer.url(), "fail": true })), [] as [Value; 0]);
    let letters = evoke.json_lines(&["dead", "list"]);
    let text = letters[0].to_string();
    assert!(text.contains("denied"), "{text}");
    let message = format!("requests to {} are not granted; to allow them, add to the function's `allow`", peer.url());
    assert!(text.contains(&message), "{text}");
    // A grant without `addresses` does not reach this machine, and the message has the entry that does.
    evoke.stop();
    evoke.write_manifest(&manifest(&format!("[\"{}\"]", peer.url())));
    evoke.up();
    assert_eq!(call(&evoke, &json!({ "url": peer.url(), "fail": true })), [] as [Value; 0]);
    let text = evoke.json_lines(&["dead", "list"]).iter().map(Value::to_string).collect::<String>();
    assert!(text.contains("addresses: [\\\"127.0.0.1\\\"]"), "{text}");
    assert_eq!(peer.connections(), 0);
}

#[test]
fn a_secret_in_a_header_reaches_the_peer_and_no_text_of_the_function() {
    // The peer returns what it received, so the function sees the value and publishes it.
    let peer = Peer::start(|seen| peer::response("200 OK", &[], seen.head.as_bytes()));
    let mut evoke = Evoke::with(&manifest(&format!(
        "[{{ url: \"{}\", addresses: [127.0.0.1], headers: {{ authorization: \"Bearer {{secret.PEER_TOKEN}}\", x-file: \"{{secret.FILE}}\" }}, secrets: {{ FILE: {{ file: ./token }} }} }}]",
        peer.url()
    )));
    std::fs::write(evoke.path("token"), "from-a-file-0123\n").unwrap();
    evoke.set_environment(&[("PEER_TOKEN", "zq-peer-token-0123")]);
    evoke.up();
    let order = json!({ "url": peer.url(), "headers": { "authorization": "Bearer mine" } });
    let called = call(&evoke, &order);
    let seen = peer.seen();
    assert!(seen[0].head.contains("authorization: Bearer zq-peer-token-0123\r\n"), "{}", seen[0].head);
    assert!(seen[0].head.contains("x-file: from-a-file-0123\r\n"), "{}", seen[0].head);
    assert!(!seen[0].head.contains("Bearer mine"), "{}", seen[0].head);
    assert_eq!(called[0]["status"], 200);
    let shown = [evoke.stdout(&["logs"]), evoke.log(), evoke.stdout(&["status"])].concat();
    assert!(!shown.contains("zq-peer-token") && !shown.contains("from-a-file"), "{shown}");
    let status = evoke.run(&["validate"]);
    assert!(!String::from_utf8_lossy(&status.stdout).contains("zq-peer-token"));
}

#[test]
fn a_missing_secret_of_a_header_is_reported_with_its_place() {
    let grant = "[{ url: \"https://api.example\", headers: { authorization: \"{secret.NO_SUCH_TOKEN}\" } }]";
    let evoke = Evoke::with(&manifest(grant));
    // A machine that only checks manifests need not have the secret.
    assert!(evoke.run(&["validate"]).status.success());
    let output = evoke.run(&["up", "--check", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains("NO_SUCH_TOKEN is not set") && text.contains("evoke.yaml:"), "{text}");
}

#[test]
fn a_request_that_is_not_safe_has_the_same_key_on_each_attempt() {
    let peer = Peer::start(|_| peer::response("503 Service Unavailable", &["retry-after: 0"], b""));
    let text = manifest(&format!("[{}]", grant(&peer))).replace("attempts: 1", "attempts: 2, backoff: 1ms");
    let evoke = Evoke::up_with(&text);
    evoke.post_accepted("/in", &json!({ "url": peer.url(), "method": "POST", "ok": true }).to_string());
    evoke.settle();
    let keys = |peer: &Peer| -> Vec<Option<String>> {
        peer.seen().iter().map(|seen| seen.header("idempotency-key")).collect()
    };
    let sent = keys(&peer);
    assert_eq!(sent.len(), 2, "{sent:?}");
    assert!(sent[0].is_some() && sent[0] == sent[1], "{sent:?}");
    let peer = Peer::start(peer::ok);
    let evoke = Evoke::up_with(&manifest(&format!("[{}]", grant(&peer))));
    call(&evoke, &json!({ "url": peer.url(), "method": "PUT", "times": 2 }));
    call(&evoke, &json!({ "url": peer.url() }));
    call(&evoke, &json!({ "url": peer.url(), "method": "POST", "no_key": true }));
    let sent = keys(&peer);
    let first = sent[0].clone().unwrap();
    assert_eq!(sent, [Some(first.clone()), Some(format!("{first}-2")), None, None]);
}

#[test]
fn a_peer_that_never_answers_ends_at_the_limits_and_leaves_nothing_behind() {
    let silent = Peer::start(|_| Vec::new());
    let evoke = Evoke::up_with(&manifest(&format!("[{}]", grant(&silent))).replace("timeout: 20s", "timeout: 1s"));
    call(&evoke, &json!({ "url": silent.url(), "timeout_ms": 50 }));
    let before = descriptors(evoke.pid());
    let started = Instant::now();
    let called = call(&evoke, &json!({ "url": silent.url(), "timeout_ms": 200 }));
    assert_eq!(called, [json!({ "error": "HTTP: the response did not arrive in time" })]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    // The attempt's own deadline, in the middle of a call.
    assert_eq!(call(&evoke, &json!({ "url": silent.url() })), [] as [Value; 0]);
    assert!(dead(&evoke)[0].contains("timeout"), "{:?}", dead(&evoke));
    assert_eventually!(descriptors(evoke.pid()) <= before, "{} descriptors, {before} before", descriptors(evoke.pid()));
    assert_eventually!(silent.open() == 0, "{} connections are open", silent.open());
}

#[test]
fn large_responses_and_heads_are_refused_and_the_function_goes_on() {
    let peer = Peer::start(|seen| match seen.path() {
        "/head" => peer::response("200 OK", &[&format!("x: {}", "y".repeat(70_000))], b""),
        "/many" => {
            let headers: Vec<String> = (0..120).map(|n| format!("x-{n}: 1")).collect();
            peer::response("200 OK", &headers.iter().map(String::as_str).collect::<Vec<_>>(), b"")
        }
        "/body" => peer::response("200 OK", &[], &vec![b'x'; 9 << 20]),
        _ => peer::ok(seen),
    });
    let evoke = Evoke::up_with(
        &manifest(&format!("[{}]", grant(&peer))).replace("timeout: 20s", "timeout: 20s\n    memory: 64MiB"),
    );
    for path in ["/head", "/many", "/body"] {
        let called = call(&evoke, &json!({ "url": format!("{}{path}", peer.url()) }));
        assert!(called[0]["error"].is_string(), "{path}: {called:?}");
    }
    let called = call(&evoke, &json!({ "url": peer.url() }));
    assert_eq!(called[0]["status"], 200);
}

#[test]
fn a_computing_neighbour_does_not_delay_the_response() {
    let peer = Peer::start(peer::ok);
    let mut text = manifest(&format!("[{}]", grant(&peer)));
    text += "
  spin:
    component: $FUNCTIONS/fate-timeout.wasm
    on: [{ http: { path: /spin, type: lab.spin } }]
    timeout: 10s
    retry: { attempts: 1 }
    concurrency: 16
";
    let evoke = Evoke::up_with(&text);
    (0..8).for_each(|_| drop(evoke.post_accepted("/spin", "{}")));
    let started = Instant::now();
    evoke.post_accepted("/in", &json!({ "url": peer.url(), "times": 20 }).to_string());
    assert_eventually!(evoke.events("called").len() == 20, "{:?}", evoke.events("called"));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn requests_are_counted_logged_and_part_of_the_trace() {
    let collector = Collector::start(Reply::Ok);
    let peer = Peer::start(peer::ok);
    let mut evoke = Evoke::with(&manifest(&format!("[{}]", grant(&peer))));
    evoke.set_environment(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.endpoint())]);
    evoke.up();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let headers = [
        ("content-type", "application/json"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    let response = evoke.post_with("/in", &headers, &json!({ "url": peer.url() }).to_string());
    evoke.settle();
    let id = response.json()["events"][0]["id"].as_str().unwrap().to_owned();
    let shown = evoke.stdout(&["trace", &id]);
    assert!(shown.contains("GET 127.0.0.1 200 in "), "{shown}");
    assert_eq!(peer.seen()[0].header("evoke-hops").as_deref(), Some("1"));
    let parent = peer.seen()[0].header("traceparent").unwrap();
    assert_eq!(parent.split('-').nth(1), Some(trace), "{parent}");
    // The other spans are of the acceptance, the attempt and the published event.
    let spans = collector.spans(4);
    let span = spans.iter().find(|span| span.name == "GET").unwrap_or_else(|| panic!("{spans:?}"));
    assert_eq!(span.trace, trace);
    assert_eq!(parent.split('-').nth(2), Some(span.id.as_str()));
    assert_eq!(span.attributes["http.response.status_code"], "200");
    assert_eq!(span.attributes["server.address"], "127.0.0.1");
    let metrics = evoke.get_admin("/metrics", &[]).body;
    let line = r#"evoke_outbound_requests_total{function="lab/call",host="127.0.0.1",outcome="2xx"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
    let logs = || evoke.stdout(&["logs"]);
    assert_eventually!(logs().contains("GET 127.0.0.1 200 in "), "{}", logs());
}

#[test]
fn validate_warns_of_a_component_without_the_grant_and_of_grants_that_cannot_work() {
    let evoke = Evoke::with(&manifest("[]"));
    let text = String::from_utf8(evoke.run(&["validate"]).stderr).unwrap();
    assert!(text.contains("`call` imports wasi:http"), "{text}");
    let evoke = Evoke::with(&manifest("[\"http://10.0.0.1\", \"http://localhost:8080\"]"));
    let text = String::from_utf8(evoke.run(&["validate"]).stderr).unwrap();
    assert!(text.contains("each request to `http://10.0.0.1:80` is refused: the address is private"), "{text}");
    assert!(text.contains("`http://localhost:8080` is refused"), "{text}");
}

#[test]
fn calls_at_once_are_bounded_and_others_succeed() {
    let gate = Arc::new(std::sync::Barrier::new(2));
    let waiting = gate.clone();
    let peer = Peer::start(move |seen| {
        if seen.path() == "/wait" {
            waiting.wait();
        }
        peer::ok(seen)
    });
    let evoke = Evoke::up_with(&manifest(&format!("[{}]", grant(&peer))));
    evoke.post_accepted("/in", &json!({ "url": format!("{}/wait", peer.url()) }).to_string());
    assert_eventually!(!peer.seen().is_empty(), "the request does not arrive");
    let (before, url) = (evoke.events("called").len(), peer.url());
    (0..50).for_each(|_| drop(evoke.post_accepted("/in", &json!({ "url": url }).to_string())));
    assert_eventually!(evoke.events("called").len() == before + 50, "{:?}", evoke.events("called").len());
    gate.wait();
    evoke.settle();
    assert!(evoke.events("called").iter().all(|event| event["data"]["status"] == 200));
}

#[test]
fn requests_that_a_function_starts_at_once_continue_while_it_waits_for_the_first() {
    let all_arrived = std::sync::Barrier::new(3);
    let peer = Peer::start(move |seen| {
        all_arrived.wait();
        peer::ok(seen)
    });
    let evoke = Evoke::up_with(&format!(
        "
evoke: 1
app: lab
functions:
  program:
    component: $FUNCTIONS/command-call.wasm
    on: [{{ http: {{ path: /in, type: lab.in }} }}]
    retry: {{ attempts: 1 }}
    allow: {{ publish: [called], http: [{}] }}
",
        grant(&peer)
    ));
    // The second time, the connections exist.
    for total in [3, 6] {
        evoke.post_accepted("/in", &json!({ "host": peer.host(), "requests": 3 }).to_string());
        evoke.settle();
        assert_eq!((evoke.events("called").len(), dead(&evoke).len()), (total, 0), "{:?}", dead(&evoke));
    }
    assert_eq!(peer.seen().len(), 6);
}
