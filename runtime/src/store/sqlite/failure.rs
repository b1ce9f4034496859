//! SQLite's errors in words: which file, what failed, and what can be done.

use std::path::Path;

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::StoreError;

/// A failure for good, unless the disk is full.
pub(super) fn failed(path: &Path, error: &Error) -> StoreError {
    if is_full(error) { StoreError::Full } else { StoreError::Failed(in_words(path, error)) }
}

/// Whether there was no room. SQLite's index over its log is a file too, and has its own code for it.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_SHMSIZE)
}

/// What failed, and where.
pub(super) fn in_words(path: &Path, error: &Error) -> String {
    let path = path.display();
    let doing = match error.sqlite_error().map(|e| e.extended_code) {
        Some(ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ) => "reading",
        Some(ffi::SQLITE_IOERR_WRITE) => "writing",
        Some(ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC) => "syncing (fsync)",
        Some(ffi::SQLITE_IOERR_TRUNCATE) => "truncating",
        Some(ffi::SQLITE_IOERR_DELETE) => "deleting a journal",
        _ => match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen) => "opening",
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => return damaged(&path.to_string(), error),
            _ => return format!("{path}: {error}"),
        },
    };
    format!("{path}, or a file of that name with an ending: {doing} failed: {error}")
}

/// What is in the file is not what was written to it.
pub(super) fn damaged(path: &str, what: impl std::fmt::Display) -> String {
    format!(
        "{path} is damaged: {what}. `evoke check` says more; stop Evoke, keep a copy of the data folder, and put a \
         backup in place of {path} (without the files of that name with -wal and -shm)"
    )
}
