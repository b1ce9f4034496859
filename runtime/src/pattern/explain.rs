//! Why a pattern matches an event, or why not.

use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use super::condition::Value;
use super::event::EventView;
use super::extract::{Extract, Occurrence, Texts};
use super::matcher::{Matcher, Scratch};
use super::verify::{self, Need, Search};
use super::{FieldTest, MalformedEvent, Pattern, Segment, place};

/// How a pattern and an event meet, field by field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The verdict.
    pub matched: bool,
    /// Of an event that does not match: the place in the pattern of the first field that fails. With `$or`, of the
    /// combination that comes closest. None when every field matches, but not within the same array elements.
    pub failed: Option<String>,
    /// Every field that the pattern names, in its order.
    pub fields: Vec<FieldReport>,
}

/// One field that a pattern names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldReport {
    /// The field's path in the event, as `data.total`.
    pub field: String,
    /// Where its list stands in the pattern: the same, but for `$or`.
    pub place: String,
    /// One of the operators matched.
    pub matched: bool,
    /// The entries of the list.
    pub operators: Vec<OperatorReport>,
    /// The values that the event has there, as JSON, at most 8; several when there are arrays.
    pub values: Vec<String>,
    /// How many it has.
    pub value_count: usize,
}

/// One entry of a field's list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperatorReport {
    /// As written, as JSON.
    pub text: String,
    /// Whether the event meets it.
    pub matched: bool,
}

/// How many values of a field are shown.
pub(super) const VALUES_MAX: usize = 8;
/// A longer value is shown by its beginning, in characters.
const VALUE_LENGTH_MAX: usize = 120;

/// Explains a pattern's verdict over an event, from the form that the [`Matcher`] uses.
///
/// # Errors
/// When the event's data is not one JSON text.
pub fn explain(pattern: &Pattern, event: &EventView<'_>) -> Result<Explanation, MalformedEvent> {
    let mut matcher = Matcher::default();
    matcher.insert((), pattern);
    let index = matcher.index();
    let mut scratch = Scratch::default();
    let extract = scratch.extract();
    let texts = extract.read(&index.fields, event)?;

    // The matcher takes the fields of its only pattern in order: leaf by leaf.
    let numbered = |test: &FieldTest| index.fields.find(&test.path);
    let fields: Vec<u32> = pattern.0.fields.iter().filter_map(numbered).collect();
    let reports: Vec<FieldReport> = pattern
        .0
        .fields
        .iter()
        .zip(&fields)
        .map(|(test, field)| report(pattern, test, *field, extract, texts))
        .collect();

    let mut matched = false;
    let mut closest: Option<(usize, Option<String>)> = None;
    for alternative in &pattern.0.alternatives {
        let needs: Vec<Need> = alternative
            .iter()
            .filter_map(|leaf| Some(Need { field: *fields.get(*leaf as usize)?, leaf: *leaf }))
            .collect();
        matched |= verify::holds(extract, texts, &needs, &index.leaves, &mut Search::default());
        let failing: Vec<&FieldReport> = alternative
            .iter()
            .filter_map(|leaf| reports.get(*leaf as usize))
            .filter(|report| !report.matched)
            .collect();
        if closest.as_ref().is_none_or(|(count, _)| failing.len() < *count) {
            closest = Some((failing.len(), failing.first().map(|report| report.place.clone())));
        }
    }
    let failed = if matched { None } else { closest.and_then(|(_, place)| place) };
    Ok(Explanation { matched, failed, fields: reports })
}

fn report(pattern: &Pattern, test: &FieldTest, field: u32, extract: &Extract, texts: Texts<'_>) -> FieldReport {
    let written = test.at.iter().try_fold(pattern.source(), |json, segment| match segment {
        Segment::Key(key) => json.get(key),
        Segment::Index(index) => json.get(index),
    });
    let written = written.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let count = extract.at(field).count();
    let operators = test.leaf.conditions.iter().zip(written).map(|(condition, written)| {
        let by_value = extract.at(field).any(|(_, occurrence)| condition.matches(texts.value(extract, occurrence)));
        let absent = count == 0 && matches!(condition, super::Condition::Absent);
        OperatorReport { text: written.to_string(), matched: by_value || absent }
    });
    let operators: Vec<OperatorReport> = operators.collect();
    FieldReport {
        field: test.path.join("."),
        place: place(&test.at),
        matched: operators.iter().any(|operator| operator.matched),
        operators,
        values: extract.at(field).take(VALUES_MAX).map(|(_, it)| shown(extract, it, texts)).collect(),
        value_count: count,
    }
}

/// A value as JSON.
fn shown(extract: &Extract, occurrence: &Occurrence, texts: Texts<'_>) -> String {
    match texts.value(extract, occurrence) {
        Value::Null => "null".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(_) => shorten(texts.text(extract, occurrence)),
        Value::Text(text) => Json::from(shorten(text)).to_string(),
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(VALUE_LENGTH_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", if self.matched { "matches" } else { "does not match" })?;
        for field in &self.fields {
            let mark = |matched| if matched { "✓" } else { "✗" };
            let values = match field.value_count {
                0 => "no value".to_owned(),
                count if count > field.values.len() => format!("{}, … ({count} values)", field.values.join(", ")),
                _ => field.values.join(", "),
            };
            writeln!(f, "  {} {}: {values}", mark(field.matched), field.place)?;
            for operator in &field.operators {
                writeln!(f, "      {} {}", mark(operator.matched), operator.text)?;
            }
        }
        match &self.failed {
            _ if self.matched => Ok(()),
            Some(place) => writeln!(f, "first to fail: {place}"),
            None => writeln!(f, "each field matches, but not within the same array element"),
        }
    }
}
