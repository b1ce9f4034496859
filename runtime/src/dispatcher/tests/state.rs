//! Attempts that use state.

use super::*;
use crate::state::{Change, Quota, Touched, Version};
use crate::store::sqlite::SqliteStore;

fn touched(key: &str, seen: Option<Version>, value: Option<usize>) -> Touched {
    let change = value.map(|value| Change::Set(value.to_string().into_bytes().into()));
    Touched { bucket: "shop/a".into(), key: key.into(), seen, change }
}

/// The number at a key, 0 where there is none, and its version.
async fn read(store: &dyn Store, key: &str) -> (usize, Version) {
    let found = store.state_with_staged("shop/a", key).await.unwrap();
    found.map_or((0, 0), |entry| (std::str::from_utf8(&entry.value).unwrap().parse().unwrap(), entry.version))
}

fn ran(outcome: Outcome, keys: Vec<Touched>) -> Ran {
    Ran { state: Transaction { keys, ..Transaction::default() }, ..outcome.into() }
}

/// Adds one to the number at `k`, which takes some time.
async fn count(store: Arc<dyn Store>) -> Ran {
    let (number, version) = read(&*store, "k").await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    ran(Outcome::Done, vec![touched("k", Some(version), Some(number + 1))])
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_read_what_another_changed_runs_again_and_once_more_at_most() {
    let house = House::new(16, Router::default()).await;
    let (store, runs) = (house.store.clone(), Arc::new(AtomicU32::new(0)));
    let counted = runs.clone();
    let counts = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        count(store.clone()).boxed()
    };
    house.dispatcher.set_functions(vec![worker(1, 16, counts)]);
    house.offer(1, 0..200).await;
    assert_eq!(house.settled().await.done, 200);
    assert_eq!(read(&*house.store, "k").await.0, 200);
    for id in 1..=200 {
        let attempts = house.store.delivery(id).await.unwrap().unwrap().attempts;
        assert_eq!(attempts.iter().map(|a| a.attempt).collect::<Vec<_>>(), [1]);
    }
    // All but the first saw another's number; in turns, each sees its own the second time.
    assert_eq!(runs.load(Ordering::Relaxed), 200 + 199);
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_for_what_it_read_is_given_up_only_if_that_still_holds() {
    let house = House::new(8, Router::default()).await;
    let store = house.store.clone();
    let not_before_it_is_set = move |_| {
        let store = store.clone();
        async move {
            let (number, version) = read(&*store, "k").await;
            if number > 0 {
                return ran(Outcome::Done, vec![touched("k", Some(version), None)]);
            }
            // Another sets it, after it was read.
            let keys = vec![touched("k", None, Some(1))];
            store.state_write(Transaction { keys, ..Transaction::default() }).await.unwrap();
            ran(Outcome::Reject { message: "no number yet".into() }, vec![touched("k", Some(version), None)])
        }
        .boxed()
    };
    house.dispatcher.set_functions(vec![worker(1, 1, not_before_it_is_set)]);
    house.offer(1, [1]).await;
    assert_eq!(house.settled().await.done, 1);
    assert_eq!(house.store.delivery(1).await.unwrap().unwrap().attempts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_would_get_too_full_fails_the_attempt() {
    let house = House::new(8, Router::default()).await;
    let store = house.store.clone();
    let adds_a_key = move |call: Call| {
        let (store, key) = (store.clone(), call.event.id.clone());
        async move {
            let mut ran = ran(Outcome::Done, vec![touched(&key, Some(read(&*store, &key).await.1), Some(1))]);
            ran.state.quota = Quota { keys: 3, bytes: 1_000 };
            ran
        }
        .boxed()
    };
    house.dispatcher.set_functions(vec![worker(1, 1, adds_a_key)]);
    house.offer(1, 0..4).await;
    let settled = house.settled().await;
    assert_eq!((settled.done, settled.dead), (3, 1));
    let letter = house.store.dead(DeadFilter::All, 1).await.unwrap().remove(0);
    assert_eq!((letter.attempts.len(), &*letter.attempts[0].outcome), (8, "quota"));
    assert!(letter.cause.unwrap().contains("max_keys"));
}

/// Over the store that commits many at once: attempts read what is settled and not committed, and a person writes in
/// between, which shows only at the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_are_exact_ahead_of_their_commits_and_whatever_a_person_writes_meanwhile() {
    const DELIVERIES: usize = 1_000;
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::system();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path(), clock.clone()).unwrap());
    let house = House::over(store.clone(), clock, 8, Router::default()).await;
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
    house.dispatcher.set_functions(vec![worker(1, 8, counts)]);
    house.offer(1, 0..DELIVERIES as u32).await;
    let mut epoch = 0;
    while house.bus.pending() > 0 {
        epoch += 1;
        let keys = vec![touched("epoch", None, Some(epoch))];
        store.state_write(Transaction { keys, ..Transaction::default() }).await.unwrap();
    }
    assert_eq!((read(&*store, "k").await.0, house.settled().await.done), (DELIVERIES, DELIVERIES as u64));
    for id in 1..=DELIVERIES as DeliveryId {
        assert_eq!(store.delivery(id).await.unwrap().unwrap().attempts.len(), 1, "after {epoch} writes");
    }
    assert_eq!(house.dispatcher.drain(Duration::from_secs(60)).await, 0);
    assert!(house.dispatcher.lock().unsure.is_empty() && house.dispatcher.lock().again.is_empty());
}
