//! Recordings of attempts.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use evoke_model::recording::{NewRecording, RecordingLimits, RecordingNumber};

use super::*;

const LIMITS: RecordingLimits = RecordingLimits { count: 3, bytes: 100, age: Duration::from_secs(60) };

fn recorded(completion: Arc<Completion>, data: &str, limits: RecordingLimits) -> Arc<Completion> {
    let recording = Some(NewRecording { data: Bytes::copy_from_slice(data.as_bytes()), limits });
    Arc::new(Completion { recording, ..Arc::unwrap_or_clone(completion) })
}

/// Returns the contents of the newest recordings of the function, newest first.
async fn newest(store: &dyn Store, before: RecordingNumber, limit: usize) -> Vec<String> {
    let found = store.newest_recordings("shop/a".into(), before, limit).await.unwrap();
    found.into_iter().map(|stored| String::from_utf8(stored.data.unwrap().to_vec()).unwrap()).collect()
}

async fn of_delivery(store: &dyn Store, number: i64, after: u32) -> Vec<u32> {
    let found = store.recordings_of(DeliveryId(number), after, 10).await.unwrap();
    found.into_iter().map(|stored| stored.attempt).collect()
}

pub async fn a_recording_commits_with_its_attempt(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(f), to(f)])], vec![]).await.unwrap();
    let retry = || ended(1, 1, "retry", Verdict::RetryAt(NOW_MS));
    store.complete(recorded(retry(), "first", LIMITS)).await.unwrap();
    let again = store.complete(recorded(retry(), "again", LIMITS)).await.unwrap();
    assert_eq!(again, Completed::Superseded);
    store.complete(recorded(done(1, 2), "second", LIMITS)).await.unwrap();
    store.complete(done(2, 1)).await.unwrap();
    assert_eq!(newest(store, RecordingNumber::MAX, 10).await, ["second", "first"]);
    assert_eq!((of_delivery(store, 1, 0).await, of_delivery(store, 1, 1).await), (vec![1, 2], vec![2]));
    assert!(of_delivery(store, 2, 0).await.is_empty());
    assert!(store.newest_recordings("shop/b".into(), RecordingNumber::MAX, 10).await.unwrap().is_empty());
    assert!(store.newest_recordings("shop/c".into(), RecordingNumber::MAX, 10).await.unwrap().is_empty());
}

pub async fn the_oldest_recordings_of_a_function_give_way_to_its_new_ones(store: &dyn Store) {
    let ids = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap();
    let (a, b) = (ids[0], ids[1]);
    store.accept(vec![new_event("1", vec![to(b)])], vec![]).await.unwrap();
    let other = Arc::new(Completion { function: b, ..Arc::unwrap_or_clone(done(1, 1)) });
    store.complete(recorded(other, "other", LIMITS)).await.unwrap();
    store.accept(vec![new_event("2", (0..9).map(|_| to(a)).collect())], vec![]).await.unwrap();
    let complete = async |number: i64, data: &str| {
        store.complete(recorded(done(number, 1), data, LIMITS)).await.unwrap();
    };
    for number in 2..=6 {
        complete(number, &number.to_string()).await;
    }
    assert_eq!(newest(store, RecordingNumber::MAX, 10).await, ["6", "5", "4"]);
    assert!(of_delivery(store, 3, 0).await.is_empty(), "the recording of delivery 3 was removed");
    let numbers: Vec<_> = store.newest_recordings("shop/a".into(), RecordingNumber::MAX, 2).await.unwrap();
    let numbers: Vec<_> = numbers.iter().map(|stored| stored.number).collect();
    assert_eq!(newest(store, numbers[1], 10).await, ["4"]);
    let (sixty, forty) = ("x".repeat(60), "y".repeat(40));
    complete(7, &sixty).await;
    complete(8, &forty).await;
    assert_eq!(newest(store, RecordingNumber::MAX, 10).await, [forty.clone(), sixty], "100 bytes are within the limit");
    complete(9, "z").await;
    assert_eq!(newest(store, RecordingNumber::MAX, 10).await, ["z".to_owned(), forty]);
    complete(10, &"w".repeat(200)).await;
    assert_eq!(newest(store, RecordingNumber::MAX, 10).await, ["w".repeat(200)], "the newest recording always stays");
    assert_eq!(of_delivery(store, 1, 0).await, [1], "the limits count each function separately");
}

pub async fn a_recording_is_removed_at_its_age_and_with_its_event(store: &dyn Store, now_ms: &AtomicI64) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(f)]), new_event("2", vec![to(f)])], vec![]).await.unwrap();
    let long = RecordingLimits { age: Duration::from_secs(7_200), ..LIMITS };
    store.complete(recorded(done(1, 1), "short", LIMITS)).await.unwrap();
    store.complete(recorded(done(2, 1), "long", long)).await.unwrap();
    let retention = |age| Retention { age: Duration::from_secs(age), bytes: u64::MAX };
    now_ms.fetch_add(59_000, Ordering::SeqCst);
    store.retain(&Actor::Runtime, retention(3_600)).await.unwrap();
    assert_eq!(newest(store, RecordingNumber::MAX, 10).await, ["long", "short"]);
    now_ms.fetch_add(1_000, Ordering::SeqCst);
    assert_eq!(store.retain(&Actor::Runtime, retention(3_600)).await.unwrap(), 0);
    assert_eq!(newest(store, RecordingNumber::MAX, 10).await, ["long"]);
    now_ms.fetch_add(3_600_000, Ordering::SeqCst);
    assert_eq!(store.retain(&Actor::Runtime, retention(3_600)).await.unwrap(), 2);
    assert!(newest(store, RecordingNumber::MAX, 10).await.is_empty());
}
