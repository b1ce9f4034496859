//! The rows of one field. A row is a set of the field's lists of conditions, stored as one bit for each list. Equal
//! rows are stored once; each row has a number.

use super::{BulkRequirement, bit, or_into, words_for};
use crate::hash::{self, HashedMap};

/// The maximum total length, in words, of the [`Sets`] that [`Rows`] caches. The sets of the first rows are computed
/// once and cached. The sets of later rows are computed at each use.
const CACHED_WORDS_MAX: usize = 1 << 21;

/// The sets of alternatives that result from a row of a field.
pub(super) struct Sets {
    /// The alternatives with a list in the row.
    pub(super) met: Vec<u64>,
    /// The alternatives with a list that is not in the row.
    pub(super) unmet: Vec<u64>,
    /// The alternatives with a list that is not in the row and needs a value.
    pub(super) unmet_needed: Vec<u64>,
}

/// The rows of one field (sets of lists of conditions), and for each row the sets of alternatives that follow from it.
pub(super) struct Rows<'a> {
    /// The requirement of each bit, as an index into `Bulk::requirements`.
    requirements: &'a [u32],
    /// The length of a row in words.
    words: usize,
    /// The length of a set of alternatives in words.
    set_words: usize,
    rows: Vec<u64>,
    /// The number of each row, by the row's hash. After a collision, the next key (hash + 1) is used.
    numbers: HashedMap<u32>,
    sets: Vec<Option<Box<Sets>>>,
    /// The row that was interned last.
    last: u32,
    buffer: Vec<u64>,
}

impl<'a> Rows<'a> {
    /// The number of the row in which no bit is set.
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
            last: Self::EMPTY,
            buffer: Vec::new(),
        };
        rows.intern(&vec![0; words]);
        rows
    }

    /// Stores a row, unless it is stored already, and returns its number.
    pub(super) fn intern(&mut self, row: &[u64]) -> u32 {
        if !self.numbers.is_empty() && self.get(self.last) == row {
            return self.last;
        }
        self.last = self.number_of(row);
        self.last
    }

    fn number_of(&mut self, row: &[u64]) -> u32 {
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

    /// The length of a row in words.
    pub(super) fn words(&self) -> usize {
        self.words
    }

    /// Returns the number of the row that is the union of the given rows. Stores only this row, no intermediate unions.
    pub(super) fn union(&mut self, numbers: impl Iterator<Item = u32>) -> u32 {
        let mut numbers = numbers.filter(|number| *number != Self::EMPTY);
        let Some(first) = numbers.next() else { return Self::EMPTY };
        let mut last = first;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        for number in numbers {
            if number == last {
                continue;
            }
            if buffer.is_empty() {
                buffer.extend_from_slice(self.get(first));
            }
            or_into(&mut buffer, self.get(number));
            last = number;
        }
        let union = if buffer.is_empty() { first } else { self.intern(&buffer) };
        self.buffer = buffer;
        union
    }

    /// Calls `use_sets` with the sets of row `number`.
    pub(super) fn with_sets<T>(
        &mut self,
        number: u32,
        requirements: &[BulkRequirement],
        steps: &mut u64,
        use_sets: impl FnOnce(&Sets) -> T,
    ) -> T {
        let at = number as usize;
        *steps += self.set_words as u64;
        if let Some(Some(sets)) = self.sets.get(at) {
            return use_sets(sets);
        }
        let empty = || vec![0; self.set_words];
        let mut sets = Sets { met: empty(), unmet: empty(), unmet_needed: empty() };
        for (requirement, position) in self.requirements.iter().zip(0..) {
            let Some(requirement) = requirements.get(*requirement as usize) else { continue };
            *steps += 1 + requirement.used.len() as u64;
            if bit(self.get(number), position) {
                or_words(&mut sets.met, &requirement.used);
            } else {
                or_words(&mut sets.unmet, &requirement.used);
                if !requirement.may_be_absent {
                    or_words(&mut sets.unmet_needed, &requirement.used);
                }
            }
        }
        let result = use_sets(&sets);
        if (at + 1) * 3 * self.set_words <= CACHED_WORDS_MAX {
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

/// Adds bits to a row. `words` are the words with these bits, each with its position in the row.
fn or_words(row: &mut [u64], words: &[(u32, u64)]) {
    for (at, bits) in words {
        if let Some(word) = row.get_mut(*at as usize) {
            *word |= bits;
        }
    }
}
