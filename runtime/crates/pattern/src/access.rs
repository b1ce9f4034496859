//! The access paths of the index. An access path leads from a value of an event to the patterns with a condition that
//! the value can meet. So the index does not have to test the conditions of all patterns.

use super::cidr::Cidr;
use super::condition::{Condition, ConditionList, Exact, Range};
use super::hash;
use super::text::TextTest;

/// The lengths of n-grams, in bytes. An n-gram is a piece of the fixed text (the literal) of a wildcard, used as the
/// wildcard's key. The greatest of these lengths that fits into the literal is used. The lookup then tries all n-grams
/// of that length in a value.
const GRAM_LENGTHS: [usize; 2] = [8, 4];
/// The index chooses the key of a literal from at most this many n-grams, counted from the start of the literal.
const GRAM_POSITIONS_MAX: usize = 32;

/// This number is added to the length of an IPv6 block, so that IPv4 and IPv6 blocks never have the same length.
pub(super) const V6_LENGTH_OFFSET: u32 = 128;

/// The part of a value that a key of the index is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    Text = 1,
    Number,
    /// `null`, `true` or `false`.
    Literal,
    /// The whole text, case-folded.
    Folded,
    Prefix,
    Suffix,
    FoldedPrefix,
    FoldedSuffix,
    /// An n-gram of a wildcard's literal.
    Gram,
    /// A block of IP addresses.
    Block,
}

/// The way in which the index finds one condition. A list of conditions has one access path for each condition.
pub(super) enum AccessPath<'a> {
    /// By the hash of a part that every matching value has, such as its prefix. `length` is the length of that part: in
    /// bytes for a prefix, suffix, n-gram or case-folded text, in bits for an address block (plus [`V6_LENGTH_OFFSET`]
    /// for IPv6). For other kinds it is 0.
    Key { kind: KeyKind, length: u32, hash: u64 },
    /// By one n-gram of a literal. A matching value contains the whole literal and therefore each of its n-grams, so
    /// any one of them can be the key.
    Grams { literal: &'a [u8], length: usize },
    /// By the numeric ranges of the field.
    Range(&'a Range),
    /// By any value of the field.
    Present,
}

impl<'a> AccessPath<'a> {
    /// The access path of a condition; `None` if the condition matches events without the field.
    fn for_condition(condition: &'a Condition) -> Option<Self> {
        let key = |kind, text: &str| Self::Key { kind, length: text.len() as u32, hash: hash::bytes(text.as_bytes()) };
        let part = |kind, text: &str| if text.is_empty() { Self::Present } else { key(kind, text) };
        Some(match condition {
            Condition::Exact(exact) => Self::exact(exact),
            Condition::Text(TextTest::Prefix(text)) => part(KeyKind::Prefix, text),
            Condition::Text(TextTest::Suffix(text)) => part(KeyKind::Suffix, text),
            Condition::Text(TextTest::FoldedPrefix(text)) => part(KeyKind::FoldedPrefix, text),
            Condition::Text(TextTest::FoldedSuffix(text)) => part(KeyKind::FoldedSuffix, text),
            Condition::Text(TextTest::Folded(text)) => key(KeyKind::Folded, text),
            Condition::Text(TextTest::Wildcard(wildcard)) => {
                let (head, tail, middle) = wildcard.literals();
                let gram = GRAM_LENGTHS.into_iter().find(|length| middle.len() >= *length);
                if let (true, Some(length)) = (middle.len() > head.len().max(tail.len()), gram) {
                    Self::Grams { literal: middle.as_bytes(), length }
                } else if tail.len() > head.len() {
                    key(KeyKind::Suffix, tail)
                } else {
                    part(KeyKind::Prefix, head)
                }
            }
            Condition::Range(range) => Self::Range(range),
            Condition::Cidr(cidr) => Self::cidr_block(cidr),
            Condition::Present | Condition::AnythingBut(_) | Condition::AnythingButText(_) => Self::Present,
            Condition::Absent => return None,
        })
    }

    fn exact(exact: &Exact) -> Self {
        let (kind, hash) = match exact {
            Exact::Text(text) => (KeyKind::Text, hash::bytes(text.as_bytes())),
            Exact::Number(number) => (KeyKind::Number, hash::words(number.decimal().words())),
            Exact::Null => (KeyKind::Literal, 0),
            Exact::Bool(bool) => (KeyKind::Literal, 1 + u64::from(*bool)),
        };
        Self::Key { kind, length: 0, hash }
    }

    fn cidr_block(cidr: &Cidr) -> Self {
        let length = u32::from(cidr.length) + if cidr.is_v6() { V6_LENGTH_OFFSET } else { 0 };
        Self::Key { kind: KeyKind::Block, length, hash: hash::words(cidr.prefix_words()) }
    }

    /// Estimates the share of events for which the index follows this path, in arbitrary units. The estimate depends
    /// only on the path, not on the events so far.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Key { kind: KeyKind::Text | KeyKind::Number | KeyKind::Folded, .. } => 1,
            Self::Key { kind: KeyKind::Literal, .. } => 16,
            Self::Grams { .. } | Self::Key { kind: KeyKind::Gram, .. } => 8,
            Self::Key { kind: KeyKind::Block, length, .. } => 2 + (24usize.saturating_sub(*length as usize)) * 8,
            Self::Key { length, .. } => 2 + (4usize.saturating_sub(*length as usize)) * 32,
            Self::Range(Range { low: Some(_), high: Some(_) }) => 64,
            Self::Range(_) => 512,
            Self::Present => 1024,
        }
    }
}

/// The possible keys of a literal, one for each of its first n-grams.
pub(super) fn grams(literal: &[u8], length: usize) -> impl Iterator<Item = AccessPath<'static>> {
    let hashes = literal.windows(length).take(GRAM_POSITIONS_MAX).map(hash::bytes);
    hashes.map(move |hash| AccessPath::Key { kind: KeyKind::Gram, length: length as u32, hash })
}

/// The access paths of a list of conditions; `None` if the list matches events without the field.
pub(super) fn paths(list: &ConditionList) -> Option<impl Iterator<Item = AccessPath<'_>>> {
    (!list.may_be_absent).then(|| list.conditions.iter().filter_map(AccessPath::for_condition))
}

/// The key in [`Index::table`](super::index::Index::table) for the lookup of one part of a value of `field` in `node`.
/// `hash` is the hash of that part.
#[inline]
pub(super) fn table_key(node: u32, field: u32, kind: KeyKind, length: u32, hash: u64) -> u64 {
    hash::mix(hash ^ (u64::from(node) << 32 | u64::from(field)), ((length as u64) << 8) | kind as u64)
}
