//! Functions' state in maps.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ops::Bound;
use std::sync::Arc;

use crate::validate::{Bucket, CommittedKey, CommittedState, Valid, Validation, validate};
use evoke_model::state::{Change, Entry, Keys, Transaction, Usage, Version};

type Entries = BTreeMap<Arc<str>, Entry>;

#[derive(Default)]
pub(super) struct Buckets {
    buckets: BTreeMap<Arc<str>, (Bucket, Entries)>,
    /// Version of the last write.
    version: Version,
}

impl CommittedState for Buckets {
    type Error = Infallible;

    fn find(&self, bucket: &str, key: &str) -> Result<Option<CommittedKey>, Infallible> {
        let found = |entry: Entry| CommittedKey { version: entry.version, size: entry.value.len() };
        Ok(self.get(bucket, key).map(found))
    }

    fn bucket(&self, name: &str) -> Bucket {
        self.buckets.get(name).map(|(bucket, _)| *bucket).unwrap_or_default()
    }
}

impl Buckets {
    pub(super) fn get(&self, bucket: &str, key: &str) -> Option<Entry> {
        self.buckets.get(bucket)?.1.get(key).cloned()
    }

    pub(super) fn keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> Keys {
        let Some((bucket, entries)) = self.buckets.get(bucket) else {
            return Keys { is_last: true, ..Keys::default() };
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let keys = entries.range::<str, _>((from, Bound::Unbounded)).take(limit).map(|(key, _)| key.to_string());
        let keys: Vec<String> = keys.collect();
        Keys { is_last: keys.len() < limit, keys, version: bucket.members }
    }

    pub(super) fn usages(&self) -> BTreeMap<String, Usage> {
        let held = self.buckets.iter().filter(|(_, (bucket, _))| bucket.usage.keys > 0);
        held.map(|(name, (bucket, _))| (name.to_string(), bucket.usage)).collect()
    }

    pub(super) fn validate(&self, transaction: &Transaction) -> Validation {
        let Ok(validation) = validate(self, transaction);
        validation
    }

    /// Moves the keys of the bucket `from` to the bucket `to`, which must have no keys. Returns the number of moved
    /// keys.
    pub(super) fn rename(&mut self, from: &str, to: &str) -> u64 {
        let Some((bucket, entries)) = self.buckets.get_mut(from).filter(|(bucket, _)| bucket.usage.keys > 0) else {
            return 0;
        };
        self.version += 1;
        let usage = std::mem::take(&mut bucket.usage);
        bucket.members = self.version;
        let entries = std::mem::take(entries);
        self.buckets.insert(to.into(), (Bucket { usage, members: self.version }, entries));
        usage.keys
    }

    pub(super) fn apply(&mut self, transaction: &Transaction, valid: Valid) {
        for touched in &transaction.keys {
            let Some(change) = &touched.change else { continue };
            let (_, entries) = self.buckets.entry(touched.bucket.clone()).or_default();
            self.version += 1;
            match change {
                Change::Set(value) => {
                    let entry = Entry { value: value.clone(), version: self.version };
                    entries.insert(touched.key.clone(), entry);
                }
                Change::Delete => drop(entries.remove(&touched.key)),
            }
        }
        for (name, usage, members) in valid.buckets {
            let (bucket, _) = self.buckets.entry(name).or_default();
            bucket.usage = usage;
            if members {
                bucket.members = self.version;
            }
        }
    }
}
