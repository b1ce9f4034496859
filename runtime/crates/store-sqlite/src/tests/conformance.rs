use super::*;
use evoke_store::conformance::DamagedRow;

fn open(clock: Clock, dedup_window: Duration) -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (SqliteStore::open_with(folder.path(), clock, dedup_window).unwrap(), folder)
}

/// Changes a value of a row on another connection. The row keeps its checksum, which is then wrong.
fn damage(folder: &tempfile::TempDir, row: DamagedRow) {
    let change = match row {
        DamagedRow::Event(seq) => format!("events SET type = 'x' WHERE seq = {seq}"),
        DamagedRow::Delivery(id) => format!("deliveries SET trigger = 'x' WHERE id = {id}"),
        DamagedRow::Mark { scope } => format!("marks SET value = x'ff' WHERE scope = '{scope}'"),
        DamagedRow::State { bucket } => format!("state SET value = x'ff' WHERE bucket = '{bucket}'"),
        DamagedRow::Replay(id) => format!("replays SET until = 99 WHERE id = {id}"),
    };
    let other = Connection::open(folder.path().join("evoke.db")).unwrap();
    assert_eq!(other.execute(&format!("UPDATE {change}"), []).unwrap(), 1);
}

evoke_store::conformance!(open, damage = damage);
