use super::*;
use evoke_model::clock::Clock;
use evoke_model::event::Data;
use evoke_model::state::Transaction;
use evoke_model::{Actor, AttemptRecord, Completion, DeadFilter, DeliveryId, FunctionId, NewDelivery, Seq, Verdict};
use evoke_store::Store;
use evoke_store::memory::MemoryStore;

const FUNCTION: FunctionId = FunctionId(1);

struct Fixture {
    store: Arc<dyn Store>,
    bus: Bus,
    offered: std::cell::Cell<u32>,
}

impl Fixture {
    fn new(deliveries: u64, bytes: u64) -> Self {
        Self::with(Limits { backlog_max: Amount { deliveries, bytes }, ..Limits::default() })
    }

    fn with(limits: Limits) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::fixed(0)));
        let bus = Bus::new(store.clone(), Router::default(), limits);
        Self { store, bus, offered: std::cell::Cell::new(0) }
    }

    /// Offers one event with one delivery.
    async fn offer(&self, source: &str) -> Result<Vec<Accepted>, Refused> {
        let n = self.offered.replace(self.offered.get() + 1);
        let event = Event { id: n.to_string(), source: "/s".into(), type_: "t".into(), ..Event::default() };
        let target = Target::Function { function: FUNCTION, trigger: "on[0]".into() };
        let origin = Origin::of(source);
        self.bus.accept(Offer { events: vec![event], target, origin, ..Offer::default() }).await
    }

    async fn done(&self, delivery: DeliveryId, publishes: Vec<NewEvent>) {
        self.end(delivery, Verdict::Done, publishes).await;
    }

    async fn end(&self, delivery: DeliveryId, verdict: Verdict, publishes: Vec<NewEvent>) {
        let record = AttemptRecord { attempt: 1, started_ms: 0, duration_us: 0, outcome: "done".into(), message: None };
        let state = Transaction::default();
        let (root, origin) = (Seq(1), Origin::default());
        let completion = Completion {
            delivery,
            function: FUNCTION,
            root,
            origin,
            record,
            verdict,
            publishes,
            state,
            recording: None,
        };
        self.store.complete(Arc::new(completion)).await.unwrap();
    }
}

#[tokio::test]
async fn a_source_owns_at_most_as_much_as_is_free_so_that_other_sources_find_room() {
    let fixture = Fixture::new(10, 1_000_000);
    let fill = async |source: &str| {
        let mut accepted = 0;
        loop {
            match fixture.offer(source).await {
                Ok(_) => accepted += 1,
                Err(refused) => return (accepted, matches!(refused, Refused::Crowding { .. })),
            }
        }
    };
    assert_eq!(fill("/shop/flood").await, (5, true));
    assert_eq!(fill("/shop/other").await, (3, true));
    assert_eq!(fill("/shop/third").await, (1, true));
    // The last free delivery is available to any source; then the backlog is full.
    assert_eq!(fill("/shop/fourth").await, (1, false));
    assert_eq!(fill("/shop/flood").await, (0, false));
    fixture.done(DeliveryId(1), vec![]).await;
    assert_eq!(fill("/shop/flood").await, (0, true));
    assert_eq!(fill("/shop/fifth").await, (1, false));
}

/// Returns `count` events that a delivery of the flooding source publishes. Each event has one delivery.
fn published(count: u32) -> Vec<NewEvent> {
    let published = |id: u32| NewEvent {
        event: Arc::new(Event { id: id.to_string(), source: "/f".into(), type_: "t".into(), ..Event::default() }),
        lineage: Lineage { cause: Some(DeliveryId(1)), root: Some(Seq(1)), hops: 1, origin: Origin::of("/shop/flood") },
        deliveries: vec![NewDelivery { function: FUNCTION, trigger: "on[0]".into(), order_key: None }],
    };
    (0..count).map(published).collect()
}

#[tokio::test]
async fn published_events_count_for_the_source_that_started_their_chain() {
    let fixture = Fixture::new(10, 1_000_000);
    fixture.offer("/shop/flood").await.unwrap();
    fixture.done(DeliveryId(1), published(5)).await;
    assert!(matches!(fixture.offer("/shop/flood").await, Err(Refused::Crowding { .. })));
    fixture.offer("/shop/other").await.unwrap();
}

#[tokio::test]
async fn a_storm_larger_than_the_backlog_leaves_half_of_it_to_the_other_sources() {
    let fixture = Fixture::new(10, 1_000_000);
    fixture.offer("/shop/flood").await.unwrap();
    fixture.done(DeliveryId(1), published(50)).await;
    assert_eq!(fixture.store.backlog().published().deliveries, 50);
    assert!(matches!(fixture.offer("/shop/flood").await, Err(Refused::Crowding { .. })));
    assert!(matches!(fixture.bus.check_room(Origin::default()), Err(Refused::Overloaded { .. })));
    for source in ["/shop/a", "/shop/a", "/shop/a", "/shop/b", "/shop/c"] {
        fixture.offer(source).await.unwrap();
    }
    assert!(matches!(fixture.offer("/shop/d").await, Err(Refused::Overloaded { .. })));
    for delivery in 2..=51 {
        fixture.done(DeliveryId(delivery), vec![]).await;
    }
    assert_eq!(fixture.store.backlog().published().deliveries, 0);
    fixture.offer("/shop/flood").await.unwrap();
}

#[tokio::test]
async fn a_source_with_too_many_dead_letters_is_refused_until_one_is_purged_and_others_are_not() {
    let size = Event { id: "0".into(), source: "/s".into(), type_: "t".into(), ..Event::default() }.size() as u64;
    for dead_max in [Amount { deliveries: 2, bytes: u64::MAX }, Amount { deliveries: u64::MAX, bytes: 2 * size }] {
        let fixture = Fixture::with(Limits { dead_max, ..Limits::default() });
        for delivery in 1..=2 {
            fixture.offer("/shop/flood").await.unwrap();
            fixture.end(DeliveryId(delivery), Verdict::Dead("reject: why".into()), vec![]).await;
        }
        let refused = fixture.offer("/shop/flood").await.unwrap_err();
        assert!(matches!(refused, Refused::DeadLetters { .. }), "{refused}");
        assert!(refused.to_string().starts_with("2 dead letters came of events of this source, with"), "{refused}");
        fixture.offer("/shop/calm").await.unwrap();
        fixture.offer("").await.unwrap();
        fixture.store.purge(&Actor::Runtime, DeadFilter::Delivery(DeliveryId(1))).await.unwrap();
        fixture.offer("/shop/flood").await.unwrap();
    }
}

#[tokio::test]
async fn bytes_are_limited_like_deliveries() {
    let size = Event { id: "0".into(), source: "/s".into(), type_: "t".into(), ..Event::default() }.size() as u64;
    let fixture = Fixture::new(1_000, 6 * size);
    for _ in 0..3 {
        fixture.offer("/shop/flood").await.unwrap();
    }
    let Err(refused) = fixture.offer("/shop/flood").await else { panic!("the offer was accepted") };
    assert!(refused.to_string().contains("bytes"), "{refused}");
    fixture.offer("/shop/other").await.unwrap();
}

#[tokio::test]
async fn an_offer_with_only_marks_is_accepted_when_the_backlog_is_full() {
    let fixture = Fixture::new(1, 1);
    fixture.offer("/s").await.unwrap();
    let mark = Mark { scope: "/s".into(), key: "k".into(), value: None };
    assert_eq!(fixture.bus.accept(Offer { marks: vec![mark], ..Offer::default() }).await.unwrap(), vec![]);
}

#[test]
fn large_events_are_matched_on_a_thread_for_blocking_work() {
    crate::blocking::tests::runtime().block_on(async {
        let fixture = Fixture::new(10, 10_000_000);
        let offer = |sizes: &[usize]| {
            let event = |(n, size): (usize, &usize)| Event {
                id: format!("{n} of {sizes:?}"),
                source: "/s".into(),
                type_: "t".into(),
                data: Data::Text("x".repeat(*size)),
                ..Event::default()
            };
            let events = sizes.iter().enumerate().map(event).collect();
            let bus = fixture.bus.clone();
            tokio::spawn(async move { bus.accept(Offer { events, ..Offer::default() }).await })
        };
        let gate = crate::blocking::tests::Gate::close();
        // A batch of small events is as large as one large event.
        let (large, batch, small) = (offer(&[100_000]), offer(&[1_000; 100]), offer(&[1_000; 10]));
        crate::blocking::tests::run_all_tasks().await;
        assert_eq!([&large, &batch, &small].map(|offer| offer.is_finished()), [false, false, true]);
        drop(gate);
        assert_eq!(large.await.unwrap().unwrap().len(), 1);
        assert_eq!(batch.await.unwrap().unwrap().len(), 100);
    });
}

#[tokio::test]
async fn an_invalid_event_in_any_part_of_a_large_batch_is_named_by_its_position_in_the_batch() {
    let fixture = Fixture::new(1_000, 10_000_000);
    for invalid in [0, 70, 99] {
        let event = |n: usize| {
            // Only the matching finds out that JSON data is not valid.
            let json = if n == invalid { "[".repeat(1_000) } else { format!("[{}1]", "1,".repeat(500)) };
            let (id, data) = (n.to_string(), Data::Json(json.into()));
            Event { id, source: "/s".into(), type_: "t".into(), data, ..Event::default() }
        };
        let offer = Offer { events: (0..100).map(event).collect(), ..Offer::default() };
        let refused = fixture.bus.accept(offer).await.unwrap_err();
        assert!(matches!(refused, Refused::Invalid { index, .. } if index == invalid), "{invalid}: {refused}");
    }
    assert_eq!(fixture.store.newest().borrow().0, 0, "nothing of the batches is stored");
}
