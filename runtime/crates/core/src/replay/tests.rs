use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::bus::{Limits, Offer};
use crate::dispatcher::{AttemptResult, Call, FunctionSpec, Runner as FunctionRunner};
use crate::router::Router;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::{Outcome, RetryPolicy};
use evoke_model::{FunctionId, Json};
use evoke_pattern::Pattern;
use evoke_store::memory::MemoryStore;

/// A function that takes 1 ms and records the id of each event and whether it is a replay.
struct Recording(Arc<Mutex<Vec<(String, bool)>>>);

impl FunctionRunner for Recording {
    fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult> {
        async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.0.lock().unwrap().push((call.event.id.clone(), call.replay));
            let (published, state) = (Vec::new(), evoke_model::state::Transaction::default());
            AttemptResult {
                outcome: Outcome::Done,
                published,
                state,
                duration: Duration::ZERO,
                note: None,
                recording: None,
                responded: false,
            }
        }
        .boxed()
    }
}

struct Fixture {
    store: Arc<dyn Store>,
    bus: Bus,
    replays: Replays,
    dispatcher: Dispatcher,
    seen: Arc<Mutex<Vec<(String, bool)>>>,
}

const NAMES: [&str; 2] = ["shop/a", "shop/b"];

impl Fixture {
    /// Creates two functions: `shop/a` for every event of type `t`, and `shop/b` for the events of this type with an
    /// even number.
    async fn new() -> Self {
        let clock = Clock::following_tokio(1_700_000_000_000);
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let ids = store.register(NAMES.map(str::to_owned).to_vec()).await.unwrap();
        let mut router = Router::default();
        let pattern = |json| Pattern::parse(&json).unwrap();
        router.add(ids[0], "on[0]".into(), None, Some(&pattern(json!({ "type": ["t"] }))));
        router.add(ids[1], "on[0]".into(), None, Some(&pattern(json!({ "type": ["t"], "subject": ["even"] }))));
        let bus = Bus::new(store.clone(), router, Limits::default());
        let dispatcher = Dispatcher::start(store.clone(), bus.clone(), clock, 16);
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let metrics = evoke_telemetry::Metrics::new();
        let worker = |(id, name): (&FunctionId, &str)| FunctionSpec {
            id: *id,
            concurrency: 16,
            retry: RetryPolicy::default(),
            runner: Arc::new(Recording(seen.clone())),
            metrics: metrics.function(name),
        };
        dispatcher.set_functions(ids.iter().zip(NAMES).map(worker).collect());
        let replays = Replays::new(store.clone(), bus.clone());
        Self { store, bus, replays, dispatcher, seen }
    }

    /// Accepts events with these numbers as ids, and waits until their live deliveries have ended. Every tenth event is
    /// of type `other`.
    async fn history(&self, numbers: std::ops::Range<u32>) {
        for n in numbers {
            let (id, subject) = (n.to_string(), (if n % 2 == 0 { "even" } else { "odd" }).to_owned());
            let type_ = if n % 10 == 9 { "other" } else { "t" };
            let event =
                Event { id, source: "/s".into(), type_: type_.into(), subject: Some(subject), ..Event::default() };
            self.bus.accept(Offer { events: vec![event], ..Offer::default() }).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while self.store.pending() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn run(&self) -> CancellationToken {
        let stop = CancellationToken::new();
        tokio::spawn(self.replays.clone().run(self.dispatcher.clone(), stop.clone()));
        stop
    }

    async fn start(&self, filter: Filter) -> ReplayId {
        self.replays.start(&Actor::Runtime, &self.compile(filter).await.unwrap()).await.unwrap().id
    }

    async fn compile(&self, filter: Filter) -> Result<CompiledFilter, ReplayError> {
        self.replays.compile(filter, &NAMES.map(str::to_owned)).await?()
    }

    async fn until(&self, id: ReplayId, is: impl Fn(&Replay) -> bool) -> Replay {
        loop {
            let replay = self.store.replay(id).await.unwrap().unwrap();
            if is(&replay) {
                return replay;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn done(replay: &Replay) -> bool {
    replay.state == ReplayState::Done
}

#[tokio::test(start_paused = true)]
async fn each_event_is_offered_once_to_each_matching_function_even_over_a_restart() {
    let fixture = Fixture::new().await;
    fixture.history(0..1_000).await;
    fixture.seen.lock().unwrap().clear();
    let first = fixture.run();
    let id = fixture.start(Filter::default()).await;
    fixture.until(id, |replay| replay.position >= Seq(300)).await;
    first.cancel();
    // Another process continues from the position that the first process has stored.
    let again = Replays::new(fixture.store.clone(), fixture.bus.clone());
    tokio::spawn(again.run(fixture.dispatcher.clone(), CancellationToken::new()));
    let replay = fixture.until(id, done).await;
    // A tenth of the events has the type `other`. These events have odd numbers. So of the remaining 900 events, 500
    // have even numbers and go to both functions.
    assert_eq!((replay.events, replay.deliveries.done, replay.deliveries.total()), (900, 1_400, 1_400));
    let mut seen = fixture.seen.lock().unwrap().clone();
    assert!(seen.iter().all(|(_, replay)| *replay));
    seen.sort();
    let expected = (0..1_000).filter(|n| n % 10 != 9).flat_map(|n| std::iter::repeat_n(n, 1 + usize::from(n % 2 == 0)));
    let mut expected: Vec<_> = expected.map(|n: u32| (n.to_string(), true)).collect();
    expected.sort();
    assert!(seen == expected);
    assert_eq!(fixture.store.check().await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_filter_selects_events_and_functions_and_a_plan_counts_them() {
    let fixture = Fixture::new().await;
    fixture.history(0..100).await;
    let half = evoke_model::clock::rfc3339(fixture.store.event(Seq(51)).await.unwrap().unwrap().unwrap().accepted_ms);
    fixture.run();
    let names = NAMES.map(str::to_owned);
    for (filter, events, deliveries) in [
        (Filter { r#type: Some("t".into()), ..Filter::default() }, 90, 140),
        (Filter { r#type: Some("oth*".into()), ..Filter::default() }, 0, 0),
        (Filter { function: Some("shop/b".into()), ..Filter::default() }, 50, 50),
        (Filter { since: Some(half.clone()), ..Filter::default() }, 45, 70),
        (Filter { until: Some(half), ..Filter::default() }, 45, 70),
        (Filter { event: Some(Seq(3)), ..Filter::default() }, 1, 2),
        (Filter { pattern: Some(Json(json!({ "id": [{ "prefix": "1" }] }))), ..Filter::default() }, 10, 15),
    ] {
        let compiled = fixture.compile(filter.clone()).await.unwrap();
        let mut run = fixture.replays.dry_run(compiled, names.to_vec()).await.unwrap();
        while !run.plan().complete {
            let step = run.read().await.unwrap();
            run.count(&step);
        }
        let plan = run.plan();
        assert_eq!((plan.events, plan.deliveries, plan.complete), (events, deliveries, true), "{filter:?}");
        assert_eq!(plan.examples.len() as u64, events.min(5));
        let id = fixture.start(filter.clone()).await;
        let replay = fixture.until(id, done).await;
        assert_eq!((replay.events, replay.deliveries.done), (events, deliveries), "{filter:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_filter_is_rejected_with_the_correct_form() {
    let fixture = Fixture::new().await;
    for (filter, words) in [
        (Filter { function: Some("shop/c".into()), ..Filter::default() }, "no active function `shop/c`"),
        (Filter { since: Some("yesterday".into()), ..Filter::default() }, "expected a time"),
        (Filter { pattern: Some(Json(json!({ "type": "t" }))), ..Filter::default() }, "the pattern is not valid"),
        (Filter { rate: Some(0.0), ..Filter::default() }, "more than 0"),
        (Filter { event: Some(Seq(0)), ..Filter::default() }, "from 1"),
    ] {
        let Err(refused) = fixture.compile(filter).await else { panic!("the filter is valid") };
        assert!(refused.to_string().contains(words), "{refused}");
    }
    assert!(fixture.store.replays(ReplayId(0), 10).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_replay_whose_stored_filter_is_no_longer_valid_fails_and_others_continue() {
    let fixture = Fixture::new().await;
    fixture.history(0..20).await;
    let stored = |filter: &str| NewReplay { filter: filter.into(), after: Seq(0), until: Seq(20) };
    let mut failed = Vec::new();
    for filter in [r#"{"pattern":{"type":[{"frob":1}]}}"#, r#"{"unknown":1}"#, "no JSON", r#"{"since":"soon"}"#] {
        failed.push(fixture.store.start_replay(&Actor::Runtime, stored(filter)).await.unwrap());
        assert!(stored_filter_error(filter).is_some(), "{filter}");
    }
    let valid = fixture.store.start_replay(&Actor::Runtime, stored("{}")).await.unwrap();
    let _stop = fixture.run();
    fixture.until(valid, done).await;
    for id in failed {
        let replay = fixture.until(id, |replay| replay.state != ReplayState::Running).await;
        assert_eq!((replay.state, replay.events), (ReplayState::Failed, 0));
        let refused = fixture.replays.apply(&Actor::Runtime, id, ReplayAction::Cancel).await;
        assert!(matches!(refused, Err(ReplayError::State { state: ReplayState::Failed, .. })), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_paused_resumed_and_cancelled() {
    let fixture = Fixture::new().await;
    fixture.history(0..500).await;
    fixture.run();
    // 100 deliveries per second.
    let id = fixture.start(Filter { rate: Some(100.0), ..Filter::default() }).await;
    let started = tokio::time::Instant::now();
    fixture.until(id, |replay| replay.deliveries.total() >= 200).await;
    let took = started.elapsed();
    assert!((1_500..2_500).contains(&took.as_millis()), "{took:?}");
    fixture.replays.apply(&Actor::Runtime, id, ReplayAction::Pause).await.unwrap();
    let paused = fixture.until(id, |replay| replay.deliveries.pending() == 0).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fixture.store.replay(id).await.unwrap().unwrap(), paused);
    assert!(matches!(
        fixture.replays.apply(&Actor::Runtime, id, ReplayAction::Pause).await,
        Err(ReplayError::State { .. })
    ));
    fixture.replays.apply(&Actor::Runtime, id, ReplayAction::Resume).await.unwrap();
    fixture.until(id, |replay| replay.deliveries.total() >= 300).await;
    fixture.replays.apply(&Actor::Runtime, id, ReplayAction::Cancel).await.unwrap();
    let last = fixture.until(id, |replay| replay.state == ReplayState::Cancelled).await;
    assert_eq!(last.deliveries.pending(), 0);
    assert!(last.deliveries.total() < 350, "{last:?}");
    assert!(matches!(
        fixture.replays.apply(&Actor::Runtime, id, ReplayAction::Resume).await,
        Err(ReplayError::State { .. })
    ));
    assert!(matches!(
        fixture.replays.apply(&Actor::Runtime, ReplayId(99), ReplayAction::Cancel).await,
        Err(ReplayError::NotFound(ReplayId(99)))
    ));
    assert_eq!(fixture.store.check().await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_number_of_unfinished_replays_is_limited() {
    let fixture = Fixture::new().await;
    fixture.history(0..1).await;
    for _ in 0..OPEN_MAX {
        fixture.start(Filter::default()).await;
    }
    assert!(matches!(
        fixture.replays.start(&Actor::Runtime, &fixture.compile(Filter::default()).await.unwrap()).await,
        Err(ReplayError::TooMany)
    ));
    fixture.run();
    fixture.until(ReplayId(16), done).await;
    fixture.start(Filter::default()).await;
}

#[test]
fn replayed_events_are_routed_on_a_thread_for_blocking_work() {
    crate::blocking::tests::runtime().block_on(async {
        let fixture = Fixture::new().await;
        fixture.history(0..1).await;
        let filter = fixture.compile(Filter::default()).await.unwrap();
        let id = fixture.replays.start(&Actor::Runtime, &filter).await.unwrap().id;
        let _stop = fixture.run();
        // The first job compiles the filter, and the second routes the event.
        for _ in 0..2 {
            let gate = crate::blocking::tests::Gate::close();
            crate::blocking::tests::run_all_tasks().await;
            assert_eq!(fixture.store.replay(id).await.unwrap().unwrap().position, Seq(0));
            drop(gate);
        }
        fixture.until(id, done).await;
    });
}
