//! Array consistency: fields of a pattern match only within the same array element.

use serde_json::json;

use super::matches;

#[test]
fn fields_of_different_elements_never_match_together() {
    let event = json!({ "employees": [
        { "firstName": "John", "lastName": "Doe" },
        { "firstName": "Anna", "lastName": "Smith" },
        { "firstName": "Peter", "lastName": "Jones" }
    ] });
    assert!(matches(&json!({ "employees": { "firstName": ["Anna"], "lastName": ["Smith"] } }), &event));
    assert!(!matches(&json!({ "employees": { "firstName": ["Anna"], "lastName": ["Jones"] } }), &event));
    assert!(matches(&json!({ "employees": { "firstName": ["Anna", "John"], "lastName": ["Jones", "Doe"] } }), &event));
}

#[test]
fn elements_of_different_arrays_match_together() {
    let pattern = json!({ "a": { "x": [1] }, "b": { "y": [2] } });
    assert!(matches(&pattern, &json!({ "a": [{ "x": 0 }, { "x": 1 }], "b": [{ "y": 2 }] })));
}

#[test]
fn consistency_holds_across_levels_of_arrays() {
    let pattern =
        json!({ "order": { "country": ["DE"], "items": { "sku": ["a"], "tags": { "k": ["x"], "v": [1] } } } });
    let order = |country: &str, sku: &str, tags: serde_json::Value| json!({ "country": country, "items": [{ "sku": sku, "tags": tags }, { "sku": "z" }] });
    let good = json!([{ "k": "y", "v": 1 }, { "k": "x", "v": 1 }]);
    let split = json!([{ "k": "y", "v": 1 }, { "k": "x", "v": 2 }]);
    assert!(matches(&pattern, &json!({ "order": [order("FR", "a", good.clone()), order("DE", "a", good.clone())] })));
    assert!(!matches(&pattern, &json!({ "order": [order("FR", "a", good.clone()), order("DE", "a", split)] })));
    assert!(!matches(&pattern, &json!({ "order": [order("FR", "a", good.clone()), order("DE", "b", good)] })));
}

#[test]
fn scalars_directly_in_an_array_match_together_with_any_of_its_elements() {
    let pattern = json!({ "$or": [{ "a": ["x"] }, { "never": [1] }], "a": { "b": ["y"] } });
    assert!(matches(&pattern, &json!({ "a": ["x", { "b": "y" }] })));
    assert!(!matches(&pattern, &json!({ "a": [["x"], [{ "b": "y" }]] })));
    assert!(matches(&pattern, &json!({ "a": [["z"], ["x", { "b": "y" }]] })));
}

#[test]
fn or_alternatives_match_in_the_same_element_as_the_fields_beside_them() {
    let pattern = json!({ "$or": [{ "staff": { "first": ["Anna"] } }, { "x": [1] }], "staff": { "last": ["Jones"] } });
    let staff = json!([{ "first": "Anna", "last": "Smith" }, { "first": "Peter", "last": "Jones" }]);
    assert!(!matches(&pattern, &json!({ "staff": staff })));
    assert!(matches(&pattern, &json!({ "staff": staff, "x": 1 })));
}

#[test]
fn an_absent_field_is_absent_from_the_element_that_matches() {
    let pattern = json!({ "items": { "sku": ["a"], "sold": [{ "exists": false }] } });
    assert!(matches(&pattern, &json!({ "items": [{ "sku": "a" }, { "sku": "b", "sold": 1 }] })));
    assert!(!matches(&pattern, &json!({ "items": [{ "sku": "a", "sold": 1 }, { "sku": "b" }] })));
    assert!(matches(&pattern, &json!({ "items": [{ "sku": "a", "sold": 1 }, { "sku": "a" }] })));
    let alone = json!({ "items": { "sold": [{ "exists": false }] } });
    assert!(!matches(&alone, &json!({ "items": [{ "sku": "a" }, { "sold": 1 }] })));
    assert!(matches(&alone, &json!({ "items": [{ "sku": "a" }] })));
}

#[test]
fn a_huge_array_takes_linear_time() {
    let pattern = json!({ "items": { "a": [1], "b": [2], "c": [{ "exists": false }, 3] } });
    let mut items: Vec<_> = (0..50_000).map(|n| json!({ "a": n % 2, "b": (n % 2) * 2 + 1, "c": n })).collect();
    assert!(!matches(&pattern, &json!({ "items": items })));
    items.push(json!({ "a": 1, "b": 2 }));
    assert!(matches(&pattern, &json!({ "items": items })));
}
