//! Builds the tree of a manifest from its text. Only this module uses the YAML parser.
//!
//! The YAML parser does not build a tree: it emits events, such as the start of a list, with their positions. This
//! module builds the tree from the events, and stops at the first event that exceeds a limit. So a hostile manifest
//! costs little. The limits are 1 MiB of text, [`NODES_MAX`] nodes and [`EXPANDED_BYTES_MAX`] bytes with all aliases
//! expanded, and [`DEPTH_MAX`] levels.

use super::diagnostics::{Diagnostic, FOUND_MAX, excerpt};
use super::parser::{Entry, Expanded, MERGE_KEY, Node, Scalar, Value};
use super::source_text::{SourceText, Span};
use serde_yaml::granit_parser::{
    ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span as ParserSpan, StructureStyle,
};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// Largest size of a manifest or test file in bytes. Larger files are rejected.
pub(super) const BYTES_MAX: usize = 1 << 20;
/// Largest number of nodes with all aliases expanded. An alias can stand for a value that contains other aliases, so a
/// short text could otherwise expand to billions of nodes.
const NODES_MAX: usize = 100_000;
/// Largest total length of the texts of keys and values with all aliases expanded, in bytes. Code that converts the tree
/// copies the text of an alias at each use. A text of [`BYTES_MAX`] without aliases never exceeds this limit: the value
/// of an escape, such as `\L`, has at most 1.5 times its length.
const EXPANDED_BYTES_MAX: usize = 4 << 20;
/// Largest nesting depth of lists and maps with all aliases expanded. Recursive code, such as the conversion to JSON, can
/// therefore not overflow the stack. Even a deeply nested event pattern needs only about ten levels.
const DEPTH_MAX: usize = 64;

/// The words that messages use for a kind of file.
pub(super) struct FileKind {
    /// The name, such as `manifest`.
    pub(super) name: &'static str,
    /// The help text for an empty file.
    start: &'static str,
    /// The help text for a file that is too large.
    split: &'static str,
    /// The help text for a file with a second YAML document.
    second_document: &'static str,
}

pub(super) const MANIFEST: FileKind = FileKind {
    name: "manifest",
    start: "start with `evoke: 1` and `app: NAME`; `evoke new` writes an example",
    split: "split it into several apps",
    second_document: "put each app in its own file",
};

pub(super) const TEST_FILE: FileKind = FileKind {
    name: "test file",
    start: "start with `tests:`, and write the tests under it by name; `evoke new` writes an example",
    split: "split it into several files",
    second_document: "put all tests under one key `tests`",
};

/// An event pattern that is not part of a manifest.
pub(super) const PATTERN: FileKind = FileKind {
    name: "pattern",
    start: "write a pattern such as `type: [order.placed]`",
    split: "write a shorter pattern",
    second_document: "write only one pattern",
};

/// Builds the tree of nodes of a file and appends diagnostics to `found`.
///
/// # Errors
/// A mistake after which the rest of the text cannot be read.
pub(super) fn tree(
    source: &Arc<SourceText>,
    kind: &FileKind,
    found: &mut Vec<Diagnostic>,
) -> Result<Rc<Node>, Box<Diagnostic>> {
    let text = source.text.as_str();
    if text.len() > BYTES_MAX {
        let error = Diagnostic::file_error(source, format!("the {} is larger than 1 MiB", kind.name));
        return Err(Box::new(error.help(kind.split)));
    }
    if let Some((at, char)) = text.char_indices().find(|(_, char)| !is_printable(*char)) {
        let span = Span { start: at, end: at + char.len_utf8() };
        let error =
            Diagnostic::error(source, span, format!("the character U+{:04X} is not allowed in YAML", u32::from(char)));
        return Err(Box::new(error.help("remove it, or write it as an escape such as `\\0` in double quotes")));
    }
    let mut options = Options::default();
    options.set_emit_comments(false);
    // The parser copies the prefix of a `%TAG` directive for each tag that uses it. No file needs such a directive,
    // because a tag is an error.
    options.disallow_directives = text.contains("%TAG");
    options.flow_nesting_limit = DEPTH_MAX;
    options.block_nesting_limit = DEPTH_MAX;
    let mut builder = Builder {
        source,
        kind,
        found,
        open: Vec::new(),
        anchors: HashMap::new(),
        size: Expanded::default(),
        root: None,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        match next {
            Ok((event, span)) => builder.handle_event(event, &span)?,
            Err(error) => return Err(Box::new(builder.syntax_error(&error))),
        }
    }
    builder.root.ok_or_else(|| {
        let error = Diagnostic::error(source, Span::default(), format!("the {} is empty", kind.name));
        Box::new(error.help(kind.start))
    })
}

/// Returns true for the characters that YAML allows (YAML 1.2, production `c-printable`).
fn is_printable(char: char) -> bool {
    matches!(char, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
}

/// A list or map whose end event has not arrived yet.
struct OpenCollection {
    span: Span,
    block: bool,
    anchor: usize,
    expanded: Expanded,
    kind: CollectionKind,
}

enum CollectionKind {
    List(Vec<Rc<Node>>),
    Map { entries: Vec<Entry>, seen: HashMap<String, Span>, key: Option<(String, Span)> },
}

struct Builder<'a> {
    source: &'a Arc<SourceText>,
    kind: &'a FileKind,
    found: &'a mut Vec<Diagnostic>,
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, Rc<Node>>,
    /// The size of all values so far.
    size: Expanded,
    root: Option<Rc<Node>>,
}

impl Builder<'_> {
    fn fatal(&self, span: Span, message: impl Into<String>, help: &str) -> Box<Diagnostic> {
        Box::new(Diagnostic::error(self.source, span, message).help(help))
    }

    /// Converts the error that stopped the parser to a diagnostic.
    fn syntax_error(&self, error: &ScanError) -> Diagnostic {
        let text = &self.source.text;
        let mut start = error.marker().byte_offset().unwrap_or(0).min(text.len());
        let mut end = start + text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
        // For tabs, the parser reports the position after them. The diagnostic must mark the tabs themselves.
        let before = text.get(..start).unwrap_or("");
        let tabs = before.len() - before.trim_end_matches('\t').len();
        if tabs > 0 {
            (start, end) = (start - tabs, start);
        }
        let (message, help) = explain(error);
        let diagnostic = |message, help| Diagnostic::error(self.source, Span { start, end }, message).help(help);
        match self.open.last() {
            Some(OpenCollection { block: false, span, kind, .. }) if span.start != start => {
                let (message, help) = match (error.kind(), kind) {
                    (ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement, CollectionKind::List(_)) => {
                        (
                            "unexpected `: ` inside a list in brackets".to_owned(),
                            "close the list with `]`; if the `: ` belongs to a string, put the string in quotes",
                        )
                    }
                    _ => (message, help),
                };
                diagnostic(message, help).related(*span, "opened here")
            }
            _ => diagnostic(message, help),
        }
    }

    fn report(&mut self, diagnostic: Diagnostic) {
        if self.found.len() < FOUND_MAX {
            self.found.push(diagnostic);
        }
    }

    fn handle_event(&mut self, event: Event<'_>, position: &ParserSpan) -> Result<(), Box<Diagnostic>> {
        let span =
            position.byte_range().map_or_else(Span::default, |range| Span { start: range.start, end: range.end });
        if event.tag().is_some() {
            let tag = position.tag_span().and_then(|tag| tag.byte_range());
            let span = tag.map_or(span, |range| Span { start: range.start, end: range.end });
            let error = self.fatal(span, "YAML tags are not supported", "remove the tag; for a string, use quotes");
            self.report(*error);
        }
        match event {
            Event::Scalar(text, style, anchor, _) => self.scalar(&text, style == ScalarStyle::Plain, anchor, span),
            Event::SequenceStart(style, anchor, _) => {
                self.start_collection(span, style, anchor, CollectionKind::List(Vec::new()))
            }
            Event::MappingStart(style, anchor, _) => {
                let kind = CollectionKind::Map { entries: Vec::new(), seen: HashMap::new(), key: None };
                self.start_collection(span, style, anchor, kind)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end_collection(span),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).map(Rc::clone) else {
                    return Err(self.fatal(
                        span,
                        "an alias cannot refer to a value that contains this alias",
                        "write the value itself",
                    ));
                };
                self.count(node.expanded, span)?;
                self.check_depth(node.expanded.levels, span)?;
                self.attach(node, span)
            }
            Event::DocumentStart(_, _) if self.root.is_some() => Err(self.fatal(
                span,
                format!("a {} must be one YAML document, but a second one starts here", self.kind.name),
                self.kind.second_document,
            )),
            _ => Ok(()),
        }
    }

    /// Counts a part of the tree, and returns an error if the whole tree exceeds a limit.
    fn count(&mut self, part: Expanded, span: Span) -> Result<(), Box<Diagnostic>> {
        self.size.add(part);
        let nested = "do not use aliases (`*name`) inside a value that has an anchor (`&name`)";
        let (limit, advice) = match self.size {
            Expanded { nodes, .. } if nodes > NODES_MAX => (format!("{NODES_MAX} values"), nested),
            Expanded { bytes, .. } if bytes > EXPANDED_BYTES_MAX => {
                (format!("{} MiB", EXPANDED_BYTES_MAX >> 20), "use fewer aliases (`*name`) of long texts")
            }
            _ => return Ok(()),
        };
        let FileKind { name, split, .. } = self.kind;
        let message = format!("the {name} has more than {limit}, counting every use of an alias");
        let help = format!("{split}; {advice}");
        Err(self.fatal(span, message, &help))
    }

    /// Returns an error if a value with this many levels would be nested too deeply at the current place.
    fn check_depth(&self, levels: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        if self.open.len() + levels <= DEPTH_MAX {
            return Ok(());
        }
        Err(self.fatal(span, too_deep(), "reduce the nesting; an alias (`*name`) counts like the value it stands for"))
    }

    fn scalar(&mut self, text: &str, plain: bool, anchor: usize, span: Span) -> Result<(), Box<Diagnostic>> {
        let expanded = Expanded { nodes: 1, bytes: text.len(), levels: 0 };
        self.count(expanded, span)?;
        if let Some(OpenCollection { kind: CollectionKind::Map { key: key @ None, .. }, expanded: map, .. }) =
            self.open.last_mut()
        {
            *key = Some((text.to_owned(), span));
            map.add(expanded);
            return Ok(());
        }
        let scalar = Scalar { text: text.to_owned(), plain };
        let node_span = if span.start == span.end { self.key_span().unwrap_or(span) } else { span };
        let node = Rc::new(Node { span: node_span, value: Value::Scalar(scalar), expanded });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node, span)
    }

    fn start_collection(
        &mut self,
        span: Span,
        style: StructureStyle,
        anchor: usize,
        kind: CollectionKind,
    ) -> Result<(), Box<Diagnostic>> {
        let expanded = Expanded { nodes: 1, bytes: 0, levels: 1 };
        self.count(expanded, span)?;
        self.check_depth(expanded.levels, span)?;
        if matches!(self.open.last(), Some(OpenCollection { kind: CollectionKind::Map { key: None, .. }, .. })) {
            return Err(self.fatal(
                span,
                "a key must be a string, not a list or a map",
                "if a string starts with `{` or `[`, put it in quotes",
            ));
        }
        let block = style == StructureStyle::Block;
        self.open.push(OpenCollection { span, block, anchor, expanded, kind });
        Ok(())
    }

    fn end_collection(&mut self, end: Span) -> Result<(), Box<Diagnostic>> {
        let Some(OpenCollection { span, block, anchor, expanded, kind }) = self.open.pop() else {
            return Ok(());
        };
        // The span of a collection in brackets is its whole text. In block style, the span is the key of the
        // collection. A collection without a key has the span of the first key in it, or else of its first character.
        let first_key = match &kind {
            CollectionKind::Map { entries, .. } => entries.first().map(|entry| entry.key_span),
            CollectionKind::List(_) => None,
        };
        let span = match (block, self.key_span().or(first_key)) {
            (true, Some(key)) => key,
            (true, None) => Span { start: span.start, end: span.start + 1 },
            (false, _) => Span { start: span.start, end: end.end },
        };
        let value = match kind {
            CollectionKind::List(items) => Value::List(items),
            CollectionKind::Map { entries, .. } => Value::Map(entries),
        };
        let node = Rc::new(Node { span, value, expanded });
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.attach(node, span)
    }

    /// Returns the span of the key whose value comes next.
    fn key_span(&self) -> Option<Span> {
        match self.open.last() {
            Some(OpenCollection { kind: CollectionKind::Map { key: Some((_, span)), .. }, .. }) => Some(*span),
            _ => None,
        }
    }

    fn attach(&mut self, node: Rc<Node>, span: Span) -> Result<(), Box<Diagnostic>> {
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.expanded.add(node.expanded);
        let (entries, seen, key) = match &mut parent.kind {
            CollectionKind::List(items) => {
                items.push(node);
                return Ok(());
            }
            CollectionKind::Map { entries, seen, key } => (entries, seen, key),
        };
        let Some((key, key_span)) = key.take() else {
            return Err(self.fatal(span, "a key must be a string, not an alias", "write the key itself"));
        };
        if key == MERGE_KEY {
            let help = "YAML 1.2 has no merge keys; mark a whole value with `&name` and repeat it with `*name`";
            entries.push(Entry { key, key_span, node });
            let error = self.fatal(key_span, "the merge key `<<` is not supported", help);
            self.report(*error);
        } else if let Some(first) = seen.get(&key) {
            let error = Diagnostic::error(self.source, key_span, format!("duplicate key `{}`", excerpt(&key)))
                .related(*first, "first used here")
                .help("remove one of them");
            self.report(error);
        } else {
            seen.insert(key.clone(), key_span);
            entries.push(Entry { key, key_span, node });
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("lists and maps are nested more than {DEPTH_MAX} levels deep")
}

/// Returns the message and the help text for an error of the parser.
fn explain(error: &ScanError) -> (String, &'static str) {
    match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => {
            ("YAML does not allow tabs in indentation".to_owned(), "indent with spaces")
        }
        ErrorKind::UnclosedQuotedScalar => {
            ("this quote is never closed".to_owned(), "close it with the same kind of quote")
        }
        ErrorKind::UnclosedFlowCollection { open } => {
            (format!("this `{open}` is never closed"), "close it, and put commas between the entries")
        }
        ErrorKind::MismatchedFlowCollectionEnd { open, close } => {
            (format!("`{open}` is closed by `{close}`"), "close each bracket with the matching one")
        }
        ErrorKind::MisplacedFlowCollectionEnd => (
            "this closing bracket has no opening bracket".to_owned(),
            "remove the bracket; if it belongs to a string, put the string in quotes",
        ),
        ErrorKind::UnexpectedEofFlowSequence | ErrorKind::ExpectedFlowSequenceSeparator => (
            "expected `,` or `]` in a list in brackets".to_owned(),
            "put a comma between entries, and close the list with `]`",
        ),
        ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator => (
            "expected `,` or `}` in a map in braces".to_owned(),
            "put a comma between entries, and close the map with `}`",
        ),
        ErrorKind::UnknownAnchor => (
            "this alias has no anchor before it".to_owned(),
            "mark a value with `&name` first; if a string starts with `*`, put it in quotes",
        ),
        ErrorKind::RecursionLimitExceeded => (too_deep(), "reduce the nesting"),
        ErrorKind::DirectiveDisallowed => (
            "directives are not supported in a file with `%TAG`".to_owned(),
            "remove the lines that begin with `%`; tags are not supported, so the file does not need them",
        ),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => (
            "unexpected `: ` inside a string".to_owned(),
            "put the string in quotes; if the text before `: ` is a key, put the key on a line of its own",
        ),
        ErrorKind::SimpleKeyExpected | ErrorKind::InvalidSimpleKey => (
            "this line is neither `key: value` nor a list entry".to_owned(),
            "put a colon and a space after the key, or put a string of several lines in quotes",
        ),
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => (
            "the indentation of this line does not match the lines before it".to_owned(),
            "indent all keys of a map by the same number of spaces",
        ),
        ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::BlockSequenceEntryNotAllowed => (
            "a list entry cannot start here".to_owned(),
            "indent every `- ` of a list by the same number of spaces, below the key of the list",
        ),
        ErrorKind::UnknownQuotedScalarEscape => (
            "YAML does not have this escape sequence".to_owned(),
            "use single quotes, in which a backslash has no special meaning",
        ),
        ErrorKind::UnexpectedCharacter { character } => {
            (format!("a string cannot start with `{}`", excerpt(&character.to_string())), "put the string in quotes")
        }
        ErrorKind::MissingAnchorOrAliasName => (
            "`*` starts an alias and `&` an anchor, but no name follows".to_owned(),
            "if a string starts with `*` or `&`, put it in quotes",
        ),
        _ => (
            format!("invalid YAML: {}", error.info()),
            "check this line; put strings with special characters in quotes",
        ),
    }
}
