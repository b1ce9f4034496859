//! Maps with known keys.

use super::diagnostics::shown;
use super::read::Reader;
use super::source_text::Span;
use super::suggest::{choices, nearest};
use super::tree::{Entry, MERGE_KEY, Node};

/// A map with known keys. The keys that were asked for are the keys there are; [`Table::close`] refuses others.
pub(super) struct Table<'t> {
    /// The type that the schema derives the same keys from.
    form: &'static str,
    /// What it is in a message: ``function `charge` ``.
    what: String,
    /// Where a key that is missing would be.
    place: Span,
    entries: &'t [Entry],
    asked: Vec<&'static str>,
    /// Keys that are no longer worth an error, because they have had one.
    refused: Vec<&'t str>,
}

impl<'t> Table<'t> {
    pub(super) fn new(form: &'static str, what: String, place: Span, entries: &'t [Entry]) -> Self {
        Self { form, what, place, entries, asked: Vec::new(), refused: Vec::new() }
    }

    /// The value of a key, if the key is there and has one.
    pub(super) fn optional(&mut self, reader: &mut Reader<'_>, key: &'static str) -> Option<&'t Node> {
        let entry = self.entry(key)?;
        if entry.node.is_null() {
            reader.error(entry.key_span, format!("`{key}` has no value"), "write a value, or leave the key out");
            return None;
        }
        Some(&entry.node)
    }

    /// The value of a key that must be there. `also` are names that people give it: with one of them there, or
    /// the key only misspelt, the error comes when the table is closed, and says this name.
    pub(super) fn required(
        &mut self,
        reader: &mut Reader<'_>,
        key: &'static str,
        also: &[&str],
        example: &str,
    ) -> Option<&'t Node> {
        if self.entry(key).is_none() {
            let others =
                self.entries.iter().map(|entry| entry.key.as_str()).filter(|other| !self.asked.contains(other));
            let named_otherwise = also.iter().any(|name| self.has(name)) || self.has(MERGE_KEY);
            if !named_otherwise && nearest(key, others).is_none() {
                let message = format!("{} has no `{key}`", self.what);
                reader.error(self.place, message, format!("add {example}"));
            }
            return None;
        }
        self.optional(reader, key)
    }

    fn entry(&mut self, key: &'static str) -> Option<&'t Entry> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Refuses a key, if it is there, with words of its own.
    pub(super) fn refuse(&mut self, reader: &mut Reader<'_>, key: &str, message: &str, help: &str) {
        if let Some(entry) = self.entries.iter().find(|entry| entry.key == key) {
            self.refused.push(&entry.key);
            reader.error(entry.key_span, message, help);
        }
    }

    /// Whether there is no key at all.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where a key is, or the table itself where it is not.
    pub(super) fn key_span(&self, key: &str) -> Span {
        self.entries.iter().find(|entry| entry.key == key).map_or(self.place, |entry| entry.key_span)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// Where the table is.
    pub(super) fn place(&self) -> Span {
        self.place
    }

    /// Refuses every key that was not asked for. `elsewhere` says of a key where it goes instead.
    pub(super) fn close(self, reader: &mut Reader<'_>, elsewhere: impl Fn(&str) -> Option<&'static str>) {
        #[cfg(test)]
        reader.asked.entry(self.form).or_default().extend(self.asked.iter());
        let left: Vec<&str> = self.asked.iter().copied().filter(|key| !self.has(key)).collect();
        let said = |key: &str| self.asked.contains(&key) || self.refused.contains(&key) || key == MERGE_KEY;
        for entry in self.entries.iter().filter(|entry| !said(&entry.key)) {
            if reader.is_full() {
                break;
            }
            let message = format!("{} has no key `{}`", self.what, shown(&entry.key));
            let help = if let Some(place) = elsewhere(&entry.key) {
                place.to_owned()
            } else if let Some(meant) = nearest(&entry.key, self.asked.iter().copied()) {
                format!("did you mean `{meant}`?")
            } else {
                match left.as_slice() {
                    [] => "remove it".to_owned(),
                    left => format!("remove it; it can still have {}", choices(left.iter().copied())),
                }
            };
            reader.error(entry.key_span, message, help);
        }
        #[cfg(not(test))]
        let _ = self.form;
    }
}
