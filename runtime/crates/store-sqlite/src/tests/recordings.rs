//! The table `recordings`: its migration, and damaged rows.

use super::*;
use evoke_model::recording::{NewRecording, RecordingLimits, RecordingNumber};
use evoke_store::RecordingStore as _;

fn recorded(number: i64, function: FunctionId) -> Arc<Completion> {
    let limits = RecordingLimits { count: 10, bytes: 1_000, age: Duration::from_secs(60) };
    let recording = Some(NewRecording { data: format!("{{\"n\":{number}}}").into(), limits });
    Arc::new(Completion { recording, ..Arc::unwrap_or_clone(end(number, function, Verdict::Done)) })
}

fn to(function: FunctionId) -> NewDelivery {
    NewDelivery { function, trigger: "on[0]".into(), order_key: None }
}

async fn contents(store: &SqliteStore) -> Vec<std::result::Result<String, String>> {
    let found = store.newest_recordings("shop/a".into(), RecordingNumber::MAX, 10).await.unwrap();
    found.into_iter().map(|stored| stored.data.map(|data| String::from_utf8(data.to_vec()).unwrap())).collect()
}

async fn store_two(store: &SqliteStore) {
    let function = store.register(vec!["shop/a".into()]).await.unwrap()[0];
    let json = br#"{"id":"1","source":"/s","type":"t"}"#;
    let event = Arc::new(Event::from_json(json, |_| {}).unwrap());
    let new = NewEvent { event, lineage: Lineage::default(), deliveries: vec![to(function), to(function)] };
    store.accept(vec![new], vec![]).await.unwrap();
    for number in 1..=2 {
        store.complete(recorded(number, function)).await.unwrap();
    }
}

#[tokio::test]
async fn a_version_8_store_gets_the_table_of_recordings() {
    let folder = tempfile::tempdir().unwrap();
    let eighth = Connection::open(folder.path().join("evoke.db")).unwrap();
    checksum::register_sql_function(&eighth).unwrap();
    crate::origins::register_sql_function(&eighth).unwrap();
    eighth.execute_batch(include_str!("../migrate/1.sql")).unwrap();
    MIGRATIONS[..7].iter().for_each(|migration| eighth.execute_batch(migration).unwrap());
    let content = "INSERT INTO meta VALUES ('instance', 'abc', sum_of('instance', 'abc'));
        INSERT OR REPLACE INTO totals VALUES (0, 'events', 0), (0, 'deliveries', 0), (0, 'owed', 0);
        PRAGMA user_version = 8;";
    eighth.execute_batch(content).unwrap();
    drop(eighth);
    let store = SqliteStore::open(folder.path(), Clock::fixed(5)).unwrap();
    store_two(&store).await;
    assert_eq!(contents(&store).await, [Ok("{\"n\":2}".to_owned()), Ok("{\"n\":1}".to_owned())]);
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
}

#[tokio::test]
async fn a_damaged_recording_is_an_error_in_its_place_and_others_are_returned() {
    for change in ["data = x'7b7d'", "attempt = 2", "expires_ms = 0", "start_bytes = 1"] {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Clock::fixed(5)).unwrap();
        store_two(&store).await;
        let other = Connection::open(folder.path().join("evoke.db")).unwrap();
        other.execute_batch(&format!("UPDATE recordings SET {change} WHERE id = 2")).unwrap();
        drop(other);
        let found = contents(&store).await;
        assert!(found[0].as_ref().is_err_and(|what| what.contains("is corrupt")), "{change}: {found:?}");
        assert_eq!(found[1].as_deref(), Ok("{\"n\":1}"), "{change}");
        let problems = store.check().await.unwrap().problems;
        assert!(problems[0].contains("table recordings, row 2:"), "{problems:?}");
    }
}
