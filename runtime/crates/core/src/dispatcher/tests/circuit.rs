//! Functions that send their deliveries to an endpoint.

use std::sync::atomic::AtomicBool;

use foldhash::{HashSet, HashSetExt};

use super::*;
use evoke_model::PendingFilter;

/// An endpoint that can be down. It records the requests that it accepted.
#[derive(Default)]
struct Endpoint {
    is_down: AtomicBool,
    /// The outcome while the endpoint is down. By default a failure that asks for no wait.
    when_down: Mutex<Option<Outcome>>,
    requests: AtomicU32,
    taken: Mutex<Vec<String>>,
}

struct ToEndpoint(Arc<Endpoint>, CircuitPolicy);

impl Runner for ToEndpoint {
    fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult> {
        let endpoint = self.0.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            endpoint.requests.fetch_add(1, Ordering::SeqCst);
            let down = endpoint.when_down.lock().unwrap().clone();
            let down = down.unwrap_or(Outcome::EndpointFailed { message: "503".into(), after: None });
            let outcome = if endpoint.is_down.load(Ordering::SeqCst) { down } else { Outcome::Done };
            if outcome == Outcome::Done {
                endpoint.taken.lock().unwrap().push(call.event.id.clone());
            }
            AttemptResult { note: Some("204".into()), ..outcome.into() }
        }
        .boxed()
    }

    fn circuit(&self) -> Option<CircuitPolicy> {
        Some(self.1)
    }
}

impl Endpoint {
    fn set_down(&self, is_down: bool) {
        self.is_down.store(is_down, Ordering::SeqCst);
    }

    fn requests(&self) -> u32 {
        self.requests.load(Ordering::SeqCst)
    }

    fn spec(self: &Arc<Self>) -> FunctionSpec {
        self.spec_with(CircuitPolicy::default(), RetryPolicy::default())
    }

    fn spec_with(self: &Arc<Self>, policy: CircuitPolicy, retry: RetryPolicy) -> FunctionSpec {
        let runner = Arc::new(ToEndpoint(self.clone(), policy));
        FunctionSpec { runner, retry, ..spec(FUNCTION, 4, |_| done()) }
    }
}

async fn by_key() -> Fixture {
    let mut router = Router::default();
    router.set_order(FUNCTION, OrderBy::Data(vec!["key".into()]));
    Fixture::new(8, router).await
}

fn is_open(fixture: &Fixture) -> bool {
    fixture.dispatcher.circuits()[&FUNCTION].is_some()
}

async fn hours(hours: u64) {
    tokio::time::sleep(Duration::from_secs(hours * 3600)).await;
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_down_for_hours_costs_no_attempts_and_gets_everything_in_order_by_key() {
    let (fixture, endpoint) = (by_key().await, Arc::new(Endpoint::default()));
    endpoint.set_down(true);
    fixture.dispatcher.set_functions(vec![endpoint.spec(), spec(OTHER, 4, |_| done())]);
    fixture.offer(FUNCTION, 0..600).await;
    hours(5).await;
    assert!(is_open(&fixture));
    assert!(endpoint.requests() < 6 * 60, "{} requests in 5 hours", endpoint.requests());
    assert_eq!((fixture.bus.pending(), fixture.dispatcher.running()[&FUNCTION]), (600, 0));
    // The open circuit delays no other function.
    let before = tokio::time::Instant::now();
    fixture.offer(OTHER, 0..100).await;
    while fixture.bus.pending() > 600 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(before.elapsed() < Duration::from_secs(1));

    endpoint.set_down(false);
    let counts = fixture.settled().await;
    assert_eq!((counts.done, counts.dead), (700, 0));
    assert!(!is_open(&fixture));
    let taken: Vec<u32> =
        endpoint.taken.lock().unwrap().iter().map(|id| id.trim_start_matches("1-").parse().unwrap()).collect();
    for parity in 0..2 {
        let of_key: Vec<_> = taken.iter().filter(|n| *n % 2 == parity).collect();
        assert!(of_key.is_sorted() && of_key.len() == 300, "{of_key:?}");
    }
    let attempts = |id| fixture.store.delivery(DeliveryId(id)).map(|found| found.unwrap().unwrap().unwrap().attempts);
    for id in 1..=600 {
        assert!(attempts(id).await.len() <= 6, "delivery {id}");
    }
    let last = attempts(600).await.remove(0);
    assert_eq!((last.outcome.as_ref(), last.message.as_deref()), ("done", Some("204")));
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_backlog_goes_out_at_a_bounded_rate() {
    let (fixture, endpoint) = (Fixture::new(8, Router::default()).await, Arc::new(Endpoint::default()));
    endpoint.set_down(true);
    fixture.dispatcher.set_functions(vec![endpoint.spec()]);
    fixture.offer(FUNCTION, 0..500).await;
    hours(1).await;
    endpoint.set_down(false);
    while is_open(&fixture) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = endpoint.requests();
    tokio::time::sleep(Duration::from_millis(1990)).await;
    let sent = endpoint.requests() - before;
    assert!((25..=35).contains(&sent), "{sent} requests in 2 s");
    assert_eq!(fixture.settled().await.done, 500);
}

#[tokio::test(start_paused = true)]
async fn a_rate_bounds_every_second() {
    let (fixture, endpoint) = (Fixture::new(8, Router::default()).await, Arc::new(Endpoint::default()));
    let policy = CircuitPolicy { interval: Duration::from_millis(20) };
    fixture.dispatcher.set_functions(vec![endpoint.spec_with(policy, RetryPolicy::default())]);
    let before = tokio::time::Instant::now();
    fixture.offer(FUNCTION, 0..101).await;
    assert_eq!(fixture.settled().await.done, 101);
    let took = before.elapsed();
    assert!((Duration::from_millis(1980)..Duration::from_millis(2200)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn deliveries_that_become_too_old_while_the_circuit_is_open_become_dead_letters_in_time() {
    let (fixture, endpoint) = (Fixture::new(8, Router::default()).await, Arc::new(Endpoint::default()));
    endpoint.set_down(true);
    let retry = RetryPolicy { max_age: Duration::from_secs(3600), ..RetryPolicy::default() };
    fixture.dispatcher.set_functions(vec![endpoint.spec_with(CircuitPolicy::default(), retry)]);
    // More deliveries than the lane holds in memory, so that some wait in the store.
    fixture.offer(FUNCTION, 0..1000).await;
    tokio::time::sleep(Duration::from_secs(3590)).await;
    fixture.offer(FUNCTION, 1000..1010).await;
    assert_eq!(fixture.bus.pending(), 1010);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(fixture.bus.pending(), 10);
    let letters = fixture.store.dead(DeadFilter::All, DeliveryId(0), 2000).await.unwrap();
    assert_eq!(letters.len(), 1000);
    let causes: Vec<_> = letters.into_iter().map(|letter| letter.unwrap().cause.unwrap()).collect();
    let count = |text: &str| causes.iter().filter(|cause| cause.contains(text)).count();
    assert!(count("gave up at an age of 3") == 1000, "{causes:?}");
    let not_sent = "no request was sent, because the endpoint keeps failing (its circuit is open); the last request";
    assert!(count(not_sent) > 900);
    endpoint.set_down(false);
    assert_eq!(fixture.settled().await.done, 10);
}

/// An endpoint that refuses the first events, and accepts all others. Counts the refused and the accepted requests.
#[derive(Default)]
struct Poisoned {
    /// The endpoint refuses the events up to this one.
    last: u32,
    taken: Arc<AtomicU32>,
    refused: Arc<AtomicU32>,
}

impl Runner for Poisoned {
    fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult> {
        let failed = Outcome::EndpointFailed { message: "500".into(), after: None };
        let number: u32 = call.event.id.trim_start_matches("1-").parse().unwrap();
        let (outcome, count) = if number <= self.last { (failed, &self.refused) } else { (Outcome::Done, &self.taken) };
        count.fetch_add(1, Ordering::SeqCst);
        async move { outcome.into() }.boxed()
    }

    fn circuit(&self) -> Option<CircuitPolicy> {
        Some(CircuitPolicy::default())
    }
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_the_endpoint_never_takes_is_retried_by_its_policy_and_delays_no_other_for_ever() {
    let fixture = Fixture::new(8, Router::default()).await;
    let refused = Arc::<AtomicU32>::default();
    let runner = Arc::new(Poisoned { refused: refused.clone(), ..Poisoned::default() });
    // Each wait between attempts is so short that the circuit is still recovering. In this state, a single failure
    // opens the circuit again.
    let short = Duration::from_millis(500);
    let retry = RetryPolicy { attempts: 100_000, backoff: short, max_backoff: short, ..RetryPolicy::default() };
    fixture.dispatcher.set_functions(vec![FunctionSpec { runner, retry, ..spec(FUNCTION, 4, |_| done()) }]);
    fixture.offer(FUNCTION, [0]).await;
    while !is_open(&fixture) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (mut opened, mut was_open) = (0, true);
    for second in 1..600 {
        fixture.offer(FUNCTION, [second]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        opened += u32::from(is_open(&fixture) && !was_open);
        was_open = is_open(&fixture);
    }
    assert!(opened <= 4, "opened {opened} times in ten minutes");
    assert_eq!(fixture.bus.pending(), 1);
    let refused = refused.load(Ordering::SeqCst);
    assert!(refused > 500, "{refused} attempts");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_the_endpoint_never_takes_does_not_keep_the_circuit_open() {
    let fixture = Fixture::new(8, Router::default()).await;
    let taken = Arc::new(AtomicU32::new(0));
    let (runner, retry) = (
        Arc::new(Poisoned { taken: taken.clone(), ..Poisoned::default() }),
        RetryPolicy { max_age: Duration::from_secs(3600), ..RetryPolicy::default() },
    );
    fixture.dispatcher.set_functions(vec![FunctionSpec { runner, retry, ..spec(FUNCTION, 4, |_| done()) }]);
    fixture.offer(FUNCTION, [0]).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(is_open(&fixture));
    fixture.offer(FUNCTION, 1..50).await;
    tokio::time::sleep(Duration::from_secs(180)).await;
    assert_eq!(taken.load(Ordering::SeqCst), 49);
    let counts = fixture.settled().await;
    assert_eq!((counts.done, counts.dead), (49, 1));
}

#[tokio::test(start_paused = true)]
async fn more_refused_deliveries_than_wait_in_memory_delay_others_for_minutes_only() {
    let fixture = Fixture::new(8, Router::default()).await;
    let taken = Arc::<AtomicU32>::default();
    let runner = Arc::new(Poisoned { last: 999, taken: taken.clone(), ..Poisoned::default() });
    fixture.dispatcher.set_functions(vec![FunctionSpec { runner, ..spec(FUNCTION, 4, |_| done()) }]);
    fixture.offer(FUNCTION, 0..1000).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(is_open(&fixture));
    for number in 1000..1100 {
        fixture.offer(FUNCTION, [number]).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let late = number - 999 - taken.load(Ordering::SeqCst);
        assert!(late <= 12, "{late} deliveries wait after delivery {number}");
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(taken.load(Ordering::SeqCst), 100);
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_the_endpoint_asks_for_holds_all_deliveries() {
    let (fixture, endpoint) = (Fixture::new(8, Router::default()).await, Arc::new(Endpoint::default()));
    let after = Some(Duration::from_secs(300));
    *endpoint.when_down.lock().unwrap() = Some(Outcome::EndpointFailed { message: "429".into(), after });
    endpoint.set_down(true);
    fixture.dispatcher.set_functions(vec![endpoint.spec()]);
    fixture.offer(FUNCTION, [0]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    endpoint.set_down(false);
    fixture.offer(FUNCTION, 1..10).await;
    tokio::time::sleep(Duration::from_secs(290)).await;
    assert_eq!(endpoint.requests(), 1);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!((fixture.bus.pending(), endpoint.requests()), (0, 11));
}

#[tokio::test(start_paused = true)]
async fn a_function_whose_endpoint_is_gone_stops_until_it_was_paused_and_resumed() {
    let (fixture, endpoint) = (by_key().await, Arc::new(Endpoint::default()));
    *endpoint.when_down.lock().unwrap() = Some(Outcome::EndpointGone { message: "410 Gone".into() });
    endpoint.set_down(true);
    // The policy allows only one attempt. The deliveries must survive, because attempts at an endpoint that is gone do
    // not count.
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    fixture.dispatcher.set_functions(vec![endpoint.spec_with(CircuitPolicy::default(), retry)]);
    fixture.offer(FUNCTION, 0..20).await;
    fixture.dispatcher.health_changed().await;
    let reason = fixture.dispatcher.gone().remove(&FUNCTION).unwrap();
    assert!(reason.starts_with("410 Gone (delivery "), "{reason}");
    let requests = endpoint.requests();
    hours(1).await;
    assert!(endpoint.requests() <= requests + 1, "only a request that was already running may follow");
    let mut paused = HashSet::new();
    paused.insert(FUNCTION);
    fixture.dispatcher.set_paused(paused);
    assert!(fixture.dispatcher.gone().is_empty());
    endpoint.set_down(false);
    hours(1).await;
    assert_eq!(fixture.bus.pending(), 20);
    fixture.dispatcher.set_paused(HashSet::new());
    let counts = fixture.settled().await;
    assert_eq!((counts.done, counts.dead), (20, 0));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_cancelled_while_it_runs_is_not_sent_again() {
    let (fixture, endpoint) = (Fixture::new(8, Router::default()).await, Arc::new(Endpoint::default()));
    endpoint.set_down(true);
    fixture.dispatcher.set_functions(vec![endpoint.spec()]);
    fixture.offer(FUNCTION, [0]).await;
    while !is_open(&fixture) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while fixture.dispatcher.running()[&FUNCTION] == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let which = PendingFilter::Function("shop/a".into());
    assert_eq!(fixture.store.cancel(&Actor::Runtime, which, "cancelled").await.unwrap(), 1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    let requests = endpoint.requests();
    hours(1).await;
    assert_eq!((endpoint.requests(), fixture.dispatcher.waiting()[&FUNCTION]), (requests, 0));
}

#[tokio::test(start_paused = true)]
async fn a_circuit_that_was_open_before_the_start_begins_with_one_probe() {
    let (fixture, endpoint) = (Fixture::new(8, Router::default()).await, Arc::new(Endpoint::default()));
    endpoint.set_down(true);
    let mut was_open = HashMap::default();
    was_open.insert("shop/a".to_owned(), START_MS - 7);
    fixture.dispatcher.restore_circuits(was_open);
    fixture.offer(FUNCTION, 0..20).await;
    fixture.dispatcher.set_functions(vec![endpoint.spec()]);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(endpoint.requests(), 1);
    let open = fixture.dispatcher.circuits().remove(&FUNCTION).unwrap().unwrap();
    assert_eq!((open.since_ms, open.failures, open.is_reported), (START_MS - 7, 1, true));
    endpoint.set_down(false);
    assert_eq!(fixture.settled().await.done, 20);
}
