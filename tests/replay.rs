//! Stored events are offered again: marked, behind what happens now, once each, and a person stays in charge of it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::faults::random::long;
use crate::support::{Evoke, post, request};

const MANIFEST: &str = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in }
functions:
  witness:
    component: $FUNCTIONS/witness.wasm
    on:
      - events: { type: [lab.in] }
    order_by: data.key
    allow: { publish: ["witnessed"] }
"#;

const KEYS: usize = 50;

/// Sends events with these numbers, each of which takes some time; in batches, in their order.
fn send(evoke: &Evoke, numbers: std::ops::Range<usize>, ms: u64) {
    for batch in numbers.collect::<Vec<_>>().chunks(500) {
        let event = |n: &usize| {
            let data = json!({ "ms": ms, "n": n, "key": format!("k{}", n % KEYS) });
            json!({ "specversion": "1.0", "id": format!("e{n}"), "source": "/lab/test", "type": "lab.in", "data": data })
        };
        let batch = Value::from(batch.iter().map(event).collect::<Vec<_>>()).to_string();
        let headers = [("content-type", "application/cloudevents-batch+json")];
        assert_eq!(post(evoke.http(), "/in", &headers, &batch).unwrap().status, 202);
    }
}

/// What functions said they were given, in the order in which it was committed.
fn witnessed(evoke: &Evoke) -> Vec<Value> {
    evoke.events("witnessed").into_iter().map(|event| event["data"].clone()).collect()
}

/// No event of a key is handled before an earlier one, among live ones and among those of the replay; answers how
/// often each was replayed.
fn assert_in_order(witnessed: &[Value]) -> HashMap<String, usize> {
    let mut last: HashMap<(&str, bool), u64> = HashMap::new();
    let mut replays = HashMap::new();
    for it in witnessed {
        let (key, replay, n) =
            (it["key"].as_str().unwrap(), it["replay"].as_bool().unwrap(), it["n"].as_u64().unwrap());
        if let Some(before) = last.insert((key, replay), n) {
            assert!(before < n, "{key}: {n} came after {before} (replay: {replay})");
        }
        if replay {
            *replays.entry(it["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    replays
}

/// How many events were accepted: the number of the newest.
fn newest(evoke: &Evoke) -> i64 {
    request("GET", evoke.admin(), "/api/v1/status", &[], "").unwrap().json()["events"].as_i64().unwrap()
}

/// From accepting a live event to the commit of what it caused, in ms, for those behind a position.
fn latencies(evoke: &Evoke, after: i64) -> Vec<i64> {
    let listed = |type_: &str| -> Vec<Value> {
        let path = format!("/api/v1/events?envelope=true&after={after}&type={type_}");
        let text = request("GET", evoke.admin(), &path, &[], "").unwrap().body;
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let at_ms = |envelope: &Value| -> i64 {
        envelope["accepted"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond()
    };
    let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
    let accepted: HashMap<String, i64> =
        listed("lab.in").iter().map(|envelope| (id(&envelope["event"]), at_ms(envelope))).collect();
    let mut all: Vec<i64> = listed("witnessed")
        .iter()
        .filter(|envelope| envelope["event"]["data"]["replay"] == false)
        .filter_map(|envelope| Some(at_ms(envelope) - accepted.get(&id(&envelope["event"]["data"]))?))
        .collect();
    all.sort_unstable();
    all
}

/// One live event after another, at a moderate pace.
fn live(evoke: &Evoke, from: usize, count: usize) -> Vec<i64> {
    let after = newest(evoke);
    for n in from..from + count {
        send(evoke, n..n + 1, 1);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eventually!(latencies(evoke, after).len() == count, "live events are not handled");
    latencies(evoke, after)
}

fn replay(evoke: &Evoke, id: i64) -> Value {
    evoke.json(&["replay", "show", &id.to_string()])
}

/// Promise 10. The long form replays 100,000 events: `EVOKE_CAMPAIGN=long cargo test -p evoke --test blackbox replay`.
#[test]
fn a_replay_under_load_leaves_live_order_intact_and_live_events_go_first() {
    let (history, load) = if long() { (100_000, 3_000) } else { (3_000, 300) };
    let evoke = Evoke::up_with(MANIFEST);
    for from in (0..history).step_by(5_000) {
        let to = history.min(from + 5_000);
        send(&evoke, from..to, 0);
        assert_eventually!(evoke.done("lab/witness") == to as u64, "not handled: {}", evoke.stdout(&["status"]));
    }
    let alone = live(&evoke, history, load);

    let id = evoke.json(&["replay", "--all", "--detach"])["id"].as_i64().unwrap();
    let started = std::time::Instant::now();
    let beside = live(&evoke, history + load, load);
    let during = replay(&evoke, id);
    let p99 = |all: &[i64]| all[all.len() * 99 / 100];
    let shape = |all: &[i64]| format!("p50 {} p99 {} max {} ms", all[all.len() / 2], p99(all), all[all.len() - 1]);
    let rate = during["done"].as_f64().unwrap() / started.elapsed().as_secs_f64();
    println!("live alone: {}; beside a replay of {rate:.0}/s: {}", shape(&alone), shape(&beside));
    assert!(during["done"].as_u64().unwrap() > 0, "{during}");
    // Times are for a machine that does nothing else.
    assert!(!long() || p99(&beside) <= 2 * p99(&alone) + 20, "live events wait for the replay: {beside:?}");

    for done in (0..=history + load).step_by(5_000) {
        assert_eventually!(replay(&evoke, id)["done"].as_u64() >= Some(done as u64), "{}", replay(&evoke, id));
    }
    assert_eventually!(replay(&evoke, id)["state"] == "done", "{}", replay(&evoke, id));
    let replays = assert_in_order(&witnessed(&evoke));
    assert_eq!(replays.len(), history + load);
    assert!(replays.values().all(|times| *times == 1));
    let check = evoke.json(&["check"]);
    assert_eq!((&check["replayed"], &check["problems"]), (&json!(history + load), &json!([])));
}

#[test]
fn a_live_event_does_not_wait_behind_a_slow_replay() {
    let evoke = Evoke::up_with(MANIFEST);
    // Half a second each when it is replayed, on four of sixteen places at most.
    send(&evoke, 0..40, 500);
    evoke.settle();
    let id = evoke.json(&["replay", "--all", "--detach"])["id"].as_i64().unwrap();
    assert_eventually!(replay(&evoke, id)["ready"].as_u64().unwrap() > 30, "{}", replay(&evoke, id));
    // Of the keys that the replay has in hand.
    send(&evoke, 1_000..1_040, 0);
    let live = || witnessed(&evoke).iter().filter(|it| it["n"].as_u64() >= Some(1_000)).count();
    assert_eventually!(live() == 40, "{} live events handled", live());
    let during = replay(&evoke, id);
    assert!(during["done"].as_u64().unwrap() < 30, "the replay went first: {during}");
}

#[test]
fn a_replay_that_is_killed_goes_on_from_where_it_committed() {
    const HISTORY: usize = 2_000;
    let mut evoke = Evoke::up_with(MANIFEST);
    send(&evoke, 0..HISTORY, 0);
    evoke.settle();
    let id = evoke.json(&["replay", "--type", "lab.in", "--rate", "1000/s"])["id"].as_i64().unwrap();
    for share in [1, 2, 3] {
        assert_eventually!(replay(&evoke, id)["done"].as_u64().unwrap() > share * 400, "{}", replay(&evoke, id));
        evoke.kill();
        evoke.stdout(&["check"]);
        evoke.up();
    }
    assert_eventually!(replay(&evoke, id)["state"] == "done", "{}", replay(&evoke, id));
    let last = replay(&evoke, id);
    assert_eq!((&last["events"], &last["done"]), (&json!(HISTORY), &json!(HISTORY)));
    let replays = assert_in_order(&witnessed(&evoke));
    assert!(replays.len() == HISTORY && replays.values().all(|times| *times == 1), "{} replayed", replays.len());
    evoke.stdout(&["check"]);
}

#[test]
fn a_cancelled_replay_purges_what_did_not_start_and_a_paused_one_goes_on() {
    let evoke = Evoke::up_with(MANIFEST);
    send(&evoke, 0..400, 5);
    evoke.settle();
    let begin = || evoke.json(&["replay", "--all", "--rate", "50/s"])["id"].as_i64().unwrap();
    let numbered = |id: i64| id.to_string();
    let id = begin();
    assert_eventually!(replay(&evoke, id)["done"].as_u64().unwrap() > 10, "{}", replay(&evoke, id));
    let paused = evoke.json(&["replay", "pause", &numbered(id)]);
    assert_eq!(paused["state"], "paused");
    let again = evoke.run(&["replay", "pause", &numbered(id)]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is paused and cannot be paused"), "{again:?}");
    evoke.settle();
    let position = replay(&evoke, id)["position"].clone();
    evoke.stdout(&["replay", "resume", &numbered(id)]);
    assert_eventually!(replay(&evoke, id)["position"].as_i64() > position.as_i64(), "{}", replay(&evoke, id));

    evoke.stdout(&["replay", "cancel", &numbered(id)]);
    assert_eventually!(replay(&evoke, id)["state"] == "cancelled", "{}", replay(&evoke, id));
    let last = replay(&evoke, id);
    assert_eq!((&last["ready"], &last["blocked"], &last["retrying"]), (&json!(0), &json!(0), &json!(0)));
    assert!(last["events"].as_u64().unwrap() < 390, "{last}");

    // Without a rate more is offered than runs at once: that is let go.
    let id = evoke.json(&["replay", "--all", "--detach"])["id"].as_i64().unwrap();
    assert_eventually!(replay(&evoke, id)["events"].as_u64().unwrap() > 100, "{}", replay(&evoke, id));
    evoke.stdout(&["replay", "cancel", &numbered(id)]);
    assert_eventually!(replay(&evoke, id)["state"] == "cancelled", "{}", replay(&evoke, id));
    let last = replay(&evoke, id);
    assert!(last["purged"].as_u64().unwrap() > 0, "{last}");
    assert_eq!(evoke.deliveries("purged"), last["purged"].as_u64().unwrap());
    let list = evoke.stdout(&["replay", "list"]);
    assert_eq!(list.matches("cancelled").count(), 2, "{list}");
    assert_eq!(evoke.run(&["replay", "show", "99"]).status.code(), Some(4));
}

#[test]
fn a_dry_run_says_what_would_happen_and_one_event_is_replayed_and_marked() {
    let evoke = Evoke::up_with(MANIFEST);
    send(&evoke, 0..10, 0);
    evoke.settle();
    let plan = evoke.json(&["replay", "--all", "--dry-run"]);
    assert_eq!((&plan["events"], &plan["functions"]), (&json!(10), &json!({ "lab/witness": 10 })));
    let pattern = r#"{"data":{"n":[{"numeric":["<",3]}]}}"#;
    let text = evoke.stdout(&["replay", "--pattern", pattern, "--dry-run"]);
    assert!(text.starts_with("3 events make 3 deliveries") && text.contains("lab/witness"), "{text}");
    assert!(evoke.json_lines(&["replay", "list"]).is_empty());
    for wrong in [&["replay"][..], &["replay", "--rate", "5/s"], &["replay", "--function", "lab/nobody"]] {
        assert!(!evoke.run(wrong).status.success(), "{wrong:?}");
    }

    let done = evoke.json(&["replay", "--event", "4", "--wait"]);
    assert_eq!((&done["state"], &done["done"]), (&json!("done"), &json!(1)));
    let replayed: Vec<_> = witnessed(&evoke).into_iter().filter(|it| it["replay"] == true).collect();
    let event = evoke.json(&["trace", "4"]);
    assert_eq!(replayed.len(), 1);
    assert_eq!(replayed[0]["id"], event["event"]["id"]);
    let deliveries = event["deliveries"].as_array().unwrap();
    assert_eq!((deliveries.len(), &deliveries[1]["replay"]), (2, &json!(1)), "{event:#}");
    assert_eq!(deliveries[1]["published"][0]["event"]["type"], "witnessed");
    assert!(evoke.stdout(&["trace", "4"]).contains(", replay 1"));
}

#[test]
fn a_function_that_came_later_is_offered_what_was_before_it() {
    let mut evoke = Evoke::up_with("evoke: 1\napp: lab\nsources:\n  in:\n    http: { path: /in }\n");
    send(&evoke, 0..20, 0);
    assert!(evoke.stop().success());
    evoke.write_manifest(MANIFEST);
    evoke.up();
    assert_eq!(evoke.deliveries("done"), 0);
    evoke.stdout(&["replay", "--function", "lab/witness", "--wait"]);
    let of: BTreeMap<String, bool> =
        witnessed(&evoke).iter().map(|it| (it["id"].as_str().unwrap().into(), it["replay"] == true)).collect();
    assert!(of.len() == 20 && of.values().all(|replay| *replay), "{of:?}");
}
