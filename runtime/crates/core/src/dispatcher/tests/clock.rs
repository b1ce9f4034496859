//! Jumps of the wall clock.

use std::sync::atomic::AtomicI64;

use super::*;

const HOUR_MS: i64 = 3_600_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_jumps_or_stands_delays_no_retry_and_makes_no_delivery_too_old() {
    for jump_ms in [-YEAR_MS, -HOUR_MS, 0, HOUR_MS, YEAR_MS, 56 * YEAR_MS] {
        let (wall, elapsed) = (Arc::new(AtomicI64::new(START_MS)), Arc::new(AtomicI64::new(0)));
        let clock = Clock::jumping(&wall, &elapsed);
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let fixture = Fixture::over(store, clock, 8, Router::default()).await;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                elapsed.fetch_add(10, Ordering::SeqCst);
            }
        });
        let tries = Arc::new(AtomicU32::new(0));
        let run = move |_| {
            // The clock jumps during the first attempt.
            let is_first = tries.fetch_add(1, Ordering::SeqCst) == 0;
            wall.fetch_add(if is_first { jump_ms } else { 0 }, Ordering::SeqCst);
            let outcome = match tries.load(Ordering::SeqCst) {
                ..4 => Outcome::Retry { message: "not yet".into(), after: None },
                _ => Outcome::Done,
            };
            async move { outcome }.boxed()
        };
        let retry = RetryPolicy { max_age: Duration::from_secs(3600), ..RetryPolicy::default() };
        let longest = retry.max_backoff * 4;
        fixture.dispatcher.set_functions(vec![FunctionSpec { retry, ..spec(FUNCTION, 1, run) }]);
        fixture.offer(FUNCTION, [1]).await;
        let settled = tokio::time::timeout(longest, fixture.settled()).await;
        assert_eq!(settled.map(|counts| (counts.done, counts.dead)), Ok((1, 0)), "{jump_ms} ms");
    }
}
