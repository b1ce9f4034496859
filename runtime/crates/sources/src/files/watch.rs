//! Hints from file system notifications: each says that a file may have changed. Hints may be late, repeated or lost.
//! They only say which names to check first.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::name;

/// Maximum number of names in the queue. If there are more, the whole folder is scanned instead.
const HINTS_MAX: usize = 4_096;
/// Maximum number of names in one generation of [`Unopened`]. Older names can be forgotten: if a program creates a file
/// by opening it, the system reports the opening right after the creation. A later opening is by another program, and
/// does not matter.
const UNOPENED_MAX: usize = 4_096;

/// The kind of a hint about a file name. A later hint replaces an earlier one, but `Changed` never replaces another
/// hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hint {
    /// The file may have changed.
    Changed,
    /// The name is new, and no program has opened the file by this name. So the name may be a link to a complete file.
    Created,
    /// A program created the file by opening it, and has it open.
    Opened,
    /// A program writes to the file.
    Writing,
    /// A program that wrote to the file closed it, or the file was renamed or removed.
    Written,
}

/// The hints since the last [`HintQueue::take`].
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// The names to check.
    pub(super) names: HashMap<String, Hint>,
    /// True if hints were lost. Then the whole folder must be scanned.
    pub(super) lost: bool,
    /// True if the top folder itself may have changed.
    pub(super) root: bool,
}

/// The queue between the notification thread and the worker.
#[derive(Default)]
pub(super) struct HintQueue {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    hints: Hints,
    unopened: Unopened,
}

/// The names that were created and not opened since. To limit their number, there are two generations: when `newer` is
/// full, it replaces `older`.
#[derive(Default)]
struct Unopened {
    newer: HashSet<String>,
    older: HashSet<String>,
}

impl Unopened {
    fn insert(&mut self, name: String) {
        if self.newer.len() >= UNOPENED_MAX {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(name);
    }

    /// Returns true if the name was in the set.
    fn remove(&mut self, name: &str) -> bool {
        let is_newer = self.newer.remove(name);
        self.older.remove(name) || is_newer
    }

    fn is_empty(&self) -> bool {
        self.newer.is_empty() && self.older.is_empty()
    }
}

impl HintQueue {
    /// Removes and returns the queued hints.
    pub(super) fn take(&self) -> Hints {
        std::mem::take(&mut self.lock().hints)
    }

    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, root: &Path, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) if !event.need_rescan() => event,
            _ => {
                self.lock().hints.lost = true;
                return self.arrived.notify_one();
            }
        };
        let Some(hint) = hint(event.kind) else { return };
        let mut state = self.lock();
        // Most programs, including Evoke, open files only to read them, and this does not change the files. Only the
        // first opening of the files in `unopened` matters.
        if hint == Hint::Opened && state.unopened.is_empty() {
            return;
        }
        let mut is_new = false;
        for path in &event.paths {
            match path.strip_prefix(root) {
                // A scan opens the top folder. That does not change the folder.
                Ok(relative) if relative.as_os_str().is_empty() && hint == Hint::Opened => {}
                Ok(relative) if relative.as_os_str().is_empty() => (state.hints.root, is_new) = (true, true),
                Ok(relative) => is_new |= state.put(name::from_path(relative), hint),
                Err(_) => {}
            }
        }
        drop(state);
        if is_new {
            self.arrived.notify_one();
        }
    }
}

impl State {
    /// Adds a hint. Returns false if the hint does not mean a change.
    fn put(&mut self, name: String, hint: Hint) -> bool {
        match hint {
            Hint::Created => self.unopened.insert(name.clone()),
            Hint::Opened if !self.unopened.remove(&name) => return false,
            Hint::Writing | Hint::Written => {
                self.unopened.remove(&name);
            }
            Hint::Opened | Hint::Changed => {}
        }
        match self.hints.names.get(&name) {
            Some(_) if hint == Hint::Changed => {}
            None if self.hints.names.len() >= HINTS_MAX => self.hints.lost = true,
            _ => drop(self.hints.names.insert(name, hint)),
        }
        true
    }
}

/// Converts a notification of the system to a hint; `None` if a file was only read.
fn hint(kind: EventKind) -> Option<Hint> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Written),
        EventKind::Access(AccessKind::Open(_)) => Some(Hint::Opened),
        EventKind::Access(_) => None,
        EventKind::Create(CreateKind::Folder) => Some(Hint::Changed),
        EventKind::Create(_) => Some(Hint::Created),
        EventKind::Modify(ModifyKind::Data(_)) => Some(Hint::Writing),
        // A rename with both names. Some systems also send a notification for each name, which becomes `Written`.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => Some(Hint::Changed),
        EventKind::Modify(ModifyKind::Name(_)) | EventKind::Remove(_) => Some(Hint::Written),
        _ => Some(Hint::Changed),
    }
}

/// Subscribes to the notifications of the folder and of each subfolder separately. A new subfolder is watched before it
/// is listed, so that no change is missed in between.
pub(super) struct Watch {
    root: PathBuf,
    watcher: RecommendedWatcher,
}

impl Watch {
    /// Creates a watcher that does not watch any folder yet.
    pub(super) fn new(root: &Path, queue: Arc<HintQueue>) -> Result<Self, String> {
        let watched_root = root.to_owned();
        let watcher = notify::recommended_watcher(move |event| queue.put(&watched_root, event));
        Ok(Self { root: root.to_owned(), watcher: watcher.map_err(|e| e.to_string())? })
    }

    /// Watches one folder. A missing folder is not an error.
    fn add(&mut self, relative: &Path) -> Result<(), WatchError> {
        // Joining an empty path would append a slash, and then the paths in notifications would have it too.
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

/// Returns a function that starts to watch a folder. If this fails, the function returns the reason, as a text for
/// users. Once the system's limit of watched folders is reached, the function does not try further folders. If `watch`
/// is `None`, the function does nothing and returns `Ok`.
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
                "the user that runs Evoke has reached the limit of watched folders; raise \
                 `fs.inotify.max_user_watches`"
                    .to_owned()
            }
            WatchError::Other(reason) => reason,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use notify::event::{DataChange, MetadataKind, RemoveKind};

    const OPEN: EventKind = EventKind::Access(AccessKind::Open(AccessMode::Any));
    const CLOSE: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const CREATE: EventKind = EventKind::Create(CreateKind::File);
    const WRITE: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const TOUCH: EventKind = EventKind::Modify(ModifyKind::Metadata(MetadataKind::Any));
    const REMOVE: EventKind = EventKind::Remove(RemoveKind::File);

    fn put(queue: &HintQueue, name: &str, kinds: &[EventKind]) {
        for kind in kinds {
            queue.put(Path::new("/inbox"), Ok(Event::new(*kind).add_path(Path::new("/inbox").join(name))));
        }
    }

    #[test]
    fn a_created_file_is_open_only_if_a_program_opened_it() {
        let queue = HintQueue::default();
        for (kinds, expected) in [
            (&[CREATE][..], Some(Hint::Created)),
            (&[CREATE, TOUCH], Some(Hint::Created)),
            (&[CREATE, OPEN], Some(Hint::Opened)),
            (&[CREATE, OPEN, TOUCH], Some(Hint::Opened)),
            (&[CREATE, OPEN, WRITE], Some(Hint::Writing)),
            (&[CREATE, OPEN, WRITE, CLOSE], Some(Hint::Written)),
            (&[CREATE, OPEN, CLOSE, TOUCH], Some(Hint::Written)),
            // Openings by readers: without a creation, and after the file was removed or written.
            (&[OPEN], None),
            (&[CREATE, REMOVE, OPEN], Some(Hint::Written)),
            (&[CREATE, OPEN, CLOSE, OPEN], Some(Hint::Written)),
        ] {
            put(&queue, "a", kinds);
            assert_eq!(queue.take().names.get("a").copied(), expected, "{kinds:?}");
            put(&queue, "a", &[REMOVE]);
            queue.take();
        }
    }

    #[test]
    fn the_opening_that_creates_a_file_counts_also_when_it_arrives_later() {
        let queue = HintQueue::default();
        put(&queue, "a", &[CREATE]);
        assert_eq!(queue.take().names["a"], Hint::Created);
        put(&queue, "a", &[OPEN]);
        assert_eq!(queue.take().names["a"], Hint::Opened);
        put(&queue, "a", &[OPEN]);
        assert!(queue.take().names.is_empty(), "a second opening is by another program and must give no hint");
    }

    #[test]
    fn opening_the_top_folder_is_no_change_of_it() {
        let queue = HintQueue::default();
        put(&queue, "linked", &[CREATE]);
        queue.take();
        put(&queue, "", &[OPEN]);
        assert!(!queue.take().root, "a scan must not cause the next scan");
        put(&queue, "", &[TOUCH]);
        assert!(queue.take().root);
    }

    #[test]
    fn names_that_nobody_opens_are_forgotten() {
        let queue = HintQueue::default();
        for n in 0..4 * UNOPENED_MAX {
            put(&queue, &n.to_string(), &[CREATE]);
            queue.take();
        }
        let state = queue.lock();
        assert!(state.unopened.newer.len() + state.unopened.older.len() <= 2 * UNOPENED_MAX);
        drop(state);
        let newest = (4 * UNOPENED_MAX - 1).to_string();
        put(&queue, &newest, &[OPEN]);
        assert_eq!(queue.take().names[&newest], Hint::Opened);
    }
}
