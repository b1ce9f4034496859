//! The JSON form of tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The rights of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Reads everything except tokens and recordings, and changes nothing
    Viewer,
    /// Reads and changes everything
    Operator,
}

/// A token, without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// Name of the token; `owner` for the one in `admin.token`.
    pub name: String,
    /// The rights of the token.
    pub role: Role,
    /// When the token was made; for the owner's token, when the process started.
    pub created: String,
    /// When the token expires; absent if it never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// True if the token has expired.
    #[serde(default)]
    pub expired: bool,
}

/// Request for a new token.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRequest {
    /// Name of the token: at most 64 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// The rights of the token.
    pub role: Role,
    /// Number of seconds after which the token expires; absent for a token that never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_s: Option<u64>,
}

/// A new token. The secret is in this response only, and not in `Debug` output.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewToken {
    /// Name of the token.
    pub name: String,
    /// The rights of the token.
    pub role: Role,
    /// The secret, to send as `Authorization: Bearer TOKEN`.
    pub token: String,
    /// When the token expires; absent if it never expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, role, token: _, expires } = self;
        let mut shown = f.debug_struct("NewToken");
        shown.field("name", name).field("role", role).field("expires", expires).finish_non_exhaustive()
    }
}
