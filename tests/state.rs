//! State: the writes of an attempt commit together with its outcome, exactly once, and users can read and change state.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Evoke, root};

/// A manifest with one function behind an HTTP source.
fn manifest(function: &str, allow: &str, extra: &str) -> String {
    format!(
        r#"
evoke: 1
app: lab
sources:
  in:
    http: {{ path: /in, type: lab.in }}
functions:
  {function}:
    component: $FUNCTIONS/{function}.wasm
    on:
      - source: in
    timeout: 2s
    retry: {{ attempts: 1 }}
    allow: {{ publish: ["*"], {allow} }}
{extra}
"#
    )
}

/// Starts an Evoke with the fixture `state-ops`, which runs the steps that its event lists.
fn up_with_state_ops() -> Evoke {
    Evoke::up_with(&manifest("state-ops", "state: true", ""))
}

/// Sends data to the function and waits. Returns the only attempt.
fn attempt(evoke: &Evoke, data: &Value) -> Value {
    let id = evoke.post_accepted("/in", &data.to_string());
    evoke.settle();
    let trace = evoke.json(&["trace", &id]);
    let attempts = trace["deliveries"][0]["attempts"].as_array().unwrap().clone();
    assert_eq!(attempts.len(), 1, "{trace:#}");
    attempts[0].clone()
}

/// Runs these steps in `state-ops`. They must succeed. Returns the result of each step.
fn run_steps(evoke: &Evoke, steps: &Value) -> Value {
    let attempt = attempt(evoke, &json!({ "do": steps }));
    assert_eq!(attempt["outcome"], "done", "{attempt}");
    evoke.events("saw").pop().unwrap()["data"].clone()
}

/// Changes the trigger of a manifest so that it also matches events from `evoke emit`.
fn for_emit(manifest: &str) -> String {
    manifest.replace("source: in", "events: { type: [lab.in] }")
}

/// Emits one event for each value, all in one command.
fn emit(evoke: &Evoke, data: impl Iterator<Item = Value>) {
    let events = data.enumerate().map(|(n, data)| json!({ "id": n.to_string(), "type": "lab.in", "data": data }));
    std::fs::write(evoke.path("events.json"), Value::from(events.collect::<Vec<_>>()).to_string()).unwrap();
    evoke.stdout(&["emit", "--event", "@events.json"]);
}

#[test]
fn counting_on_one_key_is_exact_and_a_rerun_is_not_an_attempt() {
    const EVENTS: usize = 500;
    let evoke = Evoke::up_with(&for_emit(&manifest(
        "counter",
        "state: true",
        "    concurrency: 16
",
    )));
    emit(&evoke, (0..EVENTS).map(|_| json!({ "key": "k" })));
    evoke.settle();
    assert_eq!(evoke.stdout(&["state", "get", "lab/counter", "k"]).trim(), EVENTS.to_string());
    // Each count was published once, by the attempt that committed.
    let counted: BTreeSet<u64> = evoke.events("counted").iter().map(|e| e["data"]["value"].as_u64().unwrap()).collect();
    assert_eq!(counted, (1..=EVENTS as u64).collect());
    assert_eq!(evoke.delivery_count("done"), EVENTS as u64);
    for event in evoke.json_lines(&["events", "--type", "lab.in", "--after", "0", "--limit", "50"]) {
        let path = format!("/api/v1/trace/{}", event["id"].as_str().unwrap());
        let trace = evoke.get_admin(&path, &[]).json();
        let attempts = trace["deliveries"][0]["attempts"].as_array().unwrap();
        assert_eq!((attempts.len(), attempts[0]["attempt"].as_u64()), (1, Some(1)), "{trace:#}");
    }
}

#[test]
fn the_trace_names_the_keys_that_an_attempt_changed() {
    let evoke = Evoke::up_with(&manifest("counter", "state: true", ""));
    assert_eq!(attempt(&evoke, &json!({ "key": "visits" }))["message"], "state: visits set (1 B)");
    assert_eq!(attempt(&evoke, &json!({ "key": "visits", "idle": true }))["message"], Value::Null);
}

#[test]
fn a_key_listing_includes_every_key_committed_before() {
    const EVENTS: usize = 100;
    let evoke = Evoke::up_with(&for_emit(&manifest("state-ops", "state: true", "    concurrency: 16\n")));
    emit(&evoke, (0..EVENTS).map(|_| json!({ "do": ["append"] })));
    evoke.settle();
    let keys: Vec<Value> =
        evoke.json_lines(&["state", "list", "lab/state-ops"]).iter().map(|e| e["key"].clone()).collect();
    assert_eq!(keys, (0..EVENTS).map(|n| json!(format!("{n:05}"))).collect::<Vec<_>>());
    assert_eq!(evoke.delivery_count("done"), EVENTS as u64);
}

#[test]
fn an_attempt_reads_its_own_writes() {
    let evoke = up_with_state_ops();
    let steps = json!([
        { "get": "a" }, { "set": ["a", { "n": 1 }] }, { "get": "a" }, { "exists": "a" }, { "delete": "a" },
        { "exists": "a" }, { "increment": ["n", 3] }, { "increment": ["n", 4] }, { "get": "n" }, { "set": ["kept", "x"] },
        "keys"
    ]);
    let expected = json!([null, null, { "n": 1 }, true, null, false, 3, 7, 7, null, [2, "kept", "n"]]);
    assert_eq!(run_steps(&evoke, &steps), expected);
    let steps =
        json!([{ "get": "kept" }, { "get": "a" }, { "increment": ["n", 1] }, { "try": { "increment": ["kept", 1] } }]);
    let later = run_steps(&evoke, &steps);
    assert_eq!(later.as_array().unwrap()[..3], json!(["x", null, 8]).as_array().unwrap()[..]);
    assert!(later[3].as_str().unwrap().contains("not a number"), "{later}");
}

#[test]
fn a_failed_attempt_leaves_no_state_and_no_events() {
    for (end, outcome) in [("retry", "retry"), ("reject", "reject"), ("trap", "trap"), ("spin", "timeout")] {
        let evoke = up_with_state_ops();
        let failed = attempt(&evoke, &json!({ "do": [{ "set": ["a", 1] }, { "increment": ["n", 1] }], "end": end }));
        assert_eq!(failed["outcome"], outcome, "{failed}");
        assert_eq!(evoke.stdout(&["state", "list"]).trim(), "no state", "{end}");
        assert!(evoke.events("saw").is_empty());
        assert_eq!(run_steps(&evoke, &json!([{ "exists": "a" }, { "increment": ["n", 1] }])), json!([false, 1]));
    }
}

#[test]
fn the_shared_bucket_is_open_only_to_functions_with_the_grant() {
    let function = |name: &str, state: &str| {
        format!(
            "  {name}:\n    component: $FUNCTIONS/state-ops.wasm\n    on: [{{ http: {{ path: /{name}, type: go }} }}]\n    \
             retry: {{ attempts: 1 }}\n    allow: {{ publish: [\"*\"], state: {state} }}\n"
        )
    };
    let functions =
        [function("one", "{ shared: true }"), function("two", "{ shared: true }"), function("other", "true")];
    let evoke = Evoke::up_with(&format!("evoke: 1\napp: lab\nfunctions:\n{}", functions.concat()));
    let run = |path: &str, data: Value| {
        let id = evoke.post_accepted(path, &data.to_string());
        evoke.settle();
        evoke.json(&["trace", &id])["deliveries"][0].clone()
    };
    run("/one", json!({ "shared": true, "do": [{ "set": ["a", 1] }] }));
    run("/one", json!({ "do": [{ "set": ["mine", 1] }] }));
    run("/two", json!({ "shared": true, "do": [{ "increment": ["a", 1] }, { "exists": "mine" }] }));
    assert_eq!(evoke.events("saw").pop().unwrap()["data"], json!([2, false]));
    let denied = run("/other", json!({ "shared": true, "do": [] }));
    assert_eq!(denied["state"], "dead");
    assert!(denied["cause"].as_str().unwrap().contains("shared: true"), "{denied}");
    assert_eq!(evoke.stdout(&["state", "get", "lab", "a"]).trim(), "2");
    let buckets = evoke.json_lines(&["state", "list"]);
    let names: Vec<_> = buckets.iter().map(|bucket| (&bucket["bucket"], &bucket["keys"])).collect();
    assert_eq!(names, [(&json!("lab"), &json!(1)), (&json!("lab/one"), &json!(1))]);
}

#[test]
fn state_limits_are_enforced_and_their_errors_name_the_setting() {
    let allow = "state: { max_keys: 3, max_value: 100B, max_total: 1KiB }";
    let evoke = Evoke::up_with(&manifest("state-ops", allow, ""));
    let refused = |steps: Value, outcome: &str, expected: &str| {
        let attempt = attempt(&evoke, &json!({ "do": steps }));
        assert_eq!(attempt["outcome"], outcome, "{attempt}");
        let message = attempt["message"].as_str().unwrap();
        assert!(message.contains(expected), "{message}");
    };
    refused(json!([{ "many": ["k", 4] }]), "quota", "max_keys");
    refused(json!([{ "fill": ["k", 101] }]), "denied", "max_value");
    refused(json!([{ "get": "k".repeat(513) }]), "denied", "512");
    refused(json!([{ "get": "" }]), "denied", "must not be empty");
    assert_eq!(evoke.stdout(&["state", "list"]).trim(), "no state");
    // A function can handle the error and continue. Deleted keys free space.
    let steps = json!([{ "many": ["k", 3] }, { "try": { "set": ["more", 1] } }, { "delete": "k00000" }, { "set": ["more", 1] }]);
    assert!(run_steps(&evoke, &steps)[1].as_str().unwrap().contains("4 keys"));
    assert_eq!(run_steps(&evoke, &json!(["keys"])), json!([[3, "k00001", "more"]]));
    assert_eq!(
        run_steps(&evoke, &json!([{ "fill": ["more", 100] }, { "try": { "set": ["k00003", 1] } }]))[0],
        Value::Null
    );
    refused(json!([{ "set": ["k00003", 1] }]), "quota", "the limit is 3");

    let evoke = Evoke::up_with(&manifest("state-ops", "state: { max_total: 1KiB, max_value: 4MiB }", ""));
    let attempt = attempt(&evoke, &json!({ "do": [{ "fill": ["k", 1024] }] }));
    assert_eq!(attempt["outcome"], "quota", "{attempt}");
    assert!(attempt["message"].as_str().unwrap().contains("max_total"), "{attempt}");
}

#[test]
fn a_value_of_the_largest_grantable_size_is_stored() {
    let evoke = Evoke::up_with(&manifest("state-ops", "state: { max_value: 4MiB }", ""));
    run_steps(&evoke, &json!([{ "fill": ["k", 4 << 20] }]));
    assert_eq!(run_steps(&evoke, &json!([{ "exists": "k" }])), json!([true]));
    assert_eq!(evoke.stdout(&["state", "get", "lab/state-ops", "k"]).trim().len(), 4 << 20);
    assert_eq!(evoke.json_lines(&["state", "list", "lab/state-ops"])[0]["bytes"], 4 << 20);
}

#[test]
fn state_flood_is_refused_and_other_functions_are_not_affected() {
    let other = "  state-ops:\n    component: $FUNCTIONS/state-ops.wasm\n    on: [{ http: { path: /other, type: go } }]\n    \
                 allow: { publish: [\"*\"], state: true }\n";
    let evoke = Evoke::up_with(
        &manifest("state-flood", "state: { max_total: 2GiB }", other).replace("timeout: 2s", "timeout: 20s"),
    );
    let id = evoke.post_accepted("/in", "{}");
    evoke.post_accepted("/other", &json!({ "do": [{ "set": ["a", 1] }] }).to_string());
    evoke.settle();
    let delivery = &evoke.json(&["trace", &id])["deliveries"][0];
    assert_eq!(delivery["attempts"][0]["outcome"], "denied", "{delivery:#}");
    assert!(delivery["cause"].as_str().unwrap().contains("8388608 bytes"), "{delivery:#}");
    let buckets = evoke.json_lines(&["state", "list"]);
    assert_eq!(buckets, [json!({ "bucket": "lab/state-ops", "keys": 1, "bytes": 2 })]);
}

#[test]
fn state_survives_a_stop_and_a_kill_together_with_its_deliveries() {
    let mut evoke = Evoke::up_with(&for_emit(&manifest("counter", "state: true", "")));
    emit(&evoke, (0..400).map(|n| json!({ "key": format!("k{}", n % 3) })));
    evoke.kill();
    evoke.up();
    evoke.settle();
    let sum = |evoke: &Evoke| {
        let entries = evoke.json_lines(&["state", "list", "lab/counter"]);
        entries.iter().map(|entry| entry["value"].as_str().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    assert_eq!((sum(&evoke), evoke.delivery_count("done")), (400, 400));
    assert!(evoke.stop().success());
    evoke.up();
    assert_eq!(sum(&evoke), 400);
    assert_eq!(evoke.events("counted").len(), 400);
}

#[test]
fn key_listing_pages_include_the_writes_of_the_attempt() {
    let evoke = up_with_state_ops();
    let steps = json!([{ "many": ["k", 1200] }, "keys", { "delete": "k00500" }, "keys"]);
    let expected = json!([null, [1200, "k00000", "k01199"], null, [1199, "k00000", "k01199"]]);
    assert_eq!(run_steps(&evoke, &steps), expected);
    let steps = json!(["keys", { "set": ["a", 1] }, { "delete": "k01199" }, { "set": ["k00500", 1] }, { "many": ["l", 700] }, "keys"]);
    let expected = json!([[1199, "k00000", "k01199"], null, null, null, null, [1900, "a", "l00699"]]);
    assert_eq!(run_steps(&evoke, &steps), expected);
    assert_eq!(evoke.json_lines(&["state", "list", "lab/state-ops", "--prefix", "k011"]).len(), 99);
    assert_eq!(evoke.json_lines(&["state", "list", "lab/state-ops", "-n", "7"]).len(), 7);
}

#[test]
fn the_state_command_reads_and_changes_state() {
    let evoke = up_with_state_ops();
    let exit_code = |arguments: &[&str]| evoke.run(arguments).status.code();
    assert_eq!(evoke.stdout(&["state", "set", "lab/state-ops", "a b/ü", "41"]).trim(), "1 key set");
    assert_eq!(run_steps(&evoke, &json!([{ "increment": ["a b/ü", 1] }])), json!([42]));
    assert_eq!(evoke.stdout(&["state", "get", "lab/state-ops", "a b/ü"]), "42\n");
    std::fs::write(evoke.path("value.json"), r#"{"x": [1, 2]}"#).unwrap();
    evoke.stdout(&["state", "set", "lab", "shared", "@value.json"]);
    let entry = evoke.json(&["state", "get", "lab", "shared"]);
    assert_eq!((entry["value"].as_str(), entry["bytes"].as_u64()), (Some(r#"{"x": [1, 2]}"#), Some(13)));
    let listed = evoke.stdout(&["state", "list", "lab/state-ops"]);
    assert!(listed.contains("a b/ü") && listed.contains("42"), "{listed}");
    assert!(evoke.stdout(&["state", "list"]).contains("lab/state-ops"));

    assert_eq!(exit_code(&["state", "get", "lab", "none"]), Some(4));
    assert_eq!(exit_code(&["state", "delete", "lab", "none"]), Some(4));
    assert_eq!(exit_code(&["state", "set", "lab/nobody", "k", "1"]), Some(4));
    assert_eq!(exit_code(&["state", "set", "lab", &"k".repeat(513), "1"]), Some(1));
    assert_eq!(exit_code(&["state", "delete", "lab"]), Some(2));
    assert_eq!(evoke.stdout(&["state", "delete", "lab", "shared"]).trim(), "1 key deleted");
    evoke.stdout(&["state", "set", "lab/state-ops", "b", "1"]);
    assert_eq!(evoke.json(&["state", "delete", "lab/state-ops", "--all"])["count"], 2);
    assert_eq!(evoke.stdout(&["state", "list"]).trim(), "no state");
    assert_eq!(run_steps(&evoke, &json!([{ "exists": "b" }])), json!([false]));
}

#[test]
fn invoke_shows_the_state_changes_of_the_attempt() {
    let evoke = Evoke::with(&manifest("state-ops", "state: { shared: true }", ""));
    let event =
        json!({ "data": { "do": [{ "increment": ["n", 1] }, { "delete": "old" }, { "get": "other" }] } }).to_string();
    let invoke = ["invoke", "state-ops", "--event", &event, "--state", "n=41", "--state", "old=1"];
    let invoked = evoke.json(&invoke);
    let bucket = "lab/state-ops";
    let expected = json!([
        { "bucket": bucket, "key": "n", "deleted": false, "value": "42" },
        { "bucket": bucket, "key": "old", "deleted": true }
    ]);
    assert_eq!((&invoked["outcome"], &invoked["state"]), (&json!("done"), &expected));
    let text = evoke.stdout(&invoke);
    assert!(text.contains("lab/state-ops n = 42") && text.contains("lab/state-ops old deleted"), "{text}");
    let shared = json!({ "data": { "shared": true, "do": [{ "get": "n" }] } }).to_string();
    let invoked = evoke.json(&["invoke", "state-ops", "--event", &shared, "--shared-state", "n=7"]);
    assert_eq!((&invoked["published"][0]["data"], &invoked["state"]), (&json!([7]), &json!([])));
}

#[test]
fn the_disk_watch_example_publishes_changes_and_not_readings() {
    let text = std::fs::read_to_string(root().join("manifests/disk-watch.yaml")).unwrap();
    let manifest = text.replace("../functions/target/components", "$FUNCTIONS");
    let manifest: String =
        manifest.lines().filter(|line| !line.contains("build:")).map(|line| format!("{line}\n")).collect();
    let mut evoke = Evoke::up_with(&manifest);
    let send = |evoke: &Evoke, path: &str, readings: &[f64]| {
        for used in readings {
            evoke.post_accepted("/readings", &json!({ "path": path, "used": used }).to_string());
        }
        evoke.settle();
    };
    // The thresholds are 80 and 90. The level drops only below 75 and 85.
    send(&evoke, "/", &[50.0, 79.0, 80.0, 81.0, 79.0, 76.0, 92.0, 86.0]);
    send(&evoke, "/home", &[10.0, 74.0]);
    evoke.kill();
    evoke.up();
    send(&evoke, "/", &[89.0, 84.0, 76.0, 74.0, 60.0]);
    let changes: Vec<_> = evoke
        .events("disk.changed")
        .iter()
        .map(|e| json!([e["subject"], e["data"]["from"], e["data"]["to"], e["data"]["reading"]]))
        .collect();
    let expected = [
        json!(["/", "ok", "warning", 80.0]),
        json!(["/", "warning", "critical", 92.0]),
        json!(["/", "critical", "warning", 84.0]),
        json!(["/", "warning", "ok", 74.0]),
    ];
    assert_eq!(changes, expected);
}
