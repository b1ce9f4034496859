//! Timers: each tick arrives on time and once, also across a restart.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::assert_eventually;
use crate::support::Evoke;

const PULSE: &str = r#"
evoke: 1
app: clock
sources:
  pulse:
    timer: { every: 200ms, missed: all }
functions:
  heartbeat:
    component: $FUNCTIONS/heartbeat.wasm
    on:
      - source: pulse
    allow: { publish: [heartbeat] }
"#;

fn instant_ms(tick: &Value) -> i64 {
    let text = tick["data"]["scheduled"].as_str().unwrap();
    text.parse::<jiff::Timestamp>().unwrap().as_millisecond()
}

#[test]
fn ticks_arrive_on_time_and_once_each() {
    let evoke = Evoke::up_with(PULSE);
    assert_eventually!(evoke.events("heartbeat").len() >= 5, "no five heartbeats: {}", evoke.log());
    let ticks = evoke.events("evoke.timer.tick");
    let instants: Vec<i64> = ticks.iter().map(instant_ms).collect();
    assert!(instants.iter().all(|ms| ms % 200 == 0), "{instants:?}");
    assert!(instants.windows(2).all(|pair| pair[1] - pair[0] == 200), "consecutive, none missing: {instants:?}");
    // On time: never early. The delay depends on the load of the machine; less than 1 s is accepted. Events are stamped
    // with another clock than the one that ticks follow. Both have whole milliseconds, so they can differ by one.
    for tick in evoke.json_lines(&["events", "--type", "evoke.timer.tick", "--limit", "5", "--envelope"]) {
        let accepted: jiff::Timestamp = tick["accepted"].as_str().unwrap().parse().unwrap();
        let late_ms = accepted.as_millisecond() - instant_ms(&tick["event"]);
        assert!((-1..1_000).contains(&late_ms), "{late_ms} ms late: {tick}");
    }
}

#[test]
fn ticks_missed_while_evoke_is_down_are_sent_after_the_start() {
    let mut evoke = Evoke::up_with(PULSE);
    assert_eventually!(!evoke.events("evoke.timer.tick").is_empty(), "no tick: {}", evoke.log());
    evoke.kill();
    let down_since = std::time::Instant::now();
    assert_eventually!(down_since.elapsed().as_millis() > 700, "the clock does not advance");
    evoke.up();
    assert_eventually!(evoke.events("evoke.timer.tick").len() >= 6, "too few ticks: {}", evoke.log());
    let instants: Vec<i64> = evoke.events("evoke.timer.tick").iter().map(instant_ms).collect();
    let distinct: BTreeSet<i64> = instants.iter().copied().collect();
    assert_eq!(distinct.len(), instants.len(), "a tick arrived twice");
    let (first, newest) = (distinct.first().unwrap(), distinct.last().unwrap());
    assert_eq!((newest - first) / 200 + 1, distinct.len() as i64, "a tick is missing: {instants:?}");
}

const OPTIONS: &str = r#"
evoke: 1
app: clock
sources:
  once:
    timer: { at: [$PAST, $SOON, $LATER] }
  slow:
    timer: { every: 200ms, overlap: skip }
functions:
  heartbeat:
    component: $FUNCTIONS/heartbeat.wasm
    on: [{ source: once }]
    allow: { publish: [heartbeat] }
  stuck:
    component: $FUNCTIONS/fate-retry.wasm
    on: [{ source: slow }]
    retry: { attempts: 8, backoff: 1h, max_backoff: 1h }
"#;

#[test]
fn single_times_tick_once_and_timers_are_listed_with_what_became_of_their_ticks() {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let [past, soon, later] = [-3_600_000, 1_500, 3_600_000]
        .map(|in_ms| jiff::Timestamp::from_millisecond(now_ms + in_ms).unwrap().to_string());
    let manifest = OPTIONS.replace("$PAST", &past).replace("$SOON", &soon).replace("$LATER", &later);
    let mut evoke = Evoke::up_with(&manifest);
    let ticks = |evoke: &Evoke, source: &str| -> Vec<Value> {
        evoke.events("evoke.timer.tick").into_iter().filter(|tick| tick["source"] == source).collect()
    };
    assert_eventually!(ticks(&evoke, "/clock/once").len() == 2, "{}", evoke.log());
    // A restart repeats none.
    evoke.kill();
    evoke.up();
    assert_eventually!(evoke.done_count("clock/heartbeat") == 2, "{}", evoke.log());
    let data = |tick: &Value| (tick["id"].as_str().unwrap().to_owned(), tick["data"]["missed"] == true);
    let once: Vec<_> = ticks(&evoke, "/clock/once").iter().map(data).collect();
    assert_eq!(once, [(past, true), (soon, false)]);
    let timer = |evoke: &Evoke, uri: &str| evoke.json_lines(&["timers", uri, "--ticks", "10"]).remove(0);
    let listed = timer(&evoke, "/clock/once");
    assert_eq!(listed["next"].as_array().unwrap().len(), 1, "{listed}");
    let states: Vec<_> =
        listed["last"].as_array().unwrap().iter().map(|tick| &tick["deliveries"][0]["state"]).collect();
    assert_eq!(states, ["done", "done"], "{listed}");

    // The delivery of the first tick waits for its retry, so the other ticks are skipped, also after the restart.
    let is_skipped = |tick: &Value| tick["skipped"] == "overlap" && tick.get("event").is_none();
    let skipped = || {
        let last = timer(&evoke, "/clock/slow")["last"].as_array().unwrap().clone();
        last.iter().filter(|tick| is_skipped(tick)).count()
    };
    assert_eventually!(skipped() == 8, "{}", timer(&evoke, "/clock/slow"));
    let slow = timer(&evoke, "/clock/slow");
    assert_eq!(slow["last"][0]["deliveries"][0]["state"], "retrying", "{slow}");
    assert_eq!(ticks(&evoke, "/clock/slow").len(), 1);
    let table = evoke.stdout(&["timers"]);
    assert!(
        table.contains("skipped: the previous tick was still pending") && table.contains("clock/heartbeat done"),
        "{table}"
    );
    evoke.stdout(&["pending", "cancel", "--function", "clock/stuck"]);
    assert_eventually!(ticks(&evoke, "/clock/slow").len() == 2, "{}", timer(&evoke, "/clock/slow"));
    let unknown = evoke.run(&["timers", "/clock/onc"]);
    assert_eq!(unknown.status.code(), Some(4), "{unknown:?}");
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean `/clock/once`?"), "{unknown:?}");
}
