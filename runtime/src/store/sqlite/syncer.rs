//! What is committed is told when it is on disk. SQLite leaves the log to us (`synchronous = NORMAL`): the writer goes on
//! with the next commit while this one is synced, and one sync serves all that was committed before it.
//!
//! The log is a sequence that is read back up to where it is whole, so a commit is never on disk without those before it:
//! what a commit was made of, also as the writer or a reader saw it before the sync, is kept when the commit is.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::queue::Settled;
use crate::store::{CommitSink, Committed, ReadyDelivery, Result, Seq, StoreError};
use crate::telemetry::CommitMetrics;

/// A transaction that is over, and what is to be told of it.
pub(super) struct Ended {
    pub(super) result: Result<()>,
    pub(super) ready: Vec<ReadyDelivery>,
    pub(super) answers: Vec<Settled>,
    pub(super) newest: Seq,
    pub(super) started: Instant,
}

pub(super) struct Syncer {
    pub(super) path: PathBuf,
    pub(super) log: File,
    pub(super) sink: Arc<Mutex<Option<CommitSink>>>,
    pub(super) newest: watch::Sender<Seq>,
    pub(super) failure: watch::Sender<Option<String>>,
    pub(super) metrics: Arc<CommitMetrics>,
}

impl Syncer {
    /// Syncs and tells, in order, until the writer is gone.
    pub(super) fn run(&self, ended: &Receiver<Ended>, finished: impl Fn()) {
        while let Ok(first) = ended.recv() {
            let all: Vec<Ended> = std::iter::once(first).chain(ended.try_iter()).collect();
            let count = all.len();
            self.finish(all);
            (0..count).for_each(|_| finished());
        }
    }

    /// Syncs what was committed, and tells of it. After a sync that failed nothing is acknowledged any more: what the
    /// kernel could not write it may have forgotten, so that a second sync says nothing.
    pub(super) fn finish(&self, all: Vec<Ended>) {
        if all.iter().any(|ended| ended.result.is_ok())
            && self.failed().is_none()
            && let Err(error) = self.log.sync_data()
        {
            self.fail(in_words(&self.path, &error));
        }
        for ended in all {
            let result = match self.failed() {
                Some(reason) if ended.result.is_ok() => Err(StoreError::Failed(reason)),
                _ => ended.result,
            };
            if result.is_ok() {
                self.metrics.writes.count(ended.answers.len() as u64);
                self.metrics.duration.observe(ended.started.elapsed());
                self.newest.send_if_modified(|seq| std::mem::replace(seq, ended.newest) != ended.newest);
            }
            let ready = if result.is_ok() { ended.ready } else { Vec::new() };
            self.tell(ready, ended.answers, &result);
        }
    }

    /// The first failure: nothing more is to be written.
    pub(super) fn failed(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    pub(super) fn fail(&self, reason: String) {
        tracing::error!("{reason}");
        self.failure.send_if_modified(|first| first.is_none() && first.replace(reason).is_none());
    }

    /// The sink before the answers, so that nobody who has an answer can find the dispatcher unaware.
    pub(super) fn tell(&self, ready: Vec<ReadyDelivery>, answers: Vec<Settled>, result: &Result<()>) {
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
        match result {
            Ok(()) => others.into_iter().for_each(Settled::succeed),
            Err(error) => others.into_iter().for_each(|other| other.fail(error)),
        }
    }
}

fn in_words(path: &std::path::Path, error: &io::Error) -> String {
    format!("{}-wal: syncing (fsync) failed: {error}", path.display())
}
