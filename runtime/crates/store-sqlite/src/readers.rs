//! A pool of read-only connections.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::Semaphore;

use super::checksum;
use super::failure::{log_of, store_error};
use super::files::StoreFiles;
use evoke_fs::PrivateFolder;
use evoke_store::{Result, StoreError, StoreFuture};

/// The caller of a query. Each kind of callers has permits of its own, so that no kind waits for the queries of another
/// one. For example, viewers with many slow queries delay no delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// The dispatcher, the schedule and retention.
    Runtime,
    /// The bus and the sources: duplicates, replies and marks. Requests of producers cause most of these queries.
    Source,
    /// The admin API and replays.
    Inspection,
}

/// Maximum numbers of queries of each kind of callers that run at the same time on threads for blocking work. The
/// limits save memory, because each connection has a page cache of about 2 MiB. Queries on the threads of callers, such
/// as those for the state of functions, need no permit and add at most one connection per thread.
const RUNTIME_MAX: usize = 4;
/// One more than the number of chains that the bus reads at the same time. So a duplicate does not wait for these reads.
const SOURCES_MAX: usize = 3;
const INSPECTIONS_MAX: usize = 2;
/// Number of steps of SQLite's virtual machine after which a query checks whether its caller still waits: about every
/// 100 µs.
const STEPS_PER_CHECK: std::ffi::c_int = 10_000;

pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let connection = open_read_only(path, OpenFlags::empty())?;
    // SQLite opens the file at the first read, and creates an index of the log, also if there is no log.
    let read = connection.query_row("PRAGMA user_version", [], |_| Ok(()));
    let is_refused = |error: &rusqlite::Error| {
        matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
    };
    if read.is_err_and(|error| is_refused(&error)) && is_stored_read_only(path) {
        return open_read_only(&immutable(path), OpenFlags::SQLITE_OPEN_URI);
    }
    // If the read failed, each later read returns the same error.
    Ok(connection)
}

fn open_read_only(path: &Path, more: OpenFlags) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | more;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    checksum::register_sql_function(&connection)?;
    Ok(connection)
}

/// Returns true for a store without a log in a folder to which this user cannot write, because the medium is read only
/// or the permission is missing. No process has such a store open: otherwise, there would be a log.
fn is_stored_read_only(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let is_writable = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok();
    !is_writable && std::fs::metadata(log_of(path)).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Returns the URI by which SQLite reads a file without locks and without an index of its log.
fn immutable(path: &Path) -> PathBuf {
    const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_');
    format!("file:{}?immutable=1", percent_encode(path.as_os_str().as_bytes(), ENCODED)).into()
}

pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    of_runtime: Semaphore,
    of_sources: Semaphore,
    of_inspections: Semaphore,
    /// Must be dropped after the connections, because closing these files drops the locks of the connections.
    _files: Option<Arc<StoreFiles>>,
    /// The folder, if the store is opened for reading only.
    _folder: Option<PrivateFolder>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, files: Arc<StoreFiles>) -> Self {
        Self::with(path, Some(files), None)
    }

    /// Creates the pool for a store that is opened for reading only.
    pub(super) fn of_folder(path: PathBuf, folder: PrivateFolder) -> Self {
        Self::with(path, None, Some(folder))
    }

    fn with(path: PathBuf, files: Option<Arc<StoreFiles>>, folder: Option<PrivateFolder>) -> Self {
        Self {
            path,
            idle: Mutex::default(),
            of_runtime: Semaphore::new(RUNTIME_MAX),
            of_sources: Semaphore::new(SOURCES_MAX),
            of_inspections: Semaphore::new(INSPECTIONS_MAX),
            _files: files,
            _folder: folder,
        }
    }

    fn permits(&self, reader: Reader) -> &Semaphore {
        match reader {
            Reader::Runtime => &self.of_runtime,
            Reader::Source => &self.of_sources,
            Reader::Inspection => &self.of_inspections,
        }
    }

    /// Returns the size in bytes of the database file, its log and the log's index.
    pub(super) fn size_bytes(&self) -> u64 {
        let files = ["", "-wal", "-shm"].into_iter().map(|ending| {
            let mut file = self.path.as_os_str().to_owned();
            file.push(ending);
            std::fs::metadata(file).map_or(0, |metadata| metadata.len())
        });
        files.sum()
    }

    /// Releases the page caches of the connections that are not in use.
    pub(super) fn release_caches(&self) {
        for connection in &*self.idle.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = connection.release_memory();
        }
    }

    /// Runs a short query on the current thread. A query that reads one row or page takes about 10 µs, which is less
    /// than a switch to another thread.
    pub(super) fn now<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let to_store_error = |e: rusqlite::Error| store_error(&self.path, &e);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = idle.map_or_else(|| open_for_reading(&self.path), Ok).map_err(to_store_error)?;
        let result = query(&connection).map_err(to_store_error);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }

    /// Runs a query on a thread for blocking work, after it has waited for a permit of its kind. Dropping the future
    /// ends the query, so that a client that has disconnected keeps no thread and no connection busy.
    pub(super) fn run<T: Send + 'static>(
        readers: Arc<Self>,
        reader: Reader,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        StoreFuture::from_future(async move {
            let _permit = readers.permits(reader).acquire().await.map_err(|_| StoreError::Closed)?;
            let pool = readers.clone();
            let caller = Caller::default();
            let has_left = caller.has_left.clone();
            let work = move || {
                let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let mut connection = idle.map_or_else(|| open_for_reading(&pool.path), Ok)?;
                connection.progress_handler(STEPS_PER_CHECK, Some(move || has_left.load(Ordering::Relaxed)))?;
                // One transaction, so that several queries see one snapshot.
                let result = connection.unchecked_transaction().and_then(|_transaction| query(&connection));
                connection.progress_handler(0, None::<fn() -> bool>)?;
                pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                result
            };
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| StoreError::Closed)?
                .map_err(|e| store_error(&readers.path, &e))
        })
    }
}

/// Is dropped together with the future of a query, and then records that the caller no longer waits for the result.
#[derive(Default)]
struct Caller {
    has_left: Arc<AtomicBool>,
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.has_left.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use foldhash::HashSet;
    use futures_util::poll;
    use tokio::time::timeout;

    use super::*;
    use crate::SqliteStore;
    use evoke_model::clock::Clock;
    use evoke_model::{DeliveryId, EventFilter, Seq, Stream};
    use evoke_store::{DeliveryStore, EventStore, InspectionStore, LoadLimit, ScheduleStore};

    const KINDS: [Reader; 3] = [Reader::Runtime, Reader::Source, Reader::Inspection];
    /// A test fails if a query takes longer.
    const LONG: Duration = Duration::from_secs(30);

    /// Starts more queries of a kind than can run at the same time. A query ends when its sender is dropped.
    async fn occupy(readers: &Arc<Readers>, reader: Reader) -> Vec<(mpsc::Sender<()>, StoreFuture<()>)> {
        let mut busy = Vec::new();
        for _ in 0..8 {
            let (end, ended) = mpsc::channel::<()>();
            let mut query = Readers::run(readers.clone(), reader, move |_| {
                let _ = ended.recv();
                Ok(())
            });
            assert!(poll!(&mut query).is_pending());
            busy.push((end, query));
        }
        busy
    }

    #[tokio::test]
    async fn the_queries_of_one_kind_make_no_other_kind_wait() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
        let one = |reader| {
            let query = |c: &Connection| c.query_row("SELECT 1", [], |r| r.get::<_, i64>(0));
            timeout(LONG, Readers::run(store.readers.clone(), reader, query))
        };
        for kind in KINDS {
            let busy = occupy(&store.readers, kind).await;
            for other in KINDS.into_iter().filter(|other| *other != kind) {
                assert_eq!(one(other).await.unwrap().unwrap(), 1, "{other:?} waits for {kind:?}");
            }
            drop(busy);
            assert_eq!(one(kind).await.unwrap().unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn viewers_that_use_all_their_connections_delay_no_delivery_no_schedule_and_no_duplicate() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
        let function = store.register(vec!["shop/a".into()]).await.unwrap()[0];
        let of_runtime = async || {
            let limit = LoadLimit::of(1);
            store.claim(function, Stream::Live, DeliveryId(0), limit).await.unwrap();
            store.due(function, Stream::Live, 0, HashSet::default(), limit).await.unwrap();
            store.due_events(0, 1).await.unwrap();
            store.order_key(DeliveryId(1)).await.unwrap();
            store.chain(DeliveryId(1)).await.unwrap();
        };
        let of_sources = async || {
            store.accepted(Seq(1)).await.unwrap();
            store.senders(vec![Seq(1)]).await.unwrap();
            store.chain_state(Seq(1), Arc::new(|_: &str| true)).await.unwrap();
            store.event_of("/s".into(), "1".into()).await.unwrap();
            store.is_pending(Seq(1)).await.unwrap();
            store.marks("/s".into()).await.unwrap();
        };
        let busy = occupy(&store.readers, Reader::Inspection).await;
        timeout(LONG, of_runtime()).await.unwrap();
        timeout(LONG, of_sources()).await.unwrap();
        drop(busy);
        // Producers that repeat events delay no delivery and no viewer.
        let _busy = occupy(&store.readers, Reader::Source).await;
        timeout(LONG, of_runtime()).await.unwrap();
        timeout(LONG, store.totals()).await.unwrap().unwrap();
        timeout(LONG, store.pending_since()).await.unwrap().unwrap();
        timeout(LONG, store.events(EventFilter::default())).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_query_whose_caller_has_left_ends_and_its_connection_serves_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path(), Clock::fixed(0)).unwrap();
        let readers = store.readers.clone();
        let (ended, end) = tokio::sync::oneshot::channel();
        // A query that never ends.
        let endless = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT COUNT(*) FROM n";
        let query = Readers::run(readers.clone(), Reader::Inspection, move |c| {
            let result = c.query_row(endless, [], |r| r.get::<_, i64>(0));
            let _ = ended.send(result.as_ref().err().and_then(rusqlite::Error::sqlite_error_code));
            result
        });
        assert!(tokio::time::timeout(Duration::from_millis(50), query).await.is_err());
        let started = Instant::now();
        assert_eq!(end.await.unwrap(), Some(ErrorCode::OperationInterrupted));
        assert!(started.elapsed() < Duration::from_secs(30));
        for n in 0..8 {
            let query = move |c: &Connection| c.query_row("SELECT ?1", [n], |r| r.get::<_, i64>(0));
            assert_eq!(Readers::run(readers.clone(), Reader::Inspection, query).await.unwrap(), n);
        }
    }
}
