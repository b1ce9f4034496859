//! Reads values out of the tree. Whatever is not as it should be becomes a diagnostic at its place, and reading
//! goes on, so that one run finds every mistake.

use super::diagnostics::{Diagnostic, FOUND_MAX, Severity, Wrong, shown};
use super::source_text::{SourceText, Span};
use super::table::Table;
use super::tree::{Entry, Node, Resolved, Value};
use super::units::{ByteSize, duration_text, parse_duration, parse_size};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Collects what is wrong.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Arc<SourceText>,
    pub(super) found: &'a mut Vec<Diagnostic>,
    /// How many sources have been read, shared ones and others.
    pub(super) sources: usize,
    /// Every form that was read with every key it was asked for: what the schema must have, no more, no less.
    #[cfg(test)]
    pub(super) asked: std::collections::BTreeMap<&'static str, std::collections::BTreeSet<&'static str>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(source: &'a Arc<SourceText>, found: &'a mut Vec<Diagnostic>) -> Self {
        Self {
            source,
            found,
            sources: 0,
            #[cfg(test)]
            asked: std::collections::BTreeMap::new(),
        }
    }

    /// Whether so much is wrong that looking for more is of no use.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= FOUND_MAX
    }

    pub(super) fn has_errors(&self) -> bool {
        let error = |found: &Diagnostic| found.severity == Severity::Error;
        self.found.iter().any(error)
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        if !self.is_full() {
            self.found.push(Diagnostic::error(self.source, span, message).help(help));
        }
    }

    pub(super) fn error_beside(
        &mut self,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
        (other, label): (Span, &str),
    ) {
        if !self.is_full() {
            self.found.push(Diagnostic::error(self.source, span, message).help(help).related(other, label));
        }
    }

    pub(super) fn warning(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Diagnostic::warning(self.source, span, message).help(help));
    }

    /// Opens a map whose keys are the fields of the type `form`.
    pub(super) fn table<'t>(
        &mut self,
        node: &'t Node,
        place: Span,
        form: &'static str,
        what: impl Into<String>,
        example: &str,
    ) -> Option<Table<'t>> {
        let what = what.into();
        if node.is_null() {
            self.error(node.span, format!("{what} has nothing in it"), format!("write {example}"));
            return None;
        }
        let Value::Map(entries) = &node.value else {
            let message = format!("{what} is written as keys and values, this is {}", node.described());
            self.error(node.span, message, format!("write {example}"));
            return None;
        };
        Some(Table::new(form, what, place, entries))
    }

    /// The entries of a map whose keys are names.
    pub(super) fn entries<'t>(&mut self, node: &'t Node, what: &str, example: &str) -> &'t [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            _ => {
                let message = format!("{what} are written as names and values, this is {}", node.described());
                self.error(node.span, message, format!("write {example}"));
                &[]
            }
        }
    }

    pub(super) fn list<'t>(&mut self, node: &'t Node, what: &str) -> &'t [Rc<Node>] {
        match &node.value {
            Value::List(items) => items,
            Value::Scalar(scalar) => {
                let message = format!("{what} is a list, this is {}", node.described());
                self.error(node.span, message, format!("put it in brackets: `[{}]`", shown(&scalar.text)));
                &[]
            }
            Value::Map(_) => {
                let message = format!("{what} is a list, this is {}", node.described());
                self.error(node.span, message, "start each entry of the list with `- `");
                &[]
            }
        }
    }

    /// A list that must have an entry. `consequence` says what an empty one would mean.
    pub(super) fn filled_list<'t>(
        &mut self,
        node: &'t Node,
        what: &str,
        consequence: &str,
        help: &str,
    ) -> &'t [Rc<Node>] {
        let items = self.list(node, what);
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            self.error(node.span, format!("{what} is empty: {consequence}"), help);
        }
        items
    }

    /// A text that is not empty.
    pub(super) fn text<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t str> {
        let Value::Scalar(scalar) = &node.value else {
            let message = format!("{what} is a text, this is {}", node.described());
            self.error(node.span, message, "write one text; put it in quotes when it has special characters");
            return None;
        };
        match scalar.resolve() {
            Resolved::Text(text) if text.trim().is_empty() => {
                self.error(node.span, format!("{what} is empty"), "write something between the quotes");
                None
            }
            Resolved::Text(text) => Some(text),
            _ => {
                let message = format!("{what} is a text, this is {}", node.described());
                self.error(node.span, message, format!("put it in quotes: `\"{}\"`", shown(&scalar.text)));
                None
            }
        }
    }

    /// A text with a form of its own.
    pub(super) fn parsed<T>(
        &mut self,
        node: &Node,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        if let Value::Scalar(scalar) = &node.value
            && matches!(scalar.resolve(), Resolved::Number(_) | Resolved::Bool(_))
        {
            // Where quotes would not make it right, better say at once what would.
            let parsed = parse(&scalar.text);
            return if parsed.is_err() { self.checked(node.span, parsed) } else { self.text(node, what).and(None) };
        }
        let text = self.text(node, what)?;
        self.checked(node.span, parse(text))
    }

    pub(super) fn checked<T>(&mut self, span: Span, result: Result<T, Wrong>) -> Option<T> {
        result.map_err(|wrong| self.error(span, wrong.message, wrong.help)).ok()
    }

    pub(super) fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Value::Scalar(scalar) = &node.value {
            if let Resolved::Bool(value) = scalar.resolve() {
                return Some(value);
            }
            let meant = match scalar.text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "1" | "true" => Some("true"),
                "no" | "off" | "n" | "0" | "false" => Some("false"),
                _ => None,
            };
            if let Some(meant) = meant {
                let message = format!("{what} is `true` or `false`, this is {}", node.described());
                self.error(node.span, message, format!("write `{meant}`"));
                return None;
            }
        }
        let message = format!("{what} is `true` or `false`, this is {}", node.described());
        self.error(node.span, message, "write `true` or `false`");
        None
    }

    pub(super) fn integer(&mut self, node: &Node, what: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let (low, high) = (*range.start(), *range.end());
        let number = match &node.value {
            Value::Scalar(scalar) => match scalar.resolve() {
                Resolved::Number(number) => Some(number),
                _ => None,
            },
            _ => None,
        };
        let value = number.as_ref().and_then(serde_json::Number::as_u64).and_then(|value| u32::try_from(value).ok());
        match (value, number) {
            (Some(value), _) if range.contains(&value) => Some(value),
            (_, number) => {
                let message = match number {
                    Some(number) => {
                        format!("{what} is a whole number from {low} to {high}, this is {number}")
                    }
                    None => format!("{what} is a whole number, this is {}", node.described()),
                };
                self.error(node.span, message, format!("write a number from {low} to {high}"));
                None
            }
        }
    }

    pub(super) fn duration(&mut self, node: &Node, what: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.unit_text(node, what, "duration", parse_duration)?;
        self.within(node, what, &value, &range, |value| duration_text(*value))
    }

    pub(super) fn size(&mut self, node: &Node, what: &str, range: RangeInclusive<ByteSize>) -> Option<ByteSize> {
        let value = self.unit_text(node, what, "size", parse_size)?;
        self.within(node, what, &value, &range, ByteSize::to_string)
    }

    fn unit_text<T>(&mut self, node: &Node, what: &str, kind: &str, parse: fn(&str) -> Result<T, Wrong>) -> Option<T> {
        match &node.value {
            // A bare number is what most often stands here; its reader knows best what to say.
            Value::Scalar(scalar) if !matches!(scalar.resolve(), Resolved::Null | Resolved::Bool(_)) => {
                let wrong = |wrong: Wrong| Wrong { message: format!("{what}: {}", wrong.message), ..wrong };
                self.checked(node.span, parse(&scalar.text).map_err(wrong))
            }
            _ => {
                let example = if kind == "size" { "64MiB" } else { "30s" };
                let message = format!("{what} is a {kind}, this is {}", node.described());
                self.error(node.span, message, format!("write a whole number and its unit, as in `{example}`"));
                None
            }
        }
    }

    fn within<T: PartialOrd + Copy>(
        &mut self,
        node: &Node,
        what: &str,
        value: &T,
        range: &RangeInclusive<T>,
        text: impl Fn(&T) -> String,
    ) -> Option<T> {
        let (low, high) = (text(range.start()), text(range.end()));
        if range.contains(value) {
            return Some(*value);
        }
        let (problem, bound) = if value < range.start() { ("at least", &low) } else { ("at most", &high) };
        let message = format!("{what} is {problem} {bound}, this is {}", text(value));
        self.error(node.span, message, format!("write a value from `{low}` to `{high}`"));
        None
    }
}
