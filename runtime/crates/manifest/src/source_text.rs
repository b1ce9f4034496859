//! The text of a manifest with its path, and positions in it.

use std::path::PathBuf;

/// A range of a manifest's text: bytes `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Byte offset of the first byte.
    pub start: usize,
    /// Byte offset after the last byte.
    pub end: usize,
}

/// Text of a manifest. Diagnostics show lines of this text.
#[derive(Debug)]
pub struct SourceText {
    /// Path as the caller gave it.
    pub path: PathBuf,
    /// Content of the file, without a byte order mark.
    pub text: String,
    line_starts: Vec<usize>,
}

/// A line and a column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl SourceText {
    /// Stores the text and the offset of each line.
    pub fn new(path: PathBuf, text: String) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(after_breaks).collect();
        Self { path, text, line_starts }
    }

    /// Returns the line and column of a byte offset. An offset past the end counts as the end of the text.
    pub fn position(&self, offset: usize) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..offset.min(self.text.len())).unwrap_or("");
        Position { line, column: before.chars().count() + 1 }
    }

    /// Returns the byte range of a line, without its line break. `line` counts from 1.
    pub fn line_range(&self, line: usize) -> std::ops::Range<usize> {
        let start = self.line_starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len());
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        let text = self.text.get(start..end).unwrap_or("");
        start..start + text.trim_end_matches('\r').len()
    }

    /// Returns the number of lines. An empty text has one line.
    pub fn lines(&self) -> usize {
        self.line_starts.len()
    }
}
