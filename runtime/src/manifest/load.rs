//! Reads a manifest: the only place that knows which YAML parser there is.

use super::diagnostics::{Diagnostic, Diagnostics};
use super::model::Manifest;
use super::source_text::{SourceText, Span};
use std::path::Path;
use std::sync::Arc;

/// A manifest without errors.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The checked form.
    pub manifest: Manifest,
    /// What is probably not meant.
    pub warnings: Diagnostics,
    /// The text it came from.
    pub source: Arc<SourceText>,
}

impl Checked {
    /// An error that a later check finds, such as a component whose imports are not granted.
    pub fn error_at(
        &self,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::error(&self.source, span, message).help(help)
    }
}

/// Reads and checks the manifest at a path. All its mistakes come back at once.
pub fn load(path: &Path) -> Result<Checked, Diagnostics> {
    load_str("", path)
}

/// Checks a manifest that is already in memory; `path` says where it is from, and where relative paths start.
pub fn load_str(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    let source = Arc::new(SourceText::new(path.to_owned(), text.to_owned()));
    Err(std::iter::once(Diagnostic::file_error(&source, "not read yet")).collect())
}
