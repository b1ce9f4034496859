//! Diagnostics of manifests. A diagnostic has a message, a help text and a position, and shows the line at the
//! position.

use super::source_text::{Position, SourceText, Span};
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use evoke_model::text::count;
use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// The severity of a diagnostic. A manifest with an error cannot run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The manifest cannot run.
    Error,
    /// The manifest can run, but probably does something unintended.
    Warning,
}

/// One mistake in a manifest. Its JSON form is `{severity, file, line, column, message, help}`. Line and column count
/// from 1; both are null for a diagnostic of the whole file.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Describes the mistake, in one line without a full stop.
    pub message: String,
    /// How to correct the mistake, in one line.
    pub help: Option<String>,
    /// Range of the mistake; `None` for a mistake of the whole file.
    pub span: Option<Span>,
    /// Other ranges that explain the mistake, each with a short label.
    pub related: Vec<(Span, String)>,
    /// The text that contains the ranges.
    pub source: Arc<SourceText>,
}

/// Diagnostics of one or more manifests. Those of one manifest are in the order of their positions.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    omitted: usize,
}

/// The error of a function that parses one value. The error has no position: to make a [`Diagnostic`], the caller adds
/// the position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    /// Describes the mistake.
    pub message: String,
    /// How to correct the mistake.
    pub help: String,
}

/// The maximum number of diagnostics that are shown for one manifest. Further diagnostics are only counted.
const REPORTED_MAX: usize = 100;
/// Checks stop after this many diagnostics, because a hostile manifest can have a million mistakes.
pub(super) const FOUND_MAX: usize = 500;
/// Longer lines are not shown, because drawing them takes too long. The position is still shown.
const LINE_SHOWN_BYTES_MAX: usize = 4 << 10;
/// The maximum size of a snippet in bytes. A related line that would make the snippet larger is not shown.
const SNIPPET_BYTES_MAX: usize = 256 << 10;
/// The maximum length of a quotation in a message. Longer text is cut.
const EXCERPT_CHARS_MAX: usize = 60;

impl ValueError {
    /// Makes an error. `message` is one line without a full stop; `help` says what to write instead.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// Prepares a text of the manifest for quoting in a message. The result is one line of at most 60 characters. Control
/// characters are replaced, so that they cannot affect a terminal.
pub fn excerpt(text: &str) -> String {
    let mut cut: String = text.chars().take(EXCERPT_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    normalize_untrusted_str(&cut.replace(['\n', '\r'], " "))
}

impl Diagnostic {
    /// Makes an error at a span.
    pub fn error(source: &Arc<SourceText>, span: Span, message: impl Into<String>) -> Self {
        let source = Arc::clone(source);
        Self {
            severity: Severity::Error,
            message: message.into(),
            help: None,
            span: Some(span),
            related: Vec::new(),
            source,
        }
    }

    /// Makes a warning at a span.
    pub fn warning(source: &Arc<SourceText>, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(source, span, message) }
    }

    /// Makes an error about the whole file.
    pub fn file_error(source: &Arc<SourceText>, message: impl Into<String>) -> Self {
        Self { span: None, ..Self::error(source, Span::default(), message) }
    }

    /// Adds a help text, which says how to correct the mistake.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds another span that explains the mistake.
    #[must_use]
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    /// Returns the line and column, both from 1; `None` for a diagnostic of the whole file.
    pub fn position(&self) -> Option<Position> {
        self.span.map(|span| self.source.position(span.start))
    }

    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let path = self.source.path.display().to_string();
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        group = match self.span {
            Some(span) => self.with_snippet(group, span, path),
            None => group.element(Origin::path(path)),
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    fn with_snippet<'a>(&'a self, group: Group<'a>, span: Span, path: String) -> Group<'a> {
        let position = self.source.position(span.start);
        let line = self.source.line_range(position.line);
        if line.len() > LINE_SHOWN_BYTES_MAX {
            return group.element(Origin::path(path).line(position.line).char_column(position.column));
        }
        // Passes only the needed lines to the renderer, because the renderer scans all text that it gets.
        let (mut first, mut last) = (position.line, position.line);
        let mut related = Vec::new();
        for (span, label) in &self.related {
            let at = self.source.position(span.start).line;
            let (from, to) = (first.min(at), last.max(at));
            let bytes = self.source.line_range(from).start..self.source.line_range(to).end;
            if bytes.len() <= SNIPPET_BYTES_MAX && self.source.line_range(at).len() <= LINE_SHOWN_BYTES_MAX {
                (first, last) = (from, to);
                related.push((*span, label));
            }
        }
        let start = self.source.line_range(first).start;
        let end = self.source.line_range(last).end;
        let shown = self.source.text.get(start..end).unwrap_or("");
        // The renderer does not draw white space at the end of the text, and panics if a range goes beyond the drawn
        // text.
        let drawn = shown.trim_end().len();
        let within = |span: Span| {
            // A span of several lines is underlined only in its first line, which is easier to read.
            let line = self.source.line_range(self.source.position(span.start).line);
            let (from, to) = (span.start.min(line.end), span.end.clamp(span.start, line.end.max(span.start)));
            from.saturating_sub(start).min(drawn)..to.saturating_sub(start).min(drawn)
        };
        let snippet = Snippet::source(shown)
            .path(path)
            .line_start(first)
            .annotation(AnnotationKind::Primary.span(within(span)))
            .annotations(
                related.iter().map(|(span, label)| AnnotationKind::Context.span(within(*span)).label(label.as_str())),
            );
        group.element(snippet)
    }
}

impl Diagnostics {
    /// Returns true if there are no diagnostics.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Returns the number of diagnostics of this severity. The number of errors includes those that are not shown.
    pub fn count(&self, severity: Severity) -> usize {
        let reported = self.items.iter().filter(|item| item.severity == severity).count();
        if severity == Severity::Error { reported + self.omitted } else { reported }
    }

    /// Returns true if at least one diagnostic is an error.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Iterates over the reported diagnostics, at most 100 of each manifest.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter()
    }

    /// Appends the diagnostics of another manifest or of a later check.
    pub fn extend(&mut self, other: Self) {
        self.items.extend(other.items);
        self.omitted += other.omitted;
    }

    /// Appends a diagnostic of a later check.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.items.push(diagnostic);
    }

    /// Returns readable text without colours.
    pub fn plain(&self) -> String {
        self.render(&Renderer::plain())
    }

    /// Returns readable text for a terminal, with ANSI colours and Unicode lines.
    pub fn styled(&self) -> String {
        self.render(&Renderer::styled().decor_style(DecorStyle::Unicode))
    }

    fn render(&self, renderer: &Renderer) -> String {
        let mut text: String = self.items.iter().map(|item| item.render(renderer) + "\n\n").collect();
        if self.omitted > 0 {
            text.push_str(&format!("… and at least {}\n\n", count(self.omitted, "more error")));
        }
        text.truncate(text.len().saturating_sub(1));
        text
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    /// Collects the diagnostics of one manifest: sorts them by position, removes duplicates, and limits their number.
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(items: I) -> Self {
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort_by(|a, b| (a.span, a.severity, &a.message).cmp(&(b.span, b.severity, &b.message)));
        // The value of an alias is checked once for each use of the alias, always at the same span. So a mistake in
        // such a value would otherwise be reported several times.
        items.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        let omitted = items.len().saturating_sub(REPORTED_MAX);
        items.truncate(REPORTED_MAX);
        Self { items, omitted }
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain())
    }
}

impl std::error::Error for Diagnostics {}

impl Serialize for Diagnostic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Json<'a> {
            severity: Severity,
            file: String,
            line: Option<usize>,
            column: Option<usize>,
            message: &'a str,
            help: Option<&'a str>,
        }
        let position = self.position();
        Json {
            severity: self.severity,
            file: self.source.path.display().to_string(),
            line: position.map(|position| position.line),
            column: position.map(|position| position.column),
            message: &self.message,
            help: self.help.as_deref(),
        }
        .serialize(serializer)
    }
}

impl Serialize for Diagnostics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Arc<SourceText> {
        Arc::new(SourceText::new("shop.yaml".into(), text.to_owned()))
    }

    #[test]
    fn the_json_form_of_a_diagnostic_is_flat() {
        let source = text("evoke: 1\napp: Shop\n");
        let at = Span { start: 14, end: 18 };
        let items = [Diagnostic::error(&source, at, "not a name").help("write `shop`")];
        let json = serde_json::to_string(&Diagnostics::from_iter(items)).unwrap();
        let expected = r#"[{"severity":"error","file":"shop.yaml","line":2,"column":6,"message":"not a name","help":"write `shop`"}]"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn diagnostics_are_sorted_by_position_without_duplicates() {
        let source = text("a\nb\nc\n");
        let at = |start| Span { start, end: start + 1 };
        let items = [
            Diagnostic::error(&source, at(4), "third"),
            Diagnostic::warning(&source, at(2), "second"),
            Diagnostic::error(&source, at(4), "third"),
            Diagnostic::file_error(&source, "first"),
        ];
        let diagnostics = Diagnostics::from_iter(items);
        let messages: Vec<_> = diagnostics.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(messages, ["first", "second", "third"]);
        assert_eq!(diagnostics.count(Severity::Error), 2);
        assert_eq!(diagnostics.count(Severity::Warning), 1);
    }

    #[test]
    fn white_space_at_the_end_is_no_range_beyond_what_is_drawn() {
        let source = text("?\n\r\r\r\r\r\r \t\n");
        let all = Span { start: 2, end: source.text.len() };
        let diagnostic = Diagnostic::error(&source, all, "not a key").related(all, "here");
        assert!(Diagnostics::from_iter([diagnostic]).plain().contains("not a key"));
    }

    #[test]
    fn only_the_terminal_form_has_colours() {
        let source = text("app: Shop\n");
        let error = Diagnostic::error(&source, Span { start: 5, end: 9 }, "not a name");
        let diagnostics = Diagnostics::from_iter([error]);
        assert!(diagnostics.styled().contains("\u{1b}["));
        assert!(!diagnostics.plain().contains('\u{1b}'));
        assert_eq!(diagnostics.to_string(), diagnostics.plain());
    }

    #[test]
    fn a_line_too_long_to_show_still_has_its_position() {
        let source = text(&format!("{{ {} a: 1 }}", "b, ".repeat(5_000)));
        let error = Diagnostic::error(&source, Span { start: 15_003, end: 15_004 }, "here");
        let shown = Diagnostics::from_iter([error]).plain();
        assert_eq!(shown, "error: here\n--> shop.yaml:1:15004\n");
    }

    #[test]
    fn diagnostics_and_checked_manifests_can_be_sent_to_another_thread() {
        fn assert_send<T: Send + Sync + 'static>() {}
        assert_send::<Diagnostics>();
        assert_send::<crate::Checked>();
    }
}
