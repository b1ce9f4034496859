//! Finds the values of secrets in a text, and replaces each with the name of its secret.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};

use super::forms::{self, Forms};
use super::{Secret, SecretsTooLarge};
use evoke_model::text::is_deceptive;

/// Length limit of the name of a secret in a replacement, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Replaces the values of secrets in texts. Without secrets, texts are returned as they are, without a search.
#[derive(Default)]
pub(crate) struct Redactor(Option<Search>);

struct Search {
    automaton: AhoCorasick,
    /// For each pattern, the index of its secret in `replacements`.
    secrets: Vec<usize>,
    replacements: Vec<String>,
    /// The values that replace the secrets in recordings, for tests.
    test_values: Vec<String>,
    /// Length of the longest pattern, in bytes.
    longest: usize,
}

/// Returns the value that a secret has in tests, unless a test sets another one.
pub(crate) fn test_value(name: &str) -> String {
    format!("test-{name}")
}

/// A part of a text that is replaced.
struct Span {
    start: usize,
    end: usize,
    secret: usize,
    /// Length of the longest value in the span. `secret` is the secret that has this value.
    longest: usize,
}

impl Redactor {
    /// Prepares the search for all forms of these values.
    pub(super) fn new(values: &BTreeMap<String, Secret>) -> Result<Self, SecretsTooLarge> {
        let (mut patterns, mut secrets, mut replacements) = (Vec::new(), Vec::new(), Vec::new());
        let mut test_values = Vec::new();
        let mut bytes = 0;
        for (name, secret) in values {
            let forms = Forms::of(secret.expose())?;
            bytes += forms.bytes();
            if bytes > forms::TOTAL_BYTES_MAX {
                return Err(SecretsTooLarge);
            }
            let texts = forms.into_texts();
            secrets.resize(secrets.len() + texts.len(), replacements.len());
            patterns.extend(texts);
            test_values.push(test_value(name));
            let name = name.get(..name.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or(name);
            replacements.push(format!("[secret {}]", name.replace(is_deceptive, "\u{fffd}")));
        }
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        let longest = patterns.iter().map(Vec::len).max().unwrap_or_default();
        // Overlapping matches are needed, so the match kind is `Standard`. The automaton `ContiguousNFA` takes the
        // least memory.
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::Standard)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(patterns)
            .map_err(|_| SecretsTooLarge)?;
        Ok(Self(Some(Search { automaton, secrets, replacements, test_values, longest })))
    }

    /// Returns true if there are values to search for.
    pub(crate) fn is_active(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn redact<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.replace(text, Search::replacement)
    }

    /// Replaces each value of a secret in `text` with the value that this secret has in tests.
    pub(super) fn with_test_values<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        self.replace(text, |search, span| search.test_values.get(span.secret).map_or("test", String::as_str))
    }

    fn replace<'a>(&self, text: &'a [u8], replacement: for<'s> fn(&'s Search, &Span) -> &'s str) -> Cow<'a, [u8]> {
        let Some(search) = &self.0 else { return text.into() };
        let spans = search.spans(text);
        if spans.is_empty() {
            return text.into();
        }
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        for span in spans {
            out.extend_from_slice(text.get(at..span.start).unwrap_or_default());
            out.extend_from_slice(replacement(search, &span).as_bytes());
            at = span.end;
        }
        out.extend_from_slice(text.get(at..).unwrap_or_default());
        out.into()
    }

    pub(crate) fn redact_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.redact_start(text, usize::MAX).0
    }

    /// Replaces the values in `text`, which is only the start of a longer text. Leaves out the last bytes of `text`,
    /// because a value could begin there and continue in the missing rest.
    pub(super) fn redact_unfinished<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let Some(search) = &self.0 else { return text.into() };
        let end = text.floor_char_boundary(text.len().saturating_sub(self.lookahead()));
        let mut spans = search.spans(text.as_bytes()).into_iter();
        let end = spans.find(|span| span.start < end && end < span.end).map_or(end, |span| span.start);
        self.redact_text(text.get(..end).unwrap_or_default())
    }

    /// Returns the start of a text, at most `bytes_max` bytes, with the values replaced.
    pub(crate) fn redacted_start(&self, text: &str, bytes_max: usize) -> String {
        let (text, _) = self.redact_start(text, bytes_max);
        text.get(..text.floor_char_boundary(bytes_max)).unwrap_or_default().to_owned()
    }

    /// Replaces the values at the start of a text, until the result has `bytes_max` bytes or a little more. Returns the
    /// result and the rest of the text, in which nothing is replaced. Without secrets, the result is the whole text.
    pub(crate) fn redact_start<'a>(&self, text: &'a str, bytes_max: usize) -> (Cow<'a, str>, &'a str) {
        let Some(search) = &self.0 else { return (text.into(), "") };
        let spans = search.spans(text.as_bytes());
        if spans.is_empty() && text.len() <= bytes_max {
            return (text.into(), "");
        }
        let (mut out, mut at) = (String::new(), 0);
        let mut spans = spans.into_iter();
        loop {
            let span = spans.next();
            // The values and their encodings are UTF-8, so matches start and end between characters.
            let before = text.get(at..span.as_ref().map_or(text.len(), |span| span.start)).unwrap_or_default();
            let room = bytes_max.saturating_sub(out.len());
            if before.len() > room {
                let end = before.floor_char_boundary(room);
                out.push_str(before.get(..end).unwrap_or_default());
                return (out.into(), text.get(at + end..).unwrap_or_default());
            }
            out.push_str(before);
            let Some(span) = span else { return (out.into(), "") };
            out.push_str(search.replacement(&span));
            at = span.end;
        }
    }

    /// Returns the maximum length of an incomplete value at the end of an unfinished line, in bytes. The rest of the
    /// value has not arrived yet.
    pub(crate) fn lookahead(&self) -> usize {
        self.0.as_ref().map_or(0, |search| search.longest.saturating_sub(1))
    }

    /// Returns the length of the first piece of an unfinished line. The piece can be logged: no value begins in it and
    /// ends after it. The line must be longer than twice [`Self::lookahead`]. The piece is not empty.
    pub(crate) fn cut(&self, line: &[u8]) -> usize {
        let Some(search) = &self.0 else { return line.len() };
        let mut at = line.len().saturating_sub(self.lookahead());
        // The piece must not end within a character, which has at most 4 bytes.
        let is_start = |at: usize| line.get(at).is_none_or(|byte| byte & 0xC0 != 0x80);
        at = (at.saturating_sub(3)..=at).rev().find(|at| is_start(*at)).unwrap_or(at);
        match search.spans(line).iter().find(|span| span.start < at && at < span.end) {
            Some(span) if span.start > 0 => span.start,
            Some(span) => span.end,
            None if at > 0 => at,
            None => line.len(),
        }
    }
}

impl Search {
    /// Returns the parts of a text that are values of secrets, in order. Values that overlap are one part. Adjacent
    /// values of the same secret are also one part.
    fn spans(&self, text: &[u8]) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        // Only anchored searches can fail, and this search is not anchored.
        for found in self.automaton.try_find_overlapping_iter(text).into_iter().flatten() {
            let secret = self.secrets.get(found.pattern().as_usize()).copied().unwrap_or_default();
            let mut span = Span { start: found.start(), end: found.end(), secret, longest: found.len() };
            // Matches are in the order of their ends.
            while let Some(last) =
                spans.pop_if(|last| last.end > span.start || (last.end == span.start && last.secret == span.secret))
            {
                span.start = span.start.min(last.start);
                if last.longest >= span.longest {
                    (span.secret, span.longest) = (last.secret, last.longest);
                }
            }
            spans.push(span);
        }
        spans
    }

    fn replacement(&self, span: &Span) -> &str {
        self.replacements.get(span.secret).map_or("[secret]", String::as_str)
    }
}

/// Shows only the names of the secrets, because the automaton contains their values.
impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().flat_map(|search| &search.replacements);
        f.debug_tuple("Redactor").field(&names.collect::<Vec<_>>()).finish()
    }
}
