//! The author of a change: a user of the admin API, or Evoke itself.

use std::fmt;
use std::sync::Arc;

/// The author of a change of stored data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// Evoke itself, e.g. retention, or a replay that ends.
    Runtime,
    /// An operator, by name.
    Operator(Arc<str>),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Runtime => f.write_str("the runtime"),
            Self::Operator(name) => write!(f, "the operator {name}"),
        }
    }
}
