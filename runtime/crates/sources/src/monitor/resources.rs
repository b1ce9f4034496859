//! The resources that all monitors of the process share: files of /proc, the scan of processes, the connections to
//! systemd, the client of network checks, and limits on concurrent work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use evoke_egress::Client;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::processes::Processes;
use super::systemd::Systemd;

/// How long the content of a file of /proc is used before the file is read again. So monitors that read at the same
/// time share the content.
const FRESH: Duration = Duration::from_millis(50);
/// Maximum number of concurrent readings that may block a thread, such as readings of disks. A network file system may
/// block a thread for a long time. Therefore there are [`BLOCKING_FURTHER`] more threads for readings that have waited
/// for [`USUAL_WAIT`].
const BLOCKING_USUAL: usize = 2;
const BLOCKING_FURTHER: usize = 14;
const USUAL_WAIT: Duration = Duration::from_millis(100);
/// Maximum number of commands that run at the same time.
const COMMANDS_MAX: usize = 8;

/// The connections and limits that all monitors of the process share.
#[derive(Debug)]
pub(super) struct Resources {
    pub(super) files: SharedFiles,
    pub(super) processes: Processes,
    pub(super) systemd: Systemd,
    pub(super) client: Client,
    /// True if monitors may start programs.
    pub(super) allow_commands: bool,
    /// The common start time of all monitors: their readings start at this time plus a multiple of 100 ms.
    pub(super) start: tokio::time::Instant,
    /// Permits for readings that may block: [`BLOCKING_USUAL`] and [`BLOCKING_FURTHER`].
    blocking: [Arc<Semaphore>; 2],
    pub(super) commands: Semaphore,
}

impl Resources {
    pub(super) fn new(client: Client, allow_commands: bool) -> Self {
        Self {
            files: SharedFiles::default(),
            processes: Processes::default(),
            systemd: Systemd::default(),
            client,
            allow_commands,
            start: tokio::time::Instant::now(),
            blocking: [BLOCKING_USUAL, BLOCKING_FURTHER].map(|permits| Arc::new(Semaphore::new(permits))),
            commands: Semaphore::new(COMMANDS_MAX),
        }
    }
}

impl Resources {
    /// Waits for a permit for a reading that may block its thread. Most readings take microseconds, so a few threads
    /// are enough for all of them. Few threads need little memory.
    pub(super) async fn blocking_permit(&self) -> Option<OwnedSemaphorePermit> {
        let [usual, further] = &self.blocking;
        match tokio::time::timeout(USUAL_WAIT, usual.clone().acquire_owned()).await {
            Ok(permit) => permit.ok(),
            Err(_) => further.clone().acquire_owned().await.ok(),
        }
    }
}

/// The last contents of files of /proc, shared by all monitors.
#[derive(Debug)]
pub(super) struct SharedFiles {
    start: Instant,
    last: Mutex<HashMap<&'static str, (Instant, SharedFile)>>,
}

/// The content of a file, and the time when it was read, in milliseconds since the start of [`SharedFiles`].
#[derive(Debug, Clone)]
pub(super) struct SharedFile {
    pub(super) at_ms: i64,
    pub(super) text: Arc<str>,
}

impl Default for SharedFiles {
    fn default() -> Self {
        Self { start: Instant::now(), last: Mutex::default() }
    }
}

impl SharedFiles {
    /// Returns the content of a file of /proc, at most 50 ms old. Reading such a file does not block, because its
    /// content is in memory.
    pub(super) fn read(&self, path: &'static str) -> Result<SharedFile, String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, file)) = last.get(path)
            && at.elapsed() < FRESH
        {
            return Ok(file.clone());
        }
        let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"))?;
        let now = Instant::now();
        let at_ms = i64::try_from((now - self.start).as_millis()).unwrap_or(i64::MAX);
        let file = SharedFile { at_ms, text: text.into() };
        last.insert(path, (now, file.clone()));
        Ok(file)
    }
}
