//! How the conditions of a field can be looked up instead of tried: the access paths of the index.

use super::cidr::Cidr;
use super::condition::{Condition, Exact, Leaf, Range};
use super::hash;
use super::text::TextTest;

/// How many bytes of a literal within a wildcard are looked up, at every place of a value: the most that it has.
const GRAMS: [usize; 2] = [8, 4];
/// How many places of a literal are considered for that.
const PLACES: usize = 32;

/// Added to the length of an IPv6 block.
pub(super) const V6: u32 = 128;

/// What a key of the index was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text = 1,
    Number,
    Literal,
    Folded,
    Prefix,
    Suffix,
    FoldedPrefix,
    FoldedSuffix,
    Gram,
    Block,
}

/// One way to find a condition. A leaf is found by all of its conditions.
pub(super) enum Access<'a> {
    /// By the hash of something that a matching value has; `length` is how much of the value that is, in bytes
    /// (of a prefix or suffix) or bits (of an address block, [`V6`] added for IPv6).
    Key { kind: Kind, length: u32, hash: u64 },
    /// By any one of the parts of a literal, all of a length that a value then has somewhere.
    Grams { literal: &'a [u8], length: usize },
    /// Among the ranges of the field.
    Range(&'a Range),
    /// By the field having any value at all.
    Present,
}

impl<'a> Access<'a> {
    /// The access path of a condition; `None` when it can hold without a value.
    fn of(condition: &'a Condition) -> Option<Self> {
        let key = |kind, text: &str| Self::Key { kind, length: text.len() as u32, hash: hash::bytes(text.as_bytes()) };
        let part = |kind, text: &str| if text.is_empty() { Self::Present } else { key(kind, text) };
        Some(match condition {
            Condition::Exact(exact) => Self::exact(exact),
            Condition::Text(TextTest::Prefix(text)) => part(Kind::Prefix, text),
            Condition::Text(TextTest::Suffix(text)) => part(Kind::Suffix, text),
            Condition::Text(TextTest::FoldedPrefix(text)) => part(Kind::FoldedPrefix, text),
            Condition::Text(TextTest::FoldedSuffix(text)) => part(Kind::FoldedSuffix, text),
            Condition::Text(TextTest::Folded(text)) => key(Kind::Folded, text),
            Condition::Text(TextTest::Wildcard(wildcard)) => {
                let (head, tail, middle) = wildcard.literals();
                let gram = GRAMS.into_iter().find(|length| middle.len() >= *length);
                if let (true, Some(length)) = (middle.len() > head.len().max(tail.len()), gram) {
                    Self::Grams { literal: middle.as_bytes(), length }
                } else if tail.len() > head.len() {
                    key(Kind::Suffix, tail)
                } else {
                    part(Kind::Prefix, head)
                }
            }
            Condition::Range(range) => Self::Range(range),
            Condition::Cidr(cidr) => Self::block(cidr),
            Condition::Present | Condition::Except(_) | Condition::ExceptText(_) => Self::Present,
            Condition::Absent => return None,
        })
    }

    fn exact(exact: &Exact) -> Self {
        let (kind, hash) = match exact {
            Exact::Text(text) => (Kind::Text, hash::bytes(text.as_bytes())),
            Exact::Number(number) => (Kind::Number, hash::words(number.words())),
            Exact::Null => (Kind::Literal, 0),
            Exact::Bool(bool) => (Kind::Literal, 1 + u64::from(*bool)),
        };
        Self::Key { kind, length: 0, hash }
    }

    fn block(cidr: &Cidr) -> Self {
        let length = u32::from(cidr.length) + if cidr.v6() { V6 } else { 0 };
        Self::Key { kind: Kind::Block, length, hash: hash::words(cidr.block()) }
    }

    /// How likely an event is to hit it: the share of events that a patternless guess gives it, in arbitrary units.
    pub(super) fn weight(&self) -> usize {
        match self {
            Self::Key { kind: Kind::Text | Kind::Number | Kind::Folded, .. } => 1,
            Self::Key { kind: Kind::Literal, .. } => 16,
            Self::Grams { .. } | Self::Key { kind: Kind::Gram, .. } => 8,
            Self::Key { kind: Kind::Block, length, .. } => 2 + (24usize.saturating_sub(*length as usize)) * 8,
            Self::Key { length, .. } => 2 + (4usize.saturating_sub(*length as usize)) * 32,
            Self::Range(Range { low: Some(_), high: Some(_) }) => 64,
            Self::Range(_) => 512,
            Self::Present => 1024,
        }
    }
}

/// The keys that each can stand for a literal.
pub(super) fn grams(literal: &[u8], length: usize) -> impl Iterator<Item = Access<'static>> {
    let hashes = literal.windows(length).take(PLACES).map(hash::bytes);
    hashes.map(move |hash| Access::Key { kind: Kind::Gram, length: length as u32, hash })
}

/// The access paths of a leaf; `None` when it can hold without a value.
pub(super) fn paths(leaf: &Leaf) -> Option<impl Iterator<Item = Access<'_>>> {
    (!leaf.absent).then(|| leaf.conditions.iter().filter_map(Access::of))
}

/// The key of the index for what one node asks of one field.
#[inline]
pub(super) fn key(node: u32, field: u32, kind: Kind, length: u32, hash: u64) -> u64 {
    hash::mix(hash ^ (u64::from(node) << 32 | u64::from(field)), ((length as u64) << 8) | kind as u64)
}
