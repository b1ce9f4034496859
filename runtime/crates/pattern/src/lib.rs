//! Event patterns: JSON filters over events, in the pattern language of Amazon EventBridge.
//!
//! A [`Pattern`] is checked and compiled once; [`Pattern::parse`] reports all mistakes together. A [`Matcher`] holds
//! many patterns, each under a key chosen by the caller, and returns the keys whose patterns match an event. The
//! matcher indexes the patterns, so the time to match an event hardly depends on the number of patterns. [`explain()`]
//! reports for one pattern and one event which fields and operators match.
//!
//! The crate does no I/O, reads no clock and has no configuration. Nothing in it depends on what a key identifies (a
//! function, a subscription, a queue), where events come from, how they are stored, or what the caller does after a
//! match. An event is either attributes with data ([`EventView`], the form of a CloudEvent) or any JSON object
//! ([`Matcher::matches_json`]). Only [`Pattern::never_in_cloudevents`] and [`Pattern::hints`] use rules of CloudEvents;
//! callers with other events do not call them.
//!
//! # Example
//!
//! ```
//! use evoke_pattern::{DataView, EventView, Matcher, Pattern, explain};
//! use serde_json::json;
//!
//! // Compile two patterns. A pattern with mistakes is rejected with the place of each mistake and a correction.
//! let orders = Pattern::parse(&json!({ "type": [{ "prefix": "order." }] })).unwrap();
//! let large = Pattern::parse(&json!({
//!     "type": ["order.placed"],
//!     "data": { "total": [{ "numeric": [">", 100] }] }
//! }))
//! .unwrap();
//! let mistakes = Pattern::parse(&json!({ "type": [{ "prefx": "order." }] })).unwrap_err();
//! assert_eq!(mistakes[0].to_string(), "type[0].prefx: unknown operator `prefx` (did you mean `prefix`?)");
//!
//! let mut matcher = Matcher::default();
//! matcher.insert("all orders", &orders);
//! matcher.insert("large orders", &large);
//!
//! // Match an event. The only error is data that is not valid JSON.
//! let event = EventView::new(
//!     [("type", "order.placed"), ("source", "/shop/checkout")],
//!     DataView::Json(br#"{ "total": 99.50 }"#),
//! );
//! assert_eq!(matcher.matches(&event).unwrap(), ["all orders"]);
//!
//! // Explain why the second pattern does not match.
//! let explanation = explain(&large, &event).unwrap();
//! assert_eq!(explanation.failed.as_deref(), Some("data.total"));
//! assert_eq!(
//!     explanation.to_string(),
//!     r#"does not match
//!   ✗ data.total: 99.50
//!       ✗ {"numeric":[">",100]}
//!   ✓ type: "order.placed"
//!       ✓ "order.placed"
//! first field that does not match: data.total
//! "#
//! );
//! ```
//!
//! # The language
//!
//! A pattern is a JSON object with the same structure as the events it matches. Every field that the pattern names must
//! match; other fields of the event are ignored. The value of a field is a list of values and operators, and the field
//! matches when at least one entry of the list does:
//!
//! ```json
//! { "type": ["order.placed", { "prefix": "invoice." }], "data": { "total": [{ "numeric": [">", 0, "<=", 100] }] } }
//! ```
//!
//! | entry | matches |
//! |---|---|
//! | `"text"`, `12`, `true`, `null` | exactly that value |
//! | `{"prefix": "a"}`, `{"suffix": "z"}` | a string with that start or end; `{"prefix": {"equals-ignore-case": "a"}}` ignores case |
//! | `{"equals-ignore-case": "a"}` | that string, ignoring case |
//! | `{"wildcard": "a*z"}` | a string in which `*` matches any number of characters; `\*` matches a star, `\\` a backslash |
//! | `{"anything-but": X}` | a value other than X, where X is a string, a number, a list of strings, a list of numbers, or an object with `prefix`, `suffix`, `equals-ignore-case` or `wildcard` and a string or a list of strings |
//! | `{"numeric": [">", 0, "<=", 5]}` | a number in a range; the comparisons are `=`, `<`, `<=`, `>`, `>=` |
//! | `{"cidr": "10.0.0.0/8"}` | a string with an IPv4 or IPv6 address in that block |
//! | `{"exists": true}`, `{"exists": false}` | an event in which the field has a value, or has none; objects and empty arrays are not values |
//!
//! `"$or": [{…}, {…}]` in the place of a field matches when at least one of its objects matches. `$or` may be nested.
//!
//! Where the published documentation (Amazon EventBridge user guide, Event Ruler README) is not precise, these rules
//! apply:
//! - **Arrays**: a field whose value is an array matches when one of the elements matches, at any nesting depth. Two
//!   fields never match in different elements of the same array, whichever objects or `$or` alternatives of the pattern
//!   name them. A field that matches by its absence must be absent from the elements in which the other fields match.
//! - **`anything-but`** needs a value, of any type, that is not excluded; the number `1` and the string `"1"` differ.
//! - **Numbers** are compared as exact decimals of any size: `300`, `300.0` and `3.0e2` are equal, `9007199254740993`
//!   and `9007199254740992` are not. A number is never expanded, so `1e999999999` costs no more than `1`. All exponents
//!   beyond 10^36 count as equal.
//! - **Case** is ignored character by character, in all scripts and independent of the locale.
//! - **A field name with dots** is one name, not a path.
//! - **JSON** in events is validated strictly and completely, including the parts that no pattern tests (RFC 8259,
//!   UTF-8, at most 128 nesting levels). When an object has two members with the same name, the last one counts. An
//!   escaped surrogate without its partner is read as U+FFFD.
//!
//! # Differences from EventBridge and Event Ruler
//!
//! The differences in this table are on purpose. All other patterns that EventBridge accepts are accepted here, and
//! match the same events.
//!
//! | subject | EventBridge, Event Ruler | this crate | reason |
//! |---|---|---|---|
//! | exact numbers | compared as text: `300` does not match `300.0` | compared as numbers | producers write the same number in several ways |
//! | `numeric` | from -5·10^9 to 5·10^9, with 6 digits after the point | any size, exact | no number is rounded to another |
//! | bounds of `numeric` | the lower bound comes first | either order | the meaning is the same |
//! | `exists: false` in arrays | the field is absent from the whole event | the field may also be absent only from the array elements in which the other fields match | the other fields of a pattern match within one element, too |
//! | `exists` on objects | only on fields with a value | the same; an object or an empty array is not a value | |
//! | `anything-but` that excludes every string, such as `{"wildcard": "*"}` | accepted | accepted: matches values that are not strings | |
//! | `$or` with a value that is not a list of at least two objects | a field with the name `$or` | reported as a mistake | most likely a mistake |
//! | an operator as the name of a field below `$or` | `$or` is then the name of a field | reported as a mistake | most likely a mistake |
//! | two members with the same name in an event | not specified | the last one counts | consumers read the same value |
//! | fields | those of the AWS envelope, the payload is in `detail` | those of a CloudEvent, the payload is in `data` | |
//! | size of a pattern | 2 KiB | 64 KiB | |
//!
//! # Limits
//!
//! A pattern has at most 64 KiB, 64 nesting levels, 64 wildcards with 2,048 bytes together (stars not counted), and
//! 1,000 combinations of `$or` alternatives with 65,536 fields together. The paths to all fields have at most 1 MiB
//! together. Matching never panics, and its recursion is at most 128 levels deep.
//!
//! For each pattern that the index cannot rule out, the time to match is linear in the size of the event. It grows with
//! the logarithm of the lengths of the pattern's lists, not with the lengths themselves, because each value is tested
//! once against all lists of its field. Each array element is searched once for all combinations of `$or` alternatives;
//! one operation handles 64 combinations. Each byte of a string costs one more operation for every 64 bytes of
//! wildcards on its field. So the worst known pattern takes less than 50 ms for an event of 1 MiB
//! (`benches/matching.rs`, one hostile pattern). Each further pattern that the index cannot rule out adds its own time.

#![warn(missing_docs)]

mod access;
mod bulk;
mod canonical;
mod cidr;
mod condition;
mod event;
mod explain;
mod extract;
mod fields;
mod hash;
mod hints;
mod index;
mod json;
mod lint;
mod lookup;
mod matcher;
mod number;
mod operator;
mod parse;
mod parser;
mod ranges;
#[cfg(test)]
mod tests;
mod text;
mod verify;

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

pub use canonical::{canonical_json, check_json};
pub use event::{DataView, EventView};
pub use explain::{Explanation, FieldReport, OperatorReport, explain};
pub use hints::ReservedValues;
pub use json::MalformedEvent;
pub use matcher::{Matcher, Scratch};
pub use number::canonical_number;

use condition::{Condition, ConditionList, Exact};

/// A checked and compiled pattern. A clone shares the compiled form, so cloning only increments a reference count.
#[derive(Clone, Debug)]
pub struct Pattern(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    /// The pattern as it was written.
    source: Json,
    fields: Vec<FieldTest>,
    /// The combinations of `$or` alternatives. Each combination is a list of indexes into `fields`; it matches if all
    /// these fields match. A pattern without `$or` has one combination.
    alternatives: Vec<Vec<u32>>,
    /// The pattern's cost as a binary logarithm, rounded up. The cost is the sum of [`ConditionList::cost`] over all
    /// fields of all alternatives.
    cost_log2: u8,
}

/// The conditions that a pattern sets for one field.
#[derive(Debug)]
struct FieldTest {
    /// The field names from the top of the event to the field.
    event_path: Vec<Box<str>>,
    /// The steps from the top of the pattern to the field's list; differs from `event_path` below `$or`.
    pattern_path: Vec<Segment>,
    list: ConditionList,
}

impl FieldTest {
    /// The entries of the field's list, as JSON. `pattern` is the source of the whole pattern.
    fn entries<'a>(&self, pattern: &'a Json) -> &'a [Json] {
        let list = self.pattern_path.iter().try_fold(pattern, |json, segment| match segment {
            Segment::Key(key) => json.get(key),
            Segment::Index(index) => json.get(index),
        });
        list.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default()
    }
}

/// One step of a path into the JSON form of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// The member of an object with this key.
    Key(String),
    /// The element of an array at this index, from 0.
    Index(usize),
}

/// One mistake in a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// The steps from the top of the pattern to the wrong value; empty for the pattern itself.
    pub path: Vec<Segment>,
    /// The mistake, in a text that does not name the place.
    pub message: String,
    /// A correction, where one is known.
    pub help: Option<String>,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", format_path(&self.path), self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PatternError {}

/// Formats a path into a pattern, such as `data.items[0]`; the empty path is `pattern`.
fn format_path(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if text.is_empty() => text.push_str(key),
            Segment::Key(key) => {
                text.push('.');
                text.push_str(key);
            }
            Segment::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    if text.is_empty() { "pattern".to_owned() } else { text }
}

impl Pattern {
    /// Checks and compiles a pattern.
    ///
    /// # Errors
    /// Returns all mistakes of the pattern together, in the order in which the parser finds them.
    pub fn parse(json: &Json) -> Result<Self, Vec<PatternError>> {
        parse::parse(json).map(|compiled| Self(Arc::new(compiled)))
    }

    /// The JSON that the pattern was parsed from, unchanged.
    #[must_use]
    pub fn source(&self) -> &Json {
        &self.0.source
    }

    /// The strings to which the pattern restricts a top-level field, sorted and without duplicates. Returns `None` when
    /// the pattern can match with other values of that field.
    ///
    /// A caller that knows all sources and types can use these strings to find patterns that never match.
    #[must_use]
    pub fn exact_values(&self, field: &str) -> Option<Vec<String>> {
        let mut values = Vec::new();
        for alternative in &self.0.alternatives {
            let mut tests = alternative.iter().filter_map(|index| self.0.fields.get(*index as usize));
            let found = tests.find_map(|test| match &*test.event_path {
                [name] if **name == *field => exact_strings(&test.list),
                _ => None,
            });
            values.extend(found?);
        }
        values.sort_unstable();
        values.dedup();
        Some(values)
    }

    /// Returns true if the pattern matches the event. Each call builds an index. To match many patterns or many events,
    /// use a [`Matcher`] instead.
    ///
    /// # Errors
    /// Returns an error when the event's data is not exactly one valid JSON text.
    pub fn matches(&self, event: &EventView<'_>) -> Result<bool, MalformedEvent> {
        self.matcher().matches_any(event)
    }

    /// Returns a matcher with this pattern alone, for many events.
    #[must_use]
    pub fn matcher(&self) -> Matcher<()> {
        let mut matcher = Matcher::default();
        matcher.insert((), self);
        matcher
    }
}

/// The values of a list that has only exact strings; `None` for any other list.
fn exact_strings(list: &ConditionList) -> Option<Vec<String>> {
    let text = |condition: &Condition| match condition {
        Condition::Exact(Exact::Text(text)) => Some(text.to_string()),
        _ => None,
    };
    list.conditions.iter().map(text).collect()
}
