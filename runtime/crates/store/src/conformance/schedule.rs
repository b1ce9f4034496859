//! Scheduled events.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use super::*;
use evoke_model::clock::rfc3339;

/// Returns an event that is due `after_ms` after the start of the case.
fn later(id: &str, after_ms: UnixMs, deliveries: Vec<NewDelivery>) -> NewEvent {
    let mut new = new_event(id, deliveries);
    let due = rfc3339(NOW_MS + after_ms);
    Arc::make_mut(&mut new.event).extensions.insert("notbefore".into(), due);
    new
}

fn seqs_of(scheduled: &[Scheduled]) -> Vec<Seq> {
    scheduled.iter().map(|one| one.seq).collect()
}

pub async fn a_scheduled_event_has_no_deliveries_until_it_is_released_once(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let seen = watch_ready(store);
    let events = vec![later("1", 5, vec![to(f)]), later("2", 0, vec![to(f)]), later("3", 3, vec![to(f)])];
    store.accept(events, vec![]).await.unwrap();
    // Event 2 is already due, so it is not scheduled.
    assert_eq!((ready_ids(store, f).await, store.pending()), (ids([1]), 1));
    assert!(store.deliveries(Seq(1)).await.unwrap().is_empty());
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.events, totals.owed, totals.scheduled), (3, 1, 2));
    let backlog = store.schedule_backlog().total();
    let size = |id, after_ms| later(id, after_ms, vec![]).event.size() as u64;
    assert_eq!(backlog, Amount { deliveries: 2, bytes: size("1", 5) + size("3", 3) });
    assert_eq!(store.alarm().earliest_ms(), NOW_MS + 3);
    assert!(store.is_scheduled(Seq(1)).await.unwrap() && !store.is_scheduled(Seq(2)).await.unwrap());

    let all = store.scheduled((UnixMs::MIN, Seq(0)), 9).await.unwrap();
    assert_eq!(seqs_of(&all), seqs([3, 1]));
    assert_eq!((all[0].due_ms, all[0].event.as_ref().unwrap().event.id.as_str()), (NOW_MS + 3, "3"));
    assert_eq!(seqs_of(&store.scheduled((NOW_MS + 3, Seq(3)), 9).await.unwrap()), seqs([1]));
    let due = async |after_ms, limit| {
        let (due, next) = store.due_events(NOW_MS + after_ms, limit).await.unwrap();
        (seqs_of(&due), next.map(|next_ms| next_ms - NOW_MS))
    };
    assert_eq!(due(2, 9).await, (vec![], Some(3)));
    assert_eq!(due(3, 9).await, (seqs([3]), Some(5)));
    assert_eq!(due(9, 1).await, (seqs([3]), Some(5)));
    assert_eq!(due(9, 9).await, (seqs([3, 1]), None));

    let release = async || store.release_events(vec![(Seq(3), vec![to(f), keyed(f, "k")])]).await.unwrap();
    assert_eq!(release().await, 1);
    assert_eq!(release().await, 0);
    assert_eq!(store.release_events(vec![(Seq(2), vec![to(f)]), (Seq(99), vec![to(f)])]).await.unwrap(), 0);
    assert_eq!((ready_ids(store, f).await, seen.lock().unwrap().clone()), (ids([1, 2, 3]), ids([1, 2, 3])));
    assert_eq!(store.deliveries(Seq(3)).await.unwrap().len(), 2);
    assert_eq!(store.backlog().published(), Amount { deliveries: 2, bytes: 2 * size("3", 3) });
    let ready = store.claim(f, Stream::Live, DeliveryId(1), LoadLimit::of(1)).await.unwrap().remove(0);
    assert_eq!((ready.since_ms, ready.event.unwrap().event.id.as_str()), (NOW_MS, "3"));
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.owed, totals.scheduled, store.schedule_backlog().total().deliveries), (3, 1, 1));
    // Releasing an event without deliveries also removes it from the schedule.
    assert_eq!(store.release_events(vec![(Seq(1), vec![])]).await.unwrap(), 1);
    assert_eq!(store.schedule_backlog().total(), Amount::default());
}

pub async fn deliveries_of_a_released_event_count_as_not_refusable_until_they_end(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![later("1", 5, vec![to(f)]), later("2", 5, vec![to(f)])], vec![]).await.unwrap();
    let published = || store.backlog().published().deliveries;
    let release = vec![(Seq(1), vec![to(f)]), (Seq(2), vec![to(f), keyed(f, "k"), keyed(f, "k")])];
    assert_eq!((store.release_events(release).await.unwrap(), published()), (2, 4));
    // Four ways to change the count: the first attempt ends a delivery, a later attempt ends one, an operator cancels
    // two, and a redrive makes them pending again.
    store.complete(done(1, 1)).await.unwrap();
    assert_eq!(published(), 3);
    store.complete(ended(2, 1, "retry", Verdict::RetryAt(NOW_MS))).await.unwrap();
    assert_eq!(published(), 3);
    store.complete(done(2, 2)).await.unwrap();
    assert_eq!(published(), 2);
    assert_eq!(store.cancel(&Actor::Runtime, PendingFilter::All, "why").await.unwrap(), 2);
    assert_eq!(published(), 0);
    assert_eq!((store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(), published()), (2, 2));
    // A replayed delivery does not count here, because replays have a limit of their own.
    let new = NewReplay { filter: "{}".into(), after: Seq(0), until: Seq(2) };
    let replay = store.start_replay(&Actor::Runtime, new).await.unwrap();
    let offers = vec![(Arc::new(store.event(Seq(1)).await.unwrap().unwrap().unwrap()), vec![to(f)])];
    assert!(store.advance_replay(replay, Step { position: Seq(2), offers }).await.unwrap());
    assert_eq!((store.pending(), published()), (3, 2));
    store.complete(done(5, 1)).await.unwrap();
    assert_eq!((store.pending(), published()), (2, 2));
}

pub async fn a_published_event_is_scheduled_with_the_outcome(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(f)])], vec![]).await.unwrap();
    let lineage = Lineage { cause: Some(DeliveryId(1)), root: Some(Seq(1)), hops: 1, ..Lineage::default() };
    let publishes = vec![NewEvent { lineage, ..later("2", 7, vec![to(f)]) }];
    store.complete(Arc::new(Completion { publishes, ..Arc::unwrap_or_clone(done(1, 1)) })).await.unwrap();
    assert_eq!((store.pending(), store.schedule_backlog().published().deliveries), (0, 1));
    assert_eq!(store.alarm().earliest_ms(), NOW_MS + 7);
    assert_eq!(store.release_events(vec![(Seq(2), vec![to(f)])]).await.unwrap(), 1);
    assert_eq!(store.event(Seq(2)).await.unwrap().unwrap().unwrap().lineage, lineage);
    assert_eq!((ready_ids(store, f).await, store.backlog().published().deliveries), (ids([2]), 1));
}

pub async fn a_released_event_takes_the_last_place_of_its_order_key(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![later("1", 5, vec![keyed(f, "k")])], vec![]).await.unwrap();
    store.accept(vec![new_event("2", vec![keyed(f, "k")]), new_event("3", vec![keyed(f, "k")])], vec![]).await.unwrap();
    store.release_events(vec![(Seq(1), vec![keyed(f, "k")])]).await.unwrap();
    store.accept(vec![new_event("4", vec![keyed(f, "k")])], vec![]).await.unwrap();
    let mut order = Vec::new();
    while let Some(next) = store.claim(f, Stream::Live, DeliveryId(0), LoadLimit::of(9)).await.unwrap().pop() {
        order.push(next.event.unwrap().event.id.clone());
        store.complete(done(next.id.0, 1)).await.unwrap();
    }
    assert_eq!(order, ["2", "3", "1", "4"]);
}

pub async fn a_cancelled_event_has_purged_deliveries_and_blocks_no_key(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let seen = watch_ready(store);
    store.accept(vec![later("1", 5, vec![]), later("2", 6, vec![])], vec![]).await.unwrap();
    store.accept(vec![new_event("3", vec![keyed(f, "k")])], vec![]).await.unwrap();
    let events = vec![(Seq(1), vec![keyed(f, "k"), to(f)]), (Seq(3), vec![to(f)])];
    assert_eq!(store.cancel_events(&Actor::Runtime, events.clone(), "cancelled: why").await.unwrap(), 1);
    assert_eq!(store.cancel_events(&Actor::Runtime, events, "cancelled: why").await.unwrap(), 0);
    assert_eq!(store.cancel_events(&Actor::Runtime, vec![(Seq(2), vec![keyed(f, "l")])], "why").await.unwrap(), 1);
    let purged = store.deliveries(Seq(1)).await.unwrap().remove(0).unwrap();
    assert_eq!((purged.state, purged.cause.as_deref()), (DeliveryState::Purged, Some("cancelled: why")));
    assert_eq!((store.pending(), store.totals().await.unwrap().functions["shop/a"].purged), (1, 3));
    // A redrive does not find the purged deliveries, and later deliveries of both keys can run.
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(), 0);
    store.complete(done(1, 1)).await.unwrap();
    store.accept(vec![new_event("4", vec![keyed(f, "k"), keyed(f, "l")])], vec![]).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([5, 6]));
    assert_eq!(*seen.lock().unwrap(), ids([1, 5, 6]));
    assert_eq!(store.due_events(NOW_MS + 99, 9).await.unwrap().0.len(), 0);
}

pub async fn a_replay_leaves_out_scheduled_events(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![later("1", 5, vec![]), new_event("2", vec![])], vec![]).await.unwrap();
    let new = NewReplay { filter: "{}".into(), after: Seq(0), until: Seq(2) };
    let replay = store.start_replay(&Actor::Runtime, new).await.unwrap();
    let mut offers = Vec::new();
    for seq in [1, 2].map(Seq) {
        offers.push((Arc::new(store.event(seq).await.unwrap().unwrap().unwrap()), vec![to(f)]));
    }
    assert!(store.advance_replay(replay, Step { position: Seq(2), offers }).await.unwrap());
    assert_eq!(store.replay(replay).await.unwrap().unwrap().events, 1);
    assert!(store.deliveries(Seq(1)).await.unwrap().is_empty());
    assert_eq!(store.deliveries(Seq(2)).await.unwrap().len(), 1);
}

pub async fn ages_of_a_scheduled_event_count_from_its_release(store: &dyn Store, now_ms: &AtomicI64) {
    let window_ms = i64::try_from(WINDOW.as_millis()).unwrap();
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let offer = async || store.accept(vec![later("1", 10 * window_ms, vec![to(f)])], vec![]).await.unwrap()[0];
    let keep = |age_ms: i64| Retention { age: Duration::from_millis(age_ms as u64), bytes: u64::MAX };
    assert_eq!(offer().await, Accepted::New(Seq(1)));
    store.accept(vec![new_event("2", vec![])], vec![]).await.unwrap();
    now_ms.fetch_add(10 * window_ms, Ordering::SeqCst);
    // While the event waits, retention does not remove it, and its id is deduplicated. Retention still removes later
    // events.
    assert_eq!(store.retain(&Actor::Runtime, keep(0)).await.unwrap(), 1);
    assert_eq!(offer().await, Accepted::Duplicate(Seq(1)));
    assert_eq!(store.release_events(vec![(Seq(1), vec![to(f)])]).await.unwrap(), 1);
    let ready = store.claim(f, Stream::Live, DeliveryId(0), LoadLimit::of(1)).await.unwrap().remove(0);
    assert_eq!(ready.since_ms, NOW_MS + 10 * window_ms);
    store.complete(done(1, 1)).await.unwrap();
    now_ms.fetch_add(window_ms / 2, Ordering::SeqCst);
    assert_eq!(store.retain(&Actor::Runtime, keep(window_ms / 2)).await.unwrap(), 0);
    assert_eq!(store.retain(&Actor::Runtime, keep(window_ms / 2 - 1)).await.unwrap(), 1);
    assert_eq!(offer().await, Accepted::Duplicate(Seq(1)));
    now_ms.fetch_add(window_ms / 2, Ordering::SeqCst);
    assert_eq!(offer().await, Accepted::New(Seq(3)));
}
