//! What the store knows of its state without asking the file: each bucket's size, and the values that were used
//! lately. The writer keeps it up after every commit, before the answers go out.
//!
//! A value is here as of the last commit or not at all. A reader that did not find one here reads the file and may
//! bring it in late, when a commit has changed it since: it takes a ticket before it reads, and what it brings is
//! only taken while no commit has touched a key of the same stripe.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::state::{Entry, Usage};
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
    buckets: HashMap<Arc<str>, Bucket>,
    /// Used since the last turn; the older ones go when this is full.
    young: Generation,
    old: Generation,
    /// Commits that touched a key of the stripe.
    touched: Vec<u64>,
}

#[derive(Default)]
struct Generation {
    bytes: usize,
    buckets: HashMap<Arc<str>, HashMap<Arc<str>, Option<Entry>>>,
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
    pub(super) fn new(buckets: HashMap<Arc<str>, Bucket>) -> Self {
        let (young, old) = (Generation::default(), Generation::default());
        let inner = Inner { buckets, young, old, touched: vec![0; STRIPES] };
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

    /// What is at a key, also that nothing is; else a ticket to bring it.
    pub(super) fn get(&self, bucket: &str, key: &str) -> Result<Option<Entry>, Ticket> {
        let mut inner = self.lock();
        if let Some(entry) = inner.young.get(bucket, key) {
            return Ok(entry.clone());
        }
        if let Some((bucket, key, entry)) = inner.old.take(bucket, key) {
            inner.put(&bucket, &key, entry.clone());
            return Ok(entry);
        }
        let stripe = self.stripe(bucket, key);
        Err(Ticket { stripe, touched: inner.touched.get(stripe).copied().unwrap_or_default() })
    }

    /// Takes what a reader found, unless a commit may have changed it since.
    pub(super) fn bring(&self, ticket: &Ticket, bucket: &str, key: &str, entry: Option<Entry>) {
        let mut inner = self.lock();
        if inner.touched.get(ticket.stripe) == Some(&ticket.touched) {
            inner.put(&bucket.into(), &key.into(), entry);
        }
    }

    /// Takes what a commit changed.
    pub(super) fn committed(&self, buckets: HashMap<Arc<str>, Bucket>, changed: Vec<Changed>) {
        if buckets.is_empty() && changed.is_empty() {
            return;
        }
        let mut inner = self.lock();
        inner.buckets.extend(buckets);
        for Changed { bucket, key, entry } in changed {
            let stripe = self.stripe(&bucket, &key);
            if let Some(touched) = inner.touched.get_mut(stripe) {
                *touched += 1;
            }
            inner.put(&bucket, &key, entry);
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
    /// What stands in the older generation is shadowed by this, and goes before it.
    fn put(&mut self, bucket: &Arc<str>, key: &Arc<str>, entry: Option<Entry>) {
        self.young.put(bucket, key, entry);
        if self.young.bytes > BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
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
mod tests {
    use bytes::Bytes;

    use super::*;

    fn entry(version: u64, size: usize) -> Option<Entry> {
        Some(Entry { value: Bytes::from(vec![0; size]), version })
    }

    fn commit(known: &Known, key: &str, entry: Option<Entry>) {
        known.committed(HashMap::new(), vec![Changed { bucket: "a/f".into(), key: key.into(), entry }]);
    }

    fn version(known: &Known, key: &str) -> Option<u64> {
        known.get("a/f", key).ok().map(|entry| entry.map_or(0, |entry| entry.version))
    }

    #[test]
    fn a_reader_that_comes_after_a_commit_brings_nothing_older() {
        let known = Known::new(HashMap::new());
        for now in [entry(2, 1), None] {
            let Err(ticket) = known.get("a/f", "k") else { unreachable!("it is known") };
            commit(&known, "k", now.clone());
            known.bring(&ticket, "a/f", "k", entry(1, 1));
            assert_eq!(version(&known, "k"), Some(now.map_or(0, |entry| entry.version)));
            known.lock().young = Generation::default();
            known.bring(&ticket, "a/f", "k", entry(1, 1));
            assert_eq!(version(&known, "k"), None, "also when the newer one is gone from memory");
        }
        let Err(ticket) = known.get("a/f", "k") else { unreachable!("it is known") };
        known.bring(&ticket, "a/f", "k", entry(3, 1));
        assert_eq!(version(&known, "k"), Some(3));
    }

    #[test]
    fn what_is_used_stays_and_the_rest_goes_when_there_is_too_much() {
        let known = Known::new(HashMap::new());
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
        let known = Known::new(HashMap::new());
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
