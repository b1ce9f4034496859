//! Manifests: YAML in, a checked form out, or every mistake at once.
//!
//! The way a manifest takes: [`load`] reads the file, `load.rs` makes a tree of it in which every node knows its
//! place, `check` walks the tree to the [`model`] and notes each mistake in [`Diagnostics`]. The JSON schema that
//! editors use is derived from the same model by [`schema::render`].

pub mod component;
pub mod diagnostics;
pub mod grants;
pub mod model;
pub mod names;
pub mod schema;
pub mod source_text;
pub mod units;

mod check;
mod forms;
mod load;
mod read;
mod suggest;
mod table;
mod tree;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;

pub use component::ComponentRef;
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use grants::{HttpOrigin, State, TypeGlob};
pub use model::*;
pub use names::{Name, OrderBy};
pub use source_text::{Position, SourceText, Span};
pub use units::ByteSize;

use std::io::Read as _;
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
    pub fn error_at(&self, span: Span, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        Diagnostic::error(&self.source, span, message).help(help)
    }
}

/// Reads and checks the manifest at a path. All its mistakes come back at once, warnings among them.
pub fn load(path: &Path) -> Result<Checked, Diagnostics> {
    let alone = |text: String, message: String, help: &str, span: Option<Span>| {
        let source = Arc::new(SourceText::new(path.to_owned(), text));
        let diagnostic = Diagnostic { span, ..Diagnostic::file_error(&source, message).help(help) };
        Err(Diagnostics::from_iter([diagnostic]))
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(load::BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if let Err(error) = read {
        return alone(
            String::new(),
            format!("cannot read the manifest: {error}"),
            "give the path of a YAML file",
            None,
        );
    }
    match String::from_utf8(bytes) {
        Ok(text) => load_str(&text, path),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let good = String::from_utf8_lossy(error.as_bytes().get(..at).unwrap_or_default()).into_owned();
            let text = good + &String::from_utf8_lossy(error.as_bytes().get(at..).unwrap_or_default());
            let byte = error.as_bytes().get(at).copied().unwrap_or_default();
            let message = format!("the byte 0x{byte:02x} is not UTF-8 text");
            alone(text, message, "save the file as UTF-8", Some(Span { start: at, end: at + '\u{fffd}'.len_utf8() }))
        }
    }
}

/// Checks a manifest that is already in memory; `path` says where it is from, and where relative paths start.
pub fn load_str(text: &str, path: &Path) -> Result<Checked, Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Arc::new(SourceText::new(path.to_owned(), text.to_owned()));
    let mut found = Vec::new();
    let manifest = match load::tree(&source, &mut found) {
        Ok(root) => check::manifest(&root, &source, &mut found),
        Err(fatal) => {
            found.push(*fatal);
            None
        }
    };
    let diagnostics: Diagnostics = found.into_iter().collect();
    match manifest {
        Some(manifest) if diagnostics.count(Severity::Error) == 0 => {
            Ok(Checked { manifest, warnings: diagnostics, source })
        }
        _ => Err(diagnostics),
    }
}
