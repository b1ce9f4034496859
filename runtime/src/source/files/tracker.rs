//! What is known, what has changed, and what has come to rest. Plain bookkeeping: no clock and no file is read here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::name;
use super::version::{Stamp, Version};

/// Files that may wait to come to rest at a time. Beyond that the rest is left to another scan, so that a flood of
/// changes takes no more memory than this.
const PENDING_MAX: usize = 16_384;
/// Below this, a file's times are too coarse to tell one write from the next.
const SETTLE_MIN: Duration = Duration::from_millis(20);
/// Beyond this, sums of times could overflow.
const SETTLE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long a file that a writer holds open must be unchanged before it is handed over all the same. The system tells
/// when a writer closes it or dies, so this is only for those that never do, as with a log.
const WRITER_PATIENCE: Duration = Duration::from_secs(300);
/// The same, when word of the closing may have been lost.
const UNSURE_PATIENCE: Duration = Duration::from_secs(5);
/// The first wait after a file could not be read, and the longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A file that is not what is known of it.
#[derive(Debug)]
struct Pending {
    /// What was seen last; `None` when it is gone.
    seen: Option<Stamp>,
    /// Since when it has been like that.
    since: Instant,
    /// How long it must stay like that.
    rest: Duration,
    writer: Writer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    None,
    /// Somebody writes and has not closed it.
    Open,
    /// Somebody did, and may have closed it.
    Unsure,
}

/// What becomes of a file that came to rest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It was not there.
    Created,
    /// Its content is another.
    Modified,
    /// It is gone; this was known of it.
    Removed(Version),
    /// Nothing for anyone: only what is known of it changes.
    Quiet,
}

/// The bookkeeping of one source.
pub(super) struct Tracker {
    settle: Duration,
    known: BTreeMap<String, Version>,
    pending: BTreeMap<String, Pending>,
    /// Files that were there at the first start and are no events, as they were then.
    existing: HashMap<String, Stamp>,
    /// Whether changes were seen that did not fit into `pending`.
    crowded: bool,
}

impl Tracker {
    /// Starts from what was known when it last stopped.
    pub(super) fn new(settle: Duration, known: BTreeMap<String, Version>) -> Self {
        let settle = settle.clamp(SETTLE_MIN, SETTLE_MAX);
        Self { settle, known, pending: BTreeMap::new(), existing: HashMap::new(), crowded: false }
    }

    /// Takes in one look at one file; `None` means that it is not there.
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
            Some(pending) => (pending.seen, pending.since, pending.rest) = (seen, now, self.settle),
            None if is_full => self.crowded = true,
            None => {
                // A new file that is empty is most likely about to be written.
                let empty = seen.is_some_and(|stamp| stamp.size == 0) && !self.known.contains_key(name);
                let writer = if empty { Writer::Unsure } else { Writer::None };
                let pending = Pending { seen, since: now, rest: self.settle, writer };
                self.pending.insert(name.to_owned(), pending);
            }
        }
    }

    /// Takes in a look at everything in a folder: what is known or pending there and was not seen is gone, unless it
    /// is in one of the folders `unread`.
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

    /// A file was made: while it is empty, somebody is about to write it.
    pub(super) fn created(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name)
            && pending.seen.is_some_and(|stamp| stamp.size == 0)
        {
            pending.writer = Writer::Open;
        }
    }

    /// A writer is at work on a file.
    pub(super) fn writing(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name) {
            pending.writer = Writer::Open;
        }
    }

    /// The writer of a file is done.
    pub(super) fn written(&mut self, name: &str) {
        if let Some(pending) = self.pending.get_mut(name) {
            pending.writer = Writer::None;
        }
    }

    /// Word of changes was lost.
    pub(super) fn lost_word(&mut self) {
        for pending in self.pending.values_mut().filter(|pending| pending.writer == Writer::Open) {
            pending.writer = Writer::Unsure;
        }
    }

    /// Takes what is there at the first start for known: it will be no event as long as it is as it was.
    pub(super) fn take_for_granted(&mut self, seen: &[(String, Stamp)]) {
        self.existing = seen.iter().filter(|(name, _)| !self.known.contains_key(name)).cloned().collect();
    }

    /// Whether all that was taken for granted has been noted.
    pub(super) fn granted_all(&self) -> bool {
        self.existing.is_empty() && !self.crowded
    }

    /// The files that came to rest, longest first.
    pub(super) fn at_rest(&self, now: Instant) -> Vec<(String, Option<Stamp>)> {
        let mut at_rest: Vec<_> = self.pending.iter().filter(|(_, pending)| pending.ready_at() <= now).collect();
        at_rest.sort_by_key(|(_, pending)| pending.since);
        at_rest.into_iter().map(|(name, pending)| (name.clone(), pending.seen)).collect()
    }

    /// How many files are not what is known of them.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Whether a file that is waited for was there when it was seen last.
    pub(super) fn expects(&self, name: &str) -> bool {
        self.pending.get(name).is_some_and(|pending| pending.seen.is_some())
    }

    /// Whether a file was put off because it could not be read.
    pub(super) fn is_failing(&self, name: &str) -> bool {
        self.pending.get(name).is_some_and(|pending| pending.rest > self.settle)
    }

    /// When the next file comes to rest.
    pub(super) fn next(&self) -> Option<Instant> {
        self.pending.values().map(Pending::ready_at).min()
    }

    /// Whether there is more than fits; true once, when there is room again.
    pub(super) fn wants_scan(&mut self) -> bool {
        self.pending.len() < PENDING_MAX / 2 && std::mem::take(&mut self.crowded)
    }

    /// What it means that a file at rest was read and is this version; `None` means that it is gone.
    pub(super) fn change(&self, name: &str, version: Option<&Version>) -> Change {
        match (self.known.get(name), version) {
            (Some(known), None) => Change::Removed(known.clone()),
            (None, None) => Change::Quiet,
            (Some(known), Some(version)) if known.sha256 == version.sha256 => Change::Quiet,
            (_, Some(version)) if self.existing.get(name) == Some(&version.stamp) => Change::Quiet,
            (None, Some(_)) => Change::Created,
            (Some(_), Some(_)) => Change::Modified,
        }
    }

    /// A version, or that there is none, is committed.
    pub(super) fn committed(&mut self, name: &str, version: Option<Version>) {
        self.pending.remove(name);
        self.existing.remove(name);
        match version {
            Some(version) => self.known.insert(name.to_owned(), version),
            None => self.known.remove(name),
        };
    }

    /// A file at rest could not be read: later again.
    pub(super) fn later(&mut self, name: &str, now: Instant) {
        if let Some(pending) = self.pending.get_mut(name) {
            pending.since = now;
            pending.rest = (pending.rest * 2).clamp(RETRY_MIN, RETRY_MAX.max(self.settle * 2));
        }
    }

    /// Forgets what `counts` says no to, and says what that was.
    pub(super) fn forget(&mut self, counts: impl Fn(&str) -> bool) -> Vec<String> {
        let gone: Vec<String> = self.known.keys().filter(|name| !counts(name)).cloned().collect();
        gone.iter().for_each(|name| drop(self.known.remove(name)));
        gone
    }
}

impl Pending {
    fn ready_at(&self) -> Instant {
        let rest = match self.writer {
            Writer::None => self.rest,
            Writer::Unsure => self.rest.max(UNSURE_PATIENCE),
            Writer::Open => self.rest.max(WRITER_PATIENCE),
        };
        self.since + rest
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
