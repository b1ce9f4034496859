//! A pool of read-only connections.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::checksum;
use super::failure::store_error;
use super::files::StoreFiles;
use evoke_fs::PrivateFolder;
use evoke_store::{Result, StoreError, StoreFuture};

/// Maximum number of concurrent queries on blocking threads; each connection has a page cache of about 2 MiB. Queries
/// on the caller's thread add at most one connection per such thread.
const READERS_MAX: usize = 4;

pub(super) fn open_for_reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    checksum::register_sql_function(&connection)?;
    Ok(connection)
}

/// The pool of idle connections.
pub(super) struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
    /// Dropped after the connections: closing its descriptors drops their locks.
    _files: Option<Arc<StoreFiles>>,
    /// The folder of a store that is only read.
    _folder: Option<PrivateFolder>,
}

impl Readers {
    pub(super) fn new(path: PathBuf, files: Arc<StoreFiles>) -> Self {
        Self::with(path, Some(files), None)
    }

    /// A pool over a store that is only read.
    pub(super) fn of_folder(path: PathBuf, folder: PrivateFolder) -> Self {
        Self::with(path, None, Some(folder))
    }

    fn with(path: PathBuf, files: Option<Arc<StoreFiles>>, folder: Option<PrivateFolder>) -> Self {
        let permits = Semaphore::new(READERS_MAX);
        Self { path, idle: Mutex::default(), permits, _files: files, _folder: folder }
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

    /// Runs a query on the current thread. Reading a row or a page takes some 10 µs, less than a switch to another
    /// thread.
    pub(super) fn now<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let to_store_error = |e: rusqlite::Error| store_error(&self.path, &e);
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = idle.map_or_else(|| open_for_reading(&self.path), Ok).map_err(to_store_error)?;
        let result = query(&connection).map_err(to_store_error);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        result
    }

    pub(super) fn run<T: Send + 'static>(
        readers: Arc<Self>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> StoreFuture<T> {
        StoreFuture::from_future(async move {
            let _permit = readers.permits.acquire().await.map_err(|_| StoreError::Closed)?;
            let pool = readers.clone();
            let work = move || {
                let idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let connection = idle.map_or_else(|| open_for_reading(&pool.path), Ok)?;
                // One transaction, so that several queries see one snapshot.
                let transaction = connection.unchecked_transaction()?;
                let result = query(&connection);
                drop(transaction);
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
