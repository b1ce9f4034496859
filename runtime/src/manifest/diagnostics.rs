//! What is wrong with a manifest: place, the line itself, and what would be right.

use super::source_text::{Position, SourceText, Span};
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet, normalize_untrusted_str};
use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// Whether a manifest with it can run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It cannot run.
    Error,
    /// It can, but probably does not do what was meant.
    Warning,
}

/// One mistake. For machines it is `{severity, file, line, column, message, help}`; line and column count
/// from 1 and are absent where the file as a whole is meant.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: Option<String>,
    /// Where; the file as a whole where there is none.
    pub span: Option<Span>,
    /// Other places that it takes to see why, each with a few words.
    pub related: Vec<(Span, String)>,
    /// The text that the places are in.
    pub source: Arc<SourceText>,
}

/// Mistakes of one or more manifests, in the order of their places.
#[derive(Clone, Debug, Default)]
pub struct Diagnostics {
    items: Vec<Diagnostic>,
    omitted: usize,
}

/// What a reader of one value says when the value is wrong; whoever knows the place makes a [`Diagnostic`] of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

/// So many are shown of one manifest; nobody reads more.
const KEPT_MAX: usize = 100;
/// After so many nothing more is looked for: a hostile manifest has a million mistakes.
pub(super) const FOUND_MAX: usize = 500;
/// A longer line is not shown, only its place: drawing it would cost more than it tells.
const LINE_SHOWN_BYTES_MAX: usize = 4 << 10;
/// Lines further apart are not shown in one snippet.
const SNIPPET_BYTES_MAX: usize = 256 << 10;
/// A longer text is cut where a message quotes it.
const SHOWN_CHARS_MAX: usize = 60;

impl Wrong {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A text of the manifest as a message may quote it: one line, not long, nothing that controls a terminal.
pub(super) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    normalize_untrusted_str(&cut.replace(['\n', '\r'], " "))
}

impl Diagnostic {
    /// An error at a place.
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

    /// A warning at a place.
    pub fn warning(source: &Arc<SourceText>, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(source, span, message) }
    }

    /// An error of the file as a whole.
    pub fn file_error(source: &Arc<SourceText>, message: impl Into<String>) -> Self {
        Self { span: None, ..Self::error(source, Span::default(), message) }
    }

    /// Says what would be right.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Shows another place that it takes to see why.
    #[must_use]
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    /// Line and column of the place, from 1.
    pub fn position(&self) -> Option<Position> {
        self.span.map(|span| self.source.position(span.start))
    }

    fn rendered(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let path = self.source.path.display().to_string();
        let mut group = Group::with_title(level.primary_title(self.message.as_str()));
        group = match self.span {
            Some(span) => self.with_place(group, span, path),
            None => group.element(Origin::path(path)),
        };
        if let Some(help) = &self.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }

    fn with_place<'a>(&'a self, group: Group<'a>, span: Span, path: String) -> Group<'a> {
        let position = self.source.position(span.start);
        let line = self.source.line_range(position.line);
        if line.len() > LINE_SHOWN_BYTES_MAX {
            return group.element(Origin::path(path).line(position.line).char_column(position.column));
        }
        // Only the lines that matter are handed over: the renderer walks all it is given.
        let (mut first, mut last) = (position.line, position.line);
        let mut related = Vec::new();
        for (place, label) in &self.related {
            let at = self.source.position(place.start).line;
            let (from, to) = (first.min(at), last.max(at));
            let bytes = self.source.line_range(from).start..self.source.line_range(to).end;
            if bytes.len() <= SNIPPET_BYTES_MAX && self.source.line_range(at).len() <= LINE_SHOWN_BYTES_MAX {
                (first, last) = (from, to);
                related.push((*place, label));
            }
        }
        let start = self.source.line_range(first).start;
        let end = self.source.line_range(last).end;
        let shown = self.source.text.get(start..end).unwrap_or("");
        let within = |span: Span| {
            // An underline that goes over lines says less than one under the first of them.
            let line = self.source.line_range(self.source.position(span.start).line);
            span.start.min(line.end) - start..span.end.clamp(span.start, line.end.max(span.start)) - start
        };
        let snippet = Snippet::source(shown)
            .path(path)
            .line_start(first)
            .annotation(AnnotationKind::Primary.span(within(span)))
            .annotations(
                related.iter().map(|(place, label)| AnnotationKind::Context.span(within(*place)).label(label.as_str())),
            );
        group.element(snippet)
    }
}

impl Diagnostics {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many there are, also those too many to be kept.
    pub fn count(&self, severity: Severity) -> usize {
        let kept = self.items.iter().filter(|item| item.severity == severity).count();
        if severity == Severity::Error { kept + self.omitted } else { kept }
    }

    /// Whether one is an error.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Those that are kept.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter()
    }

    /// Adds those of another manifest, or of a later check.
    pub fn extend(&mut self, other: Self) {
        self.items.extend(other.items);
        self.omitted += other.omitted;
    }

    /// Adds one of a later check.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        self.items.push(diagnostic);
    }

    /// For people, without colour.
    pub fn plain(&self) -> String {
        self.rendered(&Renderer::plain())
    }

    /// For people at a terminal: with ANSI colours and lines drawn in Unicode.
    pub fn styled(&self) -> String {
        self.rendered(&Renderer::styled().decor_style(DecorStyle::Unicode))
    }

    fn rendered(&self, renderer: &Renderer) -> String {
        let mut text: String = self.items.iter().map(|item| item.rendered(renderer) + "\n\n").collect();
        if self.omitted > 0 {
            text.push_str(&format!("… and at least {} more errors\n\n", self.omitted));
        }
        text.truncate(text.len().saturating_sub(1));
        text
    }
}

impl FromIterator<Diagnostic> for Diagnostics {
    /// Takes those of one manifest: in the order of their places, each once, and not endlessly many.
    fn from_iter<I: IntoIterator<Item = Diagnostic>>(items: I) -> Self {
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort_by(|a, b| (a.span, a.severity, &a.message).cmp(&(b.span, b.severity, &b.message)));
        // An alias is checked once for each place that uses it.
        items.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        let omitted = items.len().saturating_sub(KEPT_MAX);
        items.truncate(KEPT_MAX);
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
        struct Form<'a> {
            severity: Severity,
            file: String,
            line: Option<usize>,
            column: Option<usize>,
            message: &'a str,
            help: Option<&'a str>,
        }
        let position = self.position();
        Form {
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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn text(text: &str) -> Arc<SourceText> {
        Arc::new(SourceText::new("shop.yaml".into(), text.to_owned()))
    }

    #[test]
    fn for_machines_a_diagnostic_is_flat() {
        let source = text("evoke: 1\napp: Shop\n");
        let at = Span { start: 14, end: 18 };
        let items = [Diagnostic::error(&source, at, "not a name").help("write `shop`")];
        let json = serde_json::to_string(&Diagnostics::from_iter(items)).unwrap();
        let expected = r#"[{"severity":"error","file":"shop.yaml","line":2,"column":6,"message":"not a name","help":"write `shop`"}]"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn they_come_in_the_order_of_their_places_and_each_once() {
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
    fn only_at_a_terminal_are_there_colours() {
        let source = text("app: Shop\n");
        let error = Diagnostic::error(&source, Span { start: 5, end: 9 }, "not a name");
        let diagnostics = Diagnostics::from_iter([error]);
        assert!(diagnostics.styled().contains("\u{1b}["));
        assert!(!diagnostics.plain().contains('\u{1b}'));
        assert_eq!(diagnostics.to_string(), diagnostics.plain());
    }

    #[test]
    fn a_line_too_long_to_show_still_has_its_place() {
        let source = text(&format!("{{ {} a: 1 }}", "b, ".repeat(5_000)));
        let error = Diagnostic::error(&source, Span { start: 15_003, end: 15_004 }, "here");
        let shown = Diagnostics::from_iter([error]).plain();
        assert_eq!(shown, "error: here\n--> shop.yaml:1:15004\n");
    }

    #[test]
    fn what_a_later_check_holds_can_go_to_another_thread() {
        fn sendable<T: Send + Sync + 'static>() {}
        sendable::<Diagnostics>();
        sendable::<crate::manifest::Checked>();
    }
}
