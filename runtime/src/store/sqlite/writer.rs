//! The writer thread: group commit, and the latch after the first failure.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use tokio::sync::{mpsc, watch};

use super::dedup::Dedup;
use super::known::Known;
use super::queue::{Settled, Write};
use super::state::Batch;
use super::totals::Counters;
use super::write::apply;
use crate::clock::Clock;
use crate::state::Version;
use crate::store::{Backlog, CommitSink, Committed, ReadyDelivery, Seq, StoreError};

/// Writes in one commit. Past about a thousand the fsync is a small part of the commit's time, and the first of the
/// batch would only wait longer.
const BATCH_MAX: usize = 1024;

/// Payload in one commit: bounds the transaction's memory and the time of its fsync.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) dedup: Dedup,
    pub(super) counters: Counters,
    /// Of the last write of state; ascends for good, also through commits that failed.
    pub(super) state_version: Version,
    pub(super) known: Arc<Known>,
    pub(super) clock: Clock,
    pub(super) sink: Arc<Mutex<Option<CommitSink>>>,
    pub(super) newest: watch::Sender<Seq>,
    pub(super) backlog: Arc<Backlog>,
    pub(super) failure: watch::Sender<Option<String>>,
}

impl Writer {
    /// Commits batch after batch until the store is closed, every handle is gone, or a commit fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Write>) {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = vec![first];
            let mut bytes = batch.iter().map(Write::size).sum::<usize>();
            while batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
                let Ok(write) = queue.try_recv() else { break };
                bytes += write.size();
                batch.push(write);
            }
            // Before it is answered: who was told that the store is closed has nothing written by it.
            if batch.iter().any(Write::is_close) {
                queue.close();
            }
            let checkpoints = batch.iter().any(Write::is_checkpoint);
            let committed = self.commit(batch).and_then(|()| if checkpoints { self.checkpoint() } else { Ok(()) });
            if let Err(reason) = committed {
                self.refuse_everything(&reason, &mut queue);
                return;
            }
        }
    }

    /// One transaction. `Err` latches: the state on disk is not known any more.
    fn commit(&mut self, batch: Vec<Write>) -> Result<(), String> {
        let before = self.counters.clone();
        let mut answers = Vec::with_capacity(batch.len());
        let mut ready = Vec::new();
        let Err(error) = self.transact(batch, &mut answers, &mut ready) else {
            self.backlog.apply(self.counters.backlog());
            self.tell(ready, answers, &Ok(()));
            return Ok(());
        };
        self.counters = before;
        self.dedup.rolled_back();
        let full = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull);
        let told = if full { StoreError::Full } else { StoreError::Failed(error.to_string()) };
        self.tell(Vec::new(), answers, &Err(told));
        if full { Ok(()) } else { Err(error.to_string()) }
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
        let mut state = Batch::new(&transaction, &self.known, &mut self.state_version);
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
        let (buckets, changed) = state.into_changes();
        self.counters.write(&transaction)?;
        transaction.commit()?;
        self.known.committed(buckets, changed);
        Ok(())
    }

    /// Writes the log back to the file without waiting for readers. What fails here fails like a commit: nobody knows
    /// what is on disk.
    fn checkpoint(&self) -> Result<(), String> {
        let done = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        match done {
            Err(error) if error.sqlite_error_code() != Some(rusqlite::ErrorCode::DiskFull) => Err(error.to_string()),
            _ => Ok(()),
        }
    }

    fn refuse_everything(&self, reason: &str, queue: &mut mpsc::Receiver<Write>) {
        tracing::error!("{reason}");
        self.failure.send_replace(Some(reason.to_owned()));
        let error = StoreError::Failed(reason.to_owned());
        while let Some(write) = queue.blocking_recv() {
            self.tell(Vec::new(), vec![Settled::unapplied(write)], &Err(error.clone()));
        }
    }
}
