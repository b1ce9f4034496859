//! Runtime events: the events with source `/evoke` that Evoke publishes about itself, so that functions can monitor
//! functions and sources.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::Evoke;

/// `victim` does what its event asks for; `watcher` publishes an `echo` of every runtime event.
const WATCHED: &str = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, type: lab.in }
functions:
  victim:
    component: $FUNCTIONS/witness.wasm
    on:
      - events: { type: [lab.in] }
    order_by: data.key
    allow: { publish: [witnessed] }
  watcher:
    component: $FUNCTIONS/echo.wasm
    on:
      - events: { source: ["/evoke"] }
    allow: { publish: [echo] }
"#;

const REJECT: &str = r#"{"reject": true}"#;

/// The runtime events of a type, in accept order.
fn published(evoke: &Evoke, type_: &str) -> Vec<Value> {
    evoke.json_lines(&["events", "--source", "/evoke", "--type", type_, "--after", "0"])
}

/// The number of runtime events that the watcher has echoed, when no delivery is pending.
fn echo_count(evoke: &Evoke) -> usize {
    evoke.settle();
    evoke.events("echo").len()
}

#[test]
fn a_dead_letter_event_has_all_details_and_appears_in_the_trace() {
    let evoke = Evoke::up_with(WATCHED);
    let id = evoke.post_accepted("/in", r#"{"reject": true, "key": "ada"}"#);
    assert_eq!(echo_count(&evoke), 1);
    let dead = &published(&evoke, "evoke.delivery.dead")[0];
    assert_eq!((&dead["source"], &dead["subject"]), (&json!("/evoke"), &json!("lab/victim")));
    let data = &dead["data"];
    let letter = &evoke.json_lines(&["dead", "list"])[0]["delivery"];
    assert_eq!(
        (&data["delivery"], &data["order_key"], &data["cause"]),
        (&letter["id"], &json!("ada"), &letter["cause"])
    );
    assert_eq!((&data["function"], &data["trigger"]), (&json!("lab/victim"), &json!("on[0]")));
    assert_eq!((&data["attempts"], &data["outcome"], &data["replay"]), (&json!(1), &json!("reject"), &json!(false)));
    let event = json!({ "seq": 1, "id": id, "source": "/lab/in", "type": "lab.in", "time": data["event"]["time"] });
    assert_eq!(data["event"], event);

    let trace = evoke.json(&["trace", &id]);
    let in_trace = &trace["deliveries"][0]["published"][0];
    assert_eq!((&in_trace["event"]["type"], &in_trace["published_by"]), (&dead["type"], &letter["id"]));
    assert_eq!(in_trace["deliveries"][0]["published"][0]["event"]["type"], "echo");
    // After a redrive the delivery is a dead letter again, and that is reported again.
    evoke.stdout(&["dead", "redrive", "--all"]);
    assert_eq!(echo_count(&evoke), 2);
    assert_eq!(published(&evoke, "evoke.delivery.dead")[1]["data"]["attempts"], 2);
    evoke.stdout(&["check"]);
}

#[test]
fn runtime_events_cause_no_further_runtime_events_and_catch_all_patterns_do_not_match_them() {
    let evoke = Evoke::up_with(
        r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, type: lab.in }
functions:
  victim:
    component: $FUNCTIONS/fate-reject.wasm
    on:
      - events: { type: [lab.in] }
  doomed:
    component: $FUNCTIONS/fate-reject.wasm
    on:
      - events: { type: [evoke.delivery.dead] }
  relay:
    component: $FUNCTIONS/echo.wasm
    on:
      - events: { source: ["/evoke"], type: [{ prefix: evoke.delivery. }] }
    allow: { publish: [echo] }
  late:
    component: $FUNCTIONS/fate-reject.wasm
    on:
      - events: { type: [echo] }
  everything:
    component: $FUNCTIONS/fate-done.wasm
    on:
      - events: { source: [{ prefix: "/" }] }
"#,
    );
    for _ in 0..6 {
        evoke.post_accepted("/in", "{}");
    }
    assert_eventually!(!published(&evoke, "evoke.function.failing").is_empty(), "not reported: {}", evoke.log());
    evoke.settle();
    // Only dead letters of `victim` are reported, although `doomed` and `late` have as many.
    let dead = published(&evoke, "evoke.delivery.dead");
    assert_eq!((dead.len(), evoke.delivery_count("dead")), (6, 18));
    let failing = published(&evoke, "evoke.function.failing");
    for event in dead.iter().chain(&failing) {
        assert_eq!(event["subject"], "lab/victim", "{event}");
    }
    assert_eq!(failing.len(), 1, "{failing:?}");
    // `everything` gets the posted events and the echoes.
    assert_eq!(evoke.done_count("lab/everything"), 12);
    let id = dead[0]["id"].as_str().unwrap();
    let explained = evoke.stdout(&["explain", id, "--function", "lab/everything"]);
    assert!(explained.contains("source or type exactly"), "{explained}");
    assert!(!evoke.stdout(&["explain", id, "--function", "lab/doomed"]).contains("source or type exactly"));
    evoke.stdout(&["check"]);
}

#[test]
fn a_failing_function_is_reported_once_across_a_restart_until_it_recovers() {
    let mut evoke = Evoke::up_with(WATCHED);
    let fail = |evoke: &Evoke, times: usize| (0..times).for_each(|_| drop(evoke.post_accepted("/in", REJECT)));
    fail(&evoke, 4);
    evoke.settle();
    evoke.post_accepted("/in", "{}");
    evoke.settle();
    fail(&evoke, 4);
    evoke.settle();
    assert_eq!(published(&evoke, "evoke.function.*").len(), 0, "there was a success in between");
    fail(&evoke, 1);
    assert_eventually!(published(&evoke, "evoke.function.*").len() == 1, "not reported: {}", evoke.log());
    let failing = published(&evoke, "evoke.function.failing").remove(0);
    assert_eq!((&failing["subject"], &failing["data"]["outcome"]), (&json!("lab/victim"), &json!("reject")));
    assert_eq!(
        (&failing["data"]["attempts"], &failing["data"]["message"]),
        (&json!(5), &json!("the event requested a reject"))
    );
    assert!(evoke.stdout(&["status"]).contains("lab/victim is failing: 5 attempts failed since"));

    evoke.kill();
    evoke.up();
    assert!(evoke.stdout(&["status"]).contains("lab/victim is failing"));
    fail(&evoke, 10);
    evoke.settle();
    evoke.post_accepted("/in", "{}");
    assert_eventually!(published(&evoke, "evoke.function.*").len() >= 2, "not reported: {}", evoke.log());
    let types: Vec<_> = published(&evoke, "evoke.function.*").iter().map(|event| event["type"].clone()).collect();
    assert_eq!(types, ["evoke.function.failing", "evoke.function.recovered"]);
    let recovered = published(&evoke, "evoke.function.recovered").remove(0);
    assert_eq!(recovered["data"], json!({ "function": "lab/victim", "since": failing["data"]["since"] }));
    assert!(!evoke.stdout(&["status"]).contains("is failing"));
    assert_eq!(echo_count(&evoke), 19 + 2, "one for each dead letter and each change");
}

#[test]
fn a_kill_leaves_no_dead_letter_without_its_event_and_no_event_without_its_dead_letter() {
    let mut evoke = Evoke::with(WATCHED);
    for round in 1..=6_u64 {
        evoke.up();
        let address = evoke.http().to_owned();
        let sender = std::thread::spawn(move || {
            let post = || crate::support::post(&address, "/in", &[("content-type", "application/json")], REJECT);
            while post().is_ok() {}
        });
        let before = evoke.done_count("lab/watcher");
        assert_eventually!(
            evoke.done_count("lab/watcher") > before + 40 * round,
            "nothing is reported: {}",
            evoke.log()
        );
        evoke.kill();
        sender.join().unwrap();
        // `check` reads the files that the killed process left behind.
        evoke.stdout(&["check"]);
    }
    evoke.up();
    evoke.settle();
    let letters = evoke.json_lines(&["dead", "list", "--limit", "10000"]);
    let letters: BTreeSet<i64> = letters.iter().map(|letter| letter["delivery"]["id"].as_i64().unwrap()).collect();
    let events = published(&evoke, "evoke.delivery.dead");
    let reported: BTreeSet<i64> = events.iter().map(|event| event["data"]["delivery"].as_i64().unwrap()).collect();
    assert_eq!((reported.len(), letters.len()), (events.len(), events.len()));
    assert_eq!(reported, letters);
    evoke.stdout(&["check"]);
}

#[test]
fn not_even_an_operator_can_forge_runtime_events() {
    let evoke = Evoke::up_with(WATCHED);
    let output = evoke.run(&["emit", "--source", "/evoke", "--type", "t"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("is reserved for Evoke's own events"), "{output:?}");
    // Event types of Evoke are refused too, because a trigger may match on the type alone.
    let output = evoke.run(&["emit", "--source", "/lab/in", "--type", "evoke.delivery.dead"]);
    let expected = "the type `evoke.delivery.dead` is reserved for Evoke's own events";
    assert!(String::from_utf8_lossy(&output.stderr).contains(expected), "{output:?}");
    assert_eq!(evoke.json_lines(&["events"]).len(), 0);
}

#[test]
fn a_source_is_reported_when_it_degrades_and_when_it_recovers() {
    let manifest = WATCHED.replace("functions:", "  inbox:\n    files: { path: ./inbox }\nfunctions:");
    let mut evoke = Evoke::with(&manifest);
    evoke.up_with_arguments(&["--pending-max", "2"]);
    let degraded = |subject: &str| {
        published(&evoke, "evoke.source.degraded").into_iter().find(|event| event["subject"] == subject)
    };
    assert_eventually!(degraded("lab/inbox").is_some(), "not reported: {}", evoke.log());
    let inbox = degraded("lab/inbox").unwrap();
    assert_eq!((&inbox["data"]["source"], &inbox["data"]["kind"]), (&json!("/lab/inbox"), &json!("files")));
    assert!(inbox["data"]["reason"].as_str().unwrap().contains("cannot open the folder"), "{inbox}");
    // Two slow events fill the limit of pending deliveries.
    let post = || evoke.post("/in", r#"{"ms": 5000, "key": "slow"}"#).status;
    assert_eventually!(post() != 202, "no event is refused");
    assert_eventually!(degraded("lab/in").is_some(), "not reported: {}", evoke.log());
    let reason = degraded("lab/in").unwrap()["data"]["reason"].to_string();
    assert!(reason.contains("refuses requests") && reason.contains("pending"), "{reason}");

    std::fs::create_dir(evoke.path("inbox")).unwrap();
    let recovered = || published(&evoke, "evoke.source.recovered");
    assert_eventually!(recovered().len() == 2, "not reported: {}", evoke.log());
    assert!(recovered().iter().any(|event| event["data"]["since"] == inbox["data"]["since"]), "{:?}", recovered());
    assert_eq!(published(&evoke, "evoke.source.degraded").len(), 2, "each change is reported once");
}

#[test]
fn low_disk_space_is_reported_once_across_a_restart_until_it_recovers() {
    let mut evoke = Evoke::with(WATCHED);
    let low = ["--storage-low", "100000000GiB"];
    evoke.up_with_arguments(&low);
    assert_eventually!(published(&evoke, "evoke.storage.low").len() == 1, "not reported: {}", evoke.log());
    let data = published(&evoke, "evoke.storage.low")[0]["data"].clone();
    assert!(data["free_bytes"].as_u64().unwrap() <= data["total_bytes"].as_u64().unwrap(), "{data}");
    assert_eq!(data["low_bytes"].as_u64().unwrap(), 100_000_000 << 30);
    evoke.kill();
    evoke.up_with_arguments(&low);
    // When the failing function is reported, the disk has been polled since the restart, and was not reported again.
    (0..5).for_each(|_| drop(evoke.post_accepted("/in", REJECT)));
    assert_eventually!(published(&evoke, "evoke.function.failing").len() == 1, "not reported: {}", evoke.log());
    assert_eq!(published(&evoke, "evoke.storage.*").len(), 1);
    evoke.kill();
    evoke.up_with_arguments(&["--storage-low", "1B"]);
    assert_eventually!(published(&evoke, "evoke.storage.recovered").len() == 1, "not reported: {}", evoke.log());
    assert_eq!(published(&evoke, "evoke.storage.*").len(), 2);
}

#[test]
fn the_on_call_example_raises_and_clears_alerts() {
    let manifest = std::fs::read_to_string(crate::support::root().join("manifests/on-call.yaml")).unwrap();
    let (_, functions) = manifest.split_once("functions:\n").unwrap();
    // Nothing receives the alerts here; `examples` tests that.
    let functions = functions.replace("../functions/target/components", "$FUNCTIONS");
    let functions = functions.replace("127.0.0.1:8080", "127.0.0.1:1");
    let functions = functions.lines().filter(|line| !line.contains("build:")).map(|line| format!("{line}\n"));
    let evoke = Evoke::up_with(&(WATCHED.to_owned() + &functions.collect::<String>()));
    (0..5).for_each(|_| drop(evoke.post_accepted("/in", REJECT)));
    assert_eventually!(evoke.events("alert.raised").len() == 6, "{:?}", evoke.events("alert.raised"));
    evoke.post_accepted("/in", "{}");
    assert_eventually!(evoke.events("alert.cleared").len() == 1, "{}", evoke.stdout(&["dead", "list"]));
    let texts: Vec<_> = evoke.events("alert.*").iter().map(|alert| alert["data"]["text"].to_string()).collect();
    assert!(
        texts
            .iter()
            .any(|text| text.contains("gave up delivery 1 after one attempt: reject: the event requested a reject")),
        "{texts:?}"
    );
    assert!(texts.iter().any(|text| text.contains("lab/victim has been failing since")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("lab/victim has recovered")), "{texts:?}");
}
