//! What the store knows of its state without asking the file: each bucket's size, the values that were used lately,
//! and those that are staged. The writer keeps it up after every commit, before the answers go out.
//!
//! A value is here as of the last commit or not at all. A reader that did not find one here reads the file and may
//! bring it in late, when a commit has changed it since: it takes a ticket before it reads, and what it brings is
//! only taken while no commit has touched a key of the same stripe.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::{Entry, StateItem, Transaction, Usage, Version};
use crate::store::Completion;
use crate::store::judge::Bucket;

/// Keys and values in memory, with what it takes to find them: a hundred thousand small ones.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// What an entry takes beside its key and its value.
const OVERHEAD_BYTES: usize = 128;
/// A commit of a thousand keys makes one of four reads that are under way be read again next time.
const STRIPES: usize = 4096;

pub(super) struct Known {
    hasher: RandomState,
    inner: Mutex<Inner>,
}

struct Inner {
    /// Given out last.
    version: Version,
    buckets: HashMap<Arc<str>, Bucket>,
    /// What will be when all that is under way is committed, as far as it was staged.
    staged: ByKey<Staged>,
    /// Used since the last turn; the older ones go when this is full.
    young: Generation,
    old: Generation,
    /// Commits that touched a key of the stripe.
    touched: Vec<u64>,
}

type ByKey<T> = HashMap<Arc<str>, HashMap<Arc<str>, T>>;

#[derive(Default)]
struct Generation {
    bytes: usize,
    buckets: ByKey<Option<Entry>>,
}

/// A key that a staged transaction changes.
struct Staged {
    /// Of the transaction.
    by: Version,
    entry: Option<Entry>,
}

/// What a commit makes known.
#[derive(Default)]
pub(super) struct Changes {
    /// The buckets that changed, as they are now.
    pub(super) buckets: HashMap<Arc<str>, Bucket>,
    pub(super) changed: Vec<Changed>,
    /// What was staged and is committed or refused.
    pub(super) over: Vec<Arc<Completion>>,
}

/// A key that a commit changed, with what it is now.
pub(super) struct Changed {
    pub(super) bucket: Arc<str>,
    pub(super) key: Arc<str>,
    pub(super) entry: Option<Entry>,
}

/// Says when a reader began.
pub(super) struct Ticket {
    stripe: usize,
    touched: u64,
}

impl Known {
    /// What is known of a store that was just opened: its buckets, and the last version in it.
    pub(super) fn new(buckets: HashMap<Arc<str>, Bucket>, version: Version) -> Self {
        let (young, old) = (Generation::default(), Generation::default());
        let inner = Inner { version, buckets, staged: HashMap::new(), young, old, touched: vec![0; STRIPES] };
        Self { hasher: RandomState::new(), inner: Mutex::new(inner) }
    }

    pub(super) fn bucket(&self, name: &str) -> Bucket {
        self.lock().buckets.get(name).copied().unwrap_or_default()
    }

    pub(super) fn usages(&self) -> BTreeMap<String, Usage> {
        let inner = self.lock();
        let held = inner.buckets.iter().filter(|(_, bucket)| bucket.usage.keys > 0);
        held.map(|(name, bucket)| (name.to_string(), bucket.usage)).collect()
    }

    pub(super) fn next_version(&self) -> Version {
        let mut inner = self.lock();
        inner.version += 1;
        inner.version
    }

    /// Stages what a transaction writes, unless what it read is known to have changed.
    pub(super) fn stage(&self, transaction: &mut Transaction) -> Result<(), StateItem> {
        let mut inner = self.lock();
        for touched in &transaction.keys {
            let (bucket, key) = (&touched.bucket, &touched.key);
            if let Some(seen) = touched.seen
                && inner.latest(bucket, key).is_some_and(|latest| latest != seen)
            {
                return Err(StateItem { bucket: bucket.clone(), key: Some(key.clone()) });
            }
        }
        inner.version += 1;
        let version = inner.version;
        for touched in &transaction.keys {
            let Some(change) = &touched.change else { continue };
            let entry = change.value().map(|value| Entry { value: value.clone(), version });
            let staged = Staged { by: version, entry };
            match inner.staged.get_mut(&touched.bucket) {
                Some(keys) => drop(keys.insert(touched.key.clone(), staged)),
                None => {
                    let keys = HashMap::from([(touched.key.clone(), staged)]);
                    inner.staged.insert(touched.bucket.clone(), keys);
                }
            }
        }
        transaction.version = version;
        Ok(())
    }

    /// What is at a key, also that nothing is; else a ticket to bring it. With `ahead`, what will be when all that is
    /// staged is committed.
    pub(super) fn get(&self, bucket: &str, key: &str, ahead: bool) -> Result<Option<Entry>, Ticket> {
        // Dropped behind the lock: it takes a while.
        let _gone;
        let mut inner = self.lock();
        if ahead && let Some(staged) = inner.staged.get(bucket).and_then(|keys| keys.get(key)) {
            return Ok(staged.entry.clone());
        }
        if let Some(entry) = inner.young.get(bucket, key) {
            return Ok(entry.clone());
        }
        if let Some((bucket, key, entry)) = inner.old.take(bucket, key) {
            _gone = inner.put(&bucket, &key, entry.clone());
            return Ok(entry);
        }
        let stripe = self.stripe(bucket, key);
        Err(Ticket { stripe, touched: inner.touched.get(stripe).copied().unwrap_or_default() })
    }

    /// Takes what a reader found, unless a commit may have changed it since.
    pub(super) fn bring(&self, ticket: &Ticket, bucket: &str, key: &str, entry: Option<Entry>) {
        let _gone;
        let mut inner = self.lock();
        if inner.touched.get(ticket.stripe) == Some(&ticket.touched) {
            _gone = inner.put(&bucket.into(), &key.into(), entry);
        }
    }

    /// Takes what a commit changed.
    pub(super) fn committed(&self, changes: Changes) {
        let Changes { buckets, changed, over } = changes;
        if changed.is_empty() && over.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        let mut inner = self.lock();
        inner.buckets.extend(buckets);
        for Changed { bucket, key, entry } in changed {
            let stripe = self.stripe(&bucket, &key);
            if let Some(touched) = inner.touched.get_mut(stripe) {
                *touched += 1;
            }
            gone.extend(inner.put(&bucket, &key, entry));
        }
        for completion in &over {
            inner.unstage(&completion.state);
        }
    }

    fn stripe(&self, bucket: &str, key: &str) -> usize {
        usize::try_from(self.hasher.hash_one((bucket, key))).unwrap_or_default() % STRIPES
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The version that a reader ahead sees, where it is known.
    fn latest(&self, bucket: &str, key: &str) -> Option<Version> {
        let version = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.version);
        if let Some(staged) = self.staged.get(bucket).and_then(|keys| keys.get(key)) {
            return Some(version(&staged.entry));
        }
        self.young.get(bucket, key).or_else(|| self.old.get(bucket, key)).map(version)
    }

    fn unstage(&mut self, transaction: &Transaction) {
        for touched in transaction.keys.iter().filter(|touched| touched.change.is_some()) {
            let Some(keys) = self.staged.get_mut(&touched.bucket) else { continue };
            // A later one may have been staged over it.
            if keys.get(&touched.key).is_some_and(|staged| staged.by == transaction.version) {
                keys.remove(&touched.key);
            }
        }
    }

    /// What stands in the older generation is shadowed by this, and goes before it. Answers what goes now.
    fn put(&mut self, bucket: &Arc<str>, key: &Arc<str>, entry: Option<Entry>) -> Option<Generation> {
        self.young.put(bucket, key, entry);
        if self.young.bytes <= BYTES_MAX / 2 {
            return None;
        }
        let young = std::mem::take(&mut self.young);
        Some(std::mem::replace(&mut self.old, young))
    }
}

impl Generation {
    fn get(&self, bucket: &str, key: &str) -> Option<&Option<Entry>> {
        self.buckets.get(bucket)?.get(key)
    }

    fn take(&mut self, bucket: &str, key: &str) -> Option<(Arc<str>, Arc<str>, Option<Entry>)> {
        let (name, _) = self.buckets.get_key_value(bucket)?;
        let name = name.clone();
        let (key, entry) = self.buckets.get_mut(bucket)?.remove_entry(key)?;
        Some((name, key, entry))
    }

    fn put(&mut self, bucket: &Arc<str>, key: &Arc<str>, entry: Option<Entry>) {
        let size = |key: &str, entry: &Option<Entry>| {
            OVERHEAD_BYTES + key.len() + entry.as_ref().map_or(0, |entry| entry.value.len())
        };
        self.bytes += size(key, &entry);
        let entries = match self.buckets.get_mut(bucket) {
            Some(entries) => entries,
            None => self.buckets.entry(bucket.clone()).or_default(),
        };
        if let Some(before) = entries.insert(key.clone(), entry) {
            self.bytes -= size(key, &before);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::state::{Change, Touched};

    fn entry(version: u64, size: usize) -> Option<Entry> {
        Some(Entry { value: Bytes::from(vec![0; size]), version })
    }

    fn commit(known: &Known, key: &str, entry: Option<Entry>) {
        let changed = vec![Changed { bucket: "a/f".into(), key: key.into(), entry }];
        known.committed(Changes { changed, ..Changes::default() });
    }

    fn version(known: &Known, key: &str) -> Option<u64> {
        known.get("a/f", key, false).ok().map(|entry| entry.map_or(0, |entry| entry.version))
    }

    #[test]
    fn a_reader_that_comes_after_a_commit_brings_nothing_older() {
        let known = Known::new(HashMap::new(), 0);
        for now in [entry(2, 1), None] {
            let Err(ticket) = known.get("a/f", "k", false) else { unreachable!("it is known") };
            commit(&known, "k", now.clone());
            known.bring(&ticket, "a/f", "k", entry(1, 1));
            assert_eq!(version(&known, "k"), Some(now.map_or(0, |entry| entry.version)));
            known.lock().young = Generation::default();
            known.bring(&ticket, "a/f", "k", entry(1, 1));
            assert_eq!(version(&known, "k"), None, "also when the newer one is gone from memory");
        }
        let Err(ticket) = known.get("a/f", "k", false) else { unreachable!("it is known") };
        known.bring(&ticket, "a/f", "k", entry(3, 1));
        assert_eq!(version(&known, "k"), Some(3));
    }

    #[test]
    fn what_is_staged_is_seen_ahead_until_it_is_over() {
        let known = Known::new(HashMap::new(), 4);
        commit(&known, "k", entry(1, 1));
        let transaction = |seen, change| {
            let touched = Touched { bucket: "a/f".into(), key: "k".into(), seen, change };
            Transaction { keys: vec![touched], ..Transaction::default() }
        };
        let ahead = || known.get("a/f", "k", true).ok().map(|entry| entry.map_or(0, |entry| entry.version));
        let mut first = transaction(Some(1), Some(Change::Set("1".into())));
        known.stage(&mut first).unwrap();
        assert_eq!((first.version, ahead(), version(&known, "k")), (5, Some(5), Some(1)));
        assert!(known.stage(&mut transaction(Some(1), None)).is_err());
        let mut second = transaction(Some(5), Some(Change::Delete));
        known.stage(&mut second).unwrap();
        assert_eq!(ahead(), Some(0));
        // The first is over; the second is not.
        known.lock().unstage(&first);
        assert_eq!((ahead(), known.stage(&mut transaction(Some(0), None)).is_ok()), (Some(0), true));
        known.lock().unstage(&second);
        assert_eq!(ahead(), Some(1));
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes_when_there_is_too_much() {
        let known = Known::new(HashMap::new(), 0);
        commit(&known, "used", entry(1, 1));
        commit(&known, "unused", entry(2, 1));
        for n in 0..1_000 {
            commit(&known, &format!("large-{n}"), entry(3, 1 << 20));
            assert_eq!(version(&known, "used"), Some(1));
            let inner = known.lock();
            assert!(inner.young.bytes + inner.old.bytes <= BYTES_MAX + (1 << 21));
        }
        assert_eq!(version(&known, "unused"), None);
    }

    #[test]
    fn an_older_value_is_never_seen_behind_a_newer_one() {
        let known = Known::new(HashMap::new(), 0);
        commit(&known, "k", entry(1, 1));
        let mut inner = known.lock();
        inner.old = std::mem::take(&mut inner.young);
        drop(inner);
        commit(&known, "k", entry(2, 1));
        assert_eq!(version(&known, "k"), Some(2));
        let mut inner = known.lock();
        inner.old = std::mem::take(&mut inner.young);
        drop(inner);
        assert_eq!(version(&known, "k"), Some(2));
    }
}
