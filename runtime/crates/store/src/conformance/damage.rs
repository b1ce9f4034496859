//! Damaged rows: a row that was changed outside of the store is returned as an error, never as data.

use super::*;
use evoke_model::state::{Change, Touched};

/// The row that a test damages. The tests of a backend supply a closure that changes a value of the row, but not the
/// checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamagedRow {
    Event(Seq),
    Delivery(DeliveryId),
    /// The only mark of a scope.
    Mark {
        scope: &'static str,
    },
    /// The only key of a bucket.
    State {
        bucket: &'static str,
    },
    Replay(ReplayId),
}

/// Accepts three events with one delivery each, and returns the function.
async fn accept_three(store: &dyn Store) -> FunctionId {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept((1..=3).map(|n| new_event(&n.to_string(), vec![to(f)])).collect(), vec![]).await.unwrap();
    f
}

pub async fn a_damaged_event_is_an_error_in_its_place(store: &dyn Store, damage: &dyn Fn(DamagedRow)) {
    let f = accept_three(store).await;
    damage(DamagedRow::Event(Seq(2)));
    let found = store.events(EventFilter { after: Some(Seq(0)), limit: 10, ..EventFilter::default() }).await.unwrap();
    assert_eq!(found.iter().map(DamagedEvent::seq_of).collect::<Vec<_>>(), seqs([1, 2, 3]));
    assert_eq!(found.iter().map(|read| read.is_ok()).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(store.event(Seq(2)).await.unwrap().unwrap().unwrap_err().seq, Seq(2));
    // The dispatcher receives the delivery of the damaged event, and must end the delivery as a dead letter.
    let ready = store.claim(f, Stream::Live, DeliveryId(0), LoadLimit::of(10)).await.unwrap();
    assert_eq!(ready.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), ids([1, 2, 3]));
    assert_eq!(ready.iter().map(|delivery| delivery.event.is_ok()).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(store.complete(dead(2, 1)).await.unwrap(), Completed::Committed);
    assert!(store.dead(DeadFilter::All, DeliveryId(0), 10).await.unwrap()[0].is_ok());
}

pub async fn a_damaged_delivery_is_an_error_in_its_place_and_does_not_run(
    store: &dyn Store,
    damage: &dyn Fn(DamagedRow),
) {
    let f = accept_three(store).await;
    damage(DamagedRow::Delivery(DeliveryId(2)));
    assert_eq!(ready_ids(store, f).await, ids([1, 3]));
    assert_eq!(store.delivery(DeliveryId(2)).await.unwrap().unwrap().unwrap_err().id, DeliveryId(2));
    assert!(store.deliveries(Seq(2)).await.unwrap()[0].is_err());
    assert!(store.event(Seq(2)).await.unwrap().unwrap().is_ok());
}

pub async fn a_damaged_dead_letter_is_listed_and_left_unchanged(store: &dyn Store, damage: &dyn Fn(DamagedRow)) {
    accept_three(store).await;
    store.complete(dead(1, 1)).await.unwrap();
    store.complete(dead(3, 1)).await.unwrap();
    damage(DamagedRow::Delivery(DeliveryId(1)));
    let letters = store.dead(DeadFilter::All, DeliveryId(0), 10).await.unwrap();
    assert_eq!(letters.iter().map(|read| read.is_ok()).collect::<Vec<_>>(), [false, true]);
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(), 1);
    assert_eq!(store.purge(&Actor::Runtime, DeadFilter::All).await.unwrap(), 0);
    let damaged = store.delivery(DeliveryId(1)).await.unwrap().unwrap().unwrap_err();
    assert_eq!((damaged.id, damaged.state), (DeliveryId(1), Some(DeliveryState::Dead)));
}

pub async fn damaged_marks_state_and_replays_are_errors_and_others_are_returned(
    store: &dyn Store,
    damage: &dyn Fn(DamagedRow),
) {
    for name in ["lost", "kept"] {
        let mark = Mark { scope: name.into(), key: "k".into(), value: Some(b"1".to_vec()) };
        store.accept(vec![], vec![mark]).await.unwrap();
        let touched =
            Touched { bucket: name.into(), key: "k".into(), seen: None, change: Some(Change::Set("1".into())) };
        let changes = Transaction { keys: vec![touched], ..Transaction::default() };
        store.state_write(&Actor::Runtime, changes).await.unwrap();
        let new = NewReplay { filter: "{}".into(), after: Seq(0), until: Seq(0) };
        store.start_replay(&Actor::Runtime, new).await.unwrap();
    }
    damage(DamagedRow::Mark { scope: "lost" });
    damage(DamagedRow::State { bucket: "lost" });
    damage(DamagedRow::Replay(ReplayId(1)));
    assert!(matches!(store.marks("lost".into()).await, Err(StoreError::Damaged(_))));
    assert_eq!(store.marks("kept".into()).await.unwrap()["k"], b"1");
    // The test reads the list of keys and no single value: a value may come from the cache, where it is undamaged.
    assert!(matches!(store.state_keys("lost", None, 10).await, Err(StoreError::Damaged(_))));
    assert_eq!(store.state_keys("kept", None, 10).await.unwrap().keys, ["k"]);
    assert!(matches!(store.replay(ReplayId(1)).await, Err(StoreError::Damaged(_))));
    // A list of replays leaves damaged ones out, so that the others continue.
    let replays = store.replays(ReplayId(0), usize::MAX).await.unwrap();
    assert_eq!(replays.iter().map(|replay| replay.id).collect::<Vec<_>>(), [ReplayId(2)]);
}

#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases_of_damage {
    ($open:expr, $damage:expr; $($case:ident)*) => { $(
        #[tokio::test]
        async fn $case() {
            use $crate::conformance;
            let clock = evoke_model::clock::Clock::fixed(conformance::NOW_MS);
            let (store, kept) = ($open)(clock, $crate::DEDUP_WINDOW);
            conformance::$case(&store, &|row| ($damage)(&kept, row)).await;
            assert_ne!($crate::InspectionStore::check(&store).await.unwrap().problems, Vec::<String>::new());
        }
    )* };
}
