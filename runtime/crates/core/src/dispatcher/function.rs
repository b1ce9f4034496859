//! A function with its two lanes, and the run queue over all functions. Live deliveries run before replays.

use std::collections::VecDeque;
use std::sync::Arc;

use super::FunctionSpec;
use super::lane::Lane;
use super::streak::Streak;
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, FunctionId, Stream};

/// When live deliveries and replays wait, one replay runs after this many live deliveries. So replays make progress and
/// hardly slow down live deliveries.
const LIVE_PER_REPLAY: u32 = 32;

/// The maximum number of running replays of a function is its concurrency divided by this, at least one. The rest is
/// left for live deliveries.
const REPLAY_FUNCTION_DIVISOR: u32 = 4;

/// The maximum number of running replays of all functions is `running_max` divided by this: 4 of 64. So on two or more
/// cores, replays that compute hardly delay live deliveries.
const REPLAY_TOTAL_DIVISOR: u32 = 16;

/// Returns the maximum number of replays that run at once if `running_max` deliveries may run; at least 1.
pub(super) fn replays_max(running_max: u32) -> u32 {
    (running_max / REPLAY_TOTAL_DIVISOR).max(1)
}

pub(super) struct Function {
    pub(super) spec: Arc<FunctionSpec>,
    /// The maximum number of deliveries that run at once; 0 while the function is suspended.
    pub(super) concurrency: u32,
    pub(super) streak: Streak,
    live: StreamLane,
    replay: StreamLane,
}

#[derive(Default)]
struct StreamLane {
    lane: Lane,
    /// True if the lane is in the run queue.
    is_queued: bool,
}

impl Function {
    /// `failing_since_ms` is set if the function was failing before the start.
    pub(super) fn new(spec: FunctionSpec, failing_since_ms: Option<UnixMs>) -> Self {
        let stream_lane = || StreamLane { lane: Lane::new_behind_store(), is_queued: false };
        Self {
            concurrency: spec.concurrency,
            spec: Arc::new(spec),
            streak: failing_since_ms.map(Streak::failing_since).unwrap_or_default(),
            live: stream_lane(),
            replay: stream_lane(),
        }
    }

    /// Replaces the settings and the runner. Running attempts keep the old ones.
    pub(super) fn replace_spec(&mut self, spec: FunctionSpec) {
        self.concurrency = spec.concurrency;
        self.spec = Arc::new(spec);
    }

    fn stream_lane(&mut self, stream: Stream) -> &mut StreamLane {
        match stream {
            Stream::Live => &mut self.live,
            Stream::Replay => &mut self.replay,
        }
    }

    pub(super) fn lane(&mut self, stream: Stream) -> &mut Lane {
        &mut self.stream_lane(stream).lane
    }

    pub(super) fn running(&self) -> u32 {
        self.live.lane.running + self.replay.lane.running
    }

    /// Returns the number of deliveries that wait in memory.
    pub(super) fn waiting(&self) -> u32 {
        self.live.lane.waiting() + self.replay.lane.waiting()
    }

    /// Returns true if another delivery of this stream may run.
    pub(super) fn has_room(&self, stream: Stream) -> bool {
        let most = self.concurrency;
        let of_stream = match stream {
            Stream::Live => true,
            Stream::Replay => self.replay.lane.running < (most / REPLAY_FUNCTION_DIVISOR).max(1),
        };
        self.running() < most && of_stream
    }

    /// Marks the lane as queued if it has work and room and is not queued yet. Returns true if the caller must push it
    /// to the run queue.
    pub(super) fn try_queue(&mut self, stream: Stream) -> bool {
        let room = self.has_room(stream);
        let stream_lane = self.stream_lane(stream);
        let queues = room && !stream_lane.is_queued && stream_lane.lane.has_work();
        stream_lane.is_queued |= queues;
        queues
    }

    /// Records that the lane was taken from the run queue.
    pub(super) fn dequeued(&mut self, stream: Stream) {
        self.stream_lane(stream).is_queued = false;
    }

    /// Removes a delivery whose completion is committed. `retry_at_ms` is set if a retry follows.
    pub(super) fn completed(&mut self, id: DeliveryId, retry_at_ms: Option<UnixMs>) {
        let stream = if self.replay.lane.holds(id) { Stream::Replay } else { Stream::Live };
        self.lane(stream).completed(id, retry_at_ms);
    }

    /// Forgets the deliveries that wait in memory, and returns them. They stay in the store.
    pub(super) fn release_waiting(&mut self) -> Vec<DeliveryId> {
        let mut released = self.live.lane.release_waiting();
        released.append(&mut self.replay.lane.release_waiting());
        released
    }

    /// Returns when retries of either stream must be loaded next; `None` while the function is suspended.
    pub(super) fn next_retry_ms(&self) -> Option<UnixMs> {
        if self.concurrency == 0 {
            return None;
        }
        [&self.live, &self.replay].into_iter().filter_map(|stream_lane| stream_lane.lane.next_retry_ms()).min()
    }
}

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

    /// Takes the next lane from the queue; a replay lane only if `replays` is true. The caller reports a delivery that
    /// runs with [`RunQueue::record_run`].
    pub(super) fn next(&mut self, replays: bool) -> Option<(FunctionId, Stream)> {
        if replays
            && (self.live.is_empty() || self.live_since_replay >= LIVE_PER_REPLAY)
            && let Some(id) = self.replay.pop_front()
        {
            return Some((id, Stream::Replay));
        }
        self.live.pop_front().map(|id| (id, Stream::Live))
    }

    /// Counts a delivery that runs. Lanes without a runnable delivery are not counted, so they do not delay replays or
    /// live deliveries.
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
        (0..100).for_each(|_| queue.push(1, Stream::Live));
        (0..10).for_each(|_| queue.push(2, Stream::Replay));
        let next = || queue.next(true).inspect(|(_, stream)| queue.record_run(*stream));
        let order: Vec<_> = std::iter::from_fn(next).map(|(id, _)| id).collect();
        let places: Vec<_> = order.iter().enumerate().filter(|(_, id)| **id == 2).map(|(place, _)| place).collect();
        assert_eq!(places[..3], [32, 65, 98]);
        assert_eq!(places[3..], (103..110).collect::<Vec<_>>());
    }

    #[test]
    fn without_room_for_replays_only_live_deliveries_run() {
        let mut queue = RunQueue::default();
        queue.push(2, Stream::Replay);
        assert!(!queue.has_next(false) && queue.next(false).is_none());
        queue.push(1, Stream::Live);
        assert_eq!(queue.next(false), Some((1, Stream::Live)));
        assert_eq!(queue.next(true), Some((2, Stream::Replay)));
    }
}
