//! Detects things that change their state too often (flapping).

use std::collections::VecDeque;

/// The rule for when a thing is flapping. Flapping is reported once, instead of each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flap {
    /// The number of changes within the window at which flapping starts, at least 2. Flapping ends when half as many
    /// changes are left in the window.
    pub changes: u32,
    /// The window, in milliseconds.
    pub within_ms: i64,
}

/// The changes within the window of a [`Flap`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    /// Times on the monotonic clock, in milliseconds; at most [`Flap::changes`].
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
