//! The author of a change: a user of the admin API, or Evoke itself.

use std::fmt;
use std::sync::Arc;

/// The author of a change of stored data.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// Evoke itself, for example when retention removes events or when a replay ends.
    Runtime,
    /// An operator. The text is the operator's name.
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
