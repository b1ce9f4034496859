//! Helpers that read typed values from the tree of a manifest and report each mistake as a diagnostic.
//!
//! A [`SourceKind`](crate::SourceKind) parses its settings with these types:
//! - [`Node`] is a value of the manifest with its [`Span`], the byte range for diagnostics.
//! - [`Reader`] converts nodes to numbers, durations, sizes, strings and lists, and collects the diagnostics.
//! - [`Table`] reads a map with a fixed set of keys, and reports missing and unknown keys.
//! - [`ValueError`] is the error of a function that parses one string. [`Reader::parse_text`] adds the position.
//! - [`one_of`] parses a name of a fixed set, [`nearest`] finds the valid name that is most similar to a wrong one,
//!   and [`excerpt`] prepares a text of the manifest for a message.

mod reader;
mod suggest;
mod table;
mod tree;

pub use crate::diagnostics::{ValueError, excerpt};
pub use crate::source_text::Span;
pub use reader::Reader;
pub use suggest::{join_with_and, join_with_or, nearest, one_of};
pub use table::Table;
pub use tree::{Entry, Node, Resolved, Scalar, Value};
pub(crate) use tree::{Expanded, MERGE_KEY};
