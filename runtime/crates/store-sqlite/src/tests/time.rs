//! Store time: ages in the database while the wall clock jumps, and across restarts.

use super::*;
use evoke_model::EventFilter;

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

fn new_event(id: &str) -> Vec<NewEvent> {
    let json = format!(r#"{{"id":"{id}","source":"/s","type":"t"}}"#);
    let event = Arc::new(Event::from_json(json.as_bytes(), |_| {}).unwrap());
    vec![NewEvent { event, lineage: Lineage::default(), deliveries: Vec::new() }]
}

/// Returns the times of acceptance, converted to the wall clock.
async fn accepted_ms(store: &SqliteStore, filter: EventFilter) -> Vec<i64> {
    let filter = EventFilter { after: Some(Seq(0)), limit: 100, ..filter };
    store.events(filter).await.unwrap().into_iter().map(|event| event.unwrap().accepted_ms).collect()
}

#[tokio::test]
async fn a_clock_that_starts_in_1970_and_is_set_removes_nothing_early_and_keeps_the_dedup_window() {
    let folder = tempfile::tempdir().unwrap();
    let (wall, elapsed) = (Arc::new(AtomicI64::new(10_000)), Arc::new(AtomicI64::new(77)));
    let open = || SqliteStore::open(folder.path(), Clock::jumping(&wall, &elapsed)).unwrap();
    let hour = Retention { age: Duration::from_secs(3600), bytes: u64::MAX };
    let pass = |ms: i64| {
        wall.fetch_add(ms, Ordering::SeqCst);
        elapsed.fetch_add(ms, Ordering::SeqCst);
    };
    let store = open();
    store.accept(new_event("a"), vec![]).await.unwrap();
    pass(7_000);
    let now = 56 * YEAR_MS;
    wall.store(now, Ordering::SeqCst);
    assert_eq!(store.retain(&Actor::Runtime, hour).await.unwrap(), 0);
    assert_eq!(store.accept(new_event("a"), vec![]).await.unwrap(), [Accepted::Duplicate(Seq(1))]);
    store.accept(new_event("b"), vec![]).await.unwrap();
    assert_eq!(accepted_ms(&store, EventFilter::default()).await, [10_000, now]);
    // Filters are times of the wall clock, too.
    let since = |ms| EventFilter { since_ms: Some(ms), ..EventFilter::default() };
    assert_eq!(accepted_ms(&store, since(now)).await, [now]);
    let until = EventFilter { until_ms: Some(now), ..EventFilter::default() };
    assert_eq!(accepted_ms(&store, until).await, [10_000]);

    // The same holds after restarts with a clock that was set back, and with one that is a year ahead.
    let mut store = store;
    for jump_ms in [-HOUR_MS, -50 * YEAR_MS, 51 * YEAR_MS] {
        store.close().await.unwrap();
        drop(store);
        wall.fetch_add(jump_ms, Ordering::SeqCst);
        store = open();
        pass(1_000);
        assert_eq!(store.retain(&Actor::Runtime, hour).await.unwrap(), 0);
        assert_eq!(store.accept(new_event("a"), vec![]).await.unwrap(), [Accepted::Duplicate(Seq(1))]);
        assert_eq!(accepted_ms(&store, EventFilter::default()).await, [10_000, now]);
    }
    // An hour later, retention removes both events.
    pass(HOUR_MS);
    assert_eq!(store.retain(&Actor::Runtime, hour).await.unwrap(), 2);
    assert!(store.check().await.unwrap().problems.is_empty());
}

#[tokio::test]
async fn a_damaged_record_of_the_clock_is_not_used_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(5 * HOUR_MS)).unwrap();
    store.accept(new_event("a"), vec![]).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let other = Connection::open(folder.path().join("evoke.db")).unwrap();
    assert_eq!(other.execute("UPDATE meta SET value = '{\"store_ms\":9}' WHERE key = 'clock'", []).unwrap(), 1);
    drop(other);
    let store = SqliteStore::open(folder.path(), Clock::fixed(HOUR_MS)).unwrap();
    // Without the record, the store time continues from the newest event.
    assert_eq!(store.clock.store_ms(), 5 * HOUR_MS);
    assert!(store.check().await.unwrap().problems.iter().any(|problem| problem.contains("table meta")));
}
