use foldhash::{HashSet, HashSetExt};

use super::*;
use evoke_model::PendingFilter;

/// A function whose attempts wait for a permit.
fn waits(permits: Arc<Semaphore>) -> impl Fn(Call) -> BoxFuture<'static, Outcome> {
    move |_| {
        let permits = permits.clone();
        async move {
            permits.acquire().await.unwrap().forget();
            Outcome::Done
        }
        .boxed()
    }
}

fn paused(ids: &[FunctionId]) -> HashSet<FunctionId> {
    let mut paused = HashSet::new();
    paused.extend(ids);
    paused
}

#[tokio::test(start_paused = true)]
async fn a_paused_function_starts_nothing_until_it_is_resumed_also_across_a_reload() {
    let fixture = Fixture::new(8, Router::default()).await;
    let permits = Arc::new(Semaphore::new(0));
    let specs = || vec![spec(FUNCTION, 2, waits(permits.clone())), spec(OTHER, 2, |_| done())];
    fixture.dispatcher.set_functions(specs());
    fixture.offer(FUNCTION, 1..=10).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    fixture.dispatcher.set_paused(paused(&[FUNCTION]));
    // The two running attempts continue, and the other function is not paused.
    permits.add_permits(9);
    fixture.offer(OTHER, 1..=3).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    fixture.offer(FUNCTION, 11..=12).await;
    fixture.dispatcher.set_functions(specs());
    tokio::time::sleep(Duration::from_secs(60)).await;
    let totals = fixture.store.totals().await.unwrap();
    assert_eq!((totals.functions["shop/a"].done, totals.functions["shop/a"].ready), (2, 10));
    assert_eq!((totals.functions["shop/b"].done, fixture.bus.pending()), (3, 10));

    // A function that no manifest declares stays suspended after a resume.
    fixture.dispatcher.set_functions(vec![]);
    fixture.dispatcher.set_paused(paused(&[]));
    permits.add_permits(9);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fixture.bus.pending(), 10);
    fixture.dispatcher.set_functions(specs());
    assert_eq!(fixture.settled().await.done, 15);
}

#[tokio::test(start_paused = true)]
async fn cancelled_deliveries_do_not_start_and_running_ones_have_no_effect() {
    let fixture = Fixture::new(8, Router::default()).await;
    let (permits, started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let (run, counter) = (waits(permits.clone()), started.clone());
    let counts = move |call: Call| {
        counter.fetch_add(1, Ordering::Relaxed);
        run(call)
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 2, counts)]);
    // More deliveries than the lane holds in memory, so that some wait in memory and some in the store.
    fixture.offer(FUNCTION, 1..=600).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let which = PendingFilter::Function("shop/a".into());
    assert_eq!(fixture.store.cancel(&Actor::Runtime, which, "cancelled").await.unwrap(), 600);
    permits.add_permits(10_000);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((started.load(Ordering::Relaxed), fixture.bus.pending()), (2, 0));
    let totals = fixture.store.totals().await.unwrap();
    assert_eq!((totals.functions["shop/a"].done, totals.functions["shop/a"].dead), (0, 600));
    // After a redrive, all of these deliveries run.
    assert_eq!(fixture.store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(), 600);
    assert_eq!(fixture.settled().await.done, 600);
}
