//! What is known of fields, and which patterns a value makes candidates.

use std::collections::hash_map::Entry as Slot;

use super::block::{self, Block};
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
    /// Lists of patterns that share a posting, ascending.
    many: Vec<Vec<EntryId>>,
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
    /// Levels that blocks have, for each kind.
    levels: [Vec<u32>; 3],
    any: bool,
}

/// Small, because there is one for nearly every pattern, and hardly any is in a cache.
#[derive(Clone, Copy, Debug)]
enum Posting {
    One(EntryId),
    /// Where in `Fields::many`.
    Many(u32),
}

/// One way to find a pattern: by a value that has this.
#[derive(Debug)]
pub(super) enum Key<'a> {
    Exact(Scalar<'a>),
    Text(How, &'a str),
    Block(Block),
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
    /// Adds keys one of which every value has that meets a condition; `None` when it is met by the absence of one.
    pub(super) fn of(condition: &'a Condition, mut add: impl FnMut(Self)) -> Option<()> {
        add(match condition {
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
            Condition::Cidr(cidr) => Self::Block(block::of_cidr(cidr)),
            Condition::Range(range) => {
                block::of_range(range).into_iter().for_each(|block| add(Self::Block(block)));
                return Some(());
            }
            Condition::Exists | Condition::AnythingBut(_) => Self::Any,
            Condition::Absent => return None,
        });
        Some(())
    }

    fn hash(&self, field: FieldId) -> u64 {
        match self {
            Self::Exact(scalar) => exact_hash(field, *scalar),
            Self::Text(how, text) => {
                let end = if matches!(how, How::Suffix | How::SuffixFolded) { End::Back } else { End::Start };
                Ends::new(seed(field, *how as u64), text.as_bytes(), end).to(text.len())
            }
            Self::Block(block) => block_hash(field, *block),
            Self::Any => add(seed(field, ANY_SEED), 0),
        }
    }
}

/// Seeds of the ways in `How` are 0 to 4.
const EXACT_SEED: u64 = 5;
const BLOCK_SEED: u64 = 6;
const ANY_SEED: u64 = 7;

fn seed(field: FieldId, way: u64) -> u64 {
    u64::from(field) << 3 | way
}

fn block_hash(field: FieldId, Block { kind, level, prefix }: Block) -> u64 {
    let seed = add(seed(field, BLOCK_SEED), u64::from(level) << 2 | kind as u64);
    add(add(seed, prefix as u64), (prefix >> 64) as u64)
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
        Self { fields: vec![root], by_name: HashedMap::default(), postings: HashedMap::default(), many: Vec::new() }
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
        match self.postings.get(&key.hash(field)) {
            None => 0,
            Some(Posting::One(_)) => 1,
            Some(Posting::Many(at)) => self.many.get(*at as usize).map_or(0, Vec::len),
        }
    }

    /// Has an entry found by values of a field that have a key.
    pub(super) fn add(&mut self, field: FieldId, key: &Key<'_>, entry: EntryId) {
        let hash = key.hash(field);
        let Some(access) = self.fields.get_mut(field as usize).map(|field| &mut field.access) else { return };
        match key {
            Key::Any => access.any = true,
            Key::Exact(_) => access.exact = true,
            Key::Text(How::Folded, _) => access.exact_folded = true,
            Key::Text(How::Prefix, text) => note(&mut access.prefixes, text.len()),
            Key::Text(How::Suffix, text) => note(&mut access.suffixes, text.len()),
            Key::Text(How::PrefixFolded, text) => note(&mut access.prefixes_folded, text.len()),
            Key::Text(How::SuffixFolded, text) => note(&mut access.suffixes_folded, text.len()),
            Key::Block(block) => note(&mut access.levels[block.kind as usize], block.level.into()),
        }
        match self.postings.entry(hash) {
            Slot::Vacant(vacant) => {
                vacant.insert(Posting::One(entry));
            }
            Slot::Occupied(mut posting) => match *posting.get() {
                Posting::One(first) if first == entry => {}
                Posting::One(first) => {
                    posting.insert(Posting::Many(self.many.len() as u32));
                    self.many.push(vec![first, entry]);
                }
                Posting::Many(at) => {
                    let list = self.many.get_mut(at as usize).filter(|list| list.last() != Some(&entry));
                    list.into_iter().for_each(|list| list.push(entry));
                }
            },
        }
    }

    /// Adds the entries that a value makes candidates.
    pub(super) fn find(&self, field: FieldId, value: Scalar<'_>, found: &mut Found) {
        let Some(access) = self.fields.get(field as usize).map(|field| &field.access) else { return };
        if access.any {
            self.posted(Key::Any.hash(field), found);
        }
        if access.exact {
            self.posted(exact_hash(field, value), found);
        }
        if access.levels.iter().any(|levels| !levels.is_empty())
            && let Some((kind, key)) = block::key(value)
        {
            for level in &access.levels[kind as usize] {
                let prefix = key.checked_shr(*level).unwrap_or(0);
                self.posted(block_hash(field, Block { kind, level: *level as u8, prefix }), found);
            }
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

    fn ends(&self, field: FieldId, how: How, text: &str, lengths: &[u32], end: End, found: &mut Found) {
        let mut ends = Ends::new(seed(field, how as u64), text.as_bytes(), end);
        for length in lengths.iter().map(|length| *length as usize).take_while(|length| *length <= text.len()) {
            self.posted(ends.to(length), found);
        }
    }

    fn posted(&self, hash: u64, found: &mut Found) {
        match self.postings.get(&hash) {
            None => {}
            Some(Posting::One(entry)) => found.add(*entry),
            Some(Posting::Many(at)) => found.add_list(*at, &self.many),
        }
    }
}

/// The candidates of one event.
#[derive(Debug, Default)]
pub(super) struct Found {
    ids: Vec<EntryId>,
    /// How long `ids` may get before it is sorted out: an array can lead to the same patterns a million times.
    sort_at: usize,
    /// For each list of `Fields::many` the event that it was last taken for: once is enough.
    taken: Vec<u64>,
    event: u64,
}

impl Found {
    /// Starts over for an event.
    pub(super) fn clear(&mut self, fields: &Fields, always: &[EntryId]) {
        self.event += 1;
        self.ids.clear();
        self.ids.extend_from_slice(always);
        self.sort_at = (always.len() * 2).max(4096);
        if self.taken.len() < fields.many.len() {
            self.taken.resize(fields.many.len(), 0);
        }
    }

    fn add(&mut self, id: EntryId) {
        self.ids.push(id);
        if self.ids.len() >= self.sort_at {
            self.sort();
            self.sort_at = (self.ids.len() * 2).max(4096);
        }
    }

    fn add_list(&mut self, list: u32, many: &[Vec<EntryId>]) {
        let (Some(taken), Some(ids)) = (self.taken.get_mut(list as usize), many.get(list as usize)) else { return };
        if std::mem::replace(taken, self.event) != self.event {
            self.ids.extend_from_slice(ids);
        }
    }

    fn sort(&mut self) {
        self.ids.sort_unstable();
        self.ids.dedup();
    }

    /// The candidates, ascending, each once.
    pub(super) fn sorted(&mut self) -> &mut Vec<EntryId> {
        self.sort();
        &mut self.ids
    }
}

/// Keeps a number in an ascending list. Lengths are those of texts in a pattern, which has at most 64 KiB.
fn note(numbers: &mut Vec<u32>, number: usize) {
    let number = number as u32;
    if let Err(place) = numbers.binary_search(&number) {
        numbers.insert(place, number);
    }
}

fn name_hash(parent: FieldId, name: &[u8]) -> u64 {
    hash(u64::from(parent), name)
}
