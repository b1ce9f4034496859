//! Manifests: converts YAML to a checked [`Manifest`], or reports all mistakes together.
//!
//! The steps: [`load`] reads the file. `load.rs` builds a tree in which every node has its span. `check` converts the
//! tree to the [`model`] and collects each mistake in [`Diagnostics`]. [`schema::render`] derives the JSON schema for
//! editors from the same model.
//!
//! The kinds of sources are not part of this crate. Callers pass them as a [`Registry`], and each kind parses its own
//! settings with the helpers in [`parser`].

pub mod component;
pub mod deliver;
pub mod diagnostics;
pub mod grants;
mod header_template;
pub mod hmac;
pub mod model;
pub mod names;
pub mod parser;
pub mod paths;
mod record;
pub mod schema;
pub mod secret;
pub mod source;
pub mod source_text;
pub mod template;
pub mod test_file;
pub mod trust;
pub mod units;

mod check;
mod load;

pub use component::ComponentRef;
pub use deliver::Deliver;
pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use grants::{StateLimits, TypeGlob};
pub use header_template::HeaderTemplate;
pub use hmac::HmacFormat;
pub use model::*;
pub use names::{Name, OrderBy};
pub use record::Record;
pub use secret::{NamedSecret, SecretList, SecretRef};
pub use source::{Place, Registry, Settings, Source, SourceKind};
pub use source_text::{Position, SourceText, Span};
pub use template::Template;
pub use test_file::TestFile;
pub use trust::Trust;
pub use units::ByteSize;

use evoke_pattern::Pattern;
use load::FileKind;
use parser::{Node, Reader};
#[cfg(feature = "test-util")]
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

/// A manifest without errors.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The manifest, with all names resolved and all defaults filled in.
    pub manifest: Manifest,
    /// Probable mistakes that do not stop the app from running.
    pub warnings: Diagnostics,
    /// The text of the file. Diagnostics of later checks show lines of it.
    pub source: Arc<SourceText>,
}

impl Checked {
    /// Builds an error for a check that runs after loading, such as the check of a component's imports.
    pub fn error_at(&self, span: Span, message: impl Into<String>, help: impl Into<String>) -> Diagnostic {
        Diagnostic::error(&self.source, span, message).help(help)
    }
}

/// Reads and checks the manifest at `path`. `kinds` are the kinds of sources that the manifest can have.
///
/// # Errors
/// If at least one diagnostic is an error, returns all diagnostics, including the warnings.
pub fn load(path: &Path, kinds: &Registry) -> Result<Checked, Diagnostics> {
    load_str(&read_text(path, &load::MANIFEST)?, path, kinds)
}

/// Reads a YAML file. Reads at most one byte more than the limit, so that the loader can report a file that is too
/// large.
fn read_text(path: &Path, kind: &FileKind) -> Result<String, Diagnostics> {
    let single_error = |text: String, message: String, help: &str, span: Option<Span>| {
        let source = Arc::new(SourceText::new(path.to_owned(), text));
        let diagnostic = Diagnostic { span, ..Diagnostic::file_error(&source, message).help(help) };
        Err(Diagnostics::from_iter([diagnostic]))
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(load::BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let read = evoke_fs::open_regular(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    if let Err(error) = read {
        return single_error(
            String::new(),
            format!("cannot read the {}: {error}", kind.name),
            "give the path of a YAML file",
            None,
        );
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let valid = String::from_utf8_lossy(error.as_bytes().get(..at).unwrap_or_default()).into_owned();
            let text = valid + &String::from_utf8_lossy(error.as_bytes().get(at..).unwrap_or_default());
            let byte = error.as_bytes().get(at).copied().unwrap_or_default();
            let message = format!("the byte 0x{byte:02x} is not valid UTF-8");
            single_error(
                text,
                message,
                "save the file as UTF-8",
                Some(Span { start: at, end: at + '\u{fffd}'.len_utf8() }),
            )
        }
    }
}

/// Checks a manifest that is already in memory. Diagnostics show `path`, and relative paths in the manifest start in
/// the folder of `path`.
///
/// # Errors
/// Returns the same errors as [`load`].
pub fn load_str(text: &str, path: &Path, kinds: &Registry) -> Result<Checked, Diagnostics> {
    let (manifest, warnings, source) =
        check_text(text, path, &load::MANIFEST, |reader, root| check::read(reader, root, kinds))?;
    Ok(Checked { manifest, warnings, source })
}

/// Builds the tree of a text, and reads the tree with `read`. Returns the result, the warnings, and the text with its
/// path. Returns all diagnostics if at least one is an error.
fn check_text<T>(
    text: &str,
    path: &Path,
    kind: &FileKind,
    read: impl FnOnce(&mut Reader<'_>, &Node) -> Option<T>,
) -> Result<(T, Diagnostics, Arc<SourceText>), Diagnostics> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = Arc::new(SourceText::new(path.to_owned(), text.to_owned()));
    let mut found = Vec::new();
    let result = match load::tree(&source, kind, &mut found) {
        Ok(root) => read(&mut Reader::new(&source, &mut found), &root),
        Err(fatal) => {
            found.push(*fatal);
            None
        }
    };
    let diagnostics: Diagnostics = found.into_iter().collect();
    match result {
        Some(result) if diagnostics.count(Severity::Error) == 0 => Ok((result, diagnostics, source)),
        _ => Err(diagnostics),
    }
}

/// Checks an event pattern that is not part of a manifest. The messages are those of the key `events` of a trigger.
/// Also returns the warnings. Untrusted text is allowed: no other part of a manifest is read, and no file is opened.
///
/// # Errors
/// If at least one diagnostic is an error, returns all diagnostics, including the warnings.
pub fn pattern_str(text: &str, path: &Path) -> Result<(Pattern, Diagnostics), Diagnostics> {
    let (events, warnings, _) = check_text(text, path, &load::PATTERN, check::pattern)?;
    Ok((events.pattern, warnings))
}

/// Returns the keys that the checks looked up in this manifest, by the name of the schema type. If the manifest uses
/// every key, these are all keys that the loader accepts.
#[cfg(feature = "test-util")]
pub fn requested_keys(text: &str, path: &Path, kinds: &Registry) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let source = Arc::new(SourceText::new(path.to_owned(), text.to_owned()));
    let mut found = Vec::new();
    let Ok(root) = load::tree(&source, &load::MANIFEST, &mut found) else {
        return BTreeMap::new();
    };
    let mut reader = Reader::new(&source, &mut found);
    check::read(&mut reader, &root, kinds);
    reader.requested
}
