//! What it costs to match an event of about 600 bytes against 10, 1,000 and 100,000 patterns, and to build these.
//!
//! The patterns are mixed, a quarter each: one exact field; a prefix and a number; a suffix; two exact fields. The events
//! take turns and each matches about one pattern of every kind, so that what one has brought into the processor's caches
//! is not what the next one needs. A cost is that of the fastest of many short runs, as other work on the machine only adds.
//! `--smoke` only proves that it runs.

#![allow(clippy::panic)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use evoke::pattern::{DataView, EventView, Matcher, Pattern, Scratch};
use serde_json::{Value, json};

/// The distinct events that take turns.
const EVENTS: usize = 512;

fn main() {
    let smoke = std::env::args().any(|argument| argument == "--smoke");
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
        let run = |_| {
            let (start, mut rounds) = (Instant::now(), 0);
            while start.elapsed() < time {
                for event in &events {
                    black_box(black_box(event).run(&matcher, &mut scratch, &mut keys));
                }
                rounds += 1;
            }
            start.elapsed().as_nanos() as f64 / (rounds * EVENTS) as f64
        };
        let cost = (0..samples).map(run).fold(f64::MAX, f64::min);

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
}

fn pattern(source: &Value) -> Pattern {
    Pattern::parse(source).unwrap_or_else(|errors| panic!("{source}: {errors:?}"))
}

/// Pattern `number` of the mix.
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

/// An event that the four patterns around one number match.
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
