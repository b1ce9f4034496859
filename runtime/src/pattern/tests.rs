//! Tests of the whole: pattern in, event in, answer out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod arrays;
mod errors;
mod explained;
mod malformed;
mod many;
mod published;
mod random;

use serde_json::{Value, json};

use super::{Matcher, Pattern};

fn pattern(value: &Value) -> Pattern {
    Pattern::parse(value).unwrap_or_else(|errors| panic!("{value}: {errors:?}"))
}

/// Whether one pattern alone matches an event.
fn matches(source: &Value, event: &Value) -> bool {
    let mut matcher = Matcher::default();
    matcher.insert((), &pattern(source));
    !matcher.matches_json(event.to_string().as_bytes()).unwrap().is_empty()
}

/// Checks which values a field's list matches, each alone and within an array.
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
