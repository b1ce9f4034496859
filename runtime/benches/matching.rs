//! The cost of matching an event of about 600 bytes against 10, 1,000 and 100,000 patterns, and of building the
//! matcher.
//!
//! The patterns are mixed, a quarter each: one exact field; a prefix and a number; a suffix; two exact fields. The
//! events alternate and each matches about one pattern of every kind, so that the CPU caches do not hold the data that
//! the next event needs. The second part measures sets of patterns of one kind that is hard to index. The last part
//! measures single patterns that cost much work on the largest event. Each cost is the minimum of many short runs,
//! because other work on the machine only adds time. `--smoke` only shows that the bench runs; `--hostile` runs only
//! the last part.

#![allow(clippy::panic)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use evoke_pattern::{DataView, EventView, Matcher, Pattern, Scratch};
use serde_json::{Value, json};

#[path = "support/hostile.rs"]
mod hostile;

/// The allocator of the `evoke` program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The number of distinct events that alternate.
const EVENTS: usize = 512;

fn main() {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let smoke = has("--smoke");
    if has("--hostile") {
        return hostile_patterns(5);
    }
    let (sizes, samples, time) = if smoke {
        (&[10, 1_000][..], 1, Duration::from_millis(1))
    } else {
        (&[10, 1_000, 100_000][..], 400, Duration::from_millis(3))
    };
    println!("patterns      parse     insert    add one   ns/event   ÷ 10   matches/event");
    let mut at_ten = None;
    for &count in sizes {
        let sources: Vec<Value> = (0..count).map(source).collect();
        let start = Instant::now();
        let patterns: Vec<Pattern> = sources.iter().map(pattern).collect();
        let parse = start.elapsed();
        let start = Instant::now();
        let mut matcher = Matcher::default();
        for (key, pattern) in patterns.iter().enumerate() {
            matcher.insert(key, pattern);
        }
        let insert = start.elapsed();

        let events: Vec<Event> = (0..EVENTS).map(|turn| Event::new(turn * 7_919 % count)).collect();
        let (mut scratch, mut keys) = (Scratch::default(), Vec::new());
        let matched: usize = events.iter().map(|event| event.run(&matcher, &mut scratch, &mut keys)).sum();
        let cost = cost(samples, time, &events, |event| event.run(&matcher, &mut scratch, &mut keys));

        let more: Vec<Pattern> = (count..count + 1_000).map(|number| pattern(&source(number))).collect();
        let start = Instant::now();
        for (key, pattern) in more.iter().enumerate() {
            matcher.insert(count + key, pattern);
        }
        let one = start.elapsed() / 1_000;
        let ratio = cost / *at_ten.get_or_insert(cost);
        let matches = matched as f64 / EVENTS as f64;
        println!("{count:>8} {parse:>10.1?} {insert:>10.1?} {one:>10.1?} {cost:>10.0} {ratio:>6.2} {matches:>15.2}");
    }
    let count = if smoke { 1_000 } else { 100_000 };
    println!("\n{count} of one kind                              insert   ns/event   matches/event");
    for (name, source, data) in PATTERN_SETS {
        let start = Instant::now();
        let mut matcher = Matcher::default();
        for key in 0..count {
            matcher.insert(key, &pattern(&source(key)));
        }
        let insert = start.elapsed();
        let events: Vec<String> = (0..EVENTS).map(|turn| data(turn * 7_919 % count)).collect();
        let (mut scratch, mut keys) = (Scratch::default(), Vec::new());
        let mut run = |data: &String| {
            let event = EventView::new([("type", "t"), ("source", "/s")], DataView::Json(data.as_bytes()));
            matcher.matches_into(&event, &mut scratch, &mut keys).unwrap_or_else(|error| panic!("{error}"));
            keys.len()
        };
        let matches = events.iter().map(&mut run).sum::<usize>() as f64 / EVENTS as f64;
        let cost = cost(samples.min(20), time, &events, run);
        println!("{name:<40} {insert:>10.1?} {cost:>10.0} {matches:>15.2}");
    }
    hostile_patterns(if smoke { 1 } else { 5 });
}

/// Measures each hostile pattern alone: the first match, which also prepares the pattern, and the minimum of `runs`
/// further matches.
fn hostile_patterns(runs: usize) {
    println!("\none hostile pattern on 1 MiB                first         ms  matches");
    for (name, source, data) in hostile::all() {
        let mut matcher = Matcher::default();
        matcher.insert((), &pattern(&source));
        let event = EventView::new([("type", "t"), ("source", "/s")], DataView::Json(data.as_bytes()));
        let (mut scratch, mut keys) = (Scratch::default(), Vec::new());
        let mut run = || {
            let start = Instant::now();
            matcher.matches_into(black_box(&event), &mut scratch, &mut keys).unwrap_or_else(|error| panic!("{error}"));
            (start.elapsed().as_secs_f64() * 1e3, !keys.is_empty())
        };
        let (first, matches) = run();
        let least = (0..runs).map(|_| run().0).fold(f64::MAX, f64::min);
        println!("{name:<36} {first:>10.1} {least:>10.1} {matches:>8}");
    }
}

/// Returns the cost of one event in nanoseconds: the minimum of `samples` measurements, which each take about `time`.
fn cost<T>(samples: usize, time: Duration, events: &[T], mut run: impl FnMut(&T) -> usize) -> f64 {
    let round = |_| {
        let (start, mut rounds) = (Instant::now(), 0);
        while start.elapsed() < time {
            for event in events {
                black_box(run(black_box(event)));
            }
            rounds += 1;
        }
        start.elapsed().as_nanos() as f64 / (rounds * events.len()) as f64
    };
    (0..samples).map(round).fold(f64::MAX, f64::min)
}

/// The name of a set; a function that returns the pattern with a given number; and a function that returns the data of
/// an event that this pattern matches. In the last set, only the patterns with numbers below 50 match.
type PatternSet = (&'static str, fn(usize) -> Value, fn(usize) -> String);

const PATTERN_SETS: [PatternSet; 6] = [
    (
        "two fields, selective only together",
        |n| json!({ "data": { "a": [format!("a{}", n % 317)], "b": [format!("b{}", n / 317)] } }),
        |n| format!(r#"{{"a": "a{}", "b": "b{}"}}"#, n % 317, n / 317),
    ),
    (
        "one type and a narrow range",
        |n| json!({ "type": ["t"], "data": { "x": [{ "numeric": [">=", n, "<", n + 2] }] } }),
        |n| format!(r#"{{"x": {n}.25}}"#),
    ),
    (
        "one prefix, and a field that is open",
        |n| json!({ "source": [{ "prefix": "/" }], "data": { "k": [format!("k{n}"), { "exists": false }], "n": [n] } }),
        |n| format!(r#"{{"k": "k{n}", "n": {n}}}"#),
    ),
    (
        "address blocks",
        |n| json!({ "data": { "ip": [{ "cidr": format!("{}.{}.{}.0/24", 10 + n / 65_536, n / 256 % 256, n % 256) }] } }),
        |n| format!(r#"{{"ip": "{}.{}.{}.7"}}"#, 10 + n / 65_536, n / 256 % 256, n % 256),
    ),
    (
        "a word within a wildcard",
        |n| json!({ "data": { "path": [{ "wildcard": format!("*/{n:06}/*") }] } }),
        |n| format!(r#"{{"path": "/var/lib/{n:06}/file.txt"}}"#),
    ),
    (
        "one type and an open range (few match)",
        |n| json!({ "type": ["t"], "data": { "x": [{ "numeric": [">", n] }], "y": [n % 10] } }),
        |n| format!(r#"{{"x": 50, "y": {}}}"#, n % 10),
    ),
];

fn pattern(source: &Value) -> Pattern {
    Pattern::parse(source).unwrap_or_else(|errors| panic!("{source}: {errors:?}"))
}

/// Returns the mixed pattern with this number.
fn source(number: usize) -> Value {
    match number % 4 {
        0 => json!({ "type": [format!("com.example.order.v{number}")] }),
        1 => json!({
            "subject": [{ "prefix": format!("customers/{number}/") }],
            "data": { "total": [{ "numeric": [">", 0, "<=", 1000] }] }
        }),
        2 => json!({ "data": { "file": [{ "suffix": format!("-{number}.csv") }] } }),
        _ => {
            json!({ "source": [format!("/shop/{}", number % 50)], "data": { "customer": { "id": [format!("c-{number}")] } } })
        }
    }
}

/// An event that matches four mixed patterns with adjacent numbers, one of each kind.
struct Event {
    attributes: Vec<(&'static str, String)>,
    data: String,
}

impl Event {
    fn new(number: usize) -> Self {
        let first = number / 4 * 4;
        let attributes = vec![
            ("specversion", "1.0".to_owned()),
            ("id", format!("0190a1b2-c3d4-7e5f-8a9b-{number:012}")),
            ("source", format!("/shop/{}", (first + 3) % 50)),
            ("type", format!("com.example.order.v{first}")),
            ("subject", format!("customers/{}/orders", first + 1)),
            ("time", "2026-01-31T12:00:00.123Z".to_owned()),
            ("datacontenttype", "application/json".to_owned()),
        ];
        let data = json!({
            "order": number, "total": 129.95, "currency": "EUR", "file": format!("export-{}.csv", first + 2),
            "customer": { "id": format!("c-{}", first + 3), "name": "Ada Lovelace", "country": "GB" },
            "items": [
                { "sku": "A-100", "quantity": 2, "price": 49.95 },
                { "sku": "B-200", "quantity": 1, "price": 30.05 }
            ],
            "address": { "street": "12 St James's Square", "city": "London", "postcode": "SW1Y 4JH" },
            "note": "ring twice, then leave it with the neighbours on the second floor, or in the shed behind the house"
        })
        .to_string();
        let size = data.len() + attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        assert!((550..=650).contains(&size), "an event of {size} bytes");
        Self { attributes, data }
    }

    fn run(&self, matcher: &Matcher<usize>, scratch: &mut Scratch, keys: &mut Vec<usize>) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| (*name, value.as_str()));
        let event = EventView::new(attributes, DataView::Json(self.data.as_bytes()));
        let result = matcher.matches_into(&event, scratch, keys);
        result.unwrap_or_else(|error| panic!("{error}"));
        keys.len()
    }
}
