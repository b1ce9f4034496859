//! The memory of deliveries that wait, and loads after a lane was full.

use std::sync::{Mutex, OnceLock};

use super::*;

/// The approximate size in bytes of an event of these tests.
const SIZE: usize = 700_000;

impl Fixture {
    /// Accepts this number of large events for [`FUNCTION`].
    async fn offer_large(&self, count: u32) {
        let text = "x".repeat(SIZE);
        let events = (0..count).map(|n| {
            let json = format!(r#"{{"id":"large-{n}","source":"/s","type":"t","data":"{text}"}}"#);
            Event::from_json(json.as_bytes(), |_| {}).unwrap()
        });
        let target = Target::Function { function: FUNCTION, trigger: "on[0]".into() };
        self.bus.accept(Offer { events: events.collect(), target, ..Offer::default() }).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn large_events_wait_in_the_store_and_their_retries_are_loaded_as_soon_as_there_is_room() {
    const COUNT: u32 = 60;
    const RETRY_AFTER: Duration = Duration::from_secs(100);
    let fixture = Fixture::new(8, Router::default()).await;
    let dispatcher = Arc::new(OnceLock::<Dispatcher>::new());
    assert!(dispatcher.set(fixture.dispatcher.clone()).is_ok());
    let (waiting, second) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (most, attempts) = (waiting.clone(), second.clone());
    let run = move |call: Call| {
        most.fetch_max(dispatcher.get().unwrap().waiting()[&FUNCTION], Ordering::SeqCst);
        let is_first = call.attempt == 1;
        if !is_first {
            attempts.lock().unwrap().push(call.event.id.clone());
        }
        let retry = Outcome::Retry { message: "later".into(), after: Some(RETRY_AFTER) };
        async move { if is_first { retry } else { Outcome::Done } }.boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, run)]);
    let started = tokio::time::Instant::now();
    fixture.offer_large(COUNT).await;
    assert_eq!(fixture.settled().await.done, u64::from(COUNT));
    // If a lane that was full loaded only at the next check, which is every second, the retries would take 20 s.
    let took = started.elapsed();
    assert!(took < RETRY_AFTER + Duration::from_secs(5), "{took:?}");
    // 6 MiB of first attempts, and 1 MiB of retries.
    let most = waiting.load(Ordering::SeqCst);
    assert!(most > 3 && most <= (7 * 1024 * 1024 / SIZE) as u32 + 2, "{most}");
    let expected: Vec<_> = (0..COUNT).map(|n| format!("large-{n}")).collect();
    assert_eq!(*second.lock().unwrap(), expected);
}
