//! The version of a file: the metadata and the hash of the content. A scan reads only the metadata. For the hash, the
//! whole file must be read.

use serde::{Deserialize, Serialize};

/// The metadata of a file. If it is unchanged, the file need not be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// The size of the file in bytes.
    pub(super) size: u64,
    /// The time of the last change of the content, in nanoseconds since the Unix epoch.
    pub(super) mtime_ns: i64,
    /// The time of the last change of content or metadata, in nanoseconds since the Unix epoch. Programs cannot set
    /// this time.
    pub(super) ctime_ns: i64,
    /// The inode number. The number changes if another file gets the name.
    pub(super) inode: u64,
}

/// A version of a file, as stored in its mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    #[serde(flatten)]
    pub(super) stamp: Stamp,
    /// The SHA-256 of the content, in lower-case hex; empty if the content was not read.
    pub(super) sha256: String,
}

impl Version {
    /// Returns true if both versions have the same content. If the content of one version was not read, compares size,
    /// time of modification and inode instead.
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
    // Serialising numbers and strings cannot fail.
    serde_json::to_vec(&Versioned { v: 1, value }).unwrap_or_default()
}

/// Parses a mark; `None` if it has another format version.
pub(super) fn from_mark<T: for<'de> Deserialize<'de>>(mark: &[u8]) -> Option<T> {
    serde_json::from_slice::<Versioned<T>>(mark)
        .ok()
        .filter(|versioned| versioned.v == 1)
        .map(|versioned| versioned.value)
}
