//! Many patterns under keys, and which of them an event matches.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;

use super::event::EventView;
use super::extract::{Extract, Texts};
use super::index::Index;
use super::lookup::{Lookup, Marks};
use super::verify::Need;
use super::{MalformedEvent, Pattern};

/// Patterns, indexed. What an event costs hardly depends on how many there are.
///
/// Adding a pattern touches only what it shares conditions with. Removing one marks it; when more are marked than not,
/// the index is built anew, so that the cost of a removal stays constant on average.
pub struct Matcher<K> {
    index: Index,
    /// In the order of insertion, which is also the order of results.
    owners: Vec<Owner<K>>,
    numbers: HashMap<K, u32>,
    pattern_count: usize,
    live_branches: usize,
    dead_branches: usize,
}

/// A key, and what is filed for it.
struct Owner<K> {
    key: K,
    pattern_count: usize,
    branches: Vec<u32>,
}

/// What a match needs for the time being. Kept from event to event, a match allocates nothing.
#[derive(Default)]
pub struct Scratch {
    extract: Extract,
    marks: Marks,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// A smaller index is not worth building anew.
const REBUILD_MIN: usize = 64;

impl<K> Default for Matcher<K> {
    fn default() -> Self {
        Self {
            index: Index::default(),
            owners: Vec::new(),
            numbers: HashMap::new(),
            pattern_count: 0,
            live_branches: 0,
            dead_branches: 0,
        }
    }
}

impl<K> std::fmt::Debug for Matcher<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").field("patterns", &self.pattern_count).finish_non_exhaustive()
    }
}

impl<K: Copy + Eq + Hash> Matcher<K> {
    /// How many patterns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pattern_count
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pattern_count == 0
    }

    /// Adds a pattern under a key. A key with several patterns matches when one of them does.
    pub fn insert(&mut self, key: K, pattern: &Pattern) {
        let number = *self.numbers.entry(key).or_insert_with(|| {
            self.owners.push(Owner { key, pattern_count: 0, branches: Vec::new() });
            self.owners.len() as u32 - 1
        });
        let compiled = &*pattern.0;
        let needs: Vec<Need> = compiled
            .fields
            .iter()
            .map(|test| Need {
                field: self.index.fields.intern(&test.path),
                leaf: self.index.add_leaf(test.leaf.clone()),
            })
            .collect();
        let Some(owner) = self.owners.get_mut(number as usize) else { return };
        for alternative in &compiled.alternatives {
            let chosen = alternative.iter().filter_map(|at| needs.get(*at as usize).copied());
            owner.branches.push(self.index.add_branch(number, chosen));
        }
        owner.pattern_count += 1;
        self.pattern_count += 1;
        self.live_branches += compiled.alternatives.len();
    }

    /// Takes all patterns of a key away; returns how many there were.
    pub fn remove(&mut self, key: K) -> usize {
        let Some(number) = self.numbers.remove(&key) else { return 0 };
        let Some(owner) = self.owners.get_mut(number as usize) else { return 0 };
        let branches = std::mem::take(&mut owner.branches);
        let count = std::mem::take(&mut owner.pattern_count);
        branches.iter().for_each(|branch| self.index.kill(*branch));
        self.live_branches -= branches.len();
        self.dead_branches += branches.len();
        self.pattern_count -= count;
        if self.dead_branches > self.live_branches.max(REBUILD_MIN) {
            self.rebuild();
        }
        count
    }

    /// Files the live patterns in a new index.
    fn rebuild(&mut self) {
        let old = std::mem::take(&mut self.index);
        self.owners.retain(|owner| owner.pattern_count > 0);
        for (number, owner) in self.owners.iter_mut().enumerate() {
            self.numbers.insert(owner.key, number as u32);
            let mut moved: HashMap<u32, Need> = HashMap::new();
            for branch in &mut owner.branches {
                let mut needs = Vec::new();
                for need in old.needs(*branch) {
                    needs.push(*moved.entry(need.leaf).or_insert_with(|| Need {
                        field: self.index.fields.intern(&old.fields.path(need.field)),
                        leaf: self.index.add_leaf(old.leaf(need.leaf).cloned().unwrap_or_default()),
                    }));
                }
                *branch = self.index.add_branch(number as u32, needs.into_iter());
            }
        }
        self.dead_branches = 0;
    }

    /// The keys with a pattern that matches an event, each once, in the order of their first insertion.
    ///
    /// # Errors
    /// When the event's data is not one JSON text, whatever patterns there are.
    pub fn matches(&self, event: &EventView<'_>) -> Result<Vec<K>, MalformedEvent> {
        let mut keys = Vec::new();
        with_scratch(|scratch| self.matches_into(event, scratch, &mut keys))?;
        Ok(keys)
    }

    /// As [`Matcher::matches`], into a list that is emptied before, and without allocating once the buffers have grown.
    ///
    /// # Errors
    /// As [`Matcher::matches`]; then the list is empty.
    pub fn matches_into(
        &self,
        event: &EventView<'_>,
        scratch: &mut Scratch,
        keys: &mut Vec<K>,
    ) -> Result<(), MalformedEvent> {
        keys.clear();
        let texts = scratch.extract.read(&self.index.fields, event)?;
        self.look_up(texts, scratch, keys);
        Ok(())
    }

    /// As [`Matcher::matches`], of an event that is one JSON object.
    ///
    /// # Errors
    /// When it is not.
    pub fn matches_json(&self, json: &[u8]) -> Result<Vec<K>, MalformedEvent> {
        let mut keys = Vec::new();
        with_scratch(|scratch| {
            let texts = scratch.extract.read_json(&self.index.fields, json)?;
            self.look_up(texts, scratch, &mut keys);
            Ok(())
        })?;
        Ok(keys)
    }

    fn look_up(&self, texts: Texts<'_>, scratch: &mut Scratch, keys: &mut Vec<K>) {
        let Scratch { extract, marks } = scratch;
        Lookup { index: &self.index, extract, texts, marks }.run();
        marks.owners.sort_unstable();
        marks.owners.dedup();
        keys.extend(marks.owners.iter().filter_map(|owner| Some(self.owners.get(*owner as usize)?.key)));
    }

    pub(super) fn index(&self) -> &Index {
        &self.index
    }
}

impl Scratch {
    pub(super) fn extract(&mut self) -> &mut Extract {
        &mut self.extract
    }
}

fn with_scratch<T>(work: impl FnOnce(&mut Scratch) -> T) -> T {
    SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
        Ok(mut scratch) => work(&mut scratch),
        Err(_) => work(&mut Scratch::default()),
    })
}
