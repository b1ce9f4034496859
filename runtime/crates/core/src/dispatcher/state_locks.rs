//! Locks on state items, for attempts that must run again after a conflict. Without locks, attempts that use the same
//! key would conflict again and again. With locks, an attempt waits after its first conflict until the writes of the
//! earlier attempts are visible. Then it runs once more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use evoke_model::state::{StateItem, Transaction};

/// The items that attempts have locked or wait for. Each running attempt has locked or waits for at most one item.
#[derive(Default)]
pub(super) struct StateLocks(Mutex<HashMap<StateItem, Arc<tokio::sync::Mutex<()>>>>);

/// A lock on a state item; released on drop.
pub(super) struct StateLock<'a> {
    locks: &'a StateLocks,
    item: StateItem,
    guard: Option<OwnedMutexGuard<()>>,
}

impl StateLocks {
    /// Waits for the lock on an item. Waiters acquire it in the order of their calls.
    pub(super) async fn acquire(&self, item: StateItem) -> StateLock<'_> {
        let queue = self.lock().entry(item.clone()).or_default().clone();
        // This lock is created before the wait: if the future is dropped while it waits, the drop of the lock removes
        // the entry.
        let mut lock = StateLock { locks: self, item, guard: None };
        lock.guard = Some(queue.lock_owned().await);
        lock
    }

    /// Returns a locked item that the transaction read, if there is one. The holder of the lock will most likely change
    /// the item.
    pub(super) fn locked_item(&self, transaction: &Transaction) -> Option<StateItem> {
        if transaction.is_empty() {
            return None;
        }
        let items = self.lock();
        if items.is_empty() {
            return None;
        }
        let keys = transaction.keys.iter().filter(|touched| touched.seen.is_some());
        let keys = keys.map(|touched| StateItem { bucket: touched.bucket.clone(), key: Some(touched.key.clone()) });
        let lists = transaction.lists.iter().map(|(bucket, _)| StateItem { bucket: bucket.clone(), key: None });
        keys.chain(lists).find(|item| items.contains_key(item))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StateItem, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateLock<'_> {
    pub(super) fn is_for(&self, item: &StateItem) -> bool {
        self.item == *item
    }
}

impl Drop for StateLock<'_> {
    fn drop(&mut self) {
        let mut items = self.locks.lock();
        self.guard = None;
        // Each waiter holds a reference to the queue. It gets the reference only while it holds the mutex that is
        // locked here. So a reference count of 1 means that no attempt waits.
        if items.get(&self.item).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            items.remove(&self.item);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use evoke_model::state::Touched;

    fn item(key: &str) -> StateItem {
        StateItem { bucket: "shop/a".into(), key: Some(key.into()) }
    }

    fn read(key: &str) -> Transaction {
        let touched = Touched { bucket: "shop/a".into(), key: key.into(), seen: Some(1), change: None };
        Transaction { keys: vec![touched], ..Transaction::default() }
    }

    #[tokio::test]
    async fn one_attempt_holds_the_lock_at_a_time_and_no_entry_is_left_at_the_end() {
        let locks = Arc::new(StateLocks::default());
        let inside = Arc::new(AtomicU32::new(0));
        let tasks = (0..20).map(|_| {
            let (locks, inside) = (locks.clone(), inside.clone());
            tokio::spawn(async move {
                let lock = locks.acquire(item("k")).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(lock);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(locks.lock().is_empty());
    }

    #[tokio::test]
    async fn a_locked_item_is_found_and_a_cancelled_waiter_leaves_no_entry() {
        let locks = StateLocks::default();
        let lock = locks.acquire(item("k")).await;
        assert!(lock.is_for(&item("k")));
        assert_eq!(locks.locked_item(&read("k")), Some(item("k")));
        assert_eq!(locks.locked_item(&read("other")), None);
        {
            let waits = locks.acquire(item("k"));
            tokio::pin!(waits);
            assert!(futures_util::poll!(&mut waits).is_pending());
        }
        drop(lock);
        assert!(locks.lock().is_empty());
        assert_eq!(locks.locked_item(&read("k")), None);
    }
}
