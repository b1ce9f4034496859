//! Finds the fields of a correct pattern that can never match a CloudEvent.

use super::condition::{Condition, Exact};
use super::hints::FIELDS;
use super::text::TextTest;
use super::{FieldTest, Pattern, PatternError};

impl Pattern {
    /// Returns an error for each field that can never match a CloudEvent, although the pattern is correct. Reports each
    /// place once. In a CloudEvent (CloudEvents 1.0.2 section 3), every top-level field except `data` is an attribute.
    /// The name of an attribute has only lower-case letters and digits, and [`EventView`](super::EventView) presents
    /// the value as a string. The usual cause of this error is a pattern that was written for EventBridge's own events.
    #[must_use]
    pub fn never_in_cloudevents(&self) -> Vec<PatternError> {
        let mut errors: Vec<PatternError> = Vec::new();
        for test in &self.0.fields {
            if let Some(error) = check_field(test)
                && !errors.iter().any(|other| other.path == error.path)
            {
                errors.push(error);
            }
        }
        errors
    }
}

fn check_field(test: &FieldTest) -> Option<PatternError> {
    let (name, inner) = test.event_path.split_first()?;
    // Below `data`, every field is possible. A list with `exists: false` matches because no CloudEvent has the field.
    if **name == *"data" || test.list.may_be_absent {
        return None;
    }
    let error = |message, help: &str| {
        let help = (!help.is_empty()).then(|| help.to_owned());
        Some(PatternError { path: test.pattern_path.clone(), message, help })
    };
    if **name == *"detail" {
        return error("a CloudEvent has no field `detail`".to_owned(), "the payload of a CloudEvent is in `data`");
    }
    if **name == *"detail-type" {
        return error("a CloudEvent has no field `detail-type`".to_owned(), "the type of a CloudEvent is in `type`");
    }
    let is_allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || !name.bytes().all(is_allowed) {
        let message = format!("`{name}` can never match: attribute names have only lower-case letters and digits");
        let lower = name.to_ascii_lowercase();
        if FIELDS.contains(&lower.as_str()) {
            return error(message, &format!("did you mean `{lower}`?"));
        }
        return error(message, "fields of the payload are below `data`");
    }
    if !inner.is_empty() {
        let message = format!("`{name}` can never match as an object: attributes are strings");
        return error(message, "fields of the payload are below `data`");
    }
    let conditions = &test.list.conditions;
    let can_match_string = |condition: &Condition| match condition {
        Condition::Range(_) | Condition::Exact(Exact::Number(_) | Exact::Bool(_) | Exact::Null) => false,
        Condition::AnythingButText(tests) => !tests.iter().any(TextTest::matches_every_string),
        _ => true,
    };
    if !conditions.iter().any(can_match_string) {
        let is_value = |condition: &Condition| matches!(condition, Condition::Exact(_));
        let help = if conditions.iter().all(is_value) { "quote the values" } else { "" };
        return error(format!("`{name}` can never match: attributes are strings"), help);
    }
    None
}
