//! The matcher: many patterns, each under a key, and the search for the patterns that match an event.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;

use super::event::EventView;
use super::extract::{ExtractedValues, SourceTexts};
use super::index::Index;
use super::lookup::{Lookup, LookupBuffers};
use super::verify::Requirement;
use super::{MalformedEvent, Pattern};

/// A set of patterns under keys, with an index. The time to match an event hardly depends on the number of patterns.
///
/// Adding a pattern changes only the parts of the index that share conditions with the pattern. Removing a pattern
/// marks its alternatives (the combinations of its `$or` entries) as disabled and leaves them in the index. The index
/// is rebuilt when more than 64 alternatives are disabled and more are disabled than active. Rebuilds are so rare that
/// the average cost of a removal is constant.
pub struct Matcher<K> {
    index: Index,
    /// The keys in the order of insertion, which is also the order of results. Removed keys remain, without patterns,
    /// until the index is rebuilt.
    owners: Vec<Owner<K>>,
    /// The position of each key in `owners`.
    owner_by_key: HashMap<K, u32>,
    pattern_count: usize,
    live_alternatives: usize,
    removed_alternatives: usize,
}

/// A key, and the numbers of the alternatives of its patterns.
struct Owner<K> {
    key: K,
    pattern_count: usize,
    alternatives: Vec<u32>,
}

/// The buffers of a match. A caller avoids allocations by reusing them for many events, also with different matchers.
#[derive(Default)]
pub struct Scratch {
    extracted: ExtractedValues,
    buffers: LookupBuffers,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// The index is not rebuilt while this many alternatives or fewer are disabled.
const REBUILD_MIN: usize = 64;

impl<K> Default for Matcher<K> {
    fn default() -> Self {
        Self {
            index: Index::default(),
            owners: Vec::new(),
            owner_by_key: HashMap::new(),
            pattern_count: 0,
            live_alternatives: 0,
            removed_alternatives: 0,
        }
    }
}

impl<K> std::fmt::Debug for Matcher<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").field("patterns", &self.pattern_count).finish_non_exhaustive()
    }
}

impl<K: Copy + Eq + Hash> Matcher<K> {
    /// The number of patterns; a key can have several.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pattern_count
    }

    /// Returns true if the matcher has no patterns.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pattern_count == 0
    }

    /// Adds a pattern under a key. A key with several patterns matches when at least one of them matches.
    pub fn insert(&mut self, key: K, pattern: &Pattern) {
        let number = *self.owner_by_key.entry(key).or_insert_with(|| {
            self.owners.push(Owner { key, pattern_count: 0, alternatives: Vec::new() });
            self.owners.len() as u32 - 1
        });
        let compiled = &*pattern.0;
        let requirements: Vec<Requirement> = compiled
            .fields
            .iter()
            .map(|test| Requirement {
                field: self.index.fields.intern(&test.event_path),
                list: self.index.add_list(test.list.clone()),
            })
            .collect();
        let Some(owner) = self.owners.get_mut(number as usize) else { return };
        self.index.begin_group();
        for alternative in &compiled.alternatives {
            let chosen = alternative.iter().filter_map(|at| requirements.get(*at as usize).copied());
            owner.alternatives.push(self.index.add_alternative(number, compiled.cost_log2, chosen));
        }
        owner.pattern_count += 1;
        self.pattern_count += 1;
        self.live_alternatives += compiled.alternatives.len();
    }

    /// Removes all patterns of a key. Returns the number of removed patterns, 0 for an unknown key.
    pub fn remove(&mut self, key: K) -> usize {
        let Some(number) = self.owner_by_key.remove(&key) else { return 0 };
        let Some(owner) = self.owners.get_mut(number as usize) else { return 0 };
        let alternatives = std::mem::take(&mut owner.alternatives);
        let count = std::mem::take(&mut owner.pattern_count);
        alternatives.iter().for_each(|alternative| self.index.disable(*alternative));
        self.live_alternatives -= alternatives.len();
        self.removed_alternatives += alternatives.len();
        self.pattern_count -= count;
        if self.removed_alternatives > self.live_alternatives.max(REBUILD_MIN) {
            self.rebuild();
        }
        count
    }

    /// Replaces the index by a new one without the disabled alternatives.
    fn rebuild(&mut self) {
        let old = std::mem::take(&mut self.index);
        self.owners.retain(|owner| owner.pattern_count > 0);
        for (number, owner) in self.owners.iter_mut().enumerate() {
            self.owner_by_key.insert(owner.key, number as u32);
            let mut copied: HashMap<u32, Requirement> = HashMap::new();
            let mut group = None;
            for alternative in &mut owner.alternatives {
                if group.replace(old.group_of(*alternative)) != Some(old.group_of(*alternative)) {
                    self.index.begin_group();
                }
                let cost_log2 = old.alternatives.get(*alternative as usize).map_or(0, |old| old.cost_log2);
                let mut requirements = Vec::new();
                for requirement in old.requirements(*alternative) {
                    requirements.push(*copied.entry(requirement.list).or_insert_with(|| Requirement {
                        field: self.index.fields.intern(&old.fields.path(requirement.field)),
                        list: self.index.add_list(old.list(requirement.list).cloned().unwrap_or_default()),
                    }));
                }
                *alternative = self.index.add_alternative(number as u32, cost_log2, requirements.into_iter());
            }
        }
        self.removed_alternatives = 0;
    }

    /// Returns the keys with a pattern that matches an event, without duplicates, in the order of their insertion. Uses
    /// buffers of the current thread.
    ///
    /// # Errors
    /// Returns an error when the event's data is not exactly one valid JSON text. The data is validated completely,
    /// even when no pattern tests it.
    pub fn matches(&self, event: &EventView<'_>) -> Result<Vec<K>, MalformedEvent> {
        let mut keys = Vec::new();
        with_scratch(|scratch| self.matches_into(event, scratch, &mut keys))?;
        Ok(keys)
    }

    /// Returns true if a pattern matches the event.
    ///
    /// # Errors
    /// Returns the errors of [`Matcher::matches`].
    pub fn matches_any(&self, event: &EventView<'_>) -> Result<bool, MalformedEvent> {
        Ok(!self.matches(event)?.is_empty())
    }

    /// Does the same as [`Matcher::matches`], but clears `keys` and writes the result there. Allocates no memory once
    /// `keys` and `scratch` are large enough.
    ///
    /// # Errors
    /// Returns the errors of [`Matcher::matches`] and leaves `keys` empty.
    pub fn matches_into(
        &self,
        event: &EventView<'_>,
        scratch: &mut Scratch,
        keys: &mut Vec<K>,
    ) -> Result<(), MalformedEvent> {
        keys.clear();
        let texts = scratch.extracted.read(&self.index.fields, event)?;
        self.collect_matches(texts, scratch, keys);
        Ok(())
    }

    /// Does the same as [`Matcher::matches`] for an event that is one JSON object. The members of the object are the
    /// top-level fields.
    ///
    /// # Errors
    /// Returns an error when the bytes are not exactly one valid JSON text, or when the text is not an object.
    pub fn matches_json(&self, json: &[u8]) -> Result<Vec<K>, MalformedEvent> {
        let mut keys = Vec::new();
        with_scratch(|scratch| {
            let texts = scratch.extracted.read_json(&self.index.fields, json)?;
            self.collect_matches(texts, scratch, &mut keys);
            Ok(())
        })?;
        Ok(keys)
    }

    /// Does the same as [`Matcher::matches_json`] with the given buffers.
    #[cfg(test)]
    pub(super) fn matches_json_with(&self, json: &[u8], scratch: &mut Scratch) -> Result<Vec<K>, MalformedEvent> {
        let mut keys = Vec::new();
        let texts = scratch.extracted.read_json(&self.index.fields, json)?;
        self.collect_matches(texts, scratch, &mut keys);
        Ok(keys)
    }

    /// Appends the keys that match the extracted event.
    fn collect_matches(&self, texts: SourceTexts<'_>, scratch: &mut Scratch, keys: &mut Vec<K>) {
        let Scratch { extracted, buffers } = scratch;
        let value_units = extracted.value_units();
        Lookup { index: &self.index, extracted, texts, value_units, buffers }.run();
        buffers.owners.sort_unstable();
        buffers.owners.dedup();
        keys.extend(buffers.owners.iter().filter_map(|number| Some(self.owners.get(*number as usize)?.key)));
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }
}

impl Scratch {
    pub(super) fn extracted(&mut self) -> &mut ExtractedValues {
        &mut self.extracted
    }

    /// The number of steps of all verifications so far; each step has a bounded cost.
    #[cfg(test)]
    pub(super) fn steps(&self) -> u64 {
        self.buffers.steps()
    }
}

/// Calls `work` with the buffers of the current thread. If these buffers are already in use on this thread, calls
/// `work` with new buffers.
fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => work(&mut scratch),
        Err(_) => work(&mut Scratch::default()),
    })
}
