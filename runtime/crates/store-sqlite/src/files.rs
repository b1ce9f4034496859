//! Protects the files of an open store: against other code of this process, against other programs, and against
//! removal.
//!
//! # Locks
//! SQLite locks its files with POSIX locks. A process loses these locks when any part of it closes another descriptor
//! of the file. Two measures keep the store safe:
//! - Nothing else in this process opens the files: they are reserved ([`evoke_fs::reserve`]).
//! - Two shared locks of another kind (`F_OFD_SETLK`), which stay when another descriptor is closed. One covers the
//!   bytes of `evoke.db` that SQLite locks exclusively before it deletes the log (its `SHARED_FIRST` range). The other
//!   covers the byte of `evoke.db-shm` that SQLite locks exclusively before it discards the index of the log (its
//!   "deadman switch"). So even if the POSIX locks were lost, another program that opens and closes the database cannot
//!   delete the log.
//!
//! While the store is open, SQLite's own locks on these bytes are shared locks, so they do not conflict with the locks
//! of this module. When the last connection to the store closes, SQLite needs exclusive locks to delete the log: call
//! [`StoreFiles::release`] before.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use tokio::sync::watch;

use super::failure::remedy;
use super::overwritten::Overwritten;
use evoke_fs::{FileId, PrivateFolder, Reservation, lock_shared, reserve, unlock};
use evoke_store::{Result, StoreError};

/// The bytes of the database on which each reader of SQLite has a shared lock (`os.h`: `SHARED_FIRST`, `SHARED_SIZE`).
const SHARED_BYTES: Range<i64> = 0x4000_0002..0x4000_0002 + 510;
/// The byte of the index on which each connection of SQLite has a shared lock (`os_unix.c`: `UNIX_SHM_DMS`).
const INDEX_BYTES: Range<i64> = 128..129;
/// The names of the store's files are `evoke.db` and one of these endings.
const ENDINGS: [&str; 3] = ["", "-wal", "-shm"];
/// Time from one periodic verification of the files to the next. Each commit verifies the files, too.
const VERIFY_INTERVAL: Duration = Duration::from_millis(500);

pub(super) struct StoreFiles {
    folder: PrivateFolder,
    /// Each file with its path, including the lock file of the folder.
    files: Vec<(PathBuf, FileId)>,
    /// `database` and `index` stay open as long as the store. Closing them would drop the POSIX locks of this process.
    database: File,
    index: File,
    overwritten: Overwritten,
    _reservation: Reservation,
}

impl StoreFiles {
    /// Protects the files of a store that SQLite has opened by path in this folder.
    pub(super) fn protect(folder: PrivateFolder) -> Result<Self> {
        let path = folder.path().join("evoke.db");
        let failed = |what: &str, error: io::Error| {
            StoreError::Failed(format!("cannot {what} {} (or its -wal or -shm file): {error}", path.display()))
        };
        let mut files = Vec::new();
        for ending in ENDINGS {
            let name = format!("evoke.db{ending}");
            let id = folder.confirm(&name).map_err(|error| failed("open", error))?;
            files.push((folder.path().join(&name), id));
        }
        let reservation = reserve(files.iter().map(|(_, id)| *id).chain([folder.id()]).collect());
        // Without the lock file, another Evoke process could use the folder, so this file is verified, too. The stores
        // of tests have no lock file.
        if let Ok(Some(id)) = folder.find("lock") {
            files.push((folder.path().join("lock"), id));
        }
        let open = |ending: &str| File::open(folder.path().join(format!("evoke.db{ending}")));
        let database = open("").map_err(|error| failed("open", error))?;
        let index = open("-shm").map_err(|error| failed("open", error))?;
        let overwritten = Overwritten::new(open("-wal").map_err(|error| failed("open", error))?);
        for (file, bytes) in [(&database, SHARED_BYTES), (&index, INDEX_BYTES)] {
            match lock_shared(file, bytes) {
                Ok(()) => {}
                // Some network file systems have no such locks. The reservation still protects the files against other
                // code of this process.
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                    tracing::warn!(
                        "the file system of {} does not support locks of open files (F_OFD_SETLK), so Evoke cannot \
                         fully protect this file: do not open it with another program while Evoke runs",
                        path.display()
                    );
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(StoreError::Busy),
                Err(error) => return Err(failed("lock", error)),
            }
        }
        Ok(Self { folder, files, database, index, overwritten, _reservation: reservation })
    }

    /// Returns an error if later writes would be lost at the next start. This is so if the folder or one of the store's
    /// files was moved, replaced or removed, or if another program truncated or overwrote one of these files. Takes a
    /// few microseconds.
    pub(super) fn verify(&self) -> std::result::Result<(), String> {
        let folder = (self.folder.path().to_owned(), self.folder.id());
        for (path, id) in [&folder].into_iter().chain(&self.files) {
            let happened = match FileId::of_path(path) {
                Ok(found) if found == *id => continue,
                Ok(_) => "was replaced".to_owned(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => "was moved or removed".to_owned(),
                Err(error) => format!("became inaccessible ({error})"),
            };
            return Err(format!(
                "{} {happened} while Evoke was running, so Evoke stores nothing more: put the original back or restore \
                 a backup, and start Evoke again",
                path.display()
            ));
        }
        let overwritten = self.overwritten.find(&self.database, &self.index);
        if let Ok(None) = overwritten {
            return Ok(());
        }
        let database = self.folder.path().join("evoke.db").display().to_string();
        Err(match overwritten {
            Err(error) => format!("{database} or its log cannot be read any more: {error}"),
            Ok(ending) => format!(
                "another program truncated or overwrote {database}{} while Evoke was running, so Evoke stores nothing \
                 more: {}",
                ending.unwrap_or_default(),
                remedy(&database)
            ),
        })
    }

    /// Releases the locks, so that SQLite can delete the log when its last connection closes.
    pub(super) fn release(&self) {
        // An error means that the file system has no such locks, so there is nothing to release.
        let _ = unlock(&self.database, SHARED_BYTES);
        let _ = unlock(&self.index, INDEX_BYTES);
    }

    /// Verifies the files periodically until the returned sender is dropped, and reports the first error in `failure`.
    pub(super) fn watch(
        files: Arc<Self>,
        failure: watch::Sender<Option<String>>,
    ) -> io::Result<mpsc::Sender<std::convert::Infallible>> {
        let (stop, stopped) = mpsc::channel();
        std::thread::Builder::new().name("store-files".into()).spawn(move || {
            while stopped.recv_timeout(VERIFY_INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                if let Err(reason) = files.verify() {
                    tracing::error!("{reason}");
                    failure.send_if_modified(|current| match current {
                        Some(_) => false,
                        None => current.replace(reason).is_none(),
                    });
                    return;
                }
            }
        })?;
        Ok(stop)
    }
}
