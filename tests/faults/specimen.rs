//! A small store with something of everything in it, and all that it says, item by item: what is read of a damaged copy
//! is compared with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evoke::clock::Clock;
use evoke::event::{Data, Event};
use evoke::state::{Change, Touched, Transaction};
use evoke::store::sqlite::SqliteStore;
use evoke::store::{
    AttemptRecord, Completion, DeadFilter, DeliveryId, EventFilter, FunctionId, Lineage, Mark, NewDelivery, NewEvent,
    NewReplay, Origin, Result, Retention, Step, Store, StoreError, StoredEvent, Stream, Verdict,
};

/// Far ahead, so that every retry is due.
const ONE_DAY_SOON: i64 = 4_000_000_000_000;
/// More than anything here ever has.
const ALL: usize = 10_000;

pub(super) fn open(folder: &Path) -> Result<SqliteStore> {
    SqliteStore::open(folder, Clock::system())
}

/// An event whose data says which it is.
pub(super) fn event(id: &str, data: Data) -> Event {
    let datacontenttype = match &data {
        Data::Text(_) => Some("text/plain".into()),
        Data::Binary(_) => Some("application/octet-stream".into()),
        Data::Json(_) | Data::None => None,
    };
    Event { id: id.into(), source: "/lab/in".into(), type_: "lab.in".into(), datacontenttype, data, ..Event::default() }
}

pub(super) fn new(event: Event, to: Vec<NewDelivery>) -> NewEvent {
    let lineage = Lineage { origin: Origin::of("/lab/in"), ..Lineage::default() };
    NewEvent { event: Arc::new(event), lineage, deliveries: to }
}

pub(super) fn to(function: FunctionId, order_key: Option<&str>) -> NewDelivery {
    NewDelivery { function, trigger: "on[0]".into(), order_key: order_key.map(Into::into) }
}

fn ending(delivery: DeliveryId, function: FunctionId, attempt: u32, verdict: Verdict) -> Completion {
    let outcome = if verdict == Verdict::Done { "done" } else { "retry" };
    let message = (verdict != Verdict::Done).then(|| format!("attempt {attempt} at {delivery} failed"));
    let record =
        AttemptRecord { attempt, started_ms: 1_000 + delivery, duration_us: 77, outcome: outcome.into(), message };
    let (origin, publishes, state) = (Origin::of("/lab/in"), Vec::new(), Transaction::default());
    Completion { delivery, function, origin, record, verdict, publishes, state }
}

fn json(text: String) -> Data {
    Data::Json(Bytes::from(text))
}

/// Makes the store, and closes it: all of it is in one file.
pub(super) async fn make(folder: &Path) {
    let store = open(folder).unwrap();
    let functions = store.register(vec!["lab/one".into(), "lab/two".into()]).await.unwrap();
    let (one, two) = (functions[0], functions[1]);
    let mut offered = Vec::new();
    for n in 0..12 {
        offered.push(new(event(&format!("old-{n}"), json(format!(r#"{{"n":{n},"is":"old"}}"#))), vec![to(one, None)]));
    }
    store.accept(offered, vec![]).await.unwrap();
    for delivery in 1..=12 {
        store.complete(Arc::new(ending(delivery, one, 1, Verdict::Done))).await.unwrap();
    }
    // Most of it is removed, and known still.
    store.retain(Retention { age: Duration::MAX, bytes: 0 }).await.unwrap();

    let mut offered = Vec::new();
    for n in 0..20 {
        let key = format!("key-{}", n % 3);
        let data = match n % 5 {
            0 => Data::Text(format!("text {n} ").repeat(20)),
            1 => Data::Binary(Bytes::from(vec![n; 300])),
            // Longer than a page.
            2 => json(format!(r#"{{"n":{n},"pad":"{}"}}"#, "0123456789abcdef".repeat(700))),
            3 => Data::None,
            _ => json(format!(r#"{{"n":{n}}}"#)),
        };
        let mut made = event(&format!("event-{n}"), data);
        made.subject = (n % 2 == 0).then(|| format!("subject {n}"));
        made.time = (n % 3 == 0).then(|| "2026-01-31T12:00:00Z".into());
        made.dataschema = (n % 7 == 0).then(|| "/schema".into());
        made.extensions = BTreeMap::from([("traceparent".to_owned(), format!("00-{n:032x}-{n:016x}-01"))]);
        offered.push(new(made, vec![to(one, Some(&key)), to(two, None)]));
    }
    let marks = (0..3).map(|n| {
        let (scope, key) = ("/lab/files".into(), format!("file-{n}.csv"));
        Mark { scope, key, value: Some(format!("version {n}").into_bytes()) }
    });
    store.accept(offered, marks.collect()).await.unwrap();

    // Its deliveries are every other one: of the first function in order of their keys, of the second at once.
    let lineage = Lineage { cause: Some(13), root: Some(13), hops: 1, origin: Origin::of("/lab/in") };
    let published = |n: usize| NewEvent {
        lineage,
        ..new(event(&format!("published-{n}"), json(format!(r#"{{"published":{n}}}"#))), vec![to(two, None)])
    };
    let mut first = ending(13, one, 1, Verdict::Done);
    first.publishes = (0..2).map(published).collect();
    first.state = keep("lab/one", "counter", b"1");
    store.complete(Arc::new(first)).await.unwrap();
    store.complete(Arc::new(ending(15, one, 1, Verdict::Dead("retry: it failed for good".into())))).await.unwrap();
    store.complete(Arc::new(ending(17, one, 1, Verdict::RetryAt(2_000)))).await.unwrap();
    store.complete(Arc::new(ending(14, two, 1, Verdict::RetryAt(3_000)))).await.unwrap();
    store.complete(Arc::new(ending(14, two, 2, Verdict::RetryAt(4_000)))).await.unwrap();
    store.complete(Arc::new(ending(16, two, 1, Verdict::Dead("retry: let go".into())))).await.unwrap();
    store.complete(Arc::new(ending(18, two, 1, Verdict::Done))).await.unwrap();
    store.purge(DeadFilter::Delivery(16)).await.unwrap();
    for n in 0..8 {
        let value = if n == 5 { vec![5; 9_000] } else { format!("value {n}").into_bytes() };
        store.state_write(keep("lab", &format!("key-{n}"), &value)).await.unwrap();
    }
    let replay =
        store.start_replay(NewReplay { filter: r#"{"type":"lab.in"}"#.into(), after: 0, until: 20 }).await.unwrap();
    let offers = vec![(Arc::new(store.event(14).await.unwrap().unwrap()), vec![to(one, Some("key-1")), to(two, None)])];
    assert!(store.advance_replay(replay, Step { position: 14, offers }).await.unwrap());
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
    store.close().await.unwrap();
    drop(store);
    evoke_is_gone(folder);
}

/// The writer copies the log into the file as the last thing that it does.
fn evoke_is_gone(folder: &Path) {
    crate::assert_eventually!(
        std::fs::metadata(folder.join("evoke.db-wal")).map_or(0, |log| log.len()) == 0,
        "the log was not copied"
    );
}

fn keep(bucket: &str, key: &str, value: &[u8]) -> Transaction {
    let change = Some(Change::Set(Bytes::copy_from_slice(value)));
    let touched = Touched { bucket: bucket.into(), key: key.into(), seen: None, change };
    Transaction { keys: vec![touched], ..Transaction::default() }
}

/// All that a store says.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// What it hands to functions and people, each by its name.
    pub(super) items: BTreeMap<String, String>,
    /// The numbers that it shows.
    pub(super) numbers: BTreeMap<String, String>,
    /// What it said to be damaged, with the words.
    pub(super) damaged: BTreeMap<String, String>,
}

impl Contents {
    /// Asks a store for everything that a user of the one from [`make`] could ask for.
    pub(super) async fn of(store: &SqliteStore) -> Self {
        let mut all = Self::default();
        for function in [1, 2] {
            for stream in Stream::ALL {
                all.ready(store.ready(function, stream, 0, ALL).await, "ready");
                let due = store.due(function, stream, ONE_DAY_SOON, ALL).await;
                all.ready(due.map(|(found, _)| found), "due");
            }
        }
        for after in [0, 20] {
            match store.events(EventFilter { after: Some(after), limit: ALL, ..EventFilter::default() }).await {
                Ok(found) => found.iter().for_each(|stored| all.event("event", stored)),
                Err(error) => all.failed("events", &error),
            }
        }
        for seq in 1..=40 {
            match store.event(seq).await {
                Ok(found) => found.iter().for_each(|stored| all.event("event", stored)),
                Err(error) => all.failed(&format!("event {seq}"), &error),
            }
            match store.deliveries(seq).await {
                Ok(found) => found.into_iter().for_each(|record| all.delivery(record)),
                Err(error) => all.failed(&format!("deliveries of {seq}"), &error),
            }
        }
        for delivery in 1..=60 {
            match store.published(delivery).await {
                Ok(found) => found.iter().for_each(|stored| all.event("event", stored)),
                Err(error) => all.failed(&format!("published by {delivery}"), &error),
            }
        }
        match store.dead(DeadFilter::All, ALL).await {
            Ok(found) => found.into_iter().for_each(|record| all.delivery(record)),
            Err(error) => all.failed("dead", &error),
        }
        match store.marks("/lab/files".into()).await {
            Ok(found) => found.into_iter().for_each(|(key, value)| all.put(&format!("mark {key}"), &value)),
            Err(error) => all.failed("marks", &error),
        }
        for bucket in ["lab", "lab/one"] {
            let keys = store.state_keys(bucket, None, ALL).await;
            match keys {
                Ok(keys) => keys.keys.iter().for_each(|key| all.put(&format!("key {bucket} {key}"), &())),
                Err(error) => all.failed(&format!("keys {bucket}"), &error),
            }
            for key in ["counter", "key-0", "key-1", "key-2", "key-3", "key-4", "key-5", "key-6", "key-7"] {
                match store.state(bucket, key).await {
                    Ok(found) => found.into_iter().for_each(|entry| all.put(&format!("state {bucket} {key}"), &entry)),
                    Err(error) => all.failed(&format!("state {bucket} {key}"), &error),
                }
            }
        }
        match store.replays().await {
            Ok(found) => found.into_iter().for_each(|mut replay| {
                let counts = std::mem::take(&mut replay.deliveries);
                all.numbers.insert(format!("replay {}", replay.id), format!("{counts:?}"));
                all.put(&format!("replay {}", replay.id), &replay);
            }),
            Err(error) => all.failed("replays", &error),
        }
        all.put("instance", &store.instance());
        all.numbers.insert("totals".into(), format!("{:?}", store.totals().await));
        all.numbers.insert("usage".into(), format!("{:?}", store.state_buckets()));
        all.numbers.insert("backlog".into(), format!("{:?}", store.backlog().total()));
        all
    }

    fn put(&mut self, name: &str, item: &dyn std::fmt::Debug) {
        let text = format!("{item:?}");
        if let Some(before) = self.items.insert(name.to_owned(), text.clone()) {
            assert_eq!(before, text, "{name} is said to be two things");
        }
    }

    fn failed(&mut self, name: &str, error: &StoreError) {
        self.damaged.insert(name.to_owned(), error.to_string());
    }

    fn event(&mut self, what: &str, stored: &StoredEvent) {
        let name = format!("{what} {}", stored.seq);
        match &stored.damage {
            Some(damage) => drop(self.damaged.insert(name, damage.to_string())),
            None => self.put(&name, stored),
        }
    }

    fn delivery(&mut self, mut record: evoke::store::DeliveryRecord) {
        for attempt in std::mem::take(&mut record.attempts) {
            let name = format!("attempt {} {}", record.id, attempt.attempt);
            if attempt.outcome == "damaged" {
                self.damaged.insert(name, attempt.message.unwrap_or_default());
            } else {
                self.put(&name, &attempt);
            }
        }
        let name = format!("delivery {}", record.id);
        match &record.damage {
            Some(damage) => drop(self.damaged.insert(name, damage.clone())),
            None => self.put(&name, &record),
        }
    }

    fn ready(&mut self, found: Result<Vec<evoke::store::ReadyDelivery>>, what: &str) {
        match found {
            Ok(found) => {
                for delivery in found {
                    let name = format!("{what} {}", delivery.id);
                    match &delivery.event.damage {
                        Some(damage) => drop(self.damaged.insert(name, damage.to_string())),
                        None => self.put(&name, &delivery),
                    }
                }
            }
            Err(error) => self.failed(what, &error),
        }
    }

    /// What is said otherwise than in the original, or was never in it.
    pub(super) fn wrong(&self, original: &Self) -> Vec<String> {
        let differs = |(name, item): (&String, &String)| {
            (original.items.get(name) != Some(item)).then(|| format!("{name}: {item}"))
        };
        self.items.iter().filter_map(differs).collect()
    }

    /// What is not said that is in the original, or is another number.
    pub(super) fn missing(&self, original: &Self) -> Vec<String> {
        let items = original.items.keys().filter(|name| !self.items.contains_key(*name)).cloned();
        let other = |(name, number): (&String, &String)| {
            (original.numbers.get(name) != Some(number)).then(|| format!("{name}: {number}"))
        };
        items.chain(self.numbers.iter().filter_map(other)).collect()
    }

    /// Whether it is the original in everything.
    pub(super) fn is(&self, original: &Self) -> bool {
        self.damaged.is_empty() && self.items == original.items && self.numbers == original.numbers
    }
}
