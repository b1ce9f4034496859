//! Functions that are suspended while the store renames them.

use super::*;
use evoke_model::TakeOver;

#[tokio::test(start_paused = true)]
async fn a_renamed_function_runs_nothing_until_its_deliveries_have_moved_and_then_each_once() {
    let fixture = Fixture::new(4, Router::default()).await;
    let (gate, started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let run = |gate: &Arc<Semaphore>| {
        let (gate, started) = (gate.clone(), started.clone());
        move |_: Call| {
            let (gate, started) = (gate.clone(), started.clone());
            async move {
                started.fetch_add(1, Ordering::Relaxed);
                gate.acquire().await.unwrap().forget();
                Outcome::Done
            }
            .boxed()
        }
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 2, run(&gate)), spec(OTHER, 2, run(&gate))]);
    fixture.offer(FUNCTION, 1..=5).await;
    fixture.offer(OTHER, 1..=3).await;
    while started.load(Ordering::Relaxed) < 4 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let both = HashSet::from_iter([FUNCTION, OTHER]);
    assert_eq!(fixture.dispatcher.running_of(&both), 4);

    let dispatcher = fixture.dispatcher.clone();
    let suspension = tokio::spawn({
        let both = both.clone();
        async move { dispatcher.suspend(both).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!suspension.is_finished(), "attempts are still running");
    gate.add_permits(100);
    suspension.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((started.load(Ordering::Relaxed), fixture.dispatcher.running_of(&both)), (4, 0));

    // `shop/b` must also load the deliveries that it takes over, although it has already loaded deliveries with higher
    // numbers.
    let take_over = TakeOver { from: "shop/a".into(), to: "shop/b".into() };
    let taken = fixture.store.take_over(vec![take_over], &[]).await.unwrap().unwrap();
    assert_eq!(taken[0].pending, 3);
    fixture.dispatcher.set_functions(vec![spec(OTHER, 2, run(&gate))]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(started.load(Ordering::Relaxed), 4, "setting a function does not end its suspension");
    fixture.dispatcher.end_suspension();
    assert_eq!(fixture.settled().await, Counts { done: 8, ..Counts::default() });
    assert_eq!(started.load(Ordering::Relaxed), 8);
    let totals = fixture.store.totals().await.unwrap();
    assert_eq!((totals.functions["shop/a"].done, totals.functions["shop/b"].done), (2, 6));
}

#[tokio::test(start_paused = true)]
async fn the_restored_health_of_a_function_follows_its_name() {
    let fixture = Fixture::new(1, Router::default()).await;
    fixture.dispatcher.restore_failing(HashMap::from_iter([("shop/old".to_owned(), START_MS - 7)]));
    fixture.dispatcher.rename_restored("shop/old", "shop/a");
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, |_| async { Outcome::Done }.boxed())]);
    assert_eq!(fixture.dispatcher.failing()[&FUNCTION].since_ms, START_MS - 7);
}
