//! The size of the portions in which an operator's write is committed.

use std::sync::Mutex;

use super::*;
use crate::write::PORTION_BYTES_MAX;

const SIZE: usize = 700_000;

/// Returns an event with one delivery of the order key, or without an order key.
fn large(number: usize, function: FunctionId, order_key: Option<String>) -> NewEvent {
    let text = "x".repeat(SIZE);
    let json = format!(r#"{{"id":"{number}","source":"/s","type":"t","data":"{text}"}}"#);
    let event = Arc::new(Event::from_json(json.as_bytes(), |_| {}).unwrap());
    let deliveries = vec![NewDelivery { function, trigger: "on[0]".into(), order_key }];
    NewEvent { event, lineage: Lineage::default(), deliveries }
}

/// Records the size in bytes of the deliveries that each commit makes ready, and their number.
fn watch_sizes(store: &SqliteStore) -> Arc<Mutex<(usize, usize)>> {
    let seen = Arc::new(Mutex::new((0, 0)));
    let sink = seen.clone();
    store.on_commit(Box::new(move |commit| {
        let mut seen = sink.lock().unwrap();
        let size = commit.ready.iter().map(|ready| ready.event_size()).sum();
        *seen = (seen.0.max(size), seen.1 + commit.ready.len());
    }));
    seen
}

#[tokio::test]
async fn a_portion_ends_when_the_events_of_its_ready_deliveries_are_large() {
    const COUNT: usize = 30;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    // The first delivery of each key becomes a dead letter, and the second one waits for it.
    let event = |number| large(number, f, Some((number % COUNT).to_string()));
    store.accept((0..2 * COUNT).map(event).collect(), vec![]).await.unwrap();
    let die = async |numbers: std::ops::RangeInclusive<usize>| {
        for number in numbers {
            store.complete(end(number as i64, f, Verdict::Dead("why".into()))).await.unwrap();
        }
    };
    die(1..=COUNT).await;
    let is_bounded = |seen: &Mutex<(usize, usize)>| {
        let (most, count) = *seen.lock().unwrap();
        assert!((PORTION_BYTES_MAX..PORTION_BYTES_MAX + 2 * SIZE).contains(&most), "{most}");
        assert_eq!(count, COUNT);
    };
    let seen = watch_sizes(&store);
    assert_eq!(store.purge(&Actor::Runtime, DeadFilter::All).await.unwrap(), COUNT as u64);
    is_bounded(&seen);
    die(COUNT + 1..=2 * COUNT).await;
    let seen = watch_sizes(&store);
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(), COUNT as u64);
    is_bounded(&seen);
    assert!(store.check().await.unwrap().problems.is_empty());
}
