//! The store of the functions' state.

use std::collections::BTreeMap;

use crate::StoreFuture;
use evoke_model::Actor;
use evoke_model::state::{Entry, Keys, Transaction, Usage};

/// Reads the state of functions, and writes state for an operator. An attempt does not write state through this trait:
/// the completion of the attempt contains the writes.
pub trait StateStore: Send + Sync + 'static {
    /// Returns the committed value that a key has at some moment between the call and its result. Values that were used
    /// recently are read from memory.
    fn state(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>>;

    /// Like [`StateStore::state`], but includes staged writes that are not committed yet. Only attempts use this: a
    /// staged write may still be rejected, and then the commit of an attempt that has read the write conflicts.
    fn state_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>>;

    /// Like [`StateStore::state_with_staged`], but returns only the size of the value in bytes. This takes the same
    /// time for values of all sizes.
    fn state_size_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<usize>>;

    /// Returns the first keys of a bucket that sort after `after`, at most `limit`. If the store also has to read
    /// the values, to verify checksums, it may return fewer keys when the values are large. [`Keys::is_last`] is
    /// true if no further keys follow.
    fn state_keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> StoreFuture<Keys>;

    /// Returns the number of keys and bytes in a bucket, as of the last commit that this process has seen. If several
    /// processes own the store, the numbers may be slightly outdated; the commit checks the quota again.
    fn state_usage(&self, bucket: &str) -> Usage;

    /// Returns all non-empty buckets with their usage. Like the result of [`StateStore::state_usage`], the usage may be
    /// slightly outdated.
    fn state_buckets(&self) -> BTreeMap<String, Usage>;

    /// Writes state outside of any attempt. If a running attempt has read one of the changed keys, the commit of this
    /// attempt conflicts. Returns the number of changed keys that existed before.
    fn state_write(&self, actor: &Actor, changes: Transaction) -> StoreFuture<u64>;
}
