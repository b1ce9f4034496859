//! Explanations of matches and mismatches.

use serde_json::json;

use super::super::{DataView, EventView, explain};
use super::pattern;

fn event(data: &str) -> EventView<'_> {
    EventView::new([("type", "order.placed"), ("source", "/shop/checkout")], DataView::Json(data.as_bytes()))
}

#[test]
fn a_mismatch_names_the_field_and_the_operators() {
    let pattern = pattern(&json!({
        "type": [{ "prefix": "order." }],
        "data": { "total": [{ "numeric": [">", 100] }, 7], "note": [{ "exists": false }] }
    }));
    let explanation = explain(&pattern, &event(r#"{"total": 99.50}"#)).unwrap();
    assert!(!explanation.matched);
    assert_eq!(explanation.failed.as_deref(), Some("data.total"));
    assert_eq!(
        explanation.to_string(),
        "does not match\n\
         \x20 ✓ data.note: no value\n\
         \x20     ✓ {\"exists\":false}\n\
         \x20 ✗ data.total: 99.50\n\
         \x20     ✗ {\"numeric\":[\">\",100]}\n\
         \x20     ✗ 7\n\
         \x20 ✓ type: \"order.placed\"\n\
         \x20     ✓ {\"prefix\":\"order.\"}\n\
         first field that does not match: data.total\n"
    );
    let explanation = explain(&pattern, &event(r#"{"total": 7}"#)).unwrap();
    assert!(explanation.matched && explanation.failed.is_none());
    assert_eq!(
        serde_json::to_value(&explanation).unwrap()["fields"][1]["operators"][1],
        json!({ "text": "7", "matched": true })
    );
}

#[test]
fn a_mismatch_is_reported_for_the_alternative_with_the_fewest_failing_fields() {
    let pattern = pattern(&json!({ "$or": [
        { "data": { "a": [1], "b": [2] } },
        { "data": { "c": [3] }, "type": ["order.placed"] }
    ] }));
    let explanation = explain(&pattern, &event(r#"{"a": 0, "b": 0, "c": 0}"#)).unwrap();
    assert_eq!(explanation.failed.as_deref(), Some("$or[1].data.c"));
}

#[test]
fn fields_that_match_only_in_different_elements_are_reported() {
    let pattern = pattern(&json!({ "data": { "items": { "a": [1], "b": [2] } } }));
    let explanation = explain(&pattern, &event(r#"{"items": [{"a": 1, "b": 0}, {"a": 0, "b": 2}]}"#)).unwrap();
    assert!(!explanation.matched && explanation.failed.is_none());
    assert!(explanation.to_string().ends_with("each field matches, but not within the same array element\n"));
    assert_eq!(explanation.fields[0].values, ["1", "0"]);
}

#[test]
fn malformed_data_is_an_error() {
    assert!(explain(&pattern(&json!({ "type": ["x"] })), &event("{")).is_err());
}

#[test]
fn absence_from_the_element_that_matches_is_marked() {
    let pattern = pattern(&json!({ "data": {
        "b": ["x"],
        "$or": [{ "a": [null] }, { "b": { "c": [{ "exists": false }, 7] } }]
    } }));
    let explanation = explain(&pattern, &event(r#"{"b": ["x", ["x"], {"c": 1}]}"#)).unwrap();
    assert_eq!(
        explanation.to_string(),
        "matches\n\
         \x20 ✗ data.$or[0].a: no value\n\
         \x20     ✗ null\n\
         \x20 ✓ data.$or[1].b.c: 1 (absent from the element that matches)\n\
         \x20     ✓ {\"exists\":false}\n\
         \x20     ✗ 7\n\
         \x20 ✓ data.b: \"x\", \"x\"\n\
         \x20     ✓ \"x\"\n\
         matches because of: data.$or[1].b.c, data.b\n"
    );
    assert_eq!(explanation.decided, ["data.$or[1].b.c", "data.b"]);
    let explanation = explain(&pattern, &event(r#"{"b": ["x", {"c": 1}]}"#)).unwrap();
    assert!(!explanation.matched && explanation.decided.is_empty());
    assert_eq!(explanation.failed.as_deref(), Some("data.$or[0].a"));
}

#[test]
fn the_explanation_of_a_large_pattern_and_event_agrees_with_the_matcher() {
    let items = |n: usize| json!({ "items": { "a": [n], "b": [{ "anything-but": [n] }, { "exists": false }] } });
    let pattern = pattern(&json!({ "data": { "$or": (0..500).map(items).collect::<Vec<_>>() } }));
    let items: Vec<_> = (0..3_000).map(|n| json!({ "a": n + 499, "b": n + 499 })).collect();
    for (last, matched) in [(json!({ "a": 499 }), true), (json!({ "a": 499, "b": 499 }), false)] {
        let all: Vec<_> = items.iter().chain([&last]).collect();
        let data = json!({ "items": all }).to_string();
        let explanation = explain(&pattern, &event(&data)).unwrap();
        assert_eq!(explanation.matched, matched);
        assert_eq!(pattern.matches(&event(&data)).unwrap(), matched);
        assert_eq!(!explanation.decided.is_empty(), matched);
    }
}

#[test]
fn numbers_are_shown_as_the_event_and_the_pattern_write_them() {
    let source = r#"{"data":{"n":[99999999999999999999,{"numeric":["<",1.00000000000000000001]}]}}"#;
    let pattern = pattern(&serde_json::from_str(source).unwrap());
    let explanation = explain(&pattern, &event(r#"{"n": 100000000000000000000}"#)).unwrap();
    assert!(!explanation.matched);
    assert_eq!(explanation.fields[0].values, ["100000000000000000000"]);
    let texts: Vec<_> = explanation.fields[0].operators.iter().map(|operator| operator.text.as_str()).collect();
    assert_eq!(texts, ["99999999999999999999", r#"{"numeric":["<",1.00000000000000000001]}"#]);
}
