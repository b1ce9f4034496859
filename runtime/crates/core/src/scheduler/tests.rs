use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::bus::{Limits, Offer, Refused, Target};
use crate::router::Router;
use evoke_model::clock::rfc3339;
use evoke_model::event::Event;
use evoke_model::{Accepted, Amount, FunctionId, Lineage, NewEvent, Origin};
use evoke_pattern::Pattern;
use evoke_store::memory::MemoryStore;

const START_MS: UnixMs = 1_700_000_000_000;
const HOUR_MS: UnixMs = 3_600_000;

struct Fixture {
    store: Arc<dyn Store>,
    bus: Bus,
    stop: CancellationToken,
    /// The events that got a delivery, with the time of the wall clock, in the order of their delivery.
    delivered: Arc<Mutex<Vec<(String, UnixMs)>>>,
}

impl Fixture {
    async fn new(clock: Clock, limits: Limits) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
        let function = store.register(vec!["shop/a".into()]).await.unwrap()[0];
        let bus = Bus::new(store.clone(), Router::default(), limits).with_clock(clock.clone());
        bus.set_router(router(function));
        let delivered = Arc::<Mutex<Vec<_>>>::default();
        let (seen, now) = (delivered.clone(), clock.clone());
        store.on_commit(Box::new(move |committed| {
            let ids = committed.ready.into_iter().map(|ready| (ready.event.unwrap().event.id.clone(), now.now_ms()));
            seen.lock().unwrap().extend(ids);
        }));
        let stop = CancellationToken::new();
        tokio::spawn(Scheduler::new(store.clone(), bus.clone(), clock).run(stop.clone()));
        Self { store, bus, stop, delivered }
    }

    async fn offer(&self, id: &str, due_ms: UnixMs, origin: Origin) -> Result<Vec<Accepted>, Refused> {
        let json = format!(r#"{{"id":"{id}","source":"/s","type":"order.placed","notbefore":"{}"}}"#, rfc3339(due_ms));
        let event = Event::from_json(json.as_bytes(), |_| {}).unwrap();
        self.bus.accept(Offer { events: vec![event], origin, ..Offer::default() }).await
    }

    fn delivered(&self) -> Vec<(String, UnixMs)> {
        self.delivered.lock().unwrap().clone()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn router(function: FunctionId) -> Router {
    let mut router = Router::default();
    let pattern = Pattern::parse(&serde_json::json!({ "type": ["order.placed"] })).unwrap();
    router.add(function, "on[0]".into(), None, Some(&pattern));
    router
}

#[tokio::test(start_paused = true)]
async fn events_are_delivered_when_they_are_due_in_the_order_of_their_times() {
    let fixture = Fixture::new(Clock::following_tokio(START_MS), Limits::default()).await;
    for (id, after_ms) in [("late", 3 * HOUR_MS), ("soon", 5), ("past", -HOUR_MS), ("next", HOUR_MS)] {
        fixture.offer(id, START_MS + after_ms, Origin::default()).await.unwrap();
    }
    assert_eq!(fixture.delivered(), [("past".to_owned(), START_MS)]);
    assert_eq!(fixture.store.totals().await.unwrap().scheduled, 3);
    tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
    let delivered = fixture.delivered();
    let ids: Vec<_> = delivered.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["past", "soon", "next", "late"]);
    for ((id, at_ms), due_ms) in delivered[1..].iter().zip([5, HOUR_MS, 3 * HOUR_MS]) {
        assert!((0..5).contains(&(at_ms - START_MS - due_ms)), "{id} was delivered at {at_ms}");
    }
    assert_eq!(fixture.store.check().await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_event_with_an_id_that_is_too_long_today_is_delivered_when_it_is_due() {
    let fixture = Fixture::new(Clock::following_tokio(START_MS), Limits::default()).await;
    // An earlier version stored it. The bus refuses such an event now.
    let json = format!(r#"{{"id":"1","source":"/s","type":"order.placed","notbefore":"{}"}}"#, rfc3339(START_MS + 5));
    let event = Event::from_json(json.as_bytes(), |_| {}).unwrap();
    let event = Event { id: "x".repeat(100_000), source: "y".repeat(100_000), ..event };
    let offer = Offer { events: vec![event.clone()], ..Offer::default() };
    assert!(matches!(fixture.bus.accept(offer).await, Err(Refused::Invalid { index: 0, .. })));
    let new = NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries: Vec::new() };
    fixture.store.accept(vec![new], Vec::new()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(fixture.delivered().iter().map(|(id, _)| id.len()).collect::<Vec<_>>(), [100_000]);
}

#[tokio::test(start_paused = true)]
async fn a_due_event_is_routed_with_the_router_of_that_moment() {
    let fixture = Fixture::new(Clock::following_tokio(START_MS), Limits::default()).await;
    let other = fixture.store.register(vec!["shop/b".into()]).await.unwrap()[0];
    fixture.offer("1", START_MS + 1_000, Origin::default()).await.unwrap();
    let mut private = router(other);
    private.add_private_source(Origin::of("/shop/b/on/0"), FunctionId(1), "on[0]".into());
    fixture.bus.set_router(private);
    // When an event of a private source is due, it goes only to the function that owns the source.
    let target = Target::Function { function: FunctionId(1), trigger: "on[0]".into() };
    let json = format!(
        r#"{{"id":"2","source":"/shop/b/on/0","type":"order.placed","notbefore":"{}"}}"#,
        rfc3339(START_MS + 2_000)
    );
    let events = vec![Event::from_json(json.as_bytes(), |_| {}).unwrap()];
    let origin = Origin::of("/shop/b/on/0");
    fixture.bus.accept(Offer { events, target, origin, ..Offer::default() }).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let function = async |seq| fixture.store.deliveries(Seq(seq)).await.unwrap().remove(0).unwrap().function;
    assert_eq!((function(1).await.as_str(), function(2).await.as_str()), ("shop/b", "shop/a"));
    assert_eq!(fixture.store.deliveries(Seq(2)).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_due_event_of_an_http_component_is_routed_and_a_claim_of_another_app_is_not() {
    let fixture = Fixture::new(Clock::following_tokio(START_MS), Limits::default()).await;
    let mut router = router(FunctionId(1));
    router.add_app("shop");
    fixture.bus.set_router(router);
    let uris = ["/shop/web/http-1", "/lab/hook"].map(str::to_owned);
    let origins = fixture.store.register_origins(uris.to_vec()).await.unwrap();
    // The first event is from an HTTP component, which publishes with the source of its function. The producer of the
    // second event chose the same `source` before the app `shop` existed.
    for origin in origins {
        let due = rfc3339(START_MS + 1_000);
        let json = format!(r#"{{"id":"1","source":"/shop/web","type":"order.placed","notbefore":"{due}"}}"#);
        let events = vec![Event::from_json(json.as_bytes(), |_| {}).unwrap()];
        fixture.bus.accept(Offer { events, origin, ..Offer::default() }).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let count = async |seq| fixture.store.deliveries(Seq(seq)).await.unwrap().len();
    assert_eq!((count(1).await, count(2).await), (1, 0));
    let replayed = async |seq| {
        let stored = fixture.store.event(Seq(seq)).await.unwrap().unwrap().unwrap();
        let origin_uri = fixture.store.origin_uri(stored.lineage.origin);
        fixture.bus.router().route_replay(&stored, origin_uri.as_deref()).unwrap().len()
    };
    assert_eq!((replayed(1).await, replayed(2).await), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_jump_of_the_wall_clock_makes_events_due_and_delays_others() {
    let (wall_ms, elapsed_ms) = (Arc::new(AtomicI64::new(START_MS)), Arc::new(AtomicI64::new(0)));
    let fixture = Fixture::new(Clock::jumping(&wall_ms, &elapsed_ms), Limits::default()).await;
    for (id, after_ms) in [("1", HOUR_MS), ("2", 3 * HOUR_MS)] {
        fixture.offer(id, START_MS + after_ms, Origin::default()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(fixture.delivered(), []);
    wall_ms.store(START_MS + 2 * HOUR_MS, Ordering::SeqCst);
    tokio::time::sleep(POLL).await;
    assert_eq!(fixture.delivered(), [("1".to_owned(), START_MS + 2 * HOUR_MS)]);
    // The clock jumps back to 1970 and forward by a year. Each event is delivered once.
    for now_ms in [0, START_MS, START_MS + 365 * 24 * HOUR_MS, START_MS] {
        wall_ms.store(now_ms, Ordering::SeqCst);
        tokio::time::sleep(2 * POLL).await;
    }
    let ids: Vec<_> = fixture.delivered().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_notbefore_too_far_ahead_is_refused() {
    let fixture = Fixture::new(Clock::following_tokio(START_MS), Limits::default()).await;
    let refused = fixture.offer("1", START_MS + 367 * 24 * HOUR_MS, Origin::default()).await.unwrap_err();
    assert!(refused.to_string().contains("more than 366 days ahead; the latest time is 2024-11-14"), "{refused}");
    assert_eq!(fixture.store.totals().await.unwrap().events, 0);
}

#[tokio::test(start_paused = true)]
async fn events_that_are_due_at_once_leave_half_of_the_backlog_to_the_other_sources() {
    let limits = Limits { backlog_max: Amount { deliveries: 10, bytes: 1 << 20 }, ..Limits::default() };
    let fixture = Fixture::new(Clock::following_tokio(START_MS), limits).await;
    let (flood, calm) = (Origin::of("/shop/flood"), Origin::of("/shop/calm"));
    for id in 0..30 {
        fixture.offer(&id.to_string(), START_MS + HOUR_MS, flood).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3601)).await;
    assert_eq!(fixture.store.pending(), 30);
    let refused = fixture.offer("more", START_MS, flood).await.unwrap_err();
    assert!(matches!(refused, Refused::Crowding { .. }), "{refused}");
    for id in ["a", "b", "c"] {
        fixture.offer(id, START_MS, calm).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn one_source_schedules_half_of_the_events_and_leaves_room_for_others() {
    let limits = Limits { schedule_max: Amount { deliveries: 10, bytes: 1 << 20 }, ..Limits::default() };
    let fixture = Fixture::new(Clock::following_tokio(START_MS), limits).await;
    let (flood, calm) = (Origin::of("/shop/flood"), Origin::of("/shop/calm"));
    let mut accepted = 0;
    while fixture.offer(&accepted.to_string(), START_MS + HOUR_MS, flood).await.is_ok() {
        accepted += 1;
    }
    assert_eq!(accepted, 5);
    let refused = fixture.offer("more", START_MS + HOUR_MS, flood).await.unwrap_err();
    assert!(matches!(refused, Refused::ScheduleFull { .. }), "{refused}");
    fixture.offer("calm", START_MS + HOUR_MS, calm).await.unwrap();
    // The limit of the schedule does not apply to events that are already due.
    fixture.offer("now", START_MS, flood).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3601)).await;
    assert_eq!(fixture.delivered().len(), 7);
    fixture.offer("again", START_MS + 2 * HOUR_MS, flood).await.unwrap();
}

#[test]
fn due_events_are_routed_on_a_thread_for_blocking_work() {
    crate::blocking::tests::runtime().block_on(async {
        let fixture = Fixture::new(Clock::following_tokio(START_MS), Limits::default()).await;
        fixture.offer("1", START_MS + HOUR_MS, Origin::default()).await.unwrap();
        crate::blocking::tests::run_all_tasks().await;
        let gate = crate::blocking::tests::Gate::close();
        tokio::time::advance(Duration::from_millis(HOUR_MS as u64 + 1)).await;
        crate::blocking::tests::run_all_tasks().await;
        assert_eq!(fixture.delivered(), []);
        drop(gate);
        while fixture.delivered().is_empty() {
            tokio::task::yield_now().await;
        }
    });
}
