use std::sync::Mutex;

use super::*;
use evoke_store::running::{EXITS_MAX, RunningLog, Slot, UncleanExit, Work};

/// The running deliveries, the order of the starts, and the largest number of other deliveries that ran beside a
/// suspect.
#[derive(Default)]
struct Seen {
    running: Mutex<Vec<(DeliveryId, bool)>>,
    started: Mutex<Vec<i64>>,
    beside_suspect_max: AtomicU32,
}

impl RunningLog for Seen {
    fn start(&self, work: &Work<'_>) -> Option<Slot> {
        let Work::Delivery { id, suspect, .. } = *work else { return None };
        let mut running = self.running.lock().unwrap();
        running.push((id, suspect));
        if running.iter().any(|(_, suspect)| *suspect) {
            self.beside_suspect_max.fetch_max(running.len() as u32 - 1, Ordering::Relaxed);
        }
        self.started.lock().unwrap().push(id.0);
        Some(Slot(u32::try_from(id.0).unwrap()))
    }

    fn end(&self, slot: Slot, _: bool) {
        self.running.lock().unwrap().retain(|(id, _)| id.0 != i64::from(slot.0));
    }
}

/// Starts a dispatcher over a store that records, for each delivery in `exits`, how often the process ended without a
/// clean stop while the delivery ran.
async fn after_exits(offered: u32, exits: &[(i64, u32)]) -> (Fixture, Arc<Seen>) {
    let clock = Clock::following_tokio(START_MS);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
    store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap();
    let bus = Bus::new(store.clone(), Router::default(), Limits::default());
    let seen = Arc::new(Seen::default());
    let before = Dispatcher::start(store.clone(), bus.clone(), clock.clone(), 8);
    let fixture = Fixture { store, bus, dispatcher: before };
    fixture.offer(FUNCTION, 1..=offered).await;
    let mut counted = BTreeMap::new();
    for run in 1..=EXITS_MAX {
        let attempts = exits.iter().filter(|(_, count)| *count >= run).map(|(id, _)| (DeliveryId(*id), 1)).collect();
        let exit = UncleanExit { run: u64::from(run), attempts };
        counted = fixture.store.record_exit(Some(exit)).await.unwrap();
    }
    let Fixture { store, bus, .. } = fixture;
    let current = tokio::runtime::Handle::current();
    let dispatcher = Dispatcher::start_recorded(store.clone(), bus.clone(), clock, 8, seen.clone(), counted, current);
    (Fixture { store, bus, dispatcher }, seen)
}

fn sleeps(milliseconds: u64) -> impl Fn(Call) -> BoxFuture<'static, Outcome> {
    move |_| {
        async move {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            Outcome::Done
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_suspect_runs_alone_and_others_run_together_in_between() {
    let (fixture, seen) = after_exits(40, &[(1, 1), (2, 1), (20, 1)]).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, sleeps(10))]);
    assert_eq!(fixture.settled().await, Counts { done: 40, ..Counts::default() });
    assert_eq!(seen.beside_suspect_max.load(Ordering::Relaxed), 0);
    let started = seen.started.lock().unwrap().clone();
    assert_eq!(started.len(), 40, "{started:?}");
    // After the first suspect, other deliveries run before the next suspect.
    let place = |id| started.iter().position(|started| *started == id).unwrap();
    assert!(place(1) == 0 && place(2) > 1, "{started:?}");
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_ran_at_two_exits_becomes_a_dead_letter_and_does_not_run() {
    let (fixture, seen) = after_exits(3, &[(2, 2), (3, 1)]).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, sleeps(1))]);
    assert_eq!(fixture.settled().await, Counts { done: 2, dead: 1, ..Counts::default() });
    assert!(!seen.started.lock().unwrap().contains(&2));
    let letter = fixture.store.dead(DeadFilter::All, DeliveryId(0), 9).await.unwrap().remove(0).unwrap();
    assert_eq!((letter.id, &*letter.attempts[0].outcome), (DeliveryId(2), "crashed"));
    assert!(letter.cause.as_deref().unwrap().starts_with("crashed: Evoke ended 2 times"), "{letter:?}");

    // After a redrive the delivery runs again, alone.
    fixture.store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!(fixture.settled().await, Counts { done: 3, ..Counts::default() });
    assert_eq!(seen.beside_suspect_max.load(Ordering::Relaxed), 0);
    assert_eq!(fixture.store.record_exit(None).await.unwrap(), BTreeMap::new());
}

#[tokio::test(start_paused = true)]
async fn suspects_that_wait_are_released_at_a_drain_and_by_a_suspended_function() {
    let (fixture, seen) = after_exits(4, &[(1, 1), (2, 1), (3, 1), (4, 1)]).await;
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, sleeps(50))]);
    fixture.dispatcher.set_functions(vec![]);
    // Only a suspect that was already running may have run.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(seen.started.lock().unwrap().len() <= 1);
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 8, sleeps(50))]);
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(fixture.dispatcher.drain(Duration::from_secs(1)).await, 0);
    let ran = seen.started.lock().unwrap().len() as u64;
    let totals = fixture.store.totals().await.unwrap();
    let counts = &totals.functions["shop/a"];
    assert_eq!((counts.done, counts.ready), (ran, 4 - ran));
}
