//! What is known of fields, and which patterns a value makes candidates.

use super::condition::{Condition, Scalar};
use super::hash::{End, Ends, HashedMap, add, hash};
use super::text::fold;
use super::tree::FieldId;

/// A pattern of the matcher.
pub(super) type EntryId = u32;

/// What patterns ask for of one field.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    /// Its scalars.
    pub(super) value: bool,
    /// Fields inside it.
    pub(super) inside: bool,
}

/// Every field that patterns ask for, as a tree of names, and what its values lead to.
#[derive(Debug)]
pub(super) struct Fields {
    fields: Vec<Field>,
    /// By the hash of parent and name; `Field::same_hash` leads to others.
    by_name: HashedMap<FieldId>,
    /// Patterns by the hash of what a value must be, or have at an end.
    postings: HashedMap<Posting>,
}

#[derive(Debug)]
struct Field {
    parent: FieldId,
    name: Box<str>,
    same_hash: Option<FieldId>,
    asked: Asked,
    access: Access,
}

/// How patterns are found by the values of a field.
#[derive(Debug, Default)]
struct Access {
    exact: bool,
    exact_folded: bool,
    /// Lengths in bytes that prefixes and suffixes have, ascending: as they are, and folded.
    prefixes: Vec<u32>,
    suffixes: Vec<u32>,
    prefixes_folded: Vec<u32>,
    suffixes_folded: Vec<u32>,
    /// Found by any value.
    any: Vec<EntryId>,
}

#[derive(Debug)]
enum Posting {
    One(EntryId),
    Many(Vec<EntryId>),
}

/// One way to find a pattern: by a value that has this.
#[derive(Debug)]
pub(super) enum Key<'a> {
    Exact(Scalar<'a>),
    Text(How, &'a str),
    Any,
}

/// How a value has a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Folded,
    Prefix,
    Suffix,
    PrefixFolded,
    SuffixFolded,
}

impl<'a> Key<'a> {
    /// What a value that meets a condition surely has; `None` when the condition is met by the absence of one.
    pub(super) fn of(condition: &'a Condition) -> Option<Self> {
        Some(match condition {
            Condition::Null => Self::Exact(Scalar::Null),
            Condition::Bool(flag) => Self::Exact(Scalar::Bool(*flag)),
            Condition::Number(number) => Self::Exact(Scalar::Number(*number)),
            Condition::Equals(literal) if literal.ignore_case => Self::Text(How::Folded, &literal.text),
            Condition::Equals(literal) => Self::Exact(Scalar::String(&literal.text)),
            Condition::Prefix(literal) if literal.ignore_case => Self::Text(How::PrefixFolded, &literal.text),
            Condition::Prefix(literal) => Self::Text(How::Prefix, &literal.text),
            Condition::Suffix(literal) if literal.ignore_case => Self::Text(How::SuffixFolded, &literal.text),
            Condition::Suffix(literal) => Self::Text(How::Suffix, &literal.text),
            Condition::Wildcard(wildcard) => match wildcard.ends() {
                ("", "") => Self::Any,
                (first, last) if first.len() >= last.len() => Self::Text(How::Prefix, first),
                (_, last) => Self::Text(How::Suffix, last),
            },
            Condition::Range(..) | Condition::Cidr(_) | Condition::Exists | Condition::AnythingBut(_) => Self::Any,
            Condition::Absent => return None,
        })
    }

    fn hash(&self, field: FieldId) -> u64 {
        match self {
            Self::Exact(scalar) => exact_hash(field, *scalar),
            Self::Text(how, text) => {
                let end = if matches!(how, How::Suffix | How::SuffixFolded) { End::Back } else { End::Start };
                Ends::new(seed(field, *how as u64), text.as_bytes(), end).to(text.len())
            }
            Self::Any => 0,
        }
    }
}

/// Seeds of the ways in `How` are 0 to 4.
const EXACT_SEED: u64 = 5;

fn seed(field: FieldId, way: u64) -> u64 {
    u64::from(field) << 3 | way
}

fn exact_hash(field: FieldId, scalar: Scalar<'_>) -> u64 {
    let seed = seed(field, EXACT_SEED);
    match scalar {
        Scalar::String(text) => hash(seed, text.as_bytes()),
        Scalar::Null => add(seed, 0),
        Scalar::Bool(flag) => add(seed, 1 + u64::from(flag)),
        Scalar::Number(number) => {
            let (floor, rest) = number.bits();
            add(add(add(add(seed, 3), floor as u64), (floor >> 64) as u64), rest)
        }
    }
}

impl Default for Fields {
    fn default() -> Self {
        let root = Field {
            parent: FieldId::MAX,
            name: "".into(),
            same_hash: None,
            asked: Asked { value: false, inside: true },
            access: Access::default(),
        };
        Self { fields: vec![root], by_name: HashedMap::default(), postings: HashedMap::default() }
    }
}

impl Fields {
    pub(super) fn len(&self) -> usize {
        self.fields.len()
    }

    pub(super) fn asked(&self, field: FieldId) -> Asked {
        self.fields.get(field as usize).map(|field| field.asked).unwrap_or_default()
    }

    /// The field inside `parent` with a name, when a pattern asks for it.
    pub(super) fn child(&self, parent: FieldId, name: &[u8]) -> Option<FieldId> {
        let mut next = self.by_name.get(&name_hash(parent, name)).copied();
        while let Some(id) = next {
            let field = self.fields.get(id as usize)?;
            if field.parent == parent && field.name.as_bytes() == name {
                return Some(id);
            }
            next = field.same_hash;
        }
        None
    }

    /// The field inside `parent` with a name, which is asked for from now on.
    pub(super) fn add_child(&mut self, parent: FieldId, name: &str, asked: Asked) -> FieldId {
        let id = self.child(parent, name.as_bytes()).unwrap_or_else(|| {
            let id = self.fields.len() as FieldId;
            let same_hash = self.by_name.insert(name_hash(parent, name.as_bytes()), id);
            let (name, asked, access) = (name.into(), Asked::default(), Access::default());
            self.fields.push(Field { parent, name, same_hash, asked, access });
            id
        });
        if let Some(field) = self.fields.get_mut(id as usize) {
            field.asked.value |= asked.value;
            field.asked.inside |= asked.inside;
        }
        id
    }

    /// How many patterns a value that has the key makes candidates now.
    pub(super) fn crowd(&self, field: FieldId, key: &Key<'_>) -> usize {
        match key {
            Key::Any => self.fields.get(field as usize).map_or(0, |field| field.access.any.len()),
            key => match self.postings.get(&key.hash(field)) {
                None => 0,
                Some(Posting::One(_)) => 1,
                Some(Posting::Many(entries)) => entries.len(),
            },
        }
    }

    /// Has an entry found by values of a field that have a key.
    pub(super) fn add(&mut self, field: FieldId, key: &Key<'_>, entry: EntryId) {
        let hash = key.hash(field);
        let Some(access) = self.fields.get_mut(field as usize).map(|field| &mut field.access) else { return };
        match key {
            Key::Any => {
                if access.any.last() != Some(&entry) {
                    access.any.push(entry);
                }
                return;
            }
            Key::Exact(_) => access.exact = true,
            Key::Text(How::Folded, _) => access.exact_folded = true,
            Key::Text(how, text) => {
                let lengths = match how {
                    How::Prefix => &mut access.prefixes,
                    How::Suffix => &mut access.suffixes,
                    How::PrefixFolded => &mut access.prefixes_folded,
                    _ => &mut access.suffixes_folded,
                };
                // Offsets have 32 bits, and a pattern at most 64 KiB.
                if let Err(place) = lengths.binary_search(&(text.len() as u32)) {
                    lengths.insert(place, text.len() as u32);
                }
            }
        }
        match self.postings.entry(hash) {
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(Posting::One(entry));
            }
            std::collections::hash_map::Entry::Occupied(mut posting) => posting.get_mut().push(entry),
        }
    }

    /// Adds the entries that a value makes candidates.
    pub(super) fn find(&self, field: FieldId, value: Scalar<'_>, found: &mut Vec<EntryId>) {
        let Some(access) = self.fields.get(field as usize).map(|field| &field.access) else { return };
        found.extend_from_slice(&access.any);
        if access.exact {
            self.posted(exact_hash(field, value), found);
        }
        let Scalar::String(text) = value else { return };
        let lists = [(How::Prefix, &access.prefixes, End::Start), (How::Suffix, &access.suffixes, End::Back)];
        for (how, lengths, end) in lists {
            self.ends(field, how, text, lengths, end, found);
        }
        if access.exact_folded || !access.prefixes_folded.is_empty() || !access.suffixes_folded.is_empty() {
            let folded: String = text.chars().map(fold).collect();
            if access.exact_folded {
                self.posted(Key::Text(How::Folded, &folded).hash(field), found);
            }
            self.ends(field, How::PrefixFolded, &folded, &access.prefixes_folded, End::Start, found);
            self.ends(field, How::SuffixFolded, &folded, &access.suffixes_folded, End::Back, found);
        }
    }

    fn ends(&self, field: FieldId, how: How, text: &str, lengths: &[u32], end: End, found: &mut Vec<EntryId>) {
        let mut ends = Ends::new(seed(field, how as u64), text.as_bytes(), end);
        for length in lengths.iter().map(|length| *length as usize).take_while(|length| *length <= text.len()) {
            self.posted(ends.to(length), found);
        }
    }

    fn posted(&self, hash: u64, found: &mut Vec<EntryId>) {
        match self.postings.get(&hash) {
            None => {}
            Some(Posting::One(entry)) => found.push(*entry),
            Some(Posting::Many(entries)) => found.extend_from_slice(entries),
        }
    }
}

fn name_hash(parent: FieldId, name: &[u8]) -> u64 {
    hash(u64::from(parent), name)
}

impl Posting {
    fn push(&mut self, entry: EntryId) {
        match self {
            Self::One(first) if *first == entry => {}
            Self::One(first) => *self = Self::Many(vec![*first, entry]),
            Self::Many(entries) => {
                if entries.last() != Some(&entry) {
                    entries.push(entry);
                }
            }
        }
    }
}
