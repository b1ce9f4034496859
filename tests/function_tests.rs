//! `evoke test`: tests of functions, without a server.

use serde_json::{Value, json};

use crate::support::{Evoke, root};

const MANIFEST: &str = r#"
evoke: 1
app: lab
functions:
  state:
    component: $FUNCTIONS/state-ops.wasm
    on: [{ events: { type: [go] } }]
    allow: { publish: ["*"], state: { shared: true } }
  config:
    component: $FUNCTIONS/config-read.wasm
    on: [{ events: { type: [go] } }]
    allow: { publish: ["*"], config: { A: "1", B: "2" }, secrets: { KEY: { env: NOT_SET_ANYWHERE } } }
  clock:
    component: $FUNCTIONS/entry-time.wasm
    on: [{ events: { type: [go] } }]
    allow: { publish: ["*"] }
  fetch:
    component: $FUNCTIONS/fetch.wasm
    on: [{ events: { type: [go] } }]
    allow: { http: [ "https://api.example" ] }
"#;

/// Writes a file of tests beside the manifest.
fn write(evoke: &Evoke, tests: &str) {
    std::fs::write(evoke.path("evoke.test.yaml"), tests).unwrap();
}

/// Runs all tests of the folder. Returns the exit code, and the results by name.
fn results(evoke: &Evoke, arguments: &[&str]) -> (i32, serde_json::Map<String, Value>) {
    let output = evoke.run(&[&["test", "--json"], arguments].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
    let named = lines.map(|result| (result["name"].as_str().unwrap_or("mistake").to_owned(), result));
    (output.status.code().unwrap(), named.collect())
}

#[test]
fn the_tests_of_the_examples_pass() {
    let evoke = Evoke::with(MANIFEST);
    for (manifest, count) in [("quickstart", 4), ("payments", 4), ("reminders", 4)] {
        let path = root().join(format!("manifests/{manifest}.yaml"));
        let (code, results) = results(&evoke, &[path.to_str().unwrap()]);
        assert_eq!((code, results.len()), (0, count), "{results:#?}");
    }
}

#[test]
fn a_test_decides_all_that_an_attempt_reads() {
    let evoke = Evoke::with(MANIFEST);
    write(
        &evoke,
        r#"
tests:
  state:
    function: state
    event: { data: { do: [ { get: seen }, { increment: [seen, 1] }, { delete: gone } ] } }
    state: { seen: 41, gone: x }
    expect: { published: [{ type: saw, data: [41, 42, null] }], state: { seen: 42, gone: }, shared_state: {} }
  state of the app:
    function: state
    event: { data: { shared: true, do: [ { get: seen } ] } }
    shared_state: { seen: [1.50] }
    expect: { published: [{ data: [[1.50]] }], state: {} }
  configuration and secrets:
    function: lab/config
    event: { data: { keys: [A, B, KEY] } }
    config: { B: "3" }
    expect: { published: [{ data: { A: "1", B: "3", KEY: test-KEY } }] }
  the clock:
    function: clock
    clock: 2026-01-31T12:00:00.5+01:00
    event: { id: e }
    expect: { published: [{ data: [e, 1769857200500000], time: "2026-01-31T11:00:00.500Z" }] }
  requests:
    function: fetch
    event: { data: "https://api.example/a?b=1" }
    http: [{ url: "https://api.example/a?b=1" }]
    expect: { http: ["GET https://api.example/a?b=1"] }
  a request without an answer:
    function: fetch
    event: { data: "https://api.example/" }
    expect: { outcome: denied, message: "the test has no answer to GET https://api.example/", http: [{ method: GET }] }
  a request without a grant:
    function: fetch
    event: { data: "https://other.example/" }
    http: [{ url: "https://other.example/" }]
    expect: { outcome: denied, message: other.example, http: [] }
  an endpoint that is down:
    function: fetch
    event: { data: "https://api.example/" }
    http: [{ url: "https://api.example/", error: refused }]
    expect: { outcome: retry }
"#,
    );
    let (code, results) = results(&evoke, &[]);
    let failed: Vec<_> = results.values().filter(|result| result["passed"] != true).collect();
    assert!(failed.is_empty() && code == 0 && results.len() == 8, "{failed:#?} {results:#?}");
    assert!(!evoke.path(".evoke/evoke.db").exists(), "nothing is stored");
    assert_eq!(results["state"]["function"], "lab/state");
}

#[test]
fn each_difference_is_shown_and_the_exit_code_is_1() {
    let evoke = Evoke::with(MANIFEST);
    write(
        &evoke,
        r#"
function: state
tests:
  passes: { event: { data: { do: [] } } }
  fails:
    event: { data: { do: [{ set: [n, 7] }] } }
    expect: { published: [{ type: saw, data: [other] }], state: { n: 8 }, logs: [info never] }
  rejects: { event: { data: { do: [], end: reject } } }
"#,
    );
    let (code, found) = results(&evoke, &["--junit", "report.xml"]);
    assert_eq!((code, found.len()), (1, 3));
    assert_eq!(found["passes"]["differences"], json!([]));
    let differences = json!([
        { "at": "published[0].data[0]", "expected": "other", "actual": null },
        { "at": "state.n", "expected": 8, "actual": 7 },
        { "at": "logs[0]", "expected": "info never", "actual": null },
    ]);
    assert_eq!(found["fails"]["differences"], differences, "{found:#?}");
    assert_eq!(found["rejects"]["differences"], json!([{ "at": "outcome", "expected": "done", "actual": "reject" }]));
    let report = std::fs::read_to_string(evoke.path("report.xml")).unwrap();
    assert!(report.contains(r#"<testsuite name="evoke.test.yaml" tests="3" failures="2""#), "{report}");
    assert!(report.contains(r#"message="outcome: expected &quot;done&quot;, actual &quot;reject&quot;""#), "{report}");

    let shown = evoke.run(&["test", "evoke.test.yaml"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert_eq!(shown.status.code(), Some(1));
    for part in ["passed  passes", "failed  fails", "state.n", "expected 8", "actual   7", "1 test passed, 2 failed"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (code, one) = results(&evoke, &["--filter", "pass"]);
    assert_eq!((code, one.len()), (0, 1));
    assert_eq!(results(&evoke, &["--filter", "nothing"]).0, 1);
}

#[test]
fn update_writes_the_expectations_of_tests_that_fail_or_have_none() {
    let evoke = Evoke::with(MANIFEST);
    let text = "function: state
tests:
  # kept
  without: { event: { data: { do: [{ set: [n, 7] }] } } }
  outdated:
    event: { data: { do: [], end: reject } }
    expect:
      outcome: done
  right:
    event: { data: { do: [] } }
    expect: { outcome:   done }
";
    write(&evoke, text);
    let (code, results) = results(&evoke, &["--update"]);
    assert_eq!((code, results.len()), (0, 3), "{results:#?}");
    let updated: Vec<_> = results.values().map(|result| result["updated"] == true).collect();
    assert_eq!(updated.iter().filter(|is_updated| **is_updated).count(), 2);
    let written = std::fs::read_to_string(evoke.path("evoke.test.yaml")).unwrap();
    let expected = "function: state
tests:
  # kept
  without: { event: { data: { do: [{ set: [n, 7] }] } }, expect: { outcome: done, published: [{ type: saw, data: [null] }], state: { n: 7 } } }
  outdated:
    event: { data: { do: [], end: reject } }
    expect:
      outcome: reject
  right:
    event: { data: { do: [] } }
    expect: { outcome:   done }
";
    assert_eq!(written, expected);
    assert!(evoke.run(&["test"]).status.success());
}

#[test]
fn mistakes_in_a_file_of_tests_are_shown_at_their_places() {
    let evoke = Evoke::with(MANIFEST);
    write(&evoke, "tests:\n  a: { function: stat, evnt: {} }\n");
    let output = evoke.run(&["test", "--json"]);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!((&found[0]["line"], &found[0]["column"]), (&json!(2), &json!(24)), "{found:#}");
    assert_eq!(found[0]["help"], "did you mean `event`?");
    write(&evoke, "tests:\n  a: { function: stat }\n");
    let text = String::from_utf8(evoke.run(&["test"]).stderr).unwrap();
    assert!(text.contains("evoke.test.yaml:2:18") && text.contains("write `state`"), "{text}");

    std::fs::remove_file(evoke.path("evoke.test.yaml")).unwrap();
    for arguments in [&["test"][..], &["test", "evoke.yaml"]] {
        let text = String::from_utf8(evoke.run(arguments).stderr).unwrap();
        assert!(text.contains("NAME.test.yaml"), "{text}");
    }
    let text = String::from_utf8(evoke.run(&["test", "evok.yaml"]).stderr).unwrap();
    assert!(text.contains("evok.yaml does not exist"), "{text}");
}

#[test]
fn a_new_function_in_c_builds_passes_its_tests_and_logs_with_levels() {
    let evoke = Evoke::with(MANIFEST);
    assert!(evoke.run(&["new", "greeter", "--lang", "c"]).status.success());
    let run = |arguments: &[&str]| {
        let output = evoke.command(arguments).current_dir(evoke.path("greeter")).output().unwrap();
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, text) = run(&["test"]);
    assert!(code == 0 && text.contains("2 tests passed, 0 failed"), "{text}");
    let (code, text) =
        run(&["invoke", "greeter", "--json", "--event", r#"{"data":{"name":"grün \ud83d\ude00 \"x\""}}"#]);
    let invoked: Value = serde_json::from_str(text.lines().find(|line| line.starts_with('{')).unwrap()).unwrap();
    assert_eq!((code, &invoked["logs"][0]["level"]), (0, &json!("info")), "{text}");
    assert_eq!(invoked["published"][0]["data"]["text"], "Hello, grün 😀 \"x\"!");
}

#[test]
fn a_function_that_never_ends_or_floods_fails_only_its_own_test() {
    let evoke = Evoke::with(
        &MANIFEST.replace("allow: { publish: [\"*\"], state", "timeout: 200ms\n    allow: { publish: [\"*\"], state"),
    );
    write(
        &evoke,
        r#"
function: state
tests:
  spins: { event: { data: { do: [], end: spin } }, expect: { outcome: timeout } }
  floods: { event: { data: { do: [{ fill: [k, 100000000] }] } }, expect: { outcome: denied } }
  passes: { event: { data: { do: [] } } }
"#,
    );
    let (_, results) = results(&evoke, &[]);
    assert_eq!(
        (&results["spins"]["passed"], &results["passes"]["passed"]),
        (&json!(true), &json!(true)),
        "{results:#?}"
    );
    assert_ne!(results["floods"]["outcome"], "done");
}
