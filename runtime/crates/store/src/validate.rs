//! Checks, before a state transaction is committed, whether the transaction conflicts with other commits or exceeds a
//! quota. All backends use these checks.

use std::sync::Arc;

use evoke_model::state::{Change, StateItem, Transaction, Usage, Version};

/// A bucket's metadata.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// Keys and bytes that the bucket holds.
    pub usage: Usage,
    /// Version of the last write that created or deleted a key in the bucket; 0 if there was none since the process
    /// started.
    pub members: Version,
}

/// A key of the committed state, as found when a transaction is validated.
#[derive(Debug, Clone, Copy)]
pub struct CommittedKey {
    /// Version of the transaction that wrote the value.
    pub version: Version,
    /// Size of the value in bytes.
    pub size: usize,
}

/// The committed state that a transaction is validated against.
pub trait CommittedState {
    /// Why the committed state cannot be read.
    type Error;
    /// Finds a committed key; `None` if the bucket does not have it.
    fn find(&self, bucket: &str, key: &str) -> Result<Option<CommittedKey>, Self::Error>;
    /// Returns the metadata of a bucket; all zero for an unknown bucket.
    fn bucket(&self, name: &str) -> Bucket;
}

/// The result of [`validate`].
pub enum Validation {
    /// The transaction may commit, with these effects.
    Valid(Valid),
    /// The first item that this transaction read and that another transaction has changed since.
    Conflict(StateItem),
    /// A message that names the bucket that would exceed its quota, and the setting that raises the quota.
    OverQuota(String),
}

/// The effects of a valid transaction.
#[derive(Default)]
pub struct Valid {
    /// Each changed bucket, with its new usage. The flag is true if the transaction creates or deletes a key in the
    /// bucket.
    pub buckets: Vec<(Arc<str>, Usage, bool)>,
    /// Number of changed keys that existed before.
    pub existed: u64,
}

/// Checks that the values that the transaction read have not changed since the read, and that its writes fit the quota.
pub fn validate<C: CommittedState>(committed: &C, transaction: &Transaction) -> Result<Validation, C::Error> {
    for (bucket, version) in &transaction.lists {
        if committed.bucket(bucket).members != *version {
            return Ok(Validation::Conflict(StateItem { bucket: bucket.clone(), key: None }));
        }
    }
    let mut valid = Valid::default();
    for touched in &transaction.keys {
        let found = committed.find(&touched.bucket, &touched.key)?;
        if touched.seen.is_some_and(|seen| seen != found.map_or(0, |found| found.version)) {
            let (bucket, key) = (touched.bucket.clone(), Some(touched.key.clone()));
            return Ok(Validation::Conflict(StateItem { bucket, key }));
        }
        if let Some(change) = &touched.change {
            valid.change(committed, &touched.bucket, &touched.key, found, change);
        }
    }
    for (bucket, usage, _) in &valid.buckets {
        if let Some(refusal) = usage.quota_error(committed.bucket(bucket).usage, bucket, transaction.quota) {
            return Ok(Validation::OverQuota(refusal));
        }
    }
    Ok(Validation::Valid(valid))
}

impl Valid {
    fn change<C: CommittedState>(
        &mut self,
        committed: &C,
        bucket: &Arc<str>,
        key: &str,
        found: Option<CommittedKey>,
        change: &Change,
    ) {
        // A linear search, because an attempt has at most two buckets: the bucket of the function and the shared bucket
        // of the app.
        let at = self.buckets.iter().position(|(name, ..)| name == bucket).unwrap_or_else(|| {
            self.buckets.push((bucket.clone(), committed.bucket(bucket).usage, false));
            self.buckets.len() - 1
        });
        let Some((_, usage, members)) = self.buckets.get_mut(at) else { return };
        let new = change.value().map(bytes::Bytes::len);
        *usage = usage.after(key, found.map(|found| found.size), new);
        *members |= found.is_some() != new.is_some();
        self.existed += u64::from(found.is_some());
    }
}
