//! Jumps of the wall clock, by hours and by years, while Evoke runs and while it is stopped: no wait becomes longer,
//! nothing dies or is removed early, no tick is repeated. The wall clock of the program is faked; its elapsed time is
//! real.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::assert_eventually;
use crate::faults::shim::{Shim, WallClock};
use crate::support::Evoke;

const HOUR: i64 = 3_600;
const YEAR: i64 = 365 * 24 * HOUR;

/// A function that fails as many times as an item requests.
const RELAY: &str = r#"
evoke: 1
app: line
sources:
  items:
    http: { path: /items, type: item }
functions:
  relay:
    component: $FUNCTIONS/relay.wasm
    on: [{ events: { type: [item] } }]
    retry: { backoff: 2s, max_backoff: 2s, attempts: 20, max_age: 1h }
    allow: { publish: [item.one], config: { NEXT: item.one } }
"#;

/// An Evoke whose wall clock the test sets.
struct Faked {
    evoke: Evoke,
    clock: WallClock,
}

impl Faked {
    fn up(manifest: &str, seconds: i64, arguments: &[&str]) -> Self {
        let evoke = Evoke::with(manifest);
        let clock = WallClock::of(&evoke);
        clock.set(seconds);
        let mut faked = Self { evoke, clock };
        faked.start(arguments);
        faked
    }

    fn start(&mut self, arguments: &[&str]) {
        let shim = Shim::for_data_of(&self.evoke).with_clock(&self.clock);
        if let Err(status) = self.evoke.try_up(arguments, shim.environment()) {
            panic!("not up ({status}): {}", self.evoke.log());
        }
    }

    /// Sends an item with this id. Returns true if it was reported as a duplicate.
    fn send(&self, id: &str, retries: u32) -> bool {
        let headers = [("content-type", "application/json"), ("ce-id", id), ("ce-specversion", "1.0")];
        let headers = [&headers[..], &[("ce-type", "item"), ("ce-source", "/line/items")]].concat();
        let body = format!(r#"{{"retries":{{"item.one":{retries}}}}}"#);
        let response = self.evoke.post_with("/items", &headers, &body);
        assert!([200, 202].contains(&response.status), "{response:?}");
        response.json()["events"][0]["duplicate"] == true
    }

    fn relayed(&self) -> usize {
        self.evoke.events("item.one").len()
    }

    fn jumps(&self) -> usize {
        self.evoke.log().matches("retries, ages, retention and the dedup window do not change").count()
    }

    /// Returns the years in which the events were accepted, as the API shows them.
    fn years(&self) -> BTreeSet<String> {
        let all = self.evoke.json_lines(&["events", "--after", "0", "--envelope"]);
        all.iter().map(|event| event["accepted"].as_str().unwrap()[..4].to_owned()).collect()
    }
}

fn seconds_since_1970() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// Waits for a fixed time, for cases in which no condition can be polled.
fn wait_for(time: Duration) {
    let started = Instant::now();
    assert_eventually!(started.elapsed() >= time, "never");
}

#[test]
fn a_clock_that_is_set_back_delays_no_retry() {
    for back in [HOUR, YEAR] {
        let faked = Faked::up(RELAY, 0, &[]);
        faked.send("one", 3);
        assert_eventually!(faked.evoke.delivery_count("retrying") == 1, "{}", faked.evoke.log());
        faked.clock.set(-back);
        assert_eventually!(faked.relayed() == 1, "{}", faked.evoke.log());
        assert_eventually!(faked.jumps() == 1, "{}", faked.evoke.log());
        assert!(faked.evoke.log().contains("the wall clock jumped back"), "{}", faked.evoke.log());
        // A retry after the jump is not delayed either.
        faked.send("two", 1);
        assert_eventually!(faked.relayed() == 2, "{}", faked.evoke.log());
        assert_eq!(faked.jumps(), 1, "{}", faked.evoke.log());
        faked.evoke.stdout(&["check"]);
    }
}

#[test]
fn a_clock_that_starts_in_1970_and_is_set_kills_removes_and_repeats_nothing() {
    let arguments = ["--retain", "1h", "--dedup-window", "1h"];
    let mut faked = Faked::up(RELAY, 10 - seconds_since_1970(), &arguments);
    assert!(!faked.send("done", 0));
    assert_eventually!(faked.relayed() == 1, "{}", faked.evoke.log());
    assert!(!faked.send("late", 4));
    assert_eventually!(faked.evoke.delivery_count("retrying") == 1, "{}", faked.evoke.log());
    assert_eq!(faked.years(), BTreeSet::from(["1970".to_owned()]));
    faked.clock.set(0);
    assert_eventually!(faked.jumps() == 1, "{}", faked.evoke.log());
    // The delivery does not die of its age, and no duplicate is accepted.
    assert!(faked.send("done", 0) && faked.send("late", 0));
    assert_eventually!(faked.relayed() == 2, "{}", faked.evoke.log());
    assert!(!faked.send("new", 0));
    assert_eventually!(faked.relayed() == 3, "{}", faked.evoke.log());
    // Retention runs every ten seconds.
    wait_for(Duration::from_secs(11));
    // The times of events are those of the wall clock.
    let years = faked.years();
    assert!(years.contains("1970") && years.len() == 2, "{years:?}");

    // The same across restarts, with a clock that is right, in 1970, and a year ahead.
    for seconds in [0, 10 - seconds_since_1970(), YEAR] {
        assert!(faked.evoke.stop().success(), "{}", faked.evoke.log());
        faked.clock.set(seconds);
        faked.start(&arguments);
        assert!(faked.send("done", 0) && faked.send("late", 0) && faked.send("new", 0), "{}", faked.evoke.log());
    }
    faked.send("last", 2);
    assert_eventually!(faked.relayed() == 4, "{}", faked.evoke.log());
    let check = faked.evoke.json(&["check"]);
    assert_eq!((&check["removed"]["events"], &check["functions"]["line/relay"]["dead"]), (&0.into(), &0.into()));
}

#[test]
fn each_tick_comes_once_whatever_the_clock_does() {
    let pulse = r#"
evoke: 1
app: clock
sources:
  pulse:
    timer: { every: 500ms, missed: none }
functions:
  heartbeat:
    component: $FUNCTIONS/heartbeat.wasm
    on: [{ source: pulse }]
    allow: { publish: [heartbeat] }
"#;
    // Without deduplication by the bus.
    let arguments = ["--dedup-window", "1ms"];
    let mut faked = Faked::up(pulse, 0, &arguments);
    let ticks = |faked: &Faked| -> Vec<String> {
        let id = |event: &Value| event["id"].as_str().unwrap().to_owned();
        faked.evoke.events("evoke.timer.tick").iter().map(id).collect()
    };
    // Two seconds ahead and back again, so that the clock passes the same instants twice.
    for (seconds, is_restarted) in [(HOUR, false), (0, false), (YEAR, true), (HOUR, true), (3, false), (0, true)] {
        let before = ticks(&faked).len();
        assert_eventually!(ticks(&faked).len() >= before + 3, "no tick: {}", faked.evoke.log());
        if is_restarted {
            assert!(faked.evoke.stop().success(), "{}", faked.evoke.log());
        }
        faked.clock.set(seconds);
        if is_restarted {
            faked.start(&arguments);
        }
    }
    let before = ticks(&faked).len();
    assert_eventually!(ticks(&faked).len() >= before + 3, "no tick: {}", faked.evoke.log());
    let all = ticks(&faked);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "a tick came twice: {all:?}");
}
