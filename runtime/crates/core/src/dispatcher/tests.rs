mod circuit;
mod clock;
mod isolation;
mod load;
mod pause;
mod places;
mod schedule;
mod state;
mod suspension;
mod threads;

use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::FutureExt;
use tokio::sync::Semaphore;

use super::*;
use crate::bus::{Limits, Offer, Target};
use crate::router::{OrderBy, Router};
use crate::runtime_events;
use evoke_model::clock::UnixMs;
use evoke_model::{Actor, Counts, DeadFilter, EventFilter, Lineage, NewDelivery, NewEvent, NewReplay, Seq, Step};
use evoke_store::Store;
use evoke_store::memory::MemoryStore;

const START_MS: UnixMs = 1_700_000_000_000;
/// The id of `shop/a`, the first function that is registered.
const FUNCTION: FunctionId = FunctionId(1);
/// The id of `shop/b`.
const OTHER: FunctionId = FunctionId(2);

/// A function that runs a closure.
struct Closure<F>(F);

impl<F: Fn(Call) -> BoxFuture<'static, T> + Send + Sync + 'static, T: Into<AttemptResult> + 'static> Runner
    for Closure<F>
{
    fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult> {
        (self.0)(call).map(T::into).boxed()
    }
}

impl From<Outcome> for AttemptResult {
    fn from(outcome: Outcome) -> Self {
        let (published, state, duration) = (Vec::new(), Transaction::default(), Duration::ZERO);
        // Has no effect on functions without an endpoint.
        let responded = true;
        Self { outcome, published, state, duration, note: None, recording: None, responded }
    }
}

struct Fixture {
    store: Arc<dyn Store>,
    bus: Bus,
    dispatcher: Dispatcher,
}

impl Fixture {
    /// Registers [`FUNCTION`] and [`OTHER`].
    async fn new(running_max: u32, router: Router) -> Self {
        let clock = Clock::following_tokio(START_MS);
        Self::over(Arc::new(MemoryStore::new(clock.clone())), clock, running_max, router).await
    }

    async fn over(store: Arc<dyn Store>, clock: Clock, running_max: u32, router: Router) -> Self {
        store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap();
        let bus = Bus::new(store.clone(), router, Limits::default());
        let dispatcher = Dispatcher::start(store.clone(), bus.clone(), clock, running_max);
        Self { store, bus, dispatcher }
    }

    async fn offer(&self, function: FunctionId, ids: impl IntoIterator<Item = u32>) {
        let events = ids.into_iter().map(|n| {
            let json = format!(r#"{{"id":"{function}-{n}","source":"/s","type":"t","data":{{"key":"k{}"}}}}"#, n % 2);
            Event::from_json(json.as_bytes(), |_| {}).unwrap()
        });
        let target = Target::Function { function, trigger: "on[0]".into() };
        self.bus.accept(Offer { events: events.collect(), target, ..Offer::default() }).await.unwrap();
    }

    /// Starts a replay that delivers the events up to number `until` to [`FUNCTION`].
    async fn replay(&self, until: i64) -> ReplayId {
        let new = NewReplay { filter: "{}".into(), after: Seq(0), until: Seq(until) };
        let id = self.store.start_replay(&Actor::Runtime, new).await.unwrap();
        let mut offers = Vec::new();
        for seq in (1..=until).map(Seq) {
            let new = NewDelivery { function: FUNCTION, trigger: "on[0]".into(), order_key: None };
            offers.push((Arc::new(self.store.event(seq).await.unwrap().unwrap().unwrap()), vec![new]));
        }
        assert!(self.store.advance_replay(id, Step { position: Seq(until), offers }).await.unwrap());
        id
    }

    /// Waits until no delivery is pending. Returns the numbers of done and dead deliveries of all functions. On a
    /// paused clock this takes no real time.
    async fn settled(&self) -> Counts {
        while self.bus.pending() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let totals = self.store.totals().await.unwrap();
        assert_eq!(totals.owed + totals.replayed, totals.functions.values().map(Counts::total).sum::<u64>());
        totals.functions.values().fold(Counts::default(), |sum, c| Counts {
            done: sum.done + c.done,
            dead: sum.dead + c.dead,
            ..sum
        })
    }
}

fn spec<F, T>(id: FunctionId, concurrency: u32, run: F) -> FunctionSpec
where
    F: Fn(Call) -> BoxFuture<'static, T> + Send + Sync + 'static,
    T: Into<AttemptResult> + 'static,
{
    let metrics = Arc::new(FunctionMetrics::new("shop/a".into()));
    FunctionSpec { id, concurrency, retry: RetryPolicy::default(), runner: Arc::new(Closure(run)), metrics }
}

fn done() -> BoxFuture<'static, Outcome> {
    async { Outcome::Done }.boxed()
}

#[tokio::test(start_paused = true)]
async fn a_failing_delivery_is_retried_by_policy_and_then_becomes_a_dead_letter() {
    let fixture = Fixture::new(8, Router::default()).await;
    let fail = |_| async { Outcome::Retry { message: "gateway down".into(), after: None } }.boxed();
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, fail)]);
    fixture.offer(FUNCTION, [1]).await;
    assert_eq!(fixture.settled().await.dead, 1);
    let letter = fixture.store.dead(DeadFilter::All, DeliveryId(0), 1).await.unwrap().remove(0).unwrap();
    assert_eq!(letter.attempts.len(), 8);
    assert_eq!(
        letter.cause.as_deref(),
        Some("gave up after 8 attempts; the last attempt had the outcome `retry`: gateway down")
    );
    for (earlier, later) in letter.attempts.iter().zip(&letter.attempts[1..]) {
        let ceiling_ms = 500 << (earlier.attempt - 1);
        assert!(later.started_ms - earlier.started_ms <= ceiling_ms + 20, "{letter:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_makes_a_runtime_event_unless_a_runtime_event_caused_it() {
    let mut router = Router::default();
    let pattern = serde_json::json!({ "source": ["/evoke"] });
    router.add(OTHER, "on[0]".into(), None, Some(&evoke_pattern::Pattern::parse(&pattern).unwrap()));
    router.set_order(FUNCTION, OrderBy::Data(vec!["key".into()]));
    let fixture = Fixture::new(8, router).await;
    let reject = |_| async { Outcome::Reject { message: "no".into() } }.boxed();
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, reject), spec(OTHER, 1, reject)]);
    fixture.offer(FUNCTION, [1, 2]).await;
    assert_eq!(fixture.settled().await.dead, 4);
    let filter = EventFilter { source: Some("/evoke".into()), limit: 10, ..EventFilter::default() };
    let reports = fixture.store.events(filter).await.unwrap().into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(reports.len(), 2, "{reports:?}");
    let data: serde_json::Value = serde_json::from_slice(reports[0].event.data.as_bytes()).unwrap();
    assert_eq!((&data["order_key"], &data["attempts"], &data["outcome"]), (&"k1".into(), &1.into(), &"reject".into()));
    let (cause, root) = (Some(DeliveryId(1)), Some(Seq(1)));
    assert_eq!(reports[0].lineage, Lineage { cause, root, hops: 0, origin: runtime_events::origin() });
}

#[tokio::test(start_paused = true)]
async fn a_function_is_failing_from_five_failures_until_a_success_not_counting_runtime_events() {
    let fixture = Fixture::new(8, Router::default()).await;
    let fails = |call: Call| {
        let fails = call.event.id != "1-9";
        async move { if fails { Outcome::Reject { message: "no".into() } } else { Outcome::Done } }.boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, fails)]);
    fixture.offer(FUNCTION, 0..4).await;
    fixture.settled().await;
    assert!(fixture.dispatcher.failing().is_empty());
    let reports = |n: u32| {
        let event = Event { id: n.to_string(), source: "/evoke".into(), type_: "t".into(), ..Event::default() };
        let lineage = Lineage { origin: runtime_events::origin(), ..Lineage::default() };
        let delivery = NewDelivery { function: FUNCTION, trigger: "on[0]".into(), order_key: None };
        NewEvent { event: Arc::new(event), lineage, deliveries: vec![delivery] }
    };
    fixture.store.accept((0..20).map(reports).collect(), vec![]).await.unwrap();
    fixture.settled().await;
    assert!(fixture.dispatcher.failing().is_empty());
    fixture.offer(FUNCTION, [5]).await;
    fixture.settled().await;
    fixture.dispatcher.health_changed().await;
    assert_eq!(fixture.dispatcher.failing()[&FUNCTION].attempts, 5);
    fixture.offer(FUNCTION, [9]).await;
    fixture.settled().await;
    fixture.dispatcher.health_changed().await;
    assert!(fixture.dispatcher.failing().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_the_time_that_the_function_asked_for() {
    let fixture = Fixture::new(8, Router::default()).await;
    let once = |call: Call| {
        let after = Some(Duration::from_secs(7));
        async move { if call.attempt == 1 { Outcome::Retry { message: "busy".into(), after } } else { Outcome::Done } }
            .boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, once)]);
    fixture.offer(FUNCTION, [1]).await;
    assert_eq!(fixture.settled().await.done, 1);
    let attempts = fixture.store.delivery(DeliveryId(1)).await.unwrap().unwrap().unwrap().attempts;
    let waited_ms = attempts[1].started_ms - attempts[0].started_ms;
    assert!((7000..7020).contains(&waited_ms), "{waited_ms}");
}

#[tokio::test(start_paused = true)]
async fn deliveries_beyond_the_window_run_once_each() {
    let fixture = Fixture::new(4, Router::default()).await;
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let count = move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Outcome::Done
        }
        .boxed()
    };
    // These deliveries are stored before the function is active, so the dispatcher must load them from the store.
    fixture.offer(FUNCTION, 0..1000).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 4, count)]);
    for n in 1..5 {
        fixture.offer(FUNCTION, n * 1000..(n + 1) * 1000).await;
    }
    assert_eq!(fixture.settled().await.done, 5000);
    assert_eq!(runs.load(Ordering::Relaxed), 5000);
}

#[tokio::test(start_paused = true)]
async fn running_deliveries_are_limited_per_function_and_in_total() {
    let fixture = Fixture::new(3, Router::default()).await;
    let (running, peak_running) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let peak = peak_running.clone();
    let run = move |_| {
        let (running, peak_running) = (running.clone(), peak_running.clone());
        async move {
            peak_running.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            running.fetch_sub(1, Ordering::SeqCst);
            Outcome::Done
        }
        .boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 2, run.clone()), spec(OTHER, 2, run)]);
    fixture.offer(FUNCTION, 0..20).await;
    assert_eq!(fixture.settled().await.done, 20);
    assert_eq!(peak.load(Ordering::SeqCst), 2);
    fixture.offer(FUNCTION, 20..40).await;
    fixture.offer(OTHER, 0..20).await;
    fixture.settled().await;
    assert_eq!(peak.load(Ordering::SeqCst), 3);
}

/// A function that adds its name to `order` at each run, and takes a millisecond.
fn logs(order: &Arc<Mutex<Vec<char>>>, name: char) -> impl Fn(Call) -> BoxFuture<'static, Outcome> + use<> {
    let order = order.clone();
    move |_| {
        order.lock().unwrap().push(name);
        async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            Outcome::Done
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_function_does_not_starve_another() {
    let fixture = Fixture::new(1, Router::default()).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, logs(&order, 'a')), spec(OTHER, 8, logs(&order, 'b'))]);
    fixture.offer(FUNCTION, 0..500).await;
    fixture.offer(OTHER, 0..3).await;
    fixture.settled().await;
    let last_b = order.lock().unwrap().iter().rposition(|name| *name == 'b').unwrap();
    assert!(last_b <= 7, "the last delivery of b ran at position {last_b}");
}

#[tokio::test(start_paused = true)]
async fn one_key_runs_in_accept_order_through_retries() {
    let mut router = Router::default();
    router.set_order(FUNCTION, OrderBy::Data(vec!["key".into()]));
    let fixture = Fixture::new(8, router).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let log = order.clone();
    let flaky = move |call: Call| {
        let n: u32 = call.event.id.trim_start_matches("1-").parse().unwrap();
        let fails = n.is_multiple_of(5) && call.attempt < 3;
        if !fails {
            log.lock().unwrap().push(n);
        }
        async move { if fails { Outcome::Trap { message: "not yet".into() } } else { Outcome::Done } }.boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, flaky)]);
    fixture.offer(FUNCTION, 0..100).await;
    assert_eq!(fixture.settled().await.done, 100);
    for parity in 0..2 {
        let of_key: Vec<_> = order.lock().unwrap().iter().copied().filter(|n| n % 2 == parity).collect();
        assert!(of_key.is_sorted() && of_key.len() == 50, "{of_key:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn drain_starts_no_delivery_and_leaves_the_rest_pending() {
    let fixture = Fixture::new(2, Router::default()).await;
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let wait = move |_| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Outcome::Done
        }
        .boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 2, wait)]);
    fixture.offer(FUNCTION, 0..5).await;
    while fixture.dispatcher.running()[&FUNCTION] < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    opened.add_permits(1);
    assert_eq!(fixture.dispatcher.drain(Duration::from_secs(1)).await, 1);
    opened.add_permits(5);
    assert_eq!(fixture.dispatcher.drain(Duration::from_secs(1)).await, 0);
    assert_eq!(fixture.bus.pending(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_removed_function_is_suspended_until_it_is_set_again() {
    let fixture = Fixture::new(2, Router::default()).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 2, |_| done())]);
    fixture.offer(FUNCTION, 0..2).await;
    fixture.settled().await;
    fixture.dispatcher.set_functions(vec![]);
    fixture.offer(FUNCTION, 2..600).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fixture.bus.pending(), 598);
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 2, |_| done())]);
    assert_eq!(fixture.settled().await.done, 600);
}

#[tokio::test(start_paused = true)]
async fn replays_run_behind_live_deliveries_with_limited_concurrency() {
    let fixture = Fixture::new(64, Router::default()).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, |_| done())]);
    fixture.offer(FUNCTION, 0..600).await;
    fixture.settled().await;
    let (log, replaying, peak_running) =
        (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (order, peak) = (log.clone(), peak_running.clone());
    let run = move |call: Call| {
        order.lock().unwrap().push(call.replay);
        let (replaying, peak_running) = (replaying.clone(), peak_running.clone());
        async move {
            if call.replay {
                peak_running.fetch_max(replaying.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            if call.replay {
                replaying.fetch_sub(1, Ordering::SeqCst);
            }
            Outcome::Done
        }
        .boxed()
    };
    fixture.dispatcher.set_functions(vec![]);
    let id = fixture.replay(600).await;
    fixture.offer(FUNCTION, 600..1200).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, run)]);
    fixture.settled().await;
    let counts = fixture.store.replay(id).await.unwrap().unwrap().deliveries;
    assert_eq!((counts.done, counts.total()), (600, 600));
    assert_eq!(peak.load(Ordering::SeqCst), 2, "replays use a quarter of the concurrency 8");
    let log = log.lock().unwrap();
    let last_live = log.iter().rposition(|replay| !replay).unwrap();
    let before = log[..last_live].iter().filter(|replay| **replay).count();
    assert!((10..30).contains(&before), "{before} replayed deliveries ran before the last of 600 live deliveries");
}

#[tokio::test(start_paused = true)]
async fn no_delivery_of_a_halted_replay_is_started() {
    let fixture = Fixture::new(64, Router::default()).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, |_| done())]);
    fixture.offer(FUNCTION, 0..50).await;
    fixture.settled().await;
    let gate = Arc::new(Semaphore::new(0));
    let opened = gate.clone();
    let wait = move |_| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Outcome::Done
        }
        .boxed()
    };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, wait)]);
    let id = fixture.replay(50).await;
    while fixture.dispatcher.running()[&FUNCTION] < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let started = fixture.dispatcher.halt(id);
    assert_eq!(started.len(), 2);
    assert_eq!(fixture.store.purge_replay(&Actor::Runtime, id, started).await.unwrap(), 48);
    opened.add_permits(100);
    fixture.settled().await;
    let counts = fixture.store.replay(id).await.unwrap().unwrap().deliveries;
    assert_eq!((counts.done, counts.purged), (2, 48));
}
