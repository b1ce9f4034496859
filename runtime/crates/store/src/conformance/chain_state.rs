//! The progress of a chain, for a request that waits until a function of the chain publishes an event.

use super::*;

async fn state(store: &dyn Store, root: i64, wanted: &'static str) -> ChainState {
    store.chain_state(Seq(root), Arc::new(move |type_: &str| type_ == wanted)).await.unwrap()
}

/// Returns an event that the delivery `cause` published; with `hops` 0, the event with which the runtime reports the
/// failure of this delivery.
fn caused(id: &str, type_: &str, cause: i64, hops: u32, deliveries: Vec<NewDelivery>) -> NewEvent {
    let origin = if hops == 0 { Origin::RUNTIME } else { Origin(9) };
    let lineage = Lineage { cause: Some(DeliveryId(cause)), root: Some(Seq(1)), hops, origin };
    let mut new = new_event(id, deliveries);
    let event = Arc::make_mut(&mut new.event);
    event.type_ = type_.into();
    if hops == 0 {
        event.source = evoke_model::runtime_events::SOURCE.into();
    }
    NewEvent { lineage, ..new }
}

async fn complete(store: &dyn Store, completion: Arc<Completion>, publishes: Vec<NewEvent>) {
    let completion = Completion { publishes, ..Arc::unwrap_or_clone(completion) };
    assert_eq!(store.complete(Arc::new(completion)).await.unwrap(), Completed::Committed);
}

pub async fn a_chain_is_pending_until_it_published_a_wanted_event_or_has_nothing_left_to_run(store: &dyn Store) {
    let [a, b] = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap()[..] else { unreachable!() };
    // Event 1 has the deliveries 1 and 2, and the other event has delivery 3.
    let deliveries = vec![to(a), keyed(b, "k")];
    let mut first = new_event("1", deliveries);
    // The request that created the event came from a function of another chain, so the event has hops.
    first.lineage.hops = 7;
    store.accept(vec![first, new_event("2", vec![keyed(b, "k")])], vec![]).await.unwrap();
    let root = store.accepted(Seq(1)).await.unwrap().unwrap().unwrap();
    assert_eq!(root.event.id, "1");
    assert!(store.accepted(Seq(9)).await.unwrap().is_none());
    assert!(
        matches!(state(store, 1, "order.placed").await, ChainState::Pending),
        "the root itself is not a published event"
    );
    complete(store, done(1, 1), vec![caused("p", "paid", 1, 1, vec![to(a)])]).await;
    let ChainState::Published(found) = state(store, 1, "paid").await else { unreachable!() };
    assert_eq!(found.unwrap().event.id, "p");
    assert!(matches!(state(store, 1, "shipped").await, ChainState::Pending));
    // Delivery 2 retries, and delivery 3 of the other event is blocked behind it.
    complete(store, ended(2, 1, "retry", Verdict::RetryAt(NOW_MS + 9)), vec![]).await;
    complete(store, done(4, 1), vec![]).await;
    assert!(matches!(state(store, 1, "shipped").await, ChainState::Pending));
    assert!(matches!(state(store, 2, "shipped").await, ChainState::Pending));
    complete(store, done(2, 2), vec![]).await;
    assert!(matches!(state(store, 1, "shipped").await, ChainState::Finished));
    assert!(matches!(state(store, 2, "paid").await, ChainState::Pending), "an event of another chain does not count");
    assert!(matches!(state(store, 1, "paid").await, ChainState::Published(_)));
    assert!(matches!(state(store, 99, "paid").await, ChainState::Finished));
}

pub async fn a_chain_with_a_dead_letter_has_the_kind_of_its_last_outcome(store: &dyn Store) {
    let a = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(a), to(a)]), new_event("2", vec![to(a)])], vec![]).await.unwrap();
    complete(store, ended(1, 1, "retry", Verdict::RetryAt(NOW_MS)), vec![]).await;
    // The event that reports a dead letter is not part of the chain, and neither are the deliveries of this event.
    let report = caused("r", "paid", 1, 0, vec![to(a)]);
    complete(store, ended(1, 2, "timeout", Verdict::Dead("gave up".into())), vec![report]).await;
    let of_report = NewEvent {
        lineage: Lineage { origin: Origin::RUNTIME, hops: 1, ..caused("s", "paid", 4, 1, vec![]).lineage },
        ..caused("s", "paid", 4, 1, vec![])
    };
    complete(store, done(4, 1), vec![of_report]).await;
    let expected = (DeliveryId(1), "timeout");
    let is_dead = |state: &ChainState, (id, expected): (DeliveryId, &str)| matches!(state, ChainState::Dead { delivery, kind } if *delivery == id && kind == expected);
    let found = state(store, 1, "paid").await;
    assert!(is_dead(&found, expected), "{found:?}");
    // A published event of the wanted type takes precedence over a dead letter.
    complete(store, done(2, 1), vec![caused("p", "paid", 2, 1, vec![])]).await;
    assert!(matches!(state(store, 1, "paid").await, ChainState::Published(_)));
    assert!(is_dead(&state(store, 1, "shipped").await, expected));

    let cause = "cancelled: an operator cancelled the delivery";
    assert_eq!(store.cancel(&Actor::Runtime, PendingFilter::Root(Seq(2)), cause).await.unwrap(), 1);
    let found = state(store, 2, "paid").await;
    assert!(is_dead(&found, (DeliveryId(3), CANCELLED)), "{found:?}");
    store.purge(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert!(matches!(state(store, 2, "paid").await, ChainState::Finished));
}

pub async fn an_event_is_found_by_source_and_id_and_is_pending_until_its_deliveries_ended(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let mut other = new_event("1", vec![to(f)]);
    Arc::make_mut(&mut other.event).source = "/shop/other".into();
    store.accept(vec![new_event("1", vec![to(f), keyed(f, "k")]), other], vec![]).await.unwrap();
    let find = async |source: &str, id: &str| store.event_of(source.into(), id.into()).await.unwrap();
    assert_eq!((find("/shop/checkout", "1").await, find("/shop/other", "1").await), (Some(Seq(1)), Some(Seq(2))));
    assert_eq!((find("/shop/checkout", "2").await, find("/shop/none", "1").await), (None, None));
    let pending = async |seq| store.is_pending(Seq(seq)).await.unwrap();
    store.complete(dead(1, 1)).await.unwrap();
    assert_eq!((pending(1).await, pending(2).await, pending(9).await), (true, true, false));
    store.complete(ended(2, 1, "retry", Verdict::RetryAt(NOW_MS + 9))).await.unwrap();
    assert!(pending(1).await);
    store.complete(done(2, 2)).await.unwrap();
    assert_eq!((pending(1).await, pending(2).await), (false, true));
}
