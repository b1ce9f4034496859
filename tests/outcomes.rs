//! Each way in which a guest can end is an outcome of its own that `trace` shows, and the runtime continues.

use serde_json::Value;

use crate::support::Evoke;

/// A manifest with one fixture behind an HTTP source, with one attempt for each delivery.
fn manifest(fixture: &str, extra: &str) -> String {
    format!(
        r#"
evoke: 1
app: lab
sources:
  in:
    http: {{ path: /in, type: lab.in }}
functions:
  {fixture}:
    component: $FUNCTIONS/{fixture}.wasm
    on:
      - events: {{ type: [lab.in] }}
    timeout: 500ms
    retry: {{ attempts: 1 }}
{extra}
"#
    )
}

/// Sends one event to a fixture. Returns its attempt and the status of its delivery.
fn run_once(fixture: &str, extra: &str, body: &str) -> (Evoke, Value, String) {
    let evoke = Evoke::up_with(&manifest(fixture, extra));
    let id = evoke.post_accepted("/in", body);
    evoke.settle();
    let trace = evoke.json(&["trace", &id]);
    let delivery = &trace["deliveries"][0];
    let attempts = delivery["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1, "{trace:#}");
    let (attempt, state) = (attempts[0].clone(), delivery["state"].as_str().unwrap().to_owned());
    // The text output shows the same outcome.
    let text = evoke.stdout(&["trace", &id]);
    assert!(text.contains(attempt["outcome"].as_str().unwrap()), "{text}");
    // The runtime still accepts events.
    assert_eq!(evoke.post("/in", body).status, 202);
    (evoke, attempt, state)
}

fn assert_dead(fixture: &str, extra: &str, outcome: &str, expected: &str) -> Value {
    let (_evoke, attempt, state) = run_once(fixture, extra, "{}");
    assert_eq!((attempt["outcome"].as_str().unwrap(), state.as_str()), (outcome, "dead"), "{attempt}");
    let message = attempt["message"].as_str().unwrap();
    assert!(message.contains(expected), "{message}");
    attempt
}

#[test]
fn fate_done_is_done() {
    let (_evoke, attempt, state) = run_once("fate-done", "", "{}");
    assert_eq!((attempt["outcome"].as_str().unwrap(), state.as_str()), ("done", "done"));
}

#[test]
fn fate_retry_becomes_a_dead_letter_when_no_attempt_is_left() {
    assert_dead("fate-retry", "", "retry", "");
}

#[test]
fn fate_reject_is_dead_at_once() {
    assert_dead("fate-reject", "", "reject", "");
}

#[test]
fn fate_trap_reports_the_kind_of_trap() {
    assert_dead("fate-trap", "", "trap", "");
}

#[test]
fn fate_timeout_ends_at_its_deadline() {
    let attempt = assert_dead("fate-timeout", "", "timeout", "500ms");
    let duration_us = attempt["duration_us"].as_u64().unwrap();
    assert!(duration_us >= 500_000, "{attempt}");
}

#[test]
fn fate_sleep_ends_at_its_deadline_while_it_waits_in_a_host_call() {
    assert_dead("fate-sleep", "", "timeout", "500ms");
}

#[test]
fn fate_out_of_memory_names_the_limit() {
    assert_dead("fate-out-of-memory", "    memory: 8MiB\n", "out-of-memory", "8");
}

#[test]
fn publish_then_fail_leaves_nothing_behind() {
    for how in ["retry", "reject", "trap"] {
        let extra = "    allow: { publish: [\"*\"] }\n";
        let (evoke, _, state) = run_once("publish-then-fail", extra, &format!(r#"{{"how":"{how}"}}"#));
        assert_eq!(state, "dead", "{how}");
        let events = evoke.json_lines(&["events"]);
        let published = |event: &&Value| event["type"] != "lab.in" && event["source"] != "/evoke";
        assert_eq!(events.iter().find(published), None, "{how}");
    }
}

#[test]
fn echo_publishes_the_data_of_its_event() {
    let extra = "    allow: { publish: [\"*\"] }\n";
    let (evoke, _, state) = run_once("echo", extra, r#"{"n": 1.10, "s": "ü"}"#);
    assert_eq!(state, "done");
    let published = evoke.json_lines(&["events"]).into_iter().find(|e| e["source"] == "/lab/echo").unwrap();
    assert_eq!(published["data"]["s"], "ü");
    assert_eq!(published["data"]["n"].to_string(), "1.10", "numbers keep their digits");
}

#[test]
fn fan_out_publishes_each_event_once() {
    let extra = "    allow: { publish: [\"*\"] }\n";
    let (evoke, _, state) = run_once("fan-out", extra, r#"{"n": 100}"#);
    assert_eq!(state, "done");
    evoke.settle();
    let published = evoke.json_lines(&["events", "--source", "/lab/fan-out", "--after", "0"]);
    assert_eq!(published.len(), 200, "two events were posted");
}

#[test]
fn an_event_type_outside_the_grant_is_not_published() {
    let extra = "    allow: { publish: [\"payment.*\"] }\n";
    let (evoke, attempt, state) = run_once("fan-out", extra, r#"{"n": 1}"#);
    assert_eq!(state, "dead", "{attempt}");
    assert!(attempt["message"].as_str().unwrap().contains("publish"), "{attempt}");
    assert!(evoke.json_lines(&["events", "--source", "/lab/fan-out"]).is_empty());
}

#[test]
fn config_read_gets_its_config_and_secrets_and_nothing_else() {
    let extra = "    allow: { publish: [\"*\"], config: { COLOUR: blue }, secrets: { TOKEN: { file: ./token } } }\n";
    let mut evoke = Evoke::with(&manifest("config-read", extra));
    std::fs::write(evoke.path("token"), "s3cret\n").unwrap();
    evoke.up();
    let id = evoke.post_accepted("/in", r#"{"keys": ["COLOUR", "TOKEN", "HOME"]}"#);
    evoke.settle();
    let published = evoke.json_lines(&["events", "--source", "/lab/config-read"]);
    let text = published.first().map(ToString::to_string).unwrap_or_else(|| evoke.stdout(&["trace", &id]));
    assert!(text.contains("blue") && text.contains("s3cret") && !text.contains("/root"), "{text}");
    assert!(!evoke.log().contains("s3cret"));
}

#[test]
fn log_flood_is_bounded() {
    let (evoke, _, state) = run_once("log-flood", "", r#"{"lines": 3000, "bytes": 100}"#);
    assert_eq!(state, "done");
    let lines = evoke.json_lines(&["logs", "--limit", "10000"]);
    assert!((10..4_000).contains(&lines.len()), "{} lines", lines.len());
}

#[test]
fn a_function_with_an_import_that_is_not_granted_is_not_started() {
    let evoke = Evoke::with(&manifest("counter", ""));
    let output = evoke.run(&["up", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("counter.wasm") && text.contains("wasi:keyvalue"), "{text}");
}

#[test]
fn a_function_that_triggers_itself_is_stopped() {
    let looping = manifest("echo", "    allow: { publish: [\"*\"] }\n").replace("[lab.in]", "[lab.in, echo]");
    let evoke = Evoke::up_with(&looping);
    assert!(evoke.log().contains("warning"), "the start warns of a cycle: {}", evoke.log());
    evoke.post_accepted("/in", r#"{"n": 1}"#);
    evoke.settle();
    assert_eq!((evoke.events("echo").len(), evoke.delivery_count("dead")), (64, 1));
    assert!(evoke.stdout(&["dead", "list"]).contains("loop"), "{}", evoke.stdout(&["dead", "list"]));
}
