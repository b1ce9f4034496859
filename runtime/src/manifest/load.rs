//! Makes a tree of a manifest's text: the only place that knows which YAML parser there is.
//!
//! The parser hands out events with their places and keeps no tree of its own, so what a hostile manifest can
//! cost is decided here: 1 MiB of text, [`NODES_MAX`] nodes with every alias written out, [`DEPTH_MAX`] levels.

use super::diagnostics::{Diagnostic, FOUND_MAX, shown};
use super::source_text::{SourceText, Span};
use super::tree::{Entry, MERGE_KEY, Node, Scalar, Value};
use serde_yaml::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span as ParserSpan, StructureStyle,
};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// A longer file is not a manifest.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Nodes of the tree, with every alias written out. A chain of aliases that hold aliases nests some 400 deep then.
const NODES_MAX: usize = 100_000;
/// Levels of lists and maps; a deep pattern has ten.
const DEPTH_MAX: usize = 64;

/// Makes the tree. A mistake after which the rest means nothing comes back; others go to `found`.
pub(super) fn tree(source: &Arc<SourceText>, found: &mut Vec<Diagnostic>) -> Result<Rc<Node>, Box<Diagnostic>> {
    let text = source.text.as_str();
    if text.len() > BYTES_MAX {
        let error = Diagnostic::file_error(source, "the manifest is larger than 1 MiB");
        return Err(Box::new(error.help("split it into several apps, each with a manifest of its own")));
    }
    if let Some((at, char)) = text.char_indices().find(|(_, char)| !allowed(*char)) {
        let span = Span { start: at, end: at + char.len_utf8() };
        let error =
            Diagnostic::error(source, span, format!("the character U+{:04X} cannot be in YAML", u32::from(char)));
        return Err(Box::new(error.help("remove it; in double quotes it can be written as an escape such as `\\0`")));
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut builder = Builder { source, found, open: Vec::new(), anchors: HashMap::new(), nodes: 0, root: None };
    for next in Parser::new_from_str_with_options(text, options) {
        match next {
            Ok((event, span)) => builder.take(event, &span)?,
            Err(error) => return Err(Box::new(builder.syntax_error(&error))),
        }
    }
    builder.root.ok_or_else(|| {
        let error = Diagnostic::error(source, Span::default(), "the manifest is empty");
        Box::new(error.help("start with `evoke: 1` and `app: NAME`; `evoke new` writes an example"))
    })
}

/// YAML 1.2, production `c-printable`.
fn allowed(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

/// A list or map whose end has not come yet.
struct Open {
    span: Span,
    block: bool,
    anchor: usize,
    weight: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, seen: HashMap<String, Span>, key: Option<(String, Span)> },
}

struct Builder<'a> {
    source: &'a Arc<SourceText>,
    found: &'a mut Vec<Diagnostic>,
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    nodes: usize,
    root: Option<Rc<Node>>,
}

impl Builder<'_> {
    fn fatal(&self, span: Span, message: impl Into<String>, help: &str) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(self.source, span, message).help(help))
    }

    /// The mistake after which the parser can go no further.
    fn syntax_error(&self, error: &ScanError) -> Diagnostic {
        let text = &self.source.text;
        let mut start = error.marker().byte_offset().unwrap_or(0).min(text.len());
        let mut end = start + text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        // The parser has read the tabs; they are what is wrong.
        let before = text.get(..start).unwrap_or("");
        let tabs = before.len() - before.trim_end_matches('\t').len();
        if tabs > 0 {
            (start, end) = (start - tabs, start);
        }
        let (message, help) = explained(error);
        let diagnostic = |message, help| Diagnostic::error(self.source, Span { start, end }, message).help(help);
        match self.open.last() {
            Some(Open { block: false, span, kind, .. }) if span.start != start => {
                let (message, help) = match (error.kind(), kind) {
                    (ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement, OpenKind::List(_)) => (
                        "a `: ` inside a list in brackets".to_owned(),
                        "close the list with `]`, or put the text in quotes",
                    ),
                    _ => (message, help),
                };
                diagnostic(message, help).related(*span, "opened here")
            }
            _ => diagnostic(message, help),
        }
    }

    fn note(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < FOUND_MAX {
            self.found.push(diagnostic);
        }
    }

    fn take(&mut self, event: Event<'_>, place: &ParserSpan) -> Result<(), Box<Diagnostic>> {
        let span = place.byte_range().map_or_else(Span::default, |range| Span { start: range.start, end: range.end });
        if event.tag().is_some() {
            let tag = place.tag_span().and_then(|tag| tag.byte_range());
            let span = tag.map_or(span, |range| Span { start: range.start, end: range.end });
            let error =
                self.fatal(span, "a manifest has no YAML tags", "remove the tag; put quotes around what is a text");
            self.note(*error);
        }
        match event {
            Event::Scalar(text, style, anchor, _) => self.scalar(&text, style == ScalarStyle::Plain, anchor, span),
            Event::SequenceStart(style, anchor, _) => self.open_one(span, style, anchor, OpenKind::List(Vec::new())),
            Event::MappingStart(style, anchor, _) => {
                let kind = OpenKind::Map { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.open_one(span, style, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close_one(span),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).map(Rc::clone) else {
                    return Err(self.fatal(
                        span,
                        "an alias cannot stand inside the node it names",
                        "write the value out",
                    ));
                };
                self.count(node.weight, span)?;
                self.attach(node, span)
            }
            Event::DocumentStart(_, _) if self.root.is_some() => Err(self.fatal(
                span,
                "a manifest is one YAML document, here starts another",
                "put each app into a file of its own",
            )),
            _ => Ok(()),
        }
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= NODES_MAX {
            return Ok(());
        }
        let message = format!("the manifest has more than {NODES_MAX} values, those that aliases stand for included");
        Err(self.fatal(
            span,
            message,
            "split it into several apps; do not name (`&name`) what holds aliases (`*name`) itself",
        ))
    }

    fn scalar(&mut self, text: &str, plain: bool, anchor: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        self.count(1, span)?;
        if let Some(Open { kind: OpenKind::Map { key: key @ None, .. }, .. }) = self.open.last_mut() {
            *key = Some((text.to_owned(), span));
            return Ok(());
        }
        let scalar = Scalar { text: text.to_owned(), plain };
        let shown_at = if span.start == span.end { self.key_span().unwrap_or(span) } else { span };
        let node = Rc::new(Node { span: shown_at, value: Value::Scalar(scalar), weight: 1 });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node, span)
    }

    fn open_one(
        &mut self,
        span: Span,
        style: StructureStyle,
        anchor: usize,
        kind: OpenKind,
    ) -> Result<(), Box<Diagnostic>> {
        self.count(1, span)?;
        if self.open.len() >= DEPTH_MAX {
            return Err(self.fatal(
                span,
                format!("more than {DEPTH_MAX} levels of lists and maps"),
                "nest less deeply",
            ));
        }
        if matches!(self.open.last(), Some(Open { kind: OpenKind::Map { key: None, .. }, .. })) {
            return Err(self.fatal(
                span,
                "a key is a text, not a list or a map",
                "if `{` or `[` starts a text, put it in quotes",
            ));
        }
        let block = style == StructureStyle::Block;
        self.open.push(Open { span, block, anchor, weight: 1, kind });
        Ok(())
    }

    fn close_one(&mut self, end: Span) -> Result<(), Box<Diagnostic>> {
        let Some(Open { span, block, anchor, weight, kind }) = self.open.pop() else {
            return Ok(());
        };
        // One in brackets is shown as a whole; one in block style by the key it belongs to, or its first key.
        let first_key = match &kind {
            OpenKind::Map { entries, .. } => entries.first().map(|entry| entry.key_span),
            OpenKind::List(_) => None,
        };
        let span = match (block, self.key_span().or(first_key)) {
            (true, Some(key)) => key,
            (true, None) => Span { start: span.start, end: span.start + 1 },
            (false, _) => Span { start: span.start, end: end.end },
        };
        let value = match kind {
            OpenKind::List(items) => Value::List(items),
            OpenKind::Map { entries, .. } => Value::Map(entries),
        };
        let node = Rc::new(Node { span, value, weight });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node, span)
    }

    /// The key whose value comes next.
    fn key_span(&self) -> Option<Span> {
        match self.open.last() {
            Some(Open { kind: OpenKind::Map { key: Some((_, span)), .. }, .. }) => Some(*span),
            _ => None,
        }
    }

    fn attach(&mut self, node: Rc<Node>, span: Span) -> Result<(), Box<Diagnostic>> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.weight = parent.weight.saturating_add(node.weight);
        let (entries, seen, key) = match &mut parent.kind {
            OpenKind::List(items) => {
                items.push(node);
                return Ok(());
            }
            OpenKind::Map { entries, seen, key } => (entries, seen, key),
        };
        let Some((key, key_span)) = key.take() else {
            return Err(self.fatal(span, "a key is a text, not an alias", "write the key out"));
        };
        if key == MERGE_KEY {
            let help = "YAML 1.2 has no merge keys; give a whole value a name with `&name` and repeat it with `*name`";
            entries.push(Entry { key, key_span, node });
            let error = self.fatal(key_span, "`<<` does not merge anything", help);
            self.note(*error);
        } else if let Some(first) = seen.get(&key) {
            let error = Diagnostic::error(self.source, key_span, format!("the key `{}` is here twice", shown(&key)))
                .related(*first, "first here")
                .help("remove one of them");
            self.note(error);
        } else {
            seen.insert(key.clone(), key_span);
            entries.push(Entry { key, key_span, node });
        }
        Ok(())
    }
}

/// What the parser found wrong, and what would be right.
fn explained(error: &ScanError) -> (String, &'static str) {
    match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => ("a tab cannot indent in YAML".to_owned(), "indent with spaces"),
        ErrorKind::UnclosedQuotedScalar => ("this quote is never closed".to_owned(), "close it with the same quote"),
        ErrorKind::UnclosedFlowCollection { open } => {
            (format!("this `{open}` is never closed"), "close it, and put commas between what is inside")
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            (format!("`{open}` is closed by `{close}`"), "close each bracket with its own kind")
        }
        ErrorKind::MisplacedFlowCollectionEnd => {
            ("this bracket closes nothing".to_owned(), "remove it, or put the text in quotes")
        }
        ErrorKind::UnexpectedEofFlowSequence | ErrorKind::ExpectedFlowSequenceSeparator => (
            "a list in brackets goes on with `,` or ends with `]`".to_owned(),
            "put a comma between entries, and close the list",
        ),
        ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator => (
            "a map in braces goes on with `,` or ends with `}`".to_owned(),
            "put a comma between entries, and close the map",
        ),
        ErrorKind::UnknownAnchor => (
            "no node before this has that anchor".to_owned(),
            "name a node with `&name` first; put quotes around a text that starts with `*`",
        ),
        ErrorKind::RecursionLimitExceeded => {
            (format!("more than {DEPTH_MAX} levels of lists and maps"), "nest less deeply")
        }
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => {
            ("a `: ` in the middle of a text".to_owned(), "put the text in quotes, or the key on a line of its own")
        }
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => (
            "this line is neither a `key: value` nor an entry of a list".to_owned(),
            "put a colon and a space behind the key, or quotes around a text of several lines",
        ),
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => (
            "this line is indented unlike its neighbours".to_owned(),
            "give keys that belong together the same indentation",
        ),
        ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::BlockSequenceEntryNotAllowed => (
            "an entry of a list cannot start here".to_owned(),
            "give each `- ` of a list the same indentation, below its key",
        ),
        ErrorKind::UnknownQuotedScalarEscape => (
            "this escape is not one of YAML's".to_owned(),
            "use single quotes, in which a backslash is only a backslash",
        ),
        ErrorKind::UnexpectedCharacter { character } => {
            (format!("a text cannot start with `{}`", shown(&character.to_string())), "put the text in quotes")
        }
        ErrorKind::MissingAnchorOrAliasName => (
            "`*` and `&` start an alias and an anchor, and this has no name".to_owned(),
            "put quotes around a text that starts with `*` or `&`",
        ),
        _ => (format!("not YAML: {}", error.info()), "see the line; a text with special characters goes in quotes"),
    }
}
