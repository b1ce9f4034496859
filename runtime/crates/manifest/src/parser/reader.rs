//! Reads typed values from the tree. A wrong value is reported as a diagnostic at its span, and reading continues. So
//! one run finds every mistake.
//!
//! The parameter `what` names the value in messages, as in `` `timeout` must be a duration ``.

use super::tree::{Entry, Node, Resolved, Value};
use crate::diagnostics::{Diagnostic, FOUND_MAX, Severity, ValueError, excerpt};
use crate::source_text::{SourceText, Span};
use crate::units::{ByteSize, duration_text, parse_duration, parse_size};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Reads values and collects the diagnostics.
pub struct Reader<'a> {
    pub(crate) source: &'a Arc<SourceText>,
    pub(crate) found: &'a mut Vec<Diagnostic>,
    /// Number of sources read so far, shared and private.
    pub(crate) sources: usize,
    /// Every key that a check looked up, by the name of the schema type. The schema must have exactly these keys.
    pub(crate) requested: BTreeMap<&'static str, BTreeSet<&'static str>>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(source: &'a Arc<SourceText>, found: &'a mut Vec<Diagnostic>) -> Self {
        Self { source, found, sources: 0, requested: BTreeMap::new() }
    }

    /// Returns true if the limit of diagnostics is reached. Checks then stop.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= FOUND_MAX
    }

    pub(crate) fn has_errors(&self) -> bool {
        let error = |found: &Diagnostic| found.severity == Severity::Error;
        self.found.iter().any(error)
    }

    /// Reports an error. `help` says how to correct the mistake.
    pub fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        if !self.is_full() {
            self.found.push(Diagnostic::error(self.source, span, message).help(help));
        }
    }

    /// Reports an error with a second, labelled span that explains the error.
    pub fn error_with_related(
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

    /// Reports a probable mistake that does not stop the app from running.
    pub fn warning(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.found.push(Diagnostic::warning(self.source, span, message).help(help));
    }

    /// Reads a map whose keys the user chooses, such as names.
    pub fn entries<'t>(&mut self, node: &'t Node, what: &str, example: &str) -> &'t [Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            _ => {
                let message = format!("{what} must be a map from names to values, found {}", node.describe());
                self.error(node.span, message, format!("write {example}"));
                &[]
            }
        }
    }

    /// Reads a list. If the value is not a list, reports an error and returns an empty list.
    pub fn list<'t>(&mut self, node: &'t Node, what: &str) -> &'t [Rc<Node>] {
        match &node.value {
            Value::List(items) => items,
            Value::Scalar(scalar) => {
                let message = format!("{what} must be a list, found {}", node.describe());
                self.error(node.span, message, format!("put the value in brackets: `[{}]`", excerpt(&scalar.text)));
                &[]
            }
            Value::Map(_) => {
                let message = format!("{what} must be a list, found {}", node.describe());
                self.error(node.span, message, "start each list entry with `- `");
                &[]
            }
        }
    }

    /// Reads a list with at least one entry. `consequence` describes the effect of an empty list.
    pub fn nonempty_list<'t>(&mut self, node: &'t Node, what: &str, consequence: &str, help: &str) -> &'t [Rc<Node>] {
        let items = self.list(node, what);
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            self.error(node.span, format!("{what} is empty: {consequence}"), help);
        }
        items
    }

    /// Reads a string that is not empty.
    pub fn text<'t>(&mut self, node: &'t Node, what: &str) -> Option<&'t str> {
        let Value::Scalar(scalar) = &node.value else {
            let message = format!("{what} must be a string, found {}", node.describe());
            self.error(node.span, message, "write one string; put it in quotes if it has special characters");
            return None;
        };
        match scalar.resolve() {
            Resolved::Text(text) if text.trim().is_empty() => {
                self.error(node.span, format!("{what} is empty"), "write a value between the quotes");
                None
            }
            Resolved::Text(text) => Some(text),
            _ => {
                let message = format!("{what} must be a string, found {}", node.describe());
                self.error(node.span, message, format!("put the value in quotes: `\"{}\"`", excerpt(&scalar.text)));
                None
            }
        }
    }

    /// Reads a string with a special syntax, and warns of values that are valid but probably a mistake. `advice`
    /// returns a message and a help for each warning.
    pub fn parse_advised<T, A: IntoIterator<Item = (String, String)>>(
        &mut self,
        node: &Node,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
        advice: impl FnOnce(&T) -> A,
    ) -> Option<T> {
        let value = self.parse_text(node, what, parse)?;
        advice(&value).into_iter().for_each(|(message, help)| self.warning(node.span, message, help));
        Some(value)
    }

    /// Reads a string with a special syntax.
    pub fn parse_text<T>(
        &mut self,
        node: &Node,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        if let Value::Scalar(scalar) = &node.value
            && matches!(scalar.resolve(), Resolved::Number(_) | Resolved::Bool(_))
        {
            // Without quotes, this text is a number or a boolean. If the text would be valid in quotes, the error is
            // that the quotes are missing. Otherwise, the error of `parse` is more useful.
            let parsed = parse(&scalar.text);
            return if parsed.is_err() {
                self.ok_or_report(node.span, parsed)
            } else {
                self.text(node, what).and(None)
            };
        }
        let text = self.text(node, what)?;
        self.ok_or_report(node.span, parse(text))
    }

    /// Returns the value, or reports the error at `span`.
    pub fn ok_or_report<T>(&mut self, span: Span, result: Result<T, ValueError>) -> Option<T> {
        result.map_err(|error| self.error(span, error.message, error.help)).ok()
    }

    /// Reads `true` or `false`.
    pub fn boolean(&mut self, node: &Node, what: &str) -> Option<bool> {
        if let Value::Scalar(scalar) = &node.value {
            if let Resolved::Bool(value) = scalar.resolve() {
                return Some(value);
            }
            let corrected = match scalar.text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "1" | "true" => Some("true"),
                "no" | "off" | "n" | "0" | "false" => Some("false"),
                _ => None,
            };
            if let Some(corrected) = corrected {
                let message = format!("{what} must be `true` or `false`, found {}", node.describe());
                self.error(node.span, message, format!("write `{corrected}`"));
                return None;
            }
        }
        let message = format!("{what} must be `true` or `false`, found {}", node.describe());
        self.error(node.span, message, "write `true` or `false`");
        None
    }

    /// Reads a whole number within `range`.
    pub fn integer(&mut self, node: &Node, what: &str, range: RangeInclusive<u32>) -> Option<u32> {
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
                        format!("{what} must be a whole number from {low} to {high}, found {number}")
                    }
                    None => format!("{what} must be a whole number, found {}", node.describe()),
                };
                self.error(node.span, message, format!("write a number from {low} to {high}"));
                None
            }
        }
    }

    /// Reads a duration such as `200ms` within `range`.
    pub fn duration(&mut self, node: &Node, what: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.parse_with_unit(node, what, "duration", parse_duration)?;
        self.check_range(node, what, &value, &range, |value| duration_text(*value))
    }

    /// Reads a size such as `64KiB` within `range`.
    pub fn size(&mut self, node: &Node, what: &str, range: RangeInclusive<ByteSize>) -> Option<ByteSize> {
        let value = self.parse_with_unit(node, what, "size", parse_size)?;
        self.check_range(node, what, &value, &range, ByteSize::to_string)
    }

    fn parse_with_unit<T>(
        &mut self,
        node: &Node,
        what: &str,
        kind: &str,
        parse: fn(&str) -> Result<T, ValueError>,
    ) -> Option<T> {
        match &node.value {
            // The most common mistake is a number without a unit. For this mistake, `parse` has the best message.
            Value::Scalar(scalar) if !matches!(scalar.resolve(), Resolved::Null | Resolved::Bool(_)) => {
                let add_what =
                    |error: ValueError| ValueError { message: format!("{what}: {}", error.message), ..error };
                self.ok_or_report(node.span, parse(&scalar.text).map_err(add_what))
            }
            _ => {
                let example = if kind == "size" { "64MiB" } else { "30s" };
                let message = format!("{what} must be a {kind}, found {}", node.describe());
                self.error(node.span, message, format!("write a whole number with a unit, as in `{example}`"));
                None
            }
        }
    }

    fn check_range<T: PartialOrd + Copy>(
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
        let (relation, bound) = if value < range.start() { ("at least", &low) } else { ("at most", &high) };
        let message = format!("{what} must be {relation} {bound}, found {}", text(value));
        self.error(node.span, message, format!("write a value from `{low}` to `{high}`"));
        None
    }
}
