//! Why an event matches a pattern, or does not: from the compiled form that matches.

use std::fmt;

use serde::Serialize;
use serde_json::Value as Json;

use super::condition::{Condition, Scalar};
use super::index::Fields;
use super::matcher::load;
use super::tree::{FieldId, Tree};
use super::verify::Resolved;
use super::view::{EventView, MalformedEvent};
use super::{Field, Group, Pattern, Test};

/// The most values of one field that are shown.
const SEEN_MAX: usize = 8;

/// The longest text of a value or a condition that is shown, in characters.
const TEXT_MAX: usize = 200;

/// What each field of a pattern made of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether the event matches.
    pub matches: bool,
    /// Each field that has a list in the pattern, in the order of its text.
    pub fields: Vec<ExplainedField>,
    /// Why the event does not match although its fields do, one by one: they are in different elements of an array.
    pub apart: bool,
}

/// What one field's list made of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedField {
    /// The way to it in the pattern, such as `data.total`, or `data.$or[1].total` in an alternative.
    pub path: String,
    /// The conditions of the list; one that holds is enough.
    pub conditions: Vec<ExplainedCondition>,
    /// The event's values as JSON text, at most eight.
    pub seen: Vec<String>,
    /// How many more values there are.
    pub more: usize,
    /// Whether one of the conditions holds.
    pub matched: bool,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExplainedCondition {
    /// As it is written in the pattern: JSON text.
    pub written: String,
    /// Whether it holds for one of the values.
    pub matched: bool,
}

/// Says for each field of a pattern what it asks for, what the event has, and whether that matches.
pub fn explain(pattern: &Pattern, event: &EventView<'_>) -> Result<Explanation, MalformedEvent> {
    let compiled = &pattern.0;
    let (mut fields, mut tree) = (Fields::default(), Tree::default());
    let mut ids = vec![0; compiled.field_count as usize];
    let resolved = Resolved::new(&compiled.root, 0, &mut fields, &mut ids);
    load(event, &fields, &mut tree)?;
    tree.count_scalars(|_, _| {});
    let mut explainer = Explainer { tree: &tree, ids: &ids, fields: Vec::new() };
    let each = explainer.group(&compiled.root, Some(&compiled.source), "");
    let fields = explainer.fields;
    let matches = resolved.matches(&tree);
    Ok(Explanation { matches, fields, apart: each && !matches })
}

struct Explainer<'a> {
    tree: &'a Tree,
    ids: &'a [FieldId],
    fields: Vec<ExplainedField>,
}

impl Explainer<'_> {
    /// Whether each field matches on its own. `source` is the group as it was written.
    fn group(&mut self, group: &Group, source: Option<&Json>, path: &str) -> bool {
        let mut matched = true;
        for field in &group.fields {
            let path = if path.is_empty() { field.name.clone() } else { format!("{path}.{}", field.name) };
            let source = source.and_then(|source| source.get(&field.name));
            matched &= match &field.test {
                Test::Group(group) => self.group(group, source, &path),
                Test::Value(conditions) => self.field(field, conditions, source, path),
            };
        }
        let source = source.and_then(|source| source.get("$or"));
        for groups in &group.ors {
            let mut any = false;
            for (index, group) in groups.iter().enumerate() {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}$or[{index}]");
                any |= self.group(group, source.and_then(|source| source.get(index)), &path);
            }
            matched &= any;
        }
        matched
    }

    fn field(&mut self, field: &Field, conditions: &[Condition], source: Option<&Json>, path: String) -> bool {
        let Some(&id) = self.ids.get(field.ordinal as usize) else { return false };
        let scalars: Vec<_> = self.tree.scalars().filter(|(field, _)| *field == id).map(|(_, scalar)| scalar).collect();
        let explained = conditions.iter().enumerate().map(|(index, condition)| ExplainedCondition {
            written: source
                .and_then(|source| source.get(index))
                .map(|value| cut(value.to_string()))
                .unwrap_or_default(),
            matched: match condition {
                Condition::Absent => scalars.is_empty(),
                condition => scalars.iter().any(|scalar| condition.holds(*scalar)),
            },
        });
        let conditions: Vec<_> = explained.collect();
        let matched = conditions.iter().any(|condition| condition.matched);
        let seen = scalars.iter().take(SEEN_MAX).map(|scalar| written(*scalar)).collect();
        let more = scalars.len().saturating_sub(SEEN_MAX);
        self.fields.push(ExplainedField { path, conditions, seen, more, matched });
        matched
    }
}

fn written(scalar: Scalar<'_>) -> String {
    match scalar {
        Scalar::Null => "null".to_owned(),
        Scalar::Bool(flag) => flag.to_string(),
        Scalar::Number(number) => number.to_string(),
        Scalar::String(text) => cut(Json::from(text).to_string()),
    }
}

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl fmt::Display for Explanation {
    /// The verdict, then a line for each field.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.matches { "matches" } else { "does not match" })?;
        let width = self.fields.iter().map(|field| field.path.chars().count()).max().unwrap_or_default();
        for field in &self.fields {
            let mark = if field.matched { "yes" } else { "no " };
            let conditions: Vec<&str> = field.conditions.iter().map(|condition| condition.written.as_str()).collect();
            write!(f, "\n  {mark} {:width$}  [{}]", field.path, conditions.join(", "))?;
            match field.seen.as_slice() {
                [] => f.write_str("  the event has no value here")?,
                seen => write!(f, "  the event has {}", seen.join(", "))?,
            }
            if field.more > 0 {
                write!(f, " and {} more", field.more)?;
            }
            if let (true, Some(condition)) =
                (conditions.len() > 1, field.conditions.iter().find(|condition| condition.matched))
            {
                write!(f, ", met by {}", condition.written)?;
            }
        }
        if self.apart {
            f.write_str("\n  each is met, but not within one element of an array")?;
        }
        Ok(())
    }
}
