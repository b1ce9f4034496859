//! Explanations.

use serde_json::json;

use super::super::{DataView, EventView, explain};
use super::pattern;

fn event(data: &str) -> EventView<'_> {
    EventView::new([("type", "order.placed"), ("source", "/shop/checkout")], DataView::Json(data.as_bytes()))
}

#[test]
fn a_failure_names_the_field_and_the_operators() {
    let pattern = pattern(&json!({
        "type": [{ "prefix": "order." }],
        "data": { "total": [{ "numeric": [">", 100] }, 7], "note": [{ "exists": false }] }
    }));
    let found = explain(&pattern, &event(r#"{"total": 99.50}"#)).unwrap();
    assert!(!found.matched);
    assert_eq!(found.failed.as_deref(), Some("data.total"));
    assert_eq!(
        found.to_string(),
        "does not match\n\
         \x20 ✓ data.note: no value\n\
         \x20     ✓ {\"exists\":false}\n\
         \x20 ✗ data.total: 99.50\n\
         \x20     ✗ {\"numeric\":[\">\",100]}\n\
         \x20     ✗ 7\n\
         \x20 ✓ type: \"order.placed\"\n\
         \x20     ✓ {\"prefix\":\"order.\"}\n\
         first to fail: data.total\n"
    );
    let found = explain(&pattern, &event(r#"{"total": 7}"#)).unwrap();
    assert!(found.matched && found.failed.is_none());
    assert_eq!(
        serde_json::to_value(&found).unwrap()["fields"][1]["operators"][1],
        json!({ "text": "7", "matched": true })
    );
}

#[test]
fn of_alternatives_the_closest_is_blamed() {
    let pattern = pattern(&json!({ "$or": [
        { "data": { "a": [1], "b": [2] } },
        { "data": { "c": [3] }, "type": ["order.placed"] }
    ] }));
    let found = explain(&pattern, &event(r#"{"a": 0, "b": 0, "c": 0}"#)).unwrap();
    assert_eq!(found.failed.as_deref(), Some("$or[1].data.c"));
}

#[test]
fn values_in_different_elements_are_told() {
    let pattern = pattern(&json!({ "data": { "items": { "a": [1], "b": [2] } } }));
    let found = explain(&pattern, &event(r#"{"items": [{"a": 1, "b": 0}, {"a": 0, "b": 2}]}"#)).unwrap();
    assert!(!found.matched && found.failed.is_none());
    assert!(found.to_string().ends_with("each field matches, but not within the same array element\n"));
    assert_eq!(found.fields[0].values, ["1", "0"]);
}

#[test]
fn malformed_data_is_an_error() {
    assert!(explain(&pattern(&json!({ "type": ["x"] })), &event("{")).is_err());
}
