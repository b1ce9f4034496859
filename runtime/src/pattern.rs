//! Event patterns: compile once, match often. No I/O here.
//!
//! A pattern is JSON in the event-pattern language of Amazon EventBridge and Event Ruler, and looks at an event in
//! its CloudEvents JSON form. Its objects name fields, and all of them must match; a field's list holds
//! alternatives, and one of them must: an exact value or an object with one operator.
//!
//! | alternative | matches |
//! |---|---|
//! | `"text"`, `300`, `true`, `null` | that value; numbers by value: `300`, `300.0` and `3e2` are one |
//! | `{"prefix": "a"}`, `{"suffix": "a"}` | a string that begins or ends so; `{"prefix": {"equals-ignore-case": "a"}}` in any case |
//! | `{"equals-ignore-case": "a"}` | that string in any case |
//! | `{"wildcard": "a*b"}` | a string; `*` is any run of characters, `\*` an asterisk, `\\` a backslash |
//! | `{"numeric": [">", 0, "<=", 5]}` | a number in a range; `=`, `<`, `<=`, `>`, `>=` |
//! | `{"cidr": "10.0.0.0/24"}` | a string that is an IPv4 or IPv6 address of the block |
//! | `{"exists": true}` | any scalar, `null` included |
//! | `{"exists": false}` | no scalar at this path, anywhere in the event; an object or an empty array is no scalar |
//! | `{"anything-but": x}` | a scalar that is none of `x`: a string or number, a list of either, or one of the operators for strings with one string or a list |
//!
//! `"$or": [{…}, {…}]` beside fields asks for one of its objects to match there. An array of an event matches when one
//! of its elements does, and the fields of one object of a pattern match within the same element (array consistency).
//!
//! JSON is read strictly (RFC 8259, UTF-8, 128 levels), all of it, also what no pattern asks for. Of two members with
//! one name the last counts. A lone surrogate (`"\ud800"`) is read as U+FFFD.

mod block;
mod condition;
mod explain;
mod hash;
mod index;
mod json;
mod matcher;
mod number;
mod parse;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
mod text;
mod tree;
mod verify;
mod view;

use std::sync::Arc;

use serde_json::Value;

use condition::Condition;
pub use explain::{ExplainedCondition, ExplainedField, Explanation, explain};
pub use matcher::Matcher;
pub use view::{DataView, EventView, MalformedEvent};

/// The longest pattern, in bytes of its shortest JSON text.
pub const PATTERN_SIZE_MAX: usize = 64 * 1024;

/// The most levels of objects in a pattern.
pub const PATTERN_DEPTH_MAX: usize = 32;

/// A compiled pattern; a clone shares it.
#[derive(Clone, Debug)]
pub struct Pattern(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    source: Value,
    root: Group,
    /// How many fields there are in all groups.
    field_count: u32,
}

/// An object of a pattern: all of it must match within one object of the event.
#[derive(Debug, Default)]
struct Group {
    fields: Vec<Field>,
    /// Each `$or`: one of its groups must match.
    ors: Vec<Vec<Group>>,
}

#[derive(Debug)]
struct Field {
    name: String,
    /// Counts a pattern's fields from 0 in the order of its text.
    ordinal: u32,
    test: Test,
}

#[derive(Debug)]
enum Test {
    /// One of the conditions must hold.
    Value(Box<[Condition]>),
    Group(Group),
}

/// A mistake in a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PatternError {
    /// The way from the pattern's root to the offending place.
    pub path: Vec<Segment>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
}

/// One step into a JSON value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// To the member of an object with this name.
    Key(String),
    /// To an element of an array, from 0.
    Index(usize),
}

impl Pattern {
    /// Compiles a pattern. The error holds every mistake there is in it, in the order of its text.
    pub fn parse(value: &Value) -> Result<Self, Vec<PatternError>> {
        let (root, field_count) = parse::parse(value)?;
        Ok(Self(Arc::new(Compiled { source: value.clone(), root, field_count })))
    }

    /// The pattern as it was given.
    pub fn source(&self) -> &Value {
        &self.0.source
    }

    /// The values of a top-level field whose alternatives are all exact strings; `None` for any other.
    pub fn exact_values(&self, field: &str) -> Option<Vec<String>> {
        let field = self.0.root.fields.iter().find(|candidate| candidate.name == field)?;
        let Test::Value(conditions) = &field.test else { return None };
        let exact = |condition: &Condition| match condition {
            Condition::Equals(literal) if !literal.ignore_case => Some(literal.text.to_string()),
            _ => None,
        };
        conditions.iter().map(exact).collect()
    }
}
