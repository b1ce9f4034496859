//! Tracks the files of one source: the submitted (known) versions, the pending changes and the settled files. Reads no
//! clock and no file.

mod set_aside;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use self::set_aside::SetAside;
use super::name;
use super::version::{Stamp, Version};

/// Maximum number of pending files. This limits the memory that a flood of changes can use. A later scan finds the
/// changes beyond this number.
const PENDING_MAX: usize = 16_384;
/// The shortest settle time: below it, file timestamps are too coarse to distinguish two writes.
const SETTLE_MIN: Duration = Duration::from_millis(20);
/// The longest settle time. With a longer one, the sum of a time and the settle time could overflow.
const SETTLE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// A file that a program has open for writing is submitted once it has been unchanged for this time. The system reports
/// when the program closes the file or ends, so this wait matters only for files that stay open, such as logs.
const OPEN_WAIT: Duration = Duration::from_secs(300);
/// A file that a program may have open for writing is submitted once it has been unchanged for this time. Whether a
/// program has the file open is unknown if the file is new and empty, or if notifications were lost.
const MAYBE_OPEN_WAIT: Duration = Duration::from_secs(5);

/// A pending file: its last observed metadata differs from its known version.
#[derive(Debug)]
struct Pending {
    /// The last observed metadata; `None` if the file is gone.
    seen: Option<Stamp>,
    /// When this metadata was first observed.
    since: Instant,
    writer: Writer,
}

/// Whether a program has a file open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    None,
    /// No program: the name was created without opening the file, so it is a link to a file that is already complete.
    Linked,
    /// A program has the file open for writing.
    Open,
    /// A program may have the file open for writing.
    MaybeOpen,
}

/// The change that a settled file represents.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The file is new.
    Created,
    /// The content differs from the known version.
    Modified,
    /// The file is gone. The version is its last known version.
    Removed(Version),
    /// The change causes no event; only the mark changes.
    NoEvent,
}

pub(super) struct Tracker {
    settle: Duration,
    known: BTreeMap<String, Version>,
    pending: BTreeMap<String, Pending>,
    /// Files that cannot be submitted now. They do not count as pending, so other files can be pending in their place.
    set_aside: SetAside,
    /// With `existing: false`: the files that existed at the first start and have no mark yet, with their metadata at
    /// that time. They cause no event until they change.
    existing: HashMap<String, Stamp>,
    /// True if a change did not fit into `pending`. Another scan must then find this change.
    overflowed: bool,
}

impl Tracker {
    /// Creates a tracker with the versions known from the stored marks.
    pub(super) fn new(settle: Duration, known: BTreeMap<String, Version>) -> Self {
        let settle = settle.clamp(SETTLE_MIN, SETTLE_MAX);
        Self {
            settle,
            known,
            pending: BTreeMap::new(),
            set_aside: SetAside::default(),
            existing: HashMap::new(),
            overflowed: false,
        }
    }

    /// Records the observed metadata of one file; `None` if the file does not exist.
    pub(super) fn observe(&mut self, name: &str, seen: Option<Stamp>, now: Instant) {
        if self.known.get(name).map(|version| version.stamp) == seen {
            self.pending.remove(name);
            self.set_aside.remove(name);
            if seen.is_none() {
                self.existing.remove(name);
            }
            return;
        }
        match self.set_aside.seen(name) {
            Some(before) if before == seen => return,
            Some(_) => self.set_aside.remove(name),
            None => {}
        }
        let is_full = self.pending.len() >= PENDING_MAX;
        match self.pending.get_mut(name) {
            Some(pending) if pending.seen == seen => {}
            Some(pending) => (pending.seen, pending.since) = (seen, now),
            None if is_full => self.overflowed = true,
            None => {
                // Most likely, a program has just created a new empty file and is about to write to it.
                let empty = seen.is_some_and(|stamp| stamp.size == 0) && !self.known.contains_key(name);
                let writer = if empty { Writer::MaybeOpen } else { Writer::None };
                self.pending.insert(name.to_owned(), Pending { seen, since: now, writer });
            }
        }
    }

    /// Records the result of scanning a folder with its subfolders. A file of this folder that is not in `seen` is
    /// gone, unless `unread` has the file or a folder that contains it.
    pub(super) fn observe_folder(
        &mut self,
        folder: &str,
        seen: &[(String, Stamp)],
        unread: &[(String, String)],
        now: Instant,
    ) {
        for (name, stamp) in seen {
            self.observe(name, Some(*stamp), now);
        }
        let prefix = name::prefix(folder);
        let unread: HashSet<&Path> = unread.iter().map(|(name, _)| Path::new(name)).collect();
        let there: HashSet<&str> = seen.iter().map(|(name, _)| name.as_str()).collect();
        let is_gone = |name: &str| {
            let is_unread = || Path::new(name).ancestors().any(|part| unread.contains(part));
            !there.contains(name) && (unread.is_empty() || !is_unread())
        };
        let of_folder = |names: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            let names = names.take_while(|name| name.starts_with(&prefix));
            names.filter(|name| is_gone(name)).map(str::to_owned).collect()
        };
        let mut gone = of_folder(&mut self.known.range(prefix.clone()..).map(|(name, _)| name.as_str()));
        gone.extend(of_folder(&mut self.pending.range(prefix.clone()..).map(|(name, _)| name.as_str())));
        gone.extend(of_folder(&mut self.set_aside.names_from(&prefix)));
        for name in gone {
            self.observe(&name, None, now);
        }
    }

    /// Records that a file name was created and that no program has opened the file by this name. So no writer is
    /// expected.
    pub(super) fn created(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name)
            && pending.writer == Writer::MaybeOpen
        {
            pending.writer = Writer::Linked;
        }
    }

    /// Records that a program created a file by opening it. If the file was empty when it was last seen, the program is
    /// assumed to have it open for writing.
    pub(super) fn opened(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name)
            && pending.seen.is_some_and(|stamp| stamp.size == 0)
        {
            pending.writer = Writer::Open;
        }
    }

    /// Records that files appeared because a folder that contains them was moved to its present path. So no writer is
    /// expected.
    pub(super) fn moved_here<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        names.for_each(|name| self.created(name));
    }

    /// Records that a program has a file open and writes to it.
    pub(super) fn writing(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name) {
            pending.writer = Writer::Open;
        }
    }

    /// Records that the program that wrote to a file has closed it.
    pub(super) fn written(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name) {
            pending.writer = Writer::None;
        }
    }

    /// Records that notifications were lost. So it is no longer certain whether a program has a file open.
    pub(super) fn hints_lost(&mut self) {
        let is_certain = |pending: &&mut Pending| matches!(pending.writer, Writer::Open | Writer::Linked);
        self.pending.values_mut().filter(is_certain).for_each(|pending| pending.writer = Writer::MaybeOpen);
    }

    /// Records the files that exist at the first start, for `existing: false`. They cause no events as long as their
    /// metadata is unchanged.
    pub(super) fn set_existing(&mut self, seen: &[(String, Stamp)]) {
        self.existing = seen.iter().filter(|(name, _)| !self.known.contains_key(name)).cloned().collect();
    }

    /// Returns true if every file from [`Self::set_existing`] has a committed mark or is gone, and if all changes fit
    /// into `pending`.
    pub(super) fn existing_recorded(&self) -> bool {
        self.existing.is_empty() && !self.overflowed
    }

    /// Returns true if a file existed at the first start with this metadata, and has no mark yet.
    pub(super) fn is_existing(&self, name: &str, stamp: &Stamp) -> bool {
        self.existing.get(name) == Some(stamp)
    }

    /// Returns the settled files in the order of their last changes, and then some of the files that are due to be
    /// tried again.
    pub(super) fn settled(&self, now: Instant) -> Vec<(String, Option<Stamp>)> {
        let mut settled: Vec<_> = self.pending.iter().filter(|(_, file)| file.ready_at(self.settle) <= now).collect();
        settled.sort_by_key(|(_, pending)| pending.since);
        let settled = settled.into_iter().map(|(name, pending)| (name.clone(), pending.seen));
        settled.chain(self.set_aside.due(now)).collect()
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Returns true if a pending or set-aside file existed when it was last observed.
    pub(super) fn expects_file(&self, name: &str) -> bool {
        let pending = self.pending.get(name).map(|pending| pending.seen);
        pending.or_else(|| self.set_aside.seen(name)).flatten().is_some()
    }

    /// Returns the time at which the next file settles or is tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.pending.values().map(|pending| pending.ready_at(self.settle)).chain(self.set_aside.next()).min()
    }

    /// Returns true if earlier changes did not fit into `pending` and there is space for them now. Then resets the
    /// flag, so that the next call returns false.
    pub(super) fn take_overflow(&mut self) -> bool {
        self.pending.len() < PENDING_MAX / 2 && std::mem::take(&mut self.overflowed)
    }

    /// Returns the change of a settled file since its known version. `version` is the version just read; `None` if the
    /// file is gone.
    pub(super) fn change(&self, name: &str, version: Option<&Version>) -> Change {
        match (self.known.get(name), version) {
            (Some(known), None) => Change::Removed(known.clone()),
            (None, None) => Change::NoEvent,
            (Some(known), Some(version)) if known.has_content_of(version) => Change::NoEvent,
            (_, Some(version)) if self.is_existing(name, &version.stamp) => Change::NoEvent,
            (None, Some(_)) => Change::Created,
            (Some(_), Some(_)) => Change::Modified,
        }
    }

    /// Records that a version of a file was committed; `None` if the removal of the file was committed.
    pub(super) fn committed(&mut self, name: &str, version: Option<Version>) {
        self.pending.remove(name);
        self.set_aside.remove(name);
        self.existing.remove(name);
        match version {
            Some(version) => self.known.insert(name.to_owned(), version),
            None => self.known.remove(name),
        };
    }

    /// Completes the version of a file that was not read: if the metadata shows that the content has not changed, adds
    /// the hash of the known version.
    pub(super) fn with_known_hash(&self, name: &str, mut unread: Version) -> Version {
        if let Some(known) = self.known.get(name).filter(|known| known.has_content_of(&unread)) {
            unread.sha256.clone_from(&known.sha256);
        }
        unread
    }

    /// Sets aside a settled file that could not be submitted. It is tried again later; the wait becomes longer with
    /// each failure.
    pub(super) fn retry_later(&mut self, name: &str, reason: String, now: Instant) {
        let seen = self.pending.remove(name).map(|pending| pending.seen).or_else(|| self.set_aside.seen(name));
        if let Some(seen) = seen {
            self.set_aside.retry_later(name, seen, reason, now);
        }
    }

    /// Sets aside a settled file without a retry, until its metadata changes.
    pub(super) fn leave_out(&mut self, name: &str, reason: String) {
        let seen = self.pending.remove(name).map(|pending| pending.seen).or_else(|| self.set_aside.seen(name));
        if let Some(seen) = seen {
            self.set_aside.leave_out(name, seen, reason);
        }
    }

    /// Returns the number of files that cannot be submitted now, and their names with the reasons.
    pub(super) fn not_submitted(&self) -> (usize, impl Iterator<Item = (&str, &str)>) {
        self.set_aside.reasons()
    }

    /// Forgets the files for which `includes` returns false. Returns the names of those that had a known version: their
    /// marks must be deleted.
    pub(super) fn forget(&mut self, includes: impl Fn(&str) -> bool) -> Vec<String> {
        self.pending.retain(|name, _| includes(name));
        self.existing.retain(|name, _| includes(name));
        let set_aside: Vec<String> =
            self.set_aside.names_from("").filter(|name| !includes(name)).map(str::to_owned).collect();
        set_aside.iter().for_each(|name| self.set_aside.remove(name));
        let gone: Vec<String> = self.known.keys().filter(|name| !includes(name)).cloned().collect();
        gone.iter().for_each(|name| drop(self.known.remove(name)));
        gone
    }
}

impl Pending {
    fn ready_at(&self, settle: Duration) -> Instant {
        let settle_for = match self.writer {
            Writer::None | Writer::Linked => settle,
            Writer::MaybeOpen => settle.max(MAYBE_OPEN_WAIT),
            Writer::Open => settle.max(OPEN_WAIT),
        };
        self.since + settle_for
    }
}

#[cfg(test)]
mod tests;
