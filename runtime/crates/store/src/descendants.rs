//! Counts the events that one event from outside causes, for the limits [`DescendantsLimits`]. Plain data, no I/O.
//!
//! A backend counts the stored events of a chain when the chain publishes for the first time since the start, and keeps
//! the count in memory. So the limit holds across restarts, and the count needs no row of its own.

use evoke_model::{DescendantsLimits, NewEvent, Seq, text};
use foldhash::{HashMap, HashMapExt};

/// The maximum number of chains whose counts are in memory. The count of another chain is read again.
const CHAINS_MAX: usize = 16 * 1024;

/// The stored events of one chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Descendants {
    /// The number of events.
    pub events: u64,
    /// The size of the events in bytes.
    pub bytes: u64,
}

/// The counts of the chains that published most recently.
#[derive(Debug)]
pub struct Chains(HashMap<Seq, Descendants>);

impl Default for Chains {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl Chains {
    /// Returns the event that started the chain, and the count of the chain including the events that an attempt
    /// publishes. `None` if the attempt publishes nothing. `count` counts the stored events of the chain.
    ///
    /// # Errors
    /// The outer error is that of `count`. The inner one describes the exceeded limit.
    pub fn check<E>(
        &self,
        publishes: &[NewEvent],
        limits: &DescendantsLimits,
        count: impl FnOnce(Seq) -> Result<Descendants, E>,
    ) -> Result<Result<Option<(Seq, Descendants)>, String>, E> {
        let Some(lineage) = publishes.first().map(|new| new.lineage) else { return Ok(Ok(None)) };
        let Some(root) = lineage.root else { return Ok(Ok(None)) };
        let max = limits.of(lineage.origin);
        let before = match self.0.get(&root) {
            Some(known) => *known,
            None => count(root)?,
        };
        let bytes: usize = publishes.iter().map(|new| new.event.size()).sum();
        let after = Descendants {
            events: before.events.saturating_add(publishes.len() as u64),
            bytes: before.bytes.saturating_add(bytes as u64),
        };
        if after.events > max.events || after.bytes > max.bytes {
            return Ok(Err(format!(
                "event {root} caused {} with {}; {} more with {} would exceed the limits of {} or {}; set the \
                 limits in the manifest as `limits` (`descendants`, `descendants_bytes`), or with --descendants-max \
                 and --descendants-bytes-max",
                text::count(before.events, "event"),
                text::count(before.bytes, "byte"),
                publishes.len(),
                text::count(bytes, "byte"),
                text::count(max.events, "event"),
                text::count(max.bytes, "byte")
            )));
        }
        Ok(Ok(Some((root, after))))
    }

    /// Sets the count of a chain, after its events were stored.
    pub fn set(&mut self, root: Seq, count: Descendants) {
        if self.0.len() >= CHAINS_MAX {
            self.0.clear();
        }
        self.0.insert(root, count);
    }

    /// Forgets all counts, because a transaction failed.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
