//! State transactions, validated at their commit.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use evoke_model::state::{Change, Quota, StateItem, Touched, Transaction, Usage, Version};

const BUCKET: &str = "shop/a";

fn touched(key: &str, seen: Option<Version>, change: Option<Change>) -> Touched {
    Touched { bucket: BUCKET.into(), key: key.into(), seen, change }
}

fn set(value: &str) -> Option<Change> {
    Some(Change::Set(Bytes::copy_from_slice(value.as_bytes())))
}

fn transaction(keys: Vec<Touched>) -> Transaction {
    Transaction { keys, ..Transaction::default() }
}

/// Returns the completion of a successful attempt at this delivery, with this state transaction.
fn with(number: i64, state: Transaction) -> Arc<Completion> {
    Arc::new(Completion { state, ..Arc::unwrap_or_clone(done(number, 1)) })
}

fn conflict_at(key: Option<&str>) -> Completed {
    Completed::Conflict(StateItem { bucket: BUCKET.into(), key: key.map(Into::into) })
}

/// Stores `count` events, each with a delivery to one function; the delivery ids count from 1.
async fn accept_events(store: &dyn Store, count: usize) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let events = (1..=count).map(|n| new_event(&n.to_string(), vec![to(f)]));
    store.accept(events.collect(), vec![]).await.unwrap();
}

async fn value(store: &dyn Store, key: &str) -> Option<(String, Version)> {
    let entry = store.state(BUCKET, key).await.unwrap()?;
    Some((String::from_utf8(entry.value.to_vec()).unwrap(), entry.version))
}

async fn write(store: &dyn Store, key: &str, change: Option<Change>) -> u64 {
    store.state_write(&Actor::Runtime, transaction(vec![touched(key, None, change)])).await.unwrap()
}

pub async fn state_commits_with_its_outcome(store: &dyn Store) {
    accept_events(store, 2).await;
    assert_eq!(value(store, "k").await, None);
    let both = vec![touched("k", Some(0), set("1")), touched("other", None, set("x"))];
    assert_eq!(store.complete(with(1, transaction(both))).await.unwrap(), Completed::Committed);
    let (text, version) = value(store, "k").await.unwrap();
    assert_eq!(text, "1");
    assert_eq!(store.state_usage(BUCKET), Usage { keys: 2, bytes: 1 + 1 + 5 + 1 });
    let both = vec![touched("k", Some(version), set("22")), touched("other", None, Some(Change::Delete))];
    assert_eq!(store.complete(with(2, transaction(both))).await.unwrap(), Completed::Committed);
    let (text, later) = value(store, "k").await.unwrap();
    assert!(text == "22" && later > version, "{text} {later}");
    assert_eq!(value(store, "other").await, None);
    assert_eq!(store.state_buckets(), BTreeMap::from([(BUCKET.to_owned(), Usage { keys: 1, bytes: 3 })]));
}

pub async fn a_read_changed_by_another_transaction_conflicts_and_commits_nothing(store: &dyn Store) {
    accept_events(store, 3).await;
    store.complete(with(1, transaction(vec![touched("k", Some(0), set("1"))]))).await.unwrap();
    let keys = vec![touched("other", None, set("x")), touched("k", Some(0), set("2"))];
    let mut stale = Arc::unwrap_or_clone(with(2, transaction(keys)));
    stale.publishes = vec![new_event("published", vec![])];
    let stale = Arc::new(stale);
    assert_eq!(store.complete(stale.clone()).await.unwrap(), conflict_at(Some("k")));
    assert_eq!((state_of(store, 2).await, value(store, "other").await), (DeliveryState::Ready, None));
    assert!(store.published(DeliveryId(2)).await.unwrap().is_empty());
    assert!(store.delivery(DeliveryId(2)).await.unwrap().unwrap().unwrap().attempts.is_empty());

    // A key that was deleted and created again has another version.
    let (_, version) = value(store, "k").await.unwrap();
    write(store, "k", Some(Change::Delete)).await;
    write(store, "k", set("1")).await;
    let read = transaction(vec![touched("k", Some(version), None)]);
    assert_eq!(store.complete(with(2, read)).await.unwrap(), conflict_at(Some("k")));
    let (_, version) = value(store, "k").await.unwrap();
    let read = transaction(vec![touched("k", Some(version), None)]);
    assert_eq!(store.complete(with(2, read)).await.unwrap(), Completed::Committed);
    // A completion of a finished delivery is superseded. It does not conflict, whatever has changed since.
    assert_eq!(store.complete(stale).await.unwrap(), Completed::Superseded);
    assert_eq!(value(store, "k").await.unwrap().0, "1");
    // A completion that ends in a dead letter is validated too.
    let mut given_up = Arc::unwrap_or_clone(dead(3, 1));
    given_up.state = transaction(vec![touched("k", Some(0), None)]);
    assert_eq!(store.complete(Arc::new(given_up)).await.unwrap(), conflict_at(Some("k")));
    assert_eq!(state_of(store, 3).await, DeliveryState::Ready);
}

pub async fn a_key_list_is_valid_until_a_key_is_created_or_deleted(store: &dyn Store) {
    accept_events(store, 4).await;
    write(store, "b", set("1")).await;
    let listed = async || store.state_keys(BUCKET, None, 10).await.unwrap();
    let first = listed().await;
    assert_eq!(first.keys, ["b"]);
    let read = |version| Transaction { lists: vec![(BUCKET.into(), version)], ..Transaction::default() };
    write(store, "b", set("2")).await;
    assert_eq!(store.complete(with(1, read(first.version))).await.unwrap(), Completed::Committed);
    write(store, "a", set("1")).await;
    assert_eq!(store.complete(with(2, read(first.version))).await.unwrap(), conflict_at(None));
    let second = listed().await;
    assert_eq!(second.keys, ["a", "b"]);
    // A transaction that lists the keys and adds a key conflicts with another transaction that added one.
    let adds = |version| Transaction { keys: vec![touched("c", None, set("1"))], ..read(version) };
    assert_eq!(store.complete(with(2, adds(second.version))).await.unwrap(), Completed::Committed);
    assert_eq!(store.complete(with(3, adds(second.version))).await.unwrap(), conflict_at(None));
    assert_eq!(write(store, "a", Some(Change::Delete)).await, 1);
    assert_eq!(write(store, "a", Some(Change::Delete)).await, 0);
    assert_eq!(listed().await.keys, ["b", "c"]);
    assert_eq!(store.state_keys(BUCKET, Some("b"), 10).await.unwrap().keys, ["c"]);
    let part = store.state_keys(BUCKET, None, 1).await.unwrap();
    assert_eq!((&part.keys[..], part.is_last, listed().await.is_last), (&["b".to_owned()][..], false, true));
    let none = store.state_keys("shop/b", None, 10).await.unwrap();
    assert!(none.keys.is_empty() && none.is_last);
    let size = async |key| store.state_size_with_staged(BUCKET, key).await.unwrap();
    assert_eq!((size("a").await, size("b").await), (None, Some(1)));
}

pub async fn a_bucket_does_not_grow_past_its_quota(store: &dyn Store) {
    accept_events(store, 4).await;
    let quota = Quota { keys: 2, bytes: 8 };
    let limited = |keys| Transaction { quota, ..transaction(keys) };
    let two = limited(vec![touched("a", None, set("1")), touched("b", None, set("1"))]);
    assert_eq!(store.complete(with(1, two)).await.unwrap(), Completed::Committed);
    let third = store.complete(with(2, limited(vec![touched("c", None, set("1"))]))).await.unwrap();
    assert!(matches!(&third, Completed::OverQuota(why) if why.contains("3 keys") && why.contains(BUCKET)), "{third:?}");
    let large = store.complete(with(2, limited(vec![touched("a", None, set("123456"))]))).await.unwrap();
    assert!(matches!(&large, Completed::OverQuota(why) if why.contains("9 bytes")), "{large:?}");
    assert_eq!((value(store, "c").await, value(store, "a").await.unwrap().0), (None, "1".to_owned()));
    assert_eq!(state_of(store, 2).await, DeliveryState::Ready);
    // Replacing one key with another fits the quota. A write of an operator has no quota, and a bucket over its quota
    // may shrink.
    let swap = vec![touched("a", None, Some(Change::Delete)), touched("c", None, set("1234"))];
    assert_eq!(store.complete(with(2, limited(swap))).await.unwrap(), Completed::Committed);
    write(store, "large", set("1234567890")).await;
    let shrink = limited(vec![touched("large", None, set("1"))]);
    assert_eq!(store.complete(with(3, shrink)).await.unwrap(), Completed::Committed);
    assert_eq!(store.state_usage(BUCKET), Usage { keys: 3, bytes: 2 + 5 + 6 });
}

/// Deliveries increment a few counters concurrently. After a conflict, a delivery reads its counter again and completes
/// again.
pub async fn concurrent_counters_are_exact(store: &dyn Store) {
    const DELIVERIES: usize = 400;
    const KEYS: usize = 5;
    accept_events(store, DELIVERIES).await;
    let count = async |delivery: usize| {
        let key = format!("k{}", delivery % KEYS);
        let mut conflicts = 0;
        loop {
            let found = value(store, &key).await;
            let (number, version) = found.map_or((0, 0), |(text, version)| (text.parse::<u64>().unwrap(), version));
            // At 30 the counter is deleted, and its count is added to a second key.
            let change = if number >= 30 { Some(Change::Delete) } else { set(&(number + 1).to_string()) };
            let mut keys = vec![touched(&key, Some(version), change)];
            if number >= 30 {
                let noted = format!("noted-{key}");
                let seen = store.state(BUCKET, &noted).await.unwrap();
                let sum = seen.as_ref().map_or(0, |e| std::str::from_utf8(&e.value).unwrap().parse::<u64>().unwrap());
                keys.push(touched(&noted, Some(seen.map_or(0, |e| e.version)), set(&(sum + 31).to_string())));
            }
            match store.complete(with(delivery as i64 + 1, transaction(keys))).await.unwrap() {
                Completed::Committed => return conflicts,
                Completed::Conflict(_) => conflicts += 1,
                other => unreachable!("{other:?}"),
            }
        }
    };
    let conflicts: u32 = futures_util::future::join_all((0..DELIVERIES).map(count)).await.into_iter().sum();
    let mut sum = 0;
    for key in store.state_keys(BUCKET, None, 100).await.unwrap().keys {
        sum += value(store, &key).await.unwrap().0.parse::<usize>().unwrap();
    }
    assert_eq!(sum, DELIVERIES, "after {conflicts} conflicts");
    let held: usize = store.state_usage(BUCKET).keys as usize;
    assert_eq!(held, store.state_keys(BUCKET, None, 100).await.unwrap().keys.len());
}

pub async fn staged_writes_are_visible_and_stale_reads_are_not_staged(store: &dyn Store) {
    accept_events(store, 3).await;
    let (sender, mut commits) = tokio::sync::mpsc::unbounded_channel();
    store.on_commit(Box::new(move |commit| drop(sender.send(commit))));
    let with_staged =
        async |key: &str| store.state_with_staged(BUCKET, key).await.unwrap().map_or(0, |entry| entry.version);
    // Each delivery reads the staged write of the one before, without waiting for its commit.
    for delivery in 1..=2 {
        let mut state = transaction(vec![touched("k", Some(with_staged("k").await), set(&delivery.to_string()))]);
        store.stage(&mut state).unwrap();
        store.settle(with(delivery, state)).await.unwrap();
    }
    let mut settled = 0;
    while settled < 2 {
        for (completion, result) in commits.recv().await.unwrap().settled {
            settled += 1;
            assert_eq!((completion.delivery, result.unwrap()), (DeliveryId(settled), Completed::Committed));
        }
    }
    let (text, version) = value(store, "k").await.unwrap();
    assert_eq!((text.as_str(), with_staged("k").await), ("2", version));
    let mut stale = transaction(vec![touched("k", Some(version + 1), set("3"))]);
    assert_eq!(store.stage(&mut stale), Err(StateItem { bucket: BUCKET.into(), key: Some("k".into()) }));
    // A staged write is no longer visible after its transaction was rejected.
    let mut state =
        Transaction { quota: Quota { keys: 1, bytes: 9 }, ..transaction(vec![touched("x", Some(0), set("1"))]) };
    store.stage(&mut state).unwrap();
    assert!(matches!(store.complete(with(3, state)).await.unwrap(), Completed::OverQuota(_)));
    assert_eq!(with_staged("x").await, 0);
}
