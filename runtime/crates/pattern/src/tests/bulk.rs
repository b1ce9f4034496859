//! Verifying all alternatives of a pattern together gives the same results as verifying them one by one, with bounded
//! work.

use std::fmt::Write;
use std::ops::Range;

use serde_json::{Map, Value, json};

use super::super::bulk::Bulk;
use super::super::extract::{ExtractedValues, SourceTexts};
use super::super::index::Index;
use super::super::verify::{Search, alternative_matches};
use super::super::{Matcher, Pattern, Scratch};
use super::judge::is_match;
use super::pattern;
use super::random::Random;

/// Verifies the alternatives one by one. Returns true if the event matches one of them.
pub(super) fn verify_each(
    index: &Index,
    mut numbers: Range<u32>,
    extracted: &ExtractedValues,
    texts: SourceTexts<'_>,
) -> bool {
    let mut search = Search::default();
    numbers.any(|number| alternative_matches(extracted, texts, index.requirements(number), &index.lists, &mut search))
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// Returns a list of conditions on small numbers. Many events meet such a list, often by the absence of the field.
fn list(random: &mut Random) -> Value {
    let entry = |random: &mut Random| match random.below(7) {
        0 => json!({ "exists": true }),
        1..=2 => json!({ "exists": false }),
        3 => json!({ "anything-but": [random.below(3)] }),
        4 => json!({ "numeric": [">", random.below(3)] }),
        _ => json!(random.below(3)),
    };
    (0..=random.below(2)).map(|_| entry(random)).collect()
}

/// A pattern on the fields of arrays, with `$or`.
fn array_pattern(random: &mut Random, depth: u64) -> Value {
    let mut fields = Map::new();
    for _ in 0..=random.below(2) {
        match random.below(if depth == 0 { 1 } else { 4 }) {
            0 => fields.insert(random.pick(&NAMES).to_owned(), list(random)),
            1 => {
                let alternatives = (0..2 + random.below(2)).map(|_| array_pattern(random, depth - 1));
                fields.insert("$or".to_owned(), alternatives.collect())
            }
            _ => fields.insert(random.pick(&NAMES).to_owned(), array_pattern(random, depth - 1)),
        };
    }
    Value::Object(fields)
}

/// Returns an event with many arrays, whose elements are numbers, objects and arrays.
fn array_event(random: &mut Random, depth: u64) -> Value {
    let members = (0..1 + random.below(3)).map(|_| {
        let value = match random.below(if depth == 0 { 1 } else { 5 }) {
            0 => json!(random.below(3)),
            1 => array_event(random, depth - 1),
            _ => elements(random, depth - 1),
        };
        (random.pick(&NAMES).to_owned(), value)
    });
    Value::Object(members.collect())
}

fn elements(random: &mut Random, depth: u64) -> Value {
    let element = |random: &mut Random| match random.below(if depth == 0 { 1 } else { 5 }) {
        0 => json!(random.below(3)),
        1 => elements(random, depth - 1),
        _ => array_event(random, depth - 1),
    };
    (0..random.below(5)).map(|_| element(random)).collect()
}

/// Returns a matcher with one pattern; `None` if the pattern exceeds a limit.
fn matcher_of(source: &Value) -> Option<Matcher<()>> {
    let mut matcher = Matcher::default();
    matcher.insert((), &Pattern::parse(source).ok()?);
    Some(matcher)
}

#[test]
fn all_at_once_gives_the_same_results_as_one_by_one() {
    let mut random = Random(0x0dd_ba11);
    let (mut matched, mut compared) = (0, 0);
    for round in 0..3_000 {
        let source = array_pattern(&mut random, 1 + round % 4);
        // A few patterns have too many combinations.
        let Some(matcher) = matcher_of(&source) else { continue };
        let index = matcher.index();
        let all = 0..index.alternatives.len() as u32;
        let bulk = index.bulk(0).unwrap();
        for _ in 0..8 {
            let event = array_event(&mut random, 4);
            let text = event.to_string();
            let mut scratch = Scratch::default();
            let extracted = scratch.extracted();
            let texts = extracted.read_json(&index.fields, text.as_bytes()).unwrap();
            let expected = is_match(&source, &event);
            assert_eq!(bulk.verify(extracted, texts, &mut 0).is_some(), expected, "all together: {source} on {event}");
            assert_eq!(verify_each(index, all.clone(), extracted, texts), expected, "one by one: {source} on {event}");
            (matched, compared) = (matched + usize::from(expected), compared + 1);
        }
    }
    assert!(
        compared > 20_000 && matched * 10 > compared && matched * 10 < compared * 9,
        "{matched} of {compared} match"
    );
}

/// A list with conditions on short texts and numbers, often with several `anything-but`.
fn mixed_list(random: &mut Random) -> Value {
    let texts = ["", "a", "b", "ab", "ba", "aab", "abc", "ÄB"];
    let entry = |random: &mut Random| {
        let text = random.pick(&texts[1..]);
        match random.below(12) {
            0 => json!(random.below(3)),
            1 => json!(text),
            2 => json!({ "exists": false }),
            3 => json!({ "anything-but": [text, random.pick(&texts)] }),
            4 => json!({ "anything-but": [random.below(3)] }),
            5 => json!({ "anything-but": { "prefix": [text, random.pick(&texts[1..])] } }),
            6 => json!({ "anything-but": { "suffix": text } }),
            7 => json!({ "anything-but": { "equals-ignore-case": [text] } }),
            8 => json!({ "anything-but": { "wildcard": [random.pick(&["*a*", "a*b", "*b", "b*", "*"])] } }),
            9 => json!({ "wildcard": random.pick(&["*a*b*", "a*b", "*b*a"]) }),
            10 => json!({ "suffix": text }),
            _ => json!({ "numeric": ["<", random.below(3)] }),
        }
    };
    (0..1 + random.below(4)).map(|_| entry(random)).collect()
}

#[test]
fn elements_with_few_of_many_fields_give_the_same_results_as_one_by_one() {
    let mut random = Random(0x5eed_5eed);
    let names: Vec<String> = (0..14).map(|n| format!("f{n}")).collect();
    let (mut matched, mut compared) = (0, 0);
    for _ in 0..300 {
        let fields = |random: &mut Random| {
            let chosen = (0..1 + random.below(5)).map(|_| {
                let list = if random.below(3) == 0 { json!([{ "exists": false }]) } else { mixed_list(random) };
                (names[random.below(14) as usize].clone(), list)
            });
            Value::Object(chosen.collect())
        };
        let alternatives: Value = (0..2 + random.below(70)).map(|_| json!({ "items": fields(&mut random) })).collect();
        let source = json!({ "$or": alternatives });
        // A few patterns have too many wildcards.
        let Some(matcher) = matcher_of(&source) else { continue };
        let index = matcher.index();
        let all = 0..index.alternatives.len() as u32;
        let bulk = index.bulk(0).unwrap();
        for round in 0..6 {
            let element = |random: &mut Random| {
                let members = (0..random.below(4)).map(|_| {
                    let value = match random.below(4) {
                        0 => json!(random.below(3)),
                        1 => json!([random.pick(&["", "b", "Äb"]), { "f1": 1 }]),
                        _ => json!(random.pick(&["a", "b", "ab", "äb", "aab", ""])),
                    };
                    (names[random.below(14) as usize].clone(), value)
                });
                Value::Object(members.collect())
            };
            let items: Value = (0..[1, 3, 40][round % 3]).map(|_| element(&mut random)).collect();
            let text = json!({ "items": items }).to_string();
            let mut scratch = Scratch::default();
            let extracted = scratch.extracted();
            let texts = extracted.read_json(&index.fields, text.as_bytes()).unwrap();
            for alternative in all.clone() {
                // Each alternative is verified alone, so that a match of another alternative does not hide a
                // difference.
                let one = Bulk::new(std::iter::once(index.requirements(alternative)), &index.lists);
                let expected = verify_each(index, alternative..alternative + 1, extracted, texts);
                assert_eq!(
                    one.verify(extracted, texts, &mut 0).is_some(),
                    expected,
                    "{alternative} of {source} on {text}"
                );
                (matched, compared) = (matched + usize::from(expected), compared + 1);
            }
            let expected = verify_each(index, all.clone(), extracted, texts);
            let found = bulk.verify(extracted, texts, &mut 0);
            assert_eq!(found.is_some(), expected, "{source} on {text}");
            if let Some(found) = found {
                assert!(verify_each(index, found..found + 1, extracted, texts), "{found} of {source} on {text}");
            }
        }
    }
    assert!(
        compared > 20_000 && matched * 20 > compared && matched * 20 < compared * 19,
        "{matched} of {compared} match"
    );
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

/// Returns the alternatives of one `$or`: for each number, an alternative with fields below `items`.
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
    // No element has matching values for two of the fields.
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

#[test]
fn wildcards_and_many_fields_cost_a_bounded_number_of_steps_per_byte() {
    let wildcards = |count: usize, wildcard: &dyn Fn(usize) -> String| json!({ "items": (0..count).map(|n| json!({ "wildcard": wildcard(n) })).collect::<Value>() });
    let short = large_event("items", MEGABYTE, |n, out| write!(out, "\"ab{n}\"").unwrap());
    let long = format!("{{\"items\":\"{}\"}}", "aab".repeat(MEGABYTE / 3));
    let mut fields: Map<String, Value> = (0..2_000).map(|n| (format!("x{n}"), json!([{ "exists": false }]))).collect();
    fields.extend(["a", "b"].map(|name| (name.to_owned(), json!([1]))));
    let few_of_many = large_event("items", MEGABYTE, |n, out| match n {
        0..2_000 => write!(out, "{{\"x{n}\":0}}").unwrap(),
        _ => write!(out, "{{\"{}\":1}}", ["a", "b"][n % 2]).unwrap(),
    });
    let prefixes = json!({ "$or": or_of(1_000, |n| json!({ "a": [{ "prefix": n.to_string() }], "b": [1] })) });
    let texts = large_event("items", MEGABYTE, |n, out| write!(out, "{{\"a\":\"{}\"}}", n * 7_919 % 10_007).unwrap());
    for (source, event, steps_max) in [
        (wildcards(64, &|n| format!("*b*a*{n}*")), &short, 12.0),
        (wildcards(64, &|n| format!("*a*b*c{n}")), &long, 8.0),
        (wildcards(64, &|n| format!("{}c{n}", "*ab".repeat(14))), &long, 33.0),
        (wildcards(1, &|_| format!("*{}c", "*a".repeat(2_000).trim_start_matches('*'))), &long, 33.0),
        (json!({ "items": fields }), &few_of_many, 8.0),
        (prefixes, &texts, 16.0),
    ] {
        let steps = steps_per_byte(&source, event, false);
        assert!(steps < steps_max, "{steps} steps per byte: {:.200}", source.to_string());
    }
}
