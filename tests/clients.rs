//! The official clients of CloudEvents, with awkward values in all modes. They are not part of the build, so `cargo test`
//! ignores these tests; `tests/clients/run` installs the clients and runs the tests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::{Evoke, root};

mod webhooks;

const MANIFEST: &str = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, accept: { types: [client.sent], sources: ["*"] } }
functions:
  echo:
    component: $FUNCTIONS/echo.wasm
    on: [{ source: in }]
    allow: { publish: [echo] }
    retry: { attempts: 1 }
"#;

/// The expected result of a case.
#[derive(Debug)]
enum Outcome {
    /// The event is stored with the values of the case.
    Accepted,
    /// The event is stored with another value of this attribute, because the client changed it.
    Changed(&'static str, &'static str),
    /// The response is a 400 with this text, or the client itself refuses the event.
    Refused(&'static str),
}

/// Returns the outcome of a case. All outcomes other than `Accepted` follow from what the client sends.
fn outcome_of(client: &str, mode: &str, case: &str) -> Outcome {
    let encodes_headers = client == "python-2";
    match (client, mode, case) {
        (_, _, "empty-subject") => Outcome::Refused("`subject` is empty"),
        // Python writes `True` into the header; in JSON it is a Boolean.
        ("python-1" | "python-2", "binary", "boolean") => Outcome::Changed("test", "True"),
        // The client sends a number in JSON, and a string in a header.
        (_, "structured" | "batched", "large-integer") => Outcome::Refused("`sequence` is a number but not an Integer"),
        // Without percent-encoding the header has bytes of ISO-8859-1, or the client cannot write it.
        (_, "binary", "latin" | "unicode") if !encodes_headers => Outcome::Refused("`ce-subject`: it is not UTF-8"),
        // Without percent-encoding, the header is decoded to a source with a space.
        (_, "binary", "escaped-source") if !encodes_headers => Outcome::Refused("`source` is not a URI reference"),
        // Both clients send a string without quotes, although they declare JSON.
        ("python-2" | "javascript", "binary", "json-string") => Outcome::Refused("not JSON"),
        // The JavaScript client declares JSON if the event has no media type.
        ("javascript", "binary", "bytes") | (_, "binary", "bytes-as-json") => Outcome::Refused("not JSON"),
        _ => Outcome::Accepted,
    }
}

/// Runs a client over all cases and compares the stored events, and those that a function received, with the cases.
fn check_client(client: &str, program: &Path, script: &str) {
    let evoke = Evoke::up_with(MANIFEST);
    let cases_file = root().join("tests/clients/cases.json").canonicalize().unwrap();
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&cases_file).unwrap()).unwrap();
    let output = Command::new(program)
        .arg(root().join("tests/clients").join(script).canonicalize().unwrap())
        .arg(format!("http://{}/in", evoke.http()))
        .arg(&cases_file)
        .current_dir(clients().join(client))
        .output()
        .unwrap();
    assert!(output.status.success(), "{client}: {output:?}");
    evoke.settle();

    let by_id = |type_: &str, id: fn(&Value) -> &Value| -> BTreeMap<String, Value> {
        evoke.events(type_).into_iter().map(|event| (id(&event).as_str().unwrap().to_owned(), event)).collect()
    };
    let stored = by_id("client.sent", |event| &event["id"]);
    let echoed = by_id("echo", |event| &event["receivedid"]);
    let (mut sent, mut accepted, mut published) = (0, 0, 0);
    for line in String::from_utf8(output.stdout).unwrap().lines() {
        let request: Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| request[name].as_str().unwrap_or_default();
        let case = cases.iter().find(|case| case["name"] == request["case"]).unwrap();
        sent += 1;
        match outcome_of(client, text("mode"), text("case")) {
            Outcome::Refused(reason) => {
                let refused = request["status"] == 0 || request["status"] == 400 && text("detail").contains(reason);
                assert!(refused && !stored.contains_key(text("id")), "{request}");
            }
            outcome => {
                assert_eq!(request["status"], 202, "{request}");
                let changed = if let Outcome::Changed(name, value) = outcome { Some((name, value)) } else { None };
                check_event(case, &request, &stored[text("id")], changed);
                accepted += 1;
                // A function cannot publish bytes that are not JSON as JSON.
                if text("case") != "bytes-as-json" {
                    check_data(case, &echoed[text("id")]);
                    published += 1;
                }
            }
        }
    }
    assert_eq!(sent, cases.len() * 3, "{client}");
    assert_eq!((stored.len(), echoed.len()), (accepted, published), "{client}");
}

fn check_event(case: &Value, request: &Value, event: &Value, changed: Option<(&str, &str)>) {
    for (name, value) in case["attributes"].as_object().unwrap() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let expected = match changed {
            Some((changed, value)) if changed == name => value,
            // The clients write times in their own way.
            _ if name == "time" => request["time"].as_str().unwrap(),
            _ => &text,
        };
        assert_eq!(event[name], expected, "{name}: {request} {event}");
    }
    assert_eq!(event["time"], request["time"], "{request} {event}");
    check_data(case, event);
}

fn check_data(case: &Value, event: &Value) {
    let expected = if case["json"].is_null() { &case["text"] } else { &case["json"] };
    assert_eq!((&event["data"], &event["data_base64"]), (expected, &case["base64"]), "{case} {event}");
}

/// The folder of the installed clients.
fn clients() -> PathBuf {
    std::env::var_os("EVOKE_TEST_CLIENTS").expect("the official clients are missing: run tests/clients/run").into()
}

#[test]
#[ignore = "needs the official clients: run tests/clients/run"]
fn events_of_the_official_client_of_python_1_arrive_unchanged() {
    check_client("python-1", &clients().join("python-1/bin/python3"), "python/send.py");
}

#[test]
#[ignore = "needs the official clients: run tests/clients/run"]
fn events_of_the_official_client_of_python_2_arrive_unchanged() {
    check_client("python-2", &clients().join("python-2/bin/python3"), "python/send.py");
}

#[test]
#[ignore = "needs the official clients: run tests/clients/run"]
fn events_of_the_official_client_of_javascript_arrive_unchanged() {
    check_client("javascript", Path::new("node"), "javascript/send.mjs");
}
