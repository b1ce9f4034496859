//! Explains why a pattern matches an event or does not.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use super::bulk;
use super::condition::{Condition, ConditionList, Value};
use super::event::EventView;
use super::extract::{ExtractedValues, Occurrence, SourceTexts};
use super::matcher::Scratch;
use super::verify::{Requirement, Search};
use super::{FieldTest, MalformedEvent, Pattern, format_path};

/// The result of matching one pattern against one event, field by field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// True if the pattern matches the event.
    pub matched: bool,
    /// The first field that does not match, as its place in the pattern. With `$or`, only the combination with the
    /// fewest such fields counts. `None` if the event matches. `None` also if each field matches alone, but not all of
    /// them match within the same array elements.
    pub failed: Option<String>,
    /// The fields of the `$or` combination that matched, as places in the pattern. Empty if the event does not match.
    pub decided: Vec<String>,
    /// All fields that the pattern names, in the order of the pattern.
    pub fields: Vec<FieldReport>,
}

/// The result for one field that the pattern names.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldReport {
    /// The field's path in the event, such as `data.total`.
    pub field: String,
    /// The place of the field's list in the pattern. It equals `field`, except below `$or`, as in `$or[1].data.total`.
    pub place: String,
    /// True if at least one of the operators matched. `exists: false` also matches a field that is absent from the
    /// array element in which the other fields match.
    pub matched: bool,
    /// The entries of the field's list, in the order of the pattern.
    pub operators: Vec<OperatorReport>,
    /// The values that the event has at this field, as JSON: at most 8, each cut to 120 characters. An event with
    /// arrays can have several.
    pub values: Vec<String>,
    /// The number of values that the event has at this field.
    pub value_count: usize,
    /// True if the field matches because it is absent from the array element in which the other fields match. The
    /// values in `values` are then in other elements.
    pub absent_from_element: bool,
}

/// The result for one entry of a field's list.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OperatorReport {
    /// The entry as JSON, as written in the pattern.
    pub text: String,
    /// True if the event meets the entry.
    pub matched: bool,
}

/// The largest number of values reported for a field.
pub(super) const VALUES_MAX: usize = 8;
/// The largest number of characters reported for a value; a longer value is cut.
const VALUE_CHARS_MAX: usize = 120;

/// Explains why an event matches a pattern or does not match it. Uses the compiled pattern of a
/// [`Matcher`](super::Matcher), so the explanation always agrees with the matcher's result.
///
/// # Errors
/// Returns an error when the event's data is not exactly one valid JSON text.
pub fn explain(pattern: &Pattern, event: &EventView<'_>) -> Result<Explanation, MalformedEvent> {
    let matcher = pattern.matcher();
    let index = matcher.index();
    let mut scratch = Scratch::default();
    let extracted = scratch.extracted();
    let texts = extracted.read(&index.fields, event)?;

    // The index has only this pattern, and `insert` adds one condition list for each field, in order. So list `i` of
    // the index belongs to field `i` of the pattern.
    let field_number = |test: &FieldTest| index.fields.find(&test.event_path);
    let fields: Vec<u32> = pattern.0.fields.iter().filter_map(field_number).collect();
    let mut reports = field_reports(pattern, &fields, extracted, texts);

    // For an alternative: the number of its fields that do not match, and the place of the first of them.
    let failing = |alternative: &Vec<u32>| {
        let reports = alternative.iter().filter_map(|index| reports.get(*index as usize));
        let mut failing = reports.filter(|report| !report.matched);
        let first = failing.next().map(|report| report.place.clone());
        (usize::from(first.is_some()) + failing.count(), first)
    };
    let closest = pattern.0.alternatives.iter().map(failing).min_by_key(|(count, _)| *count);
    let mut steps = 0;
    let Some(winner) = index.bulk(0).and_then(|bulk| bulk.verify(extracted, texts, &mut steps)) else {
        let failed = closest.and_then(|(_, place)| place);
        return Ok(Explanation { matched: false, failed, decided: Vec::new(), fields: reports });
    };
    let alternative = pattern.0.alternatives.get(winner as usize).map_or(&[][..], Vec::as_slice);
    let requirements: Vec<Requirement> = alternative
        .iter()
        .filter_map(|index| Some(Requirement { field: *fields.get(*index as usize)?, list: *index }))
        .collect();
    let witness = Search::default().witness(extracted, texts, &requirements, &index.lists).unwrap_or_default();
    let mut decided = Vec::new();
    for (index, counting) in alternative.iter().zip(&witness) {
        let Some(report) = reports.get_mut(*index as usize) else { continue };
        decided.push(report.place.clone());
        if counting.is_empty()
            && let Some(test) = pattern.0.fields.get(*index as usize)
        {
            report.matched = true;
            report.absent_from_element = report.value_count > 0;
            let absent = |condition: &Condition| matches!(condition, Condition::Absent);
            let operators = report.operators.iter_mut().zip(&test.list.conditions);
            operators.filter(|(_, condition)| absent(condition)).for_each(|(operator, _)| operator.matched = true);
        }
    }
    Ok(Explanation { matched: true, failed: None, decided, fields: reports })
}

/// Reports the conditions and values of each field that the pattern names. `fields` are the numbers of these fields in
/// the index.
fn field_reports(
    pattern: &Pattern,
    fields: &[u32],
    extracted: &ExtractedValues,
    texts: SourceTexts<'_>,
) -> Vec<FieldReport> {
    // All entries of all lists on one field are tested together, which bounds the work.
    let entries: Vec<(u32, usize, ConditionList)> = fields
        .iter()
        .zip(&pattern.0.fields)
        .enumerate()
        .flat_map(|(at, (field, test))| test.list.split().map(move |entry| (*field, at, entry)))
        .collect();
    let mut by_field: BTreeMap<u32, Vec<(usize, &ConditionList)>> = BTreeMap::new();
    for (field, at, entry) in &entries {
        by_field.entry(*field).or_default().push((*at, entry));
    }
    let mut met: Vec<Vec<bool>> = vec![Vec::new(); fields.len()];
    for (field, entries) in by_field {
        let lists: Vec<&ConditionList> = entries.iter().map(|(_, entry)| *entry).collect();
        let values = extracted.occurrences(field).map(|(_, occurrence)| texts.value(extracted, occurrence));
        for ((at, _), is_met) in entries.iter().zip(bulk::met_lists(&lists, values)) {
            if let Some(met) = met.get_mut(*at) {
                met.push(is_met);
            }
        }
    }
    let reports = pattern.0.fields.iter().zip(fields).zip(met);
    reports.map(|((test, field), met)| field_report(pattern, test, *field, &met, extracted, texts)).collect()
}

/// Reports the conditions and values of one field. `met` has one item for each condition: true if at least one value of
/// the event meets it.
fn field_report(
    pattern: &Pattern,
    test: &FieldTest,
    field: u32,
    met: &[bool],
    extracted: &ExtractedValues,
    texts: SourceTexts<'_>,
) -> FieldReport {
    let written = test.entries(pattern.source());
    let count = extracted.occurrences(field).count();
    let operators = test.list.conditions.iter().zip(written).zip(met).map(|((condition, written), met)| {
        let absent = count == 0 && matches!(condition, Condition::Absent);
        OperatorReport { text: written.to_string(), matched: *met || absent }
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
        absent_from_element: false,
    }
}

/// Formats a value as JSON, cut to [`VALUE_CHARS_MAX`] characters.
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
            let note = if field.absent_from_element { " (absent from the element that matches)" } else { "" };
            writeln!(f, "  {} {}: {values}{note}", mark(field.matched), field.place)?;
            for operator in &field.operators {
                writeln!(f, "      {} {}", mark(operator.matched), operator.text)?;
            }
        }
        match &self.failed {
            _ if self.matched && self.decided.len() < self.fields.len() => {
                writeln!(f, "matches because of: {}", self.decided.join(", "))
            }
            _ if self.matched => Ok(()),
            Some(place) => writeln!(f, "first field that does not match: {place}"),
            None => writeln!(f, "each field matches, but not within the same array element"),
        }
    }
}
