//! The limits of the events that one event from outside causes.

use super::*;

/// Returns the completion of a successful attempt that publishes `count` events, each with a delivery to `function`.
fn publishing(number: i64, function: FunctionId, root: i64, hops: u32, count: usize) -> Arc<Completion> {
    let lineage = Lineage { cause: Some(DeliveryId(number)), root: Some(Seq(root)), hops, ..Lineage::default() };
    let published = |n| NewEvent { lineage, ..new_event(&format!("{number}-{n}"), vec![to(function)]) };
    let publishes = (0..count).map(published).collect();
    Arc::new(Completion { publishes, function, ..Arc::unwrap_or_clone(done(number, 1)) })
}

pub async fn the_events_of_a_chain_are_limited_in_number_and_size(store: &dyn Store) {
    let [a, b] = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap()[..] else { unreachable!() };
    store.limit_descendants(DescendantsMax { events: 5, bytes: 1 << 20 }.into());
    store.accept(vec![new_event("1", vec![to(a)]), new_event("2", vec![to(a)])], vec![]).await.unwrap();
    let complete = async |completion: Arc<Completion>| store.complete(completion).await.unwrap();
    // Event 1 causes the events 3 and 4 with the deliveries 3 and 4, and then the events and deliveries 5 to 7.
    assert_eq!(complete(publishing(1, b, 1, 1, 2)).await, Completed::Committed);
    assert_eq!((store.pending(), store.backlog().published().deliveries), (3, 2));
    assert_eq!(complete(publishing(3, b, 1, 2, 3)).await, Completed::Committed);
    assert_eq!(store.chain(DeliveryId(5)).await.unwrap(), ["shop/a", "shop/b", "shop/b"]);
    let refused = complete(publishing(4, b, 1, 2, 1)).await;
    assert!(
        matches!(&refused, Completed::TooManyDescendants(why) if why.contains("event 1 caused 5 events")),
        "{refused:?}"
    );
    assert_eq!((store.pending(), store.backlog().published().deliveries), (5, 4));
    // No part of the refused completion was stored, and the delivery can still end as a dead letter. The event that
    // reports the dead letter does not count.
    assert_eq!((store.totals().await.unwrap().events, store.pending()), (7, 5));
    let lineage = Lineage { cause: Some(DeliveryId(4)), root: Some(Seq(1)), ..Lineage::default() };
    let mut report = new_event("report", vec![]);
    Arc::make_mut(&mut report.event).source = evoke_model::runtime_events::SOURCE.into();
    let publishes = vec![NewEvent { lineage, ..report }];
    let dead = ended(4, 1, "loop", Verdict::Dead("loop: why".into()));
    let dead = Completion { publishes, function: b, ..Arc::unwrap_or_clone(dead) };
    assert_eq!(complete(Arc::new(dead)).await, Completed::Committed);
    // A repeated completion is superseded, and not refused again.
    assert_eq!(complete(publishing(4, b, 1, 2, 1)).await, Completed::Superseded);
    assert_eq!(complete(publishing(5, b, 1, 3, 0)).await, Completed::Committed);

    // The descendants of another event are counted separately. Here, their size reaches the limit.
    assert_eq!(complete(publishing(2, b, 2, 1, 1)).await, Completed::Committed);
    let size = new_event("2-0", vec![]).event.size() as u64;
    store.limit_descendants(DescendantsMax { events: 5, bytes: 2 * size }.into());
    let refused = complete(publishing(8, b, 2, 2, 2)).await;
    assert!(matches!(refused, Completed::TooManyDescendants(_)), "{refused:?}");
    // If the source where the chain entered has limits of its own, these apply instead of the default limits.
    let through = |origin: Origin| {
        let mut completion = Arc::unwrap_or_clone(publishing(8, b, 2, 2, 1));
        completion.publishes.iter_mut().for_each(|new| new.lineage.origin = origin);
        Arc::new(completion)
    };
    let (strict, other) = (DescendantsMax { events: 1, bytes: 1 << 20 }, Origin::of("/shop/other"));
    let origins = [(Origin::of("/shop/in"), strict)].into();
    store.limit_descendants(DescendantsLimits { default: DescendantsMax { events: 5, bytes: 2 * size }, origins });
    let refused = complete(through(Origin::of("/shop/in"))).await;
    assert!(
        matches!(&refused, Completed::TooManyDescendants(why) if why.contains("the limit of 1 event;")),
        "{refused:?}"
    );
    assert_eq!(complete(through(other)).await, Completed::Committed);
}
