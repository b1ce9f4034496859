//! What it costs to match an event against 10, 1,000 and 100,000 patterns, and to build these.
//!
//! A quarter of the patterns each: one exact field; a prefix and a number; a suffix; two exact fields. The events have
//! about 600 bytes, each matches one pattern of each kind or so, and they take turns, so that what one event warms up
//! is not what the next one needs. `--smoke` only proves that it runs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use evoke::pattern::{DataView, EventView, Matcher, Pattern};
use serde_json::{Value, json};

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
    let (sizes, samples, time): (&[usize], usize, Duration) = match smoke {
        true => (&[10, 1_000], 1, Duration::from_millis(1)),
        false => (&[10, 100, 1_000, 10_000, 100_000], 21, Duration::from_millis(40)),
    };
    println!(
        "{:>8}  {:>9}  {:>9}  {:>9}  {:>6}  {:>9}  {:>7}",
        "patterns", "parse", "insert", "match", "÷ 10", "json", "matches"
    );
    let mut at_ten = None;
    for &count in sizes {
        let sources: Vec<Value> = (0..count).map(pattern).collect();
        let start = Instant::now();
        let patterns: Vec<Pattern> =
            sources.iter().map(|source| Pattern::parse(source).unwrap_or_else(|errors| panic!("{errors:?}"))).collect();
        let parse = start.elapsed();
        let start = Instant::now();
        let mut matcher = Matcher::default();
        for (key, pattern) in patterns.iter().enumerate() {
            matcher.insert(key, pattern);
        }
        let insert = start.elapsed();

        let events: Vec<Event> = (0..512).map(|turn| Event::new(turn * 7_919 % count.max(1))).collect();
        let matched: usize = events.iter().map(|event| found(matcher.matches(&event.view())).len()).sum();
        let view = measure(samples, time, &events, |event| found(matcher.matches(&event.view())).len());
        let json = measure(samples, time, &events, |event| found(matcher.matches_json(event.json.as_bytes())).len());
        let base = *at_ten.get_or_insert(view);
        println!(
            "{count:>8}  {parse:>9.1?}  {insert:>9.1?}  {view:>6.0} ns  {:>6.2}  {json:>6.0} ns  {:>7.2}",
            view / base,
            matched as f64 / events.len() as f64
        );
    }
}

fn found(result: Result<Vec<usize>, evoke::pattern::MalformedEvent>) -> Vec<usize> {
    result.unwrap_or_else(|error| panic!("{error}"))
}

/// The median cost of one event, in nanoseconds.
fn measure(samples: usize, time: Duration, events: &[Event], run: impl Fn(&Event) -> usize) -> f64 {
    let mut costs: Vec<f64> = (0..samples)
        .map(|_| {
            let (start, mut done) = (Instant::now(), 0u32);
            while start.elapsed() < time {
                for event in events {
                    black_box(run(black_box(event)));
                }
                done += events.len() as u32;
            }
            start.elapsed().as_nanos() as f64 / f64::from(done)
        })
        .collect();
    costs.sort_by(f64::total_cmp);
    costs[costs.len() / 2]
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
