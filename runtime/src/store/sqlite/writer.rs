//! The writer thread: group commit, and the latch after the first failure. `syncer.rs` tells what was committed.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SendError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::dedup::Dedup;
use super::failure::failed;
use super::known::Known;
use super::queue::{Settled, Write};
use super::state::Batch;
use super::syncer::{Ended, Syncer};
use super::totals::Counters;
use super::write::apply;
use crate::clock::Clock;
use crate::store::{Backlog, ReadyDelivery, StoreError};

/// Writes in one commit. Past about a thousand the fsync is a small part of the commit's time, and the first of the
/// batch would only wait longer.
const BATCH_MAX: usize = 1024;

/// Payload in one commit: bounds the transaction's memory and the time of its fsync.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Pages in the log, of 4 KiB, from which on it is copied into the database: it stays small enough to be read back in a
/// moment, and a page that is written often is copied once.
const LOG_PAGES_MAX: i64 = 4000;

/// Transactions that wait to be synced, beside those that are: the next is made while one is synced, and what comes
/// meanwhile goes together into the one after.
const ENDED_MAX: usize = 1;

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) path: PathBuf,
    pub(super) dedup: Dedup,
    pub(super) counters: Counters,
    pub(super) known: Arc<Known>,
    pub(super) clock: Clock,
    pub(super) backlog: Arc<Backlog>,
    pub(super) syncer: Arc<Syncer>,
}

impl Writer {
    /// Commits batch after batch until the store is closed, every handle is gone, or a commit fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Write>) {
        let unsynced = AtomicUsize::new(0);
        let syncer = self.syncer.clone();
        let closing = thread::scope(|scope| {
            let (hand_over, ended) = sync_channel(ENDED_MAX);
            let (syncer, unsynced) = (&*syncer, &unsynced);
            let run = move || {
                syncer.run(&ended, || {
                    unsynced.fetch_sub(1, Ordering::Release);
                })
            };
            match thread::Builder::new().name("store-syncer".into()).spawn_scoped(scope, run) {
                Ok(_) => self.write(&mut queue, &hand_over, unsynced),
                Err(error) => Err((format!("cannot start the thread that syncs the store: {error}"), Vec::new())),
            }
        });
        let closed = closing.and_then(|closing| {
            // Whoever reads still does not hold up the end: the log is then copied at the next start.
            let _ = self.connection.busy_timeout(Duration::ZERO);
            match self.checkpoint("TRUNCATE") {
                Ok(()) => Ok(closing),
                Err(reason) => Err((reason, closing)),
            }
        });
        let told = |writes: Vec<Write>| writes.into_iter().map(Settled::unapplied).collect();
        match closed {
            Ok(closing) => self.syncer.tell(Vec::new(), told(closing), &Ok(())),
            Err((reason, refused)) => {
                self.syncer.fail(reason.clone());
                let error = Err(StoreError::Failed(reason));
                self.syncer.tell(Vec::new(), told(refused), &error);
                while let Some(write) = queue.blocking_recv() {
                    self.syncer.tell(Vec::new(), vec![Settled::unapplied(write)], &error);
                }
            }
        }
    }

    /// Commits until the store is to be closed; answers who waits for that. The error is why nothing more can be
    /// written, and what was not.
    fn write(
        &mut self,
        queue: &mut mpsc::Receiver<Write>,
        hand_over: &SyncSender<Ended>,
        unsynced: &AtomicUsize,
    ) -> Result<Vec<Write>, (String, Vec<Write>)> {
        let mut closing = Vec::new();
        while let Some(first) = queue.blocking_recv() {
            let mut batch = vec![first];
            let mut bytes = batch.iter().map(Write::size).sum::<usize>();
            while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                let Ok(write) = queue.try_recv() else { break };
                bytes += write.size();
                batch.push(write);
            }
            if let Some(reason) = self.syncer.failed() {
                closing.append(&mut batch);
                return Err((reason, closing));
            }
            let checkpoints = batch.iter().any(Write::is_checkpoint);
            closing.extend(batch.extract_if(.., |write| write.is_close()));
            if !batch.is_empty() {
                let (ended, latching) = self.commit(batch);
                // While nothing else is to be done it is synced here: another thread would have to wake up first.
                if queue.is_empty() && unsynced.load(Ordering::Acquire) == 0 {
                    self.syncer.finish(vec![ended]);
                } else {
                    unsynced.fetch_add(1, Ordering::Relaxed);
                    if let Err(SendError(ended)) = hand_over.send(ended) {
                        self.syncer.finish(vec![ended]);
                    }
                }
                latching.map_err(|reason| (reason, std::mem::take(&mut closing)))?;
            }
            let checked = if checkpoints { self.checkpoint("PASSIVE") } else { self.checkpoint_when_due() };
            checked.map_err(|reason| (reason, std::mem::take(&mut closing)))?;
            if !closing.is_empty() {
                // What came before is in the queue still.
                queue.close();
            }
        }
        Ok(closing)
    }

    /// One transaction. The second is an error that latches: the state on disk is not known any more.
    fn commit(&mut self, batch: Vec<Write>) -> (Ended, Result<(), String>) {
        let (before, started) = (self.counters.clone(), Instant::now());
        let mut answers = Vec::with_capacity(batch.len());
        let mut ready = Vec::new();
        let (result, latching) = match self.transact(batch, &mut answers, &mut ready) {
            Ok(()) => {
                self.backlog.apply(self.counters.backlog());
                (Ok(()), Ok(()))
            }
            Err(error) => {
                self.counters = before;
                self.dedup.rolled_back();
                let error = failed(&self.path, &error);
                (Err(error.clone()), latching(error))
            }
        };
        (Ended { result, ready, answers, newest: self.counters.newest(), started }, latching)
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
}

/// Whether nothing more is to be written: always, but for a full disk.
fn latching(error: StoreError) -> Result<(), String> {
    match error {
        StoreError::Failed(reason) | StoreError::Damaged(reason) => Err(reason),
        StoreError::Full | StoreError::Closed => Ok(()),
    }
}
