//! The data folder: its lock, and the addresses of the listeners.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use evoke_store_sqlite as sqlite;

/// A data folder locked by this process. Dropping it releases the lock.
pub(super) struct DataFolder {
    path: PathBuf,
    /// Locked while the file is open. The operating system releases the lock when the process ends, also after a crash.
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if it does not exist, locks it, and removes the addresses of an earlier process. Returns an
    /// error if another process holds the lock.
    pub(super) fn acquire(path: &Path) -> anyhow::Result<Self> {
        sqlite::make_folder(path).with_context(|| format!("cannot create the data folder {}", path.display()))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .with_context(|| format!("cannot open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "the data folder {} is in use by another Evoke; stop it, or choose another folder with --data",
                    path.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        folder.remove_addresses();
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the addresses of the listeners for other commands: `listen.json`, `{"http": "ADDR", "admin": "ADDR"}`.
    /// The file is replaced atomically.
    pub(super) fn write_addresses(&self, http: SocketAddr, admin: SocketAddr) -> anyhow::Result<()> {
        let text = serde_json::json!({ "http": http.to_string(), "admin": admin.to_string() }).to_string();
        let (path, new) = (self.listen_json(), self.path.join("listen.json.new"));
        std::fs::write(&new, text + "\n")
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Removes `listen.json`.
    pub(super) fn remove_addresses(&self) {
        for path in [self.listen_json(), self.path.join("listen.json.new")] {
            let _ = std::fs::remove_file(path);
        }
    }

    fn listen_json(&self) -> PathBuf {
        self.path.join("listen.json")
    }
}
