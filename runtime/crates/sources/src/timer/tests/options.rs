//! Tests of the options `at`, `overlap`, `start_deadline` and `jitter`.

use super::*;
use evoke_model::{AttemptRecord, Completion, DeliveryId, FunctionId, Origin, Verdict, state::Transaction};
use evoke_store::DeliveryStore;

/// Creates a timer that ticks at these minutes after [`START`].
fn at(minutes: &[i64], missed: Missed) -> TimerSource {
    with_schedule(Schedule::At { at: minutes.iter().map(|minute| START + minute * 60_000).collect() }, missed)
}

impl Fixture {
    /// Returns for each stored tick: its minute after [`START`], and whether it was missed.
    async fn ticks(&self) -> Vec<(i64, bool)> {
        let tick = |stored: StoredEvent| {
            let minute = (stored.event.id.parse::<jiff::Timestamp>().unwrap().as_millisecond() - START) / 60_000;
            let data: serde_json::Value = serde_json::from_slice(stored.event.data.as_bytes()).unwrap();
            (minute, data["missed"] == true)
        };
        self.events().await.into_iter().map(tick).collect()
    }

    async fn minutes(&self) -> Vec<i64> {
        self.ticks().await.into_iter().map(|(minute, _)| minute).collect()
    }

    /// Completes a delivery at its first attempt.
    async fn end(&self, delivery: i64) {
        let (delivery, function) = (DeliveryId(delivery), FunctionId(1));
        let outcome = "done".into();
        let record = AttemptRecord { attempt: 1, started_ms: 0, duration_us: 0, outcome, message: None };
        let (root, origin, state) = (Seq(1), Origin::default(), Transaction::default());
        let (verdict, publishes) = (Verdict::Done, Vec::new());
        let completion =
            Completion { delivery, function, root, origin, record, verdict, publishes, state, recording: None };
        self.store.complete(Arc::new(completion)).await.unwrap();
    }
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}

#[tokio::test(start_paused = true)]
async fn single_times_tick_once_each_and_the_past_ones_follow_the_policy() {
    for (missed, expected) in [
        (Missed::None, vec![(5, false), (9, false)]),
        (Missed::Last, vec![(-1, true), (5, false), (9, false)]),
        (Missed::All(9), vec![(-60, true), (-1, true), (5, false), (9, false)]),
    ] {
        let fixture = Fixture::new();
        let clock = Clock::following_tokio(START);
        let config = || at(&[-60, -1, 5, 9], missed);
        run_for(config(), fixture.context(clock.clone()), minutes(7)).await;
        // A restart repeats no tick.
        run_for(config(), fixture.context(clock.clone()), minutes(1)).await;
        run_for(config(), fixture.context(clock), minutes(60)).await;
        assert_eq!(fixture.ticks().await, expected, "{missed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_list_of_times_repeats_no_tick_and_misses_new_past_times() {
    // The dedup window is zero, so the store accepts duplicates: the timer itself must not repeat a tick.
    let fixture = Fixture::with_store(MemoryStore::with(Clock::following_tokio(START), Duration::ZERO));
    let clock = Clock::following_tokio(START);
    run_for(at(&[1, 3, 100], Missed::All(9)), fixture.context(clock.clone()), minutes(5)).await;
    run_for(at(&[1, 2, 3, 6], Missed::All(9)), fixture.context(clock.clone()), minutes(5)).await;
    run_for(at(&[3, 6, 7], Missed::All(9)), fixture.context(clock), minutes(5)).await;
    assert_eq!(fixture.ticks().await, [(1, false), (3, false), (2, true), (6, false), (7, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_time_that_a_clock_jump_passes_ticks_once() {
    let fixture = Fixture::with_store(MemoryStore::with(Clock::following_tokio(START), Duration::ZERO));
    let wall = Arc::new(std::sync::atomic::AtomicI64::new(START));
    let clock = Clock::manual(&wall);
    let ctx = fixture.context(clock);
    let stop = ctx.stop.clone();
    let worker = tokio::spawn(run(at(&[30, 600], Missed::Last), ctx));
    for now_ms in [START + HOUR, START, START + 2 * HOUR, 0, START + 2 * HOUR] {
        tokio::time::sleep(Duration::from_secs(3)).await;
        wall.store(now_ms, std::sync::atomic::Ordering::SeqCst);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(fixture.ticks().await, [(30, true)]);
}

#[tokio::test(start_paused = true)]
async fn a_tick_is_skipped_while_deliveries_of_the_one_before_are_pending() {
    let fixture = Fixture::new();
    let function = fixture.store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let target = Target::Function { function, trigger: "on[0]".into() };
    let clock = Clock::following_tokio(START);
    let config = || TimerSource { overlap: Overlap::Skip, ..every(minutes(1), Missed::All(9)) };
    let context = || Context { target: target.clone(), ..fixture.context(clock.clone()) };
    let ctx = context();
    let stop = ctx.stop.clone();
    let worker = tokio::spawn(run(config(), ctx));
    tokio::time::sleep(minutes(3) + Duration::from_secs(30)).await;
    assert_eq!(fixture.minutes().await, [1]);
    fixture.end(1).await;
    tokio::time::sleep(minutes(1)).await;
    assert_eq!(fixture.minutes().await, [1, 4]);
    stop.cancel();
    worker.await.unwrap();
    // After a restart, ticks are still skipped.
    run_for(config(), context(), minutes(2)).await;
    assert_eq!(fixture.minutes().await, [1, 4]);
    fixture.end(2).await;
    // Of the missed ticks, only the newest is stored.
    tokio::time::sleep(minutes(5)).await;
    run_for(config(), context(), Duration::from_secs(10)).await;
    assert_eq!(fixture.ticks().await, [(1, false), (4, false), (11, true)]);

    let marks = fixture.bus.marks("/shop/nightly").await.unwrap();
    let settings = Settings::new(config());
    let times = inspect(&settings, "/shop/nightly", &marks, clock.now_ms(), 3).unwrap();
    let minutes = |at: &i64| (at - START) / 60_000;
    assert_eq!(times.ticked.iter().map(minutes).collect::<Vec<_>>(), [1, 4, 11]);
    assert_eq!(times.next.iter().map(minutes).collect::<Vec<_>>(), [12, 13, 14]);
    let skipped: Vec<_> = times.skipped.iter().map(|(at, why)| (minutes(at), *why)).collect();
    assert_eq!(skipped.len(), mark::SKIPPED_MAX);
    assert_eq!(skipped.last(), Some(&(10, Skip::Overlap)));
    assert_eq!(times.schedule, "every 1m");
}

#[tokio::test(start_paused = true)]
async fn a_tick_that_cannot_be_stored_before_its_deadline_is_skipped() {
    let fixture = Fixture::with_small_backlog();
    let clock = Clock::following_tokio(START);
    let ctx = fixture.context(clock.clone());
    let (health, stop) = (ctx.health.clone(), ctx.stop.clone());
    let config = || TimerSource { start_deadline: Some(minutes(2)), ..every(minutes(1), Missed::All(9)) };
    let worker = tokio::spawn(run(config(), ctx));
    fixture.store.set_pending(1);
    tokio::time::sleep(minutes(5) + Duration::from_secs(30)).await;
    assert!(health.trouble().unwrap().contains("1 delivery is pending"));
    fixture.store.set_pending(0);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!((fixture.minutes().await, health.trouble()), (vec![4, 5], None));
    stop.cancel();
    worker.await.unwrap();
    // The deadline also limits which missed ticks are sent.
    tokio::time::sleep(minutes(10)).await;
    run_for(config(), fixture.context(clock), Duration::from_secs(1)).await;
    assert_eq!(fixture.minutes().await, [4, 5, 14, 15]);
}

#[tokio::test(start_paused = true)]
async fn jitter_delays_all_ticks_of_a_timer_by_the_same_time() {
    let fixture = Fixture::new();
    let clock = Clock::following_tokio(START);
    let config = || TimerSource { jitter: Some(Duration::from_secs(50)), ..every(minutes(1), Missed::Last) };
    let delay_ms = config().delay_ms("/shop/nightly");
    assert!((1..50_000).contains(&delay_ms), "{delay_ms}");
    run_for(config(), fixture.context(clock.clone()), minutes(4)).await;
    let events = fixture.events().await;
    assert_eq!(fixture.minutes().await, [0, 1, 2, 3]);
    for (stored, minute) in events.iter().zip(0..) {
        let late_ms = stored.accepted_ms - (START + minute * 60_000);
        assert!((delay_ms..delay_ms + 10).contains(&late_ms), "late by {late_ms} ms, expected {delay_ms} ms");
    }
    // The delays of 1,000 timers must spread over the whole jitter.
    let delays: Vec<_> = (0..1_000).map(|n| config().delay_ms(&format!("/shop/timer-{n}"))).collect();
    for part in 0..10 {
        let in_part = delays.iter().filter(|delay| (part * 5_000..(part + 1) * 5_000).contains(*delay)).count();
        assert!((50..200).contains(&in_part), "{in_part} of 1,000 timers in part {part}");
    }
}

/// Measures the memory and the CPU time of 100,000 timers. To run it:
/// `cargo test --release -p evoke-sources --lib many_timers -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement, not a test"]
async fn many_timers_cost_little() {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let cpu_ticks = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let count = 100_000;
    let store = Arc::new(MemoryStore::new(Clock::system()));
    let fixture = Fixture { bus: Bus::new(store.clone(), Router::default(), Limits::default()), store };
    let (clock, before) = (Clock::system(), resident());
    let stop = CancellationToken::new();
    for n in 0..count {
        let uri = format!("/shop/timer-{n}");
        let ctx = Context { uri, stop: stop.clone(), ..fixture.context(clock.clone()) };
        tokio::spawn(run(every(minutes(24 * 60), Missed::Last), ctx));
    }
    // A timer starts by storing its mark. Wait for the mark of the last timer.
    while fixture.bus.marks(&format!("/shop/timer-{}", count - 1)).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (kib, started) = (resident() - before, cpu_ticks());
    tokio::time::sleep(Duration::from_secs(20)).await;
    let percent = (cpu_ticks() - started) as f64 / 20.0;
    println!("{count} timers: {kib} KiB, {:.2} KiB each; {percent:.2} % of a processor", kib as f64 / f64::from(count));
    stop.cancel();
}
