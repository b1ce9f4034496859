//! Cancelled deliveries.

use super::*;

fn list(records: &[ReadDelivery]) -> Vec<(i64, DeliveryState)> {
    records.iter().flatten().map(|record| (record.id.0, record.state)).collect()
}

pub async fn pending_deliveries_are_listed_and_cancelled_by_function_root_and_number(store: &dyn Store) {
    let [a, b] = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap()[..] else { unreachable!() };
    let deliveries = vec![keyed(a, "k"), keyed(a, "k"), to(b), to(b)];
    store.accept(vec![new_event("1", deliveries), new_event("2", vec![to(a)])], vec![]).await.unwrap();
    // The second event causes a third one, which has delivery 6.
    let lineage = Lineage { cause: Some(DeliveryId(5)), root: Some(Seq(2)), hops: 1, ..Lineage::default() };
    let published = NewEvent { lineage, ..new_event("3", vec![to(b)]) };
    let published = Completion { publishes: vec![published], ..Arc::unwrap_or_clone(done(5, 1)) };
    store.complete(Arc::new(published)).await.unwrap();
    let retry = Completion { function: b, ..Arc::unwrap_or_clone(ended(3, 1, "retry", Verdict::RetryAt(NOW_MS + 9))) };
    store.complete(Arc::new(retry)).await.unwrap();

    use DeliveryState::{Blocked, Ready, Retrying};
    let first_pending = async |which, after: i64, limit| {
        let mut found = Vec::new();
        for id in store.pending_ids(which, None, DeliveryId(after), limit).await.unwrap() {
            found.push(store.delivery(id).await.unwrap().unwrap());
        }
        list(&found)
    };
    let pending = async |which, after| first_pending(which, after, 9).await;
    let all = [(1, Ready), (2, Blocked), (3, Retrying), (4, Ready), (6, Ready)];
    assert_eq!(pending(PendingFilter::All, 0).await, all);
    assert_eq!(pending(PendingFilter::All, 3).await, all[3..]);
    assert_eq!(first_pending(PendingFilter::All, 0, 2).await, all[..2]);
    assert_eq!(pending(PendingFilter::Function("shop/a".into()), 0).await, all[..2]);
    assert_eq!(pending(PendingFilter::Function("shop/none".into()), 0).await, []);
    assert_eq!(pending(PendingFilter::Root(Seq(1)), 0).await, all[..4]);
    assert_eq!(pending(PendingFilter::Root(Seq(2)), 0).await, all[4..]);
    assert_eq!(pending(PendingFilter::Delivery(DeliveryId(3)), 0).await, all[2..3]);
    assert_eq!(pending(PendingFilter::Delivery(DeliveryId(5)), 0).await, []);

    let cancelled = Arc::new(Mutex::new(Vec::new()));
    let sink = cancelled.clone();
    store.on_commit(Box::new(move |committed| sink.lock().unwrap().extend(committed.cancelled)));
    let cancel = async |which| store.cancel(&Actor::Runtime, which, "cancelled: why").await.unwrap();
    assert_eq!(cancel(PendingFilter::Delivery(DeliveryId(5))).await, 0);
    assert_eq!(cancel(PendingFilter::Root(Seq(2))).await, 1);
    assert_eq!(cancel(PendingFilter::Function("shop/b".into())).await, 2);
    let announced = [(b, DeliveryId(6)), (b, DeliveryId(3)), (b, DeliveryId(4))];
    assert_eq!(*cancelled.lock().unwrap(), announced);
    assert_eq!((store.pending(), pending(PendingFilter::All, 0).await.len()), (2, 2));
    assert_eq!(store.due(b, Stream::Live, NOW_MS + 99, HashSet::default(), LoadLimit::of(9)).await.unwrap().0.len(), 0);
    let letter = store.delivery(DeliveryId(3)).await.unwrap().unwrap().unwrap();
    assert_eq!((letter.state, letter.cause.as_deref()), (DeliveryState::Dead, Some("cancelled: why")));
    assert_eq!((letter.attempts.len(), letter.due_ms), (1, None));
    // The store ignores the result of an attempt that was still running when its delivery was cancelled.
    let late = Completion { function: b, ..Arc::unwrap_or_clone(done(4, 1)) };
    assert_eq!(store.complete(Arc::new(late)).await.unwrap(), Completed::Superseded);
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());

    // Redriven deliveries are ready and count as pending again, also one that already had an attempt.
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::Function("shop/b".into())).await.unwrap(), 3);
    assert_eq!((ready_ids(store, b).await, store.pending()), (ids([3, 4, 6]), 5));
}

pub async fn a_cancelled_delivery_of_a_key_stays_in_order_after_a_redrive(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let deliveries = vec![keyed(f, "k"), keyed(f, "k"), keyed(f, "k")];
    store.accept(vec![new_event("1", deliveries)], vec![]).await.unwrap();
    let cancel = async |id| {
        store.cancel(&Actor::Runtime, PendingFilter::Delivery(DeliveryId(id)), "cancelled: why").await.unwrap()
    };
    assert_eq!(cancel(2).await, 1);
    // The first delivery can still run, and the cancelled second one still comes before the third.
    assert_eq!(ready_ids(store, f).await, ids([1]));
    store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([1]));
    assert_eq!(cancel(2).await, 1);
    store.complete(done(1, 1)).await.unwrap();
    assert_eq!(ready_ids(store, f).await, []);
    store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([2]));
    // All deliveries of a key are cancelled: after a redrive, only the first of them is ready.
    let all = PendingFilter::Function("shop/a".into());
    assert_eq!(store.cancel(&Actor::Runtime, all, "cancelled: why").await.unwrap(), 2);
    store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([2]));
    store.complete(done(2, 1)).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([3]));
    // A purged delivery is no longer pending.
    assert_eq!(cancel(3).await, 1);
    store.purge(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!((ready_ids(store, f).await, store.pending()), (ids([]), 0));
}
