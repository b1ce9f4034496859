//! Hints from the system that something changed somewhere. They may be late, doubled or lost: they only say where to
//! look first.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::name;

/// Names that are held at a time; when there are more, everything is looked at instead.
const HINTS_MAX: usize = 4_096;

/// What is said of a name; of several things, the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// Look at it.
    Look,
    /// It was made here.
    Created,
    /// Somebody writes it.
    Writing,
    /// A writer closed it, or it came or went as a whole.
    Written,
}

/// What came up since it was asked last.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// Names to look at.
    pub(super) names: HashMap<String, Hint>,
    /// Hints were lost: look at everything.
    pub(super) lost: bool,
    /// The folder itself is another.
    pub(super) root: bool,
}

/// Where hints wait to be asked for.
#[derive(Default)]
pub(super) struct Mailbox {
    hints: Mutex<Hints>,
    arrived: Notify,
}

impl Mailbox {
    /// Takes what came up.
    pub(super) fn take(&self) -> Hints {
        std::mem::take(&mut *self.lock())
    }

    /// Waits until something comes up.
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
                    let name = name::of(relative);
                    match hints.names.get(&name) {
                        Some(_) if hint == Hint::Look => {}
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

/// What an event of the system hints at; `None` for nothing: opening and reading change no file.
fn hint(kind: EventKind) -> Option<Hint> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Written),
        EventKind::Access(_) => None,
        EventKind::Create(CreateKind::Folder) => Some(Hint::Look),
        EventKind::Create(_) => Some(Hint::Created),
        EventKind::Modify(ModifyKind::Data(_)) => Some(Hint::Writing),
        // Told twice by some systems, once for each name alone.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => Some(Hint::Look),
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => Some(Hint::Written),
        _ => Some(Hint::Look),
    }
}

/// Watches folders, each by itself: a new one is watched before it is listed, so that nothing falls in between.
pub(super) struct Watch {
    root: PathBuf,
    watcher: RecommendedWatcher,
}

impl Watch {
    /// A watch of no folder yet.
    pub(super) fn new(root: &Path, mailbox: Arc<Mailbox>) -> Result<Self, String> {
        let told = root.to_owned();
        let watcher = notify::recommended_watcher(move |event| mailbox.put(&told, event));
        Ok(Self { root: root.to_owned(), watcher: watcher.map_err(|e| e.to_string())? })
    }

    /// Watches one folder; an error says why that is not possible, other than that it is not there.
    pub(super) fn add(&mut self, relative: &Path) -> Result<(), String> {
        // Joining an empty path would add a slash, and the system's events would carry it.
        let path = if relative.as_os_str().is_empty() { self.root.clone() } else { self.root.join(relative) };
        match self.watcher.watch(&path, RecursiveMode::NonRecursive) {
            Ok(()) => Ok(()),
            Err(error) => match error.kind {
                notify::ErrorKind::PathNotFound => Ok(()),
                notify::ErrorKind::Io(cause) if super::beneath::is_absence(&cause) => Ok(()),
                notify::ErrorKind::MaxFilesWatch => Err("the system watches no more folders for this user \
                     (fs.inotify.max_user_watches)"
                    .to_owned()),
                kind => Err(notify::Error::new(kind).to_string()),
            },
        }
    }
}
