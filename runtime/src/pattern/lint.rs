//! What a correct pattern asks for that no CloudEvent has.

use super::condition::{Condition, Exact};
use super::{FieldTest, Pattern, PatternError};

impl Pattern {
    /// Fields that can never match an event of the bus, although the pattern is correct: in a CloudEvent (CloudEvents
    /// 1.0.2 section 3) everything but `data` is an attribute, whose name has lower-case letters and digits, and which
    /// the matcher sees as a string. The usual cause is a pattern written for EventBridge's own events.
    #[must_use]
    pub fn never_in_cloudevents(&self) -> Vec<PatternError> {
        let mut errors: Vec<PatternError> = Vec::new();
        for test in &self.0.fields {
            if let Some(error) = check(test)
                && !errors.iter().any(|other| other.path == error.path)
            {
                errors.push(error);
            }
        }
        errors
    }
}

fn check(test: &FieldTest) -> Option<PatternError> {
    let (name, inner) = test.path.split_first()?;
    // What may be absent may also stand for "no such field".
    if **name == *"data" || test.leaf.absent {
        return None;
    }
    let error = |message, help: &str| {
        let help = (!help.is_empty()).then(|| help.to_owned());
        Some(PatternError { path: test.at.clone(), message, help })
    };
    if **name == *"detail" {
        return error("an event has no field `detail`".to_owned(), "a CloudEvent's payload is `data`");
    }
    if **name == *"detail-type" {
        return error("an event has no field `detail-type`".to_owned(), "a CloudEvent's kind is `type`");
    }
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if name.is_empty() || !name.bytes().all(legal) {
        let message = format!("`{name}` can never match: names of attributes have lower-case letters and digits");
        return error(message, "fields of the payload stand under `data`");
    }
    if !inner.is_empty() {
        let message = format!("`{name}` can never match as an object: attributes are strings");
        return error(message, "fields of the payload stand under `data`");
    }
    let conditions = &test.leaf.conditions;
    let text = |condition: &Condition| {
        !matches!(condition, Condition::Range(_) | Condition::Exact(Exact::Number(_) | Exact::Bool(_) | Exact::Null))
    };
    if !conditions.iter().any(text) {
        let help =
            if conditions.iter().any(|it| matches!(it, Condition::Range(_))) { "" } else { "write it in quotes" };
        return error(format!("`{name}` can never match: attributes are strings"), help);
    }
    None
}
