//! Maps with a fixed set of keys.

use super::reader::Reader;
use super::suggest::{join_with_or, nearest};
use super::tree::{Entry, MERGE_KEY, Node, Value};
use crate::diagnostics::excerpt;
use crate::source_text::Span;

/// A map with a fixed set of keys: the keys that the caller looks up with [`Table::optional`] and [`Table::required`].
/// [`Table::reject_unknown_keys`] reports all other keys.
pub struct Table<'t> {
    /// The name of the schema type that has the same keys.
    schema_name: &'static str,
    /// Names the map in messages, as in ``function `charge` ``.
    what: String,
    /// The span that errors about missing keys show.
    span: Span,
    entries: &'t [Entry],
    requested: Vec<&'static str>,
    /// Keys that already have an error.
    rejected: Vec<&'t str>,
}

impl<'t> Table<'t> {
    /// Reads a map. Its keys are the fields of the schema type `schema_name`. `what` names the map in messages, and
    /// `example` is a map that a help text can suggest. If the value is not a map, reports an error and returns `None`.
    pub fn read(
        reader: &mut Reader<'_>,
        node: &'t Node,
        span: Span,
        schema_name: &'static str,
        what: impl Into<String>,
        example: &str,
    ) -> Option<Self> {
        let what = what.into();
        if node.is_null() {
            reader.error(node.span, format!("{what} is empty"), format!("write {example}"));
            return None;
        }
        let Value::Map(entries) = &node.value else {
            let message = format!("{what} must be a map of keys and values, found {}", node.describe());
            reader.error(node.span, message, format!("write {example}"));
            return None;
        };
        Some(Self { schema_name, what, span, entries, requested: Vec::new(), rejected: Vec::new() })
    }

    /// Returns the value of an optional key. Reports an error if the key has no value.
    pub fn optional(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<&'t Node> {
        let entry = self.entry(key)?;
        if entry.node.is_null() {
            reader.error(entry.key_span, format!("`{key}` has no value"), "write a value, or remove the key");
            return None;
        }
        Some(&entry.node)
    }

    /// Returns the value of a required key. If the key is missing, reports an error and returns `None`.
    ///
    /// `aliases` are other common names for the key. If the map has one of them, or a misspelt form of the key, no
    /// error is reported here: `reject_unknown_keys` reports the wrong key and suggests the right one.
    pub fn required(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        aliases: &[&str],
        example: &str,
    ) -> Option<&'t Node> {
        if self.entry(key).is_none() {
            let others =
                self.entries.iter().map(|entry| entry.key.as_str()).filter(|other| !self.requested.contains(other));
            let named_otherwise = aliases.iter().any(|name| self.has(name)) || self.has(MERGE_KEY);
            if !named_otherwise && nearest(key, others).is_none() {
                let message = format!("{} needs the key `{key}`", self.what);
                reader.error(self.span, message, format!("add {example}"));
            }
            return None;
        }
        self.optional(reader, key)
    }

    fn entry(&mut self, key: &'static str) -> Option<&'t Entry> {
        if !self.requested.contains(&key) {
            self.requested.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// If the map has the key `key`, reports an error with this message and help.
    pub fn reject_key(&mut self, reader: &mut Reader<'_>, key: &str, message: &str, help: &str) {
        if let Some(entry) = self.entries.iter().find(|entry| entry.key == key) {
            self.rejected.push(&entry.key);
            reader.error(entry.key_span, message, help);
        }
    }

    /// Returns true if the map has no keys.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the span of a key, or of the table if the key is missing.
    pub fn key_span(&self, key: &str) -> Span {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.span, |entry| entry.key_span)
    }

    /// Returns true if the map has this key.
    pub fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Returns the name of the map in messages.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Returns the span for errors about the whole map.
    pub fn span(&self) -> Span {
        self.span
    }

    /// Reports every key that was not looked up. `hint` returns a help text for wrong keys that users often write.
    pub fn reject_unknown_keys(self, reader: &mut Reader<'_>, hint: impl Fn(&str) -> Option<&'static str>) {
        reader.requested.entry(self.schema_name).or_default().extend(self.requested.iter());
        let unused: Vec<&str> = self.requested.iter().copied().filter(|key| !self.has(key)).collect();
        let handled = |key: &str| self.requested.contains(&key) || self.rejected.contains(&key) || key == MERGE_KEY;
        for entry in self.entries.iter().filter(|entry| !handled(&entry.key)) {
            if reader.is_full() {
                break;
            }
            let message = format!("unknown key `{}` in {}", excerpt(&entry.key), self.what);
            let help = if let Some(hint) = hint(&entry.key) {
                hint.to_owned()
            } else if let Some(similar) = nearest(&entry.key, self.requested.iter().copied()) {
                format!("did you mean `{similar}`?")
            } else {
                match unused.as_slice() {
                    [] => "remove it".to_owned(),
                    unused => format!("remove it, or use {} instead", join_with_or(unused.iter().copied())),
                }
            };
            reader.error(entry.key_span, message, help);
        }
    }
}
