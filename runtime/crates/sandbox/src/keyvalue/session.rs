//! The stored state as one attempt sees it. Reads are recorded with the version that they saw. Writes are buffered, and
//! the attempt reads its own writes. The reads and writes form a transaction, which is committed with the attempt's
//! outcome or not at all.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use super::bucket::{Bucket, BucketName, KeyAccess, SHARED_BUCKET, Seen, StateError};
use super::{StateGrant, StateSource, pause_after};
use crate::budget::{BytesExceeded, HostBudget};
use evoke_model::state::{Change, KEY_BYTES_MAX, Keys, Quota, Touched, Transaction, Usage};

/// Limits on the reads of one attempt. All values stay in memory until the attempt ends, and their versions are checked
/// again at the commit.
const READS_MAX: usize = 10_000;
const READ_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Limits on the writes of one attempt. All of them go into one commit, which other attempts wait for.
const WRITES_MAX: usize = 4_096;
const WRITE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest number of keys per page of a list; with keys of the maximum length, a page has 256 KiB.
const PAGE_MAX: usize = 500;
/// Estimate of the memory that the record of a key takes in addition to the key and its value, in bytes.
const RECORD_BYTES: usize = 128;
type Result<T, E = StateError> = std::result::Result<T, E>;

/// The state operations of one attempt. Allocates nothing until the first operation.
pub(crate) struct Session {
    source: Option<Arc<dyn StateSource>>,
    grant: StateGrant,
    budget: Arc<HostBudget>,
    own: Option<Bucket>,
    shared: Option<Bucket>,
    reads: usize,
    read_bytes: usize,
    writes: usize,
    write_bytes: usize,
    /// The bytes of writes that were charged to the budget. This is the highest value that `write_bytes` had, because
    /// charges are never undone.
    write_bytes_charged: usize,
}

impl Session {
    pub(crate) fn new(
        source: Option<Arc<dyn StateSource>>,
        grant: Option<StateGrant>,
        budget: Arc<HostBudget>,
    ) -> Self {
        let no_grant = StateGrant { shared: false, value_bytes_max: 0, quota: Quota::NONE };
        Self {
            source: source.filter(|_| grant.is_some()),
            grant: grant.unwrap_or(no_grant),
            budget,
            own: None,
            shared: None,
            reads: 0,
            read_bytes: 0,
            writes: 0,
            write_bytes: 0,
            write_bytes_charged: 0,
        }
    }

    /// Opens the bucket with this name; `None` if the function has no such bucket.
    pub(crate) fn open(&mut self, function: &Arc<str>, name: &str) -> Option<BucketName> {
        self.source.as_ref()?;
        match name {
            "" | "default" => {
                self.own.get_or_insert_with(|| Bucket::new(function.clone()));
                Some(BucketName::Own)
            }
            SHARED_BUCKET if self.grant.shared => {
                let app = || function.split_once('/').map_or(&**function, |(app, _)| app).into();
                self.shared.get_or_insert_with(|| Bucket::new(app()));
                Some(BucketName::Shared)
            }
            _ => None,
        }
    }

    pub(super) async fn set(&mut self, name: BucketName, key: &str, value: Vec<u8>) -> Result<()> {
        self.write(name, key, Change::Set(value.into())).await
    }

    pub(super) async fn delete(&mut self, name: BucketName, key: &str) -> Result<()> {
        self.write(name, key, Change::Delete).await
    }

    /// Adds `delta` to the number at the key, which is stored as decimal digits. Returns the sum.
    pub(super) async fn increment(&mut self, name: BucketName, key: &str, delta: u64) -> Result<u64> {
        let sum = match self.get(name, key).await? {
            None => delta,
            Some(value) => {
                let number = std::str::from_utf8(&value).ok().and_then(|text| text.parse::<u64>().ok());
                let not_a_number =
                    || StateError::Failed(format!("the value at {key} is not a number, so it cannot be incremented"));
                let number = number.ok_or_else(not_a_number)?;
                let too_large =
                    || StateError::Failed(format!("{key} cannot be incremented: {number} + {delta} exceeds 64 bits"));
                number.checked_add(delta).ok_or_else(too_large)?
            }
        };
        self.set(name, key, sum.to_string().into_bytes()).await?;
        Ok(sum)
    }

    /// Returns the transaction with all reads and writes of the attempt.
    pub(crate) fn finish(&mut self) -> Transaction {
        let mut transaction = Transaction { quota: self.grant.quota, ..Transaction::default() };
        for bucket in [self.own.take(), self.shared.take()].into_iter().flatten() {
            transaction.lists.extend(bucket.list.map(|version| (bucket.name.clone(), version)));
            transaction.keys.extend(bucket.accesses.into_iter().map(|(key, access)| Touched {
                bucket: bucket.name.clone(),
                key,
                seen: access.seen.map(|seen| seen.version),
                change: access.change,
            }));
        }
        transaction
    }

    fn bucket(&mut self, name: BucketName) -> Result<(&mut Bucket, &Arc<dyn StateSource>)> {
        let bucket = match name {
            BucketName::Own => self.own.as_mut(),
            BucketName::Shared => self.shared.as_mut(),
        };
        bucket.zip(self.source.as_ref()).ok_or_else(|| StateError::Failed("this bucket was not opened".into()))
    }

    /// Returns the value of a key, including the attempt's own writes.
    pub(super) async fn get(&mut self, name: BucketName, key: &str) -> Result<Option<Bytes>> {
        check_key(key)?;
        let (bucket, _) = self.bucket(name)?;
        match bucket.accesses.get(key) {
            Some(KeyAccess { change: Some(change), .. }) => return Ok(change.value().cloned()),
            Some(KeyAccess { seen: Some(seen), .. }) => return Ok(seen.value.clone()),
            _ => {}
        }
        let too_large =
            || StateError::Limit(format!("an attempt may read at most {READ_BYTES_MAX} bytes of state in total"));
        if self.reads >= READS_MAX {
            return Err(StateError::Limit(format!("an attempt may read at most {READS_MAX} keys")));
        }
        if self.read_bytes >= READ_BYTES_MAX {
            return Err(too_large());
        }
        // Refused and failed reads count, too. Otherwise, an attempt could make the store read without end.
        self.reads += 1;
        let (bucket, source) = self.bucket(name)?;
        let entry = source.get(&bucket.name, key).await.map_err(StateError::Failed)?;
        let (version, value) = entry.map_or((0, None), |entry| (entry.version, Some(entry.value)));
        let size = key.len() + value.as_ref().map_or(0, Bytes::len);
        self.read_bytes += size;
        if self.read_bytes > READ_BYTES_MAX {
            return Err(too_large());
        }
        self.budget.charge(size + RECORD_BYTES)?;
        let (bucket, _) = self.bucket(name)?;
        bucket.touch(key, |access| access.seen = Some(Seen { version, value: value.clone() }));
        Ok(value)
    }

    async fn write(&mut self, name: BucketName, key: &str, change: Change) -> Result<()> {
        check_key(key)?;
        let max = self.grant.value_bytes_max;
        if let Some(value) = change.value()
            && value.len() as u64 > max
        {
            return Err(StateError::Limit(format!(
                "the value for {key} has {} bytes; the limit is {max}; raise it with \
                 `allow: {{ state: {{ max_value: … }} }}`",
                value.len()
            )));
        }
        let size =
            |change: Option<&Change>| change.map_or(0, |change| key.len() + change.value().map_or(0, Bytes::len));
        let (bucket, _) = self.bucket(name)?;
        let before = bucket.accesses.get(key).and_then(|access| access.change.as_ref());
        let (is_new, before) = (before.is_none(), size(before));
        if is_new && self.writes >= WRITES_MAX {
            return Err(StateError::Limit(format!("an attempt may write at most {WRITES_MAX} keys")));
        }
        let write_bytes = (self.write_bytes + size(Some(&change))).saturating_sub(before);
        if write_bytes > WRITE_BYTES_MAX {
            let message = format!("an attempt may write at most {WRITE_BYTES_MAX} bytes of state in total");
            return Err(StateError::Limit(message));
        }
        if let Change::Set(value) = &change {
            self.check_quota(name, key, value.len()).await?;
        }
        let record = if is_new { RECORD_BYTES } else { 0 };
        self.budget.charge(write_bytes.saturating_sub(self.write_bytes_charged) + record)?;
        self.write_bytes_charged = self.write_bytes_charged.max(write_bytes);
        self.writes += usize::from(is_new);
        self.write_bytes = write_bytes;
        let (bucket, _) = self.bucket(name)?;
        bucket.touch(key, |access| access.change = Some(change));
        Ok(())
    }

    /// Checks that the bucket stays within its quota after all writes of the attempt and a write of `size` bytes to
    /// `key`. The commit checks the quota again.
    async fn check_quota(&mut self, name: BucketName, key: &str, size: usize) -> Result<()> {
        let (quota, writes, write_bytes) = (self.grant.quota, self.writes as u64, self.write_bytes as u64);
        let (bucket, source) = self.bucket(name)?;
        let usage = source.usage(&bucket.name);
        // An upper bound, which assumes that every write adds a key. If this bound is within the quota, the sizes of
        // the stored values need not be read.
        let upper_bound =
            Usage { keys: usage.keys + writes + 1, bytes: usage.bytes + write_bytes + (key.len() + size) as u64 };
        if upper_bound.keys <= quota.keys && upper_bound.bytes <= quota.bytes {
            return Ok(());
        }
        bucket.touch(key, |_| ());
        let (mut after, mut sizes_read) = (usage, 0);
        for (at, access) in &mut bucket.accesses {
            let new = match &access.change {
                _ if **at == *key => Some(size),
                None => continue,
                Some(change) => change.value().map(Bytes::len),
            };
            let old = match (&access.seen, access.stored) {
                (Some(seen), _) => seen.value.as_ref().map(Bytes::len),
                (None, Some(stored)) => stored,
                (None, None) => {
                    let size = source.size(&bucket.name, at).await.map_err(StateError::Failed)?;
                    pause_after(sizes_read).await;
                    sizes_read += 1;
                    *access.stored.insert(size)
                }
            };
            after = after.after(at, old, new);
        }
        let Some(exceeded) = after.quota_error(usage, &bucket.name, quota) else { return Ok(()) };
        // A key that the attempt has not used before must not take memory after the refusal.
        if bucket.accesses.get(key).is_some_and(|access| access.seen.is_none() && access.change.is_none()) {
            bucket.accesses.remove(key);
        }
        Err(StateError::Quota(exceeded))
    }

    /// Returns a page of keys in key order, including the attempt's own writes, and the cursor of the next page.
    pub(super) async fn list(&mut self, name: BucketName, cursor: Option<u64>) -> Result<(Vec<String>, Option<u64>)> {
        let budget = self.budget.clone();
        let (bucket, source) = self.bucket(name)?;
        let after = match cursor {
            None => None,
            Some(cursor) => {
                let page = usize::try_from(cursor).ok().and_then(|cursor| bucket.page_ends.get(cursor));
                let unknown = || StateError::Limit(format!("{cursor} is not a cursor returned by list-keys"));
                Some(page.ok_or_else(unknown)?.clone())
            }
        };
        let Keys { keys, version, is_last } =
            source.keys(&bucket.name, after.as_deref(), PAGE_MAX).await.map_err(StateError::Failed)?;
        bucket.list.get_or_insert(version);
        let last = if is_last { None } else { keys.last().cloned() };
        let from = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let to = last.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let mut keys: BTreeSet<String> = keys.into_iter().collect();
        for (key, access) in bucket.accesses.range::<str, _>((from, to)) {
            match &access.change {
                Some(Change::Set(_)) => drop(keys.insert(key.to_string())),
                Some(Change::Delete) => drop(keys.remove(&**key)),
                None => {}
            }
        }
        if let Some(last) = &last {
            budget.charge(last.len() + RECORD_BYTES)?;
        }
        let cursor = last.map(|last| bucket.cursor(last)).transpose()?;
        Ok((keys.into_iter().collect(), cursor))
    }
}

impl From<BytesExceeded> for StateError {
    fn from(exceeded: BytesExceeded) -> Self {
        Self::Limit(exceeded.to_string())
    }
}

fn check_key(key: &str) -> Result<()> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        0 => Err(StateError::Limit("a key must not be empty".into())),
        n => Err(StateError::Limit(format!("the key has {n} bytes; the limit is {KEY_BYTES_MAX}"))),
    }
}

#[cfg(test)]
mod tests;
