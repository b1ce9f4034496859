//! Caches the results of looking up short values: for each field and value, the number that `rows.rs` gave the row of
//! the value. A large event has many values only if they are short, and then most of them repeat. Longer values are
//! fewer, so they are not cached.

use crate::hash;

const SLOTS: usize = 4096;
/// Longer values are not cached.
const BYTES_MAX: usize = 7;

/// A cache of row numbers, by field and short value, for all fields of a pattern. A new value overwrites the previous
/// value in its slot.
pub(super) struct RowCache(Box<[Slot]>);

#[derive(Clone, Copy, PartialEq)]
struct Slot {
    key: u64,
    /// Twice the number of the field, plus 1 if the value is a string; `u64::MAX` for a slot without a row.
    field: u64,
    row: u32,
}

impl Default for RowCache {
    fn default() -> Self {
        Self(vec![Slot { key: 0, field: u64::MAX, row: 0 }; SLOTS].into())
    }
}

impl RowCache {
    /// The key of a value's text; `None` for a long text.
    pub(super) fn key(text: &str) -> Option<u64> {
        let start = text.len() as u64;
        (text.len() <= BYTES_MAX).then(|| text.bytes().fold(start, |key, byte| key << 8 | u64::from(byte)))
    }

    fn slot(field: u64, key: u64) -> usize {
        hash::mix(key, field) as usize % SLOTS
    }

    /// The number of the cached row for a value of `field` whose text has this key.
    pub(super) fn get(&self, field: u32, is_text: bool, key: Option<u64>) -> Option<u32> {
        let (key, field) = (key?, u64::from(field) << 1 | u64::from(is_text));
        let slot = self.0.get(Self::slot(field, key))?;
        (slot.key == key && slot.field == field).then_some(slot.row)
    }

    pub(super) fn insert(&mut self, field: u32, is_text: bool, key: Option<u64>, row: u32) {
        let (Some(key), field) = (key, u64::from(field) << 1 | u64::from(is_text)) else { return };
        if let Some(slot) = self.0.get_mut(Self::slot(field, key)) {
            *slot = Slot { key, field, row };
        }
    }
}
