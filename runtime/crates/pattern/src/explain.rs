//! Explains why a pattern matches an event or does not.

use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use super::condition::Value;
use super::event::EventView;
use super::extract::{ExtractedValues, Occurrence, SourceTexts};
use super::matcher::{Matcher, Scratch};
use super::verify::{self, Requirement, Search};
use super::{FieldTest, MalformedEvent, Pattern, Segment, format_path};

/// The result of matching one pattern against one event, field by field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// The pattern matches the event.
    pub matched: bool,
    /// The place in the pattern of the first field that does not match. With `$or`, the field is taken from the
    /// combination with the fewest fields that do not match. `None` when the event matches, or when each field matches
    /// alone but not all of them match within the same array elements.
    pub failed: Option<String>,
    /// All fields that the pattern names, in the order of the pattern.
    pub fields: Vec<FieldReport>,
}

/// The result for one field that the pattern names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldReport {
    /// The field's path in the event, such as `data.total`.
    pub field: String,
    /// The place of the field's list in the pattern. The same as `field`, except below `$or`: there it is, for example,
    /// `$or[1].data.total`.
    pub place: String,
    /// At least one of the operators matched.
    pub matched: bool,
    /// The entries of the field's list, in the order of the pattern.
    pub operators: Vec<OperatorReport>,
    /// The values that the event has at this field, as JSON: at most 8, each cut to 120 characters. An event with
    /// arrays may have several.
    pub values: Vec<String>,
    /// The number of values that the event has at this field.
    pub value_count: usize,
}

/// The result for one entry of a field's list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperatorReport {
    /// The entry as JSON, as written in the pattern.
    pub text: String,
    /// The event meets the entry.
    pub matched: bool,
}

/// The largest number of values reported for a field.
pub(super) const VALUES_MAX: usize = 8;
/// The largest number of characters reported for a value; a longer value is cut.
const VALUE_CHARS_MAX: usize = 120;

/// Explains why an event matches a pattern or does not match it. Uses the same compiled pattern as the [`Matcher`], so
/// the explanation and the [`Matcher`] always agree.
///
/// # Errors
/// Returns an error when the event's data is not one valid JSON text.
pub fn explain(pattern: &Pattern, event: &EventView<'_>) -> Result<Explanation, MalformedEvent> {
    let mut matcher = Matcher::default();
    matcher.insert((), pattern);
    let index = matcher.index();
    let mut scratch = Scratch::default();
    let extracted = scratch.extracted();
    let texts = extracted.read(&index.fields, event)?;

    // The matcher has only this pattern, so its condition lists have the same numbers as the pattern's fields.
    let field_number = |test: &FieldTest| index.fields.find(&test.event_path);
    let fields: Vec<u32> = pattern.0.fields.iter().filter_map(field_number).collect();
    let reports: Vec<FieldReport> = pattern
        .0
        .fields
        .iter()
        .zip(&fields)
        .map(|(test, field)| field_report(pattern, test, *field, extracted, texts))
        .collect();

    let mut matched = false;
    let mut closest: Option<(usize, Option<String>)> = None;
    for alternative in &pattern.0.alternatives {
        let requirements: Vec<Requirement> = alternative
            .iter()
            .filter_map(|index| Some(Requirement { field: *fields.get(*index as usize)?, list: *index }))
            .collect();
        matched |= verify::alternative_matches(extracted, texts, &requirements, &index.lists, &mut Search::default());
        let failing: Vec<&FieldReport> = alternative
            .iter()
            .filter_map(|index| reports.get(*index as usize))
            .filter(|report| !report.matched)
            .collect();
        if closest.as_ref().is_none_or(|(count, _)| failing.len() < *count) {
            closest = Some((failing.len(), failing.first().map(|report| report.place.clone())));
        }
    }
    let failed = if matched { None } else { closest.and_then(|(_, place)| place) };
    Ok(Explanation { matched, failed, fields: reports })
}

/// Reports the conditions and values of one field.
fn field_report(
    pattern: &Pattern,
    test: &FieldTest,
    field: u32,
    extracted: &ExtractedValues,
    texts: SourceTexts<'_>,
) -> FieldReport {
    let written = test.pattern_path.iter().try_fold(pattern.source(), |json, segment| match segment {
        Segment::Key(key) => json.get(key),
        Segment::Index(index) => json.get(index),
    });
    let written = written.and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let count = extracted.occurrences(field).count();
    let operators = test.list.conditions.iter().zip(written).map(|(condition, written)| {
        let by_value =
            extracted.occurrences(field).any(|(_, occurrence)| condition.matches(texts.value(extracted, occurrence)));
        let absent = count == 0 && matches!(condition, super::Condition::Absent);
        OperatorReport { text: written.to_string(), matched: by_value || absent }
    });
    let operators: Vec<OperatorReport> = operators.collect();
    FieldReport {
        field: test.event_path.join("."),
        place: format_path(&test.pattern_path),
        matched: operators.iter().any(|operator| operator.matched),
        operators,
        values: extracted
            .occurrences(field)
            .take(VALUES_MAX)
            .map(|(_, occurrence)| format_value(extracted, occurrence, texts))
            .collect(),
        value_count: count,
    }
}

/// Formats a value as JSON, cut to the largest length.
fn format_value(extracted: &ExtractedValues, occurrence: &Occurrence, texts: SourceTexts<'_>) -> String {
    match texts.value(extracted, occurrence) {
        Value::Null => "null".to_owned(),
        Value::Bool(bool) => bool.to_string(),
        Value::Number(_) => truncate_text(texts.text(extracted, occurrence)),
        Value::Text(text) => Json::from(truncate_text(text)).to_string(),
    }
}

/// Cuts a text to [`VALUE_CHARS_MAX`] characters and marks the cut.
fn truncate_text(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
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
            Some(place) => writeln!(f, "first field that does not match: {place}"),
            None => writeln!(f, "each field matches, but not within the same array element"),
        }
    }
}
