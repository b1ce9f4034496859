//! The free disk space: when it is low, and when it has recovered.

use serde_json::{Value, json};

/// The space of a disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// The free bytes that this process may use.
    pub free: u64,
    /// The size of the disk in bytes.
    pub total: u64,
}

/// The disk counts as low when less space than a limit is free. The default limit is the size of the disk divided by
/// this number, at most [`LOW_MAX`].
const LOW_DIVISOR: u64 = 20;
/// The largest default limit, in bytes. If 100 MB are written per second, ten seconds are left until the disk is full.
const LOW_MAX: u64 = 1 << 30;

impl DiskSpace {
    /// Returns the default limit of free space, in bytes.
    pub fn default_low_bytes(self) -> u64 {
        (self.total / LOW_DIVISOR).min(LOW_MAX)
    }

    /// Returns true if the free space is low: below `low` bytes. If `was_low` is true, the free space stays low until
    /// it is a quarter above `low`, so that the state does not alternate.
    pub fn is_low(self, low: u64, was_low: bool) -> bool {
        self.free < if was_low { low.saturating_add(low / 4) } else { low }
    }

    /// Returns the fields of the runtime event: `free_bytes`, `total_bytes` and `low_bytes`.
    pub fn to_json(self, low: u64) -> Value {
        json!({ "free_bytes": self.free, "total_bytes": self.total, "low_bytes": low })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_low_from_below_its_limit_until_a_quarter_more_is_free() {
        let low = |free, was_low| DiskSpace { free, total: 10_000 }.is_low(1_000, was_low);
        assert!(!low(1_000, false));
        assert!(low(999, false));
        assert!(low(1_249, true));
        assert!(!low(1_250, true));
    }

    #[test]
    fn the_default_limit_is_a_twentieth_of_the_disk_and_at_most_a_gibibyte() {
        assert_eq!(DiskSpace { free: 0, total: 2_000_000 }.default_low_bytes(), 100_000);
        assert_eq!(DiskSpace { free: 0, total: 1 << 42 }.default_low_bytes(), 1 << 30);
    }
}
