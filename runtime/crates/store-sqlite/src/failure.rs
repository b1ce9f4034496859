//! Turns SQLite's errors into messages: which file, which operation failed, and what to do.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, Error, ErrorCode, ffi};

use super::checksum;
use evoke_store::StoreError;

/// Converts an error of SQLite. [`StoreError::Full`]: the disk is full, a quota is used up, or a file has reached its
/// maximum size. [`StoreError::Busy`]: another program holds a lock. [`StoreError::Damaged`]: data is damaged.
/// [`StoreError::Failed`]: any other error.
pub(super) fn store_error(path: &Path, error: &Error) -> StoreError {
    if is_full(error) || (may_be_quota(error) && !may_grow(path)) {
        return StoreError::Full;
    }
    if is_busy(error) {
        return StoreError::Busy;
    }
    match checksum::find_damage(error) {
        Some(what) => StoreError::Damaged(damage_message(&path.display().to_string(), what)),
        None => StoreError::Failed(describe(path, error)),
    }
}

/// Like [`store_error`], for an error of this connection that may come from a write. This function checks the error
/// number of the failed system call first: by the time [`may_grow`] checks the quota, the quota may have space again.
pub(super) fn write_error(path: &Path, connection: &Connection, error: &Error) -> StoreError {
    let cause = std::io::Error::from_raw_os_error(system_error(connection)).kind();
    let is_quota = matches!(cause, ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
    if may_be_quota(error) && is_quota { StoreError::Full } else { store_error(path, error) }
}

/// Returns the error number of the last call of this connection that failed with `SQLITE_IOERR` or `SQLITE_CANTOPEN`.
#[allow(unsafe_code)]
fn system_error(connection: &Connection) -> i32 {
    // SAFETY: the handle is open as long as the connection, and SQLite only reads a field of it.
    unsafe { ffi::sqlite3_system_errno(connection.handle()) }
}

/// Returns true if the disk is full. SQLite has a second error code for the case that its index of the log (`-shm`)
/// cannot grow on a full disk.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
        || error.sqlite_error().is_some_and(|e| e.extended_code == ffi::SQLITE_IOERR_SHMSIZE)
}

/// Returns true if a quota that is used up (`EDQUOT`) or the maximum file size (`EFBIG`) may have caused this error.
/// SQLite has no error codes of its own for these causes. Errors with the same code and another cause must stop the
/// store.
fn may_be_quota(error: &Error) -> bool {
    let code = error.sqlite_error().map(|e| e.extended_code);
    code.is_some_and(|code| code == ffi::SQLITE_IOERR_WRITE || code & 0xff == ffi::SQLITE_CANTOPEN)
}

/// Returns false if the quota is used up, or if the database or its log has reached the maximum file size.
fn may_grow(path: &Path) -> bool {
    let has_room = path.parent().is_none_or(evoke_fs::has_room);
    has_room && !evoke_fs::is_at_size_limit(path) && !evoke_fs::is_at_size_limit(&log_of(path))
}

pub(super) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Returns true if a lock prevented the operation: `BUSY`, `LOCKED` or `PROTOCOL`, also with an extended code such as
/// `BUSY_RECOVERY`. `PROTOCOL` means that SQLite tried several times to lock the log's index, without success.
pub(super) fn is_busy(error: &Error) -> bool {
    let kind = error.sqlite_error().map(|e| e.extended_code & 0xff);
    matches!(kind, Some(ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL))
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
    format!("{path} is damaged: {what}. `evoke check` lists all problems. To recover, {}", remedy(path))
}

/// Describes how to recover from a damaged file.
pub(super) fn remedy(path: &str) -> String {
    format!(
        "stop Evoke, keep a copy of the data folder, replace {path} with a backup, and delete {path}-wal and {path}-shm"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_and_a_full_disk_are_temporary_and_every_other_error_latches() {
        let busy = [ffi::SQLITE_BUSY_RECOVERY, ffi::SQLITE_BUSY_SNAPSHOT, ffi::SQLITE_BUSY_TIMEOUT, ffi::SQLITE_LOCKED];
        let busy = busy.into_iter().chain([ffi::SQLITE_BUSY, ffi::SQLITE_LOCKED_SHAREDCACHE, ffi::SQLITE_PROTOCOL]);
        let full = [ffi::SQLITE_FULL, ffi::SQLITE_IOERR_SHMSIZE];
        let failed = [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_IOERR_LOCK, ffi::SQLITE_CANTOPEN];
        let convert = |code| store_error(Path::new("evoke.db"), &Error::SqliteFailure(ffi::Error::new(code), None));
        busy.for_each(|code| assert!(matches!(convert(code), StoreError::Busy), "{code}"));
        full.into_iter().for_each(|code| assert!(matches!(convert(code), StoreError::Full), "{code}"));
        failed.into_iter().for_each(|code| assert!(!convert(code).is_temporary(), "{code}"));
    }
}
