//! The fields that patterns ask for, as a tree of names with a number for each.

use super::hash::{self, HashedMap};

/// The whole event: the parent of its top-level fields.
pub(super) const ROOT: u32 = 0;

/// A field name at one place of the tree.
struct Field {
    parent: u32,
    name: Box<str>,
    depth: u32,
    /// Some pattern asks for its value.
    leaf: bool,
    /// Of its children: one bit a hash of length and first byte. Most names that nobody asks for fail here already.
    names: u64,
}

/// Names are interned once and stay until the matcher is rebuilt.
pub(super) struct Fields {
    fields: Vec<Field>,
    /// Hash of (parent, name) → field; after a collision the next key is tried.
    index: HashedMap<u32>,
}

impl Default for Fields {
    fn default() -> Self {
        let root = Field { parent: ROOT, name: "".into(), depth: 0, leaf: false, names: 0 };
        Self { fields: vec![root], index: HashedMap::default() }
    }
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    /// The number of a path's field, which from now on is asked for.
    pub(super) fn intern(&mut self, path: &[Box<str>]) -> u32 {
        let mut at = ROOT;
        for name in path {
            at = self.child(at, name).unwrap_or_else(|| self.add(at, name));
        }
        if let Some(field) = self.fields.get_mut(at as usize) {
            field.leaf = true;
        }
        at
    }

    fn add(&mut self, parent: u32, name: &str) -> u32 {
        let number = self.fields.len() as u32;
        let mut depth = 1;
        if let Some(above) = self.fields.get_mut(parent as usize) {
            above.names |= bit(name);
            depth += above.depth;
        }
        self.fields.push(Field { parent, name: name.into(), depth, leaf: false, names: 0 });
        let mut key = key(parent, name);
        while self.index.contains_key(&key) {
            key = key.wrapping_add(1);
        }
        self.index.insert(key, number);
        number
    }

    /// The field of that name below another, when any pattern asks for it or for something in it.
    #[inline]
    pub(super) fn child(&self, parent: u32, name: &str) -> Option<u32> {
        if self.fields.get(parent as usize)?.names & bit(name) == 0 {
            return None;
        }
        let mut key = key(parent, name);
        loop {
            let number = *self.index.get(&key)?;
            let field = self.fields.get(number as usize)?;
            if field.parent == parent && *field.name == *name {
                return Some(number);
            }
            key = key.wrapping_add(1);
        }
    }

    #[inline]
    pub(super) fn is_leaf(&self, field: u32) -> bool {
        self.fields.get(field as usize).is_some_and(|field| field.leaf)
    }

    /// Whether anything in it is asked for.
    #[inline]
    pub(super) fn has_children(&self, field: u32) -> bool {
        self.fields.get(field as usize).is_some_and(|field| field.names != 0)
    }

    /// The number of a path's field, if it is known.
    pub(super) fn find(&self, path: &[Box<str>]) -> Option<u32> {
        path.iter().try_fold(ROOT, |at, name| self.child(at, name))
    }

    /// How many names its path has.
    pub(super) fn depth(&self, field: u32) -> u32 {
        self.fields.get(field as usize).map_or(0, |field| field.depth)
    }

    /// The names from the top to a field.
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

#[inline]
fn bit(name: &str) -> u64 {
    let first = name.as_bytes().first().copied().unwrap_or(0);
    1 << (name.len().wrapping_mul(7).wrapping_add(usize::from(first)) & 63)
}

#[inline]
fn key(parent: u32, name: &str) -> u64 {
    hash::mix(hash::bytes(name.as_bytes()), u64::from(parent))
}
