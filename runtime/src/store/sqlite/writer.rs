//! The writer thread: group commit, and the latch after the first failure.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use super::dedup::Dedup;
use super::failure::failed;
use super::known::Known;
use super::queue::{Settled, Write};
use super::state::Batch;
use super::totals::Counters;
use super::write::apply;
use crate::clock::Clock;
use crate::store::{Backlog, CommitSink, Committed, ReadyDelivery, Seq, StoreError};
use crate::telemetry::CommitMetrics;

/// Writes in one commit. Past about a thousand the fsync is a small part of the commit's time, and the first of the
/// batch would only wait longer.
const BATCH_MAX: usize = 1024;

/// Payload in one commit: bounds the transaction's memory and the time of its fsync.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// After a commit of this many writes the next one waits for company: those who were answered come back within a moment,
/// one after another, and the first of them alone would have the others wait for a commit that hardly does anything. With
/// a third fewer commits an event takes some 7 % less processor time.
const MANY: usize = 8;

/// How long, about: a small part of a sync. Whoever comes alone never waits.
const COMPANY: Duration = Duration::from_micros(50);

/// Pages in the log, of 4 KiB, from which on it is copied into the database: it stays small enough to be read back in a
/// moment, and a page that is written often is copied once.
const LOG_PAGES_MAX: i64 = 4000;

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) dedup: Dedup,
    pub(super) counters: Counters,
    pub(super) known: Arc<Known>,
    pub(super) clock: Clock,
    pub(super) sink: Arc<Mutex<Option<CommitSink>>>,
    pub(super) newest: watch::Sender<Seq>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) failure: watch::Sender<Option<String>>,
    pub(super) metrics: Arc<CommitMetrics>,
}

impl Writer {
    /// Commits batch after batch until the store is closed, every handle is gone, or a commit fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Write>) {
        let mut closing = Vec::new();
        let mut last = 0;
        while let Some(first) = queue.blocking_recv() {
            if last >= MANY && queue.len() < last * 3 / 4 {
                std::thread::sleep(COMPANY);
            }
            let mut batch = vec![first];
            let mut bytes = batch.iter().map(Write::size).sum::<usize>();
            while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                let Ok(write) = queue.try_recv() else { break };
                bytes += write.size();
                batch.push(write);
            }
            last = batch.len();
            let checkpoints = batch.iter().any(Write::is_checkpoint);
            closing.extend(batch.extract_if(.., |write| write.is_close()));
            let committed = if batch.is_empty() { Ok(()) } else { self.commit(batch) };
            if let Err(reason) = committed
                .and_then(|()| if checkpoints { self.checkpoint("PASSIVE") } else { self.checkpoint_when_due() })
            {
                self.refuse_everything(&reason, closing, &mut queue);
                return;
            }
            if !closing.is_empty() {
                // What came before is in the queue still.
                queue.close();
            }
        }
        // Whoever reads still does not hold up the end: the log is then copied at the next start.
        let _ = self.connection.busy_timeout(Duration::ZERO);
        match self.checkpoint("TRUNCATE") {
            Ok(()) => self.tell(Vec::new(), closing.into_iter().map(Settled::unapplied).collect(), &Ok(())),
            Err(reason) => self.refuse_everything(&reason, closing, &mut queue),
        }
    }

    /// One transaction. `Err` latches: the state on disk is not known any more.
    fn commit(&mut self, batch: Vec<Write>) -> Result<(), String> {
        let (before, started) = (self.counters.clone(), Instant::now());
        let mut answers = Vec::with_capacity(batch.len());
        let mut ready = Vec::new();
        let Err(error) = self.transact(batch, &mut answers, &mut ready) else {
            self.metrics.writes.observe_count(answers.len() as u64);
            self.metrics.duration.observe(started.elapsed());
            self.backlog.apply(self.counters.backlog());
            self.tell(ready, answers, &Ok(()));
            return Ok(());
        };
        self.counters = before;
        self.dedup.rolled_back();
        let error = failed(&self.path, &error);
        self.tell(Vec::new(), answers, &Err(error.clone()));
        latching(error)
    }

    /// Copies the log into the database when it has grown long. SQLite would do it too, and would not say when a sync
    /// failed.
    fn checkpoint_when_due(&self) -> Result<(), String> {
        let pages = self.connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)").and_then(|mut pragma| {
            // Busy or not, pages in the log, pages that were copied.
            pragma.query_row([], |r| r.get::<_, i64>(1))
        });
        match pages {
            Ok(pages) if pages < LOG_PAGES_MAX => Ok(()),
            // While readers use the log, a part of it is copied, and the rest another time.
            Ok(_) => self.checkpoint("PASSIVE"),
            Err(error) => latching(failed(&self.path, &error)),
        }
    }

    fn checkpoint(&self, how: &str) -> Result<(), String> {
        let copied = self.connection.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(()));
        copied.or_else(|error| latching(failed(&self.path, &error)))
    }

    /// Tells how a commit went: the sink before the answers, so that nobody who has an answer can find the dispatcher
    /// unaware.
    fn tell(&self, ready: Vec<ReadyDelivery>, answers: Vec<Settled>, result: &crate::store::Result<()>) {
        let mut settled = Vec::new();
        let mut others = Vec::with_capacity(answers.len());
        for answer in answers {
            match answer.for_sink() {
                Ok((completion, completed)) => settled.push((completion, result.clone().map(|()| completed))),
                Err(other) => others.push(other),
            }
        }
        if (!ready.is_empty() || !settled.is_empty())
            && let Some(sink) = &*self.sink.lock().unwrap_or_else(PoisonError::into_inner)
        {
            sink(Committed { ready, settled });
        }
        self.newest.send_if_modified(|seq| std::mem::replace(seq, self.counters.newest()) != *seq);
        match result {
            Ok(()) => others.into_iter().for_each(Settled::succeed),
            Err(error) => others.into_iter().for_each(|other| other.fail(error)),
        }
    }

    fn transact(
        &mut self,
        batch: Vec<Write>,
        settled: &mut Vec<Settled>,
        ready: &mut Vec<ReadyDelivery>,
    ) -> rusqlite::Result<()> {
        // Rolls back when it is dropped uncommitted.
        let transaction = match self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate) {
            Ok(transaction) => transaction,
            Err(error) => {
                settled.extend(batch.into_iter().map(Settled::unapplied));
                return Err(error);
            }
        };
        let now_ms = self.clock.now_ms();
        let mut state = Batch::new(&transaction, &self.known);
        let mut batch = batch.into_iter();
        while let Some(write) = batch.next() {
            let (answer, result) =
                apply(&transaction, &mut self.dedup, &mut self.counters, now_ms, write, &mut state, ready);
            settled.push(answer);
            if let Err(error) = result {
                settled.extend(batch.map(Settled::unapplied));
                return Err(error);
            }
        }
        self.counters.write(&transaction)?;
        let changes = state.into_changes();
        transaction.commit()?;
        self.known.committed(changes);
        Ok(())
    }

    fn refuse_everything(&self, reason: &str, refused: Vec<Write>, queue: &mut mpsc::Receiver<Write>) {
        tracing::error!("{reason}");
        self.failure.send_replace(Some(reason.to_owned()));
        let error = StoreError::Failed(reason.to_owned());
        self.tell(Vec::new(), refused.into_iter().map(Settled::unapplied).collect(), &Err(error.clone()));
        while let Some(write) = queue.blocking_recv() {
            self.tell(Vec::new(), vec![Settled::unapplied(write)], &Err(error.clone()));
        }
    }
}

/// Whether nothing more is to be written: always, but for a full disk.
fn latching(error: StoreError) -> Result<(), String> {
    match error {
        StoreError::Failed(reason) | StoreError::Damaged(reason) => Err(reason),
        StoreError::Full | StoreError::Closed => Ok(()),
    }
}
