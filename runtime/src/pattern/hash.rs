//! Hashes that the index finds patterns by. An equal hash only makes a pattern a candidate, which is then verified:
//! a collision costs a look and can never match wrongly, so there is no need for a keyed hash.

use std::hash::{BuildHasherDefault, Hasher};

/// A map by hashes that are already well mixed.
pub(super) type HashedMap<V> = std::collections::HashMap<u64, V, BuildHasherDefault<Mixed>>;

/// Takes a hash for what it is.
#[derive(Default)]
pub(super) struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = mix(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// The hash of bytes that are not cut: names and exact values.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut ends = Ends::new(seed, bytes, End::Start);
    ends.to(bytes.len())
}

/// Adds a number to a hash.
pub(super) fn add(hash: u64, number: u64) -> u64 {
    mix(hash.rotate_left(29) ^ number)
}

/// Where text is cut from.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Start,
    Back,
}

/// The hashes of many prefixes, or suffixes, of one text: all of them cost one pass, when asked for in ascending length.
pub(super) struct Ends<'a> {
    bytes: &'a [u8],
    end: End,
    state: u64,
    done: usize,
}

impl<'a> Ends<'a> {
    pub(super) fn new(seed: u64, bytes: &'a [u8], end: End) -> Self {
        Self { bytes, end, state: mix(seed), done: 0 }
    }

    /// The hash of the first, or last, `length` bytes; `length` is no more than there are.
    pub(super) fn to(&mut self, length: usize) -> u64 {
        while length - self.done >= 8 {
            self.state = mix(self.state ^ self.word(8));
            self.done += 8;
        }
        let rest = length - self.done;
        mix(add(self.state, self.word(rest)) ^ length as u64)
    }

    /// The next bytes, at most 8 of them.
    fn word(&self, count: usize) -> u64 {
        let start = match self.end {
            End::Start => self.done,
            End::Back => self.bytes.len() - self.done - count,
        };
        let bytes = self.bytes.get(start..start + count).unwrap_or_default();
        match <[u8; 8]>::try_from(bytes) {
            Ok(word) => u64::from_le_bytes(word),
            Err(_) => bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        }
    }
}

/// Spreads what differs in a few bits over all of them: the halves of a product by an odd constant.
fn mix(value: u64) -> u64 {
    let product = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
    (product as u64) ^ (product >> 64) as u64
}
