//! Replay: stored events are delivered again, marked as a replay, once each, and with lower priority than live events.
//! A user can pause, resume and cancel it.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::faults::random::is_long_form;
use crate::support::{Evoke, post};

const MANIFEST: &str = r#"
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, type: lab.in }
functions:
  witness:
    component: $FUNCTIONS/witness.wasm
    on:
      - events: { type: [lab.in] }
    order_by: data.key
    allow: { publish: ["witnessed"] }
"#;

const KEYS: usize = 50;

/// Sends events with these numbers in order, in batches of 500. Each event keeps its handler busy for `ms`
/// milliseconds.
fn send(evoke: &Evoke, numbers: std::ops::Range<usize>, ms: u64) {
    for batch in numbers.collect::<Vec<_>>().chunks(500) {
        let event = |n: &usize| {
            let data = json!({ "ms": ms, "n": n, "key": format!("k{}", n % KEYS) });
            json!({ "specversion": "1.0", "id": format!("e{n}"), "source": "/lab/in", "type": "lab.in", "data": data })
        };
        let batch = Value::from(batch.iter().map(event).collect::<Vec<_>>()).to_string();
        let headers = [("content-type", "application/cloudevents-batch+json")];
        assert_eq!(post(evoke.http(), "/in", &headers, &batch).unwrap().status, 202);
    }
}

/// The data of the `witnessed` events, one for each handled event, in commit order.
fn witnessed(evoke: &Evoke) -> Vec<Value> {
    evoke.events("witnessed").into_iter().map(|event| event["data"].clone()).collect()
}

/// Asserts that the events of a key are handled in order, separately for live and for replayed events. Returns how
/// often each event was replayed.
fn assert_in_order(witnessed: &[Value]) -> HashMap<String, usize> {
    let mut last: HashMap<(&str, bool), u64> = HashMap::new();
    let mut replays = HashMap::new();
    for handled in witnessed {
        let (key, replay, n) =
            (handled["key"].as_str().unwrap(), handled["replay"].as_bool().unwrap(), handled["n"].as_u64().unwrap());
        if let Some(previous) = last.insert((key, replay), n) {
            assert!(previous < n, "{key}: {n} was handled after {previous} (replay: {replay})");
        }
        if replay {
            *replays.entry(handled["id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    replays
}

/// The sequence number of the newest event.
fn newest_seq(evoke: &Evoke) -> i64 {
    evoke.get_admin("/api/v1/status", &[]).json()["events"].as_i64().unwrap()
}

/// Latencies of the live events after this sequence number, in ms, ascending: from the acceptance of an event to the
/// commit of the event that its function published.
fn latencies(evoke: &Evoke, after: i64) -> Vec<i64> {
    let listed = |type_: &str| -> Vec<Value> {
        let path = format!("/api/v1/events?envelope=true&after={after}&type={type_}");
        let text = evoke.get_admin(&path, &[]).body;
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

/// Sends live events one by one, 2 ms apart, and returns their latencies in ms.
fn send_live(evoke: &Evoke, from: usize, count: usize) -> Vec<i64> {
    let after = newest_seq(evoke);
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

/// The long form replays 100,000 events: `EVOKE_CAMPAIGN=long cargo test -p evoke --test blackbox replay`.
#[test]
fn a_replay_under_load_keeps_live_order_and_lets_live_events_go_first() {
    let (history, load) = if is_long_form() { (100_000, 3_000) } else { (3_000, 300) };
    let evoke = Evoke::up_with(MANIFEST);
    for from in (0..history).step_by(5_000) {
        let to = history.min(from + 5_000);
        send(&evoke, from..to, 0);
        assert_eventually!(evoke.done_count("lab/witness") == to as u64, "not handled: {}", evoke.stdout(&["status"]));
    }
    let alone = send_live(&evoke, history, load);

    let id = evoke.json(&["replay", "--all", "--detach"])["id"].as_i64().unwrap();
    let started = std::time::Instant::now();
    let beside = send_live(&evoke, history + load, load);
    let during = replay(&evoke, id);
    let p99 = |all: &[i64]| all[all.len() * 99 / 100];
    let shape = |all: &[i64]| format!("p50 {} p99 {} max {} ms", all[all.len() / 2], p99(all), all[all.len() - 1]);
    let rate = during["done"].as_f64().unwrap() / started.elapsed().as_secs_f64();
    println!("live alone: {}; beside a replay of {rate:.0}/s: {}", shape(&alone), shape(&beside));
    assert!(during["done"].as_u64().unwrap() > 0, "{during}");
    // The latency limit holds only on a machine without other load, so it is checked in the long form only.
    assert!(!is_long_form() || p99(&beside) <= 2 * p99(&alone) + 20, "live events wait for the replay: {beside:?}");

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
    // A replayed event takes 500 ms, and a replay gets at most 4 of the 16 permits.
    send(&evoke, 0..40, 500);
    evoke.settle();
    let id = evoke.json(&["replay", "--all", "--detach"])["id"].as_i64().unwrap();
    assert_eventually!(replay(&evoke, id)["ready"].as_u64().unwrap() > 30, "{}", replay(&evoke, id));
    // The live events have the same keys as the running deliveries of the replay.
    send(&evoke, 1_000..1_040, 0);
    let live = || witnessed(&evoke).iter().filter(|handled| handled["n"].as_u64() >= Some(1_000)).count();
    assert_eventually!(live() == 40, "{} live events handled", live());
    let during = replay(&evoke, id);
    assert!(during["done"].as_u64().unwrap() < 30, "the replay went first: {during}");
}

#[test]
fn a_killed_replay_resumes_from_its_committed_position() {
    const HISTORY: usize = 2_000;
    let mut evoke = Evoke::up_with(MANIFEST);
    send(&evoke, 0..HISTORY, 0);
    evoke.settle();
    let id = evoke.json(&["replay", "--type", "lab.in", "--rate", "1000/s"])["id"].as_i64().unwrap();
    for kill in [1, 2, 3] {
        assert_eventually!(replay(&evoke, id)["done"].as_u64().unwrap() > kill * 400, "{}", replay(&evoke, id));
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
fn a_cancelled_replay_purges_unstarted_deliveries_and_a_paused_replay_can_resume() {
    let evoke = Evoke::up_with(MANIFEST);
    send(&evoke, 0..400, 5);
    evoke.settle();
    let start = || evoke.json(&["replay", "--all", "--rate", "50/s"])["id"].as_i64().unwrap();
    let text_of = |id: i64| id.to_string();
    let id = start();
    assert_eventually!(replay(&evoke, id)["done"].as_u64().unwrap() > 10, "{}", replay(&evoke, id));
    let paused = evoke.json(&["replay", "pause", &text_of(id)]);
    assert_eq!(paused["state"], "paused");
    let again = evoke.run(&["replay", "pause", &text_of(id)]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is paused and cannot be paused"), "{again:?}");
    evoke.settle();
    let position = replay(&evoke, id)["position"].clone();
    evoke.stdout(&["replay", "resume", &text_of(id)]);
    assert_eventually!(replay(&evoke, id)["position"].as_i64() > position.as_i64(), "{}", replay(&evoke, id));

    evoke.stdout(&["replay", "cancel", &text_of(id)]);
    assert_eventually!(replay(&evoke, id)["state"] == "cancelled", "{}", replay(&evoke, id));
    let last = replay(&evoke, id);
    assert_eq!((&last["ready"], &last["blocked"], &last["retrying"]), (&json!(0), &json!(0), &json!(0)));
    assert!(last["events"].as_u64().unwrap() < 390, "{last}");

    // Without a rate more deliveries are ready than run at once: the cancellation purges the rest.
    let id = evoke.json(&["replay", "--all", "--detach"])["id"].as_i64().unwrap();
    assert_eventually!(replay(&evoke, id)["events"].as_u64().unwrap() > 100, "{}", replay(&evoke, id));
    evoke.stdout(&["replay", "cancel", &text_of(id)]);
    assert_eventually!(replay(&evoke, id)["state"] == "cancelled", "{}", replay(&evoke, id));
    let last = replay(&evoke, id);
    assert!(last["purged"].as_u64().unwrap() > 0, "{last}");
    assert_eq!(evoke.delivery_count("purged"), last["purged"].as_u64().unwrap());
    let list = evoke.stdout(&["replay", "list"]);
    assert_eq!(list.matches("cancelled").count(), 2, "{list}");
    assert_eq!(evoke.run(&["replay", "show", "99"]).status.code(), Some(4));
}

#[test]
fn a_dry_run_reports_its_plan_and_a_replay_of_one_event_is_marked() {
    let evoke = Evoke::up_with(MANIFEST);
    send(&evoke, 0..10, 0);
    evoke.settle();
    let plan = evoke.json(&["replay", "--all", "--dry-run"]);
    assert_eq!((&plan["events"], &plan["functions"]), (&json!(10), &json!({ "lab/witness": 10 })));
    let pattern = r#"{"data":{"n":[{"numeric":["<",3]}]}}"#;
    let text = evoke.stdout(&["replay", "--pattern", pattern, "--dry-run"]);
    assert!(text.starts_with("3 events make 3 deliveries") && text.contains("lab/witness"), "{text}");
    for (source, events) in [("/lab/in", 10), ("/lab/other", 0)] {
        assert_eq!(evoke.json(&["replay", "--source", source, "--dry-run"])["events"], json!(events), "{source}");
    }
    assert!(evoke.json_lines(&["replay", "list"]).is_empty());
    for incomplete in [&["replay"][..], &["replay", "--rate", "5/s"], &["replay", "--function", "lab/nobody"]] {
        assert!(!evoke.run(incomplete).status.success(), "{incomplete:?}");
    }

    let done = evoke.json(&["replay", "--event", "4", "--wait"]);
    assert_eq!((&done["state"], &done["done"]), (&json!("done"), &json!(1)));
    let replayed: Vec<_> = witnessed(&evoke).into_iter().filter(|handled| handled["replay"] == true).collect();
    let event = evoke.json(&["trace", "4"]);
    assert_eq!(replayed.len(), 1);
    assert_eq!(replayed[0]["id"], event["event"]["id"]);
    let deliveries = event["deliveries"].as_array().unwrap();
    assert_eq!((deliveries.len(), &deliveries[1]["replay"]), (2, &json!(1)), "{event:#}");
    assert_eq!(deliveries[1]["published"][0]["event"]["type"], "witnessed");
    assert!(evoke.stdout(&["trace", "4"]).contains(", replay 1"));
}

#[test]
fn a_replay_offers_earlier_events_to_a_new_function() {
    let mut evoke = Evoke::up_with("evoke: 1\napp: lab\nsources:\n  in:\n    http: { path: /in, type: lab.in }\n");
    send(&evoke, 0..20, 0);
    assert!(evoke.stop().success());
    evoke.write_manifest(MANIFEST);
    evoke.up();
    assert_eq!(evoke.delivery_count("done"), 0);
    evoke.stdout(&["replay", "--function", "lab/witness", "--wait"]);
    let is_replay: BTreeMap<String, bool> = witnessed(&evoke)
        .iter()
        .map(|handled| (handled["id"].as_str().unwrap().into(), handled["replay"] == true))
        .collect();
    assert!(is_replay.len() == 20 && is_replay.values().all(|replay| *replay), "{is_replay:?}");
}
