//! The record of the instants that had their ticks. With it, a timer does not repeat ticks after the clock is set back.

use serde::{Deserialize, Serialize};

use super::schedule::{Tick, Times};
use evoke_model::clock::UnixMs;

/// Maximum number of spans in [`Ticked`]; the oldest spans are dropped first. A new span begins after an instant
/// without a tick: at most once per start of Evoke, per jump of the clock and per skipped tick. If a timer repeats a
/// tick of a dropped span, the bus still drops the duplicate within its dedup window.
const SPANS_MAX: usize = 16;

/// Instants that had their ticks, as spans. A span is a first and a last instant. Every instant of the schedule from
/// the first to the last, both included, had its tick.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticked(Vec<(UnixMs, UnixMs)>);

impl Ticked {
    /// Adds ticks as one span. The schedule must have no other instants between them.
    pub(super) fn add(&mut self, times: &Times, ticks: &[Tick]) {
        let (Some(first), Some(last)) = (ticks.first(), ticks.last()) else { return };
        self.0.push((first.scheduled, last.scheduled));
        self.0.sort_unstable();
        let mut joined: Vec<(UnixMs, UnixMs)> = Vec::new();
        for (from, to) in self.0.drain(..) {
            match joined.last_mut() {
                Some(before) if from <= before.1 || times.after(before.1).is_some_and(|next| from <= next) => {
                    before.1 = before.1.max(to);
                }
                _ => joined.push((from, to)),
            }
        }
        // Each instant of a list can need a span of its own: the user can change the list, and then an instant without
        // a tick can be between any two instants with ticks.
        let spans_max = if let Times::At { at } = times { at.len().max(SPANS_MAX) } else { SPANS_MAX };
        let excess = joined.len().saturating_sub(spans_max);
        self.0 = joined.split_off(excess);
    }

    /// Returns the newest instant that had its tick.
    pub(super) fn newest(&self) -> Option<UnixMs> {
        self.0.iter().map(|(_, to)| *to).max()
    }

    /// Returns the newest `limit` instants that had their ticks, in order.
    pub(super) fn newest_of(&self, times: &Times, limit: usize) -> Vec<UnixMs> {
        let mut found: Vec<UnixMs> = Vec::new();
        for (from, to) in self.0.iter().rev() {
            let missing = limit.saturating_sub(found.len());
            if missing == 0 {
                break;
            }
            let mut of_span = times.newest(from.saturating_sub(1), *to, missing);
            of_span.append(&mut found);
            found = of_span;
        }
        found
    }

    pub(super) fn contains(&self, at: UnixMs) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&at))
    }

    /// Returns the time from which the timer continues after the clock was set back to `wall`. If `wall` is within a
    /// span or before all spans, this is `wall`. Otherwise it is the end of the last span before `wall`.
    pub(super) fn processed_at(&self, wall: UnixMs) -> UnixMs {
        self.0.iter().filter(|(from, _)| *from <= wall).map(|(_, to)| *to.min(&wall)).max().unwrap_or(wall)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::Schedule;
    use super::*;

    fn ticked(spans: &[(i64, i64)]) -> Ticked {
        let times = Times::new(&Schedule::Every { every: std::time::Duration::from_millis(10) }).unwrap();
        let mut ticked = Ticked::default();
        for (from, to) in spans {
            let tick = |scheduled| Tick { scheduled, missed: false };
            ticked.add(&times, &[tick(*from), tick(*to)]);
        }
        ticked
    }

    #[test]
    fn ticks_that_follow_each_other_are_one_span() {
        assert_eq!(ticked(&[(10, 10), (20, 40), (50, 50)]).0, [(10, 50)]);
        assert_eq!(ticked(&[(100, 120), (10, 20), (40, 50), (30, 30)]).0, [(10, 50), (100, 120)]);
        let many: Vec<_> = (0..100).map(|n| (n * 100, n * 100)).collect();
        assert_eq!(ticked(&many).0, many[100 - SPANS_MAX..]);
    }

    #[test]
    fn a_clock_that_was_set_back_continues_after_the_last_tick_before_it() {
        let ticked = ticked(&[(10, 50), (100, 120)]);
        assert_eq!([5, 30, 70, 110, 130].map(|wall| ticked.processed_at(wall)), [5, 30, 50, 110, 120]);
        assert!(ticked.contains(20) && !ticked.contains(60));
    }
}
