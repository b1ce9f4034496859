//! The embedded store: SQLite in WAL mode with `synchronous = FULL`, in one file.
//!
//! One thread writes. The thread puts all waiting writes into one transaction, so that one fsync serves them all (group
//! commit). Readers run in parallel, each on its own connection. `schema.sql` specifies the file format.

mod backup;
mod chain;
mod check;
mod checksum;
mod dedup;
mod failure;
mod files;
mod folder;
mod in_order;
mod inspect;
mod origins;
mod overwritten;
mod pending;
mod pending_since;
mod queue;
mod read;
mod read_only;
mod readers;
mod recordings;
mod replays;
mod retain;
mod rows;
pub mod running;
mod schedule;
mod schema;
mod space;
mod state;
mod state_cache;
mod statements;
mod store;
mod store_time;
mod totals;
mod wal;
mod wall_time;
mod write;
mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::watch;

pub use self::backup::backup;
pub use self::check::check_folder;
use self::failure::{store_error, write_error};
use self::files::StoreFiles;
pub use self::folder::{discard_index, prepare_data_folder, reserve_own};
use self::origins::OriginTable;
use self::pending_since::PendingSince;
use self::queue::WriteQueue;
use self::readers::{Reader, Readers};
use self::state_cache::StateCache;
use self::wall_time::AtWallTime;
use evoke_model::clock::Clock;
use evoke_model::state::Entry;
use evoke_model::{DescendantsLimits, Seq};
use evoke_store::descendants::Chains;
use evoke_store::{Alarm, Backlog, CommitSink, DEDUP_WINDOW, Result, Scopes, StoreError, StoreFuture};
use evoke_telemetry::CommitMetrics;

/// A handle to an open store; the writer thread stops when the handle is dropped.
pub struct SqliteStore {
    writes: WriteQueue,
    readers: Arc<Readers>,
    pending_since: Arc<PendingSince>,
    state_cache: Arc<StateCache>,
    sink: Arc<Mutex<Option<CommitSink>>>,
    newest: watch::Receiver<Seq>,
    failed: watch::Sender<Option<String>>,
    backlog: Arc<Backlog>,
    schedule_backlog: Arc<Backlog>,
    dead_letters: Arc<Backlog>,
    alarm: Arc<Alarm>,
    scopes: Scopes,
    origins: OriginTable,
    descendants_limits: Arc<Mutex<Arc<DescendantsLimits>>>,
    /// The temporary error with which writes are refused now; `None` after a later write was committed. If the disk
    /// was full, only a commit that changes rows clears the error, because other commits need no space.
    refusal: Arc<Mutex<Option<StoreError>>>,
    instance: String,
    clock: Clock,
    /// Dropping the sender stops the thread that watches the files.
    _watch: mpsc::Sender<std::convert::Infallible>,
}

impl SqliteStore {
    /// Opens the store in `folder`, and creates it when it does not exist. Only one process may open it for writing.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if another program holds a lock for more than a few seconds; the caller can try again.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self> {
        Self::open_with(folder, clock, DEDUP_WINDOW)
    }

    /// Opens the store with a given dedup window.
    pub fn open_with(folder: &Path, clock: Clock, dedup_window: Duration) -> Result<Self> {
        Self::open_measured(folder, clock, dedup_window, Arc::default())
    }

    /// Opens the store with a given dedup window and counts its commits in `metrics`.
    pub fn open_measured(
        folder: &Path,
        clock: Clock,
        dedup_window: Duration,
        metrics: Arc<CommitMetrics>,
    ) -> Result<Self> {
        let prepared = prepare_data_folder(folder).map_err(folder::to_store_error)?;
        prepared.folder.find("evoke.db").map_err(folder::to_store_error)?;
        let path = folder.join("evoke.db");
        if let Some(damage) = wal::find_damage(&path) {
            return Err(StoreError::Damaged(damage));
        }
        let to_store_error = |e: rusqlite::Error| store_error(&path, &e);
        let mut connection = Connection::open(&path).map_err(to_store_error)?;
        schema::configure(&connection).map_err(|e| write_error(&path, &connection, &e))?;
        // SQLite creates the files at the first read. SQLite ignores errors when it syncs the folder, so the folder is
        // synced here again.
        connection.query_row("PRAGMA user_version", [], |_| Ok(())).map_err(|e| write_error(&path, &connection, &e))?;
        evoke_fs::sync_folder(folder)
            .map_err(|e| StoreError::Failed(format!("syncing the data folder {} failed: {e}", folder.display())))?;
        schema::prepare(&mut connection).map_err(|e| write_error(&path, &connection, &e))??;
        let instance = connection
            .query_row("SELECT key, value, sum FROM meta WHERE key = 'instance'", [], |r| {
                checksum::verify(r, 0, 2, || "the store's name".into())?;
                r.get::<_, String>(1)
            })
            .map_err(to_store_error)?;
        let mut counters = totals::Counters::load(&connection).map_err(to_store_error)?;
        let dedup = dedup::Dedup::load(&connection, dedup_window, instance.clone()).map_err(to_store_error)?;

        let time = store_time::StoreTime::resume(&connection, clock.clone())
            .map_err(|e| write_error(&path, &connection, &e))?;
        let origins = origins::load(&connection).map_err(to_store_error)?;
        let state_cache = Arc::new(state::load(&connection).map_err(to_store_error)?);
        let files = Arc::new(StoreFiles::protect(prepared.folder)?);
        let (newest_tx, newest) = watch::channel(counters.last_seq());
        let failed = watch::Sender::new(None);
        let cannot_start = |e| StoreError::Failed(format!("cannot start a thread of the store: {e}"));
        let watch = StoreFiles::watch(files.clone(), failed.clone()).map_err(cannot_start)?;
        let (writes, queue) = WriteQueue::new();
        let sink = Arc::new(Mutex::new(None));
        let backlog = Arc::<Backlog>::default();
        backlog.apply(counters.backlog_change());
        let (schedule_backlog, alarm) = (Arc::<Backlog>::default(), Arc::<Alarm>::default());
        schedule_backlog.apply(counters.schedule_change());
        let dead_letters = Arc::<Backlog>::default();
        dead_letters.apply(counters.dead_change());
        let descendants_limits = Arc::<Mutex<Arc<DescendantsLimits>>>::default();
        let readers = Arc::new(Readers::new(path.clone(), files.clone()));
        let refusal = Arc::<Mutex<Option<StoreError>>>::default();
        let writer = writer::Writer {
            connection,
            path,
            dedup,
            counters,
            chains: Chains::default(),
            descendants_limits: descendants_limits.clone(),
            state_cache: state_cache.clone(),
            time,
            sink: sink.clone(),
            newest: newest_tx,
            backlog: backlog.clone(),
            schedule_backlog: schedule_backlog.clone(),
            dead_letters: dead_letters.clone(),
            alarm: alarm.clone(),
            failure: failed.clone(),
            refusal: refusal.clone(),
            busy_since: None,
            metrics,
            readers: Arc::downgrade(&readers),
            files,
        };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                evoke_fs::shorten_time_slice();
                writer.run(queue);
            })
            .map_err(cannot_start)?;
        Ok(Self {
            writes,
            readers,
            pending_since: Arc::default(),
            state_cache,
            sink,
            newest,
            failed,
            backlog,
            schedule_backlog,
            dead_letters,
            alarm,
            scopes: Scopes::default(),
            origins,
            descendants_limits,
            refusal,
            instance,
            clock,
            _watch: watch,
        })
    }

    /// Returns the value of a key from the cache, or else from the file.
    fn find_state(&self, bucket: &str, key: &str, with_staged: bool) -> Result<Option<Entry>> {
        self.state_cache.get(bucket, key, with_staged).or_else(|ticket| {
            let entry = self.readers.now(|c| state::get(c, bucket, key))?;
            self.state_cache.insert_read(&ticket, bucket, key, entry.clone());
            Ok(entry)
        })
    }

    fn find_state_size(&self, bucket: &str, key: &str) -> Result<Option<usize>> {
        match self.state_cache.get(bucket, key, true) {
            Ok(entry) => Ok(entry.map(|entry| entry.value.len())),
            Err(_) => Ok(self.readers.now(|c| state::find(c, bucket, key))?.map(|found| found.size)),
        }
    }

    fn read<T: Send + 'static>(
        &self,
        reader: Reader,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        Readers::run(self.readers.clone(), reader, query)
    }

    /// Like `read`, for rows that are shown to users: their times are converted to the wall clock.
    fn read_at_wall<T: AtWallTime + Send + 'static>(
        &self,
        reader: Reader,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let clock = self.clock.clone();
        self.read(reader, move |c| Ok(query(c)?.at_wall_time(&clock)))
    }

    /// Like `read`, for pending deliveries. If the file is so damaged that the query fails, the whole store fails.
    /// Otherwise the dispatcher would repeat the query endlessly.
    fn read_owed<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let (failed, found) = (self.failed.clone(), self.read(Reader::Runtime, query));
        StoreFuture::from_future(async move {
            let found = found.await;
            if let Err(StoreError::Damaged(reason)) = &found {
                failed.send_replace(Some(reason.clone()));
            }
            found
        })
    }
}

#[cfg(test)]
mod tests;
