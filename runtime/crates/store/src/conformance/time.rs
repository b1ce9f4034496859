//! The dedup window and retention; these tests move the clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::*;

const WINDOW_MS: UnixMs = 60_000;
/// The dedup window of these cases.
pub const WINDOW: Duration = Duration::from_millis(WINDOW_MS as u64);

pub async fn an_id_is_accepted_again_when_its_dedup_window_ends(store: &dyn Store, now_ms: &AtomicI64) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let offer = async || store.accept(vec![new_event("1", vec![to(f)])], vec![]).await.unwrap()[0];
    assert_eq!(offer().await, Accepted::New(Seq(1)));
    now_ms.fetch_add(WINDOW_MS - 1, Ordering::SeqCst);
    assert_eq!(offer().await, Accepted::Duplicate(Seq(1)));
    now_ms.fetch_add(1, Ordering::SeqCst);
    assert_eq!(offer().await, Accepted::New(Seq(2)));
    assert_eq!(offer().await, Accepted::Duplicate(Seq(2)));
    // Setting the wall clock back does not end the window.
    now_ms.fetch_sub(WINDOW_MS, Ordering::SeqCst);
    assert_eq!(offer().await, Accepted::Duplicate(Seq(2)));
    assert_eq!(store.find("1".into()).await.unwrap(), seqs([2, 1]));
    assert_eq!(store.totals().await.unwrap().owed, 2);
}

pub async fn retention_removes_only_finished_events(store: &dyn Store, now_ms: &AtomicI64) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let owed = |id: &str| new_event(id, vec![to(f)]);
    let keep = |age_ms: UnixMs| Retention { age: Duration::from_millis(age_ms as u64), bytes: u64::MAX };
    let listed = async || -> Vec<Seq> {
        let filter = EventFilter { after: Some(Seq(0)), limit: 100, ..EventFilter::default() };
        store.events(filter).await.unwrap().iter().map(DamagedEvent::seq_of).collect()
    };
    // Event 1 is done, 2 pending, 3 dead, 4 purged, 5 has no deliveries, 6 is done and younger. Event 1 caused event 7.
    let events = vec![owed("1"), owed("2"), owed("3"), owed("4"), new_event("5", vec![])];
    store.accept(events, vec![]).await.unwrap();
    for delivery in [3, 4] {
        store.complete(dead(delivery, 1)).await.unwrap();
    }
    store.purge(&Actor::Runtime, DeadFilter::Delivery(DeliveryId(4))).await.unwrap();
    now_ms.fetch_add(100, Ordering::SeqCst);
    store.accept(vec![owed("6")], vec![]).await.unwrap();
    let lineage = Lineage { cause: Some(DeliveryId(1)), root: Some(Seq(1)), hops: 1, ..Lineage::default() };
    let publishes = vec![NewEvent { lineage, ..new_event("7", vec![]) }];
    store.complete(Arc::new(Completion { publishes, ..Arc::unwrap_or_clone(done(1, 1)) })).await.unwrap();
    store.complete(done(5, 1)).await.unwrap();

    assert_eq!(store.retain(&Actor::Runtime, keep(100)).await.unwrap(), 0);
    assert_eq!(store.retain(&Actor::Runtime, keep(99)).await.unwrap(), 3);
    assert_eq!(listed().await, seqs([2, 3, 6, 7]));
    let totals = store.totals().await.unwrap();
    assert_eq!(
        (totals.events, totals.owed, totals.removed),
        (7, 5, Removed { events: 3, owed: 2, replayed: 0, to: Seq(5) })
    );
    let counts = &totals.functions["shop/a"];
    assert_eq!((counts.done, counts.purged, counts.removed, counts.total()), (2, 1, 2, 5));
    let report = store.check().await.unwrap();
    assert_eq!((report.problems, report.totals), (vec![], totals));
    // The deliveries and the id of a removed event are gone, too. The events that it caused are still stored.
    assert!(
        store.delivery(DeliveryId(1)).await.unwrap().is_none() && store.deliveries(Seq(1)).await.unwrap().is_empty()
    );
    assert!(store.find("1".into()).await.unwrap().is_empty());
    assert_eq!(store.event(Seq(7)).await.unwrap().unwrap().unwrap().lineage.cause, Some(DeliveryId(1)));

    // After delivery 2 is done and dead letter 3 is purged, all remaining events are removed too.
    store.complete(done(2, 1)).await.unwrap();
    store.purge(&Actor::Runtime, DeadFilter::All).await.unwrap();
    now_ms.fetch_add(1, Ordering::SeqCst);
    assert_eq!(store.retain(&Actor::Runtime, keep(0)).await.unwrap(), 4);
    assert!(listed().await.is_empty());
    // Positions and ids continue after those of removed events.
    assert_eq!(store.accept(vec![owed("8")], vec![]).await.unwrap(), vec![Accepted::New(Seq(8))]);
    assert_eq!(store.deliveries(Seq(8)).await.unwrap()[0].as_ref().unwrap().id, DeliveryId(6));
    assert_eq!(store.pending(), 1);
}

pub async fn a_removed_event_is_deduplicated_until_its_window_ends(store: &dyn Store, now_ms: &AtomicI64) {
    let offer = async |id: &str| store.accept(vec![new_event(id, vec![])], vec![]).await.unwrap()[0];
    let all = Retention { age: Duration::ZERO, bytes: u64::MAX };
    offer("1").await;
    now_ms.fetch_add(10, Ordering::SeqCst);
    offer("2").await;
    now_ms.fetch_add(10, Ordering::SeqCst);
    assert_eq!(store.retain(&Actor::Runtime, all).await.unwrap(), 2);
    assert_eq!((offer("1").await, offer("2").await), (Accepted::Duplicate(Seq(1)), Accepted::Duplicate(Seq(2))));
    now_ms.fetch_add(WINDOW_MS - 20, Ordering::SeqCst);
    assert_eq!(store.retain(&Actor::Runtime, all).await.unwrap(), 0);
    assert_eq!((offer("1").await, offer("2").await), (Accepted::New(Seq(3)), Accepted::Duplicate(Seq(2))));
    now_ms.fetch_add(10, Ordering::SeqCst);
    assert_eq!(store.retain(&Actor::Runtime, all).await.unwrap(), 1);
    assert_eq!((offer("2").await, offer("1").await), (Accepted::New(Seq(4)), Accepted::Duplicate(Seq(3))));
    // A removed event is deduplicated only for its own origin: the same event from another origin is new.
    let from = async |origin| {
        let new = NewEvent { lineage: Lineage { origin, ..Lineage::default() }, ..new_event("3", vec![]) };
        store.accept(vec![new], vec![]).await.unwrap()[0]
    };
    let (ours, theirs) = (Origin::of("/shop/checkout"), Origin::of("/shop/inbox"));
    assert_eq!(from(ours).await, Accepted::New(Seq(5)));
    now_ms.fetch_add(10, Ordering::SeqCst);
    store.retain(&Actor::Runtime, all).await.unwrap();
    assert_eq!((from(theirs).await, from(ours).await), (Accepted::New(Seq(6)), Accepted::Duplicate(Seq(5))));
}

pub async fn a_store_over_its_size_limit_removes_the_oldest_events_first(store: &dyn Store, _: &AtomicI64) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let large = |n: i64| {
        let mut new = new_event(&n.to_string(), vec![to(f)]);
        Arc::make_mut(&mut new.event).data = Data::Binary(Bytes::from(vec![7; 100_000]));
        new
    };
    for n in 1..=200 {
        store.accept(vec![large(n)], vec![]).await.unwrap();
        if n != 3 {
            store.complete(done(n, 1)).await.unwrap();
        }
    }
    let limit = Retention { age: Duration::MAX, bytes: 5_000_000 };
    let removed = store.retain(&Actor::Runtime, limit).await.unwrap();
    assert!((145..160).contains(&removed), "{removed} removed");
    let filter = EventFilter { after: Some(Seq(0)), limit: 1_000, ..EventFilter::default() };
    let kept: Vec<Seq> = store.events(filter).await.unwrap().iter().map(DamagedEvent::seq_of).collect();
    assert_eq!((kept[0], kept.len() as u64), (Seq(3), 200 - removed));
    assert_eq!(kept[1..], ((202 - kept.len() as i64)..=200).map(Seq).collect::<Vec<_>>());
    assert_eq!(store.retain(&Actor::Runtime, limit).await.unwrap(), 0);
}
