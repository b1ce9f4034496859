//! Tests of the whole: pattern in, event in, answer out.

mod differential;
mod explained;
mod malformed;
mod mistakes;
mod published;

use serde_json::{Value, json};

use super::{DataView, EventView, Matcher, Pattern};

fn pattern(value: &Value) -> Pattern {
    Pattern::parse(value).unwrap_or_else(|errors| panic!("{value}: {errors:?}"))
}

/// Whether one pattern alone matches an event.
fn matches(source: &Value, event: &Value) -> bool {
    let mut matcher = Matcher::default();
    matcher.insert((), &pattern(source));
    !matcher.matches_json(event.to_string().as_bytes()).unwrap().is_empty()
}

/// Checks which values a field's list matches.
fn check(list: &Value, matching: &[Value], others: &[Value]) {
    let pattern = json!({ "data": { "x": list } });
    for (values, wanted) in [(matching, true), (others, false)] {
        for value in values {
            assert_eq!(matches(&pattern, &json!({ "data": { "x": value } })), wanted, "{list} on {value}");
            let among = json!({ "data": { "x": [{}, [value]] } });
            assert_eq!(matches(&pattern, &among), wanted, "{list} on an array with {value}");
        }
    }
}

fn matcher(sources: &[(char, Value)]) -> Matcher<char> {
    let mut matcher = Matcher::default();
    sources.iter().for_each(|(key, source)| matcher.insert(*key, &pattern(source)));
    matcher
}

#[test]
fn a_key_comes_once_and_in_the_order_of_its_first_pattern() {
    let mut matcher = matcher(&[
        ('b', json!({ "type": ["x"] })),
        ('a', json!({ "type": ["y"] })),
        ('c', json!({ "type": [{ "exists": true }] })),
        ('a', json!({ "type": [{ "prefix": "x" }] })),
        ('b', json!({ "source": [{ "exists": false }] })),
    ]);
    assert_eq!(matcher.matches_json(br#"{"type": "x"}"#).unwrap(), ['b', 'a', 'c']);
    assert_eq!(matcher.matches_json(br#"{"type": "y", "source": "s"}"#).unwrap(), ['a', 'c']);
    assert_eq!((matcher.remove('b'), matcher.remove('b'), matcher.len()), (2, 0, 3));
    assert_eq!(matcher.matches_json(br#"{"type": "x"}"#).unwrap(), ['a', 'c']);
    matcher.insert('b', &pattern(&json!({ "type": ["x"] })));
    assert_eq!(matcher.matches_json(br#"{"type": "x"}"#).unwrap(), ['a', 'c', 'b']);
    assert_eq!((matcher.remove('a'), matcher.remove('c'), matcher.remove('b')), (2, 1, 1));
    assert!(matcher.is_empty() && matcher.matches_json(br#"{"type": "x"}"#).unwrap().is_empty());
}

#[test]
fn attributes_and_data_are_seen_as_one_event() {
    let matcher = matcher(&[
        ('a', json!({ "type": ["t"], "tenant": [{ "prefix": "x" }] })),
        ('b', json!({ "data": { "n": [1] } })),
        ('c', json!({ "data": ["text"] })),
        ('d', json!({ "data": [{ "exists": false }] })),
        ('e', json!({ "e17": ["17"] })),
    ]);
    let see = |attributes: &[(&'static str, &'static str)], data| {
        matcher.matches(&EventView::new(attributes.iter().copied(), data)).unwrap()
    };
    assert_eq!(see(&[("type", "t"), ("tenant", "xy")], DataView::Json(br#" {"n": 1.0} "#)), ['a', 'b', 'd']);
    assert_eq!(see(&[("type", "t")], DataView::Text("text")), ['c']);
    assert_eq!(see(&[("type", "u"), ("type", "t"), ("tenant", "x")], DataView::None), ['a', 'd'], "the last counts");
    let many: Vec<(String, String)> = (0..40).map(|i| (format!("e{i}"), i.to_string())).collect();
    let view = EventView::new(many.iter().map(|(name, value)| (name.as_str(), value.as_str())), DataView::None);
    assert_eq!(matcher.matches(&view).unwrap(), ['d', 'e']);
}

#[test]
fn one_value_a_million_times_makes_candidates_once() {
    let mut matcher = Matcher::default();
    let same = pattern(&json!({ "x": [{ "exists": true }], "y": [{ "prefix": "b" }] }));
    (0..20_000).for_each(|key| matcher.insert(key, &same));
    matcher.insert(20_000, &pattern(&json!({ "x": ["a"] })));
    let event = format!(r#"{{"x": [{}"a"], "y": [{}"b"]}}"#, r#""a","#.repeat(200_000), r#""b","#.repeat(20_000));
    assert_eq!(matcher.matches_json(event.as_bytes()).unwrap().len(), 20_001);
}
