//! Tests of the whole crate. They check the results of parsing, matching and explaining for given patterns and events.

mod arrays;
mod bulk;
mod cases;
mod errors;
mod explain;
mod hints;
mod judge;
mod malformed;
mod matcher;
mod published;
mod random;

use serde_json::{Value, json};

use super::{Matcher, Pattern};

fn pattern(value: &Value) -> Pattern {
    Pattern::parse(value).unwrap_or_else(|errors| panic!("{value}: {errors:?}"))
}

/// Returns true if a matcher with one pattern matches the event.
pub(super) fn matches(source: &Value, event: &Value) -> bool {
    let mut matcher = Matcher::default();
    matcher.insert((), &pattern(source));
    !matcher.matches_json(event.to_string().as_bytes()).unwrap().is_empty()
}

/// Checks that a field's list matches all values of `matching`, and no value of `others`. Tries each value alone and
/// inside an array.
fn assert_list_matches(list: &Value, matching: &[Value], others: &[Value]) {
    let pattern = json!({ "data": { "x": list } });
    for (values, wanted) in [(matching, true), (others, false)] {
        for value in values {
            assert_eq!(matches(&pattern, &json!({ "data": { "x": value } })), wanted, "{list} on {value}");
            let in_array = json!({ "data": { "x": [{}, [value]] } });
            assert_eq!(matches(&pattern, &in_array), wanted, "{list} on an array with {value}");
        }
    }
}
