//! Tests of attempts that use state.

use super::*;
use evoke_model::state::{Change, Quota, Touched, Version};
use evoke_store_sqlite::SqliteStore;

fn touched(key: &str, seen: Option<Version>, value: Option<usize>) -> Touched {
    let change = value.map(|value| Change::Set(value.to_string().into_bytes().into()));
    Touched { bucket: "shop/a".into(), key: key.into(), seen, change }
}

/// Reads the number at a key and its version; both are 0 if the key does not exist.
async fn read(store: &dyn Store, key: &str) -> (usize, Version) {
    let found = store.state_with_staged("shop/a", key).await.unwrap();
    found.map_or((0, 0), |entry| (std::str::from_utf8(&entry.value).unwrap().parse().unwrap(), entry.version))
}

fn ran(outcome: Outcome, keys: Vec<Touched>) -> AttemptResult {
    AttemptResult { state: Transaction { keys, ..Transaction::default() }, ..outcome.into() }
}

/// Adds one to the number at the key `k`, and takes 10 ms.
async fn count(store: Arc<dyn Store>) -> AttemptResult {
    let (number, version) = read(&*store, "k").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    ran(Outcome::Done, vec![touched("k", Some(version), Some(number + 1))])
}

#[tokio::test(start_paused = true)]
async fn an_attempt_runs_again_at_most_once_after_a_conflict() {
    let fixture = Fixture::new(16, Router::default()).await;
    let (store, runs) = (fixture.store.clone(), Arc::new(AtomicU32::new(0)));
    let counted = runs.clone();
    let counts = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        count(store.clone()).boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 16, counts)]);
    fixture.offer(FUNCTION, 0..200).await;
    assert_eq!(fixture.settled().await.done, 200);
    assert_eq!(read(&*fixture.store, "k").await.0, 200);
    for id in (1..=200).map(DeliveryId) {
        let attempts = fixture.store.delivery(id).await.unwrap().unwrap().unwrap().attempts;
        assert_eq!(attempts.iter().map(|a| a.attempt).collect::<Vec<_>>(), [1]);
    }
    // All attempts except the first one have one conflict. The second run has the lock, so it reads the committed
    // number.
    assert_eq!(runs.load(Ordering::Relaxed), 200 + 199);
}

#[tokio::test(start_paused = true)]
async fn a_reject_is_committed_only_if_its_reads_still_hold() {
    let fixture = Fixture::new(8, Router::default()).await;
    let store = fixture.store.clone();
    let rejects_until_set = move |_| {
        let store = store.clone();
        async move {
            let (number, version) = read(&*store, "k").await;
            if number > 0 {
                return ran(Outcome::Done, vec![touched("k", Some(version), None)]);
            }
            // Another writer sets the key after the read.
            let keys = vec![touched("k", None, Some(1))];
            store.state_write(&Actor::Runtime, Transaction { keys, ..Transaction::default() }).await.unwrap();
            ran(Outcome::Reject { message: "no number yet".into() }, vec![touched("k", Some(version), None)])
        }
        .boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, rejects_until_set)]);
    fixture.offer(FUNCTION, [1]).await;
    assert_eq!(fixture.settled().await.done, 1);
    assert_eq!(fixture.store.delivery(DeliveryId(1)).await.unwrap().unwrap().unwrap().attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_would_exceed_a_quota_fails() {
    let fixture = Fixture::new(8, Router::default()).await;
    let store = fixture.store.clone();
    let adds_a_key = move |call: Call| {
        let (store, key) = (store.clone(), call.event.id.clone());
        async move {
            let mut ran = ran(Outcome::Done, vec![touched(&key, Some(read(&*store, &key).await.1), Some(1))]);
            ran.state.quota = Quota { keys: 3, bytes: 1_000 };
            ran
        }
        .boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, adds_a_key)]);
    fixture.offer(FUNCTION, 0..4).await;
    let settled = fixture.settled().await;
    assert_eq!((settled.done, settled.dead), (3, 1));
    let letter = fixture.store.dead(DeadFilter::All, DeliveryId(0), 1).await.unwrap().remove(0).unwrap();
    assert_eq!((letter.attempts.len(), &*letter.attempts[0].outcome), (8, "quota"));
    assert!(letter.cause.unwrap().contains("max_keys"));
}

/// The SQLite store commits many completions together, so attempts read staged writes, which are not committed yet. An
/// operator writes at the same time. The operator's writes become visible only when they are committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact_with_staged_reads_and_concurrent_operator_writes() {
    const DELIVERIES: usize = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path(), clock.clone()).unwrap());
    let fixture = Fixture::over(store.clone(), clock, 8, Router::default()).await;
    let counted = store.clone();
    let counts = move |_| {
        let store = counted.clone();
        async move {
            let (_, epoch) = read(&*store, "epoch").await;
            let (number, version) = read(&*store, "k").await;
            tokio::task::yield_now().await;
            ran(Outcome::Done, vec![touched("epoch", Some(epoch), None), touched("k", Some(version), Some(number + 1))])
        }
        .boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, counts)]);
    fixture.offer(FUNCTION, 0..DELIVERIES as u32).await;
    let mut epoch = 0;
    while fixture.bus.pending() > 0 {
        epoch += 1;
        let keys = vec![touched("epoch", None, Some(epoch))];
        store.state_write(&Actor::Runtime, Transaction { keys, ..Transaction::default() }).await.unwrap();
    }
    assert_eq!((read(&*store, "k").await.0, fixture.settled().await.done), (DELIVERIES, DELIVERIES as u64));
    for id in (1..=DELIVERIES as i64).map(DeliveryId) {
        assert_eq!(store.delivery(id).await.unwrap().unwrap().unwrap().attempts.len(), 1, "after {epoch} writes");
    }
    assert_eq!(fixture.dispatcher.drain(Duration::from_secs(60)).await, 0);
    assert!(fixture.dispatcher.lock().awaiting_commit.is_empty() && fixture.dispatcher.lock().reruns.is_empty());
}
