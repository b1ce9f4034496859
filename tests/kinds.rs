//! Programs and components that were made without our SDK run as they are.

use serde_json::{Value, json};

use crate::support::Evoke;

/// A manifest with one command behind an HTTP source, two attempts each.
fn manifest(fixture: &str, more: &str) -> String {
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
{more}
"#
    )
}

const ALLOW: &str = "    allow: { publish: [order.priced, event.measured], config: { CURRENCY: EUR } }";

/// What became of an event: the outcomes of its attempts, and the message of the last.
fn fate(evoke: &Evoke, body: &str) -> (Vec<String>, String) {
    let id = evoke.accepted("/in", body);
    evoke.settle();
    let trace = evoke.json(&["trace", &id]);
    let attempts = trace["deliveries"][0]["attempts"].as_array().unwrap().clone();
    let outcomes = attempts.iter().map(|attempt| attempt["outcome"].as_str().unwrap().to_owned()).collect();
    let message = attempts.last().unwrap()["message"].as_str().unwrap_or_default().to_owned();
    (outcomes, message)
}

/// The fates that both builds of the Rust program share.
fn rust_program(fixture: &str) -> Evoke {
    let evoke = Evoke::up_with(&manifest(fixture, ALLOW));
    let (outcomes, _) = fate(&evoke, r#"{"items": ["tea", "cake"]}"#);
    assert_eq!(outcomes, ["done"]);
    let data: Vec<Value> = evoke.events("order.priced").iter().map(|event| event["data"].clone()).collect();
    let expected = ["tea", "cake"].map(|item| json!({ "item": item, "currency": "EUR" }));
    assert_eq!(data, expected);
    let event = &evoke.events("order.priced")[0];
    assert_eq!(event["source"], "/lab/price");
    assert!(event["id"].is_string() && event["time"].is_string(), "{event}");

    let (outcomes, message) = fate(&evoke, r#"{"do": "retry"}"#);
    assert_eq!((outcomes.join(" "), message.as_str()), ("retry retry".into(), "the price list is away"));
    let (outcomes, message) = fate(&evoke, r#"{"do": "panic", "item": 7}"#);
    assert_eq!(outcomes, ["trap", "trap"]);
    assert!(message.contains("no price for 7"), "{message}");
    let (outcomes, message) = fate(&evoke, r#"{"do": "chatter"}"#);
    assert_eq!(outcomes, ["denied"]);
    assert!(message.starts_with("line 1 on stdout is not published: not a JSON object"), "{message}");
    let (outcomes, message) = fate(&evoke, r#"{"do": "sneak"}"#);
    assert_eq!(outcomes, ["denied"]);
    assert!(message.contains(r#"allow: { publish: ["payment.taken"] }"#), "{message}");
    // None of these published anything.
    assert_eq!(evoke.events("order.priced").len(), 2);
    assert_eq!(evoke.events("payment.taken").len(), 0);
    assert!(evoke.stdout(&["logs"]).contains("priced"));
    evoke
}

#[test]
fn a_rust_program_for_wasip2_runs_as_it_is() {
    let evoke = rust_program("command");
    // It knows only two exit codes.
    assert_eq!(fate(&evoke, r#"{"do": "reject"}"#).0, ["retry", "retry"]);
    // It was given sockets, and none connects.
    let (outcomes, message) = fate(&evoke, r#"{"do": "connect"}"#);
    assert_eq!(outcomes, ["retry", "retry"]);
    assert!(message.starts_with("Error: "), "{message}");
}

#[test]
fn a_rust_program_for_wasip1_runs_as_it_is() {
    let evoke = rust_program("command-p1");
    let (outcomes, message) = fate(&evoke, r#"{"do": "reject"}"#);
    assert_eq!(outcomes, ["reject"]);
    assert!(message.ends_with("is no order"), "{message}");
}

#[test]
fn a_c_program_runs_as_it_is() {
    let evoke = Evoke::up_with(&manifest("command-c", ALLOW));
    assert_eq!(fate(&evoke, r#"{"n": 1}"#).0, ["done"]);
    let bytes = evoke.events("event.measured")[0]["data"]["bytes"].as_u64().unwrap();
    assert!(bytes > 100, "{bytes}");
    let (outcomes, message) = fate(&evoke, r#""reject""#);
    assert_eq!((outcomes.join(" "), message.as_str()), ("reject".into(), "not for me"));
    let (outcomes, message) = fate(&evoke, r#""retry""#);
    assert_eq!((outcomes.join(" "), message.as_str()), ("retry retry".into(), "not now"));
    assert_eq!(fate(&evoke, r#""trap""#).0, ["trap", "trap"]);
}
