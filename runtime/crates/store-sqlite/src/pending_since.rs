//! Since when the oldest pending delivery of each function has been pending. The index of retrying deliveries has the
//! order of their next attempts, so the search for the oldest one reads all index entries of a function. Each client
//! that watches the status asks for this every second. So the clients share one read, and its result is reused for a
//! time that grows with the number of entries.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::readers::{Reader, Readers};
use evoke_model::clock::UnixMs;
use evoke_store::Result;

/// A result is reused for 1 ms for each of this many entries that were read for it. Reading them takes about 0.1 ms. So
/// the reads take about a tenth of the time, however many deliveries are retrying. With fewer entries, each call reads.
const ENTRIES_PER_MS: u64 = 1_000;

/// The last result. The lock is held during a read.
#[derive(Default)]
pub(super) struct PendingSince(Mutex<Option<Last>>);

struct Last {
    /// When the read started.
    started: Instant,
    reused_until: Instant,
    found: BTreeMap<String, UnixMs>,
}

impl PendingSince {
    /// Returns, for each function, the store time since which its oldest ready or retrying live delivery has been
    /// pending.
    pub(super) async fn read(&self, readers: Arc<Readers>) -> Result<BTreeMap<String, UnixMs>> {
        let arrived = Instant::now();
        let mut last = self.0.lock().await;
        let started = Instant::now();
        if let Some(last) = &*last
            && (last.started > arrived || started < last.reused_until)
        {
            return Ok(last.found.clone());
        }
        let (found, entries) = Readers::run(readers, Reader::Inspection, search).await?;
        let reused_until = Instant::now() + Duration::from_millis(entries / ENTRIES_PER_MS);
        *last = Some(Last { started, reused_until, found: found.clone() });
        Ok(found)
    }
}

/// Also returns the number of index entries that were read.
fn search(c: &Connection) -> rusqlite::Result<(BTreeMap<String, UnixMs>, u64)> {
    let mut ready = c.prepare_cached(
        "SELECT since_ms FROM deliveries WHERE function = ?1 AND state = 0 AND replay = 0 ORDER BY id LIMIT 1",
    )?;
    let mut retrying = c.prepare_cached(
        "SELECT MIN(id), COUNT(*) FROM deliveries INDEXED BY deliveries_due
         WHERE function = ?1 AND state = 1 AND replay = 0",
    )?;
    let mut since = c.prepare_cached("SELECT since_ms FROM deliveries WHERE id = ?1")?;
    let mut functions = c.prepare_cached("SELECT id, name FROM functions")?;
    let (mut found, mut entries) = (BTreeMap::new(), 0);
    let mut rows = functions.query([])?;
    while let Some(row) = rows.next()? {
        let function: i64 = row.get(0)?;
        let of_ready: Option<UnixMs> = ready.query_row([function], |r| r.get(0)).optional()?;
        let (oldest, count): (Option<i64>, i64) = retrying.query_row([function], |r| Ok((r.get(0)?, r.get(1)?)))?;
        let of_retrying: Option<UnixMs> = since.query_row([oldest], |r| r.get(0)).optional()?;
        entries += u64::try_from(count).unwrap_or_default();
        if let Some(since_ms) = of_ready.into_iter().chain(of_retrying).min() {
            found.insert(row.get(1)?, since_ms);
        }
    }
    Ok((found, entries))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SqliteStore;
    use evoke_model::clock::Clock;
    use evoke_store::{DeliveryStore, InspectionStore};

    #[tokio::test(start_paused = true)]
    async fn a_read_of_many_retrying_deliveries_is_not_repeated_for_each_call() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
        let function = store.register(vec!["shop/a".into()]).await.unwrap()[0];
        let other = Connection::open(folder.path().join("evoke.db")).unwrap();
        let content = format!(
            "WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 50000)
             INSERT INTO deliveries (id, event, function, trigger, state, since_ms, due_ms)
               SELECT id, id, {function}, 't', 1, 100, id * 37 % 50000 FROM n"
        );
        other.execute_batch(&content).unwrap();
        let change = |sql: &str| other.execute_batch(sql).unwrap();
        let oldest = async || store.pending_since().await.unwrap()["shop/a"];
        assert_eq!(oldest().await, 100);
        change("UPDATE deliveries SET since_ms = 50 WHERE id = 1");
        tokio::time::advance(Duration::from_millis(49)).await;
        assert_eq!(oldest().await, 100, "the last read is reused");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(oldest().await, 50);
        // A read of few deliveries is not reused.
        change("DELETE FROM deliveries WHERE id > 999");
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(oldest().await, 50);
        change("UPDATE deliveries SET since_ms = 20 WHERE id = 1");
        assert_eq!(oldest().await, 20);
    }
}
