//! Files that settled but cannot be submitted now. A file is tried again after a wait, or when it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::version::Stamp;

/// The first and the longest wait before a file is tried again.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Added to [`RETRY_MAX`] for each file that is set aside, so that very many failing files do not keep the source busy.
const RETRY_MAX_PER_FILE: Duration = Duration::from_millis(1);
/// Maximum number of files that are tried again together.
const DUE_MAX: usize = 256;

/// The files that are set aside, by name. Their number is limited only by the number of files in the folder.
#[derive(Default)]
pub(super) struct SetAside {
    files: BTreeMap<Arc<str>, Entry>,
    /// The files that will be tried again, in the order of their next try.
    retries: BTreeSet<(Instant, Arc<str>)>,
}

struct Entry {
    /// The metadata of the file when it failed; `None` if the file was gone.
    seen: Option<Stamp>,
    reason: String,
    wait: Duration,
    /// The time of the next try; `None` if the file is tried again only after it changes.
    retry_at: Option<Instant>,
}

impl SetAside {
    /// Sets a file aside and tries it again later. The wait is twice the previous wait of this file.
    pub(super) fn retry_later(&mut self, name: &str, seen: Option<Stamp>, reason: String, now: Instant) {
        let longest = RETRY_MAX + RETRY_MAX_PER_FILE * u32::try_from(self.files.len()).unwrap_or(u32::MAX);
        let wait = self.files.get(name).map_or(RETRY_MIN, |before| before.wait * 2).clamp(RETRY_MIN, longest);
        self.insert(name, Entry { seen, reason, wait, retry_at: Some(now + wait) });
    }

    /// Sets a file aside until it changes.
    pub(super) fn leave_out(&mut self, name: &str, seen: Option<Stamp>, reason: String) {
        self.insert(name, Entry { seen, reason, wait: Duration::ZERO, retry_at: None });
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some((name, entry)) = self.files.remove_entry(name)
            && let Some(at) = entry.retry_at
        {
            self.retries.remove(&(at, name));
        }
    }

    /// Returns the metadata that a file had when it was set aside (`Some(None)` if the file was gone). Returns `None`
    /// if the file is not set aside.
    pub(super) fn seen(&self, name: &str) -> Option<Option<Stamp>> {
        self.files.get(name).map(|entry| entry.seen)
    }

    /// Returns the names from `first` on, in order.
    pub(super) fn names_from(&self, first: &str) -> impl Iterator<Item = &str> {
        let from = (std::ops::Bound::Included(first), std::ops::Bound::Unbounded);
        self.files.range::<str, _>(from).map(|(name, _)| &**name)
    }

    /// Returns the files to try again now, the most overdue file first.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = (String, Option<Stamp>)> {
        let due = self.retries.iter().take_while(move |(at, _)| *at <= now).take(DUE_MAX);
        due.map(|(_, name)| (name.to_string(), self.seen(name).flatten()))
    }

    /// Returns the time at which the next file is tried again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.retries.first().map(|(at, _)| *at)
    }

    /// Returns the number of files that are set aside, and an iterator over their names with the reasons.
    pub(super) fn reasons(&self) -> (usize, impl Iterator<Item = (&str, &str)>) {
        (self.files.len(), self.files.iter().map(|(name, entry)| (&**name, entry.reason.as_str())))
    }

    fn insert(&mut self, name: &str, entry: Entry) {
        self.remove(name);
        let name: Arc<str> = name.into();
        if let Some(at) = entry.retry_at {
            self.retries.insert((at, name.clone()));
        }
        self.files.insert(name, entry);
    }
}
