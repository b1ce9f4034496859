//! Counts the events that one event from outside causes, and checks the counts against [`DescendantsLimits`]. An
//! event from outside and all events that it causes are a chain. No I/O.
//!
//! When a chain publishes for the first time since the start of the process, a backend counts the stored events of the
//! chain, and then keeps the count in memory. So the limit holds across restarts, and the count is not stored.

use evoke_model::{DescendantsLimits, NewEvent, Seq, text};
use foldhash::{HashMap, HashMapExt};

/// Maximum number of counts in memory. When it is reached, all counts are dropped. The events of a chain are then
/// counted again when the chain publishes next.
const CHAINS_MAX: usize = 16 * 1024;

/// The number and size of the stored events that one event from outside caused.
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
    /// Returns the event that started the chain, and the count of the chain including the events in `publishes`.
    /// Returns `None` if `publishes` is empty or its events belong to no chain. `count` counts the stored events of the
    /// chain.
    ///
    /// # Errors
    /// The outer error is that of `count`. The inner one describes the exceeded limit.
    pub fn check<E>(
        &mut self,
        publishes: &[NewEvent],
        limits: &DescendantsLimits,
        count: impl FnOnce(Seq) -> Result<Descendants, E>,
    ) -> Result<Result<Option<(Seq, Descendants)>, String>, E> {
        let Some(lineage) = publishes.first().map(|new| new.lineage) else { return Ok(Ok(None)) };
        let Some(root) = lineage.root else { return Ok(Ok(None)) };
        let max = limits.of(lineage.origin);
        // The count is also kept if the events are rejected. Otherwise, each further attempt of a chain at its limit would
        // count all events of the chain again.
        let before = match self.0.get(&root) {
            Some(known) => *known,
            None => {
                let counted = count(root)?;
                self.set(root, counted);
                counted
            }
        };
        let bytes: usize = publishes.iter().map(|new| new.event.size()).sum();
        let after = Descendants {
            events: before.events.saturating_add(publishes.len() as u64),
            bytes: before.bytes.saturating_add(bytes as u64),
        };
        if after.events > max.events || after.bytes > max.bytes {
            let limit = match after.events > max.events {
                true => text::count(max.events, "event"),
                false => text::count(max.bytes, "byte"),
            };
            return Ok(Err(format!(
                "event {root} caused {} with {}; {} more with {} would exceed the limit of {limit}; to change the \
                 limit, set `limits` (`descendants`, `descendants_bytes`) in the manifest, or --descendants-max and \
                 --descendants-bytes-max",
                text::count(before.events, "event"),
                text::count(before.bytes, "byte"),
                publishes.len(),
                text::count(bytes, "byte")
            )));
        }
        Ok(Ok(Some((root, after))))
    }

    /// Sets the count of the stored events of a chain.
    pub fn set(&mut self, root: Seq, count: Descendants) {
        if self.0.len() >= CHAINS_MAX {
            self.0.clear();
        }
        self.0.insert(root, count);
    }

    /// Drops all counts. Must be called after a transaction failed, because the counts may include events that were not
    /// stored.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use super::*;
    use evoke_model::{DescendantsMax, Lineage};

    #[test]
    fn a_chain_at_its_limit_is_counted_once() {
        let lineage = Lineage { root: Some(Seq(1)), ..Lineage::default() };
        let publishes = [NewEvent { event: Arc::default(), lineage, deliveries: Vec::new() }];
        let limits = DescendantsMax { events: 10, bytes: 1_000 }.into();
        let (mut chains, mut counts) = (Chains::default(), 0);
        for _ in 0..3 {
            let count = |_| {
                counts += 1;
                Ok::<_, Infallible>(Descendants { events: 10, bytes: 100 })
            };
            let Ok(checked) = chains.check(&publishes, &limits, count);
            assert!(checked.unwrap_err().contains("would exceed the limit of 10 events"));
        }
        assert_eq!(counts, 1);
    }
}
