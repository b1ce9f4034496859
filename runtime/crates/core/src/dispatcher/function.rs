//! A function with its two lanes, which are its queues in memory: one for live deliveries, one for replayed deliveries.

use std::sync::Arc;

use tokio::time::Instant;

use super::FunctionSpec;
use super::circuit::Circuit;
use super::health::{LastFailure, Streak};
use super::lane::Lane;
use super::run_queue::Place;
use evoke_model::clock::UnixMs;
use evoke_model::{DeliveryId, Stream};

/// The maximum number of replayed deliveries that a function runs at the same time is its concurrency divided by this
/// number, but at least one. The rest of the concurrency is left for live deliveries.
const REPLAY_FUNCTION_DIVISOR: u32 = 4;

pub(super) struct Function {
    pub(super) spec: Arc<FunctionSpec>,
    /// The maximum number of deliveries that run at the same time. It is 0 while the function is suspended: no active
    /// manifest declares it, it is paused, it is being renamed, or its endpoint is gone.
    pub(super) concurrency: u32,
    /// True if an active manifest declares the function.
    is_active: bool,
    is_paused: bool,
    /// True while the store renames the function.
    is_suspended: bool,
    /// Set if the function's attempts are requests to an endpoint.
    pub(super) circuit: Option<Circuit>,
    /// Set if the endpoint is gone for good: the message about its last response. The runtime then pauses the function.
    /// The message is removed when the paused function is resumed.
    gone: Option<String>,
    pub(super) streak: Streak,
    /// The last failed attempt since this process started.
    pub(super) last_failure: Option<LastFailure>,
    /// The number of the last start of a delivery of this function. The starts of all functions are numbered together.
    pub(super) last_start: u64,
    /// True if the function may run deliveries and runs none, as of the last call of [`Function::update_idle`].
    is_idle: bool,
    live: StreamLane,
    replay: StreamLane,
}

#[derive(Default)]
struct StreamLane {
    lane: Lane,
    /// The lane's place in the run queue; `None` if the lane is not in the queue.
    place: Option<Place>,
}

impl Function {
    /// `failing_since_ms` is set if the function was failing before this process started, and `open_since_ms` if its
    /// circuit was open.
    pub(super) fn new(spec: FunctionSpec, failing_since_ms: Option<UnixMs>, open_since_ms: Option<UnixMs>) -> Self {
        let stream_lane = || StreamLane { lane: Lane::new_behind_store(), place: None };
        Self {
            concurrency: spec.concurrency,
            is_active: true,
            is_paused: false,
            is_suspended: false,
            circuit: spec.runner.circuit().map(|policy| match open_since_ms {
                Some(since_ms) => Circuit::open_since(policy, since_ms),
                None => Circuit::new(policy),
            }),
            gone: None,
            last_failure: None,
            spec: Arc::new(spec),
            streak: failing_since_ms.map(Streak::failing_since).unwrap_or_default(),
            last_start: 0,
            is_idle: false,
            live: stream_lane(),
            replay: stream_lane(),
        }
    }

    /// Replaces the settings and the runner. Running attempts keep the old ones.
    pub(super) fn replace_spec(&mut self, spec: FunctionSpec) {
        self.is_active = true;
        self.circuit = match (self.circuit.take(), spec.runner.circuit()) {
            (Some(mut circuit), Some(policy)) => {
                circuit.replace_policy(policy);
                Some(circuit)
            }
            (None, policy) => policy.map(Circuit::new),
            (Some(_), None) => None,
        };
        self.spec = Arc::new(spec);
        self.update_concurrency();
    }

    /// Suspends the function, because no active manifest declares it.
    pub(super) fn deactivate(&mut self) {
        self.is_active = false;
        self.update_concurrency();
    }

    pub(super) fn set_paused(&mut self, is_paused: bool) {
        if self.is_paused && !is_paused {
            self.gone = None;
        }
        self.is_paused = is_paused;
        self.update_concurrency();
    }

    pub(super) fn set_suspended(&mut self, is_suspended: bool) {
        self.is_suspended = is_suspended;
        self.update_concurrency();
    }

    /// Returns true if no delivery runs, is being loaded, or waits for the commit of its attempt.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.live.lane.is_quiet() && self.replay.lane.is_quiet()
    }

    /// Makes both lanes load their deliveries from the store again.
    pub(super) fn load_again(&mut self) {
        self.live.lane.load_again();
        self.replay.lane.load_again();
    }

    /// Suspends the function, because its endpoint is gone.
    pub(super) fn set_gone(&mut self, message: String) {
        self.gone = Some(message);
        self.update_concurrency();
    }

    /// Returns the message about the endpoint if it is gone and the function is not paused yet. The function must then
    /// be paused.
    pub(super) fn gone(&self) -> Option<&str> {
        self.gone.as_deref().filter(|_| self.is_active && !self.is_paused)
    }

    fn update_concurrency(&mut self) {
        let is_stopped = self.is_paused || self.is_suspended || !self.is_active || self.gone.is_some();
        self.concurrency = if is_stopped { 0 } else { self.spec.concurrency };
    }

    /// Removes a cancelled delivery that did not start.
    pub(super) fn cancel(&mut self, id: DeliveryId) {
        self.live.lane.cancel(id);
        self.replay.lane.cancel(id);
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
        self.running() < most
            && of_stream
            && self.circuit.as_ref().is_none_or(|circuit| circuit.may_start(Instant::now()))
    }

    /// Returns when the function's circuit lets the next delivery start. Returns `None` if no delivery waits only for
    /// the circuit.
    pub(super) fn circuit_wakes_at(&self) -> Option<Instant> {
        let has_work = self.live.lane.has_work() || self.replay.lane.has_work();
        self.circuit.as_ref().filter(|_| has_work && self.concurrency > 0)?.wakes_at(Instant::now())
    }

    /// Updates `is_idle`. Returns its old and its new value.
    pub(super) fn update_idle(&mut self) -> (bool, bool) {
        let is_idle = self.concurrency > 0 && self.running() == 0;
        (std::mem::replace(&mut self.is_idle, is_idle), is_idle)
    }

    /// Computes the lane's place in the run queue again. Returns the old and the new place. A lane without work or room
    /// has no place.
    pub(super) fn update_place(&mut self, stream: Stream) -> (Option<Place>, Option<Place>) {
        let place = Place { is_running: self.running() > 0, last_start: self.last_start };
        let has_room = self.has_room(stream);
        let stream_lane = self.stream_lane(stream);
        let new = (has_room && stream_lane.lane.has_work()).then_some(place);
        (std::mem::replace(&mut stream_lane.place, new), new)
    }

    /// Removes a delivery whose completion is committed. `retry_at_ms` is the time of the retry, if one follows.
    pub(super) fn completed(&mut self, id: DeliveryId, retry_at_ms: Option<UnixMs>) {
        let stream = if self.replay.lane.holds(id) { Stream::Replay } else { Stream::Live };
        self.lane(stream).completed(id, retry_at_ms);
    }

    /// Removes the waiting deliveries from memory, and returns their ids. They stay in the store.
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
