//! What it costs to match an event against 10, 1,000 and 100,000 patterns, and to build these.
//!
//! A quarter of the patterns each: one exact field; a prefix and a number; a suffix; two exact fields. The events have
//! about 600 bytes, each matches one pattern of each kind, and 512 of them take turns, so that what one event warms up
//! is not what the next one needs. `--smoke` only proves that it runs.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use evoke::pattern::{DataView, EventView, Matcher, Pattern};
use serde_json::{Value, json};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    // `cargo test --all-targets` runs benches too, without `--bench`.
    let smoke = arguments.iter().any(|a| a == "--smoke") || !arguments.iter().any(|a| a == "--bench");
    let (sizes, rounds): (&[usize], usize) =
        if smoke { (&[10, 1_000], 1) } else { (&[10, 100, 1_000, 10_000, 100_000], 300) };
    let mut all: Vec<Case> = sizes.iter().map(|size| Case::new(*size)).collect();
    // In turns, so that what else the machine does is shared by all.
    for _ in 0..rounds {
        all.iter_mut().for_each(Case::measure);
    }
    println!("patterns      parse     insert      match    ÷ 10   as JSON  matches");
    let base = all.first_mut().map_or(f64::NAN, |case| typical(&mut case.views));
    for case in &mut all {
        let (size, parse, insert, matched) = (case.size, case.parse, case.insert, case.matched);
        let (view, json) = (typical(&mut case.views), typical(&mut case.jsons));
        println!(
            "{size:>8} {parse:>10.1?} {insert:>10.1?} {view:>7.0} ns {:>7.2} {json:>6.0} ns {matched:>8.2}",
            view / base
        );
    }
}

/// So many patterns, and what was measured with them.
struct Case {
    size: usize,
    parse: Duration,
    insert: Duration,
    matcher: Matcher<usize>,
    events: Vec<Event>,
    /// Patterns that an event matches, on average.
    matched: f64,
    /// Nanoseconds for one event, in each round.
    views: Vec<f64>,
    jsons: Vec<f64>,
}

impl Case {
    fn new(size: usize) -> Self {
        let sources: Vec<Value> = (0..size).map(pattern).collect();
        let start = Instant::now();
        let patterns: Vec<Pattern> = sources.iter().map(|source| Pattern::parse(source).unwrap()).collect();
        let parse = start.elapsed();
        let start = Instant::now();
        let mut matcher = Matcher::default();
        patterns.iter().enumerate().for_each(|(key, pattern)| matcher.insert(key, pattern));
        let insert = start.elapsed();
        let events: Vec<Event> = (0..512).map(|turn| Event::new(turn * 7_919 % (size / 4 * 4))).collect();
        let matched: usize = events.iter().map(|event| matcher.matches(&event.view()).unwrap().len()).sum();
        let matched = matched as f64 / events.len() as f64;
        Self { size, parse, insert, matcher, events, matched, views: Vec::new(), jsons: Vec::new() }
    }

    fn measure(&mut self) {
        let matcher = &self.matcher;
        let view = cost(&self.events, |event| matcher.matches(&event.view()).unwrap().len());
        let json = cost(&self.events, |event| matcher.matches_json(event.json.as_bytes()).unwrap().len());
        self.views.push(view);
        self.jsons.push(json);
    }
}

/// How often a round goes through the events.
const PASSES: usize = 4;

fn cost(events: &[Event], run: impl Fn(&Event) -> usize) -> f64 {
    // The turns of the other cases have emptied the caches.
    for event in events.iter().chain(events) {
        black_box(run(event));
    }
    let start = Instant::now();
    for event in (0..PASSES).flat_map(|_| events) {
        black_box(run(black_box(event)));
    }
    start.elapsed().as_nanos() as f64 / (PASSES * events.len()) as f64
}

/// What a round costs that nothing else disturbs: the first decile.
fn typical(costs: &mut [f64]) -> f64 {
    costs.sort_by(f64::total_cmp);
    costs.get(costs.len() / 10).copied().unwrap_or(f64::NAN)
}

fn pattern(i: usize) -> Value {
    match i % 4 {
        0 => json!({ "type": [format!("com.example.order.placed.v{i}")] }),
        1 => {
            json!({ "subject": [{ "prefix": format!("customers/{i}/") }], "data": { "total": [{ "numeric": [">", 0, "<=", 1000] }] } })
        }
        2 => json!({ "data": { "file": [{ "suffix": format!("-{i}.csv") }] } }),
        _ => json!({ "source": [format!("/shop/{}", i % 50)], "data": { "customer": { "id": [format!("c-{i}")] } } }),
    }
}

/// An event that pattern `i` and its neighbours match.
struct Event {
    attributes: Vec<(&'static str, String)>,
    data: String,
    json: String,
}

impl Event {
    fn new(i: usize) -> Self {
        let first = i / 4 * 4;
        let attributes = vec![
            ("specversion", "1.0".to_owned()),
            ("id", format!("0190a1b2-c3d4-7e5f-8a9b-{i:012}")),
            ("source", format!("/shop/{}", (first + 3) % 50)),
            ("type", format!("com.example.order.placed.v{first}")),
            ("subject", format!("customers/{}/orders", first + 1)),
            ("time", "2026-01-31T12:00:00.123Z".to_owned()),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        ];
        let data = json!({
            "order": i, "total": 129.95, "currency": "EUR", "file": format!("export-{}.csv", first + 2),
            "customer": { "id": format!("c-{}", first + 3), "name": "Ada Lovelace", "country": "GB" },
            "items": [{ "sku": "A-100", "quantity": 2, "price": 49.95 }, { "sku": "B-200", "quantity": 1, "price": 30.05 }],
            "note": "leave at the door of the neighbour, ring twice, and wait for an answer there",
        })
        .to_string();
        let members: Vec<String> = attributes.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
        let json = format!("{{{},\"data\":{data}}}", members.join(","));
        assert!((560..640).contains(&json.len()), "{} bytes", json.len());
        Self { attributes, data, json }
    }

    fn view(&self) -> EventView<'_> {
        let attributes = self.attributes.iter().map(|(name, value)| (*name, value.as_str()));
        EventView::new(attributes, DataView::Json(self.data.as_bytes()))
    }
}
