//! Reserved files: the database files that only SQLite may open in this process.
//!
//! SQLite locks its files with POSIX locks. A process loses all POSIX locks on a file as soon as it closes any
//! descriptor of that file (POSIX.1, `fcntl`). Suppose that another part of the process opened and closed `evoke.db` or
//! `evoke.db-shm`. The next program that opens the database would then see no lock, assume that nobody uses the
//! database, and delete the write-ahead log, with acknowledged events in it. POSIX locks belong to the whole process,
//! therefore this list is global.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use super::FileId;

/// Each reserved file with the number of its reservations.
static RESERVED: RwLock<BTreeMap<FileId, usize>> = RwLock::new(BTreeMap::new());

/// Files and folders that are reserved while this value exists.
#[derive(Debug)]
pub struct Reservation(Vec<FileId>);

/// Reserves files and folders: [`super::open_regular`] and [`super::open_below`] refuse to open them, and the files
/// source does not enter them.
pub fn reserve(files: Vec<FileId>) -> Reservation {
    let mut reserved = RESERVED.write().unwrap_or_else(PoisonError::into_inner);
    for file in &files {
        *reserved.entry(*file).or_default() += 1;
    }
    Reservation(files)
}

/// Returns true if the file or folder is reserved.
pub fn is_reserved(file: FileId) -> bool {
    RESERVED.read().unwrap_or_else(PoisonError::into_inner).contains_key(&file)
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = RESERVED.write().unwrap_or_else(PoisonError::into_inner);
        for file in &self.0 {
            if let Some(count) = reserved.get_mut(file) {
                *count -= 1;
                if *count == 0 {
                    reserved.remove(file);
                }
            }
        }
    }
}
