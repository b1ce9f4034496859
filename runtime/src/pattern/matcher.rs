//! Many patterns under keys, and which of them an event matches.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use super::event::{EventView, Extract, Texts};
use super::index::{Index, Lookup, Marks};
use super::verify::Need;
use super::{MalformedEvent, Pattern};

/// Patterns, indexed. What an event costs hardly depends on how many there are.
///
/// Adding a pattern touches only what it shares conditions with. Removing one marks it; when more are marked than not,
/// the index is built anew, so that the cost of a removal stays constant on average.
pub struct Matcher<K> {
    index: Index,
    /// By number, which is what the index knows them by.
    owners: Vec<Owner<K>>,
    numbers: BTreeMap<K, u32>,
    live_branches: usize,
    dead_branches: usize,
}

struct Owner<K> {
    key: K,
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

impl<K: Copy + Ord> Default for Matcher<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Ord> Matcher<K> {
    /// A matcher without patterns.
    #[must_use]
    pub fn new() -> Self {
        Self {
            index: Index::default(),
            owners: Vec::new(),
            numbers: BTreeMap::new(),
            live_branches: 0,
            dead_branches: 0,
        }
    }

    /// How many patterns there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Adds a pattern. What the key had before is replaced.
    pub fn insert(&mut self, key: K, pattern: &Pattern) {
        self.remove(key);
        let compiled = &*pattern.0;
        let number = self.owners.len() as u32;
        let needs: Vec<Need> = compiled
            .fields
            .iter()
            .map(|test| Need {
                field: self.index.fields.intern(&test.path),
                leaf: self.index.add_leaf(test.leaf.clone()),
            })
            .collect();
        let branches = compiled.alternatives.iter().map(|alternative| {
            let chosen = alternative.iter().filter_map(|at| needs.get(*at as usize).copied());
            self.index.add_branch(number, chosen)
        });
        let branches: Vec<u32> = branches.collect();
        self.live_branches += branches.len();
        self.owners.push(Owner { key, branches });
        self.numbers.insert(key, number);
    }

    /// Takes a pattern away; false when there was none under the key.
    pub fn remove(&mut self, key: K) -> bool {
        let Some(number) = self.numbers.remove(&key) else { return false };
        if let Some(owner) = self.owners.get(number as usize) {
            owner.branches.iter().for_each(|branch| self.index.kill(*branch));
            self.live_branches -= owner.branches.len();
            self.dead_branches += owner.branches.len();
        }
        if self.dead_branches > self.live_branches.max(REBUILD_MIN) {
            self.rebuild();
        }
        true
    }

    /// Files the live patterns in a new index.
    fn rebuild(&mut self) {
        let old = std::mem::take(&mut self.index);
        let owners = std::mem::take(&mut self.owners);
        for number in self.numbers.values_mut() {
            let Some(owner) = owners.get(*number as usize) else { continue };
            *number = self.owners.len() as u32;
            let mut moved: HashMap<u32, Need> = HashMap::new();
            let mut branches = Vec::new();
            for branch in &owner.branches {
                let mut needs = Vec::new();
                for need in old.needs(*branch) {
                    needs.push(*moved.entry(need.leaf).or_insert_with(|| Need {
                        field: self.index.fields.intern(&old.fields.path(need.field)),
                        leaf: self.index.add_leaf(old.leaf(need.leaf).cloned().unwrap_or_default()),
                    }));
                }
                branches.push(self.index.add_branch(*number, needs.into_iter()));
            }
            self.owners.push(Owner { key: owner.key, branches });
        }
        self.dead_branches = 0;
    }

    /// The keys of the patterns that match an event, ascending.
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
        scratch.extract.read(&self.index.fields, event)?;
        self.look_up(Texts::of(event), scratch, keys);
        Ok(())
    }

    /// As [`Matcher::matches`], of an event that is one JSON object.
    ///
    /// # Errors
    /// When it is not.
    pub fn matches_json(&self, json: &[u8]) -> Result<Vec<K>, MalformedEvent> {
        let mut keys = Vec::new();
        with_scratch(|scratch| {
            scratch.extract.read_json(&self.index.fields, json)?;
            let data = std::str::from_utf8(json).unwrap_or_default();
            self.look_up(Texts { attributes: &[], data }, scratch, &mut keys);
            Ok(())
        })?;
        Ok(keys)
    }

    fn look_up(&self, texts: Texts<'_>, scratch: &mut Scratch, keys: &mut Vec<K>) {
        let Scratch { extract, marks } = scratch;
        Lookup { index: &self.index, extract, texts, marks }.run();
        keys.extend(marks.owners.iter().filter_map(|owner| Some(self.owners.get(*owner as usize)?.key)));
        keys.sort_unstable();
        keys.dedup();
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
