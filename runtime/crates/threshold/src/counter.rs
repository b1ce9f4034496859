//! Rates and differences of counters.

/// The value to compute from two successive readings of a counter that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Per {
    /// The difference between the two readings.
    Reading,
    /// A rate: the growth of the counter per this number of milliseconds.
    Millis(i64),
}

/// Turns the readings of a counter into differences or rates.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counter {
    last: Option<(i64, f64)>,
}

impl Counter {
    /// Returns the difference or rate since the previous reading. Returns `None` for the first reading, for a reading
    /// that is not later than the previous reading, and for a count that is less than the previous count, because then
    /// the counter was reset. `at_ms` is a time on a monotonic clock.
    pub fn observe(&mut self, at_ms: i64, count: f64, per: Per) -> Option<f64> {
        let (before_ms, before) = match self.last {
            Some((at, _)) if at >= at_ms => return None,
            last => {
                self.last = Some((at_ms, count));
                last?
            }
        };
        if count < before {
            return None;
        }
        Some(match per {
            Per::Reading => count - before,
            Per::Millis(unit) => (count - before) * unit as f64 / (at_ms - before_ms) as f64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_becomes_a_rate_or_a_difference() {
        let mut counter = Counter::default();
        assert_eq!(counter.observe(0, 100.0, Per::Millis(1_000)), None);
        assert_eq!(counter.observe(2_000, 110.0, Per::Millis(1_000)), Some(5.0));
        assert_eq!(counter.observe(4_000, 111.0, Per::Reading), Some(1.0));
        assert_eq!(counter.observe(4_000, 112.0, Per::Reading), None);
        assert_eq!(counter.observe(64_000, 171.0, Per::Millis(60_000)), Some(60.0));
    }

    #[test]
    fn a_counter_that_starts_again_has_no_rate_once() {
        let mut counter = Counter::default();
        counter.observe(0, 100.0, Per::Millis(1_000));
        assert_eq!(counter.observe(1_000, 3.0, Per::Millis(1_000)), None);
        assert_eq!(counter.observe(2_000, 5.0, Per::Millis(1_000)), Some(2.0));
    }
}
