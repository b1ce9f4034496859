//! Kills at random points: no change of state is lost, doubled or invented.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{manifest, shown};
use crate::assert_eventually;
use crate::faults::random::{Random, size};
use crate::support::Evoke;

const STATES: [(&str, usize); 3] = [("ok", 10), ("warning", 85), ("critical", 95)];

/// Returns the states of the events, after checking that each follows on the one before.
fn told(evoke: &Evoke) -> Vec<String> {
    let mut last = "ok".to_owned();
    let follow = |event: &Value| {
        let text = |name: &str| event["data"][name].as_str().unwrap().to_owned();
        assert_eq!(text("previous"), last, "a change is lost or doubled: {event}");
        last = text("state");
        assert_ne!(text("previous"), last, "no change: {event}");
        last.clone()
    };
    evoke.events("evoke.monitor.changed").iter().map(follow).collect()
}

#[test]
fn kills_at_random_points_lose_double_and_invent_no_change() {
    let seed = Random::seed("kills of monitors");
    let mut random = Random::new(seed);
    let monitor = "{ every: 100ms, file: { path: ./watched, of: size }, warning: 80B, critical: 90B }";
    let mut evoke = Evoke::with(&manifest(monitor));
    let write = |evoke: &Evoke, bytes: usize| {
        // Renamed into place, so that no reading finds a file that is being written.
        std::fs::write(evoke.path("new"), vec![b'x'; bytes]).unwrap();
        std::fs::rename(evoke.path("new"), evoke.path("watched")).unwrap();
    };
    write(&evoke, 10);
    evoke.up();
    assert_eventually!(shown(&evoke)["state"] == "ok", "no reading: {}", evoke.log());
    // The states that the file has had.
    let mut had = vec!["ok"];
    let mut missed = 0;
    for round in 0..size(15, 200) {
        let mut next = *had.last().unwrap();
        while next == *had.last().unwrap() {
            next = STATES[random.below(STATES.len())].0;
        }
        let bytes = STATES.iter().find(|(state, _)| *state == next).unwrap().1;
        let is_down = random.percent(30);
        if is_down {
            evoke.kill();
        }
        write(&evoke, bytes);
        had.push(next);
        if is_down {
            evoke.up();
        }
        if random.percent(50) {
            // The kill hits the reading, the commit, or what follows.
            let until = Instant::now() + Duration::from_micros(random.below(150_000) as u64);
            assert_eventually!(Instant::now() >= until, "the clock does not advance");
            evoke.kill();
            evoke.up();
        }
        assert_eventually!(
            told(&evoke).last().map_or("ok", String::as_str) == next,
            "the state {next} is not told in round {round}; EVOKE_SEED={seed}: {:?}",
            told(&evoke)
        );
        let newest = evoke.events("evoke.monitor.changed").pop().unwrap();
        missed += u32::from(newest["data"]["missed"] == true);
        if is_down {
            assert_eq!(newest["data"]["missed"], true, "{newest}");
        }
        assert_eq!(told(&evoke), had[1..], "EVOKE_SEED={seed}");
    }
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);
    println!("{} changes, {missed} of them while Evoke did not run, each told once", had.len() - 1);
}
