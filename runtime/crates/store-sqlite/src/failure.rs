//! Turns SQLite's errors into messages: which file, which operation failed, and what to do.

use std::path::Path;

use rusqlite::{Error, ErrorCode, ffi};

use super::checksum;
use evoke_store::StoreError;

/// Converts an error: [`StoreError::Full`] for a full disk, [`StoreError::Damaged`] for damaged data, otherwise
/// [`StoreError::Failed`].
pub(super) fn store_error(path: &Path, error: &Error) -> StoreError {
    if is_full(error) {
        return StoreError::Full;
    }
    match checksum::find_damage(error) {
        Some(what) => StoreError::Damaged(damage_message(&path.display().to_string(), what)),
        None => StoreError::Failed(describe(path, error)),
    }
}

/// Returns true if the disk is full. SQLite's index of the log (`-shm`) is a file too and has its own error code.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_SHMSIZE)
}

/// Describes the file and the operation that failed.
fn describe(path: &Path, error: &Error) -> String {
    let path = path.display();
    let operation = match error.sqlite_error().map(|e| e.extended_code) {
        Some(ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ) => "reading",
        Some(ffi::SQLITE_IOERR_WRITE) => "writing",
        Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => "syncing (fsync)",
        Some(ffi::SQLITE_IOERR_TRUNCATE) => "truncating",
        Some(ffi::SQLITE_IOERR_DELETE) => "deleting a journal",
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen) => "opening",
            _ => return format!("{path}: {error}"),
        },
    };
    format!("{path} (or its -wal, -shm or -journal file): {operation} failed: {error}")
}

/// Describes damage in a file, and how to recover from it.
pub(super) fn damage_message(path: &str, what: impl std::fmt::Display) -> String {
    format!("{path} is damaged: {what}. `evoke check` lists all problems; {}", remedy(path))
}

/// Describes how to recover from a damaged file.
pub(super) fn remedy(path: &str) -> String {
    format!(
        "stop Evoke, keep a copy of the data folder, and put a backup in place of {path} (and delete \
         the files of that name that end in -wal and -shm)"
    )
}
