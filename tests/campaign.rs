//! A crash campaign: killed anywhere, under load and while it starts, with the truth kept outside of it. Nothing that
//! was acknowledged is lost, nothing happens twice, every key keeps its order, and state counts exactly.
//!
//! The long form is
//! `EVOKE_CAMPAIGN=long cargo test --release -p evoke --test blackbox campaign -- --nocapture`,
//! with `EVOKE_SEED=…` for the choices of another run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::assert_eventually;
use crate::faults::items::{Items, TYPES, manifest};
use crate::faults::producers::Producers;
use crate::faults::random::{Random, long, size};
use crate::support::Evoke;

const PRODUCERS: u64 = 4;
const KEYS: usize = 1_000;

/// The three functions of an item, and one that counts those that got through, by key.
fn counted() -> String {
    manifest()
        + "  count:\n    component: $FUNCTIONS/counter.wasm\n    on:\n      - events: { type: [item.three] }\n    \
           retry: { backoff: 5ms }\n    allow: { state: true, publish: [counted] }\n"
}

/// How it is brought down, and up again.
struct Chaos<'a> {
    evoke: Evoke,
    producers: &'a Producers<'a>,
    random: Random,
    killed_starting: usize,
    downs: usize,
    stopped: usize,
    slowest_start: Duration,
}

impl Chaos<'_> {
    /// Starts it; sometimes it is killed before it is ready, and starts again.
    fn up(&mut self) {
        while self.random.percent(25) {
            self.evoke.start(&[]);
            std::thread::sleep(Duration::from_micros(self.random.below(60_000) as u64));
            self.evoke.kill();
            self.killed_starting += 1;
        }
        let started = Instant::now();
        self.evoke.up();
        self.slowest_start = self.slowest_start.max(started.elapsed());
        self.producers.send_to(self.evoke.http());
    }

    /// Lets it run until some more was acknowledged, or for a while.
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
            assert!(began.elapsed() < Duration::from_secs(20), "it took {:?} to stop", began.elapsed());
            self.stopped += 1;
        } else {
            self.evoke.kill();
        }
        self.downs += 1;
        // It takes its time when the store has grown.
        if self.downs <= 100 || self.downs.is_multiple_of(10) {
            self.evoke.stdout(&["check"]);
        }
    }
}

#[test]
fn killed_anywhere_nothing_is_lost_or_doubled_and_every_key_keeps_its_order() {
    let seed = Random::seed("campaign");
    let (kills, count) = (size(100, 1_000), size(5_000, 100_000));
    let mut random = Random::new(seed);
    let poison = (0..count / 100).map(|_| (random.below(count), TYPES[1 + random.below(3)])).collect();
    let items = Items { retries: 10, poison, ..Items::plain(seed, KEYS, 500) };
    let producers = Producers::new(&items, count);
    let evoke = Evoke::with(&counted());
    let mut chaos = Chaos {
        evoke,
        producers: &producers,
        random,
        killed_starting: 0,
        downs: 0,
        stopped: 0,
        slowest_start: Duration::ZERO,
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        // Whatever fails below, the producers must not go on for ever.
        let _stop = StopAtTheEnd(&producers);
        chaos.up();
        for n in 0..PRODUCERS {
            let producers = &producers;
            scope.spawn(move || producers.run(seed ^ n));
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
    finish(evoke, &items, &acknowledged);
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);
    println!(
        "EVOKE_SEED={seed}: {} kills ({} of a start), {} stops, slowest start {:?}; {} items acknowledged {} times, \
         {} requests without an answer; 0 lost, 0 doubled, 0 out of order; {:?}{}",
        kills - chaos.stopped + chaos.killed_starting,
        chaos.killed_starting,
        chaos.stopped,
        chaos.slowest_start,
        acknowledged.len(),
        producers.sent.load(Ordering::Relaxed),
        producers.unknown.load(Ordering::Relaxed),
        began.elapsed(),
        if long() { "" } else { " (short form)" },
    );
}

struct StopAtTheEnd<'a>(&'a Producers<'a>);

impl Drop for StopAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Lets it finish, and compares all that came of it with what had to.
fn finish(evoke: &Evoke, items: &Items, acknowledged: &BTreeSet<usize>) {
    let at_rest = || {
        let totals = evoke.json(&["check"]);
        let functions = totals["functions"].as_object().unwrap().clone();
        functions.values().all(|counts| counts["ready"] == 0 && counts["retrying"] == 0)
    };
    assert_eventually!(at_rest(), "stuck: {}\n{}", evoke.stdout(&["check"]), evoke.log());
    let history = History::of(evoke);
    let there = items.verify(acknowledged, history.items());
    // What waits behind poison waits, and nothing else does: no key waits for another's.
    for step in TYPES.windows(2) {
        assert_eq!(there[step[1]], let_through(items, step[1], &history.order_of(step[0])), "{}", step[1]);
    }
    // Without the poison everything goes on.
    while evoke.deliveries("dead") > 0 {
        evoke.stdout(&["dead", "purge", "--all"]);
        assert_eventually!(at_rest(), "stuck: {}\n{}", evoke.stdout(&["check"]), evoke.log());
    }
    assert_eq!(evoke.deliveries("blocked"), 0);
    let history = History::of(evoke);
    let there = items.verify(acknowledged, history.items());
    for step in TYPES.windows(2) {
        let rejected = |number: &usize| items.poison.get(number) == Some(&step[1]);
        let expected: BTreeSet<usize> = there[step[0]].iter().filter(|number| !rejected(number)).copied().collect();
        assert_eq!(there[step[1]], expected, "{}", step[1]);
    }
    history.verify_counts(evoke, items, &there[TYPES[3]]);
}

/// What a function hands on as `type_` of what came to it in this order: of every key all that came before the first
/// that it rejects.
fn let_through(items: &Items, type_: &str, came: &[usize]) -> BTreeSet<usize> {
    let mut parked = BTreeSet::new();
    let mut through = BTreeSet::new();
    for number in came {
        if items.poison.get(number).is_some_and(|rejected| *rejected == type_) {
            parked.insert(items.key(*number));
        } else if !parked.contains(&items.key(*number)) {
            through.insert(*number);
        }
    }
    through
}

/// Everything that it has, in accept order: types and data.
struct History(Vec<(String, serde_json::Value)>);

impl History {
    fn of(evoke: &Evoke) -> Self {
        let events = evoke.json_lines(&["events", "--after", "0"]).into_iter();
        Self(events.map(|mut event| (event["type"].as_str().unwrap().to_owned(), event["data"].take())).collect())
    }

    fn items(&self) -> impl Iterator<Item = (&str, &serde_json::Value)> {
        self.0.iter().filter(|(type_, _)| type_ != "counted").map(|(type_, data)| (type_.as_str(), data))
    }

    fn order_of(&self, wanted: &str) -> Vec<usize> {
        let of_type = self.items().filter(|(type_, _)| *type_ == wanted);
        of_type.map(|(_, data)| usize::try_from(data["n"].as_u64().unwrap()).unwrap()).collect()
    }

    /// Every item that came to the counter was counted once: each key's counts are 1, 2, 3, …, and its state is the last.
    fn verify_counts(&self, evoke: &Evoke, items: &Items, counted: &BTreeSet<usize>) {
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        counted.iter().for_each(|number| *expected.entry(items.key(*number)).or_default() += 1);
        let mut counts: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (_, data) in self.0.iter().filter(|(type_, _)| type_ == "counted") {
            counts.entry(data["key"].as_str().unwrap().to_owned()).or_default().push(data["value"].as_u64().unwrap());
        }
        for (key, values) in &counts {
            let upwards: Vec<u64> = (1..=expected[key]).collect();
            assert_eq!(*values, upwards, "the counts of {key}");
        }
        let kept: BTreeMap<String, u64> = evoke
            .json_lines(&["state", "list", "line/count", "--limit", "100000"])
            .iter()
            .map(|entry| (entry["key"].as_str().unwrap().to_owned(), entry["value"].as_str().unwrap().parse().unwrap()))
            .collect();
        assert_eq!(kept, expected);
    }
}
