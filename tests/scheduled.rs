//! Events with `notbefore`: stored at once, delivered at their time, once, also across kills; listed and cancelled.

use std::time::Duration;

use serde_json::{Value, json};

use crate::assert_eventually;
use crate::faults::random::is_long_form;
use crate::faults::shim::{Shim, WallClock};
use crate::support::Evoke;

const SHOP: &str = r#"
evoke: 1
app: shop
sources:
  in:
    http: { path: /in, accept: { types: [reminder, order.placed], sources: [/producer] } }
  header:
    http: { path: /header, type: reminder, attributes: { notbefore: "{header.x-due}" } }
functions:
  echo:
    component: $FUNCTIONS/echo.wasm
    on: [{ events: { type: [reminder, order.priced] } }]
    order_by: data.key
    allow: { publish: [echo] }
  price:
    component: $FUNCTIONS/command.wasm
    on: [{ events: { type: [order.placed] } }]
    allow: { publish: [order.priced] }
  web:
    component: $FUNCTIONS/http-publish.wasm
    on: [{ http: { path: /web } }]
    allow: { publish: [order.placed] }
"#;

/// The time in this many milliseconds.
fn due(in_ms: i64) -> String {
    let now = jiff::Timestamp::now();
    (now + jiff::SignedDuration::from_millis(in_ms)).to_string()
}

fn emit(evoke: &Evoke, id: &str, due: &str, data: &Value) {
    let event = json!({ "id": id, "source": "/t", "type": "reminder", "notbefore": due, "data": data });
    evoke.stdout(&["emit", "--event", &event.to_string()]);
}

fn scheduled(evoke: &Evoke) -> Vec<Value> {
    evoke.json_lines(&["pending", "list", "--scheduled"])
}

/// The ids of the events that were delivered, in the order of their deliveries.
fn echoed(evoke: &Evoke) -> Vec<String> {
    let events = evoke.events("echo");
    events.iter().map(|event| event["receivedid"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_event_waits_for_its_time_from_every_way_in() {
    let evoke = Evoke::up_with(SHOP);
    // Each way in, with an event that is due in an hour.
    let hour = due(3_600_000);
    let event = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/producer", "type": "reminder", "notbefore": hour });
    let accepted = |path: &str, headers: &[(&str, &str)], body: &str| {
        let response = evoke.post_with(path, headers, body);
        assert!([200, 202].contains(&response.status), "{response:?}");
    };
    accepted("/in", &[("content-type", "application/cloudevents+json")], &event("structured").to_string());
    let batch = Value::from(vec![event("batch-1"), event("batch-2")]).to_string();
    accepted("/in", &[("content-type", "application/cloudevents-batch+json")], &batch);
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "binary"),
        ("ce-source", "/producer"),
        ("ce-type", "reminder"),
        ("ce-notbefore", hour.as_str()),
        ("content-type", "application/json"),
    ];
    accepted("/in", &binary, "{}");
    accepted("/header", &[("content-type", "application/json"), ("x-due", &hour)], "{}");
    emit(&evoke, "emit", &hour, &json!({}));
    evoke.stdout(&["emit", "--type", "reminder", "--not-before", "1h"]);
    // A command publishes one, and so does an HTTP component.
    let order = json!({ "do": "later", "at": hour, "items": [] }).to_string();
    evoke.stdout(&["emit", "--type", "order.placed", "--data", &order]);
    accepted(&format!("/web?notbefore={hour}"), &[], "{}");
    assert_eventually!(scheduled(&evoke).len() == 9, "{:?}\n{}", scheduled(&evoke), evoke.log());

    let all = scheduled(&evoke);
    let functions: Vec<_> = all.iter().map(|one| one["functions"][0].as_str().unwrap()).collect();
    assert_eq!(functions.iter().filter(|name| **name == "shop/echo").count(), 8, "{all:?}");
    assert!(functions.contains(&"shop/price"), "the event of the HTTP component: {all:?}");
    assert!(all.iter().all(|one| (3_000_000..=3_600_000).contains(&one["wait_ms"].as_u64().unwrap())), "{all:?}");
    assert_eq!(evoke.get_admin("/api/v1/status", &[]).json()["scheduled"], 9);
    assert!(evoke.stdout(&["status"]).contains("9 events scheduled"));
    assert_eq!(evoke.json(&["check"])["scheduled"], 9);
    assert!(evoke.get_admin("/metrics", &[]).body.contains("evoke_events_scheduled 9"));
    assert_eq!(echoed(&evoke), Vec::<String>::new());
    // None is removed, and an event that is sent again is a duplicate.
    let again =
        evoke.post_with("/in", &[("content-type", "application/cloudevents+json")], &event("structured").to_string());
    assert_eq!(again.json()["events"][0]["duplicate"], true, "{again:?}");
    // A time in the past means now.
    emit(&evoke, "past", "1999-12-31T23:59:59Z", &json!({}));
    assert_eventually!(echoed(&evoke) == ["past"], "{:?}", echoed(&evoke));
}

#[test]
fn a_wrong_notbefore_is_refused_with_the_right_form_and_the_latest_time() {
    let evoke = Evoke::up_with(SHOP);
    for (time, problem) in [
        ("tomorrow", "`notbefore` is \\\"tomorrow\\\"; expected the earliest time of delivery in RFC 3339"),
        ("2999-01-01T00:00:00Z", "more than 366 days ahead; the latest time is "),
    ] {
        let event =
            json!({ "specversion": "1.0", "id": "1", "source": "/producer", "type": "reminder", "notbefore": time });
        let response = evoke.post_with("/in", &[("content-type", "application/cloudevents+json")], &event.to_string());
        assert!(response.status == 400 && response.body.contains(problem), "{response:?}");
        // A command that publishes such an event has failed.
        let order = json!({ "do": "later", "at": time, "items": [] }).to_string();
        evoke.stdout(&["emit", "--type", "order.placed", "--data", &order]);
    }
    assert_eventually!(evoke.json_lines(&["dead", "list"]).len() == 2, "{}", evoke.log());
    let letters = evoke.json_lines(&["dead", "list"]);
    let causes: Vec<_> = letters.iter().map(|letter| letter["delivery"]["cause"].as_str().unwrap()).collect();
    assert!(causes.iter().all(|cause| cause.contains("`notbefore` is")), "{causes:?}");
    assert_eq!(scheduled(&evoke).len(), 0);
}

#[test]
fn scheduled_events_survive_kills_and_are_delivered_once_and_on_time() {
    let mut evoke = Evoke::up_with(SHOP);
    let count = if is_long_form() { 2_000 } else { 60 };
    let start = jiff::Timestamp::now();
    // Due one after another, from one second to four seconds from now, in an order that is not that of their ids.
    let due_ms = |n: i64| 1_000 + (n * 7_919 % count) * 3_000 / count;
    let events: Vec<_> = (0..count)
        .map(|n| {
            let due = start + jiff::SignedDuration::from_millis(due_ms(n));
            json!({ "id": n.to_string(), "source": "/t", "type": "reminder", "notbefore": due.to_string(), "data": {} })
        })
        .collect();
    for part in events.chunks(500) {
        evoke.stdout(&["emit", "--event", &Value::from(part.to_vec()).to_string()]);
    }
    // Killed before the first one, between them, and for long enough that some are late.
    let delivered = |evoke: &Evoke| evoke.json_lines(&["events", "--type", "echo", "--after", "0"]).len() as i64;
    for after in [0, count / 4, count / 2] {
        assert_eventually!(delivered(&evoke) >= after, "{} of {after}: {}", delivered(&evoke), evoke.log());
        evoke.kill();
        evoke.up();
    }
    assert_eventually!(delivered(&evoke) >= count, "{} of {count}: {}", delivered(&evoke), evoke.log());
    evoke.settle();
    let mut ids = echoed(&evoke);
    ids.sort_by_key(|id| id.parse::<i64>().unwrap());
    assert_eq!(ids, (0..count).map(|n| n.to_string()).collect::<Vec<_>>());
    // Never early.
    for event in evoke.json_lines(&["events", "--type", "echo", "--after", "0", "--envelope"]) {
        let accepted: jiff::Timestamp = event["accepted"].as_str().unwrap().parse().unwrap();
        let n: i64 = event["event"]["receivedid"].as_str().unwrap().parse().unwrap();
        let late_ms = accepted.as_millisecond() - start.as_millisecond() - due_ms(n);
        assert!(late_ms >= 0, "{n} was delivered {late_ms} ms after its time");
    }
    let report = evoke.json(&["check"]);
    assert_eq!((&report["scheduled"], &report["problems"]), (&json!(0), &json!([])));
}

#[test]
fn scheduled_events_are_cancelled_by_id_number_and_pattern_and_never_delivered() {
    let evoke = Evoke::up_with(SHOP);
    for (id, key) in [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"), ("e", "z")] {
        emit(&evoke, id, &due(3_600_000), &json!({ "key": key }));
    }
    let table = evoke.stdout(&["pending", "list", "--scheduled", "--pattern", r#"{"data":{"key":["x"]}}"#]);
    assert!(table.contains("shop/echo") && table.contains("reminder") && table.lines().count() == 3, "{table}");
    assert_eq!(evoke.stdout(&["pending", "cancel", "--event", "a"]).trim(), "1 event cancelled");
    let again = evoke.run(&["pending", "cancel", "--event", "a"]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not scheduled: it has no `notbefore`"), "{again:?}");
    assert_eq!(evoke.run(&["pending", "cancel", "--event", "none"]).status.code(), Some(4));
    let by_pattern = ["pending", "cancel", "--scheduled", "--pattern", r#"{"data":{"key":["y"]}}"#];
    assert_eq!(evoke.json(&by_pattern), json!({ "count": 2 }));
    let number = scheduled(&evoke).last().unwrap()["event"]["seq"].to_string();
    evoke.stdout(&["pending", "cancel", "--event", &number]);
    assert_eq!(scheduled(&evoke).len(), 1);
    let wrong = evoke.run(&["pending", "cancel", "--scheduled"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");

    // The keys of the cancelled events are not blocked, and a redrive finds none of them.
    assert!(evoke.stdout(&["dead", "redrive", "--all"]).contains('0'));
    emit(&evoke, "now", &due(-1), &json!({ "key": "x" }));
    assert_eventually!(echoed(&evoke) == ["now"], "{:?}", echoed(&evoke));
    let counts = &evoke.json(&["check"])["functions"]["shop/echo"];
    assert_eq!((&counts["purged"], &counts["done"]), (&json!(4), &json!(1)));
    let trace = evoke.stdout(&["trace", "a"]);
    assert!(trace.contains("an operator cancelled the event before it was due"), "{trace}");
    // A viewer sees the schedule and changes nothing.
    let token: Value = evoke.json(&["token", "create", "watch", "--role", "viewer"]);
    let token = format!("Bearer {}", token["token"].as_str().unwrap());
    let as_viewer = |method: &str, path: &str| {
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        crate::support::request(method, evoke.admin(), path, &headers, r#"{"event":"b"}"#).unwrap().status
    };
    assert_eq!(as_viewer("POST", "/api/v1/scheduled/cancel"), 403);
    assert_eq!(as_viewer("GET", "/api/v1/scheduled"), 200);
    assert_eq!(scheduled(&evoke).len(), 1);
}

#[test]
fn a_jump_of_the_wall_clock_makes_scheduled_events_due_once() {
    const HOUR: i64 = 3_600;
    let mut evoke = Evoke::with(SHOP);
    let clock = WallClock::of(&evoke);
    let shim = Shim::for_data_of(&evoke).with_clock(&clock);
    evoke.try_up(&[], shim.environment()).unwrap();
    let start = jiff::Timestamp::now();
    let emit = |id: &str, hours: i64| {
        let due = start + jiff::SignedDuration::from_hours(hours);
        let event = json!({ "id": id, "source": "/t", "type": "reminder", "notbefore": due.to_string(), "data": {} });
        // The command runs with the real clock, so it sends the event as it is.
        evoke.stdout(&["emit", "--event", &event.to_string()]);
    };
    emit("hour", 1);
    emit("year", 365 * 24);
    assert_eq!(scheduled(&evoke).len(), 2);
    clock.set(2 * HOUR);
    assert_eventually!(echoed(&evoke) == ["hour"], "{:?}: {}", echoed(&evoke), evoke.log());
    // Back to before the event was sent: it is not delivered again, and the other one waits.
    clock.set(-HOUR);
    emit("now", -2);
    assert_eventually!(echoed(&evoke) == ["hour", "now"], "{:?}", echoed(&evoke));
    clock.set(366 * 24 * HOUR);
    assert_eventually!(echoed(&evoke) == ["hour", "now", "year"], "{:?}", echoed(&evoke));
    assert_eq!(scheduled(&evoke).len(), 0);
}

/// The long form has a million events over the next hour, and then a thousand due each second. The test prints its figures.
#[test]
fn many_scheduled_events_cost_a_start_and_the_memory_nothing_and_are_on_time() {
    let mut evoke = Evoke::up_with(SHOP);
    let (far, near, per_second) = if is_long_form() { (1_000_000, 30_000, 1_000) } else { (5_000, 600, 200) };
    let send = |evoke: &Evoke, lines: String| {
        std::fs::write(evoke.path("lines"), lines).unwrap();
        let stdin = std::fs::File::open(evoke.path("lines")).unwrap();
        let output = evoke.command(&["emit", "-"]).stdin(stdin).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    let line = |n: i64, type_: &str, at: jiff::Timestamp| {
        format!(
            "{{\"id\":\"{type_}-{n}\",\"source\":\"/t\",\"type\":\"{type_}\",\"notbefore\":\"{at}\",\"data\":{{}}}}\n"
        )
    };
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(10);
    let started = std::time::Instant::now();
    let at = |n: i64| later + jiff::SignedDuration::from_millis(n * 3_000_000 / far);
    send(&evoke, (0..far).map(|n| line(n, "far", at(n))).collect());
    let loaded = started.elapsed();
    assert!(evoke.stop().success());
    let started = std::time::Instant::now();
    evoke.up();
    let start = started.elapsed();
    let memory_kib = evoke.rss_kib();
    // Their deliveries are measured by the events that the function publishes.
    let first = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(3 + near / 20_000);
    let due_ms = |n: i64| first.as_millisecond() + n * 1_000 / per_second;
    let at = |n: i64| jiff::Timestamp::from_millisecond(due_ms(n)).unwrap();
    send(&evoke, (0..near).map(|n| line(n, "reminder", at(n))).collect());
    assert_eventually!(evoke.done_count("shop/echo") >= near as u64, "{}", evoke.stdout(&["status"]));
    let used_kib = evoke.rss_kib();
    let mut late_ms: Vec<i64> = evoke
        .json_lines(&["events", "--type", "echo", "--after", "0", "--envelope"])
        .iter()
        .map(|event| {
            let accepted: jiff::Timestamp = event["accepted"].as_str().unwrap().parse().unwrap();
            let n: i64 =
                event["event"]["receivedid"].as_str().unwrap().strip_prefix("reminder-").unwrap().parse().unwrap();
            accepted.as_millisecond() - due_ms(n)
        })
        .collect();
    late_ms.sort_unstable();
    assert_eq!((late_ms.len() as i64, late_ms[0] >= 0), (near, true), "{}", late_ms[0]);
    let part = |parts: usize| late_ms[late_ms.len() * parts / 1_000];
    println!(
        "{far} scheduled in {loaded:?}; start {start:?}; {memory_kib} KiB after it, {used_kib} KiB after {near} of them at \
         {per_second} a second; lateness p50 {} p99 {} max {} ms",
        part(500),
        part(990),
        late_ms.last().unwrap()
    );
    assert_eq!(evoke.get_admin("/api/v1/status", &[]).json()["scheduled"], far);
    // Loose bounds, because the machine runs other tests as well.
    assert!(start < Duration::from_secs(if is_long_form() { 3 } else { 20 }), "{start:?}");
    if is_long_form() {
        assert!(memory_kib < 120_000 && used_kib < 220_000, "{memory_kib} KiB, {used_kib} KiB");
    }
}
