//! A small sample store with rows of every kind, and a dump of all its contents. Tests compare the dump of a damaged
//! copy with the dump of the original.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use evoke_model::clock::Clock;
use evoke_model::event::{Data, Event};
use evoke_model::state::{Change, Touched, Transaction};
use evoke_model::{
    Actor, AttemptRecord, Completion, DamagedEvent, DeadFilter, DeliveryId, EventFilter, FunctionId, Lineage, Mark,
    NewDelivery, NewEvent, NewReplay, Origin, ReadDelivery, ReadEvent, ReplayId, Retention, Seq, Step, Stream, Verdict,
};
use evoke_store::{
    DeliveryStore, EventStore, InspectionStore, LoadLimit, ReplayStore, Result, StateStore, Store, StoreError,
};
use evoke_store_sqlite::SqliteStore;

/// A time in the far future, in ms, at which every retry is due.
const FAR_FUTURE_MS: i64 = 4_000_000_000_000;
/// A limit above the number of rows of any kind in the store.
const NO_LIMIT: usize = 10_000;

pub(super) fn open(folder: &Path) -> Result<SqliteStore> {
    SqliteStore::open(folder, Clock::system())
}

/// An event with a content type that fits its data.
pub(super) fn event(id: &str, data: Data) -> Event {
    let datacontenttype = match &data {
        Data::Text(_) => Some("text/plain".into()),
        Data::Binary(_) => Some("application/octet-stream".into()),
        Data::Json(_) | Data::None => None,
    };
    Event { id: id.into(), source: "/lab/in".into(), type_: "lab.in".into(), datacontenttype, data, ..Event::default() }
}

pub(super) fn new_event(event: Event, deliveries: Vec<NewDelivery>) -> NewEvent {
    let lineage = Lineage { origin: Origin::of("/lab/in"), ..Lineage::default() };
    NewEvent { event: Arc::new(event), lineage, deliveries }
}

pub(super) fn delivery_to(function: FunctionId, order_key: Option<&str>) -> NewDelivery {
    NewDelivery { function, trigger: "on[0]".into(), order_key: order_key.map(Into::into) }
}

/// The completion of an attempt at the delivery with this number, without published events or state changes.
fn completion(number: i64, function: FunctionId, attempt: u32, verdict: Verdict) -> Completion {
    let delivery = DeliveryId(number);
    let outcome = if verdict == Verdict::Done { "done" } else { "retry" };
    let message = (verdict != Verdict::Done).then(|| format!("attempt {attempt} at {delivery} failed"));
    let record =
        AttemptRecord { attempt, started_ms: 1_000 + number, duration_us: 77, outcome: outcome.into(), message };
    let (root, origin, publishes, state) = (Seq(1), Origin::of("/lab/in"), Vec::new(), Transaction::default());
    Completion { delivery, function, root, origin, record, verdict, publishes, state, recording: None }
}

fn json(text: String) -> Data {
    Data::Json(Bytes::from(text))
}

/// Creates the store and closes it. All of its contents are then in the database file.
pub(super) async fn create(folder: &Path) {
    let store = open(folder).unwrap();
    let functions = store.register(vec!["lab/one".into(), "lab/two".into()]).await.unwrap();
    let (one, two) = (functions[0], functions[1]);
    let mut offered = Vec::new();
    for n in 0..12 {
        offered.push(new_event(
            event(&format!("old-{n}"), json(format!(r#"{{"n":{n},"is":"old"}}"#))),
            vec![delivery_to(one, None)],
        ));
    }
    store.accept(offered, vec![]).await.unwrap();
    for delivery in 1..=12 {
        store.complete(Arc::new(completion(delivery, one, 1, Verdict::Done))).await.unwrap();
    }
    // Remove most events. The store keeps their ids for deduplication.
    store.retain(&Actor::Runtime, Retention { age: Duration::MAX, bytes: 0 }).await.unwrap();

    let mut offered = Vec::new();
    for n in 0..20 {
        let key = format!("key-{}", n % 3);
        let data = match n % 5 {
            0 => Data::Text(format!("text {n} ").repeat(20)),
            1 => Data::Binary(Bytes::from(vec![n; 300])),
            // Larger than a page.
            2 => json(format!(r#"{{"n":{n},"pad":"{}"}}"#, "0123456789abcdef".repeat(700))),
            3 => Data::None,
            _ => json(format!(r#"{{"n":{n}}}"#)),
        };
        let mut made = event(&format!("event-{n}"), data);
        made.subject = (n % 2 == 0).then(|| format!("subject {n}"));
        made.time = (n % 3 == 0).then(|| "2026-01-31T12:00:00Z".into());
        made.dataschema = (n % 7 == 0).then(|| "/schema".into());
        made.extensions = BTreeMap::from([("traceparent".to_owned(), format!("00-{n:032x}-{n:016x}-01"))]);
        offered.push(new_event(made, vec![delivery_to(one, Some(&key)), delivery_to(two, None)]));
    }
    let marks = (0..3).map(|n| {
        let (scope, key) = ("/lab/files".into(), format!("file-{n}.csv"));
        Mark { scope, key, value: Some(format!("version {n}").into_bytes()) }
    });
    store.accept(offered, marks.collect()).await.unwrap();

    // The odd delivery ids belong to the first function and are ordered by key; the even ones belong to the second
    // function.
    let lineage = Lineage { cause: Some(DeliveryId(13)), root: Some(Seq(13)), hops: 1, origin: Origin::of("/lab/in") };
    let published = |n: usize| NewEvent {
        lineage,
        ..new_event(
            event(&format!("published-{n}"), json(format!(r#"{{"published":{n}}}"#))),
            vec![delivery_to(two, None)],
        )
    };
    let mut first = completion(13, one, 1, Verdict::Done);
    first.publishes = (0..2).map(published).collect();
    first.state = set_state("lab/one", "counter", b"1");
    store.complete(Arc::new(first)).await.unwrap();
    store.complete(Arc::new(completion(15, one, 1, Verdict::Dead("retry: it failed for good".into())))).await.unwrap();
    store.complete(Arc::new(completion(17, one, 1, Verdict::RetryAt(2_000)))).await.unwrap();
    store.complete(Arc::new(completion(14, two, 1, Verdict::RetryAt(3_000)))).await.unwrap();
    store.complete(Arc::new(completion(14, two, 2, Verdict::RetryAt(4_000)))).await.unwrap();
    store.complete(Arc::new(completion(16, two, 1, Verdict::Dead("retry: let go".into())))).await.unwrap();
    store.complete(Arc::new(completion(18, two, 1, Verdict::Done))).await.unwrap();
    store.purge(&Actor::Runtime, DeadFilter::Delivery(DeliveryId(16))).await.unwrap();
    for n in 0..8 {
        let value = if n == 5 { vec![5; 9_000] } else { format!("value {n}").into_bytes() };
        store.state_write(&Actor::Runtime, set_state("lab", &format!("key-{n}"), &value)).await.unwrap();
    }
    let new = NewReplay { filter: r#"{"type":"lab.in"}"#.into(), after: Seq(0), until: Seq(20) };
    let replay = store.start_replay(&Actor::Runtime, new).await.unwrap();
    let offers = vec![(
        Arc::new(store.event(Seq(14)).await.unwrap().unwrap().unwrap()),
        vec![delivery_to(one, Some("key-1")), delivery_to(two, None)],
    )];
    assert!(store.advance_replay(replay, Step { position: Seq(14), offers }).await.unwrap());
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
    store.close().await.unwrap();
    drop(store);
    wait_for_checkpoint(folder);
}

/// Waits until the writer thread has copied the WAL into the database file, which is its last action.
fn wait_for_checkpoint(folder: &Path) {
    crate::assert_eventually!(
        std::fs::metadata(folder.join("evoke.db-wal")).map_or(0, |wal| wal.len()) == 0,
        "the WAL was not copied"
    );
}

/// A transaction that sets one key.
fn set_state(bucket: &str, key: &str, value: &[u8]) -> Transaction {
    let change = Some(Change::Set(Bytes::copy_from_slice(value)));
    let touched = Touched { bucket: bucket.into(), key: key.into(), seen: None, change };
    Transaction { keys: vec![touched], ..Transaction::default() }
}

/// Everything that can be read from a store.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Each item that functions or users can read, by a unique name.
    pub(super) items: BTreeMap<String, String>,
    /// Counters and totals by name.
    pub(super) numbers: BTreeMap<String, String>,
    /// The items that the store reported as damaged, with the message.
    pub(super) damaged: BTreeMap<String, String>,
}

impl Contents {
    /// Reads everything that a user of the store from [`create`] can read.
    pub(super) async fn of(store: &SqliteStore) -> Self {
        let mut all = Self::default();
        for function in [1, 2].map(FunctionId) {
            for stream in Stream::ALL {
                all.ready(store.claim(function, stream, DeliveryId(0), LoadLimit::of(NO_LIMIT)).await, "ready");
                let due = store.due(function, stream, FAR_FUTURE_MS, Default::default(), LoadLimit::of(NO_LIMIT)).await;
                all.ready(due.map(|(found, _)| found), "due");
            }
        }
        for after in [0, 20].map(Seq) {
            match store.events(EventFilter { after: Some(after), limit: NO_LIMIT, ..EventFilter::default() }).await {
                Ok(found) => found.iter().for_each(|stored| all.event("event", stored)),
                Err(error) => all.failed("events", &error),
            }
        }
        for seq in (1..=40).map(Seq) {
            match store.event(seq).await {
                Ok(found) => found.iter().for_each(|stored| all.event("event", stored)),
                Err(error) => all.failed(&format!("event {seq}"), &error),
            }
            match store.deliveries(seq).await {
                Ok(found) => found.into_iter().for_each(|record| all.delivery(record)),
                Err(error) => all.failed(&format!("deliveries of {seq}"), &error),
            }
        }
        for delivery in (1..=60).map(DeliveryId) {
            match store.published(delivery).await {
                Ok(found) => found.iter().for_each(|stored| all.event("event", stored)),
                Err(error) => all.failed(&format!("published by {delivery}"), &error),
            }
        }
        match store.dead(DeadFilter::All, DeliveryId(0), NO_LIMIT).await {
            Ok(found) => found.into_iter().for_each(|record| all.delivery(record)),
            Err(error) => all.failed("dead", &error),
        }
        match store.marks("/lab/files".into()).await {
            Ok(found) => found.into_iter().for_each(|(key, value)| all.put(&format!("mark {key}"), &value)),
            Err(error) => all.failed("marks", &error),
        }
        for bucket in ["lab", "lab/one"] {
            let keys = store.state_keys(bucket, None, NO_LIMIT).await;
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
        match store.replays(ReplayId(0), NO_LIMIT).await {
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
            assert_eq!(before, text, "two reads of {name} differ");
        }
    }

    fn failed(&mut self, name: &str, error: &StoreError) {
        self.damaged.insert(name.to_owned(), error.to_string());
    }

    fn event(&mut self, kind: &str, read: &ReadEvent) {
        let name = format!("{kind} {}", DamagedEvent::seq_of(read));
        match read {
            Ok(stored) => self.put(&name, stored),
            Err(damaged) => drop(self.damaged.insert(name, damaged.to_string())),
        }
    }

    fn delivery(&mut self, mut read: ReadDelivery) {
        let (id, attempts) = match &mut read {
            Ok(record) => (record.id, &mut record.attempts),
            Err(damaged) => (damaged.id, &mut damaged.attempts),
        };
        for attempt in std::mem::take(attempts) {
            let name = format!("attempt {id} {}", attempt.attempt);
            if attempt.outcome == "damaged" {
                self.damaged.insert(name, attempt.message.unwrap_or_default());
            } else {
                self.put(&name, &attempt);
            }
        }
        let name = format!("delivery {id}");
        match read {
            Ok(record) => self.put(&name, &record),
            Err(damaged) => drop(self.damaged.insert(name, damaged.what)),
        }
    }

    fn ready(&mut self, found: Result<Vec<evoke_model::ReadyDelivery>>, kind: &str) {
        match found {
            Ok(found) => {
                for delivery in found {
                    let name = format!("{kind} {}", delivery.id);
                    match &delivery.event {
                        Ok(_) => self.put(&name, &delivery),
                        Err(damaged) => drop(self.damaged.insert(name, damaged.to_string())),
                    }
                }
            }
            Err(error) => self.failed(kind, &error),
        }
    }

    /// The items that differ from the original or do not exist in it.
    pub(super) fn wrong(&self, original: &Self) -> Vec<String> {
        let differs = |(name, item): (&String, &String)| {
            (original.items.get(name) != Some(item)).then(|| format!("{name}: {item}"))
        };
        self.items.iter().filter_map(differs).collect()
    }

    /// The items of the original that are missing, and the counters that differ.
    pub(super) fn missing(&self, original: &Self) -> Vec<String> {
        let items = original.items.keys().filter(|name| !self.items.contains_key(*name)).cloned();
        let other = |(name, number): (&String, &String)| {
            (original.numbers.get(name) != Some(number)).then(|| format!("{name}: {number}"))
        };
        items.chain(self.numbers.iter().filter_map(other)).collect()
    }

    /// Returns true if nothing is damaged, and all items and counters equal those of the original.
    pub(super) fn equals(&self, original: &Self) -> bool {
        self.damaged.is_empty() && self.items == original.items && self.numbers == original.numbers
    }
}
