//! A place is the permission to run one delivery. The last free places are reserved for functions without a running
//! delivery.

use super::*;

/// Waits until `count` deliveries of the function run. Then waits for a second and checks that no more have started.
async fn runs(fixture: &Fixture, function: FunctionId, count: u32) {
    while fixture.dispatcher.running()[&function] < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(fixture.dispatcher.running()[&function], count);
}

/// Runs deliveries that never end.
fn waits(_: Call) -> BoxFuture<'static, Outcome> {
    std::future::pending().boxed()
}

#[tokio::test(start_paused = true)]
async fn the_last_place_is_for_a_function_that_runs_nothing() {
    let fixture = Fixture::new(8, Router::default()).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 64, waits), spec(OTHER, 64, waits)]);
    fixture.offer(FUNCTION, 0..20).await;
    runs(&fixture, FUNCTION, 7).await;
    fixture.offer(OTHER, 0..2).await;
    runs(&fixture, OTHER, 1).await;
}

#[tokio::test(start_paused = true)]
async fn one_function_alone_takes_all_places() {
    let fixture = Fixture::new(8, Router::default()).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 64, waits)]);
    fixture.offer(FUNCTION, 0..20).await;
    runs(&fixture, FUNCTION, 8).await;
}

#[tokio::test(start_paused = true)]
async fn a_function_without_work_does_not_wait_for_a_turn_of_each_busy_one() {
    let fixture = Fixture::new(1, Router::default()).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, logs(&order, 'a')), spec(OTHER, 8, logs(&order, 'b'))]);
    fixture.offer(FUNCTION, 0..50).await;
    while order.lock().unwrap().len() < 10 {
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    fixture.offer(OTHER, 0..1).await;
    fixture.settled().await;
    let b = order.lock().unwrap().iter().position(|name| *name == 'b').unwrap();
    assert!(b <= 12, "the delivery of b ran at position {b}");
}
