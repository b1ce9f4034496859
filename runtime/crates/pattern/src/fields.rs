//! The fields that the patterns of a matcher test, as a tree of names. Each field has a number.

use super::hash::{self, HashedMap};

/// The number of the root: the event itself, the parent of its top-level fields.
pub(super) const ROOT: u32 = 0;

/// A node of the tree.
struct Field {
    parent: u32,
    name: Box<str>,
    /// The number of names in the path.
    depth: u32,
    /// True if a pattern has conditions on the value of this field, and not only on fields below it.
    tested: bool,
    /// A Bloom filter over the names of the children. Each name sets one bit, chosen by its length and its first byte.
    /// For most names that no pattern tests, the filter makes a lookup in `Fields::index` unnecessary.
    child_filter: u64,
}

/// The tree of fields. Fields are added and never removed; a matcher that rebuilds its index starts with a new tree.
pub(super) struct Fields {
    fields: Vec<Field>,
    /// Hash of (parent, name) → field number. After a collision the next key is used (linear probing).
    index: HashedMap<u32>,
}

impl Default for Fields {
    fn default() -> Self {
        let root = Field { parent: ROOT, name: "".into(), depth: 0, tested: false, child_filter: 0 };
        Self { fields: vec![root], index: HashedMap::default() }
    }
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// Returns the number of the field at a path, and marks the field as tested. Adds the fields of the path that are
    /// missing.
    pub(super) fn intern(&mut self, path: &[Box<str>]) -> u32 {
        let mut at = ROOT;
        for name in path {
            at = self.child(at, name).unwrap_or_else(|| self.add_child(at, name));
        }
        if let Some(field) = self.fields.get_mut(at as usize) {
            field.tested = true;
        }
        at
    }

    fn add_child(&mut self, parent: u32, name: &str) -> u32 {
        let number = self.fields.len() as u32;
        let mut depth = 1;
        if let Some(above) = self.fields.get_mut(parent as usize) {
            above.child_filter |= filter_bit(name);
            depth += above.depth;
        }
        self.fields.push(Field { parent, name: name.into(), depth, tested: false, child_filter: 0 });
        let mut key = child_key(parent, name);
        while self.index.contains_key(&key) {
            key = key.wrapping_add(1);
        }
        self.index.insert(key, number);
        number
    }

    /// Returns the number of the child with this name, or `None` when no pattern tests that child or a field below it.
    #[inline]
    pub(super) fn child(&self, parent: u32, name: &str) -> Option<u32> {
        if self.fields.get(parent as usize)?.child_filter & filter_bit(name) == 0 {
            return None;
        }
        let mut key = child_key(parent, name);
        loop {
            let number = *self.index.get(&key)?;
            let field = self.fields.get(number as usize)?;
            if field.parent == parent && *field.name == *name {
                return Some(number);
            }
            key = key.wrapping_add(1);
        }
    }

    /// Returns true if a pattern has conditions on the value of this field.
    #[inline]
    pub(super) fn is_tested(&self, field: u32) -> bool {
        self.fields.get(field as usize).is_some_and(|field| field.tested)
    }

    /// Returns true if a pattern tests a field below this one.
    #[inline]
    pub(super) fn has_children(&self, field: u32) -> bool {
        self.fields.get(field as usize).is_some_and(|field| field.child_filter != 0)
    }

    /// The number of the field at a path; `None` if the tree does not have the field.
    pub(super) fn find(&self, path: &[Box<str>]) -> Option<u32> {
        path.iter().try_fold(ROOT, |at, name| self.child(at, name))
    }

    /// The number of names in the field's path; 0 for the root.
    pub(super) fn depth(&self, field: u32) -> u32 {
        self.fields.get(field as usize).map_or(0, |field| field.depth)
    }

    /// The names from the top of the event to a field.
    pub(super) fn path(&self, mut field: u32) -> Vec<Box<str>> {
        let mut path = Vec::new();
        while field != ROOT {
            let Some(step) = self.fields.get(field as usize) else { break };
            path.push(step.name.clone());
            field = step.parent;
        }
        path.reverse();
        path
    }
}

/// The bit of a name in `Field::child_filter`.
#[inline]
fn filter_bit(name: &str) -> u64 {
    let first = name.as_bytes().first().copied().unwrap_or(0);
    1 << (name.len().wrapping_mul(7).wrapping_add(usize::from(first)) & 63)
}

/// The key of a child in `Fields::index`.
#[inline]
fn child_key(parent: u32, name: &str) -> u64 {
    hash::mix(hash::bytes(name.as_bytes()), u64::from(parent))
}
