//! Detects flapping: a watched thing whose state changes too often, such as a host that responds only to every second
//! request.

use std::collections::VecDeque;

/// The rule for when a thing is flapping, that is, changes its state too often. While a thing is flapping, its changes
/// are not reported; only the start and the end of flapping are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flap {
    /// Flapping starts with this number of changes within the time window. The number must be at least 2. Flapping ends
    /// when at most half of this number of changes are left in the window.
    pub changes: u32,
    /// The length of the time window, in milliseconds.
    pub within_ms: i64,
}

/// The state changes of one thing within the time window of a [`Flap`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// The times of the changes on the monotonic clock, in milliseconds; at most [`Flap::changes`] times.
    at_ms: VecDeque<i64>,
    pub(crate) is_flapping: bool,
}

impl Changes {
    pub(crate) fn restore(at_ms: Vec<i64>, is_flapping: bool) -> Self {
        Self { at_ms: at_ms.into(), is_flapping }
    }

    pub(crate) fn times(&self) -> impl Iterator<Item = i64> + '_ {
        self.at_ms.iter().copied()
    }

    /// Counts a change. Returns true if the thing starts flapping with this change.
    pub(crate) fn add(&mut self, flap: &Flap, now_ms: i64) -> bool {
        self.at_ms.push_back(now_ms);
        self.forget(flap, now_ms);
        let starts = !self.is_flapping && self.at_ms.len() >= flap.changes as usize;
        self.is_flapping |= starts;
        starts
    }

    /// Returns true if the thing stops flapping now.
    pub(crate) fn settle(&mut self, flap: &Flap, now_ms: i64) -> bool {
        self.forget(flap, now_ms);
        let stops = self.is_flapping && self.at_ms.len() <= flap.changes as usize / 2;
        self.is_flapping &= !stops;
        stops
    }

    fn forget(&mut self, flap: &Flap, now_ms: i64) {
        while self.at_ms.front().is_some_and(|at| now_ms - at >= flap.within_ms)
            || self.at_ms.len() > flap.changes as usize
        {
            self.at_ms.pop_front();
        }
    }
}
