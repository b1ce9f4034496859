//! What Evoke says of itself, so that functions can watch functions.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::support::Evoke;

/// `victim` does as its event says; `watcher` echoes all that is said of anything.
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

/// What was said, by type and in order.
fn said(evoke: &Evoke, type_: &str) -> Vec<Value> {
    evoke.json_lines(&["events", "--source", "/evoke", "--type", type_, "--after", "0"])
}

/// What the watcher was told.
fn heard(evoke: &Evoke) -> usize {
    evoke.settle();
    evoke.events("echo").len()
}

#[test]
fn a_dead_letter_is_told_with_all_that_is_known_and_stands_in_the_trace() {
    let evoke = Evoke::up_with(WATCHED);
    let id = evoke.accepted("/in", r#"{"reject": true, "key": "ada"}"#);
    assert_eq!(heard(&evoke), 1);
    let dead = &said(&evoke, "evoke.delivery.dead")[0];
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
    let told = &trace["deliveries"][0]["published"][0];
    assert_eq!((&told["event"]["type"], &told["published_by"]), (&dead["type"], &letter["id"]));
    assert_eq!(told["deliveries"][0]["published"][0]["event"]["type"], "echo");
    // Redriven, it dies again, and that is told again.
    evoke.stdout(&["dead", "redrive", "--all"]);
    assert_eq!(heard(&evoke), 2);
    assert_eq!(said(&evoke, "evoke.delivery.dead")[1]["data"]["attempts"], 2);
    evoke.stdout(&["check"]);
}

#[test]
fn what_comes_of_them_makes_no_more_of_them_and_who_takes_everything_is_not_meant() {
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
        evoke.accepted("/in", "{}");
    }
    assert_eventually!(!said(&evoke, "evoke.function.failing").is_empty(), "not told: {}", evoke.log());
    evoke.settle();
    // Of the victim alone, although the other two died as often.
    let dead = said(&evoke, "evoke.delivery.dead");
    assert_eq!((dead.len(), evoke.deliveries("dead")), (6, 18));
    let failing = said(&evoke, "evoke.function.failing");
    for event in dead.iter().chain(&failing) {
        assert_eq!(event["subject"], "lab/victim", "{event}");
    }
    assert_eq!(failing.len(), 1, "{failing:?}");
    // The posted ones and the echoes.
    assert_eq!(evoke.done("lab/everything"), 12);
    let id = dead[0]["id"].as_str().unwrap();
    let explained = evoke.stdout(&["explain", id, "--function", "lab/everything"]);
    assert!(explained.contains("source or type exactly"), "{explained}");
    assert!(!evoke.stdout(&["explain", id, "--function", "lab/doomed"]).contains("source or type exactly"));
    evoke.stdout(&["check"]);
}

#[test]
fn a_function_that_fails_is_told_once_over_a_restart_until_it_recovers() {
    let mut evoke = Evoke::up_with(WATCHED);
    let fail = |evoke: &Evoke, times: usize| (0..times).for_each(|_| drop(evoke.accepted("/in", REJECT)));
    fail(&evoke, 4);
    evoke.settle();
    evoke.accepted("/in", "{}");
    evoke.settle();
    fail(&evoke, 4);
    evoke.settle();
    assert_eq!(said(&evoke, "evoke.function.*").len(), 0, "there was a success in between");
    fail(&evoke, 1);
    assert_eventually!(said(&evoke, "evoke.function.*").len() == 1, "not told: {}", evoke.log());
    let failing = said(&evoke, "evoke.function.failing").remove(0);
    assert_eq!((&failing["subject"], &failing["data"]["outcome"]), (&json!("lab/victim"), &json!("reject")));
    assert_eq!((&failing["data"]["attempts"], &failing["data"]["message"]), (&json!(5), &json!("as it was told")));
    assert!(evoke.stdout(&["status"]).contains("lab/victim is failing: 5 attempts failed since"));

    evoke.kill();
    evoke.up();
    assert!(evoke.stdout(&["status"]).contains("lab/victim is failing"));
    fail(&evoke, 10);
    evoke.settle();
    evoke.accepted("/in", "{}");
    assert_eventually!(said(&evoke, "evoke.function.*").len() >= 2, "not told: {}", evoke.log());
    let told: Vec<_> = said(&evoke, "evoke.function.*").iter().map(|event| event["type"].clone()).collect();
    assert_eq!(told, ["evoke.function.failing", "evoke.function.recovered"]);
    let recovered = said(&evoke, "evoke.function.recovered").remove(0);
    assert_eq!(recovered["data"], json!({ "function": "lab/victim", "since": failing["data"]["since"] }));
    assert!(!evoke.stdout(&["status"]).contains("is failing"));
    assert_eq!(heard(&evoke), 19 + 2, "of each dead letter and each change");
}

#[test]
fn a_kill_leaves_no_dead_letter_without_its_event_nor_the_reverse() {
    let mut evoke = Evoke::with(WATCHED);
    for round in 1..=6_u64 {
        evoke.up();
        let address = evoke.http().to_owned();
        let sender = std::thread::spawn(move || {
            let post = || crate::support::post(&address, "/in", &[("content-type", "application/json")], REJECT);
            while post().is_ok() {}
        });
        let before = evoke.done("lab/watcher");
        assert_eventually!(evoke.done("lab/watcher") > before + 40 * round, "nothing is told: {}", evoke.log());
        evoke.kill();
        sender.join().unwrap();
        // As it lies there: what the check finds, it finds in the file.
        evoke.stdout(&["check"]);
    }
    evoke.up();
    evoke.settle();
    let letters = evoke.json_lines(&["dead", "list", "--limit", "10000"]);
    let letters: BTreeSet<i64> = letters.iter().map(|letter| letter["delivery"]["id"].as_i64().unwrap()).collect();
    let events = said(&evoke, "evoke.delivery.dead");
    let told: BTreeSet<i64> = events.iter().map(|event| event["data"]["delivery"].as_i64().unwrap()).collect();
    assert_eq!((told.len(), letters.len()), (events.len(), events.len()));
    assert_eq!(told, letters);
    evoke.stdout(&["check"]);
}

#[test]
fn nobody_else_speaks_for_evoke() {
    let evoke = Evoke::up_with(WATCHED);
    let structured = json!({ "specversion": "1.0", "id": "1", "source": "/evoke", "type": "evoke.delivery.dead" });
    let batch = json!([structured]).to_string();
    let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/evoke"), ("ce-type", "t")].as_slice();
    let answers = [
        evoke.post_with("/in", &[("content-type", "application/cloudevents+json")], &structured.to_string()),
        evoke.post_with("/in", &[("content-type", "application/cloudevents-batch+json")], &batch),
        evoke.post_with("/in", &[binary, &[("content-type", "application/json")]].concat(), "{}"),
    ];
    for answer in answers {
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains("the source `/evoke` is for what Evoke says of itself"), "{answer:?}");
    }
    let output = evoke.run(&["emit", "--source", "/evoke", "--type", "t"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("what Evoke says of itself"), "{output:?}");
    assert_eq!(evoke.json_lines(&["events"]).len(), 0);
    // Its types neither, as a trigger may ask for these alone. An app may be called so, with types like its.
    let post = |text: &str| evoke.post_with("/in", &[("content-type", "application/cloudevents+json")], text);
    let of_an_app = structured.to_string().replace("\"/evoke\"", "\"/evoke/in\"");
    let answer = post(&of_an_app);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("the type `evoke.delivery.dead` is for what Evoke says of itself"), "{answer:?}");
    assert_eq!(post(&of_an_app.replace("delivery.dead", "delivery.late")).status, 202);
}

#[test]
fn a_source_is_told_when_it_does_not_work_and_when_it_does_again() {
    let manifest = WATCHED.replace("functions:", "  inbox:\n    files: { path: ./inbox }\nfunctions:");
    let mut evoke = Evoke::with(&manifest);
    evoke.up_and(&["--pending-max", "2"]);
    let degraded =
        |subject: &str| said(&evoke, "evoke.source.degraded").into_iter().find(|event| event["subject"] == subject);
    assert_eventually!(degraded("lab/inbox").is_some(), "not told: {}", evoke.log());
    let inbox = degraded("lab/inbox").unwrap();
    assert_eq!((&inbox["data"]["source"], &inbox["data"]["kind"]), (&json!("/lab/inbox"), &json!("files")));
    assert!(inbox["data"]["reason"].as_str().unwrap().contains("cannot open the folder"), "{inbox}");
    // Two that take their time are all that may be pending.
    let post = || evoke.post("/in", r#"{"ms": 5000, "key": "slow"}"#).status;
    assert_eventually!(post() != 202, "nothing is refused");
    assert_eventually!(degraded("lab/in").is_some(), "not told: {}", evoke.log());
    let reason = degraded("lab/in").unwrap()["data"]["reason"].to_string();
    assert!(reason.contains("refuses what it is sent") && reason.contains("pending"), "{reason}");

    std::fs::create_dir(evoke.path("inbox")).unwrap();
    let recovered = || said(&evoke, "evoke.source.recovered");
    assert_eventually!(recovered().len() == 2, "not told: {}", evoke.log());
    assert!(recovered().iter().any(|event| event["data"]["since"] == inbox["data"]["since"]), "{:?}", recovered());
    assert_eq!(said(&evoke, "evoke.source.degraded").len(), 2, "each change once");
}

#[test]
fn a_disk_that_has_little_room_is_told_once_over_a_restart_until_it_has_more() {
    let mut evoke = Evoke::with(WATCHED);
    let low = ["--storage-low", "100000000GiB"];
    evoke.up_and(&low);
    assert_eventually!(said(&evoke, "evoke.storage.low").len() == 1, "not told: {}", evoke.log());
    let data = said(&evoke, "evoke.storage.low")[0]["data"].clone();
    assert!(data["free_bytes"].as_u64().unwrap() <= data["total_bytes"].as_u64().unwrap(), "{data}");
    assert_eq!(data["low_bytes"].as_u64().unwrap(), 100_000_000 << 30);
    evoke.kill();
    evoke.up_and(&low);
    // Another is told after the first look: this one was not told again.
    (0..5).for_each(|_| drop(evoke.accepted("/in", REJECT)));
    assert_eventually!(said(&evoke, "evoke.function.failing").len() == 1, "not told: {}", evoke.log());
    assert_eq!(said(&evoke, "evoke.storage.*").len(), 1);
    evoke.kill();
    evoke.up_and(&["--storage-low", "1B"]);
    assert_eventually!(said(&evoke, "evoke.storage.recovered").len() == 1, "not told: {}", evoke.log());
    assert_eq!(said(&evoke, "evoke.storage.*").len(), 2);
}

#[test]
fn the_example_raises_and_clears_alerts() {
    let manifest = std::fs::read_to_string(crate::support::root().join("manifests/on-call.yaml")).unwrap();
    let (_, functions) = manifest.split_once("functions:\n").unwrap();
    let functions = functions.replace("../functions/target/components", "$FUNCTIONS");
    let functions = functions.lines().filter(|line| !line.contains("build:")).map(|line| format!("{line}\n"));
    let evoke = Evoke::up_with(&(WATCHED.to_owned() + &functions.collect::<String>()));
    (0..5).for_each(|_| drop(evoke.accepted("/in", REJECT)));
    assert_eventually!(evoke.events("alert.raised").len() == 6, "{:?}", evoke.events("alert.raised"));
    evoke.accepted("/in", "{}");
    assert_eventually!(evoke.events("alert.cleared").len() == 1, "{}", evoke.stdout(&["dead", "list"]));
    let texts: Vec<_> = evoke.events("alert.*").iter().map(|alert| alert["data"]["text"].to_string()).collect();
    assert!(
        texts.iter().any(|text| text.contains("gave up delivery 1 after one attempt: reject: as it was told")),
        "{texts:?}"
    );
    assert!(texts.iter().any(|text| text.contains("lab/victim fails since")), "{texts:?}");
    assert!(texts.iter().any(|text| text.contains("lab/victim is well again")), "{texts:?}");
}
