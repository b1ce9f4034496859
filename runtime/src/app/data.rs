//! The data folder: its lock, and the addresses of the listeners.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use super::lock_holder;
use crate::control::{ListenUrl, ListenerHandle};
use evoke_fs::{PrivateFolder, Reservation};
use evoke_store_sqlite as sqlite;

const LISTEN: &str = "listen.json";
const LISTEN_NEW: &str = "listen.json.new";

/// The listeners whose addresses are in `listen.json`.
pub(super) struct Addresses {
    pub(super) http: Arc<ListenerHandle>,
    pub(super) admin: Arc<ListenerHandle>,
}

impl Addresses {
    /// Returns the listener with this name.
    pub(super) fn handle(&self, name: &str) -> &ListenerHandle {
        if name == self.admin.name { &self.admin } else { &self.http }
    }

    fn to_json(&self) -> serde_json::Value {
        let address = |url: ListenUrl| if url.tls { url.to_string() } else { url.address.to_string() };
        let mut all = serde_json::json!({ "http": address(self.http.url()), "admin": address(self.admin.url()) });
        if let (Some(tls), Some(all)) = (&self.admin.tls, all.as_object_mut()) {
            let hash = |der: &[u8]| Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            let hashes = tls.certificates().iter().map(|certificate| hash(&certificate.der)).collect::<Vec<_>>();
            all.insert("admin_certificates_sha256".into(), hashes.into());
        }
        all
    }
}

/// A data folder that is private to its owner and locked by this process. Dropping it releases the lock.
pub(super) struct DataFolder {
    folder: PrivateFolder,
    /// The files and folders in the data folder that sources, manifests and secrets must not open.
    reserved: Vec<Reservation>,
    /// Locked while the file is open. The operating system releases the lock when the process ends, also after a crash.
    _lock: File,
}

impl DataFolder {
    /// Creates the folder if it does not exist, makes it private, locks it, and removes the addresses of an earlier
    /// process. Returns an error if another process of this user holds the lock, or if the folder is not safe to use.
    pub(super) fn acquire(path: &Path) -> anyhow::Result<Self> {
        let opening = || format!("cannot use the data folder {}", path.display());
        let prepared = sqlite::prepare_data_folder(path).with_context(opening)?;
        prepared.notes.iter().for_each(|note| tracing::warn!("{note}"));
        let folder = prepared.folder;
        let lock = lock(&folder)?;
        if prepared.was_open {
            sqlite::discard_index(&folder).with_context(opening)?;
        }
        let folder = Self { folder, reserved: Vec::new(), _lock: lock };
        folder.remove_addresses();
        Ok(folder)
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Reserves the files and folders that exist in the data folder now, so that no source, manifest or secret can use
    /// them.
    pub(super) fn reserve(&mut self) -> anyhow::Result<()> {
        let reserved = sqlite::reserve_own(&self.folder);
        self.reserved.push(reserved.with_context(|| format!("cannot read the data folder {}", self.path().display()))?);
        Ok(())
    }

    /// Writes the addresses of the listeners to `listen.json`, where other commands find them: `{"http": "ADDR",
    /// "admin": "ADDR"}`. The address of a listener with TLS begins with `https://`. If the admin listener has TLS,
    /// `admin_certificates_sha256` has the hashes of its certificates. Other commands recognise the listener by these
    /// hashes. The file is replaced atomically. Returns false if the disk is full.
    pub(super) fn write_addresses(&self, addresses: &Addresses) -> anyhow::Result<bool> {
        let text = addresses.to_json().to_string();
        let path = self.path().join(LISTEN);
        match self.folder.replace(LISTEN, (text + "\n").as_bytes(), false) {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => Ok(false),
            written => written.map(|()| true).with_context(|| format!("cannot write {}", path.display())),
        }
    }

    /// If `listen.json` is missing, writes it as soon as the disk has room. Never returns.
    pub(super) async fn keep_addresses(&self, addresses: &Addresses) {
        /// Time between two tries on a full disk.
        const INTERVAL: Duration = Duration::from_secs(1);
        while !self.path().join(LISTEN).exists() {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = self.write_addresses(addresses) {
                tracing::error!("{error:#}");
                break;
            }
        }
        std::future::pending::<()>().await;
    }

    /// Removes `listen.json`.
    fn remove_addresses(&self) {
        for name in [LISTEN, LISTEN_NEW] {
            let _ = self.folder.remove(name);
        }
    }
}

impl Drop for DataFolder {
    /// Removes `listen.json`. The folder is still locked here, so no other process has written this file.
    fn drop(&mut self) {
        self.remove_addresses();
    }
}

/// Locks the folder's lock file. Another user may have opened and locked the file before the folder became private.
/// Then the file is replaced by a new file, which only this user can open.
fn lock(folder: &PrivateFolder) -> anyhow::Result<File> {
    let path = folder.path().join("lock");
    let open = || {
        let opened = folder.open_file("lock", File::options().create(true).truncate(false).write(true));
        opened.with_context(|| format!("cannot open {}", path.display()))
    };
    let mut file = open()?;
    if let Some(stranger) = lock_holder::stranger(&file) {
        tracing::warn!(
            "{} was locked by {stranger}; the file is replaced, so that only the user of Evoke can lock it",
            path.display()
        );
        std::fs::remove_file(&path).with_context(|| format!("cannot replace {}", path.display()))?;
        file = open()?;
    }
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "the data folder {} is in use by another Evoke; stop it, or choose another folder with --data",
            folder.path().display()
        ),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {}", path.display())),
    }
}
