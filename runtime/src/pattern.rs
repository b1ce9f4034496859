//! The EventBridge event-pattern language: which events a function gets.
//!
//! A pattern is a JSON object of the shape of the events it matches. Each field that it names must match; fields that it
//! does not name do not matter. The value of a field is a list of what it may be, and one entry is enough:
//!
//! ```json
//! { "type": ["order.placed", { "prefix": "invoice." }], "data": { "total": [{ "numeric": [">", 0, "<=", 100] }] } }
//! ```
//!
//! | entry | matches |
//! |---|---|
//! | `"text"`, `12`, `true`, `null` | that value |
//! | `{"prefix": "a"}`, `{"suffix": "z"}` | a string that starts or ends so; `{"prefix": {"equals-ignore-case": "a"}}` in any case |
//! | `{"equals-ignore-case": "a"}` | that string in any case |
//! | `{"wildcard": "a*z"}` | `*` stands for any characters; `\*` is a star, `\\` a backslash |
//! | `{"anything-but": X}` | a value other than X: a string, a number, a list of one of both, or `prefix`, `suffix`, `equals-ignore-case`, `wildcard` with a string or a list of strings |
//! | `{"numeric": [">", 0, "<=", 5]}` | a number in a range; `=`, `<`, `<=`, `>`, `>=` |
//! | `{"cidr": "10.0.0.0/8"}` | an IPv4 or IPv6 address, as a string |
//! | `{"exists": true}`, `{"exists": false}` | the field has a value, has none; objects and empty arrays are no values |
//!
//! `"$or": [{…}, {…}]` in the place of a field matches when one of its objects does, and may be nested.
//!
//! Rules, where the published language (Amazon EventBridge user guide, Event Ruler README) leaves room:
//! - **Arrays** in an event stand for their elements: a field matches when one of them does, at any depth. Two fields
//!   never match in different elements of the same array, whichever objects or `$or` of the pattern they stand in, and
//!   a field that must be absent is absent from the elements that the others match in.
//! - **`anything-but`** needs a value, of any kind, that is not excluded; a number is not the string that looks like it.
//! - **Numbers** are compared as exact decimals: `300`, `300.0` and `3.0e2` are equal, `9007199254740993` and
//!   `9007199254740992` are not; of an event's number 38 digits are compared, and whether there are more.
//! - **Case** is ignored per character, in all scripts, without regard to locale.
//! - **A name with dots** is one name, not a path.
//! - **JSON** is validated strictly, all of it, whatever patterns ask for (RFC 8259, UTF-8, at most 128 levels). Of two
//!   members of one name the last counts; half a surrogate pair is read as U+FFFD.
//!
//! Limits: 64 KiB a pattern, 1,000 combinations of `$or`, 64 wildcards, 64 levels. Matching is linear in the event for
//! each pattern that the index cannot rule out, wildcards included; it neither panics nor recurses deeper than 128.

mod access;
mod cidr;
mod condition;
mod event;
mod explain;
mod extract;
mod fields;
mod hash;
mod index;
mod json;
mod lint;
mod lookup;
mod matcher;
mod number;
mod operator;
mod parse;
mod ranges;
#[cfg(test)]
mod tests;
mod text;
mod verify;

use std::fmt;
use std::sync::Arc;

use serde_json::Value as Json;

pub use event::{DataView, EventView};
pub use explain::{Explanation, FieldReport, OperatorReport, explain};
pub use json::MalformedEvent;
pub use matcher::{Matcher, Scratch};

use condition::{Condition, Exact, Leaf};

/// A checked and compiled pattern. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Pattern(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    source: Json,
    fields: Vec<FieldTest>,
    /// The combinations of `$or`, each a list of fields that must all match. Without `$or` there is one.
    alternatives: Vec<Vec<u32>>,
}

/// A list of what a field may be.
#[derive(Debug)]
struct FieldTest {
    /// The names from the top of the event.
    path: Vec<Box<str>>,
    /// Where the list stands in the pattern.
    at: Vec<Segment>,
    leaf: Leaf,
}

/// A step into a pattern: its JSON form is an object's key or an array's index.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Into an object, by key.
    Key(String),
    /// Into an array, by index.
    Index(usize),
}

/// One mistake in a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// Where: the steps from the top of the pattern to the offending value.
    pub path: Vec<Segment>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", place(&self.path), self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for PatternError {}

/// A path as it is shown: `data.items[0]`.
fn place(path: &[Segment]) -> String {
    let mut shown = String::new();
    for segment in path {
        match segment {
            Segment::Key(key) if shown.is_empty() => shown.push_str(key),
            Segment::Key(key) => {
                shown.push('.');
                shown.push_str(key);
            }
            Segment::Index(index) => shown.push_str(&format!("[{index}]")),
        }
    }
    if shown.is_empty() { "pattern".to_owned() } else { shown }
}

impl Pattern {
    /// Checks and compiles a pattern.
    ///
    /// # Errors
    /// All mistakes at once, in the order of the pattern.
    pub fn parse(json: &Json) -> Result<Self, Vec<PatternError>> {
        parse::parse(json).map(|compiled| Self(Arc::new(compiled)))
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn source(&self) -> &Json {
        &self.0.source
    }

    /// The strings of which a top-level field must be one for the pattern to match, sorted; `None` when it may be
    /// others, too. For a manifest that knows which sources and types there are.
    #[must_use]
    pub fn exact_values(&self, field: &str) -> Option<Vec<String>> {
        let mut values = Vec::new();
        for alternative in &self.0.alternatives {
            let mut tests = alternative.iter().filter_map(|index| self.0.fields.get(*index as usize));
            let found = tests.find_map(|test| match &*test.path {
                [name] if **name == *field => texts(&test.leaf),
                _ => None,
            });
            values.extend(found?);
        }
        values.sort_unstable();
        values.dedup();
        Some(values)
    }

    /// Whether it matches an event. To match one event against many patterns use a [`Matcher`].
    ///
    /// # Errors
    /// When the event's data is not one JSON text.
    pub fn matches(&self, event: &EventView<'_>) -> Result<bool, MalformedEvent> {
        let mut matcher = Matcher::default();
        matcher.insert((), self);
        Ok(!matcher.matches(event)?.is_empty())
    }
}

/// The values of a list that has only strings.
fn texts(leaf: &Leaf) -> Option<Vec<String>> {
    let text = |condition: &Condition| match condition {
        Condition::Exact(Exact::Text(text)) => Some(text.to_string()),
        _ => None,
    };
    leaf.conditions.iter().map(text).collect()
}
