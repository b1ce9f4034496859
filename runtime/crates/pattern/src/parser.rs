//! The state of a parse: the current place, and the fields and mistakes found so far.

use serde_json::Value as Json;

use super::{FieldTest, PatternError, Segment};

#[derive(Default)]
pub(super) struct Parser {
    /// The current place in the pattern.
    pub(super) pattern_path: Vec<Segment>,
    /// The field names that lead to the current place.
    pub(super) event_path: Vec<Box<str>>,
    pub(super) fields: Vec<FieldTest>,
    pub(super) errors: Vec<PatternError>,
    /// The number of wildcards read so far.
    pub(super) wildcards: usize,
    /// The total length of the wildcards read so far, without their stars, in bytes.
    pub(super) wildcard_bytes: usize,
}

impl Parser {
    /// Adds a mistake at the current place.
    pub(super) fn error(&mut self, message: String, help: Option<String>) {
        self.errors.push(PatternError { path: self.pattern_path.clone(), message, help });
    }

    /// Calls `inside` with the current place moved one step down.
    pub(super) fn within<T>(&mut self, segment: Segment, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.pattern_path.push(segment);
        let result = inside(self);
        self.pattern_path.pop();
        result
    }

    pub(super) fn within_key<T>(&mut self, key: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        self.within(Segment::Key(key.to_owned()), inside)
    }
}

/// The name of a JSON value's type, for messages.
pub(super) fn type_name(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

/// A value as JSON for messages, cut to 80 characters.
pub(super) fn shortened_json(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}
