//! The commands: text output, `--json` output and exit codes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::orders::ORDERS;
use crate::support::{Evoke, root};

const ORDER: &str = r#"{"customer":"ada","total":42,"items":["book"]}"#;

#[test]
fn validate_reports_every_mistake_with_its_position() {
    let evoke =
        Evoke::with("evoke: 1\napp: shop\nfunctions:\n  f:\n    component: f.wasm\n    timeout: 200 ms\n    onn: []\n");
    let output = evoke.run(&["validate"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("evoke.yaml:6:14") && text.contains("write `200ms`"), "{text}");
    assert!(text.contains("evoke.yaml:7:5") && text.contains("`on`"), "{text}");

    let output = evoke.run(&["validate", "--json"]);
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(found.iter().any(|d| d["line"] == 6 && d["column"] == 14), "{found:#?}");
}

#[test]
fn validate_reports_imports_that_are_not_granted() {
    let manifest = "evoke: 1\napp: lab\nfunctions:\n  counter:\n    component: $FUNCTIONS/counter.wasm\n    on: [{ events: { type: [x] } }]\n";
    let evoke = Evoke::with(manifest);
    let output = evoke.run(&["validate"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("evoke.yaml:5:16") && text.contains("keyvalue"), "{text}");
}

#[test]
fn the_quickstart_is_valid() {
    let evoke = Evoke::with(ORDERS);
    let manifest = root().join("manifests/quickstart.yaml");
    let text = evoke.stdout(&["validate", manifest.to_str().unwrap()]);
    assert!(text.contains("1 manifest with 5 functions: no errors"), "{text}");
}

#[test]
fn an_emitted_event_is_handled_like_any_other() {
    let evoke = Evoke::up_with(ORDERS);
    let emit = ["emit", "--type", "order.placed", "--data", ORDER, "--id", "mine"];
    let first = evoke.json(&emit);
    assert_eq!((first["id"].as_str(), first["duplicate"].as_bool()), (Some("mine"), Some(false)));
    evoke.settle();
    assert_eq!(evoke.json(&["trace", "mine"])["deliveries"][0]["state"], "done");
    // The same source and id is the same event.
    assert_eq!(evoke.json(&emit)["duplicate"], true);
    assert_eq!(evoke.events("order.placed").len(), 1);

    let output = evoke.run(&["emit", "--type", "t", "--data", "not json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--data is not JSON"), "{output:?}");
}

#[test]
fn events_follow_prints_new_events_as_they_arrive() {
    let evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", ORDER);
    let mut follow = evoke
        .command(&["events", "--follow", "--type", "order.*", "--json", "--after", "0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    assert_eq!(next()["type"], "order.placed");
    for n in 1..=3 {
        let id = evoke.post_accepted("/checkout", &format!(r#"{{"customer":"c{n}","total":1,"items":["x"]}}"#));
        let event = next();
        assert_eq!((event["id"].as_str(), event["specversion"].as_str()), (Some(id.as_str()), Some("1.0")));
    }
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[test]
fn the_newest_events_are_listed_last() {
    let evoke = Evoke::up_with(ORDERS);
    let ids: Vec<String> = (0..5).map(|_| evoke.post_accepted("/checkout", ORDER)).collect();
    let listed = evoke.json_lines(&["events", "--type", "order.placed", "--limit", "2"]);
    let listed: Vec<&str> = listed.iter().map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(listed, ids[3..]);
}

#[test]
fn status_shows_functions_and_sources_with_their_numbers() {
    let evoke = Evoke::up_with(ORDERS);
    evoke.post_accepted("/checkout", ORDER);
    evoke.settle();
    let status = evoke.json(&["status"]);
    assert_eq!((status["events"].as_u64(), status["pending"].as_u64()), (Some(3), Some(0)));
    let functions = status["functions"].as_array().unwrap();
    assert_eq!(functions.iter().map(|f| f["done"].as_u64().unwrap()).sum::<u64>(), 3);
    assert_eq!(status["sources"][0]["uri"], "/shop/checkout");
    assert!(evoke.stdout(&["status"]).contains("shop/charge"));
}

#[test]
fn each_kind_of_missing_target_has_its_own_exit_code() {
    let mut evoke = Evoke::with(ORDERS);
    let output = evoke.run(&["status"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("evoke up"), "{output:?}");
    evoke.up();
    assert_eq!(evoke.run(&["trace", "no-such-event"]).status.code(), Some(4));
    assert_eq!(evoke.run(&["dead", "show", "1"]).status.code(), Some(4));
    assert_eq!(evoke.run(&["dead", "redrive"]).status.code(), Some(2));
    assert_eq!(evoke.run(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn health_and_readiness_are_served_by_the_admin_listener_only() {
    let evoke = Evoke::up_with(ORDERS);
    let get = |address: &str, path: &str| crate::support::request("GET", address, path, &[], "").unwrap();
    assert_eq!(get(evoke.admin(), "/healthz").status, 200);
    assert_eq!(get(evoke.admin(), "/readyz").status, 200);
    assert_eq!(get(evoke.http(), "/healthz").status, 404);
    let missing = evoke.get_admin("/api/v1/nothing", &[]);
    assert_eq!((missing.status, missing.json()["status"].as_u64()), (404, Some(404)));
}

#[test]
fn a_component_is_built_when_it_is_missing_or_older_than_its_sources() {
    let manifest = r#"
evoke: 1
app: lab
functions:
  f:
    component: ./f.wat
    build: "echo ran >> builds; cp template.wat f.wat; printf 'f.wat: %s/template.wat\n' $PWD > f.d"
    on: [{ events: { type: [x] } }]
"#;
    let evoke = Evoke::with(manifest);
    std::fs::write(evoke.path("template.wat"), "(component)").unwrap();
    let builds = || std::fs::read_to_string(evoke.path("builds")).unwrap_or_default().lines().count();
    // The component exports no handler, so `up` fails with an error, but only after the build.
    let up = || {
        let output = evoke.run(&["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("a function must export"), "{output:?}");
    };
    up();
    assert_eq!(builds(), 1);
    up();
    assert_eq!(builds(), 1, "nothing changed");
    let newer = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
    std::fs::File::options().append(true).open(evoke.path("template.wat")).unwrap().set_modified(newer).unwrap();
    up();
    assert_eq!(builds(), 2, "the source is newer");
    assert_eq!(evoke.stdout(&["build"]).trim(), "1 built");
    assert_eq!(builds(), 3);
}

#[test]
fn explain_names_the_field_and_the_operator() {
    let manifest = ORDERS
        .replace("{ type: [order.placed] }", r#"{ type: [order.placed], data: { total: [{ numeric: [">", 100] }] } }"#);
    let evoke = Evoke::up_with(&manifest);
    let id = evoke.post_accepted("/checkout", ORDER);
    let text = evoke.stdout(&["explain", &id, "--function", "shop/charge"]);
    for expected in ["shop/charge", "on[0]", "does not match", "data.total", r#"{"numeric":[">",100]}"#, "42"] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
    let all = evoke.json(&["explain", &id]);
    let matched: Vec<bool> = all.as_array().unwrap().iter().map(|one| one["matched"].as_bool().unwrap()).collect();
    assert_eq!(matched, [false, false, false], "{all:#}");
    assert_eq!(all[0]["pattern"]["failed"], "data.total");
    assert_eq!(evoke.run(&["explain", &id, "--function", "shop/nobody"]).status.code(), Some(4));
}

#[test]
fn the_printed_schema_equals_the_published_file() {
    let evoke = Evoke::with(ORDERS);
    let published = std::fs::read_to_string(root().join("manifests/evoke.schema.json")).unwrap();
    assert_eq!(evoke.stdout(&["schema"]).trim(), published.trim());
    assert!(evoke.stdout(&["completions", "bash"]).contains("redrive"));
}

#[test]
fn invoke_runs_one_function_without_a_server() {
    let evoke = Evoke::with(ORDERS);
    let order = format!(r#"{{"data":{ORDER}}}"#);
    let invoked = evoke.json(&["invoke", "charge", "--event", &order]);
    assert_eq!((invoked["function"].as_str(), invoked["outcome"].as_str()), (Some("shop/charge"), Some("done")));
    assert_eq!(invoked["published"][0]["type"], "payment.taken");
    assert!(invoked["logs"][0]["text"].as_str().unwrap().contains("ada paid 42"), "{invoked:#}");
    assert!(invoked["memory_bytes"].as_u64().unwrap() >= 64 * 1024, "{invoked:#}");
    assert!(!evoke.path(".evoke/evoke.db").exists(), "nothing is stored");

    let output =
        evoke.run(&["invoke", "shop/charge", "--event", r#"{"data":{"customer":"ada","total":0,"items":["x"]}}"#]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("reject") && text.contains("total is 0"), "{text}");
    let missing = evoke.run(&["invoke", "nobody", "--event", "{}"]);
    assert!(String::from_utf8_lossy(&missing.stderr).contains("shop/charge, shop/receipt, shop/notify"), "{missing:?}");
}

#[test]
fn check_is_exact_while_events_arrive() {
    let evoke = Evoke::up_with(ORDERS);
    std::thread::scope(|scope| {
        let posts = scope.spawn(|| (0..300).for_each(|_| drop(evoke.post_accepted("/checkout", ORDER))));
        let mut checks = 0;
        while !posts.is_finished() || checks == 0 {
            evoke.stdout(&["check"]);
            checks += 1;
        }
    });
}
