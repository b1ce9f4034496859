//! The alternatives in a field's list.

use std::ops::Bound;

use serde_json::{Map, Value};

use super::super::condition::Condition;
use super::super::number::Number;
use super::super::text::{Cidr, Literal, Wildcard};
use super::{Parser, Segment, kind, written};

/// Every operator that stands in a list.
pub(super) const NAMES: [&str; 8] =
    ["prefix", "suffix", "equals-ignore-case", "wildcard", "anything-but", "numeric", "cidr", "exists"];

/// The operators of strings that `anything-but` takes inside.
const TEXT_NAMES: [&str; 4] = ["prefix", "suffix", "equals-ignore-case", "wildcard"];

/// The comparisons of `numeric`.
pub(super) const SIGNS: [&str; 5] = ["=", "<", "<=", ">", ">="];

impl Parser {
    pub(super) fn condition(&mut self, value: &Value) -> Option<Condition> {
        match value {
            Value::Null => Some(Condition::Null),
            Value::Bool(flag) => Some(Condition::Bool(*flag)),
            Value::Number(number) => Some(Condition::Number(Number::from_json(number))),
            Value::String(text) => Some(Condition::Equals(Literal::new(text, false))),
            Value::Array(_) => {
                let help = "list the values themselves: an array of an event matches when one of its elements does";
                self.error("a field's list holds values and operators, not lists", help);
                None
            }
            Value::Object(members) => {
                let (name, operand) = self.operator(members, &NAMES)?;
                self.key(name, |parser| parser.operand(name, operand))
            }
        }
    }

    /// The one operator of an object, which must be among `known`.
    fn operator<'v>(
        &mut self,
        members: &'v Map<String, Value>,
        known: &[&'static str],
    ) -> Option<(&'static str, &'v Value)> {
        let mut entries = members.iter();
        let (Some((name, operand)), None) = (entries.next(), entries.next()) else {
            let message = format!("an object in a list holds one operator, this one has {}", members.len());
            self.error(message, "write one object for each: [{\"prefix\": \"a\"}, {\"suffix\": \"b\"}] matches either");
            return None;
        };
        if let Some(known) = known.iter().find(|known| *known == name) {
            return Some((known, operand));
        }
        let help = match nearest(name, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the operators here are {}", known.join(", ")),
        };
        let message = match NAMES.contains(&name.as_str()) {
            true => format!("`{name}` cannot stand inside another operator here"),
            false => format!("there is no operator `{}`", cut(name)),
        };
        self.key(name, |parser| parser.error(message, help));
        None
    }

    fn operand(&mut self, name: &'static str, operand: &Value) -> Option<Condition> {
        match name {
            "numeric" => self.numeric(operand),
            "cidr" => self.cidr(operand),
            "anything-but" => self.anything_but(operand),
            "exists" => match operand {
                Value::Bool(true) => Some(Condition::Exists),
                Value::Bool(false) => Some(Condition::Absent),
                other => {
                    let help = "write {\"exists\": true} or {\"exists\": false}";
                    self.error(format!("`exists` takes true or false, this is {}", kind(other)), help);
                    None
                }
            },
            _ => self.text(name, operand),
        }
    }

    /// One of `TEXT_NAMES` with one string, or one in any case.
    fn text(&mut self, name: &'static str, operand: &Value) -> Option<Condition> {
        let ignore_case = match (name, operand) {
            ("prefix" | "suffix", Value::Object(members)) => {
                let (inner, operand) = self.operator(members, &["equals-ignore-case"])?;
                return self.key(inner, |parser| match operand {
                    Value::String(text) => Some(of_text(name, Literal::new(text, true))),
                    other => parser.not_text("equals-ignore-case", other),
                });
            }
            (_, Value::String(_)) => name == "equals-ignore-case",
            (_, other) => return self.not_text(name, other),
        };
        let text = operand.as_str().unwrap_or_default();
        if name != "wildcard" {
            return Some(of_text(name, Literal::new(text, ignore_case)));
        }
        match Wildcard::parse(text) {
            Ok(wildcard) => Some(Condition::Wildcard(wildcard)),
            Err((message, help)) => {
                self.error(message, help);
                None
            }
        }
    }

    fn not_text(&mut self, name: &str, operand: &Value) -> Option<Condition> {
        let help = match operand {
            Value::Array(_) => format!("write one object for each: [{{\"{name}\": \"a\"}}, {{\"{name}\": \"b\"}}]"),
            _ => format!("write {{\"{name}\": \"text\"}}"),
        };
        self.error(format!("`{name}` takes a string, this is {}", kind(operand)), help);
        None
    }

    fn numeric(&mut self, operand: &Value) -> Option<Condition> {
        const HELP: &str = "write {\"numeric\": [\">\", 0, \"<=\", 5]} or {\"numeric\": [\"=\", 3]}";
        let Value::Array(parts) = operand else {
            self.error(format!("`numeric` takes a list of comparisons, this is {}", kind(operand)), HELP);
            return None;
        };
        if !matches!(parts.len(), 2 | 4) {
            self.error("`numeric` takes a comparison and its number, once or twice", HELP);
            return None;
        }
        let (mut low, mut high) = (Bound::Unbounded, Bound::Unbounded);
        let errors = self.errors.len();
        for (pair, index) in parts.chunks(2).zip((0..).step_by(2)) {
            let [sign, number] = pair else { continue };
            let known = sign.as_str().filter(|sign| SIGNS.contains(sign));
            if known.is_none() {
                let message = format!("a comparison is one of =, <, <=, > and >=, this is {}", written(sign));
                self.within(Segment::Index(index), |parser| parser.error(message, HELP));
            }
            let Value::Number(number) = number else {
                let message = format!("a comparison takes a number, this is {}", kind(number));
                self.within(Segment::Index(index + 1), |parser| parser.error(message, HELP));
                continue;
            };
            let number = Number::from_json(number);
            let (bound, value, name) = match known {
                Some("<") => (&mut high, Bound::Excluded(number), "an upper"),
                Some("<=") => (&mut high, Bound::Included(number), "an upper"),
                Some(">") => (&mut low, Bound::Excluded(number), "a lower"),
                Some(">=") => (&mut low, Bound::Included(number), "a lower"),
                Some(_) if parts.len() == 2 => return Some(Condition::Number(number)),
                Some(_) => {
                    let message = "`=` stands alone: it leaves nothing for another comparison to decide";
                    self.within(Segment::Index(index), |parser| {
                        parser.error(message, "write {\"numeric\": [\"=\", 3]}");
                    });
                    continue;
                }
                None => continue,
            };
            if *bound != Bound::Unbounded {
                let message = format!("a range has {name} bound once");
                self.within(Segment::Index(index), |parser| parser.error(message, HELP));
            }
            *bound = value;
        }
        if self.errors.len() > errors {
            return None;
        }
        if is_empty(&low, &high) {
            let message = format!("this range can never match: no number is in {}", written(operand));
            self.error(message, "put the lower bound below the upper: [\">\", 0, \"<\", 5]");
            return None;
        }
        Some(Condition::Range(Box::new((low, high))))
    }

    fn cidr(&mut self, operand: &Value) -> Option<Condition> {
        const HELP: &str = "write {\"cidr\": \"10.0.0.0/24\"} or {\"cidr\": \"2001:db8::/32\"}";
        let Value::String(text) = operand else {
            self.error(format!("`cidr` takes a string, this is {}", kind(operand)), HELP);
            return None;
        };
        match Cidr::parse(text) {
            Ok(block) => Some(Condition::Cidr(block)),
            Err(reason) => {
                self.error(format!("`{}` is no block of addresses: {reason}", cut(text)), HELP);
                None
            }
        }
    }

    fn anything_but(&mut self, operand: &Value) -> Option<Condition> {
        const HELP: &str =
            "write {\"anything-but\": \"a\"}, {\"anything-but\": [1, 2]} or {\"anything-but\": {\"prefix\": \"a\"}}";
        if let Value::Object(members) = operand {
            let (name, inner) = self.operator(members, &TEXT_NAMES)?;
            let these =
                self.key(name, |parser| parser.list(inner, |parser, value| parser.text_in_anything_but(name, value)));
            return these.map(|these| Condition::AnythingBut(these.into()));
        }
        let values = operand.as_array().map_or(std::slice::from_ref(operand), Vec::as_slice);
        let mixed = values.iter().any(Value::is_string) && values.iter().any(Value::is_number);
        if mixed {
            self.error("the list of `anything-but` holds strings or numbers, not both", HELP);
            return None;
        }
        let these = self.list(operand, |parser, value| match value {
            Value::String(_) | Value::Number(_) => parser.condition(value),
            other => {
                parser.error(format!("`anything-but` takes strings or numbers, this is {}", kind(other)), HELP);
                None
            }
        });
        these.map(|these| Condition::AnythingBut(these.into()))
    }

    fn text_in_anything_but(&mut self, name: &'static str, value: &Value) -> Option<Condition> {
        if matches!(name, "prefix" | "suffix") && value.as_str() == Some("") {
            let message = format!("every string has the empty {name}: no string can ever match");
            self.error(message, format!("write {{\"anything-but\": {{\"{name}\": \"a\"}}}}"));
            return None;
        }
        self.text(name, value)
    }

    /// One value, or each of a list that has some.
    fn list(
        &mut self,
        operand: &Value,
        read: impl Fn(&mut Self, &Value) -> Option<Condition>,
    ) -> Option<Vec<Condition>> {
        let Value::Array(values) = operand else { return read(self, operand).map(|one| vec![one]) };
        if values.is_empty() {
            self.error("an empty list excludes nothing", "list what must not match, or write {\"exists\": true}");
            return None;
        }
        let mut these = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            these.extend(self.within(Segment::Index(index), |parser| read(parser, value)));
        }
        Some(these)
    }
}

fn of_text(name: &str, literal: Literal) -> Condition {
    match name {
        "prefix" => Condition::Prefix(literal),
        "suffix" => Condition::Suffix(literal),
        _ => Condition::Equals(literal),
    }
}

fn is_empty(low: &Bound<Number>, high: &Bound<Number>) -> bool {
    match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => low > high,
        (Bound::Included(low) | Bound::Excluded(low), Bound::Included(high) | Bound::Excluded(high)) => low >= high,
        _ => false,
    }
}

/// A name that was written, cut when it is long.
fn cut(name: &str) -> String {
    name.chars().take(60).collect()
}

/// The known name that a misspelt one is close to: a third of its letters may differ, as may case and `_` for `-`.
fn nearest(name: &str, known: &[&'static str]) -> Option<&'static str> {
    let name = cut(name).to_lowercase().replace('_', "-");
    let distances = known.iter().map(|known| (distance(&name, known), *known));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= nearest.len().div_ceil(3)).then_some(nearest)
}

/// How many letters must be added, taken or changed to get from one word to the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in to.chars().enumerate() {
            let changed = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = changed.min(corner + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
