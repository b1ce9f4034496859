//! Whether a transaction of state stands: the same for every backend.

use std::sync::Arc;

use crate::state::{Change, StateItem, Transaction, Usage, Version};

/// What a backend knows of a bucket beside its keys.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    pub(super) usage: Usage,
    /// The last write of this process that made a key come or go.
    pub(super) members: Version,
}

/// A key as it is when the transaction is to be committed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) version: Version,
    /// Of the value, in bytes.
    pub(super) size: usize,
}

/// What is judged against.
pub(super) trait Kept {
    type Error;
    fn find(&self, bucket: &str, key: &str) -> Result<Option<Found>, Self::Error>;
    fn bucket(&self, name: &str) -> Bucket;
}

pub(super) enum Judged {
    Stands(Stands),
    Conflict(StateItem),
    OverQuota(String),
}

/// What the changes of a transaction come to.
#[derive(Default)]
pub(super) struct Stands {
    /// The buckets that it changes, with what they will hold, and whether a key comes or goes.
    pub(super) buckets: Vec<(Arc<str>, Usage, bool)>,
    /// How many of the changed keys were there before.
    pub(super) existed: u64,
}

pub(super) fn judge<K: Kept>(kept: &K, transaction: &Transaction) -> Result<Judged, K::Error> {
    for (bucket, version) in &transaction.lists {
        if kept.bucket(bucket).members != *version {
            return Ok(Judged::Conflict(StateItem { bucket: bucket.clone(), key: None }));
        }
    }
    let mut stands = Stands::default();
    for touched in &transaction.keys {
        let found = kept.find(&touched.bucket, &touched.key)?;
        if touched.seen.is_some_and(|seen| seen != found.map_or(0, |found| found.version)) {
            let (bucket, key) = (touched.bucket.clone(), Some(touched.key.clone()));
            return Ok(Judged::Conflict(StateItem { bucket, key }));
        }
        if let Some(change) = &touched.change {
            stands.change(kept, &touched.bucket, &touched.key, found, change);
        }
    }
    for (bucket, usage, _) in &stands.buckets {
        if let Some(refusal) = usage.quota_error(kept.bucket(bucket).usage, bucket, transaction.quota) {
            return Ok(Judged::OverQuota(refusal));
        }
    }
    Ok(Judged::Stands(stands))
}

impl Stands {
    fn change<K: Kept>(&mut self, kept: &K, bucket: &Arc<str>, key: &str, found: Option<Found>, change: &Change) {
        // An attempt has two buckets at most.
        let at = self.buckets.iter().position(|(name, ..)| name == bucket).unwrap_or_else(|| {
            self.buckets.push((bucket.clone(), kept.bucket(bucket).usage, false));
            self.buckets.len() - 1
        });
        let Some((_, usage, members)) = self.buckets.get_mut(at) else { return };
        let new = change.value().map(bytes::Bytes::len);
        *usage = usage.after(key, found.map(|found| found.size), new);
        *members |= found.is_some() != new.is_some();
        self.existed += u64::from(found.is_some());
    }
}
