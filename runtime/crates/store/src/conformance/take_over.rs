//! Functions that take over the data stored under their earlier names.

use super::*;
use evoke_model::state::{Change, Touched};

/// The marks whose keys name functions.
const NAMES: [MarkNames; 2] =
    [MarkNames { scope: "/evoke/paused", prefix: "" }, MarkNames { scope: "/evoke", prefix: "source " }];

fn take_over(from: &str, to: &str) -> TakeOver {
    TakeOver { from: from.into(), to: to.into() }
}

async fn taken(store: &dyn Store, from: &str, to: &str) -> Vec<(u64, u64, u64)> {
    let taken = store.take_over(vec![take_over(from, to)], &NAMES).await.unwrap().unwrap();
    taken.iter().map(|taken| (taken.pending, taken.dead, taken.keys)).collect()
}

async fn set(store: &dyn Store, bucket: &str, key: &str, value: &str) {
    let change = Some(Change::Set(value.to_owned().into()));
    let touched = Touched { bucket: bucket.into(), key: key.into(), seen: None, change };
    let changes = Transaction { keys: vec![touched], ..Transaction::default() };
    store.state_write(&Actor::Runtime, changes).await.unwrap();
}

async fn value(store: &dyn Store, bucket: &str, key: &str) -> Option<String> {
    let entry = store.state(bucket, key).await.unwrap();
    entry.map(|entry| String::from_utf8(entry.value.to_vec()).unwrap())
}

fn mark(scope: &str, key: &str) -> Mark {
    Mark { scope: scope.into(), key: key.into(), value: Some(key.into()) }
}

async fn keys_of(store: &dyn Store, scope: &str) -> Vec<String> {
    store.marks(scope.into()).await.unwrap().into_keys().collect()
}

async fn name_of(store: &dyn Store, number: i64) -> String {
    store.delivery(DeliveryId(number)).await.unwrap().unwrap().unwrap().function
}

pub async fn a_renamed_function_takes_over_everything_once(store: &dyn Store) {
    let [old, other] = store.register(vec!["shop/old".into(), "shop/older".into()]).await.unwrap()[..] else {
        unreachable!()
    };
    let origins = store.register_origins(vec!["/shop/old/timer-1".into(), "/shop/older/timer-1".into()]).await.unwrap();
    let deliveries = vec![to(old), keyed(old, "k"), keyed(old, "k"), to(old), to(old), to(other)];
    let marks = vec![
        mark("/shop/old/timer-1", "last"),
        mark("/shop/older/timer-1", "last"),
        mark("/evoke/paused", "shop/old"),
        mark("/evoke/paused", "shop/older"),
        mark("/evoke", "source shop/old/timer-1"),
    ];
    let lineage = Lineage { origin: origins[0], ..Lineage::default() };
    store.accept(vec![NewEvent { lineage, ..new_event("1", deliveries) }], marks).await.unwrap();
    for n in 1..=3 {
        set(store, "shop/old", &n.to_string(), "v").await;
    }
    set(store, "shop/older", "1", "other").await;
    // This read puts a value into the cache of the store, from which the take-over must remove it.
    assert_eq!(value(store, "shop/old", "1").await.as_deref(), Some("v"));
    store.complete(done(1, 1)).await.unwrap();
    store.complete(dead(4, 1)).await.unwrap();
    store.complete(ended(5, 1, "retry", Verdict::RetryAt(NOW_MS + 9))).await.unwrap();
    let filter = r#"{"function":"shop/old"}"#.to_owned();
    let replay = NewReplay { filter, after: Seq(0), until: Seq(1) };
    let replay = store.start_replay(&Actor::Runtime, replay).await.unwrap();

    assert_eq!(taken(store, "shop/old", "shop/new").await, [(3, 1, 3)]);
    assert_eq!(taken(store, "shop/old", "shop/new").await, []);
    let new = store.register(vec!["shop/new".into()]).await.unwrap()[0];
    assert_eq!(new, old, "the deliveries keep the id of their function");
    for number in 1..=5 {
        assert_eq!(name_of(store, number).await, "shop/new");
    }
    assert_eq!(name_of(store, 6).await, "shop/older");
    assert_eq!(ready_ids(store, new).await, ids([2]));
    assert_eq!(
        store.due(new, Stream::Live, NOW_MS + 9, HashSet::default(), LoadLimit::of(9)).await.unwrap().0[0].id,
        DeliveryId(5)
    );
    assert_eq!(state_of(store, 3).await, DeliveryState::Blocked);
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::Function("shop/new".into())).await.unwrap(), 1);
    let totals = store.totals().await.unwrap();
    assert!(!totals.functions.contains_key("shop/old"));
    assert_eq!((totals.functions["shop/new"].done, totals.functions["shop/new"].pending()), (1, 4));

    assert_eq!(value(store, "shop/new", "2").await.as_deref(), Some("v"));
    assert_eq!(
        (value(store, "shop/old", "1").await, value(store, "shop/older", "1").await),
        (None, Some("other".into()))
    );
    assert_eq!(store.state_usage("shop/old"), Default::default());
    assert_eq!(store.state_usage("shop/new").keys, 3);
    assert_eq!(store.state_keys("shop/new", None, 9).await.unwrap().keys, ["1", "2", "3"]);
    assert_eq!(keys_of(store, "/shop/new/timer-1").await, ["last"]);
    assert_eq!(keys_of(store, "/shop/older/timer-1").await, ["last"]);
    assert_eq!(keys_of(store, "/shop/old/timer-1").await, Vec::<String>::new());
    assert_eq!(keys_of(store, "/evoke/paused").await, ["shop/new", "shop/older"]);
    assert_eq!(keys_of(store, "/evoke").await, ["source shop/new/timer-1"]);
    assert_eq!(store.origin_uri(origins[0]).as_deref(), Some("/shop/new/timer-1"));
    assert_eq!(store.register_origins(vec!["/shop/new/timer-1".into()]).await.unwrap(), origins[..1]);
    assert_eq!(store.origin_uri(origins[1]).as_deref(), Some("/shop/older/timer-1"));
    let tick = async |source: &str| store.event_of(source.into(), "1".into()).await.unwrap();
    assert_eq!((tick("/shop/new/timer-1").await, tick("/shop/old/timer-1").await), (Some(Seq(1)), None));
    assert_eq!(store.replay(replay).await.unwrap().unwrap().filter, r#"{"function":"shop/new"}"#);

    // The earlier name is free for another function.
    let again = store.register(vec!["shop/old".into()]).await.unwrap()[0];
    assert_ne!(again, old);
    assert!(ready_ids(store, again).await.is_empty());
}

pub async fn a_function_with_deliveries_of_its_own_takes_over_the_unfinished_ones_in_order(store: &dyn Store) {
    let [old, new] = store.register(vec!["shop/old".into(), "shop/new".into()]).await.unwrap()[..] else {
        unreachable!()
    };
    let deliveries = vec![
        to(old),
        keyed(old, "k"),
        keyed(new, "k"),
        keyed(new, "j"),
        keyed(old, "j"),
        keyed(old, "d"),
        keyed(new, "d"),
        keyed(old, "r"),
        keyed(new, "r"),
    ];
    store.accept(vec![new_event("1", deliveries)], vec![]).await.unwrap();
    let of_new = |completion: Arc<Completion>| {
        store.complete(Arc::new(Completion { function: new, ..Arc::unwrap_or_clone(completion) }))
    };
    store.complete(done(1, 1)).await.unwrap();
    store.complete(dead(6, 1)).await.unwrap();
    of_new(ended(9, 1, "retry", Verdict::RetryAt(NOW_MS + 9))).await.unwrap();
    let pending = store.pending();

    // The deliveries 2, 5 and 8 of the earlier name are pending, and delivery 6 is a dead letter.
    assert_eq!(taken(store, "shop/old", "shop/new").await, [(3, 1, 0)]);
    assert_eq!(taken(store, "shop/old", "shop/new").await, []);
    assert_eq!(store.pending(), pending);
    assert_eq!((name_of(store, 1).await, name_of(store, 2).await), ("shop/old".to_owned(), "shop/new".to_owned()));
    assert_eq!(ready_ids(store, old).await, []);
    // Only the first delivery of each key may run: 3 waits for 2, 5 for 4, 7 for the dead letter 6, and 9 for 8.
    assert_eq!(ready_ids(store, new).await, ids([2, 4, 8]));
    for number in [3, 5, 7, 9] {
        assert_eq!(state_of(store, number).await, DeliveryState::Blocked, "{number}");
    }
    assert_eq!(
        store.due(new, Stream::Live, NOW_MS + 9, HashSet::default(), LoadLimit::of(9)).await.unwrap().0.len(),
        0
    );
    assert_eq!(of_new(done(2, 1)).await.unwrap(), Completed::Committed);
    assert_eq!(of_new(done(8, 1)).await.unwrap(), Completed::Committed);
    assert_eq!(store.purge(&Actor::Runtime, DeadFilter::Function("shop/new".into())).await.unwrap(), 1);
    assert_eq!(ready_ids(store, new).await, ids([3, 4, 7, 9]));
    // The first attempt of delivery 9 still counts.
    assert_eq!(of_new(done(9, 2)).await.unwrap(), Completed::Committed);
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.functions["shop/old"].done, totals.functions["shop/old"].pending()), (1, 0));
    assert_eq!((totals.functions["shop/new"].done, totals.functions["shop/new"].pending()), (3, 4));
}

pub async fn a_function_takes_over_no_replayed_delivery_of_an_event_that_it_has(store: &dyn Store) {
    let [old, new] = store.register(vec!["shop/old".into(), "shop/new".into()]).await.unwrap()[..] else {
        unreachable!()
    };
    store.accept(vec![new_event("1", vec![]), new_event("2", vec![])], vec![]).await.unwrap();
    let replay = NewReplay { filter: "{}".into(), after: Seq(0), until: Seq(2) };
    let replay = store.start_replay(&Actor::Runtime, replay).await.unwrap();
    let mut step = Step { position: Seq(2), ..Step::default() };
    for (seq, deliveries) in [(1, vec![to(old), to(new)]), (2, vec![to(old)])] {
        step.offers.push((Arc::new(store.event(Seq(seq)).await.unwrap().unwrap().unwrap()), deliveries));
    }
    assert!(store.advance_replay(replay, step).await.unwrap());
    assert_eq!(taken(store, "shop/old", "shop/new").await, [(1, 0, 0)]);
    assert_eq!((name_of(store, 1).await, name_of(store, 3).await), ("shop/old".to_owned(), "shop/new".to_owned()));
    let ready = store.claim(new, Stream::Replay, DeliveryId(0), LoadLimit::of(9)).await.unwrap();
    assert_eq!(ready.iter().map(|delivery| delivery.id).collect::<Vec<_>>(), ids([2, 3]));
    assert_eq!(store.replay(replay).await.unwrap().unwrap().deliveries.ready, 3);
}

pub async fn two_names_with_state_are_a_conflict_that_changes_nothing(store: &dyn Store) {
    let old = store.register(vec!["shop/old".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(old)])], vec![]).await.unwrap();
    for (bucket, key) in [("shop/old", "a"), ("shop/old", "b"), ("shop/new", "a"), ("shop/first", "c")] {
        set(store, bucket, key, bucket).await;
    }
    let conflict = async |functions: Vec<TakeOver>| store.take_over(functions, &NAMES).await.unwrap().unwrap_err();
    let found = conflict(vec![take_over("shop/first", "shop/free"), take_over("shop/old", "shop/new")]).await;
    assert_eq!((found.to.as_str(), found.names), ("shop/new", vec![("shop/new".into(), 1), ("shop/old".into(), 2)]));
    assert_eq!(value(store, "shop/first", "c").await.as_deref(), Some("shop/first"));
    assert_eq!(name_of(store, 1).await, "shop/old");
    // Two earlier names with state are a conflict, too.
    let found = conflict(vec![take_over("shop/first", "shop/free"), take_over("shop/old", "shop/free")]).await;
    assert_eq!(found.names, [("shop/first".to_owned(), 1), ("shop/old".to_owned(), 2)]);
    assert_eq!(taken(store, "shop/old", "shop/free").await, [(1, 0, 2)]);
    assert_eq!(value(store, "shop/free", "b").await.as_deref(), Some("shop/old"));
}

pub async fn marks_and_origins_that_the_new_name_has_are_kept(store: &dyn Store) {
    let uris = ["/shop/old/files-1", "/shop/new/files-1", "/shop/old/files-2"].map(str::to_owned);
    let origins = store.register_origins(uris.to_vec()).await.unwrap();
    let marks = vec![
        mark("/shop/old/files-1", "old.csv"),
        mark("/shop/old/files-2", "two.csv"),
        mark("/shop/new/files-1", "new.csv"),
        mark("/evoke/paused", "shop/old"),
        mark("/evoke/paused", "shop/new"),
    ];
    store.accept(vec![], marks).await.unwrap();
    assert_eq!(taken(store, "shop/old", "shop/new").await, [(0, 0, 0)]);
    assert_eq!(taken(store, "shop/old", "shop/new").await, []);
    assert_eq!(keys_of(store, "/shop/new/files-1").await, ["new.csv"]);
    assert_eq!(keys_of(store, "/shop/old/files-1").await, ["old.csv"]);
    assert_eq!(keys_of(store, "/shop/new/files-2").await, ["two.csv"]);
    // The mark with the earlier function name is removed, so that a later function with this name does not get it.
    assert_eq!(keys_of(store, "/evoke/paused").await, ["shop/new"]);
    for (origin, uri) in origins.iter().zip(["/shop/old/files-1", "/shop/new/files-1", "/shop/new/files-2"]) {
        assert_eq!(store.origin_uri(*origin).as_deref(), Some(uri));
    }
}
