//! Matchers with many patterns.

use serde_json::json;

use super::super::{DataView, EventView, Matcher, Scratch};
use super::pattern;

#[test]
fn matching_keys_are_returned_once_in_the_order_of_insertion() {
    let mut matcher = Matcher::default();
    for key in [7, 3, 9] {
        matcher.insert(key, &pattern(&json!({ "a": ["x"] })));
    }
    matcher.insert(3, &pattern(&json!({ "b": ["y"] })));
    matcher.insert(1, &pattern(&json!({ "$or": [{ "a": ["x"] }, { "b": ["y"] }] })));
    assert_eq!(matcher.matches_json(br#"{"a": "x", "b": "y"}"#).unwrap(), [7, 3, 9, 1]);
    assert_eq!(matcher.matches_json(br#"{"b": "y"}"#).unwrap(), [3, 1]);
    assert_eq!((matcher.remove(3), matcher.remove(3), matcher.len()), (2, 0, 3));
    assert_eq!(matcher.matches_json(br#"{"a": "x", "b": "y"}"#).unwrap(), [7, 9, 1]);
}

#[test]
fn patterns_still_match_after_others_were_added_and_removed() {
    let mut matcher = Matcher::default();
    let source = |n: u32| json!({ "type": [format!("t{}", n % 7)], "data": { "n": [n % 11], "$or": [{ "k": [{ "prefix": "a" }] }, { "k": [n] }] } });
    for n in 0..1_000 {
        matcher.insert(n, &pattern(&source(n)));
    }
    for n in (0..1_000).filter(|n| n % 5 != 0) {
        assert_eq!(matcher.remove(n), 1);
    }
    for n in 1_000..1_100 {
        matcher.insert(n, &pattern(&source(n)));
    }
    assert_eq!(matcher.len(), 300);
    for (kind, number) in [(0, 0), (3, 4), (6, 10)] {
        let data = format!("{{\"n\": {number}, \"k\": [\"ab\", 500]}}");
        let kind = format!("t{kind}");
        let found = matcher.matches(&EventView::new([("type", &*kind)], DataView::Json(data.as_bytes()))).unwrap();
        let wanted: Vec<u32> = (0..1_100)
            .filter(|n| (n % 5 == 0 || *n >= 1_000) && format!("t{}", n % 7) == kind && n % 11 == number)
            .collect();
        assert_eq!(found, wanted);
    }
}

#[test]
fn attributes_and_text_data_match_as_strings() {
    let mut matcher = Matcher::default();
    matcher.insert("text", &pattern(&json!({ "data": [{ "prefix": "hel" }] })));
    matcher.insert("number", &pattern(&json!({ "count": [5] })));
    matcher.insert("string", &pattern(&json!({ "count": ["5"] })));
    matcher.insert("none", &pattern(&json!({ "data": [{ "exists": false }] })));
    let many: Vec<(String, String)> = (0..40).map(|n| (format!("x{n}"), n.to_string())).collect();
    let attributes = || many.iter().map(|(name, value)| (&**name, &**value)).chain([("count", "6"), ("count", "5")]);
    assert_eq!(matcher.matches(&EventView::new(attributes(), DataView::Text("hello"))).unwrap(), ["text", "string"]);
    assert_eq!(matcher.matches(&EventView::new(attributes(), DataView::None)).unwrap(), ["string", "none"]);
    matcher.insert("late", &pattern(&json!({ "x39": ["39"] })));
    assert_eq!(matcher.matches(&EventView::new(attributes(), DataView::Json(b"1"))).unwrap(), ["string", "late"]);
}

#[test]
fn one_scratch_is_shared_by_many_matchers() {
    let mut scratch = Scratch::default();
    let mut keys = Vec::new();
    let mut matchers: Vec<Matcher<u8>> = Vec::new();
    for n in 0..3 {
        let mut matcher = Matcher::default();
        matcher.insert(n, &pattern(&json!({ (format!("f{n}")): ["x"], "type": ["t"] })));
        matchers.push(matcher);
    }
    let event = EventView::new([("type", "t"), ("f1", "x")], DataView::None);
    for _ in 0..3 {
        for (n, matcher) in matchers.iter().enumerate() {
            matcher.matches_into(&event, &mut scratch, &mut keys).unwrap();
            assert_eq!(keys, if n == 1 { vec![1] } else { vec![] });
        }
    }
}

#[test]
fn every_access_path_finds_one_pattern_among_thousands() {
    type Kind = (fn(u32) -> serde_json::Value, fn(u32) -> String);
    let kinds: [Kind; 10] = [
        (|n| json!(format!("v{n}")), |n| format!("\"v{n}\"")),
        (|n| json!(n), |n| format!("{n}.0")),
        (|n| json!({ "prefix": format!("{n}/") }), |n| format!("\"{n}/x\"")),
        (|n| json!({ "suffix": format!("-{n}") }), |n| format!("\"x-{n}\"")),
        (|n| json!({ "equals-ignore-case": format!("Vé{n}") }), |n| format!("\"vÉ{n}\"")),
        (|n| json!({ "prefix": { "equals-ignore-case": format!("{n}A") } }), |n| format!("\"{n}abc\"")),
        (|n| json!({ "suffix": { "equals-ignore-case": format!("A{n}") } }), |n| format!("\"bca{n}\"")),
        (|n| json!({ "wildcard": format!("*<{n:05}>*") }), |n| format!("\"abc<{n:05}>d\"")),
        (
            |n| json!({ "cidr": format!("10.{}.{}.0/24", n / 256, n % 256) }),
            |n| format!("\"10.{}.{}.9\"", n / 256, n % 256),
        ),
        (|n| json!({ "numeric": [">", n, "<=", n + 1] }), |n| format!("{n}.5")),
    ];
    for (which, (entry, value)) in kinds.iter().enumerate() {
        let mut matcher = Matcher::default();
        for n in 0..3_000 {
            matcher.insert(n, &pattern(&json!({ "x": [entry(n)], "type": ["t"] })));
        }
        for n in (0..3_000).step_by(97) {
            let event = format!("{{\"type\": \"t\", \"x\": [null, {}]}}", value(n));
            assert_eq!(matcher.matches_json(event.as_bytes()).unwrap(), [n], "{which} {event}");
        }
    }
}
