//! The column `principal` of events: its migration and its checksum.

use super::*;

fn from(principal: Option<&str>, id: &str) -> NewEvent {
    let json = format!(r#"{{"id":"{id}","source":"/s","type":"t","data":{id}}}"#);
    let mut event = Event::from_json(json.as_bytes(), |_| {}).unwrap();
    event.principal = principal.map(Arc::from);
    NewEvent { event: Arc::new(event), lineage: Lineage::default(), deliveries: Vec::new() }
}

async fn principal(store: &SqliteStore, seq: i64) -> Option<String> {
    store.event(Seq(seq)).await.unwrap().unwrap().unwrap().event.principal.as_deref().map(str::to_owned)
}

#[tokio::test]
async fn a_version_6_store_keeps_its_checksums_and_its_damage_and_new_events_have_a_principal() {
    let folder = tempfile::tempdir().unwrap();
    let sixth = Connection::open(folder.path().join("evoke.db")).unwrap();
    checksum::register_sql_function(&sixth).unwrap();
    crate::origins::register_sql_function(&sixth).unwrap();
    sixth.execute_batch(include_str!("../migrate/1.sql")).unwrap();
    MIGRATIONS[..5].iter().for_each(|migration| sixth.execute_batch(migration).unwrap());
    let row = "NULL, NULL, NULL, NULL, NULL, 1, 5, 1, 0, NULL, NULL, 0, 0";
    let insert = |seq: i64, id: &str| {
        format!(
            "INSERT INTO events (seq, id, source, type, subject, time, datacontenttype, dataschema, extensions, data_kind,
               accepted_ms, first_delivery, owed, cause, root, hops, origin, data, sum)
             VALUES ({seq}, '{id}', '/s', 't', {row}, x'31', sum_of({seq}, 'a', '/s', 't', {row}, x'31'));"
        )
    };
    let content = "INSERT INTO meta VALUES ('instance', 'abc', sum_of('instance', 'abc'));
        INSERT OR REPLACE INTO totals VALUES (0, 'events', 2), (0, 'deliveries', 0), (0, 'owed', 0);
        PRAGMA user_version = 6;";
    sixth.execute_batch(&(insert(1, "a") + &insert(2, "damaged") + content)).unwrap();
    drop(sixth);

    let store = SqliteStore::open(folder.path(), Clock::fixed(5)).unwrap();
    assert_eq!(principal(&store, 1).await, None);
    assert!(store.event(Seq(2)).await.unwrap().unwrap().is_err());
    store.accept(vec![from(Some("github"), "3"), from(None, "4")], vec![]).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    let store = SqliteStore::open(folder.path(), Clock::fixed(5)).unwrap();
    assert_eq!((principal(&store, 3).await.as_deref(), principal(&store, 4).await), (Some("github"), None));
    let problems = store.check().await.unwrap().problems;
    assert!(problems.len() == 2 && problems[0].contains("table events, row 2:"), "{problems:?}");
}

#[tokio::test]
async fn the_senders_of_events_are_read_without_their_data() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
    store.accept(vec![from(Some("basic:ada"), "1"), from(None, "2")], vec![]).await.unwrap();
    // A read of the data would find that the checksums are wrong.
    let other = Connection::open(folder.path().join("evoke.db")).unwrap();
    other.execute_batch("UPDATE events SET data = x'00'").unwrap();
    assert!(store.event(Seq(1)).await.unwrap().unwrap().is_err());
    let senders = async || store.senders(vec![Seq(1), Seq(2), Seq(3)]).await.unwrap().into_iter().collect::<Vec<_>>();
    assert_eq!(senders().await, [(Seq(1), Some("basic:ada".into())), (Seq(2), None)]);
    // A sender that cannot be read does not hide the others.
    other.execute_batch("UPDATE events SET principal = x'00' WHERE seq = 1").unwrap();
    assert_eq!(senders().await, [(Seq(2), None)]);
}

#[tokio::test]
async fn a_principal_that_is_added_changed_or_removed_on_disk_is_damage() {
    for (seq, change) in [(1, "'stripe'"), (1, "NULL"), (2, "'github'"), (2, "''"), (1, "'githuc'"), (2, "0")] {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
        store.accept(vec![from(Some("github"), "1"), from(None, "2")], vec![]).await.unwrap();
        store.close().await.unwrap();
        drop(store);
        let other = Connection::open(folder.path().join("evoke.db")).unwrap();
        other.execute_batch(&format!("UPDATE events SET principal = {change} WHERE seq = {seq}")).unwrap();
        drop(other);
        let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
        assert!(store.event(Seq(seq)).await.unwrap().unwrap().is_err(), "{seq} {change}");
        let problems = store.check().await.unwrap().problems;
        assert!(problems[0].contains(&format!("table events, row {seq}:")), "{problems:?}");
    }
}
