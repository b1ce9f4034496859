//! Detects that another program truncated or overwrote a file of an open store, for example with `truncate` on the log
//! or with `cp` onto the database. The names and inodes of the files stay the same, so the content is compared. After a
//! truncation of the log, SQLite would continue to write at the old end of the log, with a hole before the new frames.
//! The next start would read the log only up to the hole.
//!
//! The index of the log, which all processes share in memory, contains the number of frames in the log ("WAL-mode File
//! Format" in SQLite's documentation). So the log must be at least this long, it must contain the salts (random bytes)
//! of the index, and the frames that were seen before must still be there. The database must begin like a database in
//! WAL mode.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

use super::wal::{FRAME_HEADER, HEADER};

/// The first bytes of a database file. In WAL mode, the bytes at the offsets 18 and 19 are [`IN_WAL_MODE`].
const DATABASE_START: &[u8; 16] = b"SQLite format 3\0";
const IN_WAL_MODE: [u8; 2] = [2, 2];
/// Length of the header of the index in bytes. The index begins with two copies of its header.
const INDEX_HEADER: usize = 48;
/// Maximum number of tries of a check. If the index changes during a try, the check tries again. If the index changes
/// during each try, the log counts as intact for now.
const TRIES: usize = 8;

/// Compares the files with the state of the log at the last check.
pub(super) struct Overwritten {
    /// Closing this descriptor drops no locks, because SQLite takes no locks on the log.
    log: File,
    seen: Mutex<Option<Index>>,
}

/// The header of the index of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Index {
    /// Random bytes, which change whenever the log is written from its beginning again.
    salts: [u8; 8],
    /// In bytes.
    page: u64,
    frames: u64,
}

impl Overwritten {
    pub(super) fn new(log: File) -> Self {
        Self { log, seen: Mutex::default() }
    }

    /// If a file was truncated or overwritten, returns the ending of its name, which is empty for the database. Returns
    /// `None` if all files are intact. `database` and `index` are descriptors of these files. Takes a few microseconds.
    /// An error means that a file cannot be read.
    pub(super) fn find(&self, database: &File, index: &File) -> io::Result<Option<&'static str>> {
        let Some(start) = read_at::<20>(database, 0)? else { return Ok(Some("")) };
        if !start.starts_with(DATABASE_START) || !start.ends_with(&IN_WAL_MODE) {
            return Ok(Some(""));
        }
        for _ in 0..TRIES {
            let Some(copies) = read_at(index, 0)? else { return Ok(Some("-shm")) };
            let Some(now) = Index::of(&copies) else { continue };
            let has_frames = self.has_frames(&now)?;
            // If the index has changed during the check, so has the log: check again.
            if read_at(index, 0).ok() != Some(Some(copies)) {
                continue;
            }
            if !has_frames {
                return Ok(Some("-wal"));
            }
            *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
            break;
        }
        Ok(None)
    }

    /// Returns false if the log lacks a frame that its index counts.
    fn has_frames(&self, now: &Index) -> io::Result<bool> {
        if now.frames == 0 {
            return Ok(true);
        }
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.filter(|seen| seen.frames > 0 && seen.salts == now.salts && seen.page == now.page);
        // After a truncation, SQLite writes later frames behind a hole. So the frame that was the last one at the
        // previous check is checked again.
        let frames = [now.frames, seen.map_or(now.frames, |seen| seen.frames.min(now.frames))];
        let [last, earlier] = frames.map(|frames| now.end_of(frames));
        let is_long_enough = self.log.metadata()?.len() >= last;
        let has_salts = |at: u64| read_at(&self.log, at).map(|salts| salts == Some(now.salts));
        let frame = FRAME_HEADER as u64 + now.page;
        Ok(is_long_enough
            && has_salts(16)?
            && has_salts(last - frame + 8)?
            && (earlier == last || has_salts(earlier - frame + 8)?))
    }
}

impl Index {
    /// Parses the header. Returns `None` while SQLite writes the header, because its two copies differ then.
    fn of(copies: &[u8; 2 * INDEX_HEADER]) -> Option<Self> {
        let (first, second) = copies.split_at(INDEX_HEADER);
        (first == second).then(|| Self::parse(first))
    }

    /// All numbers have the byte order of the machine.
    fn parse(header: &[u8]) -> Self {
        fn bytes<const LENGTH: usize>(header: &[u8], at: usize) -> [u8; LENGTH] {
            header.get(at..at + LENGTH).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; LENGTH])
        }
        // The format stores a page size of 65,536 as 1.
        let page = match u16::from_ne_bytes(bytes(header, 14)) {
            1 => 65_536,
            page => u64::from(page),
        };
        Self { salts: bytes(header, 32), page, frames: u32::from_ne_bytes(bytes(header, 16)).into() }
    }

    /// Returns the length of a log with this many frames.
    fn end_of(&self, frames: u64) -> u64 {
        HEADER as u64 + frames * (FRAME_HEADER as u64 + self.page)
    }
}

/// Reads bytes of a file; returns `None` if the file ends before them.
fn read_at<const LENGTH: usize>(file: &File, at: u64) -> io::Result<Option<[u8; LENGTH]>> {
    let mut bytes = [0; LENGTH];
    match file.read_exact_at(&mut bytes, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read.map(|()| Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::SqliteStore;
    use evoke_model::clock::Clock;
    use evoke_store::{DeliveryStore as _, Store as _, StoreError};
    use rusqlite::Connection;

    async fn store_in(folder: &Path) -> SqliteStore {
        let store = SqliteStore::open(folder, Clock::system()).unwrap();
        for name in ["lab/one", "lab/two"] {
            store.register(vec![name.into()]).await.unwrap();
        }
        store
    }

    fn cut(path: &Path, length: u64) {
        File::options().write(true).open(path).unwrap().set_len(length).unwrap();
    }

    #[tokio::test]
    async fn a_commit_after_a_file_was_cut_or_overwritten_is_an_error_that_names_the_file() {
        type Overwrite = fn(&Path);
        let ways: [(&str, Overwrite); 5] = [
            ("evoke.db-wal", |path| cut(path, 0)),
            ("evoke.db-wal", |path| cut(path, 32)),
            // Cuts off the last frame.
            ("evoke.db-wal", |path| cut(path, path.metadata().unwrap().len() - 4096 - 24)),
            ("evoke.db", |path| cut(path, 0)),
            ("evoke.db", |path| {
                let folder = tempfile::tempdir().unwrap();
                let other = folder.path().join("other.db");
                Connection::open(&other).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
                std::fs::copy(other, path).unwrap();
            }),
        ];
        for (name, overwrite) in ways {
            let folder = tempfile::tempdir().unwrap();
            let store = store_in(folder.path()).await;
            overwrite(&folder.path().join(name));
            match store.register(vec!["lab/three".into()]).await {
                Err(StoreError::Failed(reason)) => {
                    assert!(
                        reason.contains("truncated or overwrote") && reason.contains(&format!("{name} while Evoke")),
                        "{reason}"
                    );
                }
                result => panic!("{name}: {result:?}"),
            }
        }
    }

    #[tokio::test]
    async fn checkpoints_and_writes_of_another_program_are_no_errors() {
        let folder = tempfile::tempdir().unwrap();
        let store = store_in(folder.path()).await;
        let other = Connection::open(folder.path().join("evoke.db")).unwrap();
        for (number, how) in ["PASSIVE", "TRUNCATE", "RESTART", "FULL", "TRUNCATE"].into_iter().enumerate() {
            store.register(vec![format!("lab/{number}")]).await.unwrap();
            other.query_row(&format!("PRAGMA wal_checkpoint({how})"), [], |_| Ok(())).unwrap();
            other.execute_batch("CREATE TABLE x (y); DROP TABLE x; VACUUM").unwrap();
            store.register(vec![format!("lab/{number}-again")]).await.unwrap();
        }
        store.close().await.unwrap();
    }
}
