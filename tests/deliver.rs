//! Functions with `deliver`: each event is sent to an endpoint of the test.

mod campaign;
mod clock;
mod endpoint;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use self::endpoint::{Endpoint, Received};
use crate::assert_eventually;
use crate::support::Evoke;
use crate::telemetry::scrape;

/// A function `lab/send` with these settings, and the event type `lab.in` at `/in`.
fn manifest(url: &str, deliver: &str, function: &str) -> String {
    format!(
        "evoke: 1
app: lab
sources:
  in: {{ http: {{ path: /in, type: lab.in }} }}
functions:
  send:
    deliver:
      url: \"{url}\"
      addresses: [127.0.0.1]
{deliver}
    on: [{{ events: {{ type: [lab.in] }} }}]
{function}
"
    )
}

fn up(url: &str, deliver: &str, function: &str) -> Evoke {
    Evoke::up_with(&manifest(url, deliver, function))
}

/// An evoke with secrets in its environment.
fn up_with_secrets(url: &str, deliver: &str) -> Evoke {
    let mut evoke = Evoke::with(&manifest(url, deliver, ""));
    evoke.set_environment(&[("SIGNING", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), ("TOKEN", "hunter2/hunter2")]);
    evoke.up();
    evoke
}

fn send(evoke: &Evoke) -> Value {
    evoke.function_status("lab/send")
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn an_event_arrives_whole_signed_and_with_one_key_for_all_attempts() {
    let endpoint = Endpoint::start(|_| (503, Vec::new(), String::new()));
    let sign = "      sign: { standard-webhooks: { secret: { env: SIGNING } } }";
    let mut evoke =
        Evoke::with(&manifest(&endpoint.url("/hooks?a=b"), sign, "    retry: { attempts: 2, backoff: 10ms }"));
    evoke.set_environment(&[("SIGNING", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]);
    evoke.up();
    let id = evoke.post_accepted("/in", r#"{"total":12.50}"#);
    evoke.settle();
    let received = endpoint.received();
    assert_eq!(received.len(), 2);
    assert_eq!(received[0].key(), received[1].key());
    let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    for request in &received {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hooks?a=b"));
        assert_eq!(request.headers["content-type"], "application/cloudevents+json");
        let (id, time) = (&request.headers["webhook-id"], &request.headers["webhook-timestamp"]);
        assert_eq!(id, request.key());
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(time.parse().unwrap()) < 60);
        let expected = STANDARD.encode(hmac(&key, &format!("{id}.{time}.{}", request.body)));
        assert_eq!(request.headers["webhook-signature"], format!("v1,{expected}"));
        assert!(request.body.contains("12.50"), "numbers keep their digits: {}", request.body);
    }
    let event = received[0].json();
    assert_eq!((&event["id"], &event["source"], &event["type"]), (&json!(id), &json!("/lab/in"), &json!("lab.in")));
    let letter = evoke.json_lines(&["dead", "list"]).remove(0);
    let cause = letter["delivery"]["cause"].as_str().unwrap();
    assert_eq!(
        cause,
        "gave up after 2 attempts; the last attempt had the outcome `endpoint-failed`: 503 Service Unavailable"
    );
}

#[test]
fn a_renamed_function_sends_what_waits_with_the_same_keys() {
    let is_up = Arc::new(AtomicBool::new(false));
    let works = is_up.clone();
    let endpoint =
        Endpoint::start(move |_| (if works.load(Ordering::SeqCst) { 204 } else { 503 }, Vec::new(), String::new()));
    let policy = "    retry: { attempts: 100, backoff: 10ms, max_backoff: 20ms }";
    let before = manifest(&endpoint.url("/"), "", policy);
    let mut evoke = Evoke::up_with(&before);
    let ids: BTreeSet<_> = (0..3).map(|_| evoke.post_accepted("/in", "{}")).collect();
    let keys = |status: u16| {
        let all = endpoint.received();
        all.iter().filter(|one| one.status == status).map(|one| one.key().to_owned()).collect::<BTreeSet<_>>()
    };
    assert_eventually!(keys(503).len() == 3, "{}", evoke.log());
    evoke.kill();
    evoke.write_manifest(&before.replace("  send:", "  ship:\n    was: [send]"));
    is_up.store(true, Ordering::SeqCst);
    evoke.up();
    assert!(evoke.log().contains("lab/ship takes over from lab/send: 3 pending deliveries"), "{}", evoke.log());
    evoke.settle();
    let taken: Vec<_> = endpoint.received().into_iter().filter(|one| one.status == 204).collect();
    assert_eq!((taken.len(), keys(204)), (3, keys(503)));
    assert_eq!(taken.iter().map(|one| one.json()["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>(), ids);
    evoke.stdout(&["check"]);
}

#[test]
fn a_body_of_its_own_is_signed_by_hmac_and_no_secret_is_shown() {
    // An endpoint that sends back what it received, as some do in their error messages.
    let endpoint = Endpoint::start(|request| {
        let echo = format!("bad token {}", request.headers["authorization"]);
        if request.body.contains("wrong") { (422, Vec::new(), echo) } else { (201, Vec::new(), "ok".into()) }
    });
    let deliver = r#"      method: PUT
      headers: { Authorization: "Bearer {secret.TOKEN}", x-type: "{type}/{data.name|none}" }
      body: { text: "total of {data.name}: {data.total}", total: "{data.total}", list: ["{data.items}"] }
      secrets: { TOKEN: { env: TOKEN } }
      sign: { hmac: { header: X-Signature, prefix: "sha256=", secret: { env: SIGNING } } }"#;
    let evoke = up_with_secrets(&endpoint.url("/orders/{data.id}/{secret.TOKEN}"), deliver);
    let id = evoke.post_accepted("/in", r#"{"id":"a/b","name":"say \"hi\"","total":12.50,"items":[1,{"a":null}]}"#);
    evoke.settle();
    let request = endpoint.received().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("PUT", "/orders/a%2Fb/hunter2/hunter2"));
    assert_eq!(request.headers["authorization"], "Bearer hunter2/hunter2");
    assert_eq!(request.headers["x-type"], "lab.in/say \"hi\"");
    assert_eq!(request.headers["content-type"], "application/json");
    assert_eq!(request.body, r#"{"text":"total of say \"hi\": 12.50","total":12.50,"list":[[1,{"a":null}]]}"#);
    let expected = hmac(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &request.body);
    assert_eq!(request.headers["x-signature"], format!("sha256={}", hex(&expected)));
    let trace = evoke.stdout(&["trace", &id]);
    assert!(trace.contains("done 201 Created"), "{trace}");

    let id = evoke.post_accepted("/in", r#"{"id":"1","name":"wrong","total":1,"items":[]}"#);
    evoke.settle();
    let everything = [
        evoke.stdout(&["trace", &id]),
        evoke.stdout(&["status"]),
        evoke.stdout(&["status", "--json"]),
        evoke.stdout(&["dead", "list", "--json"]),
        evoke.stdout(&["events", "--after", "0", "--json"]),
        evoke.log(),
    ]
    .concat();
    assert!(everything.contains("422 Unprocessable Entity: bad token Bearer [secret TOKEN]"), "{everything}");
    assert!(!everything.contains("hunter2") && !everything.contains("whsec_"), "{everything}");
    assert_eq!(send(&evoke)["endpoint"], format!("{}…", endpoint.url("/")));
}

#[test]
fn an_endpoint_that_sends_a_secret_back_at_the_limit_of_a_message_shows_no_part_of_it() {
    // A message has 200 characters of a body or of a location.
    let endpoint = Endpoint::start(|request| {
        let text = format!("/{}{}", "x".repeat(186), request.headers["authorization"]);
        if request.body.contains("move") {
            (302, vec![("location", text)], String::new())
        } else {
            (422, Vec::new(), text)
        }
    });
    let deliver = r#"      headers: { Authorization: "Bearer {secret.TOKEN}" }
      secrets: { TOKEN: { env: TOKEN } }
      sign: { hmac: { header: X-Signature, secret: { env: SIGNING } } }"#;
    let evoke = up_with_secrets(&endpoint.url("/"), deliver);
    for name in ["move", "fail"] {
        evoke.post_accepted("/in", &format!(r#"{{"name":"{name}"}}"#));
    }
    evoke.settle();
    let everything = [&["dead", "list", "--json"][..], &["events", "--after", "0", "--json"]];
    let everything = everything.map(|arguments| evoke.stdout(arguments)).concat() + &evoke.log();
    assert!(everything.contains("422 Unprocessable") && everything.contains("302 Found to /xxx"), "{everything}");
    assert!(!everything.contains("hunter"), "{everything}");
}

#[test]
fn binary_mode_puts_the_attributes_into_headers() {
    let endpoint = Endpoint::that_takes_all();
    let evoke = up(&endpoint.url(""), "      mode: binary", "");
    let id = evoke.post_accepted("/in", r#"{"a":1}"#);
    evoke.settle();
    let request = endpoint.received().remove(0);
    assert_eq!((request.path.as_str(), request.body.as_str()), ("/", r#"{"a":1}"#));
    for (name, value) in
        [("ce-id", id.as_str()), ("ce-type", "lab.in"), ("ce-specversion", "1.0"), ("content-type", "application/json")]
    {
        assert_eq!(request.headers[name], value);
    }
}

#[test]
fn each_status_of_the_endpoint_has_its_consequence() {
    let (status, location) = (Arc::new(AtomicU16::new(200)), "http://127.0.0.1:1/elsewhere");
    let answers = status.clone();
    let endpoint = Endpoint::start(move |_| {
        let status = answers.swap(200, Ordering::SeqCst);
        let headers = match status {
            429 => vec![("retry-after", "2".to_owned())],
            302 => vec![("location", location.to_owned())],
            _ => Vec::new(),
        };
        (status, headers, "why".into())
    });
    let evoke = up(&endpoint.url("/"), "", "    retry: { backoff: 10ms }");
    for (answer, cause) in [
        (400, "reject: 400 Bad Request: why"),
        (404, "reject: 404 Not Found: why"),
        (
            302,
            "reject: 302 Found to http://127.0.0.1:1/elsewhere: redirects are not followed; write the final URL in `deliver.url`",
        ),
    ] {
        status.store(answer, Ordering::SeqCst);
        evoke.post_accepted("/in", "{}");
        evoke.settle();
        let letter = evoke.json_lines(&["dead", "list"]).remove(0);
        assert_eq!(letter["delivery"]["cause"], cause);
        assert_eq!(letter["delivery"]["attempts"].as_array().unwrap().len(), 1);
    }
    for answer in [500, 408, 425] {
        status.store(answer, Ordering::SeqCst);
        let id = evoke.post_accepted("/in", "{}");
        evoke.settle();
        let attempts = evoke.json(&["trace", &id])["deliveries"][0]["attempts"].clone();
        assert_eq!((&attempts[0]["outcome"], &attempts[1]["outcome"]), (&json!("endpoint-failed"), &json!("done")));
        assert_eq!(attempts[1]["message"], "200 OK");
    }
    status.store(429, Ordering::SeqCst);
    let before = endpoint.count();
    let first = evoke.post_accepted("/in", "{}");
    let attempts = || evoke.json(&["trace", &first])["deliveries"][0]["attempts"].as_array().map_or(0, Vec::len);
    assert_eventually!(attempts() == 1, "{}", evoke.log());
    // Others wait, too: the endpoint asked for it.
    evoke.post_accepted("/in", "{}");
    evoke.settle();
    let received = endpoint.received().split_off(before);
    assert_eq!(received.iter().map(|request| request.status).collect::<Vec<_>>(), [429, 200, 200]);
    let wait = received[1].at - received[0].at;
    assert!(wait >= Duration::from_secs(2), "{wait:?}");
    evoke.stdout(&["check"]);
}

#[test]
fn an_endpoint_that_is_gone_stops_its_function_and_loses_nothing() {
    let is_gone = Arc::new(AtomicBool::new(true));
    let gone = is_gone.clone();
    let endpoint = Endpoint::start(move |_| {
        let status = if gone.load(Ordering::SeqCst) { 410 } else { 204 };
        (status, Vec::new(), "moved out".into())
    });
    let function = "    retry: { attempts: 1 }
  note:
    component: $FUNCTIONS/echo.wasm
    allow: { publish: [echo] }
    on: [{ events: { type: [evoke.function.paused] } }]";
    let mut evoke = up(&endpoint.url("/"), "", function);
    evoke.post_accepted("/in", "{}");
    assert_eventually!(evoke.events("echo").len() == 1, "{}", evoke.log());
    let paused = evoke.events("evoke.function.paused").remove(0);
    assert_eq!(paused["subject"], "lab/send");
    let reason = paused["data"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the endpoint is gone: 410 Gone: moved out (delivery "), "{reason}");
    // The stop survives a kill.
    evoke.kill();
    evoke.up();
    let requests = endpoint.count();
    for _ in 0..3 {
        evoke.post_accepted("/in", "{}");
    }
    let function = send(&evoke);
    assert_eq!((&function["ready"], &function["paused_reason"]), (&json!(4), &json!(reason)));
    assert!(evoke.stdout(&["status"]).contains("because the endpoint is gone: 410 Gone"));
    assert_eq!((endpoint.count(), evoke.delivery_count("dead")), (requests, 0));
    is_gone.store(false, Ordering::SeqCst);
    evoke.stdout(&["resume", "lab/send"]);
    evoke.settle();
    assert_eq!(endpoint.received().iter().filter(|request| request.status == 204).count(), 4);
    assert_eq!(evoke.delivery_count("dead"), 0);
    evoke.stdout(&["check"]);
}

/// Returns the numbers that each key received with a successful status, without repetitions.
fn numbers_by_key(received: &[Received]) -> BTreeMap<u64, Vec<u64>> {
    let mut keys: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for request in received.iter().filter(|request| request.status == 204) {
        let data = request.json()["data"].clone();
        let numbers = keys.entry(data["key"].as_u64().unwrap()).or_default();
        let number = data["n"].as_u64().unwrap();
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    keys
}

#[test]
fn an_endpoint_that_is_down_opens_its_circuit_and_later_gets_everything_in_order_by_key() {
    let is_down = Arc::new(AtomicBool::new(true));
    let down = is_down.clone();
    let endpoint =
        Endpoint::start(move |_| (if down.load(Ordering::SeqCst) { 503 } else { 204 }, Vec::new(), String::new()));
    let function = "    order_by: data.key
    retry: { backoff: 10ms, max_backoff: 100ms }
  other:
    component: $FUNCTIONS/fate-done.wasm
    on: [{ events: { type: [lab.in] } }]";
    let mut evoke = up(&endpoint.url("/"), "", function);
    for n in 0..60 {
        evoke.post_accepted("/in", &json!({ "key": n % 6, "n": n }).to_string());
    }
    assert_eventually!(evoke.events("evoke.circuit.opened").len() == 1, "{}", evoke.log());
    assert_eventually!(evoke.done_count("lab/other") == 60, "{}", evoke.log());
    let opened = evoke.events("evoke.circuit.opened").remove(0);
    assert_eq!((&opened["subject"], &opened["data"]["outcome"]), (&json!("lab/send"), &json!("endpoint-failed")));
    assert!(evoke.stdout(&["status"]).contains("deliveries of lab/send wait, because the circuit"));
    assert_eq!(scrape(&evoke).value("evoke_circuit_open", &[("function", "lab/send")]), 1.0);
    // A restart knows the open circuit, and reports it no second time.
    evoke.kill();
    evoke.up();
    let before = endpoint.count();
    assert_eventually!(endpoint.count() > before, "{}", evoke.log());
    assert!(send(&evoke)["circuit"].as_str().unwrap().starts_with("since "));
    assert_eq!((&send(&evoke)["dead"], evoke.events("evoke.circuit.opened").len()), (&json!(0), 1));
    is_down.store(false, Ordering::SeqCst);
    evoke.settle();
    assert_eventually!(evoke.events("evoke.circuit.closed").len() == 1, "{}", evoke.log());
    for (key, numbers) in numbers_by_key(&endpoint.received()) {
        assert_eq!(numbers, (0..10).map(|n| n * 6 + key).collect::<Vec<_>>(), "key {key}");
    }
    let function = send(&evoke);
    assert_eq!((&function["done"], &function["dead"], &function["circuit"]), (&json!(60), &json!(0), &Value::Null));
    evoke.stdout(&["check"]);
}

#[test]
fn a_rate_bounds_the_requests_of_a_backlog() {
    let endpoint = Endpoint::that_takes_all();
    let evoke = up(&endpoint.url("/"), "      rate: 20/s", "");
    evoke.stdout(&["pause", "lab/send"]);
    for _ in 0..30 {
        evoke.post_accepted("/in", "{}");
    }
    evoke.stdout(&["resume", "lab/send"]);
    evoke.settle();
    let received = endpoint.received();
    let (first, last) = (received[0].at, received[29].at);
    // 29 intervals of 50 ms, less what a late start may catch up.
    assert!(last - first >= Duration::from_millis(1_400), "{:?}", last - first);
}

#[test]
fn an_endpoint_that_never_responds_or_never_ends_its_response_holds_no_place_for_long() {
    let endpoint = Endpoint::start(|request| {
        if request.body.contains("silent") {
            std::thread::sleep(Duration::from_secs(5));
        }
        // The body ends before its length.
        (200, vec![("content-length", "100000".into())], "x".into())
    });
    let evoke = up(&endpoint.url("/"), "", "    timeout: 2s\n    retry: { attempts: 1 }");
    let attempt = |body: &str| {
        let id = evoke.post_accepted("/in", body);
        evoke.settle();
        let attempt = evoke.json(&["trace", &id])["deliveries"][0]["attempts"][0].clone();
        (attempt["outcome"].clone(), attempt["message"].clone(), attempt["duration_us"].as_u64().unwrap())
    };
    let (outcome, message, took_us) = attempt(r#"{"a":"silent"}"#);
    assert_eq!((outcome, message), (json!("timeout"), json!("reached its timeout of 2s")));
    assert!((1_900_000..2_200_000).contains(&took_us), "{took_us}");
    let (outcome, message, took_us) = attempt("{}");
    assert_eq!((outcome, message), (json!("done"), json!("200 OK")));
    assert!(took_us < 1_500_000, "{took_us}");
}

#[test]
fn a_private_address_is_refused_before_the_start_or_at_the_attempt() {
    let endpoint = Endpoint::that_takes_all();
    let not_allowed = |url: &str| manifest(url, "", "").replace("      addresses: [127.0.0.1]\n", "");
    let evoke = Evoke::with(&not_allowed(&endpoint.url("/")));
    let output = evoke.run(&["validate"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(message.contains("this machine (loopback)") && message.contains("addresses: [\"127.0.0.1\"]"), "{message}");

    let by_name = endpoint.url("/").replace("127.0.0.1", "localhost");
    let evoke = Evoke::up_with(&not_allowed(&by_name));
    evoke.post_accepted("/in", "{}");
    evoke.settle();
    let cause = evoke.json_lines(&["dead", "list"]).remove(0)["delivery"]["cause"].to_string();
    assert!(cause.contains("denied: ") && cause.contains("under `deliver`"), "{cause}");
    assert_eq!(endpoint.count(), 0);
}

#[test]
fn a_missing_secret_and_a_missing_field_are_reported() {
    let endpoint = Endpoint::that_takes_all();
    let deliver = "      headers: { x-key: \"{secret.TOKEN}\" }
      secrets: { TOKEN: { env: TOKEN_THAT_IS_NOT_SET } }
      body: { a: \"{data.a.b}\" }";
    let evoke = Evoke::with(&manifest(&endpoint.url("/"), deliver, ""));
    let output = evoke.run(&["validate"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(message.contains("the environment variable TOKEN_THAT_IS_NOT_SET is not set"), "{message}");

    let mut evoke = Evoke::with(&manifest(&endpoint.url("/"), deliver, ""));
    let path: Vec<(&str, PathBuf)> = vec![("TOKEN_THAT_IS_NOT_SET", "now it is".into())];
    evoke.try_up(&[], &path).unwrap();
    evoke.post_accepted("/in", r#"{"a":{"c":1}}"#);
    evoke.settle();
    let cause = evoke.json_lines(&["dead", "list"]).remove(0)["delivery"]["cause"].clone();
    let expected =
        "reject: the event has no value for `{data.a.b}` in the body; for a default, write `{data.a.b|DEFAULT}`";
    assert_eq!(cause, expected);
    assert_eq!(endpoint.count(), 0);
}
