//! What `explain` says.

use serde_json::{Value, json};

use super::super::{DataView, EventView, explain};
use super::pattern;

fn explained(source: &Value, data: &Value) -> String {
    let data = data.to_string();
    let event = EventView::new([("type", "order.placed"), ("subject", "c-1")], DataView::Json(data.as_bytes()));
    let explanation = explain(&pattern(source), &event).unwrap();
    explanation.to_string()
}

#[test]
fn each_field_says_what_it_asks_for_and_what_it_saw() {
    let source = json!({
        "type": ["order.placed", { "prefix": "order.paid" }],
        "data": { "total": [{ "numeric": [">", 100] }], "coupon": [{ "exists": false }], "items": { "sku": [{ "suffix": "-x" }, "b"] } }
    });
    let data = json!({ "total": 99.5, "items": [{ "sku": "a" }, { "sku": "b" }] });
    let text = explained(&source, &data);
    let mut lines: Vec<&str> = text.lines().collect();
    lines[1..].sort_unstable();
    assert_eq!(
        lines,
        [
            "does not match",
            r#"  no  data.total      [{"numeric":[">",100]}]  the event has 99.5"#,
            r#"  yes data.coupon     [{"exists":false}]  the event has no value here"#,
            r#"  yes data.items.sku  [{"suffix":"-x"}, "b"]  the event has "a", "b", met by "b""#,
            r#"  yes type            ["order.placed", {"prefix":"order.paid"}]  the event has "order.placed", met by "order.placed""#,
        ]
    );
}

#[test]
fn alternatives_are_told_apart() {
    let source = json!({ "$or": [{ "subject": ["c-2"] }, { "data": { "vip": [true] } }] });
    assert_eq!(
        explained(&source, &json!({ "vip": true })),
        "matches\n  no  $or[0].subject   [\"c-2\"]  the event has \"c-1\"\n  yes $or[1].data.vip  [true]  the event has true"
    );
}

#[test]
fn fields_in_different_elements_are_named_as_the_reason() {
    let source = json!({ "data": { "items": { "sku": ["a"], "sold": [true] } } });
    let text = explained(&source, &json!({ "items": [{ "sku": "a" }, { "sku": "b", "sold": true }] }));
    assert!(text.starts_with("does not match") && text.ends_with("not within one element of an array"), "{text}");
}

#[test]
fn it_is_data_too_and_long_values_are_cut() {
    let event = EventView::new([], DataView::Text("not a number"));
    let explanation = explain(&pattern(&json!({ "data": [5] })), &event).unwrap();
    assert_eq!(
        serde_json::to_value(&explanation).unwrap(),
        json!({
            "matches": false, "apart": false,
            "fields": [{
                "path": "data", "matched": false, "seen": ["\"not a number\""], "more": 0,
                "conditions": [{ "written": "5", "matched": false }]
            }]
        })
    );
    let text = explained(&json!({ "data": [5] }), &json!((0..20).map(|i| "é".repeat(i * 100)).collect::<Vec<_>>()));
    assert!(text.contains("… and 12 more"), "{text}");
}

#[test]
fn data_that_is_no_json_is_an_error() {
    let event = EventView::new([], DataView::Json(b"{"));
    assert!(explain(&pattern(&json!({ "type": ["a"] })), &event).is_err());
}
