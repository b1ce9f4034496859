//! The readings of a subject (a watched thing): the average of each minute, in blocks of one hour.
//!
//! # Format
//! Each block is one mark (a value in the store). Its scope (namespace) is the source's URI and `#readings`. Its key is
//! `SUBJECT@HOUR`, with the number of hours since the Unix epoch. Its value is 60 numbers, one for each minute, as
//! 32-bit floats in little-endian order; NaN for a minute without a reading.

use std::collections::{BTreeMap, BTreeSet};

/// The number of minutes in a block.
const MINUTES: i64 = 60;
const MINUTE_MS: i64 = 60_000;

type Block = [f32; MINUTES as usize];

/// The averages of the last two hours, and the hours whose blocks must be written or removed.
#[derive(Debug, Default)]
pub(super) struct Minutes {
    /// The newest two blocks, by hour.
    blocks: BTreeMap<i64, Box<Block>>,
    /// The current minute: its number since the Unix epoch, the sum of its readings, and the number of its readings.
    current: Option<(i64, f64, u32)>,
    /// Hours whose blocks changed since they were stored.
    changed: BTreeSet<i64>,
    /// Hours whose blocks must be removed from the store.
    expired: BTreeSet<i64>,
    /// All hours whose blocks are in the store.
    stored: BTreeSet<i64>,
}

/// An hour with its block to write; with `None`, the block must be removed from the store.
pub(super) type Write = (i64, Option<Vec<u8>>);

impl Minutes {
    /// Adds a reading to the average of its minute. Ignores a value that is not a finite number.
    pub(super) fn add(&mut self, wall_ms: i64, value: f64) {
        if !value.is_finite() {
            return;
        }
        let minute = wall_ms.div_euclid(MINUTE_MS);
        let (sum, count) = match self.current {
            Some((current, sum, count)) if current == minute => (sum + value, count + 1),
            _ => (value, 1),
        };
        self.current = Some((minute, sum, count));
        let (hour, at) = (minute.div_euclid(MINUTES), minute.rem_euclid(MINUTES));
        let block = self.blocks.entry(hour).or_insert_with(|| Box::new([f32::NAN; MINUTES as usize]));
        if let Some(slot) = usize::try_from(at).ok().and_then(|at| block.get_mut(at)) {
            *slot = (sum / f64::from(count)) as f32;
        }
        self.changed.insert(hour);
        while self.blocks.len() > 2 {
            // If the clock was set back, the block with the lowest hour can be the one with the newest reading.
            let oldest = self.blocks.keys().next().copied().unwrap_or_default();
            if self.changed.contains(&oldest) && oldest != hour {
                // This block is lost: storing it has failed for a long time, for example because the disk is full.
                self.changed.remove(&oldest);
            }
            self.blocks.remove(&oldest);
        }
    }

    /// Adds a block from the store. Returns the times of its minutes (milliseconds since the Unix epoch) with their
    /// averages; `None` if the block is damaged.
    pub(super) fn restore(&mut self, hour: i64, bytes: &[u8]) -> Option<Vec<(i64, f32)>> {
        let block = decode(bytes)?;
        self.stored.insert(hour);
        self.blocks.insert(hour, Box::new(block));
        while self.blocks.len() > 2 {
            self.blocks.pop_first();
        }
        let minutes = block.into_iter().zip(hour * MINUTES..);
        Some(minutes.filter(|(value, _)| !value.is_nan()).map(|(value, minute)| (minute * MINUTE_MS, value)).collect())
    }

    /// Returns the changed blocks to write, and the blocks older than `keep_hours` to remove. These blocks then count
    /// as written or removed. If the commit fails, the caller must call [`Self::put_back`].
    pub(super) fn take_writes(&mut self, wall_ms: i64, keep_hours: i64) -> Vec<Write> {
        let first = wall_ms.div_euclid(MINUTE_MS * MINUTES) - keep_hours;
        self.expired.extend(self.stored.iter().filter(|hour| **hour < first));
        self.stored.retain(|hour| *hour >= first);
        let changed = std::mem::take(&mut self.changed);
        let expired = std::mem::take(&mut self.expired);
        self.stored.extend(&changed);
        let written = changed.iter().filter_map(|hour| Some((*hour, Some(encode(self.blocks.get(hour)?)))));
        written.chain(expired.iter().map(|hour| (*hour, None))).collect()
    }

    /// Undoes [`Self::take_writes`], because the blocks could not be stored.
    pub(super) fn put_back(&mut self, writes: &[Write]) {
        for (hour, block) in writes {
            match block {
                Some(_) if self.blocks.contains_key(hour) => _ = self.changed.insert(*hour),
                Some(_) => {}
                None => _ = self.expired.insert(*hour),
            }
        }
    }

    /// Returns all hours whose blocks are in the store.
    pub(super) fn all_stored(&self) -> impl Iterator<Item = i64> + '_ {
        self.stored.iter().copied()
    }

    /// Returns the averages of the last 60 minutes, oldest first; `None` for a minute without a reading.
    pub(super) fn last_hour(&self, wall_ms: i64) -> Vec<Option<f32>> {
        let last = wall_ms.div_euclid(MINUTE_MS);
        let at = |minute: i64| {
            let block = self.blocks.get(&minute.div_euclid(MINUTES))?;
            let value = block.get(usize::try_from(minute.rem_euclid(MINUTES)).ok()?)?;
            (!value.is_nan()).then_some(*value)
        };
        (last - MINUTES + 1..=last).map(at).collect()
    }
}

fn encode(block: &Block) -> Vec<u8> {
    block.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn decode(bytes: &[u8]) -> Option<Block> {
    let mut block = [f32::NAN; MINUTES as usize];
    if bytes.len() != block.len() * 4 {
        return None;
    }
    for (slot, bytes) in block.iter_mut().zip(bytes.chunks_exact(4)) {
        *slot = f32::from_le_bytes(bytes.try_into().ok()?);
    }
    Some(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = MINUTES * MINUTE_MS;

    #[test]
    fn the_last_hour_has_the_average_of_each_minute() {
        let mut minutes = Minutes::default();
        for (second, value) in [(0, 1.0), (30, 3.0), (60, 10.0), (240, 20.0)] {
            minutes.add(HOUR_MS + second * 1_000, value);
        }
        let hour = minutes.last_hour(HOUR_MS + 240_000);
        assert_eq!(hour[55..], [Some(2.0), Some(10.0), None, None, Some(20.0)]);
        assert_eq!(hour.len(), 60);
    }

    #[test]
    fn blocks_are_written_when_they_changed_and_removed_when_they_are_old() {
        let mut minutes = Minutes::default();
        minutes.add(0, 5.0);
        let writes = minutes.take_writes(0, 2);
        assert_eq!(writes.len(), 1);
        assert_eq!(minutes.take_writes(0, 2), []);
        minutes.put_back(&writes);
        assert_eq!(minutes.take_writes(0, 2).len(), 1);
        let mut restored = Minutes::default();
        let old = restored.restore(writes[0].0, writes[0].1.as_deref().unwrap()).unwrap();
        assert_eq!(old, [(0, 5.0)]);
        assert_eq!(restored.last_hour(0).last(), Some(&Some(5.0)));
        assert_eq!(restored.take_writes(3 * HOUR_MS, 2), [(0, None)]);
        assert_eq!(restored.restore(1, b"short"), None);
    }

    #[test]
    fn memory_is_that_of_two_hours() {
        let mut minutes = Minutes::default();
        for hour in 0..100 {
            minutes.add(hour * HOUR_MS, 1.0);
            minutes.take_writes(hour * HOUR_MS, 24);
        }
        assert!(minutes.blocks.len() <= 2 && minutes.stored.len() <= 26 && minutes.changed.is_empty());
    }
}
