//! The lists and writes of an operator.

use super::*;

fn deliveries(records: &[std::result::Result<DeadSummary, DamagedDelivery>]) -> Vec<i64> {
    records.iter().flatten().map(|summary| summary.id.0).collect()
}

pub async fn dead_letters_are_listed_newest_first_with_the_end_of_their_last_attempt(store: &dyn Store) {
    let [a, b] = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap()[..] else { unreachable!() };
    store.accept(vec![new_event("1", vec![to(a), to(b), to(a), to(a)])], vec![]).await.unwrap();
    for id in [1, 3, 4] {
        store.complete(dead(id, 1)).await.unwrap();
    }
    store.cancel(&Actor::Runtime, PendingFilter::Delivery(DeliveryId(2)), "cancelled: why").await.unwrap();
    let list = async |which, before: i64, limit| {
        deliveries(&store.newest_dead(which, DeliveryId(before), limit).await.unwrap())
    };
    assert_eq!(list(DeadFilter::All, i64::MAX, 9).await, [4, 3, 2, 1]);
    assert_eq!(list(DeadFilter::All, 4, 2).await, [3, 2]);
    assert_eq!(list(DeadFilter::Function("shop/a".into()), i64::MAX, 9).await, [4, 3, 1]);
    assert_eq!(list(DeadFilter::Delivery(DeliveryId(3)), i64::MAX, 9).await, [3]);
    let some = DeadFilter::Deliveries(ids([1, 2, 9]).into());
    assert_eq!(list(some.clone(), i64::MAX, 9).await, [2, 1]);
    let found = store.newest_dead(DeadFilter::All, DeliveryId(3), 9).await.unwrap();
    let [Ok(cancelled), Ok(rejected)] = &found[..] else { unreachable!("{found:?}") };
    assert_eq!((cancelled.cause.as_str(), cancelled.ended_ms), ("cancelled: why", None));
    assert_eq!((rejected.cause.as_str(), rejected.ended_ms), ("reject: why", Some(NOW_MS)));
    assert_eq!((rejected.event, rejected.function.as_str()), (Seq(1), "shop/a"));

    assert_eq!(store.redrive(&Actor::Runtime, some).await.unwrap(), 2);
    assert_eq!(list(DeadFilter::All, i64::MAX, 9).await, [4, 3]);
}

pub async fn a_blocked_delivery_names_the_delivery_it_waits_for(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![keyed(f, "k"), keyed(f, "k"), keyed(f, "j")])], vec![]).await.unwrap();
    let blocker = async |id| store.blocker(DeliveryId(id)).await.unwrap().map(|(id, state)| (id.0, state));
    assert_eq!((blocker(2).await, blocker(1).await), (Some((1, DeliveryState::Ready)), None));
    assert_eq!((blocker(3).await, blocker(9).await), (None, None));
    store.complete(dead(1, 1)).await.unwrap();
    assert_eq!(blocker(2).await, Some((1, DeliveryState::Dead)));
}

pub async fn a_retry_that_is_not_due_runs_now_when_an_operator_asks(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(f), to(f), to(f)])], vec![]).await.unwrap();
    for (id, due_ms) in [(1, NOW_MS + 60_000), (2, NOW_MS)] {
        store.complete(ended(id, 1, "retry", Verdict::RetryAt(due_ms))).await.unwrap();
    }
    let waiting = async |state| store.pending_ids(PendingFilter::All, state, DeliveryId(0), 9).await.unwrap();
    assert_eq!(waiting(None).await, ids([1, 2, 3]));
    assert_eq!(waiting(Some(DeliveryState::Retrying)).await, ids([1, 2]));
    assert_eq!(waiting(Some(DeliveryState::Ready)).await, ids([3]));
    assert_eq!(waiting(Some(DeliveryState::Blocked)).await, []);
    let announced = watch_ready(store);
    // Delivery 2 is due, so an attempt at it may already run. Delivery 3 does not wait for a retry. So only delivery 1
    // changes.
    assert_eq!(store.retry_now(&Actor::Runtime, PendingFilter::Function("shop/a".into())).await.unwrap(), 1);
    assert_eq!(*announced.lock().unwrap(), ids([1]));
    assert_eq!((ready_ids(store, f).await, store.pending()), (ids([1, 3]), 3));
    // The first attempt of the delivery still counts.
    assert_eq!(store.complete(done(1, 1)).await.unwrap(), Completed::Superseded);
    assert_eq!(store.complete(done(1, 2)).await.unwrap(), Completed::Committed);
    assert_eq!(store.retry_now(&Actor::Runtime, PendingFilter::All).await.unwrap(), 0);
}

pub async fn a_dead_letter_is_replaced_by_an_event_in_one_commit(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![keyed(f, "k"), keyed(f, "k")])], vec![]).await.unwrap();
    let replace = async |dead, id: &str| {
        let lineage = Lineage { cause: Some(DeliveryId(dead)), root: Some(Seq(1)), ..Lineage::default() };
        let event = NewEvent { lineage, ..new_event(id, vec![keyed(f, "k")]) };
        store.replace_dead(&Actor::Runtime, DeliveryId(dead), event).await.unwrap()
    };
    assert_eq!(replace(1, "2").await, None, "a pending delivery is not replaced");
    store.complete(dead(1, 1)).await.unwrap();
    let announced = watch_ready(store);
    assert_eq!(replace(1, "3").await, Some(Seq(2)));
    assert_eq!(replace(1, "4").await, None, "a delivery is replaced only once");
    // The next delivery of the key runs first, and then the delivery of the new event.
    assert_eq!((announced.lock().unwrap().clone(), store.pending()), (ids([2]), 2));
    store.complete(done(2, 1)).await.unwrap();
    assert_eq!(*announced.lock().unwrap(), ids([2, 3]));
    let record = store.delivery(DeliveryId(1)).await.unwrap().unwrap().unwrap();
    assert_eq!((record.state, record.cause.as_deref()), (DeliveryState::Purged, Some("reject: why")));
    let published = store.published(DeliveryId(1)).await.unwrap();
    assert_eq!(published.iter().map(DamagedEvent::seq_of).collect::<Vec<_>>(), seqs([2]));
}

pub async fn pending_deliveries_move_to_another_function_in_the_order_of_their_keys(store: &dyn Store) {
    let [a, b] = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap()[..] else { unreachable!() };
    let deliveries = vec![keyed(a, "k"), keyed(a, "k"), to(a), to(a), keyed(a, "j"), keyed(b, "j")];
    store.accept(vec![new_event("1", deliveries)], vec![]).await.unwrap();
    store.complete(ended(3, 1, "retry", Verdict::RetryAt(NOW_MS + 60_000))).await.unwrap();
    let moved = async || store.move_pending(&Actor::Runtime, "shop/a".into(), b, ids([4])).await.unwrap();
    // Delivery 4 is not moved, because it is in `except`. Delivery 5 is not moved either: it would come before delivery
    // 6 of the same key, and an attempt at delivery 6 could already be running.
    assert_eq!((moved().await, moved().await), (3, 0));
    assert_eq!((ready_ids(store, a).await, ready_ids(store, b).await), (ids([4, 5]), ids([1, 6])));
    let (due, _) = store.due(b, Stream::Live, NOW_MS + 60_000, HashSet::default(), LoadLimit::of(9)).await.unwrap();
    assert_eq!(due.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), ids([3]));
    assert_eq!(
        store.complete(Arc::new(Completion { function: b, ..Arc::unwrap_or_clone(done(1, 1)) })).await.unwrap(),
        Completed::Committed
    );
    assert_eq!(ready_ids(store, b).await, ids([2, 6]));
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.functions["shop/a"].pending(), totals.functions["shop/b"].pending()), (2, 3));
    assert_eq!(store.pending(), 5);
}

pub async fn events_are_found_by_function_and_positions_by_time(
    store: &dyn Store,
    now_ms: &std::sync::atomic::AtomicI64,
) {
    use std::sync::atomic::Ordering::Relaxed;
    let [a, b] = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap()[..] else { unreachable!() };
    let start_ms = now_ms.load(Relaxed);
    for (n, to_whom) in [vec![to(a)], vec![to(b)], vec![], vec![to(b), to(a)]].into_iter().enumerate() {
        now_ms.store(start_ms + 100 * n as i64, Relaxed);
        store.accept(vec![new_event(&n.to_string(), to_whom)], vec![]).await.unwrap();
    }
    let list = async |function: &str| {
        let filter = EventFilter { function: Some(function.into()), limit: 9, ..EventFilter::default() };
        let found = store.events(filter).await.unwrap();
        found.iter().map(DamagedEvent::seq_of).collect::<Vec<_>>()
    };
    assert_eq!((list("shop/a").await, list("shop/b").await), (seqs([1, 4]), seqs([2, 4])));
    assert_eq!(list("shop/none").await, seqs([]));
    store.complete(done(1, 1)).await.unwrap();
    let failed = ended(2, 1, "retry", Verdict::RetryAt(start_ms + 1_000_000));
    store.complete(Arc::new(Completion { function: b, ..Arc::unwrap_or_clone(failed) })).await.unwrap();
    let in_states = async |states: &[DeliveryState], function: Option<&str>| {
        let (states, function) = (states.to_vec(), function.map(str::to_owned));
        let found = store.events(EventFilter { states, function, limit: 9, ..EventFilter::default() }).await.unwrap();
        found.iter().map(DamagedEvent::seq_of).collect::<Vec<_>>()
    };
    assert_eq!(in_states(&[DeliveryState::Ready], None).await, seqs([4]));
    assert_eq!(in_states(&[DeliveryState::Done, DeliveryState::Retrying], None).await, seqs([1, 2]));
    assert_eq!(in_states(&[DeliveryState::Ready, DeliveryState::Done], Some("shop/a")).await, seqs([1, 4]));
    assert_eq!(in_states(&[DeliveryState::Dead], None).await, seqs([]));
    let first = async |after_ms| store.first_since(start_ms + after_ms).await.unwrap().0;
    assert_eq!([first(-5).await, first(0).await, first(1).await], [1, 1, 2]);
    assert_eq!([first(200).await, first(300).await, first(301).await], [3, 4, 5]);
    let since = store.pending_since().await.unwrap();
    assert_eq!(since, BTreeMap::from([("shop/a".to_owned(), start_ms + 300), ("shop/b".to_owned(), start_ms + 100)]));
}
