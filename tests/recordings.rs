//! Recorded attempts, and the tests that `evoke test --from` makes of them.

mod campaign;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::outbound::peer::{Peer, Seen, response};
use crate::support::{Evoke, get, request};

const SECRET: &str = "zqvw-0123456789";

/// A manifest whose functions are recorded. `more` is added to each of them.
fn manifest(peer: &Peer, record: &str) -> String {
    let http = format!("[{{ url: \"{}\", addresses: [127.0.0.1] }}]", peer.url());
    let retry = "retry: { attempts: 2, backoff: 1ms }";
    let mut text =
        "evoke: 1\napp: lab\nsources:\n  in: { http: { path: \"/in/{to}\", type: \"{path.to}\" } }\nfunctions:\n"
            .to_owned();
    let mut add = |name: &str, component: &str, allow: &str| {
        text += &format!(
            "  {name}:\n    component: $FUNCTIONS/{component}.wasm\n    on: [{{ source: in, events: {{ type: [{name}] }} }}]\n    \
             {retry}\n    record: {record}\n    allow: {allow}\n"
        );
    };
    let outside = format!(
        "{{ publish: [outside], state: true, http: {http}, config: {{ LIMIT: 7 }}, secrets: {{ KEY: {{ env: LAB_KEY }} }} }}"
    );
    add("outside", "read-outside", &outside);
    add("state", "state-ops", "{ publish: [\"*\"], state: { shared: true, max_total: 4KiB } }");
    add(
        "pay",
        "pay",
        &format!("{{ publish: [\"payment.*\"], http: {http}, config: {{ PROVIDER: \"{}\" }} }}", peer.url()),
    );
    add("charge", "charge", "{ publish: [\"payment.*\"] }");
    add("command", "command", "{ publish: [\"order.*\"], config: { CURRENCY: EUR } }");
    add("call", "call", &format!("{{ publish: [called], http: {http} }}"));
    add("program", "command-call", &format!("{{ publish: [called], http: {http} }}"));
    add("memory", "fate-out-of-memory", "{}");
    add("spin", "fate-timeout", "{}");
    text.replace("spin:\n", "spin:\n    timeout: 50ms\n").replace("memory:\n", "memory:\n    memory: 8MiB\n")
}

/// Responds as the provider of `pay` does, and with bytes that are no text.
fn respond(request: &Seen) -> Vec<u8> {
    let body = String::from_utf8_lossy(&request.body).into_owned();
    match request.path() {
        "/binary" => response("200 OK", &["set-cookie: a=1", "set-cookie: b=2"], &[0xff, 0, 0xfe]),
        "/silent" => Vec::new(),
        "/cut" => b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nonly a part".to_vec(),
        "/v1/payments" if body.contains("9000") => {
            response("402 Payment Required", &["content-type: application/json"], br#"{"id":"p","status":"declined"}"#)
        }
        "/v1/payments" if body.contains("500") => response("503 Unavailable", &["retry-after: 0"], b"later"),
        "/v1/payments" => response("201 Created", &[], br#"{"id":"p","status":"taken"}"#),
        path => response("200 OK", &[], format!("{path} of {SECRET}").as_bytes()),
    }
}

fn up(manifest: &str) -> Evoke {
    let mut evoke = Evoke::with(manifest);
    evoke.set_environment(&[("LAB_KEY", SECRET)]);
    evoke.up();
    evoke
}

/// The numbers of all deliveries to a function, in order.
fn deliveries(evoke: &Evoke, type_: &str) -> Vec<i64> {
    let events = evoke.json_lines(&["events", "--type", type_, "--limit", "5000", "--envelope"]);
    let of = |event: &Value| {
        let trace = evoke.json(&["trace", &event["seq"].to_string()]);
        trace["deliveries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|delivery| delivery["id"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    events.iter().flat_map(of).collect()
}

/// Runs `evoke test` with these arguments. Returns whether it succeeded, and its results.
fn test(evoke: &Evoke, arguments: &[&str]) -> (bool, Vec<Value>) {
    let output = evoke.run(&[&["test", "--json"], arguments].concat());
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let results = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {output:?}")));
    (output.status.success(), results.collect())
}

fn failed(results: &[Value]) -> Vec<&Value> {
    results.iter().filter(|result| result["passed"] != true).collect()
}

#[test]
fn a_recorded_attempt_becomes_a_test_without_secrets_that_passes_anywhere() {
    let peer = Peer::start(respond);
    let mut evoke = up(&manifest(&peer, "true"));
    let order = json!({ "key": "a", "url": format!("{}/x?key={SECRET}", peer.url()), "end": "retry" });
    evoke.post_accepted("/in/outside", &order.to_string());
    evoke.settle();
    let [delivery] = deliveries(&evoke, "outside").try_into().unwrap();
    let number = delivery.to_string();
    let published = evoke.events("outside").pop().unwrap();
    assert_eq!(published["data"]["secret"], SECRET);
    let requests = peer.seen().len();

    let (ok, results) = test(&evoke, &["--from", &number]);
    assert!(ok && results.len() == 2, "{results:#?}");
    assert_eq!(peer.seen().len(), requests, "the test sends nothing");
    let names: Vec<_> = results.iter().map(|result| result["name"].as_str().unwrap()).collect();
    assert_eq!(names, [format!("delivery {number}, attempt 1"), format!("delivery {number}, attempt 2")]);
    let file = evoke.path(&format!("evoke.delivery-{number}.test.yaml"));
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(!text.contains(SECRET) && text.contains("test-KEY"), "{text}");
    for part in ["manifest: evoke.yaml", "function: outside", "random:", "wall:", "monotonic:", "outcome: retry"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let wall = published["data"]["wall_ns"].as_str().unwrap();
    assert!(text.contains(&format!(r#""wall_ns":"{wall}""#)) || text.contains(wall), "{wall}: {text}");

    // A file that exists is kept, and without Evoke and its secrets the tests still pass.
    assert!(!test(&evoke, &["--from", &number]).0);
    assert!(test(&evoke, &["--from", &number, "--update"]).0);
    evoke.stop();
    evoke.set_environment(&[]);
    let (ok, results) = test(&evoke, &[file.to_str().unwrap()]);
    assert!(ok && results.len() == 2, "{results:#?}");
    let changed = text.replace("LIMIT: \"7\"", "LIMIT: \"8\"");
    assert_ne!(changed, text, "{text}");
    std::fs::write(&file, changed).unwrap();
    assert!(!test(&evoke, &[file.to_str().unwrap()]).0, "another configuration has another result");
    let stdout = evoke.stdout(&["test", "--from", &number, "--attempt", "2", "--out", "-", "--offline", ".evoke"]);
    assert!(stdout.contains(&format!("delivery {number}, attempt 2:")) && !stdout.contains("attempt 1"), "{stdout}");
    assert!(!stdout.contains(SECRET), "{stdout}");
}

/// The long form runs some ten thousand attempts:
/// `EVOKE_CAMPAIGN=long cargo test --release -p evoke --test blackbox recorded_attempts -- --nocapture`.
#[test]
fn a_thousand_recorded_attempts_run_again_with_the_same_outcome_events_and_state() {
    let is_long = std::env::var("EVOKE_CAMPAIGN").is_ok_and(|form| form == "long");
    let rounds = if is_long { 1_000 } else { 90 };
    let peer = Peer::start(respond);
    let mut evoke = up(&manifest(&peer, "{ keep: 10000, max_total: 1GiB }"));
    let url = |path: &str| format!("{}{path}", peer.url());
    let ends = ["", "retry", "reject", "trap"];
    let steps = [
        json!({ "do": [{ "increment": ["n", 1] }, { "get": "n" }, "keys"] }),
        json!({ "do": ["append", { "delete": "n" }, { "exists": "never" }], "shared": true }),
        json!({ "do": [{ "set": ["text", "x"] }, { "try": { "fill": ["big", 5000] } }] }),
        json!({ "do": [{ "fill": ["big", 5000] }] }),
        json!({ "do": [{ "get": "text" }], "end": "trap" }),
    ];
    let commands = ["", "reject", "retry", "panic", "chatter", "pose", "sneak"];
    let paths = ["/a", "/binary", "/cut", "/silent"];
    for round in 0..rounds {
        let post = |to: &str, order: &Value| drop(evoke.post_accepted(&format!("/in/{to}"), &order.to_string()));
        let key = format!("k{}", round % 7);
        post("outside", &json!({ "key": key, "url": url("/x"), "end": ends[round % 4] }));
        post("outside", &json!({ "key": key, "end": ends[(round / 4) % 4] }));
        post("state", &steps[round % 5]);
        let amount = [42, 9_000, 500][round % 3];
        post("pay", &json!({ "customer": "ada", "amount": amount, "currency": "EUR" }));
        post("charge", &json!({ "customer": "ada", "total": 42, "items": ["pen"], "gateway_failures": round % 2 }));
        post("command", &json!({ "items": ["a", "b"], "do": commands[round % 7], "at": "2050-01-01T00:00:00Z" }));
        let timeout = json!({ "url": url(paths[round % 4]), "method": "POST", "bytes": 100, "timeout_ms": 20 });
        post("call", &timeout);
        post("call", &json!({ "url": "http://127.0.0.1:1/", "fail": true }));
        post("program", &json!({ "host": peer.host(), "requests": 1 + round % 5 }));
        if round % 12 == 0 {
            post("memory", &json!({}));
            post("spin", &json!({}));
        }
    }
    evoke.settle();
    let functions = ["outside", "state", "pay", "charge", "command", "call", "program", "memory", "spin"];
    let count = |function: &str| -> u64 {
        let lines = evoke.json_lines(&["events", "--type", function, "--limit", "50000"]);
        lines.len() as u64
    };
    let posted: u64 = functions.iter().map(|function| count(function)).sum();
    let requests = peer.seen().len();
    evoke.stop();
    drop(peer);
    let (mut attempts, mut outcomes) = (0, BTreeSet::new());
    for function in functions {
        let name = format!("lab/{function}");
        let (ok, results) = test(&evoke, &["--from", &name, "--last", "10000", "--offline", ".evoke"]);
        assert!(ok, "{function}: {:#?}", failed(&results).iter().take(3).collect::<Vec<_>>());
        attempts += results.len() as u64;
        outcomes.extend(results.iter().map(|result| result["outcome"].as_str().unwrap().to_owned()));
    }
    println!("{attempts} attempts of {posted} events, with {requests} requests: {outcomes:?}");
    assert!(attempts > posted && attempts >= 1_000, "{attempts} of {posted}");
    let expected = ["denied", "done", "out-of-memory", "quota", "reject", "retry", "timeout", "trap"];
    assert!(expected.iter().all(|outcome| outcomes.contains(*outcome)), "{outcomes:?}");
}

#[test]
fn what_exceeds_the_bounds_is_named_and_the_newest_recordings_stay() {
    let peer = Peer::start(respond);
    let evoke = up(&manifest(&peer, "{ max_size: 2KiB, keep: 3 }"));
    for n in 0..5 {
        evoke
            .post_accepted("/in/charge", &json!({ "customer": format!("c{n}"), "total": 1, "items": [1] }).to_string());
        evoke.settle();
    }
    let large = json!({ "do": [{ "fill": ["a", 3000] }, { "get": "a" }] });
    evoke.post_accepted("/in/state", &large.to_string());
    evoke.settle();
    assert_eq!(evoke.function_status("lab/state")["done"], 1, "the attempt is not affected");

    let (ok, results) = test(&evoke, &["--from", "lab/charge", "--last", "100"]);
    assert!(ok && results.len() == 3, "{results:#?}");
    let numbers = deliveries(&evoke, "charge");
    let names: Vec<_> = results.iter().map(|result| result["name"].as_str().unwrap().to_owned()).collect();
    let newest = numbers[2..].iter().map(|number| format!("delivery {number}, attempt 1"));
    assert_eq!(names, newest.collect::<Vec<_>>());
    let gone = evoke.run(&["test", "--from", &numbers[0].to_string()]);
    let message = String::from_utf8_lossy(&gone.stderr).into_owned();
    assert!(!gone.status.success() && message.contains("newer recordings replaced its recording"), "{message}");

    let [state] = deliveries(&evoke, "state").try_into().unwrap();
    let large = evoke.run(&["test", "--from", &state.to_string()]);
    let message = String::from_utf8_lossy(&large.stderr).into_owned();
    assert!(message.contains("was not recorded") && message.contains("max_size"), "{message}");
    let unknown = evoke.run(&["test", "--from", "999999"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there is no delivery 999999"), "{unknown:?}");
    assert_eq!(evoke.json(&["check"])["problems"], json!([]));
}

#[test]
fn the_recording_of_a_committed_attempt_is_there_after_a_kill() {
    let peer = Peer::start(respond);
    let mut evoke = up(&manifest(&peer, "true"));
    let before = evoke.done_count("lab/charge");
    for n in 0..40 {
        evoke
            .post_accepted("/in/charge", &json!({ "customer": format!("c{n}"), "total": 1, "items": [1] }).to_string());
    }
    crate::assert_eventually!(evoke.done_count("lab/charge") > before, "{}", evoke.log());
    evoke.kill();
    let done = evoke.json(&["check"])["functions"]["lab/charge"]["done"].as_u64().unwrap();
    let (ok, results) = test(&evoke, &["--from", "lab/charge", "--last", "1000", "--offline", ".evoke"]);
    assert!(ok && results.len() as u64 == done && done > 0, "{done} {}", results.len());
}

#[test]
fn a_viewer_reads_no_recordings_and_the_console_gets_a_test_file() {
    let peer = Peer::start(respond);
    let evoke = up(&manifest(&peer, "true"));
    evoke.post_accepted("/in/outside", &json!({ "key": "a", "url": format!("{}/x", peer.url()) }).to_string());
    evoke.settle();
    let [delivery] = deliveries(&evoke, "outside").try_into().unwrap();
    let path = format!("/api/v1/recordings/{delivery}/test?attempt=1");
    let token = evoke.json(&["token", "create", "v", "--role", "viewer"]);
    let viewer = format!("Bearer {}", token["token"].as_str().unwrap());
    for path in [&path, &format!("/api/v1/recordings?delivery={delivery}")] {
        let answer = request("GET", evoke.admin(), path, &[("authorization", &viewer)], "").unwrap();
        assert_eq!(answer.status, 403, "{answer:?}");
        assert_eq!(get(evoke.admin(), path).status, 401);
    }
    let file = evoke.get_admin(&path, &[]);
    assert_eq!(
        (file.status, &file.headers["content-type"]),
        (200, &"application/yaml; charset=utf-8".parse().unwrap())
    );
    assert!(!file.body.contains(SECRET), "{}", file.body);
    std::fs::write(evoke.path("evoke.test.yaml"), &file.body).unwrap();
    let (ok, results) = test(&evoke, &["evoke.test.yaml"]);
    assert!(ok && results.len() == 1, "{results:#?}");
    let missing = evoke.get_admin(&format!("/api/v1/recordings/{delivery}/test?attempt=9"), &[]);
    assert!(missing.status == 404 && missing.body.contains("no recording of attempt 9"), "{missing:?}");
}

#[test]
fn attempts_from_before_a_rename_run_again_under_the_new_name() {
    let peer = Peer::start(respond);
    let text = manifest(&peer, "true");
    let mut evoke = up(&text);
    let order = json!({ "do": [{ "increment": ["n", 1] }] }).to_string();
    evoke.post_accepted("/in/state", &order);
    evoke.settle();
    let [delivery] = deliveries(&evoke, "state").try_into().unwrap();
    assert!(evoke.stop().success());
    evoke.write_manifest(&text.replace("  state:\n", "  job:\n    was: [state]\n"));
    evoke.up();
    evoke.post_accepted("/in/state", &order);
    evoke.settle();
    assert_eq!(evoke.stdout(&["state", "get", "lab/job", "n"]).trim(), "2");
    for from in [&delivery.to_string(), "lab/job"] {
        let (ok, results) = test(&evoke, &["--from", from]);
        assert!(ok && !results.is_empty(), "{from}: {results:#?}");
        assert!(results.iter().all(|result| result["function"] == "lab/job"), "{results:#?}");
    }
    assert_eq!(test(&evoke, &["--from", "lab/job"]).1.len(), 2);
}

/// A response in parts, one that never ends, and JSON that no test file has room for as values.
#[test]
fn bodies_in_parts_and_values_that_are_too_deep_or_too_many_run_again() {
    let peer = Peer::start(|request| match request.path() {
        "/parts" => {
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n3\r\nbcd\r\n2\r\nef\r\n0\r\n\r\n".to_vec()
        }
        _ => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart".to_vec(),
    });
    let mut text = manifest(&peer, "{ max_size: 512KiB }");
    text = text.replace("  call:\n", "  call:\n    timeout: 300ms\n").replace("max_total: 4KiB", "max_total: 16MiB");
    let evoke = up(&text);
    for path in ["/parts", "/stalls"] {
        evoke.post_accepted("/in/call", &json!({ "url": format!("{}{path}", peer.url()) }).to_string());
    }
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    let many = vec![1; 6_000];
    let long = json!({ ("k".repeat(2_000)): 1 });
    let set: Vec<Value> = (0..20).map(|n| json!({ "set": [format!("many{n}"), many] })).collect();
    let get: Vec<Value> = (0..20).map(|n| json!({ "get": format!("many{n}") })).collect();
    let steps = [json!([{ "set": ["deep", deep] }, { "set": ["long", long] }]), set.into(), get.into()];
    for steps in steps {
        evoke.post_accepted("/in/state", &json!({ "do": steps }).to_string());
        evoke.settle();
    }
    evoke.post_accepted("/in/state", &json!({ "do": [{ "get": "deep" }, { "get": "long" }] }).to_string());
    evoke.settle();
    assert_eq!(evoke.function_status("lab/state")["done"], 4, "{}", evoke.log());
    let (ok, results) = test(&evoke, &["--from", "lab/state"]);
    assert!(ok && results.len() == 4, "{:#?}", failed(&results));
    let (ok, results) = test(&evoke, &["--from", "lab/call"]);
    let outcomes: Vec<_> = results.iter().map(|result| result["outcome"].as_str().unwrap()).collect();
    assert!(ok, "{:#?}", failed(&results));
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "timeout").count(), 2, "{outcomes:?}");
    let [parts, _] = deliveries(&evoke, "call").try_into().unwrap();
    let text = evoke.stdout(&["test", "--from", &parts.to_string(), "--out", "-"]);
    assert!(text.contains("body_parts: [1, 3, 2]"), "{text}");
}
