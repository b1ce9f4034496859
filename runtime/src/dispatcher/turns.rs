//! Attempts that read what another changed take turns at it. Without that, those of a busy key would go on spoiling
//! each other's runs; with it, each runs once more, when all before it are committed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::state::{Place, Transaction};

/// The places that someone has a turn at or waits for: never more than there are attempts.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<Place, Arc<tokio::sync::Mutex<()>>>>);

/// A turn at a place; it ends when this is dropped.
pub(super) struct Turn<'a> {
    turns: &'a Turns,
    place: Place,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits for a turn: first come, first served.
    pub(super) async fn take(&self, place: Place) -> Turn<'_> {
        let queue = self.lock().entry(place.clone()).or_default().clone();
        // From here on dropped with the future, should that be.
        let mut turn = Turn { turns: self, place, guard: None };
        turn.guard = Some(queue.lock_owned().await);
        turn
    }

    /// Something that a transaction read and that it is another's turn at, who will most likely change it.
    pub(super) fn taken(&self, transaction: &Transaction) -> Option<Place> {
        if transaction.is_empty() {
            return None;
        }
        let turns = self.lock();
        if turns.is_empty() {
            return None;
        }
        let keys = transaction.keys.iter().filter(|touched| touched.seen.is_some());
        let keys = keys.map(|touched| Place { bucket: touched.bucket.clone(), key: Some(touched.key.clone()) });
        let lists = transaction.lists.iter().map(|(bucket, _)| Place { bucket: bucket.clone(), key: None });
        keys.chain(lists).find(|place| turns.contains_key(place))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Place, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    pub(super) fn is_at(&self, place: &Place) -> bool {
        self.place == *place
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        self.guard = None;
        // Others that wait hold the queue too, and took it under the lock that is held now.
        if turns.get(&self.place).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            turns.remove(&self.place);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::state::Touched;

    fn place(key: &str) -> Place {
        Place { bucket: "shop/a".into(), key: Some(key.into()) }
    }

    fn read(key: &str) -> Transaction {
        let touched = Touched { bucket: "shop/a".into(), key: key.into(), seen: Some(1), change: None };
        Transaction { keys: vec![touched], ..Transaction::default() }
    }

    #[tokio::test]
    async fn one_has_a_turn_at_a_time_and_nothing_is_left_when_all_had_it() {
        let turns = Arc::new(Turns::default());
        let inside = Arc::new(AtomicU32::new(0));
        let tasks = (0..20).map(|_| {
            let (turns, inside) = (turns.clone(), inside.clone());
            tokio::spawn(async move {
                let turn = turns.take(place("k")).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                drop(turn);
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert!(turns.lock().is_empty());
    }

    #[tokio::test]
    async fn what_another_has_a_turn_at_is_known_and_who_gives_up_waiting_leaves_nothing() {
        let turns = Turns::default();
        let turn = turns.take(place("k")).await;
        assert!(turn.is_at(&place("k")));
        assert_eq!(turns.taken(&read("k")), Some(place("k")));
        assert_eq!(turns.taken(&read("other")), None);
        {
            let waits = turns.take(place("k"));
            tokio::pin!(waits);
            assert!(futures_util::poll!(&mut waits).is_pending());
        }
        drop(turn);
        assert!(turns.lock().is_empty());
        assert_eq!(turns.taken(&read("k")), None);
    }
}
