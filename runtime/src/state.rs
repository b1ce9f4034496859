//! What functions keep from one event to the next: values by key, in buckets. Plain data; no I/O here.
//!
//! An attempt is a transaction. What it read is remembered with the version that it saw, what it writes is kept
//! aside, and both are judged when it is committed: it stands only if nothing that it read has changed meanwhile.

use std::sync::Arc;

use bytes::Bytes;

/// Names what was written, over all buckets of a store: no two transactions have the same. 0 is that of a key that is
/// not there.
pub type Version = u64;

/// The longest key, in bytes: a few dozen fit a page of the store.
pub const KEY_BYTES_MAX: usize = 512;

/// A value as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is kept.
    pub value: Bytes,
    /// The transaction that wrote it; never 0.
    pub version: Version,
}

/// A page of a bucket's keys, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// The keys.
    pub keys: Vec<String>,
    /// What [`Transaction::lists`] takes: another one after every key that comes or goes.
    pub version: Version,
}

/// A key that an attempt read, writes, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// `app/function`, or `app` for the bucket that the app's functions share.
    pub bucket: Arc<str>,
    /// The key.
    pub key: Arc<str>,
    /// The version that was seen, 0 where there was nothing; `None` when it was not read.
    pub seen: Option<Version>,
    /// What becomes of it; `None` when it was only read.
    pub change: Option<Change>,
}

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It has this value.
    Set(Bytes),
    /// It is gone.
    Delete,
}

impl Change {
    /// The value that there is after it.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Set(value) => Some(value),
            Self::Delete => None,
        }
    }
}

/// How much a bucket may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values together.
    pub bytes: u64,
}

impl Quota {
    /// No limit, for what a person writes.
    pub const NONE: Self = Self { keys: u64::MAX, bytes: u64::MAX };
}

impl Default for Quota {
    fn default() -> Self {
        Self::NONE
    }
}

/// What a bucket holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values together.
    pub bytes: u64,
}

impl Usage {
    /// Why a bucket that held `before` may not come to hold this. One that is over its quota may shrink.
    pub fn refusal(self, before: Self, bucket: &str, quota: Quota) -> Option<String> {
        let raise = |key: &str| format!("raise it with `allow: {{ state: {{ {key}: … }} }}`");
        if self.keys > quota.keys && self.keys > before.keys {
            let (keys, max) = (self.keys, quota.keys);
            let how = raise("max_keys");
            return Some(format!("the bucket {bucket} would have {keys} keys, and {max} are its most; {how}"));
        }
        if self.bytes > quota.bytes && self.bytes > before.bytes {
            let (bytes, max) = (self.bytes, quota.bytes);
            let how = raise("max_total");
            return Some(format!("the bucket {bucket} would hold {bytes} bytes, and {max} are its most; {how}"));
        }
        None
    }

    /// What it is after a key's value of `old` bytes became one of `new` bytes; `None` where there is none.
    pub fn after(self, key: &str, old: Option<usize>, new: Option<usize>) -> Self {
        let size = |value: Option<usize>| value.map_or(0, |value| (key.len() + value) as u64);
        let count = |value: Option<usize>| u64::from(value.is_some());
        Self {
            keys: (self.keys + count(new)).saturating_sub(count(old)),
            bytes: (self.bytes + size(new)).saturating_sub(size(old)),
        }
    }
}

/// What an attempt read and writes. Empty for one that uses no state, which then costs nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Each key once.
    pub keys: Vec<Touched>,
    /// The buckets whose keys were listed, with the version of the list.
    pub lists: Vec<(Arc<str>, Version)>,
    /// What each bucket may hold after it.
    pub quota: Quota,
    /// That of what it writes, when it is known before the commit; else 0.
    pub version: Version,
}

impl Transaction {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.lists.is_empty()
    }

    /// Its payload in bytes, roughly.
    pub fn size(&self) -> usize {
        let value = |touched: &Touched| touched.change.as_ref().and_then(Change::value).map_or(0, Bytes::len);
        self.keys.iter().map(|touched| touched.key.len() + value(touched)).sum()
    }

    /// The same without what it writes.
    #[must_use]
    pub fn only_reads(mut self) -> Self {
        self.keys.retain_mut(|touched| {
            touched.change = None;
            touched.seen.is_some()
        });
        self
    }
}

/// Something that can change between an attempt's read and its commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// The bucket.
    pub bucket: Arc<str>,
    /// The key; `None` is the list of the bucket's keys.
    pub key: Option<Arc<str>>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_over_its_quota_may_shrink_and_not_grow() {
        let quota = Quota { keys: 2, bytes: 20 };
        let full = Usage { keys: 3, bytes: 30 };
        assert_eq!(full.after("key", Some(7), None), Usage { keys: 2, bytes: 20 });
        assert!(full.after("key", Some(7), Some(3)).refusal(full, "shop/a", quota).is_none());
        let refusal = full.after("key", None, Some(0)).refusal(full, "shop/a", quota).unwrap();
        assert!(refusal.contains("4 keys") && refusal.contains("max_keys"), "{refusal}");
        let refusal = full.after("key", Some(7), Some(8)).refusal(full, "shop/a", quota).unwrap();
        assert!(refusal.contains("31 bytes") && refusal.contains("max_total"), "{refusal}");
        assert!(full.after("key", Some(7), Some(8)).refusal(full, "shop", Quota::NONE).is_none());
    }
}
