mod conformance;
mod indexes;
mod portions;
mod principal;
mod recordings;
mod time;

use std::sync::atomic::{AtomicI64, Ordering};

use super::readers::open_for_reading;
use super::schema::{MIGRATIONS, SCHEMA_VERSION};
use super::*;
use evoke_model::event::Event;
use evoke_model::state::{Transaction, Usage};
use evoke_model::{
    Accepted, Actor, AttemptRecord, Completion, DeadFilter, DeliveryId, DeliveryState, FunctionId, Lineage, Mark,
    NewDelivery, NewEvent, Origin, ReplayId, Retention, Seq, Stream, Verdict,
};
use evoke_store::{DeliveryStore, EventStore, InspectionStore, LoadLimit, ReplayStore, StateStore, Store};

fn mark() -> Vec<Mark> {
    vec![Mark { scope: "/s".into(), key: "k".into(), value: Some(b"1".to_vec()) }]
}

#[tokio::test]
async fn the_first_failed_commit_latches() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    store.accept(vec![], mark()).await.unwrap();
    let other = Connection::open(folder.path().join("evoke.db")).unwrap();
    other.execute_batch("ALTER TABLE marks RENAME TO gone").unwrap();
    assert!(matches!(store.accept(vec![], mark()).await, Err(StoreError::Failed(_))));
    // The cause of the failure is repaired, but the store still rejects writes.
    other.execute_batch("ALTER TABLE gone RENAME TO marks").unwrap();
    assert!(matches!(store.accept(vec![], mark()).await, Err(StoreError::Failed(_))));
    assert!(store.failure().await.contains("marks"));
    drop(store);
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    store.accept(vec![], mark()).await.unwrap();
}

#[tokio::test]
async fn instance_and_function_ids_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    let instance = store.instance().to_owned();
    let id = store.register(vec!["shop/a".into()]).await.unwrap();
    store.close().await.unwrap();
    assert!(matches!(store.accept(vec![], mark()).await, Err(StoreError::Closed)));
    drop(store);
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    assert_eq!((store.instance(), store.register(vec!["shop/a".into()]).await.unwrap()), (&*instance, id));
}

#[tokio::test]
async fn state_and_its_versions_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let write = async |store: &SqliteStore, key: &str| {
        let change = Some(evoke_model::state::Change::Set("é".into()));
        let touched = evoke_model::state::Touched { bucket: "shop/a".into(), key: key.into(), seen: None, change };
        store
            .state_write(&Actor::Runtime, Transaction { keys: vec![touched], ..Transaction::default() })
            .await
            .unwrap();
        store.state("shop/a", key).await.unwrap().unwrap()
    };
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    let before = write(&store, "ä").await;
    store.close().await.unwrap();
    drop(store);
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    assert_eq!(store.state("shop/a", "ä").await.unwrap(), Some(before.clone()));
    assert_eq!(store.state_usage("shop/a"), Usage { keys: 1, bytes: 4 });
    assert!(write(&store, "b").await.version > before.version);
}

#[tokio::test]
async fn a_version_1_store_is_migrated_to_the_current_schema() {
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let first = Connection::open(old.path().join("evoke.db")).unwrap();
    first.execute_batch(include_str!("migrate/1.sql")).unwrap();
    let content = "INSERT INTO meta VALUES ('instance', 'abc'); INSERT INTO functions VALUES (1, 'shop/a');
        INSERT INTO events VALUES (1, 'e', '/s', 't', NULL, NULL, NULL, NULL, NULL, 0, NULL, 5, 1, 2, NULL, NULL, 0);
        INSERT INTO deliveries (id, event, function, trigger, state, since_ms)
          VALUES (1, 1, 1, 'on[0]', 0, 5), (2, 1, 1, 'on[0]', 3, 5);
        PRAGMA user_version = 1";
    first.execute_batch(content).unwrap();
    // Compares columns and indexes. The SQL of tables is not compared, because it differs after a column was added.
    let schema = |folder: &Path| {
        let store = SqliteStore::open(folder, Clock::fixed(0)).unwrap();
        let connection = open_for_reading(&folder.join("evoke.db")).unwrap();
        let sql = "SELECT group_concat(line, char(10)) FROM (
            SELECT m.name || ' ' || c.name || ' ' || c.type || c.'notnull' || c.pk || ifnull(c.dflt_value, '') AS line
            FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'
            UNION ALL SELECT ifnull(sql, name) FROM sqlite_master WHERE type <> 'table' ORDER BY 1)";
        (connection.query_row(sql, [], |r| r.get::<_, String>(0)).unwrap(), store.instance().to_owned())
    };
    let ((migrated, instance), (created, _)) = (schema(old.path()), schema(new.path()));
    assert_eq!(migrated, created);
    assert_eq!(instance, "abc");
    let store = SqliteStore::open(old.path(), Clock::fixed(0)).unwrap();
    let report = store.check().await.unwrap();
    assert_eq!((report.problems, &report.totals), (vec![], &store.totals().await.unwrap()));
    assert_eq!((report.totals.owed, store.pending()), (2, 1));
}

#[tokio::test]
async fn a_version_2_store_gets_checksums_for_all_rows() {
    let folder = tempfile::tempdir().unwrap();
    let second = Connection::open(folder.path().join("evoke.db")).unwrap();
    second.execute_batch(include_str!("migrate/1.sql")).unwrap();
    second.execute_batch(MIGRATIONS[0]).unwrap();
    let content = "INSERT INTO meta VALUES ('instance', 'abc'); INSERT INTO functions VALUES (1, 'shop/a');
        INSERT INTO events (seq, id, source, type, extensions, data_kind, data, accepted_ms, first_delivery, owed, hops)
          VALUES (2, 'e', '/s', 't', '{\"x\":\"y\"}', 2, x'6869', 5, 2, 2, 0);
        INSERT INTO known VALUES (1, 'before', '/s', 4);
        INSERT INTO deliveries (id, event, function, trigger, order_key, state, attempts, since_ms, cause, origin, bytes)
          VALUES (2, 2, 1, 'on[0]', NULL, 0, 0, 5, NULL, 7, 3), (3, 2, 1, 'on[1]', 'k', 4, 1, 5, 'reject: why', 7, 3);
        INSERT INTO attempts VALUES (3, 1, 6, 7, 'reject', 'why');
        INSERT INTO replays VALUES (1, '{}', 8, 2, 2, 2, 0);
        INSERT INTO marks VALUES ('/s', 'k', x'00ff'); INSERT INTO state VALUES ('shop/a', 'k', x'31', 9);
        INSERT OR REPLACE INTO totals VALUES (0, 'events', 2), (0, 'deliveries', 3), (0, 'owed', 3), (0, 'removed', 1),
          (0, 'removed owed', 1), (0, 'removed to', 1), (1, 'ready', 1), (1, 'dead', 1), (1, 'done', 1), (1, 'removed done', 1);
        PRAGMA user_version = 2";
    second.execute_batch(content).unwrap();
    let Err(StoreError::Failed(message)) = check_folder(folder.path()) else { unreachable!("version 2 was read") };
    assert!(message.contains("`evoke up` upgrades the store"), "{message}");

    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
    let stored = store.event(Seq(2)).await.unwrap().unwrap().unwrap();
    assert_eq!(stored.event.data, evoke_model::event::Data::Text("hi".into()));
    let records = store.deliveries(Seq(2)).await.unwrap();
    assert_eq!((records.len(), records[1].as_ref().unwrap().attempts[0].message.as_deref()), (2, Some("why")));
    let claimed = store.claim(FunctionId(1), Stream::Live, DeliveryId(0), LoadLimit::of(9)).await.unwrap();
    assert_eq!(claimed[0].event.as_ref().unwrap().event.id, "e");
    assert_eq!(store.marks("/s".into()).await.unwrap()["k"], [0, 255]);
    assert_eq!(store.state("shop/a", "k").await.unwrap().unwrap().version, 9);
    assert_eq!(store.replays(ReplayId(0), 10).await.unwrap().len(), 1);
    // New writes have checksums, and damage done after the migration is found.
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(), 1);
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
    second.execute("UPDATE events SET data = x'6868'", []).unwrap();
    let problems = store.check().await.unwrap().problems;
    assert!(problems.len() == 2 && problems[0].contains("evoke.db: table events, row 2:"), "{problems:?}");
    assert!(store.event(Seq(2)).await.unwrap().unwrap().unwrap_err().what.contains("event 2 in"));
}

#[tokio::test]
async fn a_version_3_store_keeps_its_attempts_and_its_damage() {
    let folder = tempfile::tempdir().unwrap();
    let third = Connection::open(folder.path().join("evoke.db")).unwrap();
    checksum::register_sql_function(&third).unwrap();
    third.execute_batch(include_str!("migrate/1.sql")).unwrap();
    MIGRATIONS[..2].iter().for_each(|migration| third.execute_batch(migration).unwrap());
    let content = "INSERT INTO meta VALUES ('instance', 'abc', sum_of('instance', 'abc'));
        INSERT INTO functions VALUES (1, 'shop/a', sum_of(1, 'shop/a'));
        INSERT INTO events (seq, id, source, type, data_kind, accepted_ms, first_delivery, owed, hops, sum) VALUES
          (1, 'e', '/s', 't', 0, 5, 1, 2, 0,
           sum_of(1, 'e', '/s', 't', NULL, NULL, NULL, NULL, NULL, 0, 5, 1, 2, NULL, NULL, 0, 0, NULL));
        INSERT INTO deliveries (id, event, function, trigger, state, attempts, since_ms, sum) VALUES
          (1, 1, 1, 'on[0]', 3, 1, 5, sum_of(1, 1, 1, 'on[0]', NULL, 0, 0, 0) + sum_of(3, 1, 0, 5, NULL, NULL)),
          (2, 1, 1, 'on[1]', 0, 0, 5, sum_of(2, 1, 1, 'on[0]', NULL, 0, 0, 0) + sum_of(0, 0, 0, 5, NULL, NULL));
        INSERT INTO attempts VALUES (1, 1, 6, 7, 'done', NULL, sum_of(1, 1, 6, 7, 'done', NULL));
        INSERT OR REPLACE INTO totals VALUES (0, 'events', 1), (0, 'deliveries', 2), (0, 'owed', 2), (1, 'ready', 1), (1, 'done', 1);
        PRAGMA user_version = 3";
    third.execute_batch(content).unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    let problems = store.check().await.unwrap().problems;
    assert!(problems.len() == 2 && problems[0].contains("table deliveries, row 2:"), "{problems:?}");
    let records = store.deliveries(Seq(1)).await.unwrap();
    let done = AttemptRecord { attempt: 1, started_ms: 6, duration_us: 7, outcome: "done".into(), message: None };
    assert_eq!(records[0].as_ref().unwrap().attempts, [done]);
    assert_eq!(records[1].as_ref().unwrap_err().state, Some(DeliveryState::Ready));
}

#[tokio::test]
async fn a_version_4_store_gets_the_uris_of_its_origins_and_keeps_its_dedup() {
    let folder = tempfile::tempdir().unwrap();
    let fourth = Connection::open(folder.path().join("evoke.db")).unwrap();
    checksum::register_sql_function(&fourth).unwrap();
    fourth.execute_batch(include_str!("migrate/1.sql")).unwrap();
    MIGRATIONS[..3].iter().for_each(|migration| fourth.execute_batch(migration).unwrap());
    let [timer, hook, cli] = ["/shop/nightly", "/shop/hook", "/cli"].map(|uri| Origin::of(uri).0);
    // 1: an event of a timer. 2: an event that a producer sent to the hook. 3: an event of an operator. 4: an event
    // that a function published. 5: an event of version 1, without an origin.
    let rows = [
        ("1", "/shop/nightly", "NULL", timer),
        ("2", "/partner", "NULL", hook),
        ("3", "/elsewhere", "NULL", cli),
        ("4", "/shop/a", "1", timer),
        ("5", "/old", "NULL", 0),
    ];
    for (at, (id, source, cause, origin)) in rows.iter().enumerate() {
        let seq = at + 2;
        let values = format!(
            "{seq}, '{id}', '{source}', 't', NULL, NULL, NULL, NULL, NULL, 0, 5, 1, 0, {cause}, NULL, 0, {origin}"
        );
        fourth
            .execute_batch(&format!(
                "INSERT INTO events (seq, id, source, type, subject, time, datacontenttype, dataschema, extensions, data_kind,
                   accepted_ms, first_delivery, owed, cause, root, hops, origin, sum) VALUES ({values}, sum_of({values}, NULL))"
            ))
            .unwrap();
    }
    let content = "INSERT INTO meta VALUES ('instance', 'abc', sum_of('instance', 'abc'));
        INSERT INTO known VALUES (1, '0', '/shop/nightly', 4, sum_of(1, '0', '/shop/nightly', 4));
        INSERT OR REPLACE INTO totals VALUES (0, 'events', 6), (0, 'deliveries', 0), (0, 'owed', 0), (0, 'removed', 1),
          (0, 'removed owed', 0), (0, 'removed to', 1);
        PRAGMA user_version = 4";
    fourth.execute_batch(content).unwrap();

    let store = SqliteStore::open(folder.path(), Clock::fixed(5)).unwrap();
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
    assert_eq!(store.origin_uri(Origin(timer)).as_deref(), Some("/shop/nightly"));
    assert_eq!(store.origin_uri(Origin(cli)).as_deref(), Some("/evoke/emit"));
    assert_eq!(store.origin_uri(Origin(hook)), None);
    // The hook gets the number that its stored events already have; a new source gets another number.
    let uris = ["/shop/hook", "/shop/nightly", "/shop/new"].map(str::to_owned).to_vec();
    let origins = store.register_origins(uris).await.unwrap();
    assert_eq!((origins[0], origins[1]), (Origin(hook), Origin(timer)));
    assert_eq!(store.origin_uri(Origin(hook)).as_deref(), Some("/shop/hook"));
    let new = |id: &str, source: &str, cause: Option<i64>, origin: Origin| NewEvent {
        event: Arc::new(Event { id: id.into(), source: source.into(), type_: "t".into(), ..Event::default() }),
        lineage: Lineage { cause: cause.map(DeliveryId), origin, ..Lineage::default() },
        deliveries: vec![],
    };
    let known = vec![
        new("0", "/shop/nightly", None, origins[1]),
        new("1", "/shop/nightly", None, origins[1]),
        new("2", "/partner", None, origins[0]),
        new("3", "/elsewhere", None, Origin::OPERATOR),
        new("4", "/shop/a", Some(9), origins[2]),
        new("5", "/old", None, origins[2]),
    ];
    let expected: Vec<Accepted> = (1..=6).map(|seq| Accepted::Duplicate(Seq(seq))).collect();
    assert_eq!(store.accept(known, vec![]).await.unwrap(), expected);
    let others = vec![
        new("1", "/shop/nightly", None, origins[0]),
        new("2", "/partner", None, origins[2]),
        new("4", "/shop/a", None, origins[1]),
    ];
    assert_eq!(store.accept(others, vec![]).await.unwrap(), [7, 8, 9].map(|seq| Accepted::New(Seq(seq))));
    store.close().await.unwrap();
    drop(store);
    let store = SqliteStore::open(folder.path(), Clock::fixed(5)).unwrap();
    assert_eq!(store.origin_uri(origins[2]).as_deref(), Some("/shop/new"));
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_rolled_back_origin_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    let other = Connection::open(folder.path().join("evoke.db")).unwrap();
    other.execute_batch("ALTER TABLE origins RENAME TO gone").unwrap();
    assert!(store.register_origins(vec!["/shop/a".into()]).await.is_err());
    other.execute_batch("ALTER TABLE gone RENAME TO origins").unwrap();
    drop(store);
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    assert_eq!(store.origin_uri(Origin(1)), None);
    assert_eq!(store.register_origins(vec!["/shop/a".into()]).await.unwrap(), [Origin(1)]);
}

#[tokio::test]
async fn a_damaged_delivery_does_not_run_and_updates_do_not_hide_the_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    for n in 0..3 {
        let event = Event { id: n.to_string(), source: "/s".into(), type_: "t".into(), ..Event::default() };
        let delivery = NewDelivery { function: f, trigger: "on[0]".into(), order_key: None };
        let new = NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries: vec![delivery] };
        store.accept(vec![new], vec![]).await.unwrap();
    }
    let other = Connection::open(folder.path().join("evoke.db")).unwrap();
    // The row now refers to another event, with which the delivery would run.
    other.execute("UPDATE deliveries SET event = 3 WHERE id = 2", []).unwrap();
    let ready: Vec<_> =
        store.claim(f, Stream::Live, DeliveryId(0), LoadLimit::of(2)).await.unwrap().iter().map(|d| d.id).collect();
    assert_eq!(ready, [1, 3].map(DeliveryId));
    let is_reported = |problems: &[String]| problems.iter().any(|p| p.contains("table deliveries, row 2:"));
    assert!(is_reported(&store.check().await.unwrap().problems));
    store.complete(end(2, f, Verdict::Done)).await.unwrap();
    assert!(is_reported(&store.check().await.unwrap().problems));
    let record = store.delivery(DeliveryId(2)).await.unwrap().unwrap();
    assert!(record.unwrap_err().what.contains("evoke.db is damaged: delivery 2"));
    // Event 1 is missing, but its delivery is intact: it becomes a dead letter.
    other.execute("DELETE FROM events WHERE seq = 1", []).unwrap();
    let ready = store.claim(f, Stream::Live, DeliveryId(0), LoadLimit::of(1)).await.unwrap();
    assert!(ready[0].event.as_ref().unwrap_err().what.contains("event 1 is missing in"), "{ready:?}");
}

#[tokio::test]
async fn misplaced_rows_are_not_returned_for_other_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evoke.db");
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    let f = store.register(vec!["shop/a".into(), "shop/b".into()]).await.unwrap();
    for n in 1..=3 {
        let event = Event { id: n.to_string(), source: "/s".into(), type_: "t".into(), ..Event::default() };
        let delivery = NewDelivery { function: f[0], trigger: "on[0]".into(), order_key: None };
        let new = NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries: vec![delivery] };
        store.accept(vec![new], vec![]).await.unwrap();
        store.complete(end(n, f[0], Verdict::Dead(format!("why {n}")))).await.unwrap();
        let mark = Mark { scope: format!("/{n}"), key: "k".into(), value: Some(vec![1]) };
        store.accept(vec![], vec![mark]).await.unwrap();
        let set = Some(evoke_model::state::Change::Set("v".into()));
        let touched =
            evoke_model::state::Touched { bucket: format!("b{n}").into(), key: "k".into(), seen: None, change: set };
        store
            .state_write(&Actor::Runtime, Transaction { keys: vec![touched], ..Transaction::default() })
            .await
            .unwrap();
    }
    store.close().await.unwrap();
    drop(store);
    // Each of these tables has one page. In each page, the third row is changed to a copy of the first, so a search for
    // rows after the second finds an earlier one.
    let pages: Vec<usize> = Connection::open(&path)
        .unwrap()
        .prepare("SELECT rootpage FROM sqlite_master WHERE name IN ('attempts', 'marks', 'state')")
        .unwrap()
        .query_map([], |r| Ok(usize::try_from(r.get::<_, i64>(0)?).unwrap()))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap();
    let mut file = std::fs::read(&path).unwrap();
    for page in pages {
        let pointers = (page - 1) * 4096 + 8;
        file.copy_within(pointers..pointers + 2, pointers + 4);
    }
    std::fs::write(&path, file).unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    let attempts = store.delivery(DeliveryId(2)).await.unwrap().unwrap().unwrap().attempts;
    let outcomes: Vec<&str> = attempts.iter().map(|attempt| &*attempt.outcome).collect();
    assert_eq!(outcomes, ["done", "damaged"], "{attempts:?}");
    assert!(matches!(store.marks("/2".into()).await, Err(StoreError::Damaged(_))));
    assert!(matches!(store.state_keys("b2", None, 9).await, Err(StoreError::Damaged(_))));
    // Next, the index of ready deliveries is changed so that it lists deliveries of another function.
    let other = Connection::open(&path).unwrap();
    assert_eq!(store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(), 3);
    let index: i64 = other
        .query_row("SELECT rootpage FROM sqlite_master WHERE name = 'deliveries_ready'", [], |r| r.get(0))
        .unwrap();
    store.close().await.unwrap();
    drop((store, other));
    let mut file = std::fs::read(&path).unwrap();
    let at = (usize::try_from(index).unwrap() - 1) * 4096;
    // A record in the index consists of the size of its header, the types of its values, and the values. The number 1
    // (of the function) is stored as a type only.
    let records = file[at..at + 4096].windows(3).enumerate().filter(|(_, bytes)| *bytes == [4, 9, 1]);
    let places: Vec<usize> = records.map(|(place, _)| at + place).collect();
    assert_eq!(places.len(), 2, "the records of deliveries 2 and 3; the id 1 is stored as a type only");
    // Changes the type to the one that stands for the number 0, so that the index lists the deliveries under function
    // 0.
    places.iter().for_each(|place| file[place + 1] = 8);
    std::fs::write(&path, file).unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    assert!(store.claim(FunctionId(0), Stream::Live, DeliveryId(0), LoadLimit::of(9)).await.unwrap().is_empty());
}

/// Returns the completion of the first attempt at the delivery with this number.
fn end(number: i64, function: FunctionId, verdict: Verdict) -> Arc<Completion> {
    let record = AttemptRecord { attempt: 1, started_ms: 0, duration_us: 1, outcome: "done".into(), message: None };
    let (publishes, state, root, origin) = (vec![], Transaction::default(), Seq(1), Origin::default());
    let (delivery, recording) = (DeliveryId(number), None);
    Arc::new(Completion { delivery, function, root, origin, record, verdict, publishes, state, recording })
}

#[tokio::test]
async fn damaged_rows_are_never_changed_or_removed_and_others_continue() {
    let folder = tempfile::tempdir().unwrap();
    let now_ms = Arc::new(AtomicI64::new(0));
    let store = SqliteStore::open(folder.path(), Clock::manual(&now_ms)).unwrap();
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let accept = async |n: i64, key: Option<&str>| {
        let event = Event { id: n.to_string(), source: "/s".into(), type_: "t".into(), ..Event::default() };
        let delivery = NewDelivery { function: f, trigger: "on[0]".into(), order_key: key.map(Into::into) };
        let new = NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries: vec![delivery] };
        store.accept(vec![new], vec![]).await
    };
    for (n, key) in [(1, Some("k")), (2, Some("k")), (3, Some("l")), (4, Some("l")), (5, None), (6, None)] {
        accept(n, key).await.unwrap();
    }
    let other = Connection::open(folder.path().join("evoke.db")).unwrap();
    let damage = |what: &str| assert_eq!(other.execute(&format!("UPDATE deliveries SET {what}"), []).unwrap(), 1);
    // Damages three deliveries: a waiting one, whose state becomes done, the next one of a key, and a dead letter. A
    // finished event is damaged later.
    damage("state = 3 WHERE id = 2");
    damage("trigger = 'on[7]' WHERE id = 4");
    store.complete(end(5, f, Verdict::Dead("why".into()))).await.unwrap();
    damage("cause = 'no' WHERE id = 5");
    for delivery in [1, 3, 6] {
        store.complete(end(delivery, f, Verdict::Done)).await.unwrap();
    }
    assert_eq!(store.claim(f, Stream::Live, DeliveryId(0), LoadLimit::of(9)).await.unwrap().len(), 0);
    assert_eq!(
        (
            store.redrive(&Actor::Runtime, DeadFilter::All).await.unwrap(),
            store.purge(&Actor::Runtime, DeadFilter::All).await.unwrap()
        ),
        (0, 0)
    );
    other.execute("UPDATE events SET id = 'x' WHERE seq = 6", []).unwrap();
    now_ms.store(1_000, Ordering::SeqCst);
    let all = Retention { age: Duration::from_millis(1), bytes: u64::MAX };
    assert_eq!(store.retain(&Actor::Runtime, all).await.unwrap(), 2, "the events of deliveries 1 and 3");
    let problems = store.check().await.unwrap().problems.join("\n");
    for what in
        ["table deliveries, row 2:", "table deliveries, row 4:", "table deliveries, row 5:", "table events, row 6:"]
    {
        assert!(problems.contains(what), "{what} {problems}");
    }
    accept(7, Some("k")).await.unwrap();
}

#[tokio::test]
async fn the_backlog_is_restored_on_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    let f = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let event = Event { id: "1".into(), source: "/s".into(), type_: "t".into(), ..Event::default() };
    let lineage = Lineage { origin: Origin::of("/s"), ..Lineage::default() };
    let to = |key: Option<&str>| NewDelivery { function: f, trigger: "on[0]".into(), order_key: key.map(Into::into) };
    let deliveries = vec![to(None), to(Some("k")), to(Some("k"))];
    let published = NewEvent {
        event: Arc::new(Event { id: "2".into(), ..event.clone() }),
        lineage: Lineage { cause: Some(DeliveryId(1)), root: Some(Seq(1)), hops: 1, ..lineage },
        deliveries: vec![to(None), to(None)],
    };
    let entered = NewEvent { event: Arc::new(event), lineage, deliveries };
    store.accept(vec![entered, published], vec![]).await.unwrap();
    let amounts = |store: &SqliteStore| {
        let backlog = store.backlog();
        (backlog.total(), backlog.of(Origin::of("/s")), backlog.published())
    };
    let before = amounts(&store);
    assert_eq!((before.0.deliveries, before.0, before.2.deliveries), (5, before.1, 2));
    drop(store);
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    assert_eq!(amounts(&store), before);
    store.complete(end(4, f, Verdict::Done)).await.unwrap();
    assert_eq!((store.backlog().total().deliveries, store.backlog().published().deliveries), (4, 1));
}

#[tokio::test]
async fn check_counts_rows_and_reports_wrong_running_totals() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    store.register(vec!["shop/a".into()]).await.unwrap();
    let other = Connection::open(folder.path().join("evoke.db")).unwrap();
    other.execute_batch("INSERT INTO totals VALUES (1, 'done', 3), (0, 'events', 2)").unwrap();
    let problems = store.check().await.unwrap().problems;
    let expected = [
        "the number of stored or removed events is 0, but the table `totals` says 2; the numbers must be equal",
        "the number of deliveries of shop/a in the state `done` is 0, but the table `totals` says 3; the numbers must \
         be equal",
    ];
    assert_eq!(problems[..2], expected);
    assert!(problems.len() == 3 && problems[2].contains("backup"), "{problems:?}");
}

#[test]
fn a_store_of_a_newer_version_is_not_opened() {
    let folder = tempfile::tempdir().unwrap();
    drop(SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap());
    let other = Connection::open(folder.path().join("evoke.db")).unwrap();
    other.pragma_update(None, "user_version", SCHEMA_VERSION + 1).unwrap();
    let Err(StoreError::Failed(message)) = SqliteStore::open(folder.path(), Clock::fixed(0)) else {
        unreachable!("a store of a newer version was opened")
    };
    assert!(message.contains("newer Evoke"), "{message}");
}

#[tokio::test]
async fn retention_returns_free_space_to_the_file_system() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(1)).unwrap();
    let data = evoke_model::event::Data::Binary(bytes::Bytes::from(vec![7; 100_000]));
    for n in 0..300 {
        let event =
            Event { id: n.to_string(), source: "/s".into(), type_: "t".into(), data: data.clone(), ..Event::default() };
        let new = NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries: vec![] };
        store.accept(vec![new], vec![]).await.unwrap();
    }
    let pages = |name: &str| -> i64 {
        let c = open_for_reading(&folder.path().join("evoke.db")).unwrap();
        c.query_row(&format!("PRAGMA {name}"), [], |r| r.get(0)).unwrap()
    };
    let before = pages("page_count");
    assert!(before > 7_000, "{before} pages");
    let removed = store.retain(&Actor::Runtime, Retention { age: Duration::MAX, bytes: 3_000_000 }).await.unwrap();
    assert!((265..285).contains(&removed), "{removed} removed");
    let (after, free) = (pages("page_count"), pages("freelist_count"));
    assert!(after < before / 3 && free < 2 * 1024, "{before} pages before, {after} after, {free} of them free");
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
}
