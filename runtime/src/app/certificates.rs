//! The certificates of the listeners: read from files at the start, and again when the files change or SIGHUP is
//! received. If the files cannot be read again, the previous certificates stay active.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use tokio::sync::Mutex;

use super::data::{Addresses, DataFolder};
use crate::control::{Host, ListenerHandle, Progress, first_end};
use evoke_http::listener::{CertificatePem, ClientAuthorities, Tls, TlsConfig, TlsPart, TlsSettings};
use evoke_model::clock::{Clock, rfc3339};

/// The time between two checks of the files for changes. Changed files are read when they are the same in two checks in
/// a row.
const INTERVAL: Duration = Duration::from_millis(500);
/// Maximum size of a file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Permissions that the file of a private key should not have: all permissions for other users, and writing for the
/// group.
const OF_OTHERS: u32 = 0o027;

/// The files of a listener's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Each certificate with its chain, and its key.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// The file with the authorities that sign the certificates of clients, and true if each client must have a
    /// certificate.
    pub clients: Option<(PathBuf, bool)>,
}

impl TlsFiles {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        let certificates = self.certificates.iter().flat_map(|(chain, key)| [chain, key]);
        certificates.chain(self.clients.iter().map(|(roots, _)| roots)).map(PathBuf::as_path)
    }

    /// Reads and checks the files. The error names the file.
    fn read(&self, http2: bool) -> anyhow::Result<TlsConfig> {
        let read = |path: &Path| {
            evoke_fs::read_at_most(path, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))
        };
        let certificates: anyhow::Result<Vec<_>> = self
            .certificates
            .iter()
            .map(|(chain, key)| Ok(CertificatePem { chain: read(chain)?, key: read(key)? }))
            .collect();
        let clients = self.clients.as_ref().map(|(roots, required)| {
            Ok::<_, anyhow::Error>(ClientAuthorities { roots: read(roots)?, required: *required })
        });
        let settings = TlsSettings { certificates: certificates?, clients: clients.transpose()?, http2 };
        TlsConfig::new(&settings).map_err(|error| {
            let path = match error.part {
                TlsPart::Chain(index) => self.certificates.get(index).map(|(chain, _)| chain),
                TlsPart::Key(index) => self.certificates.get(index).map(|(_, key)| key),
                TlsPart::Authorities => self.clients.as_ref().map(|(roots, _)| roots),
            };
            anyhow::anyhow!("{}: {error}", path.map(|path| path.display().to_string()).unwrap_or_default())
        })
    }

    /// Returns a warning for each key that other users can read or change.
    fn doubts(&self) -> Vec<String> {
        let keys = self.certificates.iter().filter_map(|(_, key)| {
            let mode = std::fs::metadata(key).ok()?.permissions().mode() & 0o7777;
            (mode & OF_OTHERS != 0).then(|| {
                let key = key.display();
                format!("other users can read or change the private key {key} (its permissions are {mode:04o}); run `chmod 600 {key}`")
            })
        });
        keys.collect()
    }

    /// Returns a fingerprint of the files. If a file changes, its fingerprint changes.
    fn fingerprint(&self) -> Fingerprint {
        let of = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.dev(), metadata.ino(), metadata.len(), metadata.modified().ok()?))
        };
        self.paths().map(of).collect()
    }
}

type Fingerprint = Vec<Option<(u64, u64, u64, SystemTime)>>;

/// The certificates of one listener, with their files.
pub(super) struct Certificates {
    listener: &'static str,
    files: Arc<TlsFiles>,
    http2: bool,
    tls: Tls,
    /// The fingerprint of the files when they were read.
    read: Mutex<Fingerprint>,
}

impl Certificates {
    /// Reads the files of a listener for the first time.
    pub(super) fn open(listener: &'static str, files: TlsFiles, http2: bool, clock: &Clock) -> anyhow::Result<Self> {
        let read = Mutex::new(files.fingerprint());
        let config = files.read(http2).with_context(|| format!("cannot start TLS of the {listener} listener"))?;
        files.doubts().iter().for_each(|doubt| tracing::warn!("{doubt}"));
        if let Some(end) = first_end(config.certificates()).filter(|end| *end < clock.now_ms()) {
            tracing::warn!("the certificate of the {listener} listener expired on {}; replace its file", rfc3339(end));
        }
        Ok(Self { listener, files: Arc::new(files), http2, tls: Tls::new(config), read })
    }

    pub(super) fn tls(&self) -> Tls {
        self.tls.clone()
    }

    /// Reads the files again, and replaces the certificates. After an error, the previous certificates stay active.
    /// Returns true if the certificates were replaced.
    async fn reload(&self, handle: &ListenerHandle, clock: &Clock) -> bool {
        let mut read = self.read.lock().await;
        let (files, http2) = (self.files.clone(), self.http2);
        // A file system that does not respond must not block other work, so a separate thread reads the files.
        let result =
            tokio::task::spawn_blocking(move || (files.fingerprint(), files.read(http2), files.doubts())).await;
        let Ok((fingerprint, config, doubts)) = result else { return false };
        *read = fingerprint;
        let config = config.and_then(|config| {
            let (new, old) = (first_end(config.certificates()), first_end(&self.tls.certificates()));
            let now = clock.now_ms();
            match new.filter(|end| *end < now && old.is_some_and(|old| old >= now)) {
                Some(end) => Err(anyhow::anyhow!("the new certificate already expired on {}", rfc3339(end))),
                None => Ok(config),
            }
        });
        match config {
            Ok(config) => {
                doubts.iter().for_each(|doubt| tracing::warn!("{doubt}"));
                self.tls.replace(config);
                handle.set_reload_error(None);
                true
            }
            Err(error) => {
                let listener = self.listener;
                tracing::error!("the previous certificates of the {listener} listener stay active: {error:#}");
                handle.set_reload_error(Some(format!("its certificates could not be replaced: {error:#}")));
                false
            }
        }
    }

    /// Waits until the files have changed and then stayed the same for [`INTERVAL`].
    async fn changed(&self) {
        let mut previous = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let files = self.files.clone();
            let Ok(now) = tokio::task::spawn_blocking(move || files.fingerprint()).await else { continue };
            if now != *self.read.lock().await && previous.as_ref() == Some(&now) {
                return;
            }
            previous = Some(now);
        }
    }
}

/// Replaces the certificates of listeners.
pub(super) struct Reloads<'a> {
    pub(super) certificates: &'a [Certificates],
    pub(super) addresses: &'a Addresses,
    pub(super) data: &'a DataFolder,
    pub(super) clock: &'a Clock,
    pub(super) host: &'a dyn Host,
}

impl Reloads<'_> {
    /// Reads all files again.
    pub(super) async fn all(&self) {
        for certificates in self.certificates {
            self.one(certificates).await;
        }
    }

    /// Reads files again when they change. Never returns.
    pub(super) async fn watch(&self) {
        let watches = self.certificates.iter().map(|certificates| async move {
            loop {
                certificates.changed().await;
                self.one(certificates).await;
            }
        });
        futures_util::future::join_all(watches).await;
        std::future::pending::<()>().await;
    }

    async fn one(&self, certificates: &Certificates) {
        let handle = self.addresses.handle(certificates.listener);
        if !certificates.reload(handle, self.clock).await {
            return;
        }
        // Other commands recognise the admin listener by the hash of its certificate in `listen.json`.
        if let Err(error) = self.data.write_addresses(self.addresses) {
            tracing::error!("{error:#}");
        }
        let expires_ms = handle.status(self.clock.now_ms()).expires_ms;
        self.host.report(Progress::CertificatesReplaced { listener: certificates.listener, expires_ms });
    }
}
