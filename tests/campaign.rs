//! A crash campaign: Evoke is killed at random moments, under load and while it starts. The producers record outside of
//! Evoke which items were acknowledged. The test then checks that no acknowledged item is lost, no item is handled
//! twice, every key keeps its order, and the counters in state are exact.
//!
//! The long form is
//! `EVOKE_CAMPAIGN=long cargo test --release -p evoke --test blackbox campaign -- --nocapture`.
//! `EVOKE_SEED=…` repeats the random choices of an earlier run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::assert_eventually;
use crate::faults::items::{Items, TYPES, manifest};
use crate::faults::neighbours::Neighbours;
use crate::faults::producers::Producers;
use crate::faults::random::{Random, is_long_form, size};
use crate::faults::shim::{Shim, WallClock};
use crate::support::{Evoke, OnDrop};

const PRODUCERS: u64 = 4;
const KEYS: usize = 1_000;

/// The three relay functions, and a fourth function that counts the items of each key that passed all three.
fn manifest_with_counter() -> String {
    manifest()
        + "  count:\n    component: $FUNCTIONS/counter.wasm\n    on:\n      - events: { type: [item.three] }\n    \
           retry: { backoff: 5ms }\n    allow: { state: true, publish: [counted] }\n"
}

/// Stops, kills and restarts Evoke at random.
struct Chaos<'a> {
    evoke: Evoke,
    /// Sets the environment variables of every start.
    shim: Shim,
    producers: &'a Producers<'a>,
    random: Random,
    /// Kills before the start was complete.
    start_kills: usize,
    /// Kills and stops after a complete start.
    downs: usize,
    /// Those of `downs` that were a stop by SIGTERM.
    stops: usize,
    slowest_start: Duration,
}

impl Chaos<'_> {
    /// Starts Evoke. One start in four is killed before it is ready, and started again.
    fn up(&mut self) {
        while self.random.percent(25) {
            self.evoke.start_with(&[], self.shim.environment());
            std::thread::sleep(Duration::from_micros(self.random.below(60_000) as u64));
            self.evoke.kill();
            self.start_kills += 1;
        }
        let started = Instant::now();
        if let Err(status) = self.evoke.try_up(&[], self.shim.environment()) {
            panic!("not up ({status}): {}", self.evoke.log());
        }
        self.slowest_start = self.slowest_start.max(started.elapsed());
        self.producers.send_to(self.evoke.http());
    }

    /// Waits until up to 100 more items are acknowledged, or for up to 400 ms.
    fn run_for_a_while(&mut self) {
        let until = self.producers.acknowledged_count() + self.random.below(100);
        let longest = Instant::now() + Duration::from_millis(self.random.below(400) as u64);
        while self.producers.acknowledged_count() < until && Instant::now() < longest {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn down(&mut self) {
        if self.random.percent(10) {
            let began = Instant::now();
            assert!(self.evoke.stop().success(), "{}", self.evoke.log());
            assert!(began.elapsed() < Duration::from_secs(20), "the stop took {:?}", began.elapsed());
            self.stops += 1;
        } else {
            self.evoke.kill();
        }
        self.downs += 1;
        // `check` is slow when the store is large.
        if self.downs <= 100 || self.downs.is_multiple_of(10) {
            self.evoke.stdout(&["check"]);
        }
    }
}

#[test]
fn kills_at_any_moment_lose_and_duplicate_nothing_and_keep_the_order_of_each_key() {
    run("campaign", &manifest_with_counter(), size(100, 1_000), size(5_000, 100_000), None);
}

/// A campaign with another program that opens, closes and locks the store, with a files source that watches the data
/// folder, and with a wall clock that jumps.
#[test]
fn kills_lose_nothing_while_the_store_is_locked_and_watched_and_the_clock_jumps() {
    let watched = "sources:\n  folder:\n    files: { path: ., settle: 20ms, exclude: [up.log] }\n";
    let manifest = manifest_with_counter().replacen("sources:\n", watched, 1);
    run("neighbours", &manifest, size(25, 300), size(2_000, 30_000), Some(&Neighbours::default()));
}

fn run(name: &str, manifest: &str, kills: usize, count: usize, neighbours: Option<&Neighbours>) {
    let seed = Random::seed(name);
    let mut random = Random::new(seed);
    let poison = (0..count / 100).map(|_| (random.below(count), TYPES[1 + random.below(3)])).collect();
    let items = Items { retries: 10, poison, ..Items::plain(seed, KEYS, 500) };
    let producers = Producers::new(&items, count);
    let evoke = Evoke::with(manifest);
    let (clock, database) = (WallClock::of(&evoke), evoke.path(".evoke/evoke.db"));
    let shim = Shim::for_data_of(&evoke).with_clock(&clock);
    let mut chaos = Chaos {
        evoke,
        shim,
        producers: &producers,
        random,
        start_kills: 0,
        downs: 0,
        stops: 0,
        slowest_start: Duration::ZERO,
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        // The producers must stop also when an assertion below fails; otherwise the scope never ends.
        let _stop = OnDrop(|| producers.stop());
        let _stop_neighbours = neighbours.map(|neighbours| OnDrop(|| neighbours.stop()));
        chaos.up();
        for n in 0..PRODUCERS {
            let producers = &producers;
            scope.spawn(move || producers.run(seed ^ n));
        }
        if let Some(neighbours) = neighbours {
            let (database, clock) = (&database, &clock);
            scope.spawn(move || neighbours.run(database, clock, seed));
        }
        for _ in 0..kills {
            chaos.run_for_a_while();
            chaos.down();
            chaos.up();
        }
        producers.stop();
    });
    let acknowledged = producers.acknowledged();
    let evoke = &mut chaos.evoke;
    settle_and_verify(evoke, &items, &acknowledged);
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);
    println!(
        "EVOKE_SEED={seed}: {} kills ({} during a start), {} stops, slowest start {:?}; {} items acknowledged {} times, \
         {} requests without a response; {}0 lost, 0 duplicated, 0 out of order; {:?}{}",
        kills - chaos.stops + chaos.start_kills,
        chaos.start_kills,
        chaos.stops,
        chaos.slowest_start,
        acknowledged.len(),
        producers.acknowledgements.load(Ordering::Relaxed),
        producers.unanswered.load(Ordering::Relaxed),
        neighbours.map(|neighbours| neighbours.summary() + "; ").unwrap_or_default(),
        began.elapsed(),
        if is_long_form() { "" } else { " (short form)" },
    );
}

/// Waits until only poisoned keys are pending, and compares all events with the expected ones. Then purges the dead
/// letters and does the same for the rest.
fn settle_and_verify(evoke: &Evoke, items: &Items, acknowledged: &BTreeSet<usize>) {
    let only_blocked = || {
        let totals = evoke.json(&["check"]);
        let functions = totals["functions"].as_object().unwrap().clone();
        functions.values().all(|counts| counts["ready"] == 0 && counts["retrying"] == 0)
    };
    assert_eventually!(only_blocked(), "stuck: {}\n{}", evoke.stdout(&["check"]), evoke.log());
    // A delivery that ran at two kills is a dead letter, and loses nothing.
    for id in crashed(evoke) {
        evoke.stdout(&["dead", "redrive", &id]);
        assert_eventually!(only_blocked(), "stuck: {}\n{}", evoke.stdout(&["check"]), evoke.log());
    }
    let history = History::of(evoke);
    let stored = items.verify(acknowledged, history.items());
    // Only items behind a poisoned item of the same key wait; no key waits for another key.
    for step in TYPES.windows(2) {
        assert_eq!(stored[step[1]], expected_output(items, step[1], &history.order_of(step[0])), "{}", step[1]);
    }
    // Without the dead letters all other items pass.
    while evoke.delivery_count("dead") > 0 {
        evoke.stdout(&["dead", "purge", "--all"]);
        assert_eventually!(only_blocked(), "stuck: {}\n{}", evoke.stdout(&["check"]), evoke.log());
    }
    assert_eq!(evoke.delivery_count("blocked"), 0);
    let history = History::of(evoke);
    let stored = items.verify(acknowledged, history.items());
    for step in TYPES.windows(2) {
        let rejected = |number: &usize| items.poison.get(number) == Some(&step[1]);
        let expected: BTreeSet<usize> = stored[step[0]].iter().filter(|number| !rejected(number)).copied().collect();
        assert_eq!(stored[step[1]], expected, "{}", step[1]);
    }
    history.verify_counts(evoke, items, &stored[TYPES[3]]);
}

/// The dead letters that are not the fault of a function.
fn crashed(evoke: &Evoke) -> Vec<String> {
    let letters = evoke.json_lines(&["dead", "list", "--limit", "10000"]);
    let letters = letters.iter().map(|letter| &letter["delivery"]);
    let crashed = letters.filter(|delivery| delivery["cause"].as_str().unwrap().starts_with("crashed"));
    crashed.map(|delivery| delivery["id"].to_string()).collect()
}

/// The items that a function publishes as `type_`, given its input in order: for each key all items before the first
/// one that it rejects.
fn expected_output(items: &Items, type_: &str, input: &[usize]) -> BTreeSet<usize> {
    let mut parked = BTreeSet::new();
    let mut output = BTreeSet::new();
    for number in input {
        if items.poison.get(number).is_some_and(|rejected| *rejected == type_) {
            parked.insert(items.key(*number));
        } else if !parked.contains(&items.key(*number)) {
            output.insert(*number);
        }
    }
    output
}

/// All stored events as pairs of type and data, in accept order.
struct History(Vec<(String, serde_json::Value)>);

impl History {
    fn of(evoke: &Evoke) -> Self {
        let events = evoke.json_lines(&["events", "--after", "0"]).into_iter();
        Self(events.map(|mut event| (event["type"].as_str().unwrap().to_owned(), event["data"].take())).collect())
    }

    fn items(&self) -> impl Iterator<Item = (&str, &serde_json::Value)> {
        self.0
            .iter()
            .filter(|(type_, _)| type_ != "counted" && !type_.starts_with("evoke."))
            .map(|(type_, data)| (type_.as_str(), data))
    }

    fn order_of(&self, wanted: &str) -> Vec<usize> {
        let of_type = self.items().filter(|(type_, _)| *type_ == wanted);
        of_type.map(|(_, data)| usize::try_from(data["n"].as_u64().unwrap()).unwrap()).collect()
    }

    /// Asserts that the counter counted every item once: the published counts of a key are 1, 2, 3, …, and the state of
    /// the key is the last of them.
    fn verify_counts(&self, evoke: &Evoke, items: &Items, counted: &BTreeSet<usize>) {
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        counted.iter().for_each(|number| *expected.entry(items.key(*number)).or_default() += 1);
        let mut counts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (_, data) in self.0.iter().filter(|(type_, _)| type_ == "counted") {
            counts.entry(data["key"].as_str().unwrap().to_owned()).or_default().push(data["value"].as_u64().unwrap());
        }
        for (key, values) in &counts {
            let ascending: Vec<u64> = (1..=expected[key]).collect();
            assert_eq!(*values, ascending, "the counts of {key}");
        }
        let stored: BTreeMap<String, u64> = evoke
            .json_lines(&["state", "list", "line/count", "--limit", "100000"])
            .iter()
            .map(|entry| (entry["key"].as_str().unwrap().to_owned(), entry["value"].as_str().unwrap().parse().unwrap()))
            .collect();
        assert_eq!(stored, expected);
    }
}
