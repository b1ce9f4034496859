//! Worker tasks leave their thread to other tasks from time to time.

use std::time::{Duration, Instant};

use super::*;
use crate::blocking::tests::{Gate, run_all_tasks, runtime};
use evoke_model::event::Data;

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

/// Returns a function that publishes events when it receives the event `1-N`: their data has the sizes `sizes[N]`, and
/// their ids are `N-0`, `N-1` and so on.
fn publishes(sizes: Vec<Vec<usize>>) -> impl Fn(Call) -> BoxFuture<'static, AttemptResult> {
    move |call: Call| {
        let received: usize = call.event.id.trim_start_matches("1-").parse().unwrap();
        let event = |(n, size): (usize, &usize)| Event {
            id: format!("{received}-{n}"),
            source: "/shop/a".into(),
            type_: "published".into(),
            data: Data::Text("x".repeat(*size)),
            ..Event::default()
        };
        let published = sizes[received].iter().enumerate().map(event).collect();
        async move { AttemptResult { published, ..Outcome::Done.into() } }.boxed()
    }
}

#[test]
fn large_and_many_published_events_are_matched_on_a_thread_for_blocking_work() {
    runtime().block_on(async {
        let mut router = Router::default();
        let pattern = serde_json::json!({ "type": ["published"] });
        router.add(OTHER, "on[0]".into(), None, Some(&evoke_pattern::Pattern::parse(&pattern).unwrap()));
        let fixture = Fixture::new(8, router).await;
        let mixed = [vec![1; 300], vec![100_000], vec![1; 300]].concat();
        let sizes: Vec<Vec<usize>> = vec![vec![100_000], vec![1; 300], mixed, vec![1_000; 10]];
        let counts: Vec<_> = sizes.iter().map(Vec::len).collect();
        fixture.dispatcher.set_functions(vec![spec(FUNCTION, 4, publishes(sizes)), spec(OTHER, 1, |_| done())]);
        let gate = Gate::close();
        fixture.offer(FUNCTION, 0..4).await;
        run_all_tasks().await;
        // Only the attempt with few small events has ended. So have the deliveries of its events, on the same thread.
        assert_eq!((fixture.dispatcher.running()[&FUNCTION], fixture.bus.pending()), (3, 3));
        drop(gate);
        let published = counts.iter().sum::<usize>();
        assert_eq!(fixture.settled().await.done, 4 + published as u64);
        let (source, after) = (Some("/shop/a".into()), Some(Seq(0)));
        let filter = EventFilter { source, after, limit: 2_000, ..EventFilter::default() };
        let stored = fixture.store.events(filter).await.unwrap();
        let ids: Vec<_> = stored.iter().map(|event| event.as_ref().unwrap().event.id.as_str()).collect();
        for (received, count) in counts.into_iter().enumerate() {
            let prefix = format!("{received}-");
            let numbers = ids.iter().filter_map(|id| id.strip_prefix(&prefix)).map(|n| n.parse::<usize>().unwrap());
            assert_eq!(numbers.collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_drain_waits_until_an_attempt_is_committed_whose_events_are_being_matched() {
    runtime().block_on(async {
        let fixture = Fixture::new(8, Router::default()).await;
        fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, publishes(vec![vec![100_000]]))]);
        let gate = Gate::close();
        fixture.offer(FUNCTION, [0]).await;
        run_all_tasks().await;
        let dispatcher = fixture.dispatcher.clone();
        let drained = tokio::spawn(async move { dispatcher.drain(Duration::from_secs(60)).await });
        run_all_tasks().await;
        assert!(!drained.is_finished());
        drop(gate);
        assert_eq!(drained.await.unwrap(), 0);
        assert_eq!(fixture.settled().await.done, 1);
    });
}
