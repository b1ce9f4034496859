//! Hints from file system notifications that a file may have changed. Hints may be late, repeated or lost: they only
//! say which names to check first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::name;

/// The most names in the queue. With more, the whole folder is scanned instead.
const HINTS_MAX: usize = 4_096;

/// The kind of hint about a name. A later hint replaces an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// The file may have changed.
    Changed,
    /// The file was created.
    Created,
    /// A writer changes the content.
    Writing,
    /// A writer closed the file, or the file appeared or disappeared by rename or removal.
    Written,
}

/// The hints since the last [`HintQueue::take`].
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// The names to check.
    pub(super) names: HashMap<String, Hint>,
    /// Whether hints were lost, so that the whole folder must be scanned.
    pub(super) lost: bool,
    /// Whether the top folder itself changed.
    pub(super) root: bool,
}

/// The queue between the notification thread and the worker.
#[derive(Default)]
pub(super) struct HintQueue {
    hints: Mutex<Hints>,
    arrived: Notify,
}

impl HintQueue {
    /// Removes and returns the queued hints.
    pub(super) fn take(&self) -> Hints {
        std::mem::take(&mut *self.lock())
    }

    /// Waits until a hint arrives.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, root: &Path, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            _ => {
                self.lock().lost = true;
                return self.arrived.notify_one();
            }
        };
        let Some(hint) = hint(event.kind) else { return };
        let mut hints = self.lock();
        for path in &event.paths {
            match path.strip_prefix(root) {
                Ok(relative) if relative.as_os_str().is_empty() => hints.root = true,
                Ok(relative) => {
                    let name = name::from_path(relative);
                    match hints.names.get(&name) {
                        Some(_) if hint == Hint::Changed => {}
                        None if hints.names.len() >= HINTS_MAX => hints.lost = true,
                        _ => drop(hints.names.insert(name, hint)),
                    }
                }
                Err(_) => {}
            }
        }
        drop(hints);
        self.arrived.notify_one();
    }
}

/// Converts a system notification to a hint; `None` for opening and reading, which change no file.
fn hint(kind: EventKind) -> Option<Hint> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Written),
        EventKind::Access(_) => None,
        EventKind::Create(CreateKind::Folder) => Some(Hint::Changed),
        EventKind::Create(_) => Some(Hint::Created),
        EventKind::Modify(ModifyKind::Data(_)) => Some(Hint::Writing),
        // Some systems also send one notification for each of the two names.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => Some(Hint::Changed),
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => Some(Hint::Written),
        _ => Some(Hint::Changed),
    }
}

/// Watches folders, each one separately. A new folder is watched before it is listed, so that no change is missed in
/// between.
pub(super) struct Watch {
    root: PathBuf,
    watcher: RecommendedWatcher,
}

impl Watch {
    /// Creates a watcher without folders.
    pub(super) fn new(root: &Path, queue: Arc<HintQueue>) -> Result<Self, String> {
        let watched_root = root.to_owned();
        let watcher = notify::recommended_watcher(move |event| queue.put(&watched_root, event));
        Ok(Self { root: root.to_owned(), watcher: watcher.map_err(|e| e.to_string())? })
    }

    /// Watches one folder. A missing folder is no error; the error says why any other folder cannot be watched.
    fn add(&mut self, relative: &Path) -> Result<(), WatchError> {
        // Joining an empty path would append a slash, which the system's notifications would then contain.
        let path = if relative.as_os_str().is_empty() { self.root.clone() } else { self.root.join(relative) };
        match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(()),
            Err(error) => match error.kind {
                notify::ErrorKind::PathNotFound => Ok(()),
                notify::ErrorKind::Io(cause) if super::confined::is_missing(&cause) => Ok(()),
                notify::ErrorKind::MaxFilesWatch => Err(WatchError::LimitReached),
                kind => Err(WatchError::Other(notify::Error::new(kind).to_string())),
            },
        }
    }
}

/// Why a folder cannot be watched.
enum WatchError {
    LimitReached,
    Other(String),
}

/// Returns a function that watches each folder passed to it, and returns why it cannot. Once the system's limit of
/// watched folders is reached, the rest is skipped. Without a watch, no folder is watched and none fails.
pub(super) fn watch_each(watch: &mut Option<Watch>) -> impl FnMut(&Path) -> Result<(), String> + '_ {
    let mut is_limit_reached = false;
    move |folder| {
        let added = match watch {
            Some(_) if is_limit_reached => Err(WatchError::LimitReached),
            Some(watch) => watch.add(folder),
            None => Ok(()),
        };
        added.map_err(|error| match error {
            WatchError::LimitReached => {
                is_limit_reached = true;
                "the limit of watched folders for this user is reached (fs.inotify.max_user_watches)".to_owned()
            }
            WatchError::Other(reason) => reason,
        })
    }
}
