//! The state of a parse: the current place, and the fields and mistakes found so far.

use serde_json::Value as Json;

use super::condition::ConditionList;
use super::{FieldTest, PatternError, Segment};

/// The largest number of mistakes that are stored. Each mistake has the path to its place, which can be as long as the
/// pattern.
const ERRORS_MAX: usize = 50;
/// The largest total length of the paths to all fields, in bytes. Each field has its whole path, so the paths of many
/// fields below a long name would take much more memory than the pattern.
const PATH_BYTES_MAX: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Parser {
    /// The current place in the pattern.
    pub(super) pattern_path: Vec<Segment>,
    /// The field names that lead to the current place.
    pub(super) event_path: Vec<Box<str>>,
    pub(super) fields: Vec<FieldTest>,
    pub(super) errors: Vec<PatternError>,
    /// The number of mistakes that are not stored, because there are too many.
    pub(super) errors_omitted: usize,
    /// The total length of the paths to all fields, in bytes.
    path_bytes: usize,
    /// The number of wildcards read so far.
    pub(super) wildcards: usize,
    /// The total length of the wildcards read so far, without their stars, in bytes.
    pub(super) wildcard_bytes: usize,
}

impl Parser {
    /// Adds a mistake at the current place.
    pub(super) fn error(&mut self, message: String, help: Option<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(PatternError { path: self.pattern_path.clone(), message, help });
        } else {
            self.errors_omitted += 1;
        }
    }

    /// Adds the test of the field with this name at the current place; returns its index in `fields`.
    pub(super) fn add_field(&mut self, name: &str, list: ConditionList) -> u32 {
        let key_bytes = |segment: &Segment| match segment {
            Segment::Key(key) => key.len(),
            Segment::Index(_) => 0,
        };
        let event_bytes = self.event_path.iter().map(|name| name.len()).sum::<usize>() + name.len();
        let was_within = self.path_bytes <= PATH_BYTES_MAX;
        self.path_bytes += event_bytes + self.pattern_path.iter().map(key_bytes).sum::<usize>();
        let (mut event_path, mut pattern_path) = (Vec::new(), Vec::new());
        if self.path_bytes <= PATH_BYTES_MAX {
            event_path = self.event_path.iter().cloned().chain([name.into()]).collect();
            pattern_path.clone_from(&self.pattern_path);
        } else if was_within {
            let message = format!("the paths to all fields have more than {} MiB together", PATH_BYTES_MAX >> 20);
            self.error(message, Some("split it into several patterns, or use shorter names of fields".to_owned()));
        }
        self.fields.push(FieldTest { event_path, pattern_path, list });
        self.fields.len() as u32 - 1
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
