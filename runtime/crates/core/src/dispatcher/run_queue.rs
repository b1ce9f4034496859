//! The run queue: which function runs next. Live deliveries run before replays. Plain data, no I/O.

use std::collections::VecDeque;

use evoke_model::{FunctionId, Stream};

/// When both live and replayed deliveries wait, one replayed delivery runs after this many live ones. So replays make
/// progress, and live deliveries are hardly delayed.
const LIVE_PER_REPLAY: u32 = 32;

/// The lanes with work and room, in round-robin order.
#[derive(Default)]
pub(super) struct RunQueue {
    live: VecDeque<FunctionId>,
    replay: VecDeque<FunctionId>,
    live_since_replay: u32,
}

impl RunQueue {
    pub(super) fn push(&mut self, id: FunctionId, stream: Stream) {
        match stream {
            Stream::Live => self.live.push_back(id),
            Stream::Replay => self.replay.push_back(id),
        }
    }

    /// Returns true if a lane is queued that may run. Replay lanes count only if `replays` is true.
    pub(super) fn has_next(&self, replays: bool) -> bool {
        !self.live.is_empty() || (replays && !self.replay.is_empty())
    }

    /// Takes the next lane from the queue. Takes a replay lane only if `replays` is true. If the caller then runs a
    /// delivery of the lane, it must call [`RunQueue::record_run`].
    pub(super) fn next(&mut self, replays: bool) -> Option<(FunctionId, Stream)> {
        if replays
            && (self.live.is_empty() || self.live_since_replay >= LIVE_PER_REPLAY)
            && let Some(id) = self.replay.pop_front()
        {
            return Some((id, Stream::Replay));
        }
        self.live.pop_front().map(|id| (id, Stream::Live))
    }

    /// Counts a delivery that runs. A lane without a runnable delivery must not be counted, because the count decides
    /// whether a live or a replayed delivery is next.
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

    #[test]
    fn live_deliveries_run_first_and_replays_are_not_starved() {
        let mut queue = RunQueue::default();
        (0..100).for_each(|_| queue.push(FunctionId(1), Stream::Live));
        (0..10).for_each(|_| queue.push(FunctionId(2), Stream::Replay));
        let next = || queue.next(true).inspect(|(_, stream)| queue.record_run(*stream));
        let order: Vec<_> = std::iter::from_fn(next).map(|(id, _)| id).collect();
        let places: Vec<_> =
            order.iter().enumerate().filter(|(_, id)| **id == FunctionId(2)).map(|(place, _)| place).collect();
        assert_eq!(places[..3], [32, 65, 98]);
        assert_eq!(places[3..], (103..110).collect::<Vec<_>>());
    }

    #[test]
    fn without_room_for_replays_only_live_deliveries_run() {
        let mut queue = RunQueue::default();
        queue.push(FunctionId(2), Stream::Replay);
        assert!(!queue.has_next(false) && queue.next(false).is_none());
        queue.push(FunctionId(1), Stream::Live);
        assert_eq!(queue.next(false), Some((FunctionId(1), Stream::Live)));
        assert_eq!(queue.next(true), Some((FunctionId(2), Stream::Replay)));
    }
}
