//! An in-memory cache of functions' state: the usage of each bucket, recently used values, and staged writes. The
//! writer updates it after every commit, before it sends the results.
//!
//! The cache never has an outdated value: each cached value is that of the last commit. If a key is not cached, a
//! reader reads it from the file, and a commit may change the key before the reader inserts its value. So the reader
//! takes a ticket before it reads. The value is inserted only if no commit has changed a key of the same stripe since
//! then. A stripe is a group of keys; the hash of a key selects its stripe.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use evoke_model::Completion;
use evoke_model::state::{Entry, StateItem, Transaction, Usage, Version};
use evoke_store::validate::Bucket;

/// Maximum size of the cached keys and values with their overhead, in bytes: several hundred thousand small entries.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// Estimated memory of an entry in addition to its key and value.
const OVERHEAD_BYTES: usize = 128;
/// Number of stripes (groups of keys). With this number, a commit of a thousand keys prevents the caching of about one
/// in four concurrent reads.
const STRIPES: usize = 4096;

pub(super) struct StateCache {
    hasher: RandomState,
    inner: Mutex<Inner>,
}

struct Inner {
    /// The last version assigned.
    version: Version,
    buckets: HashMap<Arc<str>, Bucket>,
    /// The staged writes: the values that keys will have when all staged transactions are committed.
    staged: ByKey<Staged>,
    /// The entries that were used most recently. When this generation is full, it replaces `previous`, and a new
    /// generation begins.
    current: Generation,
    previous: Generation,
    /// For each stripe, the number of changes that commits made to its keys.
    touched: Vec<u64>,
}

type ByKey<T> = HashMap<Arc<str>, HashMap<Arc<str>, T>>;

#[derive(Default)]
struct Generation {
    bytes: usize,
    buckets: ByKey<Option<Entry>>,
}

struct Staged {
    /// Version of the transaction that staged the write.
    by: Version,
    entry: Option<Entry>,
}

/// The changes of one group commit.
#[derive(Default)]
pub(super) struct Changes {
    /// The changed buckets, each with its new metadata.
    pub(super) buckets: HashMap<Arc<str>, Bucket>,
    pub(super) changed: Vec<Changed>,
    /// Buckets whose keys moved to or from another bucket. The cached values of these buckets are dropped.
    pub(super) renamed: Vec<Arc<str>>,
    /// Completions that were committed or rejected. Their staged writes are no longer needed.
    pub(super) finished: Vec<Arc<Completion>>,
}

pub(super) struct Changed {
    pub(super) bucket: Arc<str>,
    pub(super) key: Arc<str>,
    pub(super) entry: Option<Entry>,
}

/// The number of changes of a stripe before a read.
pub(super) struct ReadTicket {
    stripe: usize,
    touched: u64,
}

impl StateCache {
    /// Creates the cache of a store that was just opened, from its buckets and its last version.
    pub(super) fn new(buckets: HashMap<Arc<str>, Bucket>, version: Version) -> Self {
        let (current, previous) = (Generation::default(), Generation::default());
        let inner = Inner { version, buckets, staged: HashMap::new(), current, previous, touched: vec![0; STRIPES] };
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

    /// Stages a transaction's writes. If the cache already has another version of a value that the transaction read,
    /// stages nothing and returns the changed item.
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

    /// Returns the entry of a key, or `None` if the cache knows that the key does not exist. If the key is not cached,
    /// returns a ticket for [`StateCache::insert_read`]. With `with_staged`, includes staged writes.
    pub(super) fn get(&self, bucket: &str, key: &str, with_staged: bool) -> Result<Option<Entry>, ReadTicket> {
        // An evicted generation is dropped after the lock is released, because dropping it takes long.
        let _evicted;
        let mut inner = self.lock();
        if with_staged && let Some(staged) = inner.staged.get(bucket).and_then(|keys| keys.get(key)) {
            return Ok(staged.entry.clone());
        }
        if let Some(entry) = inner.current.get(bucket, key) {
            return Ok(entry.clone());
        }
        if let Some((bucket, key, entry)) = inner.previous.take(bucket, key) {
            _evicted = inner.put(&bucket, &key, entry.clone());
            return Ok(entry);
        }
        let stripe = self.stripe(bucket, key);
        Err(ReadTicket { stripe, touched: inner.touched.get(stripe).copied().unwrap_or_default() })
    }

    /// Inserts an entry that was read from the file, unless a commit may have changed it since.
    pub(super) fn insert_read(&self, ticket: &ReadTicket, bucket: &str, key: &str, entry: Option<Entry>) {
        let _evicted;
        let mut inner = self.lock();
        if inner.touched.get(ticket.stripe) == Some(&ticket.touched) {
            _evicted = inner.put(&bucket.into(), &key.into(), entry);
        }
    }

    /// Applies the changes of a commit.
    pub(super) fn committed(&self, changes: Changes) {
        let Changes { buckets, changed, renamed, finished } = changes;
        if changed.is_empty() && finished.is_empty() && renamed.is_empty() {
            return;
        }
        let mut evicted = Vec::new();
        let mut inner = self.lock();
        inner.buckets.extend(buckets);
        for Changed { bucket, key, entry } in changed {
            let stripe = self.stripe(&bucket, &key);
            if let Some(touched) = inner.touched.get_mut(stripe) {
                *touched += 1;
            }
            evicted.extend(inner.put(&bucket, &key, entry));
        }
        if !renamed.is_empty() {
            // Any key may be in one of these buckets, so the change counts for all stripes.
            inner.touched.iter_mut().for_each(|touched| *touched += 1);
        }
        for bucket in renamed {
            inner.current.remove(&bucket);
            inner.previous.remove(&bucket);
        }
        for completion in &finished {
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

fn size(key: &str, entry: &Option<Entry>) -> usize {
    OVERHEAD_BYTES + key.len() + entry.as_ref().map_or(0, |entry| entry.value.len())
}

impl Inner {
    /// Returns the version of a key, including staged writes; `None` if the key is neither staged nor cached.
    fn latest(&self, bucket: &str, key: &str) -> Option<Version> {
        let version = |entry: &Option<Entry>| entry.as_ref().map_or(0, |entry| entry.version);
        if let Some(staged) = self.staged.get(bucket).and_then(|keys| keys.get(key)) {
            return Some(version(&staged.entry));
        }
        self.current.get(bucket, key).or_else(|| self.previous.get(bucket, key)).map(version)
    }

    fn unstage(&mut self, transaction: &Transaction) {
        for touched in transaction.keys.iter().filter(|touched| touched.change.is_some()) {
            let Some(keys) = self.staged.get_mut(&touched.bucket) else { continue };
            // If a later transaction has staged the same key, keep its write.
            if keys.get(&touched.key).is_some_and(|staged| staged.by == transaction.version) {
                keys.remove(&touched.key);
            }
        }
    }

    /// Inserts an entry. If this fills the current generation, returns the evicted generation, which the caller drops.
    /// If `previous` has an older entry of the key, that entry is never found, because `current` is searched first, and
    /// `previous` is evicted first.
    fn put(&mut self, bucket: &Arc<str>, key: &Arc<str>, entry: Option<Entry>) -> Option<Generation> {
        self.current.put(bucket, key, entry);
        if self.current.bytes <= BYTES_MAX / 2 {
            return None;
        }
        let current = std::mem::take(&mut self.current);
        Some(std::mem::replace(&mut self.previous, current))
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

    fn remove(&mut self, bucket: &str) {
        let removed = self.buckets.remove(bucket).unwrap_or_default();
        self.bytes -= removed.iter().map(|(key, entry)| size(key, entry)).sum::<usize>();
    }

    fn put(&mut self, bucket: &Arc<str>, key: &Arc<str>, entry: Option<Entry>) {
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
mod tests {
    use bytes::Bytes;

    use super::*;
    use evoke_model::state::{Change, Touched};

    fn entry(version: u64, size: usize) -> Option<Entry> {
        Some(Entry { value: Bytes::from(vec![0; size]), version })
    }

    fn commit(cache: &StateCache, key: &str, entry: Option<Entry>) {
        let changed = vec![Changed { bucket: "a/f".into(), key: key.into(), entry }];
        cache.committed(Changes { changed, ..Changes::default() });
    }

    fn version(cache: &StateCache, key: &str) -> Option<u64> {
        cache.get("a/f", key, false).ok().map(|entry| entry.map_or(0, |entry| entry.version))
    }

    #[test]
    fn a_read_that_began_before_a_commit_is_not_cached() {
        let cache = StateCache::new(HashMap::new(), 0);
        for now in [entry(2, 1), None] {
            let Err(ticket) = cache.get("a/f", "k", false) else { unreachable!("the key is cached") };
            commit(&cache, "k", now.clone());
            cache.insert_read(&ticket, "a/f", "k", entry(1, 1));
            assert_eq!(version(&cache, "k"), Some(now.map_or(0, |entry| entry.version)));
            cache.lock().current = Generation::default();
            cache.insert_read(&ticket, "a/f", "k", entry(1, 1));
            assert_eq!(version(&cache, "k"), None, "the old entry is not cached after the eviction");
        }
        let Err(ticket) = cache.get("a/f", "k", false) else { unreachable!("the key is cached") };
        cache.insert_read(&ticket, "a/f", "k", entry(3, 1));
        assert_eq!(version(&cache, "k"), Some(3));
    }

    #[test]
    fn staged_writes_are_visible_until_they_end() {
        let cache = StateCache::new(HashMap::new(), 4);
        commit(&cache, "k", entry(1, 1));
        let transaction = |seen, change| {
            let touched = Touched { bucket: "a/f".into(), key: "k".into(), seen, change };
            Transaction { keys: vec![touched], ..Transaction::default() }
        };
        let with_staged = || cache.get("a/f", "k", true).ok().map(|entry| entry.map_or(0, |entry| entry.version));
        let mut first = transaction(Some(1), Some(Change::Set("1".into())));
        cache.stage(&mut first).unwrap();
        assert_eq!((first.version, with_staged(), version(&cache, "k")), (5, Some(5), Some(1)));
        assert!(cache.stage(&mut transaction(Some(1), None)).is_err());
        let mut second = transaction(Some(5), Some(Change::Delete));
        cache.stage(&mut second).unwrap();
        assert_eq!(with_staged(), Some(0));
        // The first transaction has ended, and the second one has not.
        cache.lock().unstage(&first);
        assert_eq!((with_staged(), cache.stage(&mut transaction(Some(0), None)).is_ok()), (Some(0), true));
        cache.lock().unstage(&second);
        assert_eq!(with_staged(), Some(1));
    }

    #[test]
    fn used_entries_stay_and_others_are_evicted_when_the_cache_is_full() {
        let cache = StateCache::new(HashMap::new(), 0);
        commit(&cache, "used", entry(1, 1));
        commit(&cache, "unused", entry(2, 1));
        for n in 0..1_000 {
            commit(&cache, &format!("large-{n}"), entry(3, 1 << 20));
            assert_eq!(version(&cache, "used"), Some(1));
            let inner = cache.lock();
            assert!(inner.current.bytes + inner.previous.bytes <= BYTES_MAX + (1 << 21));
        }
        assert_eq!(version(&cache, "unused"), None);
    }

    #[test]
    fn an_older_value_never_replaces_a_newer_one() {
        let cache = StateCache::new(HashMap::new(), 0);
        commit(&cache, "k", entry(1, 1));
        let mut inner = cache.lock();
        inner.previous = std::mem::take(&mut inner.current);
        drop(inner);
        commit(&cache, "k", entry(2, 1));
        assert_eq!(version(&cache, "k"), Some(2));
        let mut inner = cache.lock();
        inner.previous = std::mem::take(&mut inner.current);
        drop(inner);
        assert_eq!(version(&cache, "k"), Some(2));
    }
}
