//! The keys of the grants of a function. The runtime records the use of each grant under its key.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The maximum number of different values, such as published types, that are recorded for one grant. If a function used
/// fewer values than this, Evoke can propose a list of these values in place of the glob in the manifest.
pub const GRANT_VALUES_MAX: usize = 6;

/// The kind of permission that a grant gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GrantKind {
    /// To publish events of the types that match a glob.
    Publish,
    /// To use the function's own bucket of stored state.
    State,
    /// To use the bucket that the functions of the app share.
    SharedState,
    /// To send requests to an origin.
    Http,
    /// To reach an address that is not on the public internet. [`GrantKey::name`] is the origin, a space and the
    /// address.
    Address,
    /// To read a setting.
    Config,
    /// To read a secret, or to have it inserted into requests.
    Secret,
}

/// One entry of a function's `allow:`. Keys are sorted by kind, in the order of [`GrantKind`], and then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GrantKey {
    /// The kind of permission.
    pub kind: GrantKind,
    /// The glob of event types, the origin, or the name of the setting or secret; empty for state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl GrantKind {
    /// Returns the key of a grant of this kind.
    pub fn key(self, name: impl Into<String>) -> GrantKey {
        GrantKey { kind: self, name: name.into() }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::State => "state",
            Self::SharedState => "state shared",
            Self::Http => "http",
            Self::Address => "address",
            Self::Config => "config",
            Self::Secret => "secret",
        }
    }
}

/// Writes the kind and the name, such as `publish payment.*`.
impl fmt::Display for GrantKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => f.write_str(self.kind.label()),
            name => write!(f, "{} {name}", self.kind.label()),
        }
    }
}
