//! Manifests: YAML in, a checked form out, or every mistake at once.
//!
//! The way a manifest takes: [`load`] reads the file, `yaml` makes a tree of it in which every node knows its
//! place, `check` walks the tree to the [`model`] and notes each mistake in [`Diagnostics`]. The JSON schema
//! that editors use is derived from the same model by [`schema::render`].

pub mod diagnostics;
pub mod model;
pub mod names;
//pub mod schema;
pub mod source_text;
pub mod units;

//mod check;
mod forms;
mod load;
//mod read;
//mod suggest;
//mod tree;

//#[cfg(test)]
//mod golden;
//#[cfg(test)]
//mod hostile;

pub use diagnostics::{Diagnostic, Diagnostics, Severity};
pub use load::{Checked, load, load_str};
pub use model::*;
pub use names::{ComponentRef, HttpOrigin, Name, OrderBy, TypeGlob};
pub use source_text::{SourceText, Span};
pub use units::ByteSize;
