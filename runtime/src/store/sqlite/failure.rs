//! SQLite's errors in words: which file, what failed, and what can be done.

use std::path::Path;

use rusqlite::{Error, ErrorCode, ffi};

use super::sums;
use crate::store::StoreError;

/// A failure for good, unless the disk is full or something was read that is damaged.
pub(super) fn failed(path: &Path, error: &Error) -> StoreError {
    if is_full(error) {
        return StoreError::Full;
    }
    match sums::damaged(error) {
        Some(what) => StoreError::Damaged(damaged(&path.display().to_string(), what)),
        None => StoreError::Failed(in_words(path, error)),
    }
}

/// Whether there was no room. SQLite's index over its log is a file too, and has its own code for it.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_SHMSIZE)
}

/// What failed, and where.
fn in_words(path: &Path, error: &Error) -> String {
    let path = path.display();
    let doing = match error.sqlite_error().map(|e| e.extended_code) {
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
    format!("{path}, or a file of that name with an ending: {doing} failed: {error}")
}

/// What is in the file is not what was written to it, and what a person can do.
pub(super) fn damaged(path: &str, what: impl std::fmt::Display) -> String {
    format!("{path} is damaged: {what}. `evoke check` says more; {}", remedy(path))
}

/// What to do when it is.
pub(super) fn remedy(path: &str) -> String {
    format!(
        "stop Evoke, keep a copy of the data folder, and put a backup in place of {path} (without the files of that \
         name with -wal and -shm)"
    )
}
