//! Worker tasks leave their thread to other tasks from time to time.

use std::time::{Duration, Instant};

use super::*;

#[tokio::test]
async fn attempts_that_never_wait_do_not_keep_a_thread() {
    let fixture = Fixture::new(1, Router::default()).await;
    // All tasks of this test share one thread. So this task runs only while no attempt runs.
    let turns = Arc::new(AtomicU32::new(0));
    let other = tokio::spawn({
        let turns = turns.clone();
        async move {
            loop {
                scheduling::let_others_run().await;
                turns.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let compute = {
        let seen = seen.clone();
        move |_| {
            seen.lock().unwrap().push(turns.load(Ordering::Relaxed));
            let started = Instant::now();
            while started.elapsed() < Duration::from_micros(200) {
                std::hint::spin_loop();
            }
            done()
        }
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, compute)]);
    fixture.offer(FUNCTION, 0..200).await;
    fixture.settled().await;
    other.abort();
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 200);
    seen.dedup();
    assert!(seen.len() >= 8, "another task had {} turns during 40 ms of attempts", seen.len());
}
