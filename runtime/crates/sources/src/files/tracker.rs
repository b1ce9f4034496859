//! Tracks the known versions, the pending changes and the settled files of one source. Reads no clock and no file.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::name;
use super::version::{Stamp, Version};

/// The most pending files. Further changes are left to a later scan, so that a flood of changes cannot use more memory.
const PENDING_MAX: usize = 16_384;
/// The shortest settle time: below it, file timestamps are too coarse to distinguish two writes.
const SETTLE_MIN: Duration = Duration::from_millis(20);
/// The longest settle time: beyond it, sums of times could overflow.
const SETTLE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a file that a writer holds open must be unchanged to be submitted anyway. The system reports when a writer
/// closes the file or dies, so this only concerns writers that never close, as of a log.
const OPEN_WAIT: Duration = Duration::from_secs(300);
/// The same, when the notification of the closing may have been lost.
const MAYBE_OPEN_WAIT: Duration = Duration::from_secs(5);
/// The first and the longest wait after a file could not be read or submitted.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A file whose last observed metadata differs from its known version.
#[derive(Debug)]
struct Pending {
    /// The last observed metadata; `None` when the file is gone.
    seen: Option<Stamp>,
    /// When this metadata was first observed.
    since: Instant,
    /// How long the metadata must stay unchanged.
    settle_for: Duration,
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    None,
    /// A writer has the file open.
    Open,
    /// A writer had the file open, and may have closed it.
    MaybeOpen,
}

/// The change that a settled file represents.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The file is new.
    Created,
    /// The content differs from the known version.
    Modified,
    /// The file is gone; with its last known version.
    Removed(Version),
    /// No event: only the mark changes.
    NoEvent,
}

/// The tracker of one source.
pub(super) struct Tracker {
    settle: Duration,
    known: BTreeMap<String, Version>,
    pending: BTreeMap<String, Pending>,
    /// Files that existed at the first start with this metadata, and cause no event until they change.
    existing: HashMap<String, Stamp>,
    /// Whether changes were observed that did not fit into `pending`.
    overflowed: bool,
}

impl Tracker {
    /// Creates a tracker with the versions known from the stored marks.
    pub(super) fn new(settle: Duration, known: BTreeMap<String, Version>) -> Self {
        let settle = settle.clamp(SETTLE_MIN, SETTLE_MAX);
        Self { settle, known, pending: BTreeMap::new(), existing: HashMap::new(), overflowed: false }
    }

    /// Records an observation of one file; `None` when the file does not exist.
    pub(super) fn observe(&mut self, name: &str, seen: Option<Stamp>, now: Instant) {
        if self.known.get(name).map(|version| version.stamp) == seen {
            self.pending.remove(name);
            if seen.is_none() {
                self.existing.remove(name);
            }
            return;
        }
        let is_full = self.pending.len() >= PENDING_MAX;
        match self.pending.get_mut(name) {
            Some(pending) if pending.seen == seen => {}
            Some(pending) => (pending.seen, pending.since, pending.settle_for) = (seen, now, self.settle),
            None if is_full => self.overflowed = true,
            None => {
                // A new empty file is most likely about to be written.
                let empty = seen.is_some_and(|stamp| stamp.size == 0) && !self.known.contains_key(name);
                let writer = if empty { Writer::MaybeOpen } else { Writer::None };
                let pending = Pending { seen, since: now, settle_for: self.settle, writer };
                self.pending.insert(name.to_owned(), pending);
            }
        }
    }

    /// Records the observation of a whole folder: a known or pending file that is not in `seen` is gone, unless it is
    /// in one of the folders `unread`.
    pub(super) fn observe_folder(&mut self, folder: &str, seen: &[(String, Stamp)], unread: &[String], now: Instant) {
        for (name, stamp) in seen {
            self.observe(name, Some(*stamp), now);
        }
        let prefix = name::prefix(folder);
        let unread: Vec<String> = unread.iter().map(|folder| name::prefix(folder)).collect();
        let there: HashSet<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
        let gone = |name: &String| {
            !there.contains(name.as_str()) && !unread.iter().any(|prefix| name.starts_with(prefix.as_str()))
        };
        let known = self.known.range(prefix.clone()..).map(|(name, _)| name);
        let known = known.take_while(|name| name.starts_with(&prefix)).filter(|name| gone(name));
        let pending = self.pending.range(prefix.clone()..).map(|(name, _)| name);
        let pending = pending.take_while(|name| name.starts_with(&prefix)).filter(|name| gone(name));
        let gone: Vec<String> = known.chain(pending).cloned().collect();
        for name in gone {
            self.observe(&name, None, now);
        }
    }

    /// A file was created: while it is empty, a writer probably has it open.
    pub(super) fn created(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name)
            && pending.seen.is_some_and(|stamp| stamp.size == 0)
        {
            pending.writer = Writer::Open;
        }
    }

    /// A writer changed a file, and has it open.
    pub(super) fn writing(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name) {
            pending.writer = Writer::Open;
        }
    }

    /// The writer of a file closed it.
    pub(super) fn written(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name) {
            pending.writer = Writer::None;
        }
    }

    /// Notifications were lost, so that no open writer is certain any more.
    pub(super) fn hints_lost(&mut self) {
        for pending in self.pending.values_mut().filter(|pending| pending.writer == Writer::Open) {
            pending.writer = Writer::MaybeOpen;
        }
    }

    /// Records the files that exist at the first start: each causes no event as long as its metadata is unchanged.
    pub(super) fn set_existing(&mut self, seen: &[(String, Stamp)]) {
        self.existing = seen.iter().filter(|(name, _)| !self.known.contains_key(name)).cloned().collect();
    }

    /// Whether every such file has a committed mark.
    pub(super) fn existing_recorded(&self) -> bool {
        self.existing.is_empty() && !self.overflowed
    }

    /// The settled files, the longest settled first.
    pub(super) fn settled(&self, now: Instant) -> Vec<(String, Option<Stamp>)> {
        let mut settled: Vec<_> = self.pending.iter().filter(|(_, pending)| pending.ready_at() <= now).collect();
        settled.sort_by_key(|(_, pending)| pending.since);
        settled.into_iter().map(|(name, pending)| (name.clone(), pending.seen)).collect()
    }

    /// The number of pending files.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether a pending file existed at its last observation.
    pub(super) fn expects_file(&self, name: &str) -> bool {
        self.pending.get(name).is_some_and(|pending| pending.seen.is_some())
    }

    /// Whether a pending file waits for another try after a failure.
    pub(super) fn is_retrying(&self, name: &str) -> bool {
        self.pending.get(name).is_some_and(|pending| pending.settle_for > self.settle)
    }

    /// When the next file settles.
    pub(super) fn next(&self) -> Option<Instant> {
        self.pending.values().map(Pending::ready_at).min()
    }

    /// Whether changes were left out that would fit now. Resets the flag, so this returns true once.
    pub(super) fn take_overflow(&mut self) -> bool {
        self.pending.len() < PENDING_MAX / 2 && std::mem::take(&mut self.overflowed)
    }

    /// Returns the change between the known version and the version just read of a settled file; `None` when the file
    /// is gone.
    pub(super) fn change(&self, name: &str, version: Option<&Version>) -> Change {
        match (self.known.get(name), version) {
            (Some(known), None) => Change::Removed(known.clone()),
            (None, None) => Change::NoEvent,
            (Some(known), Some(version)) if known.sha256 == version.sha256 => Change::NoEvent,
            (_, Some(version)) if self.existing.get(name) == Some(&version.stamp) => Change::NoEvent,
            (None, Some(_)) => Change::Created,
            (Some(_), Some(_)) => Change::Modified,
        }
    }

    /// Records that a version was committed, or the removal with `None`.
    pub(super) fn committed(&mut self, name: &str, version: Option<Version>) {
        self.pending.remove(name);
        self.existing.remove(name);
        match version {
            Some(version) => self.known.insert(name.to_owned(), version),
            None => self.known.remove(name),
        };
    }

    /// Makes a settled file that failed wait again, each time longer.
    pub(super) fn retry_later(&mut self, name: &str, now: Instant) {
        if let Some(pending) = self.pending.get_mut(name) {
            pending.since = now;
            pending.settle_for = (pending.settle_for * 2).clamp(RETRY_MIN, RETRY_MAX.max(self.settle * 2));
        }
    }

    /// Forgets the known files for which `includes` returns false, and returns their names.
    pub(super) fn forget(&mut self, includes: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self.known.keys().filter(|name| !includes(name)).cloned().collect();
        gone.iter().for_each(|name| drop(self.known.remove(name)));
        gone
    }
}

impl Pending {
    fn ready_at(&self) -> Instant {
        let settle_for = match self.writer {
            Writer::None => self.settle_for,
            Writer::MaybeOpen => self.settle_for.max(MAYBE_OPEN_WAIT),
            Writer::Open => self.settle_for.max(OPEN_WAIT),
        };
        self.since + settle_for
    }
}

#[cfg(test)]
mod tests;
