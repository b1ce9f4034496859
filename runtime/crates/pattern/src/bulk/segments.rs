//! One binary search finds all intervals that contain a key.

use std::cmp::Ordering;
use std::ops::Range;

/// An interval of keys. A side without a bound is unlimited; the flag is true when the interval includes the bound.
pub(super) struct Interval<K> {
    pub(super) low: Option<(K, bool)>,
    pub(super) high: Option<(K, bool)>,
    /// The bit that the interval sets in the row of each key that it contains.
    pub(super) bit: u32,
    /// The number of the part to which the interval belongs. A bit can have several parts, and a part several
    /// intervals. The bit is set if, for each of its parts, at least one interval contains the key.
    pub(super) part: u32,
}

/// Intervals, cut at all their bounds into segments. `keys` are the bounds, in order. Segment `2 i + 1` is the bound
/// `i` alone; segment `2 i` has all keys between this bound and the previous one. Each segment has a row: the bits of
/// the intervals that contain the segment.
pub(super) struct Segments<K> {
    keys: Vec<K>,
    rows: Vec<u64>,
    /// The length of a row in words.
    words: usize,
}

impl<K: Ord + Clone> Segments<K> {
    /// `parts` returns the number of parts of a bit.
    pub(super) fn new(intervals: &[Interval<K>], words: usize, parts: impl Fn(u32) -> u32) -> Self {
        let bounds = intervals.iter().flat_map(|interval| [&interval.low, &interval.high]).flatten();
        let mut keys: Vec<K> = bounds.map(|(key, _)| key.clone()).collect();
        keys.sort_unstable();
        keys.dedup();
        let slots = if intervals.is_empty() { 0 } else { 2 * keys.len() + 1 };
        let position = |key: &K| keys.binary_search(key).unwrap_or(keys.len());
        // Two entries for each interval: the segment where the interval starts (`true`), and the first segment after
        // its end.
        let mut changes: Vec<(usize, bool, u32, u32)> = Vec::new();
        for interval in intervals {
            let first = interval.low.as_ref().map_or(0, |(key, closed)| 2 * position(key) + 2 - usize::from(*closed));
            let last =
                interval.high.as_ref().map_or(slots, |(key, closed)| 2 * position(key) + usize::from(*closed) + 1);
            changes.extend([(first, true, interval.bit, interval.part), (last, false, interval.bit, interval.part)]);
        }
        changes.sort_unstable_by_key(|(slot, ..)| *slot);
        // Each part belongs to one bit. `open` counts the intervals of each part that have started and not ended.
        // `open_parts` counts the parts of each bit that have at least one such interval.
        let part_count = intervals.iter().map(|interval| interval.part as usize + 1).max().unwrap_or(0);
        let (mut open, mut open_parts) = (vec![0_i32; part_count], vec![0_u32; words * 64]);
        let mut row = vec![0; words];
        let mut rows = Vec::with_capacity(slots * words);
        let mut changes = changes.into_iter().peekable();
        for slot in 0..slots {
            while let Some((_, starts, bit, part)) = changes.next_if(|(at, ..)| *at <= slot) {
                let (Some(count), Some(parts_open)) = (open.get_mut(part as usize), open_parts.get_mut(bit as usize))
                else {
                    continue;
                };
                let before = *count > 0;
                *count += if starts { 1 } else { -1 };
                match (before, *count > 0) {
                    (false, true) => *parts_open += 1,
                    (true, false) => *parts_open -= 1,
                    _ => {}
                }
                super::set_bit(&mut row, bit, *parts_open >= parts(bit).max(1));
            }
            rows.extend_from_slice(&row);
        }
        Self { keys, rows, words }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn keys(&self) -> &[K] {
        &self.keys
    }

    /// The row of a key; `compare` compares a bound with the key.
    pub(super) fn row(&self, compare: impl FnMut(&K) -> Ordering) -> &[u64] {
        self.row_within(0..self.keys.len(), compare)
    }

    /// The row of a key. The key must be above all bounds before `range` and below all bounds after `range`.
    pub(super) fn row_within(&self, range: Range<usize>, compare: impl FnMut(&K) -> Ordering) -> &[u64] {
        let first = range.start;
        let slot = match self.keys.get(range).unwrap_or_default().binary_search_by(compare) {
            Ok(at) => 2 * (first + at) + 1,
            Err(at) => 2 * (first + at),
        };
        self.rows.get(slot * self.words..(slot + 1) * self.words).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_bits_of_all_intervals_that_contain_the_key() {
        let bound = |key: i32, closed| Some((key, closed));
        let intervals = [
            Interval { low: bound(1, true), high: bound(5, true), bit: 0, part: 0 },
            Interval { low: bound(1, false), high: bound(5, false), bit: 1, part: 1 },
            Interval { low: None, high: bound(3, false), bit: 2, part: 2 },
            Interval { low: bound(3, true), high: None, bit: 3, part: 3 },
            Interval { low: bound(4, true), high: bound(4, true), bit: 4, part: 4 },
            Interval { low: None, high: None, bit: 5, part: 5 },
            Interval { low: bound(2, true), high: bound(4, true), bit: 0, part: 0 },
        ];
        let segments = Segments::new(&intervals, 1, |_| 1);
        for key in -1..8 {
            let contains = |interval: &Interval<i32>| {
                let above = interval.low.is_none_or(|(low, closed)| key > low || (closed && key == low));
                above && interval.high.is_none_or(|(high, closed)| key < high || (closed && key == high))
            };
            let expected = intervals.iter().filter(|i| contains(i)).fold(0, |row, i| row | 1_u64 << i.bit);
            assert_eq!(segments.row(|bound| bound.cmp(&key)), [expected], "{key}");
        }
    }

    #[test]
    fn a_bit_with_parts_needs_an_interval_of_each_part() {
        let interval =
            |low: i32, high: i32, part| Interval { low: Some((low, true)), high: Some((high, false)), bit: 0, part };
        let intervals = [interval(0, 5, 0), interval(1, 3, 0), interval(4, 8, 1), interval(7, 9, 0)];
        let segments = Segments::new(&intervals, 1, |_| 2);
        for key in -1..10 {
            assert_eq!(segments.row(|bound| bound.cmp(&key)), [u64::from(key == 4 || key == 7)], "{key}");
        }
    }
}
