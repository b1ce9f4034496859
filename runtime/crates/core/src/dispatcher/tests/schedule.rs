//! Events that functions publish with `notbefore` count towards the limits of scheduled events.

use super::*;
use crate::bus::{Amount, Origin};

/// Publishes two events that are due weeks later. Their ids contain the delivery and the attempt.
#[allow(clippy::needless_pass_by_value)] // the signature of a runner
fn publishes(call: Call) -> BoxFuture<'static, AttemptResult> {
    let event = |n: u32| {
        let id = format!("{}-{}-{n}", call.delivery, call.attempt);
        let due = r#""notbefore":"2023-12-01T00:00:00Z""#;
        Event::from_json(format!(r#"{{"id":"{id}","source":"/shop/a","type":"later",{due}}}"#).as_bytes(), |_| {})
            .unwrap()
    };
    let published = vec![event(1), event(2)];
    async move { AttemptResult { published, ..Outcome::Done.into() } }.boxed()
}

#[tokio::test(start_paused = true)]
async fn an_attempt_fails_when_there_is_no_room_for_the_events_that_it_schedules() {
    let clock = Clock::following_tokio(START_MS);
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
    store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap();
    let limits = Limits { schedule_max: Amount { deliveries: 8, bytes: 1 << 20 }, ..Limits::default() };
    let bus = Bus::new(store.clone(), Router::default(), limits);
    let fixture = Fixture { dispatcher: Dispatcher::start(store.clone(), bus.clone(), clock, 1), store, bus };
    fixture.dispatcher.set_functions(vec![spec(FUNCTION, 1, publishes)]);
    for n in 0..6 {
        let event = format!(r#"{{"id":"{n}","source":"/s","type":"t"}}"#);
        let events = vec![Event::from_json(event.as_bytes(), |_| {}).unwrap()];
        let target = Target::Function { function: FUNCTION, trigger: "on[0]".into() };
        fixture.bus.accept(Offer { events, target, origin: Origin(1), ..Offer::default() }).await.unwrap();
    }
    let counts = fixture.settled().await;
    // The source may own as much as is left for others.
    assert_eq!((counts.done, counts.dead, fixture.store.schedule_backlog().total().deliveries), (2, 4, 4));
    let letter = fixture.store.dead(DeadFilter::All, DeliveryId(0), 1).await.unwrap().remove(0).unwrap();
    let last = &letter.attempts[letter.attempts.len() - 1];
    assert_eq!(last.outcome, "quota");
    assert!(last.message.as_deref().unwrap().contains("wait for their `notbefore`"), "{last:?}");
}
