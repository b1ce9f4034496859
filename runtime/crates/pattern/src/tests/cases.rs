//! Fixed cases of two kinds: a pattern and an event with the expected result, or a pattern that must be valid or
//! invalid.

use serde_json::Value;

use super::super::{Matcher, Pattern, Scratch};
use super::bulk::verify_each;

/// Each line is one case: `pattern` with `valid`, or `pattern` and `event` with `expected`. `expected` is null if the
/// event is not valid JSON. Pattern and event are JSON in a string, so that numbers keep their text.
const CASES: &str = include_str!("data/patterns.jsonl");

fn parse(text: &str) -> Result<Pattern, String> {
    let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Pattern::parse(&json).map_err(|errors| errors[0].to_string())
}

#[test]
fn every_decided_case_has_its_result() {
    let mut failures = Vec::new();
    let mut count = 0;
    for line in CASES.lines() {
        count += 1;
        let case: Value = serde_json::from_str(line).unwrap();
        let pattern = parse(case["pattern"].as_str().unwrap());
        if let Some(valid) = case["valid"].as_bool() {
            if pattern.is_ok() != valid {
                failures.push(format!("{line}: {pattern:?}"));
            }
            continue;
        }
        let event = case["event"].as_str().unwrap().as_bytes();
        let pattern = match pattern {
            Ok(pattern) => pattern,
            Err(error) => {
                failures.push(format!("{line}: {error}"));
                continue;
            }
        };
        let mut matcher = Matcher::default();
        matcher.insert((), &pattern);
        let found = matcher.matches_json(event).ok().map(|keys| !keys.is_empty());
        if found != case["expected"].as_bool() {
            failures.push(format!("{line}: {found:?}"));
        }
        // Verifying all alternatives together must have the same result as verifying them one by one.
        let index = matcher.index();
        let mut scratch = Scratch::default();
        let extracted = scratch.extracted();
        let Ok(texts) = extracted.read_json(&index.fields, event) else { continue };
        let all = 0..index.alternatives.len() as u32;
        let at_once = index.bulk(0).unwrap().verify(extracted, texts, &mut 0).is_some();
        if Some(at_once) != found || verify_each(index, all, extracted, texts) != at_once {
            failures.push(format!("{line}: all at once: {at_once}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {count} fail:\n{}",
        failures.len(),
        failures[..failures.len().min(20)].join("\n")
    );
    assert_eq!(count, 3148);
}
