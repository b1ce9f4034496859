//! Replays: stored events are delivered again.

use super::*;

/// Stores `count` events, each with one delivery that is done.
async fn history(store: &dyn Store, count: i64, new: impl Fn(FunctionId) -> NewDelivery) -> FunctionId {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    for n in 1..=count {
        store.accept(vec![new_event(&n.to_string(), vec![new(f)])], vec![]).await.unwrap();
        store.complete(done(n, 1)).await.unwrap();
    }
    f
}

async fn start(store: &dyn Store, until: i64) -> ReplayId {
    let new = NewReplay { filter: "{}".into(), after: Seq(0), until: Seq(until) };
    store.start_replay(&Actor::Runtime, new).await.unwrap()
}

/// Builds the step of a replay that adds a delivery for each of these events.
async fn step(store: &dyn Store, events: impl IntoIterator<Item = i64>, new: &NewDelivery) -> Step {
    let mut step = Step::default();
    for seq in events.into_iter().map(Seq) {
        step.offers.push((Arc::new(store.event(seq).await.unwrap().unwrap().unwrap()), vec![new.clone()]));
        step.position = seq;
    }
    step
}

pub async fn a_replay_adds_deliveries_that_are_marked_and_counted(store: &dyn Store) {
    let f = history(store, 3, to).await;
    let seen = watch_ready(store);
    let id = start(store, 3).await;
    assert!(store.advance_replay(id, step(store, [1, 2], &to(f)).await).await.unwrap());
    assert_eq!(*seen.lock().unwrap(), ids([4, 5]));
    let ready = store.claim(f, Stream::Replay, DeliveryId(0), LoadLimit::of(10)).await.unwrap();
    assert_eq!(
        ready.iter().map(|d| (d.id, d.event.as_ref().unwrap().seq, d.replay)).collect::<Vec<_>>(),
        [(DeliveryId(4), Seq(1), Some(id)), (DeliveryId(5), Seq(2), Some(id))]
    );
    assert!(store.claim(f, Stream::Live, DeliveryId(0), LoadLimit::of(10)).await.unwrap().is_empty());
    // The list of the event's deliveries ends with the replayed one.
    let of_event: Vec<_> = store.deliveries(Seq(1)).await.unwrap().iter().flatten().map(|d| (d.id, d.replay)).collect();
    assert_eq!(of_event, [(DeliveryId(1), None), (DeliveryId(4), Some(id))]);

    store.complete(ended(4, 1, "retry", Verdict::RetryAt(NOW_MS + 5))).await.unwrap();
    assert_eq!(
        store.due(f, Stream::Replay, NOW_MS + 5, HashSet::default(), LoadLimit::of(10)).await.unwrap().0[0].id,
        DeliveryId(4)
    );
    assert!(store.due(f, Stream::Live, NOW_MS + 5, HashSet::default(), LoadLimit::of(10)).await.unwrap().0.is_empty());
    store.complete(done(4, 2)).await.unwrap();
    store.complete(dead(5, 1)).await.unwrap();
    let replay = store.replay(id).await.unwrap().unwrap();
    assert_eq!((replay.position, replay.events, replay.state), (Seq(2), 2, ReplayState::Running));
    assert_eq!(replay.deliveries, Counts { done: 1, dead: 1, ..Counts::default() });
    let report = store.check().await.unwrap();
    assert_eq!((report.totals.owed, report.totals.replayed, report.problems), (3, 2, vec![]));
    assert_eq!(store.totals().await.unwrap(), report.totals);
    // A redriven dead letter still belongs to the replay.
    store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!(store.replay(id).await.unwrap().unwrap().deliveries.ready, 1);
    assert_eq!(store.replays(ReplayId(0), 10).await.unwrap().len(), 1);
    assert!(
        store.replays(ReplayId(0), 0).await.unwrap().is_empty()
            && store.replays(ReplayId(1), 10).await.unwrap().is_empty()
    );
}

pub async fn a_repeated_or_late_replay_step_changes_nothing(store: &dyn Store) {
    let f = history(store, 3, to).await;
    let id = start(store, 3).await;
    let first = step(store, [1, 2], &to(f)).await;
    assert!(store.advance_replay(id, first.clone()).await.unwrap());
    assert!(!store.advance_replay(id, first.clone()).await.unwrap());
    assert!(!store.advance_replay(id.next(), first).await.unwrap());
    let last = step(store, [3], &to(f)).await;
    assert!(store.transition_replay(&Actor::Runtime, id, &[ReplayState::Running], ReplayState::Paused).await.unwrap());
    assert!(!store.advance_replay(id, last.clone()).await.unwrap());
    assert!(
        !store.transition_replay(&Actor::Runtime, id, &[ReplayState::Running], ReplayState::Cancelled).await.unwrap()
    );
    assert!(
        store
            .transition_replay(&Actor::Runtime, id, &[ReplayState::Running, ReplayState::Paused], ReplayState::Running)
            .await
            .unwrap()
    );
    assert!(store.advance_replay(id, last).await.unwrap());
    assert_eq!(store.pending(), 3);
}

pub async fn a_replay_keeps_key_order_and_never_blocks_live_deliveries(store: &dyn Store) {
    let f = history(store, 3, |f| keyed(f, "ada")).await;
    store.accept(vec![new_event("live 1", vec![keyed(f, "ada")])], vec![]).await.unwrap();
    let (one, other) = (start(store, 3).await, start(store, 3).await);
    let all = step(store, [1, 2, 3], &keyed(f, "ada")).await;
    store.advance_replay(one, all.clone()).await.unwrap();
    store.advance_replay(other, all).await.unwrap();
    let replays = async || -> Vec<DeliveryId> {
        store.claim(f, Stream::Replay, DeliveryId(0), LoadLimit::of(10)).await.unwrap().iter().map(|d| d.id).collect()
    };
    assert_eq!((ready_ids(store, f).await, replays().await), (ids([4]), ids([5, 8])));
    // A dead letter of a replay blocks only the later deliveries of the same key and the same replay.
    store.complete(dead(5, 1)).await.unwrap();
    store.complete(done(8, 1)).await.unwrap();
    assert_eq!(replays().await, ids([9]));
    store.complete(done(4, 1)).await.unwrap();
    store.accept(vec![new_event("live 2", vec![keyed(f, "ada")])], vec![]).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([11]));
    store.purge(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!(replays().await, ids([6, 9]));
}

pub async fn a_cancelled_replay_purges_deliveries_that_did_not_start(store: &dyn Store) {
    let f = history(store, 600, |f| keyed(f, "ada")).await;
    let id = start(store, 600).await;
    store.advance_replay(id, step(store, 1..=600, &keyed(f, "ada")).await).await.unwrap();
    assert_eq!(store.purge_replay(&Actor::Runtime, id, ids([601])).await.unwrap(), 599);
    assert_eq!((store.pending(), state_of(store, 602).await), (1, DeliveryState::Purged));
    assert_eq!(
        store.delivery(DeliveryId(602)).await.unwrap().unwrap().unwrap().cause.as_deref(),
        Some(Replay::CANCELLED)
    );
    store.complete(done(601, 1)).await.unwrap();
    let replay = store.replay(id).await.unwrap().unwrap();
    assert_eq!(replay.deliveries, Counts { done: 1, purged: 599, ..Counts::default() });
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
}

pub async fn retention_and_replays_work_together(store: &dyn Store) {
    let f = history(store, 4, to).await;
    let id = start(store, 4).await;
    let all = step(store, [1, 2, 3, 4], &to(f)).await;
    let first = Step { position: Seq(2), offers: all.offers[..2].to_vec() };
    store.advance_replay(id, first).await.unwrap();
    store.complete(done(5, 1)).await.unwrap();
    // Event 1 is finished, and so is its replayed delivery. Event 2 has a pending replayed delivery. Events 3 and 4 are
    // finished, and not replayed yet.
    let everything = Retention { age: std::time::Duration::ZERO, bytes: 0 };
    assert_eq!(store.retain(&Actor::Runtime, everything).await.unwrap(), 3);
    let removed = store.totals().await.unwrap().removed;
    assert_eq!((removed.events, removed.owed, removed.replayed), (3, 3, 1));
    // The replay skips removed events: it adds no deliveries for them.
    store.advance_replay(id, Step { position: Seq(4), offers: all.offers[2..].to_vec() }).await.unwrap();
    assert_eq!((store.pending(), store.replay(id).await.unwrap().unwrap().events), (1, 2));
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
}
