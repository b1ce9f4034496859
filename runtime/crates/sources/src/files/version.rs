//! The known version of a file: its metadata, which every scan reads, and its content hash, which requires reading the
//! file.

use serde::{Deserialize, Serialize};

/// The metadata that shows without reading whether a file has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// The file's length in bytes.
    pub(super) size: u64,
    /// The last change of the content, in nanoseconds since the Unix epoch.
    pub(super) mtime_ns: i64,
    /// The last change of content or metadata, in nanoseconds since the Unix epoch. No program can set it back.
    pub(super) ctime_ns: i64,
    /// The inode number, which differs when another file took over the name.
    pub(super) inode: u64,
}

/// A version of a file, as stored in its mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    #[serde(flatten)]
    pub(super) stamp: Stamp,
    /// The SHA-256 of the content, in lower-case hex; empty when the content was not read.
    pub(super) sha256: String,
}

impl Version {
    /// Whether both versions have the same content. If the content of one of them was not read, they count as equal
    /// when size, time of modification and inode are equal.
    pub(super) fn has_content_of(&self, other: &Self) -> bool {
        if self.sha256.is_empty() || other.sha256.is_empty() {
            let what = |version: &Self| (version.stamp.size, version.stamp.mtime_ns, version.stamp.inode);
            return what(self) == what(other);
        }
        self.sha256 == other.sha256
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(flatten)]
    value: T,
}

/// Serialises a mark in format version 1.
pub(super) fn to_mark<T: Serialize>(value: &T) -> Vec<u8> {
    // Numbers and strings always serialise.
    serde_json::to_vec(&Versioned { v: 1, value }).unwrap_or_default()
}

/// Parses a mark; `None` when it is of another format version.
pub(super) fn from_mark<T: for<'de> Deserialize<'de>>(mark: &[u8]) -> Option<T> {
    serde_json::from_slice::<Versioned<T>>(mark)
        .ok()
        .filter(|versioned| versioned.v == 1)
        .map(|versioned| versioned.value)
}
