//! The data folder: who has it, and where its listeners are.

use std::fs::{File, TryLockError};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::store::sqlite;

/// A data folder that this process has to itself. Dropping it lets it go.
pub(super) struct DataFolder {
    path: PathBuf,
    /// Locked as long as it is open; the system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder when it is not there, and takes it.
    pub(super) fn take(path: &Path) -> anyhow::Result<Self> {
        sqlite::make_folder(path).with_context(|| format!("cannot make the data folder {}", path.display()))?;
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
                    "the data folder {} is in use by another Evoke; stop that one, or choose another folder with --data",
                    path.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        let folder = Self { path: path.to_owned(), _lock: lock };
        folder.retract();
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Tells other commands where the listeners are: `listen.json`, `{"http": "ADDR", "admin": "ADDR"}`.
    pub(super) fn announce(&self, http: SocketAddr, admin: SocketAddr) -> anyhow::Result<()> {
        let text = serde_json::json!({ "http": http.to_string(), "admin": admin.to_string() }).to_string();
        let (path, new) = (self.listen_json(), self.path.join("listen.json.new"));
        std::fs::write(&new, text + "\n")
            .and_then(|()| std::fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes that back.
    pub(super) fn retract(&self) {
        let _ = std::fs::remove_file(self.listen_json());
    }

    fn listen_json(&self) -> PathBuf {
        self.path.join("listen.json")
    }
}
