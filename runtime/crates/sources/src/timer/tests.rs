mod options;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::*;
use evoke_core::bus::{Amount, Bus, Limits, Target};
use evoke_core::router::Router;
use evoke_core::source::Health;
use evoke_model::clock::Clock;
use evoke_model::{EventFilter, Seq, StoredEvent};
use evoke_store::InspectionStore;
use evoke_store::memory::MemoryStore;

/// 2025-03-29T12:00:00Z.
const START: UnixMs = 1_743_249_600_000;
const HOUR: i64 = 3_600_000;
const YEAR: i64 = 365 * 24 * HOUR;

struct Fixture {
    store: Arc<MemoryStore>,
    bus: Bus,
}

impl Fixture {
    fn new() -> Self {
        Self::with_store(MemoryStore::new(Clock::following_tokio(START)))
    }

    fn with_store(store: MemoryStore) -> Self {
        let store = Arc::new(store);
        Self { bus: Bus::new(store.clone(), Router::default(), Limits::default()), store }
    }

    /// Returns a fixture whose bus refuses events while a delivery is pending.
    fn with_small_backlog() -> Self {
        let store = Arc::new(MemoryStore::new(Clock::following_tokio(START)));
        let limits = Limits { backlog_max: Amount { deliveries: 1, bytes: 1 }, ..Limits::default() };
        Self { bus: Bus::new(store.clone(), Router::default(), limits), store }
    }

    fn context(&self, clock: Clock) -> Context {
        Context {
            bus: self.bus.clone(),
            uri: "/shop/nightly".into(),
            origin: evoke_model::Origin(1),
            target: Target::Matching,
            clock,
            stop: CancellationToken::new(),
            health: Health::default(),
        }
    }

    async fn events(&self) -> Vec<StoredEvent> {
        self.store
            .events(EventFilter { after: Some(Seq(0)), limit: 100_000, ..EventFilter::default() })
            .await
            .unwrap()
            .into_iter()
            .flatten()
            .collect()
    }

    async fn ids(&self) -> Vec<String> {
        self.events().await.iter().map(|stored| stored.event.id.clone()).collect()
    }
}

fn with_schedule(schedule: Schedule, missed: Missed) -> TimerSource {
    TimerSource { schedule, missed, overlap: Overlap::Queue, start_deadline: None, jitter: None }
}

fn every(period: Duration, missed: Missed) -> TimerSource {
    with_schedule(Schedule::Every { every: period }, missed)
}

fn cron(expr: &str, missed: Missed) -> TimerSource {
    with_schedule(Schedule::Cron { expr: expr.into(), timezone: "Europe/Berlin".into() }, missed)
}

/// Runs a timer for the time `span` of the paused tokio clock.
async fn run_for(config: TimerSource, ctx: Context, span: Duration) {
    let stop = ctx.stop.clone();
    let worker = tokio::spawn(run(config, ctx));
    tokio::time::sleep(span).await;
    stop.cancel();
    worker.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn ticks_are_on_time_and_carry_their_scheduled_instant() {
    let fixture = Fixture::new();
    let clock = Clock::following_tokio(START);
    run_for(cron("*/20 * * * * *", Missed::Last), fixture.context(clock), Duration::from_millis(61_500)).await;
    let events = fixture.events().await;
    assert_eq!(fixture.ids().await, ["2025-03-29T12:00:20Z", "2025-03-29T12:00:40Z", "2025-03-29T12:01:00Z"]);
    for (stored, due) in events.iter().zip([START + 20_000, START + 40_000, START + 60_000]) {
        assert!((due..due + 10).contains(&stored.accepted_ms), "accepted {} ms late", stored.accepted_ms - due);
        assert_eq!(stored.event.type_, "evoke.timer.tick");
        assert_eq!(stored.event.source, "/shop/nightly");
        assert_eq!(stored.event.time.as_deref(), Some(stored.event.id.as_str()));
    }
    let data: serde_json::Value = serde_json::from_slice(events[0].event.data.as_bytes()).unwrap();
    assert_eq!(
        data,
        serde_json::json!({ "scheduled": "2025-03-29T12:00:20Z", "timezone": "Europe/Berlin", "missed": false })
    );
}

#[tokio::test(start_paused = true)]
async fn ticks_missed_during_downtime_follow_the_policy() {
    for (missed, expected) in [
        (Missed::None, vec!["2025-03-29T12:01:00Z", "2025-03-29T12:06:00Z"]),
        (Missed::Last, vec!["2025-03-29T12:01:00Z", "2025-03-29T12:05:00Z", "2025-03-29T12:06:00Z"]),
        (
            Missed::All(2),
            vec!["2025-03-29T12:01:00Z", "2025-03-29T12:04:00Z", "2025-03-29T12:05:00Z", "2025-03-29T12:06:00Z"],
        ),
    ] {
        let fixture = Fixture::new();
        let clock = Clock::following_tokio(START);
        let minutely = || every(Duration::from_secs(60), missed);
        run_for(minutely(), fixture.context(clock.clone()), Duration::from_secs(90)).await;
        tokio::time::sleep(Duration::from_secs(240)).await;
        run_for(minutely(), fixture.context(clock), Duration::from_secs(60)).await;
        assert_eq!(fixture.ids().await, expected, "{missed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_schedule_has_missed_nothing() {
    let fixture = Fixture::new();
    let clock = Clock::following_tokio(START);
    run_for(cron("0 3 * * *", Missed::Last), fixture.context(clock.clone()), Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_secs(3600 * 24)).await;
    run_for(cron("0 4 * * *", Missed::Last), fixture.context(clock), Duration::from_secs(1)).await;
    assert_eq!(fixture.ids().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn ticks_wait_while_the_bus_refuses_events() {
    let fixture = Fixture::with_small_backlog();
    fixture.store.set_pending(1);
    let ctx = fixture.context(Clock::following_tokio(START));
    let (health, stop) = (ctx.health.clone(), ctx.stop.clone());
    let worker = tokio::spawn(run(every(Duration::from_millis(100), Missed::None), ctx));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(health.trouble().unwrap().contains("1 delivery is pending"));
    assert_eq!(fixture.ids().await.len(), 0);
    fixture.store.set_pending(0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(health.trouble(), None);
    assert!(fixture.ids().await.len() >= 699, "{}", fixture.ids().await.len());
}

#[tokio::test(start_paused = true)]
async fn instants_that_the_clock_jumps_over_while_the_bus_refuses_a_tick_are_missed() {
    let fixture = Fixture::with_small_backlog();
    fixture.store.set_pending(1);
    let wall = Arc::new(std::sync::atomic::AtomicI64::new(START));
    let set = |now_ms| wall.store(now_ms, std::sync::atomic::Ordering::SeqCst);
    let ctx = fixture.context(Clock::manual(&wall));
    let (health, stop) = (ctx.health.clone(), ctx.stop.clone());
    let worker = tokio::spawn(run(every(Duration::from_secs(1), Missed::None), ctx));
    tokio::time::sleep(Duration::from_millis(100)).await;
    set(START + 1_000);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(health.trouble().unwrap().contains("1 delivery is pending"));
    set(START + 2 * HOUR);
    fixture.store.set_pending(0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    stop.cancel();
    worker.await.unwrap();
    let at = |id: String| id.parse::<jiff::Timestamp>().unwrap().as_millisecond() - START;
    let ticks: Vec<i64> = fixture.ids().await.into_iter().map(at).collect();
    // The bus refuses the first tick for some seconds. Only the ticks of this time follow.
    assert_eq!((ticks.first(), ticks.last()), (Some(&1_000), Some(&(2 * HOUR))));
    assert!(ticks.iter().skip(1).all(|at| *at > 2 * HOUR - 10_000), "{} ticks", ticks.len());
}

/// A timer whose wall clock and monotonic clock are set by the test.
struct ManualClock {
    fixture: Fixture,
    ctx: Context,
    timer: Timer,
    wall: UnixMs,
    monotonic: Instant,
}

impl ManualClock {
    fn new(missed: Missed) -> Self {
        // The dedup window is zero, so the store accepts duplicates: the timer itself must not repeat a tick.
        let fixture = Fixture::with_store(MemoryStore::with(Clock::following_tokio(START), Duration::ZERO));
        let ctx = fixture.context(Clock::system());
        let config = every(Duration::from_secs(600), missed);
        let times = Times::new(&config.schedule).unwrap();
        let timer = Timer::new(&config, times, &BTreeMap::new(), START);
        let monotonic = timer.last_check.1;
        Self { fixture, ctx, timer, wall: START, monotonic }
    }

    /// Advances both clocks by `minutes`, one second at a time. After each second, does the same as the loop in
    /// [`run`].
    async fn advance(&mut self, minutes: i64) {
        for _ in 0..minutes * 60 {
            self.wall += 1_000;
            self.monotonic += Duration::from_secs(1);
            loop {
                let wall = self.wall;
                self.timer.check_clocks(wall, self.monotonic);
                if self.timer.next.is_none_or(|next| next > wall) {
                    break;
                }
                assert!(self.timer.tick(&self.ctx, wall, &|| wall).await);
            }
        }
    }

    async fn times(&self) -> Vec<i64> {
        let at = |id: String| (id.parse::<jiff::Timestamp>().unwrap().as_millisecond() - START) / 60_000;
        self.fixture.ids().await.into_iter().map(at).collect()
    }
}

#[tokio::test]
async fn ticks_skipped_by_a_forward_clock_jump_follow_the_policy() {
    for (missed, expected) in [
        (Missed::None, vec![10, 90, 100]),
        (Missed::Last, vec![10, 80, 90, 100]),
        (Missed::All(3), vec![10, 60, 70, 80, 90, 100]),
    ] {
        let mut manual = ManualClock::new(missed);
        manual.advance(19).await;
        manual.wall += HOUR + 2 * 60_000;
        manual.advance(20).await;
        assert_eq!(manual.times().await, expected, "{missed:?}");
    }
}

#[tokio::test]
async fn a_backward_clock_jump_repeats_no_tick() {
    let mut manual = ManualClock::new(Missed::All(1000));
    manual.advance(120).await;
    manual.wall -= HOUR;
    manual.advance(80).await;
    assert_eq!(manual.times().await, (1..=14).map(|n| n * 10).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_timer_keeps_ticking_after_the_clock_was_a_year_ahead() {
    let mut manual = ManualClock::new(Missed::Last);
    manual.advance(20).await;
    manual.wall += YEAR;
    manual.advance(10).await;
    manual.wall -= YEAR;
    manual.advance(20).await;
    let year = YEAR / 60_000;
    // The instant of minute 30 passed while the clock was wrong.
    assert_eq!(manual.times().await, [10, 20, year + 20, year + 30, 30, 40, 50]);
}

#[tokio::test]
async fn a_backward_jump_of_a_year_repeats_no_tick_that_the_bus_has_stored() {
    let mut manual = ManualClock::new(Missed::Last);
    manual.advance(20).await;
    manual.wall -= YEAR;
    manual.advance(20).await;
    manual.wall += YEAR;
    manual.advance(20).await;
    let year = YEAR / 60_000;
    assert_eq!(manual.times().await, [10, 20, 30 - year, 40 - year, 40, 50, 60]);
}

#[tokio::test]
async fn a_clock_that_was_ahead_for_hours_silences_the_timer_for_none_of_them() {
    for ahead in [HOUR, 23 * HOUR, YEAR] {
        let mut manual = ManualClock::new(Missed::None);
        manual.advance(20).await;
        manual.wall += ahead;
        manual.advance(20).await;
        manual.wall -= ahead;
        manual.advance(120).await;
        let ahead = ahead / 60_000;
        let expected: Vec<i64> = [10, 20, ahead + 30, ahead + 40].into_iter().chain((5..=16).map(|n| n * 10)).collect();
        // If the clock was ahead by one hour, it later passes instants that had their ticks already. The timer does not
        // repeat these ticks.
        let expected: Vec<i64> = expected
            .iter()
            .enumerate()
            .filter(|(at, time)| !expected[..*at].contains(time))
            .map(|(_, time)| *time)
            .collect();
        assert_eq!(manual.times().await, expected, "{ahead} minutes ahead");
    }
}

#[tokio::test]
async fn instants_that_ticked_days_ago_do_not_tick_again_also_after_a_restart() {
    let mut manual = ManualClock::new(Missed::Last);
    manual.advance(60 * 60).await;
    let before = manual.times().await;
    manual.wall -= 50 * HOUR;
    let stored = manual.fixture.bus.marks(&manual.ctx.uri).await.unwrap();
    let config = every(Duration::from_secs(600), Missed::Last);
    let times = Times::new(&config.schedule).unwrap();
    manual.timer = Timer::new(&config, times, &stored, manual.wall);
    manual.monotonic = manual.timer.last_check.1;
    manual.advance(49 * 60).await;
    assert_eq!(manual.times().await, before);
    manual.advance(70).await;
    assert_eq!(manual.times().await.len(), before.len() + 1);
}
