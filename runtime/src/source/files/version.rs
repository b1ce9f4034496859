//! What is known of a file: the outside, that every look sees, and the content, that takes reading.

use serde::{Deserialize, Serialize};

/// What tells without reading whether a file is another than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// Bytes.
    pub(super) size: u64,
    /// When the content was changed last, in nanoseconds since the Unix epoch.
    pub(super) mtime_ns: i64,
    /// When anything of the file was changed last, in nanoseconds since the Unix epoch: no program can set it back.
    pub(super) ctime_ns: i64,
    /// Which file it is.
    pub(super) inode: u64,
}

/// A version of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    /// Its outside.
    #[serde(flatten)]
    pub(super) stamp: Stamp,
    /// The SHA-256 of its content, in lower-case hex.
    pub(super) sha256: String,
}

#[derive(Serialize, Deserialize)]
struct Noted<T> {
    v: u32,
    #[serde(flatten)]
    value: T,
}

/// Writes a mark.
pub(super) fn to_mark<T: Serialize>(value: &T) -> Vec<u8> {
    // Numbers and strings always serialise.
    serde_json::to_vec(&Noted { v: 1, value }).unwrap_or_default()
}

/// Reads a mark; `None` when it is of another make.
pub(super) fn from_mark<T: for<'de> Deserialize<'de>>(mark: &[u8]) -> Option<T> {
    serde_json::from_slice::<Noted<T>>(mark).ok().filter(|noted| noted.v == 1).map(|noted| noted.value)
}
