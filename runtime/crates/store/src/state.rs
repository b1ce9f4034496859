//! The store of the functions' state.

use std::collections::BTreeMap;

use crate::StoreFuture;
use evoke_model::Actor;
use evoke_model::state::{Entry, Keys, Transaction, Usage};

/// Reads the state of functions, and writes it for an operator. An attempt writes its state with its completion.
pub trait StateStore: Send + Sync + 'static {
    /// Returns the value of a key as of some commit between the call and its result. Recently used values come from
    /// memory.
    fn state(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>>;

    /// Like [`StateStore::state`], but includes staged writes that are not committed yet. Only attempts use this: their
    /// commit checks that the values that they read have not changed.
    fn state_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>>;

    /// Returns the first `limit` keys of a bucket that sort after `after`.
    fn state_keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> StoreFuture<Keys>;

    /// Returns the number of keys and bytes in a bucket, as of the last commit that this process has seen. If several
    /// processes own the store, the numbers may be slightly outdated; the commit checks the quota again.
    fn state_usage(&self, bucket: &str) -> Usage;

    /// Returns all non-empty buckets with their usage. As up to date as [`StateStore::state_usage`].
    fn state_buckets(&self) -> BTreeMap<String, Usage>;

    /// Writes state outside of any attempt. A running attempt that has read one of these keys conflicts, as after a
    /// write of another attempt. Returns the number of keys that existed before.
    fn state_write(&self, actor: &Actor, changes: Transaction) -> StoreFuture<u64>;
}
