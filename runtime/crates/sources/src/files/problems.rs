//! The current problems of a source, and the message about them in the health of the source.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::name;
use super::tracker::Tracker;
use evoke_core::source::Health;
use evoke_manifest::parser::excerpt;

/// The first and the longest wait before the source tries to read unreadable entries again.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Maximum number of unreadable entries that are tried again together.
const RETRIED_MAX: usize = 1_000;
/// Maximum number of names in a message. For the others, the message only has their number.
const NAMES_MAX: usize = 3;
/// The shortest time from an update of the health to the next one, if the next one only changes details of the message.
const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Problems {
    /// Why the folder itself cannot be used.
    pub(super) root: Option<String>,
    /// True if only a reload, a restart or the return of the original folder ends the problem of the folder.
    pub(super) needs_reload: bool,
    /// Why some folder cannot be watched for changes.
    pub(super) watch: Option<String>,
    pub(super) unreadable: Unreadable,
    reported: Option<String>,
    reported_at: Option<Instant>,
}

impl Problems {
    /// Updates the health of the source, if the problems changed.
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

    /// Reports a problem immediately. The next [`Self::report`] replaces it.
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

/// Returns a text with the first names and their reasons; `None` if there are no names.
fn names<'a>(count: usize, names: impl Iterator<Item = (&'a str, &'a str)>) -> Option<String> {
    let first: Vec<_> = names.take(NAMES_MAX).map(|(name, reason)| format!("`{}` ({reason})", excerpt(name))).collect();
    let rest = count.saturating_sub(first.len());
    let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
    (!first.is_empty()).then(|| first.join(", ") + &more)
}

/// The entries of the folder that could not be read, with the reasons. The scan limits their number in each subfolder.
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
    /// Removes the entry `name` and all entries below it, and adds `unread`: the entries at or below `name` that cannot
    /// be read now. The empty name is the top folder.
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

    /// Returns the entries to read again now. The wait until the next retry becomes longer each time.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<String> {
        if self.retry_at.is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.wait = (self.wait * 2).min(RETRY_MAX);
        self.retry_at = Some(now + self.wait);
        self.entries.keys().take(RETRIED_MAX).cloned().collect()
    }

    /// Returns the time of the next retry.
    pub(super) fn next(&self) -> Option<Instant> {
        self.retry_at
    }
}
