//! The migration of the indexes of blocked deliveries and of dead letters. The query for a range of deliveries: it
//! reads no deliveries outside of the range.

use super::*;
use evoke_model::PendingFilter;

#[tokio::test]
async fn a_version_9_store_lists_its_blocked_deliveries_and_dead_letters_by_function() {
    let folder = tempfile::tempdir().unwrap();
    let ninth = Connection::open(folder.path().join("evoke.db")).unwrap();
    checksum::register_sql_function(&ninth).unwrap();
    crate::origins::register_sql_function(&ninth).unwrap();
    ninth.execute_batch(include_str!("../migrate/1.sql")).unwrap();
    MIGRATIONS[..8].iter().for_each(|migration| ninth.execute_batch(migration).unwrap());
    // Two functions, each with a dead letter and a delivery that the dead letter blocks.
    let content = "INSERT INTO meta VALUES ('instance', 'abc', sum_of('instance', 'abc'));
        INSERT INTO functions VALUES (1, 'shop/a', sum_of(1, 'shop/a')), (2, 'shop/b', sum_of(2, 'shop/b'));
        INSERT INTO events (seq, id, source, type, data_kind, accepted_ms, first_delivery, owed, hops)
          VALUES (1, 'e', '/s', 't', 0, 5, 1, 4, 0);
        UPDATE events SET sum = sum_of(seq, id, source, type, subject, time, datacontenttype, dataschema, extensions,
          data_kind, accepted_ms, first_delivery, owed, cause, root, hops, origin, data);
        INSERT INTO deliveries (id, event, function, trigger, order_key, state, since_ms, cause) VALUES
          (1, 1, 1, 'on[0]', 'k', 4, 5, 'why'), (2, 1, 2, 'on[0]', 'k', 4, 5, 'why'),
          (3, 1, 1, 'on[0]', 'k', 2, 5, NULL), (4, 1, 2, 'on[0]', 'k', 2, 5, NULL);
        UPDATE deliveries SET sum = sum_of(id, event, function, trigger, order_key, origin, bytes, replay)
          + sum_of(state, attempts, forgiven, since_ms, due_ms, cause, done_ms, done_us);
        INSERT OR REPLACE INTO totals VALUES (0, 'events', 1), (0, 'deliveries', 4), (0, 'owed', 4), (1, 'dead', 1),
          (1, 'blocked', 1), (2, 'dead', 1), (2, 'blocked', 1);
        PRAGMA user_version = 9;";
    ninth.execute_batch(content).unwrap();
    drop(ninth);
    let store = SqliteStore::open(folder.path(), Clock::fixed(5)).unwrap();
    assert_eq!(store.pending(), 2);
    for (function, dead, blocked) in [("shop/a", 1, 3), ("shop/b", 2, 4)] {
        let of = DeadFilter::Function(function.into());
        let letters = store.newest_dead(of, DeliveryId(i64::MAX), 9).await.unwrap();
        assert_eq!(letters.iter().map(|read| read.as_ref().unwrap().id.0).collect::<Vec<_>>(), [dead]);
        let of = PendingFilter::Function(function.into());
        let waiting = store.pending_ids(of, Some(DeliveryState::Blocked), DeliveryId(0), 9).await.unwrap();
        assert_eq!(waiting, [DeliveryId(blocked)]);
    }
    assert_eq!(store.check().await.unwrap().problems, Vec::<String>::new());
}

#[test]
fn the_deliveries_of_an_event_are_read_from_a_range_with_two_ends() {
    let c = Connection::open_in_memory().unwrap();
    c.execute_batch(include_str!("../schema.sql")).unwrap();
    let query = format!("EXPLAIN QUERY PLAN SELECT d.state FROM deliveries d WHERE {}", crate::read::IN_RANGE);
    let plan: String = c.query_row(&query, [1, 2], |row| row.get(3)).unwrap();
    assert_eq!(plan, "SEARCH d USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)");
}
