//! Verifying all alternatives of a pattern at once: the same results as one by one, with bounded work.

use std::fmt::Write;
use std::ops::Range;

use serde_json::{Value, json};

use super::super::bulk::Bulk;
use super::super::extract::{ExtractedValues, SourceTexts};
use super::super::index::Index;
use super::super::verify::{Search, alternative_matches};
use super::super::{Matcher, Scratch};
use super::pattern;
use super::random::{Random, fields, is_match, object};

/// Returns whether an event matches one of the alternatives, verified one by one.
pub(super) fn verify_each(
    index: &Index,
    mut numbers: Range<u32>,
    extracted: &ExtractedValues,
    texts: SourceTexts<'_>,
) -> bool {
    let mut search = Search::default();
    numbers.any(|number| alternative_matches(extracted, texts, index.requirements(number), &index.lists, &mut search))
}

/// An event with more arrays than [`object`] makes, with scalars beside objects.
fn event_of_arrays(random: &mut Random) -> Value {
    let array = |random: &mut Random| {
        let mut list: Vec<Value> = (0..random.below(6)).map(|_| object(random, 2)).collect();
        list.extend((0..random.below(3)).map(|_| json!(random.pick(&["a", "ab", "abab"]))));
        list.extend((0..random.below(2)).map(|_| json!([random.pick(&["a", "x"]), object(random, 1)])));
        Value::Array(list)
    };
    json!({ "a": array(random), "b": array(random), "c": array(random), "data": { "a": array(random), "b": array(random) } })
}

#[test]
fn all_at_once_gives_the_same_results_as_one_by_one() {
    let mut random = Random(0x0dd_ba11);
    let (mut matched, mut compared) = (0, 0);
    for _ in 0..800 {
        let source = json!({ "$or": [fields(&mut random, 3), fields(&mut random, 3)], random.pick(&["a", "b", "c"]): fields(&mut random, 2) });
        let mut matcher = Matcher::default();
        matcher.insert((), &pattern(&source));
        let index = matcher.index();
        let all = 0..index.alternatives.len() as u32;
        let bulk = Bulk::new(index, all.clone());
        for turn in 0..6 {
            let event = if turn % 2 == 0 { event_of_arrays(&mut random) } else { object(&mut random, 4) };
            let text = event.to_string();
            let mut scratch = Scratch::default();
            let extracted = scratch.extracted();
            let texts = extracted.read_json(&index.fields, text.as_bytes()).unwrap();
            let expected = is_match(&source, &event);
            assert_eq!(bulk.verify(extracted, texts, &mut 0).is_some(), expected, "all at once: {source} on {event}");
            assert_eq!(verify_each(index, all.clone(), extracted, texts), expected, "one by one: {source} on {event}");
            (matched, compared) = (matched + usize::from(expected), compared + 1);
        }
    }
    assert!(matched * 50 > compared && matched * 50 < compared * 49, "{matched} of {compared} match");
}

/// Matches an event of about a megabyte and returns the steps per byte.
fn steps_per_byte(source: &Value, event: &str, expected: bool) -> f64 {
    let mut matcher = Matcher::default();
    matcher.insert((), &pattern(source));
    let mut scratch = Scratch::default();
    assert_eq!(!matcher.matches_json_with(event.as_bytes(), &mut scratch).unwrap().is_empty(), expected);
    scratch.steps() as f64 / event.len() as f64
}

/// Repeats elements until the event has about `bytes` bytes.
fn large_event(name: &str, bytes: usize, mut element: impl FnMut(usize, &mut String)) -> String {
    let mut event = format!("{{\"{name}\":[");
    for number in 0.. {
        if event.len() > bytes {
            break;
        }
        if number > 0 {
            event.push(',');
        }
        element(number, &mut event);
    }
    event + "]}"
}

const MEGABYTE: usize = 1 << 20;

/// Alternatives of one `$or`: for each number a field below `items`.
fn or_of(count: usize, alternative: impl Fn(usize) -> Value) -> Value {
    (0..count).map(|number| json!({ "items": alternative(number) })).collect()
}

#[test]
fn a_thousand_combinations_over_an_array_cost_a_few_steps_per_byte() {
    let source = json!({
        "$or": or_of(10, |n| json!({ "a": [n] })),
        "x": [{ "exists": false }],
        "items": { "$or": (0..10).map(|n| json!({ "b": [n] })).collect::<Value>() },
        "y": [{ "exists": false }],
    });
    let nested = json!({ "$or": [
        { "$or": or_of(10, |n| json!({ "c": [n + 1], "a": [n] })), "items": { "$or": [{ "b": [1] }, { "b": [2] }] } },
        { "$or": or_of(10, |n| json!({ "c": [{ "anything-but": [n] }], "a": [n], "d": [{ "exists": false }] })),
          "items": { "$or": (0..40).map(|n| json!({ "b": [{ "numeric": [">", 1000 + n] }] })).collect::<Value>() } },
    ] });
    // No element has matching values of two of the fields.
    let event = large_event("items", MEGABYTE, |n, out| {
        let (a, b, c) = [(n % 10, 99, 99), (99, n % 10, 99), (99, 99, n % 10)][n % 3];
        write!(out, "{{\"a\":{a},\"b\":{b},\"c\":{c}}}").unwrap();
    });
    for source in [source, nested] {
        let steps = steps_per_byte(&source, &event, false);
        assert!(steps < 4.0, "{steps} steps per byte: {source}");
    }
    let three = json!({
        "$or": or_of(10, |n| json!({ "a": [n] })),
        "items": { "$or": (0..10).map(|n| json!({ "b": [n], "$or": (0..10).map(|n| json!({ "c": [n] })).collect::<Value>() })).collect::<Value>() },
    });
    let steps = steps_per_byte(&three, &event, false);
    assert!(steps < 4.0, "{steps} steps per byte");
}

#[test]
fn long_lists_on_many_values_cost_a_few_steps_per_byte() {
    let numbers = large_event("items", MEGABYTE, |n, out| write!(out, "{n}").unwrap());
    let texts = large_event("items", MEGABYTE, |n, out| write!(out, "\"10.{}.{}.{n}\"", n % 7, n % 256).unwrap());
    let list =
        |count: usize, entry: &dyn Fn(usize) -> Value| json!({ "items": (0..count).map(entry).collect::<Value>() });
    for (source, event) in [
        (list(1500, &|n| json!({ "numeric": [">", -10 - n as i64, "<", -9 - n as i64] })), &numbers),
        (list(5000, &|n| json!(-1 - n as i64)), &numbers),
        (list(1500, &|n| json!({ "cidr": format!("11.{}.{}.0/24", n / 256, n % 256) })), &texts),
        (list(1500, &|n| json!({ "prefix": format!("9.{n}") })), &texts),
        (list(1500, &|n| json!({ "suffix": { "equals-ignore-case": format!("x{n}") } })), &texts),
        (
            json!({ "items": [{ "anything-but": { "prefix": (0..4000).map(|n| format!("1{n}")).chain(["10".to_owned()]).collect::<Vec<_>>() } }] }),
            &texts,
        ),
    ] {
        let steps = steps_per_byte(&source, event, false);
        assert!(steps < 4.0, "{steps} steps per byte: {:.200}", source.to_string());
    }
}

#[test]
fn deep_arrays_cost_a_few_steps_per_byte() {
    let source =
        json!({ "items": { "a": [1], "b": [1], "$or": [{ "c": [1] }, { "d": [1], "e": [{ "exists": false }] }] } });
    let event = large_event("items", MEGABYTE, |n, out| {
        for _ in 0..60 {
            *out += "[{\"z\":0},";
        }
        write!(out, "{{\"{}\":1,\"b\":{}}}", ["a", "c", "d"][n % 3], n % 2).unwrap();
        *out += &"]".repeat(60);
    });
    let steps = steps_per_byte(&source, &event, false);
    assert!(steps < 8.0, "{steps} steps per byte");
}
