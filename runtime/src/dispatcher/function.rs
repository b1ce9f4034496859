//! A function with its two lanes, and whose turn is next: live deliveries go before replays of stored events.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Worker;
use super::lane::Lane;
use super::streak::Streak;
use crate::clock::UnixMs;
use crate::store::{DeliveryId, FunctionId, Stream};

/// One replay runs after so many live deliveries when both wait: replays go on, and are hardly felt.
const LIVE_PER_REPLAY: u32 = 32;

/// Replays run on this part of a function's room, at least one: what comes in live finds some.
const REPLAY_PART: u32 = 4;

/// And on this part of the room of all functions together: four of 64. Guests that compute share two or more cores with
/// what is live, and hardly leave it waiting.
const REPLAY_PART_OF_ALL: u32 = 16;

/// The most replays that run at once where so many deliveries of all functions may.
pub(super) fn replays_max(running_max: u32) -> u32 {
    (running_max / REPLAY_PART_OF_ALL).max(1)
}

pub(super) struct Function {
    pub(super) worker: Arc<Worker>,
    /// How many deliveries run at once: the worker's, or none while it rests.
    pub(super) concurrency: u32,
    pub(super) streak: Streak,
    live: Side,
    replay: Side,
}

#[derive(Default)]
struct Side {
    lane: Lane,
    /// It has a place among the turns.
    in_turns: bool,
}

impl Function {
    /// `failing_since_ms` when it was failing when it was seen last.
    pub(super) fn new(worker: Worker, failing_since_ms: Option<UnixMs>) -> Self {
        let side = || Side { lane: Lane::behind_store(), in_turns: false };
        Self {
            concurrency: worker.concurrency,
            worker: Arc::new(worker),
            streak: failing_since_ms.map(Streak::failing_since).unwrap_or_default(),
            live: side(),
            replay: side(),
        }
    }

    pub(super) fn put_in_charge(&mut self, worker: Worker) {
        self.concurrency = worker.concurrency;
        self.worker = Arc::new(worker);
    }

    fn side(&mut self, stream: Stream) -> &mut Side {
        match stream {
            Stream::Live => &mut self.live,
            Stream::Replay => &mut self.replay,
        }
    }

    pub(super) fn lane(&mut self, stream: Stream) -> &mut Lane {
        &mut self.side(stream).lane
    }

    pub(super) fn running(&self) -> u32 {
        self.live.lane.running + self.replay.lane.running
    }

    /// Deliveries that wait in memory.
    pub(super) fn waiting(&self) -> u32 {
        self.live.lane.waiting() + self.replay.lane.waiting()
    }

    /// Whether another delivery of this stream may run.
    pub(super) fn has_room(&self, stream: Stream) -> bool {
        let most = self.concurrency;
        let of_stream = match stream {
            Stream::Live => true,
            Stream::Replay => self.replay.lane.running < (most / REPLAY_PART).max(1),
        };
        self.running() < most && of_stream
    }

    /// Whether it is to have a turn that it has not: it takes it with this.
    pub(super) fn takes_turn(&mut self, stream: Stream) -> bool {
        let room = self.has_room(stream);
        let side = self.side(stream);
        let takes = room && !side.in_turns && side.lane.has_work();
        side.in_turns |= takes;
        takes
    }

    /// Its turn has come.
    pub(super) fn turn_came(&mut self, stream: Stream) {
        self.side(stream).in_turns = false;
    }

    /// The end of an attempt is committed; `retry_at_ms` when another follows.
    pub(super) fn ended(&mut self, id: DeliveryId, retry_at_ms: Option<UnixMs>) {
        let stream = if self.replay.lane.holds(id) { Stream::Replay } else { Stream::Live };
        self.lane(stream).ended(id, retry_at_ms);
    }

    /// When retries of either stream have to be loaded next.
    pub(super) fn next_due_ms(&self) -> Option<UnixMs> {
        [&self.live, &self.replay].into_iter().filter_map(|side| side.lane.next_due_ms()).min()
    }
}

/// The functions with work and room for it, in the order in which they have their turn.
#[derive(Default)]
pub(super) struct Queue {
    live: VecDeque<FunctionId>,
    replay: VecDeque<FunctionId>,
    live_since_replay: u32,
}

impl Queue {
    pub(super) fn push(&mut self, id: FunctionId, stream: Stream) {
        match stream {
            Stream::Live => self.live.push_back(id),
            Stream::Replay => self.replay.push_back(id),
        }
    }

    /// Whether somebody waits for a turn, and may have it when there is room for replays or not.
    pub(super) fn has_next(&self, replays: bool) -> bool {
        !self.live.is_empty() || (replays && !self.replay.is_empty())
    }

    /// Whose turn it is; whoever uses it says so with [`Queue::used`].
    pub(super) fn next(&mut self, replays: bool) -> Option<(FunctionId, Stream)> {
        if replays
            && (self.live.is_empty() || self.live_since_replay >= LIVE_PER_REPLAY)
            && let Some(id) = self.replay.pop_front()
        {
            return Some((id, Stream::Replay));
        }
        self.live.pop_front().map(|id| (id, Stream::Live))
    }

    /// A turn led to a delivery that runs. One that did not is no reason to let others wait longer.
    pub(super) fn used(&mut self, stream: Stream) {
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
    fn live_deliveries_go_first_and_replays_are_not_starved() {
        let mut queue = Queue::default();
        (0..100).for_each(|_| queue.push(1, Stream::Live));
        (0..10).for_each(|_| queue.push(2, Stream::Replay));
        let next = || queue.next(true).inspect(|(_, stream)| queue.used(*stream));
        let order: Vec<_> = std::iter::from_fn(next).map(|(id, _)| id).collect();
        let places: Vec<_> = order.iter().enumerate().filter(|(_, id)| **id == 2).map(|(place, _)| place).collect();
        assert_eq!(places[..3], [32, 65, 98]);
        assert_eq!(places[3..], (103..110).collect::<Vec<_>>());
    }

    #[test]
    fn without_room_for_replays_only_live_ones_have_a_turn() {
        let mut queue = Queue::default();
        queue.push(2, Stream::Replay);
        assert!(!queue.has_next(false) && queue.next(false).is_none());
        queue.push(1, Stream::Live);
        assert_eq!(queue.next(false), Some((1, Stream::Live)));
        assert_eq!(queue.next(true), Some((2, Stream::Replay)));
    }
}
