//! The stored state of functions: values by key, in buckets. Plain data; no I/O here.
//!
//! An attempt is an optimistic transaction: the attempt records the version of each key and list of keys that it reads,
//! and buffers its writes. At the commit, the store compares the recorded versions with the current ones. If one of
//! them has changed, nothing is committed.

use std::sync::Arc;

use bytes::Bytes;

/// The number of the transaction that wrote a key or last changed a list of keys. Numbers are unique over all buckets
/// of a store. 0 means that the key does not exist.
pub type Version = u64;

/// The maximum length of a key in bytes. Several keys of this length fit into one page of the store's file, so that a
/// search for a key reads few pages.
pub const KEY_BYTES_MAX: usize = 512;

/// A stored value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The bytes of the value.
    pub value: Bytes,
    /// The version of the transaction that wrote the value; never 0.
    pub version: Version,
}

/// A part of the list of a bucket's keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// The keys, in ascending order.
    pub keys: Vec<String>,
    /// The version of the bucket's whole list of keys, to record in [`Transaction::lists`]. Each addition or deletion
    /// of a key changes the version.
    pub version: Version,
    /// True if the bucket has no further keys. If false, the part can still have fewer keys than requested: a store can
    /// end a part early if the values are large, because it reads the values, too, to verify their checksums.
    pub is_last: bool,
}

/// The size of a touched key in addition to its text and value, in bytes. The store needs a look-up for each key, and the
/// transactions that wait for their commit are limited in bytes. With this size, a few transactions with thousands of
/// short keys reach that limit, so they delay the events and outcomes behind them only briefly.
const TOUCHED_BYTES: usize = 1024;

/// A key that an attempt read, writes, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// `app/function`, or `app` for the bucket that the app's functions share.
    pub bucket: Arc<str>,
    /// The key, at most [`KEY_BYTES_MAX`] bytes.
    pub key: Arc<str>,
    /// The version that the attempt read, 0 if the key did not exist; `None` if the attempt did not read the key.
    pub seen: Option<Version>,
    /// The write; `None` if the attempt only read the key.
    pub change: Option<Change>,
}

/// A write to a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Stores this value.
    Set(Bytes),
    /// Deletes the key.
    Delete,
}

impl Change {
    /// Returns the value after the write; `None` after a deletion.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Set(value) => Some(value),
            Self::Delete => None,
        }
    }
}

/// The limits of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// The maximum number of keys.
    pub keys: u64,
    /// The maximum number of bytes, keys and values together.
    pub bytes: u64,
}

impl Quota {
    /// No limit, for writes by the operator.
    pub const NONE: Self = Self { keys: u64::MAX, bytes: u64::MAX };
}

impl Default for Quota {
    fn default() -> Self {
        Self::NONE
    }
}

/// The current size of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of keys.
    pub keys: u64,
    /// The number of bytes, keys and values together.
    pub bytes: u64,
}

impl Usage {
    /// Returns an error message if a bucket exceeds the quota after a change. `self` is the usage after the change,
    /// `before` the usage before it. If the bucket exceeded the quota before the change, it may shrink, but not grow.
    pub fn quota_error(self, before: Self, bucket: &str, quota: Quota) -> Option<String> {
        let raise = |key: &str| format!("raise the limit with `allow: {{ state: {{ {key}: … }} }}`");
        if self.keys > quota.keys && self.keys > before.keys {
            let (keys, max) = (self.keys, quota.keys);
            let how = raise("max_keys");
            return Some(format!("the bucket {bucket} would have {keys} keys; the limit is {max}; {how}"));
        }
        if self.bytes > quota.bytes && self.bytes > before.bytes {
            let (bytes, max) = (self.bytes, quota.bytes);
            let how = raise("max_total");
            return Some(format!("the bucket {bucket} would hold {bytes} bytes; the limit is {max} bytes; {how}"));
        }
        None
    }

    /// Returns the usage after the size of the value of `key` has changed from `old` to `new` bytes. `None` means that
    /// the key does not exist.
    pub fn after(self, key: &str, old: Option<usize>, new: Option<usize>) -> Self {
        let size = |value: Option<usize>| value.map_or(0, |value| (key.len() + value) as u64);
        let count = |value: Option<usize>| u64::from(value.is_some());
        Self {
            keys: (self.keys + count(new)).saturating_sub(count(old)),
            bytes: (self.bytes + size(new)).saturating_sub(size(old)),
        }
    }
}

/// The state that an attempt read and wrote. Empty for an attempt that did not use state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// The keys that the attempt read or writes, each once.
    pub keys: Vec<Touched>,
    /// The buckets whose keys the attempt listed, each with the version of the list that the attempt read.
    pub lists: Vec<(Arc<str>, Version)>,
    /// The limits that each bucket must satisfy after the writes.
    pub quota: Quota,
    /// The version of the writes, if it was assigned before the commit. 0 if the commit assigns it.
    pub version: Version,
}

impl Transaction {
    /// Returns true if the attempt neither read, wrote nor listed state.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.lists.is_empty()
    }

    /// Returns the size of the keys and of the written values, in bytes.
    pub fn content_size(&self) -> usize {
        let value = |touched: &Touched| touched.change.as_ref().and_then(Change::value).map_or(0, Bytes::len);
        self.keys.iter().map(|touched| touched.key.len() + value(touched)).sum()
    }

    /// Returns the size for the limits of commits, in bytes: that of the content, and [`TOUCHED_BYTES`] for each key.
    pub fn size(&self) -> usize {
        self.content_size() + TOUCHED_BYTES * self.keys.len()
    }

    /// Returns the transaction with its reads only.
    #[must_use]
    pub fn without_writes(mut self) -> Self {
        self.keys.retain_mut(|touched| {
            touched.change = None;
            touched.seen.is_some()
        });
        self
    }
}

/// A key of a bucket, or a bucket's list of keys. Attempts conflict if one of them changes an item after another one
/// has read it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StateItem {
    /// `app/function`, or `app` for the bucket that the app's functions share.
    pub bucket: Arc<str>,
    /// The key; `None` means the list of the bucket's keys.
    pub key: Option<Arc<str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_short_keys_make_a_transaction_large() {
        let key = |n: usize| Touched { bucket: "a/f".into(), key: n.to_string().into(), seen: Some(0), change: None };
        let transaction = Transaction { keys: (0..10_000).map(key).collect(), ..Transaction::default() };
        assert!(transaction.size() > 10_000 * TOUCHED_BYTES);
    }

    #[test]
    fn a_bucket_over_its_quota_may_shrink_and_not_grow() {
        let quota = Quota { keys: 2, bytes: 20 };
        let full = Usage { keys: 3, bytes: 30 };
        assert_eq!(full.after("key", Some(7), None), Usage { keys: 2, bytes: 20 });
        assert!(full.after("key", Some(7), Some(3)).quota_error(full, "shop/a", quota).is_none());
        let error = full.after("key", None, Some(0)).quota_error(full, "shop/a", quota).unwrap();
        assert!(error.contains("4 keys") && error.contains("max_keys"), "{error}");
        let error = full.after("key", Some(7), Some(8)).quota_error(full, "shop/a", quota).unwrap();
        assert!(error.contains("31 bytes") && error.contains("max_total"), "{error}");
        assert!(full.after("key", Some(7), Some(8)).quota_error(full, "shop", Quota::NONE).is_none());
    }
}
