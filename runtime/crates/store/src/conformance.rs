//! The conformance suite of stores: the macro [`crate::conformance`] defines one test of a backend for each case.
//!
//! ```ignore
//! evoke_store::conformance!(|clock, dedup_window| (MyStore::open(clock, dedup_window), ()));
//! ```
//! The second value of the pair, such as the store's temporary folder, lives until the end of the case.
//!
//! For a backend that can be opened twice, pass a second closure that returns two handles to one store:
//!
//! ```ignore
//! evoke_store::conformance!(open, |clock, dedup_window| (first_handle, second_handle, kept));
//! ```
//!
//! For a backend whose rows a test can damage, pass a closure that damages a given row:
//!
//! ```ignore
//! evoke_store::conformance!(open, damage = |kept, row| …);
//! ```

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod attempts;
mod cancel;
mod cases;
mod chain_state;
mod chains;
mod damage;
mod exits;
mod loads;
mod operator;
mod origins;
mod owners;
mod recordings;
mod replay;
mod schedule;
mod state;
mod take_over;
mod time;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use foldhash::HashSet;

use evoke_model::clock::UnixMs;
use evoke_model::event::{Data, Event};
use evoke_model::state::Transaction;
use evoke_model::*;

pub use self::attempts::*;
pub use self::cancel::*;
pub use self::chain_state::*;
pub use self::chains::*;
pub use self::damage::*;
pub use self::exits::*;
pub use self::loads::*;
pub use self::operator::*;
pub use self::origins::*;
pub use self::owners::*;
pub use self::recordings::*;
pub use self::replay::*;
pub use self::schedule::*;
pub use self::state::*;
pub use self::take_over::*;
pub use self::time::*;
use super::*;

/// The time of the store's clock when a case begins.
pub const NOW_MS: UnixMs = 1_700_000_000_000;

fn new_event(id: &str, deliveries: Vec<NewDelivery>) -> NewEvent {
    let event = Event {
        id: id.into(),
        source: "/shop/checkout".into(),
        type_: "order.placed".into(),
        subject: Some("s".into()),
        time: Some("2026-01-31T12:00:00Z".into()),
        datacontenttype: None,
        dataschema: None,
        extensions: BTreeMap::from([("traceparent".to_owned(), "00-1-2-01".to_owned())]),
        data: Data::Json(Bytes::from_static(br#"{"total": 1.10}"#)),
        principal: None,
    };
    NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries }
}

fn to(function: FunctionId) -> NewDelivery {
    NewDelivery { function, trigger: "on[0]".into(), order_key: None }
}

fn keyed(function: FunctionId, key: &str) -> NewDelivery {
    NewDelivery { order_key: Some(key.into()), ..to(function) }
}

fn ids<const COUNT: usize>(numbers: [i64; COUNT]) -> Vec<DeliveryId> {
    numbers.map(DeliveryId).to_vec()
}

fn seqs<const COUNT: usize>(numbers: [i64; COUNT]) -> Vec<Seq> {
    numbers.map(Seq).to_vec()
}

/// Returns the completion of an attempt at the delivery with this number.
fn ended(number: i64, attempt: u32, outcome: &'static str, verdict: Verdict) -> Arc<Completion> {
    let (delivery, function) = (DeliveryId(number), FunctionId(1));
    let message = (outcome != "done").then(|| "why".to_owned());
    let record = AttemptRecord { attempt, started_ms: NOW_MS, duration_us: 12, outcome: outcome.into(), message };
    let (root, origin, publishes, state) = (Seq(1), Origin::default(), Vec::new(), Transaction::default());
    Arc::new(Completion { delivery, function, root, origin, record, verdict, publishes, state, recording: None })
}

fn done(number: i64, attempt: u32) -> Arc<Completion> {
    ended(number, attempt, "done", Verdict::Done)
}

fn dead(number: i64, attempt: u32) -> Arc<Completion> {
    ended(number, attempt, "reject", Verdict::Dead("reject: why".into()))
}

/// Collects the ids of deliveries that become ready, in the order in which the sink receives them.
fn watch_ready(store: &dyn Store) -> Arc<Mutex<Vec<DeliveryId>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    store.on_commit(Box::new(move |commit| sink.lock().unwrap().extend(commit.ready.iter().map(|d| d.id))));
    seen
}

async fn ready_ids(store: &dyn Store, function: FunctionId) -> Vec<DeliveryId> {
    store.claim(function, Stream::Live, DeliveryId(0), LoadLimit::of(100)).await.unwrap().iter().map(|d| d.id).collect()
}

async fn state_of(store: &dyn Store, number: i64) -> DeliveryState {
    store.delivery(DeliveryId(number)).await.unwrap().unwrap().unwrap().state
}

pub async fn functions_keep_their_ids(store: &dyn Store) {
    let ids = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap();
    assert_ne!(ids[0], ids[1]);
    assert_eq!(store.register(vec!["shop/b".into(), "shop/a".into()]).await.unwrap(), vec![ids[1], ids[0]]);
}

pub async fn accepted_events_and_deliveries_read_back_unchanged(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let new = new_event("1", vec![to(f)]);
    assert_eq!(store.accept(vec![new.clone()], vec![]).await.unwrap(), vec![Accepted::New(Seq(1))]);
    let stored = store.event(Seq(1)).await.unwrap().unwrap().unwrap();
    assert_eq!((stored.event, stored.accepted_ms), (new.event, NOW_MS));
    let delivery = store.deliveries(Seq(1)).await.unwrap().remove(0).unwrap();
    assert_eq!((delivery.function.as_str(), delivery.state), ("shop/a", DeliveryState::Ready));
    assert_eq!(store.find("1".into()).await.unwrap(), seqs([1]));
    assert_eq!(*store.newest().borrow(), Seq(1));
    assert!(store.event(Seq(2)).await.unwrap().is_none());
}

pub async fn a_repeated_source_and_id_is_a_duplicate_without_deliveries(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let offer = || vec![new_event("1", vec![to(f)]), new_event("2", vec![to(f)]), new_event("1", vec![to(f)])];
    let first = store.accept(offer(), vec![]).await.unwrap();
    assert_eq!(first, vec![Accepted::New(Seq(1)), Accepted::New(Seq(2)), Accepted::Duplicate(Seq(1))]);
    let second = store.accept(offer(), vec![]).await.unwrap();
    assert_eq!(second, vec![Accepted::Duplicate(Seq(1)), Accepted::Duplicate(Seq(2)), Accepted::Duplicate(Seq(1))]);
    assert_eq!(store.totals().await.unwrap().owed, 2);
    // A duplicate does not use up a position.
    assert_eq!(store.accept(vec![new_event("3", vec![])], vec![]).await.unwrap(), vec![Accepted::New(Seq(3))]);
}

pub async fn published_events_with_their_own_id_are_deduplicated(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(f), to(f)])], vec![]).await.unwrap();
    for delivery in [1, 2] {
        let lineage = Lineage { cause: Some(DeliveryId(delivery)), root: Some(Seq(1)), hops: 1, ..Lineage::default() };
        let generated = format!("{}-{delivery}-0", store.instance());
        let publishes = vec![
            NewEvent { lineage, ..new_event("own", vec![to(f)]) },
            NewEvent { lineage, ..new_event(&generated, vec![]) },
        ];
        store.complete(Arc::new(Completion { publishes, ..Arc::unwrap_or_clone(done(delivery, 1)) })).await.unwrap();
    }
    assert_eq!(store.find("own".into()).await.unwrap(), seqs([2]));
    assert_eq!((store.totals().await.unwrap().events, store.pending()), (4, 1));
    // An event from outside is not a duplicate of a published event with the same source and id. When the event from
    // outside arrives a second time, it is a duplicate of the first event from outside.
    let forged = || vec![new_event(&format!("{}-2-0", store.instance()), vec![]), new_event("own", vec![])];
    assert_eq!(store.accept(forged(), vec![]).await.unwrap(), vec![Accepted::New(Seq(5)), Accepted::New(Seq(6))]);
    assert_eq!(
        store.accept(forged(), vec![]).await.unwrap(),
        vec![Accepted::Duplicate(Seq(5)), Accepted::Duplicate(Seq(6))]
    );
}

pub async fn marks_commit_with_their_events(store: &dyn Store) {
    let mark = |value: Option<&[u8]>| Mark { scope: "/s".into(), key: "k".into(), value: value.map(Into::into) };
    store.accept(vec![new_event("1", vec![])], vec![mark(Some(b"1"))]).await.unwrap();
    store.accept(vec![], vec![mark(Some(b"2"))]).await.unwrap();
    assert_eq!(store.marks("/s".into()).await.unwrap(), BTreeMap::from([("k".to_owned(), b"2".to_vec())]));
    assert!(store.marks("/other".into()).await.unwrap().is_empty());
    store.accept(vec![], vec![mark(None)]).await.unwrap();
    assert!(store.marks("/s".into()).await.unwrap().is_empty());
}

pub async fn deliveries_are_announced_in_accept_order(store: &dyn Store) {
    let functions = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap();
    let seen = watch_ready(store);
    store
        .accept(
            vec![new_event("1", vec![to(functions[0]), to(functions[1])]), new_event("2", vec![to(functions[0])])],
            vec![],
        )
        .await
        .unwrap();
    assert_eq!(*seen.lock().unwrap(), ids([1, 2, 3]));
    assert_eq!(ready_ids(store, functions[0]).await, ids([1, 3]));
    assert_eq!(
        store.claim(functions[0], Stream::Live, DeliveryId(0), LoadLimit::of(1)).await.unwrap()[0].id,
        DeliveryId(1)
    );
    assert_eq!(
        store.claim(functions[0], Stream::Live, DeliveryId(1), LoadLimit::of(9)).await.unwrap()[0].id,
        DeliveryId(3)
    );
}

pub async fn the_sink_receives_settled_completions_with_deliveries_they_made_ready(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let (sender, mut commits) = tokio::sync::mpsc::unbounded_channel();
    store.on_commit(Box::new(move |commit| drop(sender.send(commit))));
    store.accept(vec![new_event("1", vec![keyed(f, "k")]), new_event("2", vec![keyed(f, "k")])], vec![]).await.unwrap();
    assert_eq!(commits.recv().await.unwrap().ready[0].id, DeliveryId(1));
    store.settle(done(1, 1)).await.unwrap();
    let commit = commits.recv().await.unwrap();
    let (completion, result) = &commit.settled[0];
    assert_eq!((completion.delivery, result.is_ok(), commit.ready[0].id), (DeliveryId(1), true, DeliveryId(2)));
    assert_eq!(state_of(store, 1).await, DeliveryState::Done);
}

pub async fn an_outcome_commits_with_its_published_events(store: &dyn Store) {
    let functions = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap();
    let seen = watch_ready(store);
    store.accept(vec![new_event("1", vec![to(functions[0])])], vec![]).await.unwrap();
    let mut published = new_event("x-1-0", vec![to(functions[1])]);
    published.lineage = Lineage { cause: Some(DeliveryId(1)), root: Some(Seq(1)), hops: 1, ..Lineage::default() };
    let completion = Arc::new(Completion { publishes: vec![published], ..Arc::unwrap_or_clone(done(1, 1)) });
    assert_eq!(store.complete(completion.clone()).await.unwrap(), Completed::Committed);
    assert_eq!(store.complete(completion).await.unwrap(), Completed::Superseded);
    assert_eq!(*seen.lock().unwrap(), ids([1, 2]));
    assert_eq!(state_of(store, 1).await, DeliveryState::Done);
    let caused = store.published(DeliveryId(1)).await.unwrap();
    assert_eq!(caused.len(), 1);
    assert_eq!(
        caused[0].as_ref().unwrap().lineage,
        Lineage { cause: Some(DeliveryId(1)), root: Some(Seq(1)), hops: 1, ..Lineage::default() }
    );
    let totals = store.totals().await.unwrap();
    assert_eq!((totals.events, totals.owed), (2, 2));
    assert_eq!(store.delivery(DeliveryId(1)).await.unwrap().unwrap().unwrap().attempts.len(), 1);
    assert_eq!(store.pending(), 1);
}

pub async fn a_failure_commits_with_its_runtime_events(store: &dyn Store) {
    let functions = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap();
    let seen = watch_ready(store);
    store.accept(vec![new_event("1", vec![keyed(functions[0], "k"), keyed(functions[0], "k")])], vec![]).await.unwrap();
    for (attempt, failed) in [(1, ended(1, 1, "retry", Verdict::RetryAt(NOW_MS))), (2, dead(1, 2))] {
        let mut reported = new_event(&format!("reported-{attempt}"), vec![to(functions[1])]);
        reported.event = Arc::new(Event { source: "/evoke".into(), ..(*reported.event).clone() });
        reported.lineage = Lineage { cause: Some(DeliveryId(1)), root: Some(Seq(1)), hops: 0, ..Lineage::default() };
        let completion = Arc::new(Completion { publishes: vec![reported], ..Arc::unwrap_or_clone(failed) });
        store.complete(completion).await.unwrap();
    }
    assert_eq!((state_of(store, 1).await, state_of(store, 2).await), (DeliveryState::Dead, DeliveryState::Blocked));
    assert_eq!(*seen.lock().unwrap(), ids([1, 3, 4]));
    let reported = store.published(DeliveryId(1)).await.unwrap();
    assert_eq!(
        reported.iter().map(|event| event.as_ref().unwrap().event.id.as_str()).collect::<Vec<_>>(),
        ["reported-1", "reported-2"]
    );
    // Completing a finished delivery again changes nothing and stores no more runtime events.
    let again = Completion { publishes: vec![new_event("reported-3", vec![])], ..Arc::unwrap_or_clone(dead(1, 2)) };
    assert_eq!(store.complete(Arc::new(again)).await.unwrap(), Completed::Superseded);
    assert_eq!(store.totals().await.unwrap().events, 3);
}

pub async fn the_backlog_counts_pending_deliveries_by_origin(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let (ours, theirs) = (Origin::of("/shop/checkout"), Origin::of("/shop/inbox"));
    let from = |origin: Origin, new: NewEvent| NewEvent { lineage: Lineage { origin, ..new.lineage }, ..new };
    let size = new_event("1", vec![]).event.size() as u64;
    let amount = |deliveries: u64| Amount { deliveries, bytes: deliveries * size };
    let events = vec![
        from(ours, new_event("1", vec![to(f), keyed(f, "k"), keyed(f, "k")])),
        from(theirs, new_event("2", vec![to(f)])),
    ];
    store.accept(events, vec![]).await.unwrap();
    let backlog = store.backlog();
    assert_eq!((backlog.total(), backlog.of(ours), backlog.of(theirs)), (amount(4), amount(3), amount(1)));
    assert_eq!(store.event(Seq(1)).await.unwrap().unwrap().unwrap().lineage.origin, ours);
    store.complete(ended(1, 1, "retry", Verdict::RetryAt(NOW_MS))).await.unwrap();
    assert_eq!((backlog.total(), backlog.ended()), (amount(4), 0));
    store.complete(dead(1, 2)).await.unwrap();
    store.complete(done(2, 1)).await.unwrap();
    store.complete(done(4, 1)).await.unwrap();
    assert_eq!((backlog.total(), backlog.of(ours), backlog.of(theirs)), (amount(1), amount(1), amount(0)));
    assert_eq!(backlog.ended(), 3);
    store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!(backlog.of(ours), amount(2));
}

pub async fn a_retry_is_due_at_its_time(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(f)]), new_event("2", vec![to(f)])], vec![]).await.unwrap();
    store.complete(ended(1, 1, "retry", Verdict::RetryAt(NOW_MS + 50))).await.unwrap();
    store.complete(ended(2, 1, "retry", Verdict::RetryAt(NOW_MS + 90))).await.unwrap();
    assert_eq!(ready_ids(store, f).await, Vec::<DeliveryId>::new());
    let (due, next) = store.due(f, Stream::Live, NOW_MS + 49, HashSet::default(), LoadLimit::of(10)).await.unwrap();
    assert_eq!((due.len(), next), (0, Some(NOW_MS + 50)));
    let (due, next) = store.due(f, Stream::Live, NOW_MS + 50, HashSet::default(), LoadLimit::of(10)).await.unwrap();
    assert_eq!((due[0].id, due[0].attempts, next), (DeliveryId(1), 1, Some(NOW_MS + 90)));
    let (due, next) = store.due(f, Stream::Live, NOW_MS + 90, HashSet::default(), LoadLimit::of(1)).await.unwrap();
    assert_eq!((due.len(), next), (1, Some(NOW_MS + 90)));
    store.complete(done(1, 2)).await.unwrap();
    let record = store.delivery(DeliveryId(1)).await.unwrap().unwrap().unwrap();
    let outcomes: Vec<_> = record.attempts.iter().map(|a| (a.attempt, &*a.outcome)).collect();
    assert_eq!(outcomes, vec![(1, "retry"), (2, "done")]);
}

pub async fn a_dead_letter_keeps_its_cause_and_can_be_redriven_or_purged(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept(vec![new_event("1", vec![to(f)]), new_event("2", vec![to(f)])], vec![]).await.unwrap();
    store.complete(dead(1, 1)).await.unwrap();
    store.complete(dead(2, 1)).await.unwrap();
    let letters = store.dead(DeadFilter::Function("shop/a".into()), DeliveryId(0), 10).await.unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[0].as_ref().unwrap().cause.as_deref(), Some("reject: why"));
    for which in [DeadFilter::All, DeadFilter::Function("shop/a".into()), DeadFilter::Delivery(DeliveryId(2))] {
        let later: Vec<_> = store.dead(which.clone(), DeliveryId(1), 10).await.unwrap();
        assert_eq!(
            later.iter().map(|letter| letter.as_ref().unwrap().id).collect::<Vec<_>>(),
            [DeliveryId(2)],
            "{which:?}"
        );
        assert!(store.dead(which, DeliveryId(2), 10).await.unwrap().is_empty());
    }
    assert!(store.dead(DeadFilter::Function("shop/b".into()), DeliveryId(0), 10).await.unwrap().is_empty());

    let seen = watch_ready(store);
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::Delivery(DeliveryId(1))).await.unwrap(), 1);
    assert_eq!(*seen.lock().unwrap(), ids([1]));
    let again = store.claim(f, Stream::Live, DeliveryId(0), LoadLimit::of(10)).await.unwrap();
    assert_eq!((again[0].attempts, again[0].attempts_forgiven), (1, 1));
    assert_eq!(store.purge(&Actor::Runtime, DeadFilter::All).await.unwrap(), 1);
    assert_eq!(state_of(store, 2).await, DeliveryState::Purged);
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(), 0);
    store.complete(done(1, 2)).await.unwrap();
    let report = store.check().await.unwrap();
    assert_eq!((report.totals.owed, report.problems), (2, Vec::new()));
}

pub async fn dead_letters_are_counted_by_source_until_they_are_redriven_or_purged(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let (flood, calm) = (Origin::of("/shop/flood"), Origin::of("/shop/calm"));
    let entered = |id: &str, origin| {
        let lineage = Lineage { origin, ..Lineage::default() };
        NewEvent { lineage, ..new_event(id, vec![to(f)]) }
    };
    let events = vec![entered("1", flood), entered("2", flood), entered("3", calm), entered("4", flood)];
    let size = events[0].event.size() as u64;
    store.accept(events, vec![]).await.unwrap();
    let numbers = || {
        let dead = store.dead_letters();
        (dead.total().deliveries, dead.of(flood).deliveries, dead.of(calm).deliveries)
    };
    assert_eq!(numbers(), (0, 0, 0));
    for id in 1..=3 {
        store.complete(dead(id, 1)).await.unwrap();
    }
    store.complete(ended(4, 1, "retry", Verdict::RetryAt(NOW_MS + 50))).await.unwrap();
    assert_eq!(numbers(), (3, 2, 1));
    assert_eq!(store.dead_letters().of(flood), Amount { deliveries: 2, bytes: 2 * size });
    store.cancel(&Actor::Runtime, PendingFilter::All, "cancelled: why").await.unwrap();
    assert_eq!(numbers(), (4, 3, 1));
    store.redrive(&Actor::Runtime, DeadFilter::Delivery(DeliveryId(1))).await.unwrap();
    assert_eq!(numbers(), (3, 2, 1));
    store.replace_dead(&Actor::Runtime, DeliveryId(2), entered("5", calm)).await.unwrap().unwrap();
    assert_eq!(numbers(), (2, 1, 1));
    store.purge(&Actor::Runtime, DeadFilter::All).await.unwrap();
    assert_eq!((numbers(), store.dead_letters().total()), ((0, 0, 0), Amount::default()));
}

pub async fn many_dead_letters_are_redriven_by_one_call(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    store.accept((0..600).map(|n| new_event(&n.to_string(), vec![to(f)])).collect(), vec![]).await.unwrap();
    for id in 1..=600 {
        store.complete(dead(id, 1)).await.unwrap();
    }
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(), 600);
    assert_eq!(store.totals().await.unwrap().functions["shop/a"].ready, 600);
    assert_eq!(store.pending(), 600);
}

pub async fn deliveries_of_one_key_run_in_order_and_other_keys_in_parallel(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let seen = watch_ready(store);
    let events = vec![
        new_event("1", vec![keyed(f, "ada")]),
        new_event("2", vec![keyed(f, "ada")]),
        new_event("3", vec![keyed(f, "bob")]),
    ];
    store.accept(events, vec![]).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([1, 3]));
    // A retrying delivery stays the first of its key.
    store.complete(ended(1, 1, "retry", Verdict::RetryAt(NOW_MS + 50))).await.unwrap();
    assert_eq!(state_of(store, 2).await, DeliveryState::Blocked);
    store.complete(done(1, 2)).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([2, 3]));
    assert_eq!(*seen.lock().unwrap(), ids([1, 3, 2]));
    store.complete(done(2, 1)).await.unwrap();
    store.accept(vec![new_event("4", vec![keyed(f, "ada")])], vec![]).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([3, 4]));
}

pub async fn a_dead_letter_blocks_only_its_own_key_until_redriven_or_purged(store: &dyn Store) {
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let event = |id: &str, key: &str| new_event(id, vec![keyed(f, key)]);
    store
        .accept(vec![event("1", "ada"), event("2", "ada"), event("3", "bob"), event("4", "bob")], vec![])
        .await
        .unwrap();
    store.complete(dead(1, 1)).await.unwrap();
    store.complete(done(3, 1)).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([4]));
    assert_eq!(state_of(store, 2).await, DeliveryState::Blocked);
    store.redrive(&Actor::Runtime, DeadFilter::Delivery(DeliveryId(1))).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([1, 4]));
    store.complete(dead(1, 2)).await.unwrap();
    store.purge(&Actor::Runtime, DeadFilter::Delivery(DeliveryId(1))).await.unwrap();
    assert_eq!(ready_ids(store, f).await, ids([2, 4]));
    assert!(store.check().await.unwrap().problems.is_empty());
}

pub async fn events_are_listed_by_type_source_and_position(store: &dyn Store) {
    let mut other = new_event("2", vec![]);
    Arc::make_mut(&mut other.event).type_ = "payment.taken".into();
    store.accept(vec![new_event("1", vec![]), other, new_event("3", vec![])], vec![]).await.unwrap();
    let list = async |filter: EventFilter| -> Vec<Seq> {
        store.events(filter).await.unwrap().iter().map(DamagedEvent::seq_of).collect()
    };
    let filter = EventFilter { limit: 10, ..EventFilter::default() };
    assert_eq!(list(filter.clone()).await, seqs([1, 2, 3]));
    assert_eq!(list(EventFilter { limit: 2, ..filter.clone() }).await, seqs([2, 3]));
    assert_eq!(list(EventFilter { limit: 1, after: Some(Seq(1)), ..filter.clone() }).await, seqs([2]));
    assert_eq!(list(EventFilter { limit: 1, before: Some(Seq(3)), ..filter.clone() }).await, seqs([2]));
    assert_eq!(list(EventFilter { type_: Some("order.*".into()), ..filter.clone() }).await, seqs([1, 3]));
    assert_eq!(list(EventFilter { type_: Some("payment.taken".into()), ..filter.clone() }).await, seqs([2]));
    // A page ends with the event with which it reaches its size limit.
    let size = new_event("1", vec![]).event.size();
    let from_start = EventFilter { after: Some(Seq(0)), ..filter.clone() };
    assert_eq!(list(EventFilter { bytes_max: Some(1), ..from_start.clone() }).await, seqs([1]));
    assert_eq!(list(EventFilter { bytes_max: Some(size + 1), ..from_start }).await, seqs([1, 2]));
    assert_eq!(list(EventFilter { bytes_max: Some(1), ..filter.clone() }).await, seqs([3]));
    assert_eq!(list(EventFilter { source: Some("/nowhere".into()), ..filter }).await, Vec::<Seq>::new());
}
