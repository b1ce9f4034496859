//! The limits of the calls that return deliveries.

use super::*;

/// Returns the size of an event of these cases.
fn size() -> usize {
    new_event("1", vec![]).event.size()
}

/// Stores this number of events with one delivery each.
async fn accept(store: &dyn Store, function: FunctionId, count: i64) {
    let events = (1..=count).map(|number| new_event(&number.to_string(), vec![to(function)]));
    store.accept(events.collect(), vec![]).await.unwrap();
}

fn ids_of(found: &[ReadyDelivery]) -> Vec<DeliveryId> {
    found.iter().map(|delivery| delivery.id).collect()
}

pub async fn a_load_ends_at_its_size_and_the_next_one_continues(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    accept(store, f, 5).await;
    let load = async |after: i64, limit: LoadLimit| {
        let found = store.claim(f, Stream::Live, DeliveryId(after), limit).await.unwrap();
        (ids_of(&found), limit.is_reached_by(&found))
    };
    let limit = |deliveries, bytes| LoadLimit { deliveries, bytes };
    assert_eq!(load(0, limit(9, 2 * size())).await, (ids([1, 2]), true));
    assert_eq!(load(2, limit(9, size() + 1)).await, (ids([3, 4]), true));
    assert_eq!(load(0, limit(9, 1)).await, (ids([1]), true));
    assert_eq!(load(0, limit(1, 2 * size())).await, (ids([1]), true));
    assert_eq!(load(3, limit(9, 2 * size() + 1)).await, (ids([4, 5]), false));
    assert_eq!(load(5, limit(9, 1)).await, (ids([]), false));
}

pub async fn a_load_of_retries_ends_at_its_size_and_leaves_out_held_ones(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    accept(store, f, 5).await;
    for id in 1..=5 {
        store.complete(ended(id, 1, "retry", Verdict::RetryAt(NOW_MS + id))).await.unwrap();
    }
    let due = async |now_ms, held: &[i64], limit: LoadLimit| {
        let held = held.iter().copied().map(DeliveryId).collect();
        let (found, next_ms) = store.due(f, Stream::Live, now_ms, held, limit).await.unwrap();
        (ids_of(&found), next_ms.map(|at_ms| at_ms - NOW_MS), limit.is_reached_by(&found))
    };
    let limit = |deliveries, bytes| LoadLimit { deliveries, bytes };
    assert_eq!(due(NOW_MS + 9, &[], limit(9, 2 * size())).await, (ids([1, 2]), Some(3), true));
    assert_eq!(due(NOW_MS + 9, &[], limit(9, 1)).await, (ids([1]), Some(2), true));
    assert_eq!(due(NOW_MS + 9, &[1, 2], limit(9, 1)).await, (ids([3]), Some(4), true));
    assert_eq!(due(NOW_MS + 9, &[1, 3], limit(2, usize::MAX)).await, (ids([2, 4]), Some(5), true));
    assert_eq!(due(NOW_MS + 4, &[1, 2, 3], limit(9, size() + 1)).await, (ids([4]), Some(5), false));
    assert_eq!(due(NOW_MS + 9, &[1, 2, 3, 4, 5], limit(9, 1)).await, (ids([]), None, false));
}
