//! Exit counts: how often the process ended without a clean stop while a delivery was running.

use super::*;
use crate::running::UncleanExit;

fn exit(run: u64, attempts: impl IntoIterator<Item = (i64, u32)>) -> Option<UncleanExit> {
    let attempts = attempts.into_iter().map(|(id, attempt)| (DeliveryId(id), attempt)).collect();
    Some(UncleanExit { run, attempts })
}

fn counts(expected: impl IntoIterator<Item = (i64, u32)>) -> BTreeMap<DeliveryId, u32> {
    expected.into_iter().map(|(id, count)| (DeliveryId(id), count)).collect()
}

pub async fn an_exit_is_counted_once_for_attempts_that_are_the_next_of_a_pending_delivery(store: &dyn Store) {
    let function = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let deliveries = vec![to(function), to(function), to(function), to(function), keyed(function, "k")];
    store.accept(vec![new_event("1", deliveries)], vec![]).await.unwrap();
    store.complete(done(1, 1)).await.unwrap();
    store.complete(ended(2, 1, "retry", Verdict::RetryAt(NOW_MS))).await.unwrap();
    store.complete(ended(3, 1, "reject", Verdict::Dead("reject: why".into()))).await.unwrap();
    assert_eq!(store.record_exit(None).await.unwrap(), counts([]));

    // Pairs of a delivery and an attempt: a done delivery, an earlier attempt of a retrying one, a dead letter, two
    // deliveries whose attempts were running, and one that does not exist.
    let first = exit(1, [(1, 2), (2, 1), (3, 2), (4, 1), (5, 1), (99, 1)]);
    assert_eq!(store.record_exit(first.clone()).await.unwrap(), counts([(4, 1), (5, 1)]));
    assert_eq!(store.record_exit(first).await.unwrap(), counts([(4, 1), (5, 1)]));
    assert_eq!(store.record_exit(exit(2, [(2, 2), (4, 1)])).await.unwrap(), counts([(2, 1), (4, 2), (5, 1)]));

    // For a dead letter, the result is the count after a redrive: 1.
    store.complete(ended(4, 1, "crashed", Verdict::Dead("crashed: why".into()))).await.unwrap();
    assert_eq!(store.record_exit(None).await.unwrap(), counts([(2, 1), (4, 1), (5, 1)]));
    store.redrive(&Actor::Runtime, DeadFilter::Delivery(DeliveryId(4))).await.unwrap();
    // After the redrive, one more exit increments the count from 1 to 2.
    assert_eq!(store.record_exit(exit(3, [(4, 2)])).await.unwrap(), counts([(2, 1), (4, 2), (5, 1)]));
    store.complete(done(4, 2)).await.unwrap();
    store.complete(done(5, 1)).await.unwrap();
    assert_eq!(store.record_exit(None).await.unwrap(), counts([(2, 1)]));
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
}
