//! The rows of one field: sets of lists of conditions, each stored once and identified by a number.

use super::{BulkRequirement, bit, or_into, words_for};
use crate::hash::{self, HashedMap};

/// The number of rows whose sets of alternatives are cached. For later rows they are computed at each use.
const CACHED_MAX: usize = 4096;

/// The rows of one field, and the sets of alternatives that follow from them.
pub(super) struct Rows<'a> {
    /// The requirement of each bit.
    requirements: &'a [u32],
    /// The length of a row in words.
    words: usize,
    /// The length of a set of alternatives in words.
    set_words: usize,
    rows: Vec<u64>,
    /// Hash of a row → its number. After a collision the next key is used.
    numbers: HashedMap<u32>,
    /// For each row, the alternatives with a list in the row and those with a list outside of the row.
    sets: Vec<Option<Box<[Vec<u64>; 2]>>>,
    /// The numbers of the last two united rows and of their union.
    last_union: (u32, u32, u32),
    buffer: Vec<u64>,
}

impl<'a> Rows<'a> {
    /// The number of the row without a bit.
    pub(super) const EMPTY: u32 = 0;

    pub(super) fn new(requirements: &'a [u32], set_words: usize) -> Self {
        let words = words_for(requirements.len());
        let mut rows = Self {
            requirements,
            words,
            set_words,
            rows: Vec::new(),
            numbers: HashedMap::default(),
            sets: Vec::new(),
            last_union: (0, 0, 0),
            buffer: Vec::new(),
        };
        rows.intern(&vec![0; words]);
        rows
    }

    /// Returns the number of a row.
    pub(super) fn intern(&mut self, row: &[u64]) -> u32 {
        let mut key = row.iter().fold(0, |key, word| hash::mix(key, *word));
        while let Some(number) = self.numbers.get(&key) {
            if self.get(*number) == row {
                return *number;
            }
            key = key.wrapping_add(1);
        }
        let number = self.numbers.len() as u32;
        self.rows.extend_from_slice(row);
        self.numbers.insert(key, number);
        number
    }

    pub(super) fn get(&self, number: u32) -> &[u64] {
        let from = number as usize * self.words;
        self.rows.get(from..from + self.words).unwrap_or_default()
    }

    /// Returns the number of the union of two rows.
    pub(super) fn union(&mut self, a: u32, b: u32) -> u32 {
        if a == b || b == Self::EMPTY {
            return a;
        }
        if a == Self::EMPTY {
            return b;
        }
        if (a, b) == (self.last_union.0, self.last_union.1) {
            return self.last_union.2;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(self.get(a));
        or_into(&mut buffer, self.get(b));
        let union = self.intern(&buffer);
        self.buffer = buffer;
        self.last_union = (a, b, union);
        union
    }

    /// Calls `use_sets` with the alternatives that have a list in a row, and those that have a list outside of it.
    pub(super) fn with_sets<T>(
        &mut self,
        number: u32,
        requirements: &[BulkRequirement],
        steps: &mut u64,
        use_sets: impl FnOnce(&[u64], &[u64]) -> T,
    ) -> T {
        let at = number as usize;
        if let Some(Some(sets)) = self.sets.get(at) {
            let [inside, outside] = &**sets;
            return use_sets(inside, outside);
        }
        let mut sets = [vec![0; self.set_words], vec![0; self.set_words]];
        *steps += self.requirements.len() as u64;
        for (requirement, position) in self.requirements.iter().zip(0..) {
            let Some(requirement) = requirements.get(*requirement as usize) else { continue };
            let [inside, outside] = &mut sets;
            or_into(if bit(self.get(number), position) { inside } else { outside }, &requirement.alternatives);
        }
        let [inside, outside] = &sets;
        let result = use_sets(inside, outside);
        if at < CACHED_MAX {
            if self.sets.len() <= at {
                self.sets.resize_with(at + 1, || None);
            }
            if let Some(slot) = self.sets.get_mut(at) {
                *slot = Some(Box::new(sets));
            }
        }
        result
    }
}
