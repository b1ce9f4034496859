//! Computes store time from elapsed time, and records how far the wall clock differs from store time after each jump.

use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use super::{DOWNTIME_MAX_MS, UnixMs};

/// The wall clock has jumped if its offset from store time has changed by at least this many milliseconds. Several
/// smaller corrections by a time service count as a jump when they add up to this size.
const JUMP_MIN_MS: i64 = 1_000;

/// The maximum number of recorded jumps, to bound the size of a [`Record`]. When there are more, the oldest one is
/// removed. A time from before the oldest recorded jump is shown as store time, which can differ from the wall clock of
/// that time.
const OFFSETS_MAX: usize = 256;

/// The record from which a later process continues the store time of this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The store time at which the record was made.
    pub store_ms: UnixMs,
    /// The wall clock at this store time.
    pub wall_ms: UnixMs,
    /// The time from the boot of the system to this store time, in milliseconds.
    pub elapsed_ms: i64,
    /// Identifies the boot; empty if unknown.
    pub boot: String,
    /// The jumps of the wall clock, oldest first.
    pub offsets: Vec<Offset>,
}

/// The offset of the wall clock from store time between two jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// The first store time with this offset.
    pub since_ms: UnixMs,
    /// Wall clock minus store time.
    pub offset_ms: i64,
}

#[derive(Debug)]
pub(super) struct Line(RwLock<State>);

#[derive(Debug)]
struct State {
    /// The store time at which the clock was started or resumed. `elapsed_ms` is the elapsed time at that moment.
    store_ms: UnixMs,
    elapsed_ms: i64,
    offsets: Vec<Offset>,
}

impl Line {
    pub(super) fn new() -> Self {
        Self(RwLock::new(State { store_ms: 0, elapsed_ms: 0, offsets: Vec::new() }))
    }

    /// Starts with the wall clock as the store time.
    pub(super) fn start(&self, wall_ms: UnixMs, elapsed_ms: i64) {
        let mut state = self.write();
        (state.store_ms, state.elapsed_ms) = (wall_ms, elapsed_ms);
    }

    pub(super) fn at(&self, elapsed_ms: i64) -> UnixMs {
        self.read(|state| state.at(elapsed_ms))
    }

    pub(super) fn to_wall(&self, store_ms: UnixMs) -> UnixMs {
        self.read(|state| store_ms.saturating_add(state.offset_at(store_ms)))
    }

    pub(super) fn to_store(&self, wall_ms: UnixMs) -> UnixMs {
        self.read(|state| {
            let mut offset = Offset { since_ms: UnixMs::MIN, offset_ms: 0 };
            for next in &state.offsets {
                let found = wall_ms.saturating_sub(offset.offset_ms).max(offset.since_ms);
                if found < next.since_ms {
                    return found;
                }
                offset = *next;
            }
            wall_ms.saturating_sub(offset.offset_ms).max(offset.since_ms)
        })
    }

    pub(super) fn resume(&self, last: Option<Record>, boot: &str, newest_ms: UnixMs, wall_ms: UnixMs, elapsed_ms: i64) {
        let mut state = self.write();
        state.elapsed_ms = elapsed_ms;
        let Some(last) = last else {
            // The store is new, or its last writer was a version of Evoke that had only the wall clock.
            state.store_ms = wall_ms.max(newest_ms);
            return;
        };
        let passed_ms = if !boot.is_empty() && last.boot == boot {
            elapsed_ms.saturating_sub(last.elapsed_ms).max(0)
        } else {
            let passed_ms = wall_ms.saturating_sub(last.wall_ms);
            if (0..=DOWNTIME_MAX_MS).contains(&passed_ms) { passed_ms } else { 0 }
        };
        state.store_ms = last.store_ms.saturating_add(passed_ms).max(newest_ms);
        state.offsets = last.offsets;
    }

    pub(super) fn find_jump(&self, wall_ms: UnixMs, elapsed_ms: i64) -> Option<i64> {
        let jump_from = |state: &State| {
            let store_ms = state.at(elapsed_ms);
            let offset = Offset { since_ms: store_ms, offset_ms: wall_ms.saturating_sub(store_ms) };
            let jump_ms = offset.offset_ms.saturating_sub(state.offset_at(store_ms));
            (jump_ms.saturating_abs() >= JUMP_MIN_MS).then_some((offset, jump_ms))
        };
        self.read(jump_from)?;
        let mut state = self.write();
        let (offset, jump_ms) = jump_from(&state)?;
        // Two jumps can have the same store time. Then only the later jump stays in the list.
        state.offsets.retain(|earlier| earlier.since_ms < offset.since_ms);
        if state.offsets.len() >= OFFSETS_MAX {
            state.offsets.remove(0);
        }
        state.offsets.push(offset);
        Some(jump_ms)
    }

    pub(super) fn record(&self, boot: &str, wall_ms: UnixMs, elapsed_ms: i64) -> Record {
        self.read(|state| Record {
            store_ms: state.at(elapsed_ms),
            wall_ms,
            elapsed_ms,
            boot: boot.to_owned(),
            offsets: state.offsets.clone(),
        })
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn at(&self, elapsed_ms: i64) -> UnixMs {
        self.store_ms.saturating_add(elapsed_ms.saturating_sub(self.elapsed_ms))
    }

    fn offset_at(&self, store_ms: UnixMs) -> i64 {
        let later = self.offsets.partition_point(|offset| offset.since_ms <= store_ms);
        later.checked_sub(1).and_then(|at| self.offsets.get(at)).map_or(0, |offset| offset.offset_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Line {
        fn starting_at(wall_ms: UnixMs, elapsed_ms: i64) -> Self {
            let line = Self::new();
            line.start(wall_ms, elapsed_ms);
            line
        }
    }

    const HOUR: i64 = 3_600_000;
    const YEAR: i64 = 365 * 24 * HOUR;
    /// A wall clock of 2026.
    const NOW: UnixMs = 56 * YEAR;

    /// Resumes from a record that was made at `NOW` in "boot 1", and returns the store time after that. `boot`, `wall`
    /// and `elapsed` are the boot, the wall clock and the elapsed time of the later process. `newest` is the newest
    /// time in the store.
    fn resumed(boot: &str, wall: UnixMs, elapsed: i64, newest: UnixMs) -> UnixMs {
        let record = Line::starting_at(NOW, 500).record("boot 1", NOW, 500);
        let line = Line::starting_at(wall, elapsed);
        line.resume(Some(record), boot, newest, wall, elapsed);
        line.at(elapsed)
    }

    #[test]
    fn store_time_advances_with_elapsed_time_whatever_the_wall_clock_shows() {
        let line = Line::starting_at(0, 100);
        assert_eq!(line.find_jump(17_000, 17_100), None);
        assert_eq!(line.find_jump(NOW, 17_100), Some(NOW - 17_000));
        assert_eq!(line.find_jump(NOW + 5, 17_105), None);
        assert_eq!(line.at(18_100), 18_000);
        assert_eq!(line.find_jump(NOW + 1_000 - HOUR, 18_100), Some(-HOUR));
        // Each store time, from before or after the jump, converts to the time that the wall clock showed then.
        assert_eq!(
            [10, 17_000, 17_500, 18_000, 18_500].map(|at| line.to_wall(at)),
            [10, NOW, NOW + 500, NOW + 1_000 - HOUR, NOW + 1_500 - HOUR]
        );
    }

    #[test]
    fn small_steps_count_when_they_add_up() {
        let line = Line::starting_at(NOW, 0);
        assert_eq!(line.find_jump(NOW + 400, 0), None);
        assert_eq!(line.find_jump(NOW + 800, 0), None);
        assert_eq!(line.find_jump(NOW + 1_200, 0), Some(1_200));
        assert_eq!(line.find_jump(NOW + 1_200, 0), None);
    }

    #[test]
    fn a_wall_clock_time_is_found_at_its_first_occurrence() {
        let line = Line::starting_at(NOW, 0);
        assert_eq!(line.to_store(NOW + 7), NOW + 7);
        line.find_jump(NOW + 2 * HOUR - HOUR, 2 * HOUR);
        // The wall clock was set back by an hour, so it shows the hour before the jump twice.
        assert_eq!(line.to_store(NOW + HOUR + 5), NOW + HOUR + 5);
        assert_eq!(line.to_store(NOW + 2 * HOUR + 5), NOW + 3 * HOUR + 5);
        let forward = Line::starting_at(NOW, 0);
        forward.find_jump(NOW + YEAR, HOUR);
        // The wall clock never showed this time. The result is the first moment at which it showed a later time.
        assert_eq!(forward.to_store(NOW + 5 * HOUR), NOW + HOUR);
    }

    #[test]
    fn a_restart_in_the_same_boot_knows_the_elapsed_time_exactly() {
        for wall in [0, NOW - YEAR, NOW - HOUR, NOW, NOW + YEAR, 100 * YEAR] {
            assert_eq!(resumed("boot 1", wall, 500 + HOUR, 0), NOW + HOUR, "{wall}");
        }
    }

    #[test]
    fn a_restart_after_another_boot_believes_a_plausible_wall_clock_only() {
        let after_boot = |wall| resumed("boot 2", wall, 10, 0) - NOW;
        assert_eq!([0, HOUR, 30 * 24 * HOUR].map(|passed| after_boot(NOW + passed)), [0, HOUR, 30 * 24 * HOUR]);
        // A wall clock that starts in 1970, one that was set back, and one that is a year ahead.
        assert_eq!([0, NOW - HOUR, NOW + YEAR].map(after_boot), [0, 0, 0]);
        assert_eq!(resumed("", NOW + HOUR, 10, 0), NOW + HOUR);
        // Store time never starts before the newest time in the store.
        assert_eq!(resumed("boot 2", NOW - HOUR, 10, NOW + 5), NOW + 5);
    }

    #[test]
    fn a_store_without_a_record_starts_with_the_wall_clock() {
        let line = Line::starting_at(NOW, 0);
        line.resume(None, "boot 1", NOW + HOUR, NOW, 0);
        assert_eq!(line.at(5), NOW + HOUR + 5);
        assert_eq!(line.find_jump(NOW, 0), Some(-HOUR));
        assert_eq!(line.to_wall(NOW + HOUR), NOW);
    }

    #[test]
    fn the_number_of_remembered_jumps_is_bounded() {
        let line = Line::starting_at(NOW, 0);
        for n in 1..=3 * OFFSETS_MAX as i64 {
            line.find_jump(NOW + n * HOUR, n).unwrap();
        }
        assert_eq!(line.record("", NOW, 0).offsets.len(), OFFSETS_MAX);
    }
}
