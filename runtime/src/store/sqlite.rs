//! The embedded store: SQLite in WAL mode with `synchronous = FULL`, in one file.
//!
//! One thread writes. It takes all commits that wait and puts them into one transaction, so that one fsync serves
//! them all (group commit); readers stand beside it, each on its own connection. `schema.sql` is the format.

mod backup;
mod check;
mod dedup;
mod failure;
mod folder;
mod known;
mod queue;
mod read;
mod readers;
mod replays;
mod retain;
mod rows;
mod schema;
mod state;
mod sums;
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
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::backup::backup;
use self::failure::failed;
pub use self::folder::make_folder;
use self::known::Known;
use self::queue::{Portion, Write};
use self::readers::{Readers, open_for_reading};
use super::{
    Accepted, Answer, Backlog, CheckReport, CommitSink, Completed, Completion, DEDUP_WINDOW, DeadFilter, DeliveryId,
    DeliveryRecord, EventFilter, FunctionId, Mark, NewEvent, NewReplay, ReadyDelivery, Replay, ReplayId, ReplayState,
    Result, Retention, Seq, Step, Store, StoreError, StoredEvent, Stream, Totals,
};
use crate::clock::{Clock, UnixMs};
use crate::state::{Entry, Keys, StateItem, Transaction, Usage};
use crate::telemetry::CommitMetrics;

/// Writes that may wait for the writer: four full group commits; callers wait for room beyond that.
const WAITING_MAX: usize = 4096;

/// A handle to an open store; the writer stops when the last one is dropped.
pub struct SqliteStore {
    writes: mpsc::Sender<Write>,
    readers: Arc<Readers>,
    known: Arc<Known>,
    sink: Arc<Mutex<Option<CommitSink>>>,
    newest: watch::Receiver<Seq>,
    failed: watch::Sender<Option<String>>,
    backlog: Arc<Backlog>,
    instance: String,
    clock: Clock,
}

impl SqliteStore {
    /// Opens the store in `folder`, making it when it is not there. One process may have it open for writing.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self> {
        Self::open_with(folder, clock, DEDUP_WINDOW)
    }

    /// The same, with the time in which a source and id are accepted once.
    pub fn open_with(folder: &Path, clock: Clock, dedup_window: Duration) -> Result<Self> {
        Self::open_measured(folder, clock, dedup_window, Arc::default())
    }

    /// The same, and counts its commits.
    pub fn open_measured(
        folder: &Path,
        clock: Clock,
        dedup_window: Duration,
        metrics: Arc<CommitMetrics>,
    ) -> Result<Self> {
        make_folder(folder)
            .map_err(|e| StoreError::Failed(format!("cannot make the data folder {}: {e}", folder.display())))?;
        let path = folder.join("evoke.db");
        if let Some(damage) = wal::damage(&path) {
            return Err(StoreError::Damaged(damage));
        }
        let in_words = |e: rusqlite::Error| failed(&path, &e);
        let mut connection = Connection::open(&path).map_err(in_words)?;
        schema::configure(&connection).map_err(in_words)?;
        // The files are there when something was read. SQLite syncs the folder too, and does not say when that fails.
        connection.query_row("PRAGMA user_version", [], |_| Ok(())).map_err(in_words)?;
        folder::sync_folder(folder)
            .map_err(|e| StoreError::Failed(format!("syncing the data folder {} failed: {e}", folder.display())))?;
        schema::prepare(&mut connection).map_err(in_words)??;
        let instance = connection
            .query_row("SELECT key, value, sum FROM meta WHERE key = 'instance'", [], |r| {
                sums::verify(r, 0, 2, || "the store's name".into())?;
                r.get::<_, String>(1)
            })
            .map_err(in_words)?;
        let mut counters = totals::Counters::load(&connection).map_err(in_words)?;
        let dedup = dedup::Dedup::load(&connection, dedup_window, instance.clone()).map_err(in_words)?;

        let known = Arc::new(state::load(&connection).map_err(in_words)?);
        let (newest_tx, newest) = watch::channel(counters.newest());
        let failed = watch::Sender::new(None);
        let (writes, queue) = mpsc::channel(WAITING_MAX);
        let sink = Arc::new(Mutex::new(None));
        let backlog = Arc::<Backlog>::default();
        backlog.apply(counters.backlog());
        let writer = writer::Writer {
            connection,
            path: path.clone(),
            dedup,
            counters,
            known: known.clone(),
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
            known,
            sink,
            newest,
            failed,
            backlog,
            instance,
            clock,
        })
    }

    fn write<T: Send + 'static>(&self, make: impl FnOnce(oneshot::Sender<Result<T>>) -> Write) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        match self.writes.try_send(make(reply)) {
            Ok(()) => Answer::reply(answer),
            Err(TrySendError::Closed(_)) => Answer::now(Err(StoreError::Closed)),
            Err(TrySendError::Full(write)) => Answer::later(send(self.writes.clone(), write, answer)),
        }
    }

    /// Writes portion after portion until none is left; answers how many dead letters they had in all.
    fn by_portion(
        &self,
        make: impl Fn(DeliveryId, oneshot::Sender<Result<Portion>>) -> Write + Send + 'static,
    ) -> Answer<u64> {
        let writes = self.writes.clone();
        Answer::later(async move {
            let (mut count, mut next_after) = (0, Some(0));
            while let Some(after) = next_after {
                let (reply, answer) = oneshot::channel();
                let portion = send(writes.clone(), make(after, reply), answer).await?;
                count += portion.count;
                next_after = portion.next_after;
            }
            Ok(count)
        })
    }

    /// What is known of a key, or what the file says.
    fn find_state(&self, bucket: &str, key: &str, ahead: bool) -> Result<Option<Entry>> {
        self.known.get(bucket, key, ahead).or_else(|ticket| {
            let entry = self.readers.now(|c| state::get(c, bucket, key))?;
            self.known.bring(&ticket, bucket, key, entry.clone());
            Ok(entry)
        })
    }

    fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        Readers::run(self.readers.clone(), query)
    }

    /// The same for what is owed: where that cannot be found because the file is damaged, the store has failed, rather
    /// than that it is looked for again and again.
    fn read_owed<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let (failed, found) = (self.failed.clone(), self.read(query));
        Answer::later(async move {
            let found = found.await;
            if let Err(StoreError::Damaged(reason)) = &found {
                failed.send_replace(Some(reason.clone()));
            }
            found
        })
    }
}

async fn send<T>(writes: mpsc::Sender<Write>, write: Write, answer: oneshot::Receiver<Result<T>>) -> Result<T> {
    writes.send(write).await.map_err(|_| StoreError::Closed)?;
    answer.await.map_err(|_| StoreError::Closed)?
}

/// Verifies the store in `folder` without opening it for writing; works beside a process that has it open.
pub fn check_folder(folder: &Path) -> Result<CheckReport> {
    let path = folder.join("evoke.db");
    let failed = |e: rusqlite::Error| failed(&path, &e);
    let connection = open_for_reading(&path).map_err(failed)?;
    // All rules look at one moment: a running process goes on writing.
    let moment = connection.unchecked_transaction().map_err(failed)?;
    let log = wal::damage(&path);
    match schema::is_of_this_version(&moment).map_err(failed)? {
        // All of the store may be in the log.
        Err(_) if log.is_some() => Ok(CheckReport { problems: log.into_iter().collect(), ..CheckReport::default() }),
        Err(error) => Err(error),
        Ok(()) => {
            let mut report = check::check(&moment);
            report.problems.splice(0..0, log);
            Ok(report)
        }
    }
}

impl Store for SqliteStore {
    fn register(&self, names: Vec<String>) -> Answer<Vec<FunctionId>> {
        self.write(|reply| Write::Register { names, reply })
    }

    fn on_commit(&self, sink: CommitSink) {
        *self.sink.lock().unwrap_or_else(PoisonError::into_inner) = Some(sink);
    }

    fn accept(&self, events: Vec<NewEvent>, marks: Vec<Mark>) -> Answer<Vec<Accepted>> {
        self.write(|reply| Write::Accept { events, marks, reply })
    }

    fn complete(&self, completion: Arc<Completion>) -> Answer<Completed> {
        self.write(|reply| Write::Complete { completion, reply: Some(reply) })
    }

    fn settle(&self, completion: Arc<Completion>) -> Answer<()> {
        match self.writes.try_send(Write::Complete { completion, reply: None }) {
            Ok(()) => Answer::now(Ok(())),
            Err(TrySendError::Closed(_)) => Answer::now(Err(StoreError::Closed)),
            Err(TrySendError::Full(write)) => {
                let writes = self.writes.clone();
                Answer::later(async move { writes.send(write).await.map_err(|_| StoreError::Closed) })
            }
        }
    }

    fn redrive(&self, which: DeadFilter) -> Answer<u64> {
        self.by_portion(move |after, reply| Write::Redrive { which: which.clone(), after, reply })
    }

    fn purge(&self, which: DeadFilter) -> Answer<u64> {
        self.by_portion(move |after, reply| Write::Purge { which: which.clone(), after, reply })
    }

    fn retain(&self, retention: Retention) -> Answer<u64> {
        let (writes, readers) = (self.writes.clone(), self.readers.clone());
        let age_ms = UnixMs::try_from(retention.age.as_millis()).unwrap_or(UnixMs::MAX);
        let before_ms = self.clock.now_ms().saturating_sub(age_ms);
        Answer::later(retain::sweep(writes, readers, before_ms, retention.bytes))
    }

    fn start_replay(&self, new: NewReplay) -> Answer<ReplayId> {
        self.write(|reply| Write::StartReplay { new, reply })
    }

    fn advance_replay(&self, replay: ReplayId, step: Step) -> Answer<bool> {
        self.write(|reply| Write::AdvanceReplay { replay, step, reply })
    }

    fn turn_replay(&self, replay: ReplayId, from: &'static [ReplayState], to: ReplayState) -> Answer<bool> {
        self.write(|reply| Write::TurnReplay { replay, from, to, reply })
    }

    fn drop_replay(&self, replay: ReplayId, but_for: Vec<DeliveryId>) -> Answer<u64> {
        let but_for: Arc<[DeliveryId]> = but_for.into();
        self.by_portion(move |after, reply| Write::DropReplay { replay, but_for: but_for.clone(), after, reply })
    }

    fn replays(&self) -> Answer<Vec<Replay>> {
        self.read(replays::all)
    }

    fn replay(&self, id: ReplayId) -> Answer<Option<Replay>> {
        self.read(move |c| replays::one(c, id))
    }

    fn ready(
        &self,
        function: FunctionId,
        stream: Stream,
        after: DeliveryId,
        limit: usize,
    ) -> Answer<Vec<ReadyDelivery>> {
        self.read_owed(move |c| read::ready(c, function, stream, after, limit))
    }

    fn due(
        &self,
        function: FunctionId,
        stream: Stream,
        now_ms: UnixMs,
        limit: usize,
    ) -> Answer<(Vec<ReadyDelivery>, Option<UnixMs>)> {
        self.read_owed(move |c| read::due(c, function, stream, now_ms, limit))
    }

    fn state(&self, bucket: &str, key: &str) -> Answer<Option<Entry>> {
        Answer::now(self.find_state(bucket, key, false))
    }

    fn state_ahead(&self, bucket: &str, key: &str) -> Answer<Option<Entry>> {
        Answer::now(self.find_state(bucket, key, true))
    }

    fn stage(&self, transaction: &mut Transaction) -> std::result::Result<(), StateItem> {
        self.known.stage(transaction)
    }

    fn state_keys(&self, bucket: &str, after: Option<&str>, limit: usize) -> Answer<Keys> {
        // The version first: a list that is newer than it says is read again, one that is older must be.
        let version = self.known.bucket(bucket).members;
        let keys = self.readers.now(|c| state::keys(c, bucket, after, limit));
        Answer::now(keys.map(|keys| Keys { keys, version }))
    }

    fn state_usage(&self, bucket: &str) -> Usage {
        self.known.bucket(bucket).usage
    }

    fn state_buckets(&self) -> BTreeMap<String, Usage> {
        self.known.usages()
    }

    fn state_write(&self, changes: Transaction) -> Answer<u64> {
        self.write(|reply| Write::State { changes, reply })
    }

    fn marks(&self, scope: String) -> Answer<BTreeMap<String, Vec<u8>>> {
        self.read(move |c| read::marks(c, &scope))
    }

    fn event(&self, seq: Seq) -> Answer<Option<StoredEvent>> {
        self.read(move |c| read::event(c, seq))
    }

    fn find(&self, id: String) -> Answer<Vec<Seq>> {
        self.read(move |c| read::find(c, &id))
    }

    fn events(&self, filter: EventFilter) -> Answer<Vec<StoredEvent>> {
        self.read(move |c| read::events(c, &filter))
    }

    fn deliveries(&self, event: Seq) -> Answer<Vec<DeliveryRecord>> {
        self.read(move |c| read::deliveries(c, event))
    }

    fn delivery(&self, id: DeliveryId) -> Answer<Option<DeliveryRecord>> {
        self.read(move |c| read::delivery(c, id))
    }

    fn published(&self, delivery: DeliveryId) -> Answer<Vec<StoredEvent>> {
        self.read(move |c| read::published(c, delivery))
    }

    fn dead(&self, which: DeadFilter, limit: usize) -> Answer<Vec<DeliveryRecord>> {
        self.read(move |c| read::dead(c, &which, limit))
    }

    fn totals(&self) -> Answer<Totals> {
        self.read(totals::read)
    }

    fn size_bytes(&self) -> Answer<u64> {
        Answer::now(Ok(self.readers.size_bytes()))
    }

    fn check(&self) -> Answer<CheckReport> {
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
                    // Closed in good order: it cannot fail any more.
                    std::future::pending::<()>().await;
                }
            }
        }
        .boxed()
    }

    fn instance(&self) -> &str {
        &self.instance
    }

    fn close(&self) -> Answer<()> {
        self.write(|reply| Write::Close { reply })
    }
}

#[cfg(test)]
mod tests;
