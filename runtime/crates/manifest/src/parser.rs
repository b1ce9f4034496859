//! Parser helpers: typed values from the tree of a manifest, with a diagnostic for each mistake.
//!
//! A [`SourceKind`](crate::SourceKind) parses its settings with these types:
//! - [`Node`] is a value of the manifest with its [`Span`], the byte range for diagnostics.
//! - [`Reader`] converts nodes to numbers, durations, sizes, strings and lists, and collects the diagnostics.
//! - [`Table`] reads a map with a fixed set of keys, and reports missing and unknown keys.
//! - [`ValueError`] is the error of a parser of one string; [`Reader::parse_text`] adds the position.
//! - [`one_of`] parses a name of a fixed set, [`nearest`] finds the known name that is most similar to an unknown one,
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
pub(crate) use tree::MERGE_KEY;
pub use tree::{Entry, Node, Resolved, Scalar, Value};
