//! Several owners of one store: completions that are superseded, deliveries that are released, and owned scopes.

use super::*;

pub async fn a_completion_of_another_attempt_or_of_a_finished_delivery_is_superseded(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store
        .accept(vec![new_event("1", vec![to(f)]), new_event("2", vec![keyed(f, "k"), keyed(f, "k")])], vec![])
        .await
        .unwrap();
    let complete = async |completion: Arc<Completion>| store.complete(completion).await.unwrap();
    let retry = |attempt| ended(1, attempt, "retry", Verdict::RetryAt(NOW_MS));
    assert_eq!(complete(done(1, 2)).await, Completed::Superseded);
    assert_eq!(ready_ids(store, f).await, ids([1, 2]));
    assert_eq!(complete(retry(1)).await, Completed::Committed);
    for late in [retry(1), done(1, 1), dead(1, 1), done(1, 3)] {
        assert_eq!(complete(late).await, Completed::Superseded);
    }
    // Delivery 3 is blocked by its key, and delivery 9 does not exist.
    assert_eq!(
        (complete(done(3, 1)).await, complete(done(9, 1)).await),
        (Completed::Superseded, Completed::Superseded)
    );
    assert_eq!(store.due(f, Stream::Live, NOW_MS, HashSet::default(), LoadLimit::of(9)).await.unwrap().0.len(), 1);
    let publishes = vec![new_event("published", vec![to(f)])];
    let ended = Arc::new(Completion { publishes, ..Arc::unwrap_or_clone(done(1, 2)) });
    assert_eq!(complete(ended.clone()).await, Completed::Committed);
    assert_eq!(complete(ended).await, Completed::Superseded);
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.events, totals.functions["shop/a"].done, store.pending()), (3, 1, 3));
    assert_eq!(store.delivery(DeliveryId(1)).await.unwrap().unwrap().unwrap().attempts.len(), 2);
    // After a redrive, the numbers of attempts continue.
    assert_eq!(complete(dead(2, 1)).await, Completed::Committed);
    store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!(complete(done(2, 1)).await, Completed::Superseded);
    assert_eq!(complete(done(2, 2)).await, Completed::Committed);
}

pub async fn released_deliveries_are_found_again(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(f)]), new_event("2", vec![to(f)])], vec![]).await.unwrap();
    store.complete(ended(2, 1, "retry", Verdict::RetryAt(NOW_MS))).await.unwrap();
    for _ in 0..2 {
        assert_eq!(ready_ids(store, f).await, ids([1]));
        assert_eq!(
            store.due(f, Stream::Live, NOW_MS, HashSet::default(), LoadLimit::of(9)).await.unwrap().0[0].id,
            DeliveryId(2)
        );
        // Delivery 3 does not exist.
        store.release(ids([1, 2, 3])).await.unwrap();
    }
    assert_eq!(store.complete(done(1, 1)).await.unwrap(), Completed::Committed);
    store.release(ids([1])).await.unwrap();
    assert_eq!(ready_ids(store, f).await, Vec::<DeliveryId>::new());
}

pub async fn a_scope_has_one_owner_until_it_is_released(store: &dyn Store) {
    let owned = store.own("/shop/nightly").await.unwrap();
    assert!(owned.is_some());
    assert!(store.own("/shop/nightly").await.unwrap().is_none());
    let other = store.own("/shop/inbox").await.unwrap();
    assert!(other.is_some());
    drop(owned);
    assert!(store.own("/shop/nightly").await.unwrap().is_some());
    assert!(store.own("/shop/inbox").await.unwrap().is_none());
}

pub async fn two_handles_share_deliveries_and_state(first: &dyn Store, second: &dyn Store) {
    let f = first.register(vec!["shop/a".into()]).await.unwrap()[0];
    assert_eq!(second.register(vec!["shop/a".into()]).await.unwrap(), vec![f]);
    first.accept(vec![new_event("1", vec![to(f)])], vec![]).await.unwrap();
    assert_eq!(
        second.accept(vec![new_event("1", vec![to(f)])], vec![]).await.unwrap(),
        vec![Accepted::Duplicate(Seq(1))]
    );
    assert_eq!(ready_ids(second, f).await, ids([1]));
    assert_eq!(second.complete(done(1, 1)).await.unwrap(), Completed::Committed);
    assert_eq!(first.complete(done(1, 1)).await.unwrap(), Completed::Superseded);
    assert_eq!((state_of(first, 1).await, first.instance()), (DeliveryState::Done, second.instance()));
}

pub async fn two_handles_share_scopes(first: &dyn Store, second: &dyn Store) {
    let owned = first.own("retention").await.unwrap();
    assert!(owned.is_some() && second.own("retention").await.unwrap().is_none());
    drop(owned);
    assert!(second.own("retention").await.unwrap().is_some());
}
