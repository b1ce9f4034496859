//! When a disk has too little room, and when it has enough again.

use serde_json::{Value, json};

/// The room of a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// What is free for this process.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// The limit when none is given: one part in so many of the disk, and at most [`LOW_MAX`].
const LOW_PART: u64 = 20;
/// More than that is enough on any disk: at a hundred megabytes a second somebody has ten seconds.
const LOW_MAX: u64 = 1 << 30;

impl Room {
    /// What there should be, by default.
    pub fn low_by_default(self) -> u64 {
        (self.total / LOW_PART).min(LOW_MAX)
    }

    /// Whether it is too little. Once it was, there has to be a quarter more before it is enough.
    pub fn is_low(self, low: u64, was_low: bool) -> bool {
        self.free < if was_low { low.saturating_add(low / 4) } else { low }
    }

    /// In numbers.
    pub fn figures(self, low: u64) -> Value {
        json!({ "free_bytes": self.free, "total_bytes": self.total, "low_bytes": low })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_below_its_limit_until_a_quarter_more_is_free() {
        let low = |free, was_low| Room { free, total: 10_000 }.is_low(1_000, was_low);
        assert!(!low(1_000, false));
        assert!(low(999, false));
        assert!(low(1_249, true));
        assert!(!low(1_250, true));
    }

    #[test]
    fn by_default_a_twentieth_of_the_disk_is_to_be_free_and_at_most_a_gigabyte() {
        assert_eq!(Room { free: 0, total: 2_000_000 }.low_by_default(), 100_000);
        assert_eq!(Room { free: 0, total: 1 << 42 }.low_by_default(), 1 << 30);
    }
}
