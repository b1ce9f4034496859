//! Connections that only read, beside the writer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::failure::failed;
use super::sums;
use crate::store::{Answer, Result, StoreError};

/// Queries at once that take a thread of their own; each connection holds a page cache of about 2 MiB. Those that run
/// in their caller's thread have as many more as there are such threads.
const READERS_MAX: usize = 4;

pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    sums::teach(&connection)?;
    Ok(connection)
}

/// Connections that wait for a query.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

impl Readers {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, idle: Mutex::default(), permits: Semaphore::new(READERS_MAX) }
    }

    /// The database file with its log and the log's index.
    pub(super) fn size_bytes(&self) -> u64 {
        let files = ["", "-wal", "-shm"].into_iter().map(|ending| {
            let mut file = self.path.as_os_str().to_owned();
            file.push(ending);
            std::fs::metadata(file).map_or(0, |metadata| metadata.len())
        });
        files.sum()
    }

    /// Runs a query here and now: one that reads a row or a page takes some ten microseconds, less than handing it to
    /// another thread does.
    pub(super) fn now<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let failed = |e: rusqlite::Error| failed(&self.path, &e);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = idle.map_or_else(|| open_for_reading(&self.path), Ok).map_err(failed)?;
        let result = query(&connection).map_err(failed);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }

    pub(super) fn run<T: Send + 'static>(
        readers: Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Answer<T> {
        Answer::later(async move {
            let _permit = readers.permits.acquire().await.map_err(|_| StoreError::Closed)?;
            let pool = readers.clone();
            let work = move || {
                let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let connection = idle.map_or_else(|| open_for_reading(&pool.path), Ok)?;
                // One transaction, so that an answer made of several queries is of one moment.
                let transaction = connection.unchecked_transaction()?;
                let result = query(&connection);
                drop(transaction);
                pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
                result
            };
            tokio::task::spawn_blocking(work)
                .await
                .map_err(|_| StoreError::Closed)?
                .map_err(|e| failed(&readers.path, &e))
        })
    }
}
