//! The current problems of a source, and their text in the health of the source.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::name;
use super::tracker::Tracker;
use evoke_core::source::Health;
use evoke_manifest::parser::excerpt;

/// The first and the longest wait before unreadable entries are looked up again.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The most unreadable entries that are looked up between two scans of the whole folder.
const RETRIED_MAX: usize = 1_000;
/// Largest number of names that one text lists.
const NAMES_MAX: usize = 3;
/// The shortest time between two updates of the health that only change details of the text.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// The current problems.
#[derive(Default)]
pub(super) struct Problems {
    /// Why the folder itself cannot be used.
    pub(super) root: Option<String>,
    /// Whether only a reload or a restart solves the problem of the folder, unless the original folder comes back.
    pub(super) needs_reload: bool,
    pub(super) watch: Option<String>,
    pub(super) unreadable: Unreadable,
    reported: Option<String>,
    reported_at: Option<Instant>,
}

impl Problems {
    /// Updates the health of the source.
    pub(super) fn report(&mut self, tracker: &Tracker, health: &Health, now: Instant) {
        let trouble = self.describe(tracker);
        if trouble == self.reported {
            return;
        }
        let is_detail = self.root.is_none() && trouble.is_some() && self.reported.is_some();
        if is_detail && self.reported_at.is_some_and(|at| now < at + UPDATE_INTERVAL) {
            return;
        }
        match &trouble {
            Some(trouble) if self.root.is_some() && self.needs_reload => health.degraded_until_reload(trouble.clone()),
            Some(trouble) => health.degraded(trouble.clone()),
            None => health.recovered(),
        }
        (self.reported, self.reported_at) = (trouble, Some(now));
    }

    /// Reports a problem that lasts until the next [`Self::report`].
    pub(super) fn report_now(&mut self, health: &Health, trouble: String) {
        if self.reported.as_ref() != Some(&trouble) {
            health.degraded(trouble.clone());
            self.reported = Some(trouble);
        }
    }

    fn describe(&self, tracker: &Tracker) -> Option<String> {
        if let Some(root) = &self.root {
            return Some(root.clone());
        }
        let entries = &self.unreadable.entries;
        let unreadable = names(entries.len(), entries.iter().map(|(name, reason)| (name.as_str(), reason.as_str())));
        let (count, files) = tracker.not_submitted();
        let problems: Vec<String> = [
            self.watch.clone(),
            unreadable.map(|names| format!("cannot read {names}")),
            names(count, files).map(|names| format!("cannot submit the events of {names}")),
        ]
        .into_iter()
        .flatten()
        .collect();
        (!problems.is_empty()).then(|| problems.join("; "))
    }
}

/// Lists the first names with their reasons; `None` without names.
fn names<'a>(count: usize, names: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let first: Vec<_> = names.take(NAMES_MAX).map(|(name, reason)| format!("`{}` ({reason})", excerpt(name))).collect();
    let rest = count.saturating_sub(first.len());
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    (!first.is_empty()).then(|| first.join(", ") + &more)
}

/// The entries of the folder that could not be read, with the reason. The scan bounds their number in each folder.
pub(super) struct Unreadable {
    entries: BTreeMap<String, String>,
    retry_at: Option<Instant>,
    wait: Duration,
}

impl Default for Unreadable {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), retry_at: None, wait: RETRY_MIN }
    }
}

impl Unreadable {
    /// Records the result of reading the entry `name` and everything below it; the empty name is the top folder.
    pub(super) fn replace(&mut self, name: &str, unread: Vec<(String, String)>, now: Instant) {
        if self.entries.is_empty() && unread.is_empty() {
            return;
        }
        let below = name::prefix(name);
        self.entries.retain(|entry, _| entry != name && !entry.starts_with(&below));
        self.entries.extend(unread);
        if self.entries.is_empty() {
            *self = Self::default();
        } else {
            self.retry_at.get_or_insert(now + self.wait);
        }
    }

    /// Returns the entries to look up again now. Each time, the wait until the next time is longer.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<String> {
        if self.retry_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.wait = (self.wait * 2).min(RETRY_MAX);
        self.retry_at = Some(now + self.wait);
        self.entries.keys().take(RETRIED_MAX).cloned().collect()
    }

    /// When entries are looked up again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.retry_at
    }
}
