//! The writer thread: it commits the queued writes in groups. After the first permanent failure, the thread rejects all
//! further writes; the code calls this the latch.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use super::dedup::Dedup;
use super::failure::{log_of, write_error};
use super::files::StoreFiles;
use super::queue::{Message, Pending, Reply};
use super::readers::Readers;
use super::schema::BUSY_WAIT;
use super::state::Batch;
use super::state_cache::StateCache;
use super::statements::Statements;
use super::store_time::StoreTime;
use super::totals::Counters;
use super::write::GroupCommit;
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, DescendantsLimits, FunctionId, ReadyDelivery, Seq};
use evoke_store::descendants::Chains;
use evoke_store::{Alarm, Backlog, CommitSink, Committed, StoreError};
use evoke_telemetry::CommitMetrics;

/// Maximum number of writes per commit. Beyond about a thousand writes, the fsync is a small part of the commit's time,
/// and a larger batch only makes its first write wait longer.
const BATCH_MAX: usize = 1024;

/// Maximum number of payload bytes per commit. This limits the memory of the transaction and the time of its fsync.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// After a batch of at least this many writes, the writer waits for [`BATCH_WAIT`]. In this time, the callers that just
/// received their results send their next writes, one after another. Without the wait, the next commit would contain
/// only the first of these writes, and the others would wait for the commit after it. The wait saves a third of the
/// commits and about 7 % of the processor time per event.
const BUSY_BATCH_MIN: usize = 8;

/// The approximate time for which the writer waits: a small part of the time of an fsync. With a single caller, the
/// writer never waits.
const BATCH_WAIT: Duration = Duration::from_micros(50);

/// If the log has at least this many pages of 4 KiB, it is copied into the database. The number is small enough to read
/// the log quickly after a crash. It is large enough that many changes of a page need only one copy of the page.
const LOG_PAGES_MAX: i64 = 4000;

/// Time without writes after which the connections release their page caches, so that memory use falls after a burst of
/// events. The pages are still in the kernel's cache, so reading them again takes only some microseconds per page.
const IDLE_AFTER: Duration = Duration::from_secs(2);
/// If the log has at least this many pages and no reader needs it, its file is truncated. The log becomes this long
/// while a reader runs for a long time, because SQLite cannot reuse the log during that time.
const LOG_PAGES_LONG: i64 = 2 * LOG_PAGES_MAX;

/// How long a write waits for the lock of another program while writes are already refused because of this lock. The
/// time is short, so that callers receive the error quickly, and the queue stays short.
const BUSY_POLL: Duration = Duration::from_millis(100);

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) dedup: Dedup,
    pub(super) counters: Counters,
    pub(super) chains: Chains,
    pub(super) descendants_limits: Arc<Mutex<Arc<DescendantsLimits>>>,
    pub(super) state_cache: Arc<StateCache>,
    pub(super) time: StoreTime,
    pub(super) sink: Arc<Mutex<Option<CommitSink>>>,
    pub(super) newest: watch::Sender<Seq>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) schedule_backlog: Arc<Backlog>,
    pub(super) dead_letters: Arc<Backlog>,
    pub(super) alarm: Arc<Alarm>,
    pub(super) failure: watch::Sender<Option<String>>,
    /// The temporary error with which writes are refused now; `None` after a later write was committed. If the disk was
    /// full, only a commit that changes rows counts, because other commits need no space.
    pub(super) refusal: Arc<Mutex<Option<StoreError>>>,
    /// The time since which another program has held a lock that prevents writes; `None` if there is no such lock.
    pub(super) busy_since: Option<Instant>,
    pub(super) metrics: Arc<CommitMetrics>,
    /// The readers. They release their page caches when the writer releases its page cache.
    pub(super) readers: Weak<Readers>,
    /// Must be dropped after the connection, because closing these files drops the connection's locks.
    pub(super) files: Arc<StoreFiles>,
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

/// The effects of a committed transaction.
struct Transacted {
    ready: Vec<ReadyDelivery>,
    cancelled: Vec<(FunctionId, DeliveryId)>,
    /// The earliest due time of the newly scheduled events.
    scheduled_ms: Option<UnixMs>,
    /// True if a write requested a checkpoint.
    checkpoint: bool,
    /// True if the transaction changed rows.
    changed: bool,
}

struct Checkpointed {
    /// The length of the log in pages.
    pages: i64,
    /// True if the whole log was copied into the database.
    complete: bool,
}

impl Writer {
    /// Commits batches until the store is closed, all handles are dropped, or a commit fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Message>) {
        let mut closing = Vec::new();
        let mut last = 0;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        while let Some(first) = self.receive(&mut queue, &waker) {
            if last >= BUSY_BATCH_MIN && queue.len() < last * 3 / 4 {
                thread::sleep(BATCH_WAIT);
            }
            let batch = take_batch(first, &mut queue, &mut closing);
            last = batch.len();
            let committed = if batch.is_empty() { Ok(false) } else { self.commit(batch) };
            if let Err(reason) = committed
                .and_then(|checkpoint| if checkpoint { self.shorten_log() } else { self.checkpoint_when_due() })
            {
                self.reject_all(&reason, closing, &mut queue);
                return;
            }
            if !closing.is_empty() {
                // The queue may still contain writes that were sent before the close: they are committed, too.
                queue.close();
            }
        }
        // The checkpoint does not wait for readers. If a reader prevents it now, the next start copies the log.
        let _ = self.connection.busy_timeout(Duration::ZERO);
        // The files may belong to another store now, for example if a backup was copied over the database. Then the log
        // of this store must not be copied into that database.
        let closed = self.files.verify().and_then(|()| self.checkpoint("TRUNCATE")).and_then(|_| self.files.verify());
        match closed {
            Ok(()) => {
                self.files.release();
                reply_all(closing, &Ok(()));
            }
            Err(reason) => self.reject_all(&reason, closing, &mut queue),
        }
    }

    /// Waits for the next message. `waker` must wake this thread. Returns `None` when the queue is closed and empty.
    fn receive(&self, queue: &mut mpsc::Receiver<Message>, waker: &Waker) -> Option<Message> {
        let since = Instant::now();
        let mut is_released = false;
        loop {
            if let Poll::Ready(message) = queue.poll_recv(&mut Context::from_waker(waker)) {
                return message;
            }
            match IDLE_AFTER.checked_sub(since.elapsed()) {
                _ if is_released => thread::park(),
                Some(left) if !left.is_zero() => thread::park_timeout(left),
                _ => {
                    is_released = true;
                    self.release_caches();
                }
            }
        }
    }

    fn release_caches(&self) {
        // An error is ignored: it means that a statement is running, which needs its pages.
        let _ = self.connection.release_memory();
        if let Some(readers) = self.readers.upgrade() {
            readers.release_caches();
        }
    }

    /// Commits one batch in one transaction. Returns true if a checkpoint was requested. An error stops the store
    /// permanently, because the content of the disk is then unknown.
    fn commit(&mut self, mut batch: Vec<Pending>) -> Result<bool, String> {
        let (before, started) = (self.counters.last_ids(), Instant::now());
        match self.transact(&mut batch) {
            Ok(Transacted { ready, cancelled, scheduled_ms, checkpoint, changed }) => {
                // If the files were removed or replaced, the commit was written to the old files. So the callers must
                // receive an error.
                if let Err(reason) = self.files.verify() {
                    self.latch(&reason);
                    self.notify(Vec::new(), Vec::new(), batch, &Err(StoreError::Failed(reason.clone())));
                    return Err(reason);
                }
                self.metrics.writes.observe_count(batch.len() as u64);
                self.metrics.duration.observe(started.elapsed());
                self.backlog.apply(self.counters.backlog_change());
                self.schedule_backlog.apply(self.counters.schedule_change());
                self.dead_letters.apply(self.counters.dead_change());
                self.writes_succeed(changed);
                scheduled_ms.into_iter().for_each(|due_ms| self.alarm.set(due_ms));
                self.notify(ready, cancelled, batch, &Ok(()));
                Ok(checkpoint)
            }
            Err(error) => {
                self.counters.roll_back(before);
                self.dedup.rolled_back();
                self.chains.clear();
                let error = write_error(&self.path, &self.connection, &error);
                if error.is_temporary() {
                    self.writes_are_refused(&error);
                }
                let mut latched = self.to_latch(error.clone());
                if matches!(error, StoreError::Full) && evoke_fs::is_at_size_limit(&log_of(&self.path)) {
                    // The log has reached the maximum file size. After its content was copied into the database, SQLite
                    // writes the log from its beginning again, so later writes can succeed.
                    latched = latched.and_then(|()| self.checkpoint("PASSIVE").map(drop));
                }
                if let Err(reason) = &latched {
                    self.latch(reason);
                }
                self.notify(Vec::new(), Vec::new(), batch, &Err(error));
                latched.map(|()| false)
            }
        }
    }

    /// Records that writes are refused for now. Shortens the wait for a lock, so that further callers do not wait long
    /// if another program keeps its lock.
    fn writes_are_refused(&mut self, error: &StoreError) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone());
        if matches!(error, StoreError::Busy) && self.busy_since.is_none() {
            self.busy_since = Some(Instant::now());
            let _ = self.connection.busy_timeout(BUSY_POLL);
            tracing::warn!(
                "another program has locked {}: until it releases its lock, events are refused with 503, and the \
                 results of running deliveries wait to be stored",
                self.path.display()
            );
        }
    }

    /// Records that writes succeed again. A commit without changes shows that no lock prevents writes, but not that the
    /// disk has space.
    fn writes_succeed(&mut self, changed: bool) {
        if let Some(since) = self.busy_since.take() {
            let _ = self.connection.busy_timeout(BUSY_WAIT);
            tracing::warn!(
                "another program released its lock on {}; writes were refused for {:?}",
                self.path.display(),
                since.elapsed()
            );
        }
        let mut refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        if changed || matches!(*refusal, Some(StoreError::Busy)) {
            *refusal = None;
        }
    }

    /// Copies the log into the database when the log has become long. This replaces SQLite's automatic checkpoint, which
    /// would hide a failed sync.
    fn checkpoint_when_due(&self) -> Result<(), String> {
        match self.checkpoint("NOOP")? {
            Some(Checkpointed { pages, .. }) if pages >= LOG_PAGES_MAX => self.shorten_log(),
            _ => Ok(()),
        }
    }

    /// Copies the log into the database. If readers use a part of the log, this part is copied by a later checkpoint. A
    /// long log that was copied completely is truncated, unless a reader still uses it.
    fn shorten_log(&self) -> Result<(), String> {
        match self.checkpoint("PASSIVE")? {
            Some(Checkpointed { pages, complete: true }) if pages >= LOG_PAGES_LONG => {
                // The truncation does not wait for readers.
                let _ = self.connection.busy_timeout(Duration::ZERO);
                let truncated = self.checkpoint("TRUNCATE");
                let _ = self.connection.busy_timeout(if self.busy_since.is_some() { BUSY_POLL } else { BUSY_WAIT });
                truncated.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Runs a checkpoint. Returns `None` after a temporary error.
    fn checkpoint(&self, how: &str) -> Result<Option<Checkpointed>, String> {
        // The columns of the result: 1 if a lock prevented a part of the work, the number of pages in the log, and the
        // number of copied pages.
        let read = |row: &rusqlite::Row<'_>| {
            let (busy, pages, copied) = (row.get::<_, i64>(0)? != 0, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?);
            Ok(Some(Checkpointed { pages, complete: !busy && copied == pages }))
        };
        let pragma = self.connection.prepare_cached(&format!("PRAGMA wal_checkpoint({how})"));
        let done = pragma.and_then(|mut pragma| pragma.query_row([], read));
        done.or_else(|error| self.to_latch(write_error(&self.path, &self.connection, &error)).map(|()| None))
    }

    /// Reports the result of a commit, first to the sink and then to the callers. So the dispatcher knows of a commit
    /// before any caller receives its result.
    fn notify(
        &self,
        ready: Vec<ReadyDelivery>,
        cancelled: Vec<(FunctionId, DeliveryId)>,
        batch: Vec<Pending>,
        committed: &evoke_store::Result<()>,
    ) {
        let mut settled = Vec::new();
        let mut others = Vec::with_capacity(batch.len());
        for write in batch {
            match write.for_sink(committed) {
                Ok(completion) => settled.push(completion),
                Err(other) => others.push(other),
            }
        }
        if (!ready.is_empty() || !settled.is_empty() || !cancelled.is_empty())
            && let Some(sink) = &*self.sink.lock().unwrap_or_else(PoisonError::into_inner)
        {
            sink(Committed { ready, settled, cancelled });
        }
        self.newest.send_if_modified(|seq| std::mem::replace(seq, self.counters.last_seq()) != *seq);
        others.into_iter().for_each(|other| other.reply(committed));
    }

    /// Applies all writes of the batch and commits them in one transaction.
    fn transact(&mut self, batch: &mut [Pending]) -> rusqlite::Result<Transacted> {
        // The transaction is rolled back if it is dropped before its commit.
        let transaction = self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let changes_before = transaction.total_changes();
        let (changes, ready, cancelled, scheduled_ms, checkpoint) = {
            let mut commit = GroupCommit {
                tx: &transaction,
                statements: Statements::new(&transaction),
                dedup: &mut self.dedup,
                counters: &mut self.counters,
                chains: &mut self.chains,
                descendants_limits: self.descendants_limits.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                state: Batch::new(&transaction, &self.state_cache),
                now_ms: self.time.now_ms(),
                wall_ms: self.time.wall_ms(),
                scheduled_ms: None,
                ready: Vec::new(),
                cancelled: Vec::new(),
                checkpoint: false,
            };
            for write in batch {
                write.apply(&mut commit)?;
            }
            (commit.state.into_changes(), commit.ready, commit.cancelled, commit.scheduled_ms, commit.checkpoint)
        };
        self.counters.write(&transaction)?;
        let changed = transaction.total_changes() != changes_before;
        let stores_time = changed && self.time.is_due();
        if stores_time {
            self.time.write(&transaction)?;
        }
        transaction.commit()?;
        self.state_cache.committed(changes);
        if stores_time {
            self.time.stored();
        }
        Ok(Transacted { ready, cancelled, scheduled_ms, checkpoint, changed })
    }

    /// Returns `Ok` if the store can continue after this error, and otherwise the reason why it must stop permanently.
    /// If the files were removed or overwritten, the reason says so, because this has caused the error.
    fn to_latch(&self, error: StoreError) -> Result<(), String> {
        to_latch(error).map_err(|reason| self.files.verify().err().unwrap_or(reason))
    }

    /// Records that the store has failed. Must be called before the callers receive the error, so that no caller finds
    /// the store healthy after it received the error.
    fn latch(&self, reason: &str) {
        self.failure.send_replace(Some(reason.to_owned()));
    }

    fn reject_all(&self, reason: &str, closing: Vec<Reply<()>>, queue: &mut mpsc::Receiver<Message>) {
        tracing::error!("{reason}");
        self.latch(reason);
        let error = Err(StoreError::Failed(reason.to_owned()));
        reply_all(closing, &error);
        while let Some(message) = queue.blocking_recv() {
            match message {
                Message::Write(write) => self.notify(Vec::new(), Vec::new(), vec![write], &error),
                Message::Close(reply) => reply_all(vec![reply], &error),
            }
        }
    }
}

/// Returns the waiting writes, up to one full batch. Adds the waiting close requests to `closing`.
fn take_batch(first: Message, queue: &mut mpsc::Receiver<Message>, closing: &mut Vec<Reply<()>>) -> Vec<Pending> {
    let (mut batch, mut bytes, mut next) = (Vec::new(), 0, Some(first));
    while let Some(message) = next {
        match message {
            Message::Write(write) => {
                bytes += write.size();
                batch.push(write);
            }
            Message::Close(reply) => closing.push(reply),
        }
        next = if batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX { queue.try_recv().ok() } else { None };
    }
    batch
}

fn reply_all(closing: Vec<Reply<()>>, result: &evoke_store::Result<()>) {
    for reply in closing {
        // The caller may have stopped waiting.
        let _ = reply.send(result.clone());
    }
}

/// Returns `Ok` if the store can continue: the error is temporary, or it is [`StoreError::Closed`]. Otherwise, returns
/// the reason why the store must stop permanently.
fn to_latch(error: StoreError) -> Result<(), String> {
    match error {
        StoreError::Failed(reason) | StoreError::Damaged(reason) | StoreError::Fenced(reason) => Err(reason),
        StoreError::Full | StoreError::Busy | StoreError::Closed | StoreError::Unreachable(_) => Ok(()),
    }
}
