//! The embedded store: SQLite in WAL mode with `synchronous = FULL`, in one file.
//!
//! One thread writes. The thread puts all waiting writes into one transaction, so that one fsync serves them all (group
//! commit). Readers run in parallel, each on its own connection. `schema.sql` specifies the file format.

mod backup;
mod check;
mod checksum;
mod dedup;
mod failure;
mod folder;
mod queue;
mod read;
mod readers;
mod replays;
mod retain;
mod rows;
mod schema;
mod space;
mod state;
mod state_cache;
mod totals;
mod wal;
mod write;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rusqlite::Connection;
use tokio::sync::watch;

pub use self::backup::backup;
pub use self::check::check_folder;
use self::failure::store_error;
pub use self::folder::make_folder;
use self::queue::WriteQueue;
use self::readers::Readers;
use self::state_cache::StateCache;
use self::write::accept::Accept;
use self::write::complete::Complete;
use self::write::dead::{Purge, Redrive};
use self::write::register::Register;
use self::write::state::WriteState;
use evoke_model::clock::{Clock, UnixMs};
use evoke_model::state::{Entry, Keys, StateItem, Transaction, Usage};
use evoke_model::{
    Accepted, CheckReport, Completed, Completion, DeadFilter, DeliveryId, DeliveryRecord, EventFilter, FunctionId,
    Mark, NewEvent, NewReplay, ReadyDelivery, Replay, ReplayId, ReplayState, Retention, Seq, Step, StoredEvent, Stream,
    Totals,
};
use evoke_store::{Backlog, CommitSink, DEDUP_WINDOW, Result, Store, StoreError, StoreFuture};
use evoke_telemetry::CommitMetrics;

/// A handle to an open store; the writer thread stops when the handle is dropped.
pub struct SqliteStore {
    writes: WriteQueue,
    readers: Arc<Readers>,
    state_cache: Arc<StateCache>,
    sink: Arc<Mutex<Option<CommitSink>>>,
    newest: watch::Receiver<Seq>,
    failed: watch::Sender<Option<String>>,
    backlog: Arc<Backlog>,
    instance: String,
    clock: Clock,
}

impl SqliteStore {
    /// Opens the store in `folder`, and creates it when it does not exist. Only one process may open it for writing.
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
        make_folder(folder)
            .map_err(|e| StoreError::Failed(format!("cannot create the data folder {}: {e}", folder.display())))?;
        let path = folder.join("evoke.db");
        if let Some(damage) = wal::find_damage(&path) {
            return Err(StoreError::Damaged(damage));
        }
        let to_store_error = |e: rusqlite::Error| store_error(&path, &e);
        let mut connection = Connection::open(&path).map_err(to_store_error)?;
        schema::configure(&connection).map_err(to_store_error)?;
        // SQLite creates the files at the first read. SQLite also syncs the folder, but ignores errors of that sync.
        connection.query_row("PRAGMA user_version", [], |_| Ok(())).map_err(to_store_error)?;
        folder::sync_folder(folder)
            .map_err(|e| StoreError::Failed(format!("syncing the data folder {} failed: {e}", folder.display())))?;
        schema::prepare(&mut connection).map_err(to_store_error)??;
        let instance = connection
            .query_row("SELECT key, value, sum FROM meta WHERE key = 'instance'", [], |r| {
                checksum::verify(r, 0, 2, || "the store's name".into())?;
                r.get::<_, String>(1)
            })
            .map_err(to_store_error)?;
        let mut counters = totals::Counters::load(&connection).map_err(to_store_error)?;
        let dedup = dedup::Dedup::load(&connection, dedup_window, instance.clone()).map_err(to_store_error)?;

        let state_cache = Arc::new(state::load(&connection).map_err(to_store_error)?);
        let (newest_tx, newest) = watch::channel(counters.last_seq());
        let failed = watch::Sender::new(None);
        let (writes, queue) = WriteQueue::new();
        let sink = Arc::new(Mutex::new(None));
        let backlog = Arc::<Backlog>::default();
        backlog.apply(counters.backlog_change());
        let writer = writer::Writer {
            connection,
            path: path.clone(),
            dedup,
            counters,
            state_cache: state_cache.clone(),
            clock: clock.clone(),
            sink: sink.clone(),
            newest: newest_tx,
            backlog: backlog.clone(),
            failure: failed.clone(),
            metrics,
        };
        std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(queue))
            .map_err(|e| StoreError::Failed(format!("cannot start the writer thread: {e}")))?;
        Ok(Self {
            writes,
            readers: Arc::new(Readers::new(path)),
            state_cache,
            sink,
            newest,
            failed,
            backlog,
            instance,
            clock,
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

    fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        Readers::run(self.readers.clone(), query)
    }

    /// Like `read`, for pending deliveries. When the file is too damaged to find them, the store fails, so that the
    /// dispatcher does not repeat the query endlessly.
    fn read_owed<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        let (failed, found) = (self.failed.clone(), self.read(query));
        StoreFuture::from_future(async move {
            let found = found.await;
            if let Err(StoreError::Damaged(reason)) = &found {
                failed.send_replace(Some(reason.clone()));
            }
            found
        })
    }
}

impl Store for SqliteStore {
    fn register(&self, names: Vec<String>) -> StoreFuture<Vec<FunctionId>> {
        self.writes.submit(Register { names })
    }

    fn on_commit(&self, sink: CommitSink) {
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }

    fn accept(&self, events: Vec<NewEvent>, marks: Vec<Mark>) -> StoreFuture<Vec<Accepted>> {
        self.writes.accept(Accept { events, marks })
    }

    fn complete(&self, completion: Arc<Completion>) -> StoreFuture<Completed> {
        self.writes.complete(Complete { completion })
    }

    fn settle(&self, completion: Arc<Completion>) -> StoreFuture<()> {
        self.writes.settle(Complete { completion })
    }

    fn redrive(&self, which: DeadFilter) -> StoreFuture<u64> {
        self.writes.submit_in_portions(move |after| Redrive { which: which.clone(), after })
    }

    fn purge(&self, which: DeadFilter) -> StoreFuture<u64> {
        self.writes.submit_in_portions(move |after| Purge { which: which.clone(), after })
    }

    fn retain(&self, retention: Retention) -> StoreFuture<u64> {
        let (writes, readers) = (self.writes.clone(), self.readers.clone());
        let age_ms = UnixMs::try_from(retention.age.as_millis()).unwrap_or(UnixMs::MAX);
        let before_ms = self.clock.now_ms().saturating_sub(age_ms);
        StoreFuture::from_future(retain::sweep(writes, readers, before_ms, retention.bytes))
    }

    fn start_replay(&self, new: NewReplay) -> StoreFuture<ReplayId> {
        self.writes.submit(write::replays::Start { new })
    }

    fn advance_replay(&self, replay: ReplayId, step: Step) -> StoreFuture<bool> {
        self.writes.submit(write::replays::Advance { replay, step })
    }

    fn transition_replay(&self, replay: ReplayId, from: &'static [ReplayState], to: ReplayState) -> StoreFuture<bool> {
        self.writes.submit(write::replays::Transition { replay, from, to })
    }

    fn purge_replay(&self, replay: ReplayId, except: Vec<DeliveryId>) -> StoreFuture<u64> {
        let except: Arc<[DeliveryId]> = except.into();
        self.writes.submit_in_portions(move |after| write::replays::PurgePending {
            replay,
            except: except.clone(),
            after,
        })
    }

    fn replays(&self) -> StoreFuture<Vec<Replay>> {
        self.read(replays::all)
    }

    fn replay(&self, id: ReplayId) -> StoreFuture<Option<Replay>> {
        self.read(move |c| replays::one(c, id))
    }

    fn ready(
        &self,
        function: FunctionId,
        stream: Stream,
        after: DeliveryId,
        limit: usize,
    ) -> StoreFuture<Vec<ReadyDelivery>> {
        self.read_owed(move |c| read::ready(c, function, stream, after, limit))
    }

    fn due(
        &self,
        function: FunctionId,
        stream: Stream,
        now_ms: UnixMs,
        limit: usize,
    ) -> StoreFuture<(Vec<ReadyDelivery>, Option<UnixMs>)> {
        self.read_owed(move |c| read::due(c, function, stream, now_ms, limit))
    }

    fn state(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>> {
        StoreFuture::ready(self.find_state(bucket, key, false))
    }

    fn state_with_staged(&self, bucket: &str, key: &str) -> StoreFuture<Option<Entry>> {
        StoreFuture::ready(self.find_state(bucket, key, true))
    }

    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), StateItem> {
        self.state_cache.stage(transaction)
    }

    fn state_keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> StoreFuture<Keys> {
        // Read the version before the list: a list newer than its version only causes a needless rerun, while one older
        // than its version would be accepted although stale.
        let version = self.state_cache.bucket(bucket).members;
        let keys = self.readers.now(|c| state::keys(c, bucket, after, limit));
        StoreFuture::ready(keys.map(|keys| Keys { keys, version }))
    }

    fn state_usage(&self, bucket: &str) -> Usage {
        self.state_cache.bucket(bucket).usage
    }

    fn state_buckets(&self) -> BTreeMap<String, Usage> {
        self.state_cache.usages()
    }

    fn state_write(&self, changes: Transaction) -> StoreFuture<u64> {
        self.writes.submit(WriteState { changes })
    }

    fn marks(&self, scope: String) -> StoreFuture<BTreeMap<String, Vec<u8>>> {
        self.read(move |c| read::marks(c, &scope))
    }

    fn event(&self, seq: Seq) -> StoreFuture<Option<StoredEvent>> {
        self.read(move |c| read::event(c, seq))
    }

    fn find(&self, id: String) -> StoreFuture<Vec<Seq>> {
        self.read(move |c| read::find(c, &id))
    }

    fn events(&self, filter: EventFilter) -> StoreFuture<Vec<StoredEvent>> {
        self.read(move |c| read::events(c, &filter))
    }

    fn deliveries(&self, event: Seq) -> StoreFuture<Vec<DeliveryRecord>> {
        self.read(move |c| read::deliveries(c, event))
    }

    fn delivery(&self, id: DeliveryId) -> StoreFuture<Option<DeliveryRecord>> {
        self.read(move |c| read::delivery(c, id))
    }

    fn published(&self, delivery: DeliveryId) -> StoreFuture<Vec<StoredEvent>> {
        self.read(move |c| read::published(c, delivery))
    }

    fn dead(&self, which: DeadFilter, limit: usize) -> StoreFuture<Vec<DeliveryRecord>> {
        self.read(move |c| read::dead(c, &which, limit))
    }

    fn totals(&self) -> StoreFuture<Totals> {
        self.read(totals::read)
    }

    fn size_bytes(&self) -> StoreFuture<u64> {
        StoreFuture::ready(Ok(self.readers.size_bytes()))
    }

    fn check(&self) -> StoreFuture<CheckReport> {
        self.read(|c| Ok(check::check(c)))
    }

    fn newest(&self) -> watch::Receiver<Seq> {
        self.newest.clone()
    }

    fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    fn failure(&self) -> BoxFuture<'static, String> {
        let mut failure = self.failed.subscribe();
        async move {
            loop {
                if let Some(reason) = failure.borrow_and_update().clone() {
                    return reason;
                }
                if failure.changed().await.is_err() {
                    // Closed without a failure: it can no longer fail.
                    std::future::pending::<()>().await;
                }
            }
        }
        .boxed()
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn close(&self) -> StoreFuture<()> {
        self.writes.close()
    }
}

#[cfg(test)]
mod tests;
