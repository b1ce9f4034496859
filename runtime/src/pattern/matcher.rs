//! Many patterns at once: each is found by its most selective condition, then verified.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::Hash;

use super::index::{EntryId, Fields, Found, Key};
use super::json::{self, Place};
use super::tree::{FieldId, NONE, ROOT, Tree, Value};
use super::verify::Resolved;
use super::view::{DataView, EventView, MalformedEvent};
use super::{Group, Pattern, Test};

/// Patterns, each inserted under a key, and a fast answer to which keys an event matches.
#[derive(Debug)]
pub struct Matcher<K> {
    /// In the order of insertion; what was removed stays empty until enough of it has gathered.
    entries: Vec<Option<Entry<K>>>,
    removed: usize,
    /// The first and the last entry of each key.
    keys: HashMap<K, (EntryId, EntryId)>,
    fields: Fields,
    /// Entries that no value leads to: they are verified against every event.
    always: Vec<EntryId>,
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    /// The key's first entry, whose place is the key's.
    first: EntryId,
    resolved: Resolved,
    pattern: Pattern,
}

#[derive(Default)]
struct Scratch {
    tree: Tree,
    found: Found,
}

thread_local! {
    /// Taken while in use, so that matching within matching would merely allocate.
    static SCRATCH: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

impl<K> Default for Matcher<K> {
    fn default() -> Self {
        Self { entries: Vec::new(), removed: 0, keys: HashMap::new(), fields: Fields::default(), always: Vec::new() }
    }
}

impl<K: Copy + Eq + Hash> Matcher<K> {
    /// Adds a pattern under a key; a key with several patterns matches when one of them does.
    pub fn insert(&mut self, key: K, pattern: &Pattern) {
        let id = self.entries.len() as EntryId;
        let keys = self.keys.entry(key).or_insert((id, id));
        keys.1 = id;
        let first = keys.0;
        let mut ids = vec![0; pattern.0.field_count as usize];
        let resolved = Resolved::new(&pattern.0.root, 0, &mut self.fields, &mut ids);
        match self.way_to(&pattern.0.root, &ids) {
            Some(way) => way.keys.iter().for_each(|(field, key)| self.fields.add(*field, key, id)),
            None => self.always.push(id),
        }
        self.entries.push(Some(Entry { key, first, resolved, pattern: pattern.clone() }));
    }

    /// Removes every pattern of a key; returns how many there were.
    pub fn remove(&mut self, key: K) -> usize {
        let Some((first, last)) = self.keys.remove(&key) else { return 0 };
        let mut count = 0;
        for entry in self.entries.iter_mut().take(last as usize + 1).skip(first as usize) {
            count += usize::from(entry.take_if(|entry| entry.key == key).is_some());
        }
        self.removed += count;
        // What is left of the removed costs a look now and then; a rebuild when it is half keeps that bounded.
        if self.removed > self.entries.len() / 2 {
            let entries = std::mem::take(self).entries;
            entries.into_iter().flatten().for_each(|entry| self.insert(entry.key, &entry.pattern));
        }
        count
    }

    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.removed
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The keys with a pattern that matches, each once, in the order of their first insertion. All of the event's
    /// JSON is checked, whatever is asked for.
    pub fn matches(&self, event: &EventView<'_>) -> Result<Vec<K>, MalformedEvent> {
        self.with_scratch(|scratch| {
            load(event, &self.fields, &mut scratch.tree)?;
            Ok(self.search(scratch))
        })
    }

    /// Like `matches`, for an event that is one JSON object.
    pub fn matches_json(&self, event: &[u8]) -> Result<Vec<K>, MalformedEvent> {
        self.with_scratch(|scratch| {
            scratch.tree.clear(self.fields.len());
            json::read(event, &self.fields, &mut scratch.tree, &Place::Root)?;
            Ok(self.search(scratch))
        })
    }

    fn with_scratch<T>(&self, run: impl FnOnce(&mut Scratch) -> T) -> T {
        let mut scratch = SCRATCH.try_with(Cell::take).ok().flatten().unwrap_or_default();
        let result = run(&mut scratch);
        // A thread does not hold on to what one huge event needed.
        if scratch.tree.text.capacity() < 1 << 20 && scratch.tree.items.capacity() < 1 << 16 {
            let _ = SCRATCH.try_with(|cell| cell.set(Some(scratch)));
        }
        result
    }

    fn search(&self, scratch: &mut Scratch) -> Vec<K> {
        let Scratch { tree, found } = scratch;
        found.clear(&self.fields, &self.always);
        tree.count_scalars(|field, scalar| self.fields.find(field, scalar, found));
        let found = found.sorted();
        found.retain_mut(|id| {
            let Some(Some(entry)) = self.entries.get(*id as usize) else { return false };
            *id = entry.first;
            entry.resolved.matches(tree)
        });
        found.sort_unstable();
        found.dedup();
        let key = |id: &EntryId| self.entries.get(*id as usize)?.as_ref().map(|entry| entry.key);
        found.iter().filter_map(key).collect()
    }

    /// The conditions one of which every matching event meets, and that lead to the fewest other patterns.
    fn way_to<'p>(&self, group: &'p Group, fields: &[FieldId]) -> Option<Way<'p>> {
        let mut best: Option<Way<'p>> = None;
        let of_fields = group.fields.iter().filter_map(|field| match &field.test {
            Test::Group(group) => self.way_to(group, fields),
            Test::Value(conditions) => {
                let id = *fields.get(field.ordinal as usize)?;
                let mut way = Way::default();
                for condition in conditions {
                    Key::of(condition, |key| way.push(id, key, &self.fields))?;
                }
                Some(way)
            }
        });
        let of_ors = group.ors.iter().filter_map(|groups| {
            let mut way = Way::default();
            for group in groups {
                let one = self.way_to(group, fields)?;
                way.cost += one.cost;
                way.keys.extend(one.keys);
            }
            Some(way)
        });
        for way in of_fields.chain(of_ors) {
            if best.as_ref().is_none_or(|best| way.rank() < best.rank()) {
                best = Some(way);
            }
        }
        best
    }
}

/// Keys that lead to a pattern.
#[derive(Default)]
struct Way<'p> {
    keys: Vec<(FieldId, Key<'p>)>,
    /// What taking it adds to: how many patterns a value with one of the keys would lead to.
    cost: usize,
}

impl<'p> Way<'p> {
    /// Far more events have any value in a field than a certain one.
    const ANY: usize = 8;

    fn push(&mut self, field: FieldId, key: Key<'p>, fields: &Fields) {
        let crowd = fields.crowd(field, &key);
        self.cost += if let Key::Any = key { (crowd + 1) * Self::ANY } else { crowd };
        self.keys.push((field, key));
    }

    fn rank(&self) -> (usize, usize) {
        (self.cost, self.keys.len())
    }
}

/// Fills a tree with what is asked for of an event.
pub(super) fn load(event: &EventView<'_>, fields: &Fields, tree: &mut Tree) -> Result<(), MalformedEvent> {
    tree.clear(fields.len());
    let mut previous = NONE;
    for (name, value) in event.attributes() {
        if let Some(field) = fields.child(0, name.as_bytes()) {
            previous = push_text(field, value, previous, tree)?;
        }
    }
    let field = fields.child(0, b"data");
    match (event.data(), field) {
        (DataView::Json(bytes), field) => {
            json::read(bytes, fields, tree, &Place::Member { field, parent: ROOT, previous })
        }
        (DataView::Text(text), Some(field)) => push_text(field, text, previous, tree).map(drop),
        (DataView::Text(_), None) | (DataView::None, _) => Ok(()),
    }
}

fn push_text(field: FieldId, text: &str, previous: u32, tree: &mut Tree) -> Result<u32, MalformedEvent> {
    let start = tree.text.len();
    if text.len() > json::SIZE_MAX / 2 || start > json::SIZE_MAX / 2 {
        return Err(MalformedEvent { position: 0, reason: "an event of 4 GiB or more" });
    }
    tree.text.push_str(text);
    let value: Value = tree.push_text(start);
    let item = tree.push(field, ROOT, previous, value);
    tree.member(item);
    Ok(item)
}
