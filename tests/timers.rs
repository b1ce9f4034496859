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
    // On time: never early. The delay depends on the load of the machine; less than 1 s is accepted.
    for tick in evoke.json_lines(&["events", "--type", "evoke.timer.tick", "--limit", "5", "--envelope"]) {
        let accepted: jiff::Timestamp = tick["accepted"].as_str().unwrap().parse().unwrap();
        let late_ms = accepted.as_millisecond() - instant_ms(&tick["event"]);
        assert!((0..1_000).contains(&late_ms), "{late_ms} ms late: {tick}");
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
