//! The run queue: which function runs next. Live deliveries run before replays. Plain data, no I/O.

use std::collections::BTreeSet;

use evoke_model::{FunctionId, Stream};

/// When both live and replayed deliveries wait, one replayed delivery runs after this many live ones. So replays make
/// progress, and live deliveries are hardly delayed.
const LIVE_PER_REPLAY: u32 = 32;

/// The sort key of a lane in the queue. A lane holds the waiting deliveries of one function, either live or replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// True if a delivery of the function runs.
    pub(super) is_running: bool,
    /// The number of the last start of a delivery of the function. The starts of all functions are numbered together.
    pub(super) last_start: u64,
}

/// The lanes that have a ready delivery and may run a further delivery. The next lane is that of the function that has
/// started no delivery for the longest time. So busy functions alternate, and a function that had no work before does
/// not wait for all busy functions.
#[derive(Default)]
pub(super) struct RunQueue {
    live: Lanes,
    replay: Lanes,
    live_since_replay: u32,
}

/// The lanes of one stream, by the last start of their function.
#[derive(Default)]
struct Lanes {
    of_idle: BTreeSet<(u64, FunctionId)>,
    of_running: BTreeSet<(u64, FunctionId)>,
}

/// The lanes that may run now. The live lane of a function without a running delivery is always allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed {
    /// True if the lanes of functions with a running delivery may run.
    pub(super) running: bool,
    /// True if replay lanes may run.
    pub(super) replays: bool,
}

impl Lanes {
    fn set(&mut self, place: Place) -> &mut BTreeSet<(u64, FunctionId)> {
        if place.is_running { &mut self.of_running } else { &mut self.of_idle }
    }

    /// Returns the next function and the place of its lane.
    fn first(&self, allowed: Allowed) -> Option<(Place, FunctionId)> {
        let first = |set: &BTreeSet<_>| set.first().copied();
        let running = if allowed.running { first(&self.of_running) } else { None };
        let is_running = match (running, first(&self.of_idle)) {
            (Some(running), Some(idle)) => running < idle,
            (running, _) => running.is_some(),
        };
        let (last_start, id) = if is_running { running? } else { first(&self.of_idle)? };
        Some((Place { is_running, last_start }, id))
    }
}

impl RunQueue {
    fn lanes(&mut self, stream: Stream) -> &mut Lanes {
        match stream {
            Stream::Live => &mut self.live,
            Stream::Replay => &mut self.replay,
        }
    }

    pub(super) fn push(&mut self, id: FunctionId, stream: Stream, place: Place) {
        self.lanes(stream).set(place).insert((place.last_start, id));
    }

    pub(super) fn remove(&mut self, id: FunctionId, stream: Stream, place: Place) {
        self.lanes(stream).set(place).remove(&(place.last_start, id));
    }

    /// Returns the next lane, which stays in the queue. If the caller then runs a delivery of the lane, it must call
    /// [`RunQueue::record_run`].
    pub(super) fn next(&self, allowed: Allowed) -> Option<(FunctionId, Stream)> {
        let live = self.live.first(allowed);
        if allowed.replays
            && (live.is_none() || self.live_since_replay >= LIVE_PER_REPLAY)
            && let Some((_, id)) = self.replay.first(allowed)
        {
            return Some((id, Stream::Replay));
        }
        live.map(|(_, id)| (id, Stream::Live))
    }

    /// Counts a delivery that starts. The count decides whether a live or a replayed delivery is next. So do not call
    /// this if the lane turned out to have no delivery to run.
    pub(super) fn record_run(&mut self, stream: Stream) {
        self.live_since_replay = match stream {
            Stream::Live => self.live_since_replay.saturating_add(1),
            Stream::Replay => 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Allowed = Allowed { running: true, replays: true };
    const LIVE: Allowed = Allowed { running: true, replays: false };

    fn place(last_start: u64) -> Place {
        Place { is_running: false, last_start }
    }

    #[test]
    fn live_deliveries_run_first_and_replays_are_not_starved() {
        let mut queue = RunQueue::default();
        (0..100).for_each(|start| queue.push(FunctionId(1), Stream::Live, place(start)));
        (0..10).for_each(|start| queue.push(FunctionId(2), Stream::Replay, place(start)));
        let (mut live, mut replay) = (0, 0);
        let mut next = || {
            let (id, stream) = queue.next(ALL)?;
            let starts = if stream == Stream::Live { &mut live } else { &mut replay };
            queue.remove(id, stream, place(*starts));
            *starts += 1;
            queue.record_run(stream);
            Some(id)
        };
        let order: Vec<_> = std::iter::from_fn(&mut next).collect();
        let places: Vec<_> =
            order.iter().enumerate().filter(|(_, id)| **id == FunctionId(2)).map(|(place, _)| place).collect();
        assert_eq!(places[..3], [32, 65, 98]);
        assert_eq!(places[3..], (103..110).collect::<Vec<_>>());
    }

    #[test]
    fn without_room_for_replays_only_live_deliveries_run() {
        let mut queue = RunQueue::default();
        queue.push(FunctionId(2), Stream::Replay, place(0));
        assert!(queue.next(LIVE).is_none());
        queue.push(FunctionId(1), Stream::Live, place(0));
        assert_eq!(queue.next(LIVE), Some((FunctionId(1), Stream::Live)));
        queue.remove(FunctionId(1), Stream::Live, place(0));
        assert_eq!(queue.next(ALL), Some((FunctionId(2), Stream::Replay)));
    }

    #[test]
    fn the_function_whose_last_start_is_the_longest_ago_is_next_and_running_ones_only_if_allowed() {
        let mut queue = RunQueue::default();
        let (busy, idle) = (Place { is_running: true, last_start: 3 }, place(5));
        queue.push(FunctionId(1), Stream::Live, busy);
        queue.push(FunctionId(2), Stream::Live, idle);
        assert_eq!(queue.next(ALL), Some((FunctionId(1), Stream::Live)));
        assert_eq!(queue.next(Allowed { running: false, ..ALL }), Some((FunctionId(2), Stream::Live)));
        queue.remove(FunctionId(2), Stream::Live, idle);
        assert_eq!(queue.next(Allowed { running: false, ..ALL }), None);
    }
}
