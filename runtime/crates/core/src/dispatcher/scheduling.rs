//! Scheduling: which delivery runs next, and the worker tasks that run deliveries while there is room.

use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use tokio::time::Instant;

use super::attempt::Ran;
use super::circuit::{Circuit, Circuits};
use super::function::Function;
use super::isolation::{Isolation, Picked};
use super::lane::Lane;
use super::measure::Measurement;
use super::run_queue::{Allowed, RunQueue};
use super::{Dispatcher, attempt};
use evoke_model::clock::UnixMs;
use evoke_model::state::StateItem;
use evoke_model::{DeliveryId, FunctionId, ReadyDelivery, ReplayId, Stream, reserved_places};

/// No attempt starts while the completions that wait for their commit have at least this size together, in bytes. This
/// limits the memory. The size is that of about four group commits.
const UNCOMMITTED_MAX: usize = 32 * 1024 * 1024;

/// How long a worker task runs deliveries before it lets the other tasks of its thread run. Attempts that never wait
/// would otherwise occupy the thread as long as there are deliveries. The task that tokio has chosen to run next on
/// this thread would then have to wait, because tokio does not move it to another thread.
const YIELD_AFTER: Duration = Duration::from_millis(1);

/// The maximum number of replayed deliveries that run at the same time, over all functions, is `running_max` divided by
/// this number: 4 of 64. So on two or more cores, replayed deliveries delay live deliveries only a little, even if the
/// replayed deliveries compute all the time.
const REPLAY_TOTAL_DIVISOR: u32 = 16;

/// The deliveries that wait or run. One lock protects all of them.
#[derive(Default)]
pub(super) struct Schedule {
    pub(super) functions: HashMap<FunctionId, Function>,
    queue: RunQueue,
    /// The number of running deliveries, live and replayed.
    pub(super) running: u32,
    /// The number of active functions without a running delivery.
    idle: u32,
    /// The number of deliveries that were started, over all functions.
    starts: u64,
    /// When each running delivery started.
    pub(super) started: HashMap<DeliveryId, Instant>,
    /// The number of running deliveries of replays.
    replaying: u32,
    /// Replays whose deliveries are no longer started.
    pub(super) halted: HashSet<ReplayId>,
    /// True if a worker task was spawned and has not picked a delivery yet.
    worker_starting: bool,
    pub(super) stopping: bool,
    /// Attempts that used state or published events, and are not committed yet. The store can refuse to commit them.
    /// After a conflict, they must run again.
    pub(super) awaiting_commit: HashMap<DeliveryId, (ReadyDelivery, Measurement)>,
    /// The functions that were failing before this process started, by full name, with the times when they started to
    /// fail. An entry is removed when its function becomes active.
    pub(super) was_failing: HashMap<String, UnixMs>,
    /// For each delivery that must run again after a conflict: the state that another attempt changed.
    pub(super) reruns: HashMap<DeliveryId, StateItem>,
    /// The functions that are paused: by an operator, or because their endpoint is gone.
    pub(super) paused: HashSet<FunctionId>,
    /// The functions that are being renamed.
    pub(super) suspended: HashSet<FunctionId>,
    /// The deliveries that must run alone.
    pub(super) isolation: Isolation,
    /// The state of the task that watches circuits.
    pub(super) circuits: Circuits,
}

impl Schedule {
    pub(super) fn new(isolation: Isolation) -> Self {
        Self { isolation, ..Self::default() }
    }

    /// Counts an attempt that starts.
    fn count_start(&mut self, picked: &Picked) {
        self.running += 1;
        self.starts += 1;
        self.started.insert(picked.delivery.id, Instant::now());
        if let Some(function) = self.functions.get_mut(&picked.delivery.function) {
            function.last_start = self.starts;
        }
        self.replaying += u32::from(picked.delivery.replay.is_some());
    }

    /// Removes a cancelled delivery that did not start. A started delivery continues, but the store ignores its result.
    pub(super) fn cancel(&mut self, function: FunctionId, id: DeliveryId) {
        if self.isolation.has_waiting() {
            let suspects = self.isolation.take_waiting(|suspect| suspect.delivery.id == id);
            suspects.into_iter().for_each(|suspect| self.put_back(suspect));
        }
        self.reruns.remove(&id);
        if let Some(function) = self.functions.get_mut(&function) {
            function.cancel(id);
            if function.circuit.is_some() && Stream::ALL.iter().any(|stream| function.lane(*stream).holds(id)) {
                self.circuits.cancelled(id);
            }
        }
    }

    /// Puts a picked delivery back into its lane, because it did not start.
    pub(super) fn put_back(&mut self, picked: Picked) {
        let Picked { delivery, changed, .. } = picked;
        if let Some(function) = self.functions.get_mut(&delivery.function) {
            if let Some(circuit) = &mut function.circuit {
                circuit.not_started(delivery.id);
            }
            self.reruns.extend(changed.map(|item| (delivery.id, item)));
            let lane = function.lane(Stream::of(delivery.replay));
            lane.release_slot();
            lane.put_back(delivery);
        }
    }
}

/// Returns how many of the `running_max` places are reserved for functions without a running delivery: one for each of
/// these `idle` functions, at most [`reserved_places`].
fn reserved(running_max: u32, idle: u32) -> u32 {
    idle.min(reserved_places(running_max))
}

/// Returns the maximum number of replayed deliveries that run at the same time if `running_max` deliveries may run. The
/// result is at least 1.
fn replays_max(running_max: u32) -> u32 {
    (running_max / REPLAY_TOTAL_DIVISOR).max(1)
}

/// Lets the other tasks of this thread run. Unlike after `tokio::task::yield_now`, another thread without work can
/// continue this task immediately.
pub(super) async fn let_others_run() {
    let mut has_yielded = false;
    std::future::poll_fn(|context| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Dispatcher {
    /// Puts the function's lanes into the run queue if they have work and room. Starts a load for each lane that has
    /// room again and for which the store may have more deliveries. Wakes the task that loads retries when a lane has
    /// room for retries again. If the function is suspended, releases its waiting deliveries instead. Must be called
    /// after every change of a lane.
    pub(super) fn update_queue(&self, schedule: &mut Schedule, id: FunctionId) {
        let Schedule { functions, queue, reruns, idle, circuits, .. } = schedule;
        let Some(function) = functions.get_mut(&id) else { return };
        let (was_idle, is_idle) = function.update_idle();
        *idle = *idle + u32::from(is_idle) - u32::from(was_idle);
        if function.concurrency == 0 {
            let waiting = function.release_waiting();
            waiting.iter().for_each(|id| drop(reruns.remove(id)));
            self.release(waiting);
        }
        for stream in Stream::ALL {
            let (old, new) = function.update_place(stream);
            if old != new {
                old.into_iter().for_each(|place| queue.remove(id, stream, place));
                new.into_iter().for_each(|place| queue.push(id, stream, place));
            }
            if function.concurrency > 0 {
                let lane = function.lane(stream);
                if let Some((after, limit)) = lane.start_load() {
                    self.load(id, stream, after, limit);
                }
                if lane.has_regained_retry_room() {
                    self.0.alarm.notify_one();
                }
            }
        }
        if let Some(at) = function.circuit_wakes_at()
            && circuits.wakes_at.is_none_or(|planned| at < planned)
        {
            circuits.wakes_at = Some(at);
            self.0.circuits.notify_one();
        }
    }

    /// Spawns a worker task if there is work and room for it. Only one worker starts at a time, and it spawns the next
    /// worker before it runs its own delivery. So a burst of deliveries uses no more tasks than needed: one task for
    /// each thread while functions compute, and one task for each delivery while functions wait.
    pub(super) fn spawn_worker(&self, schedule: &mut Schedule) {
        if !schedule.worker_starting && (self.can_start_suspect(schedule) || self.can_start_other(schedule)) {
            schedule.worker_starting = true;
            self.0.tasks.spawn_on(self.clone().work(), &self.0.workers);
        }
    }

    fn can_start_other(&self, schedule: &Schedule) -> bool {
        self.next_lane(schedule).is_some()
    }

    /// Returns the lane that runs next, if a place is free for it. The last free places are reserved for functions
    /// without a running delivery ([`reserved`]).
    fn next_lane(&self, schedule: &Schedule) -> Option<(FunctionId, Stream)> {
        if !self.has_room(schedule) {
            return None;
        }
        let running = schedule.running < self.0.running_max - reserved(self.0.running_max, schedule.idle);
        schedule.queue.next(Allowed { running, replays: self.has_room_for_replays(schedule) })
    }

    /// Returns true if a suspect waits and no attempt runs.
    fn can_start_suspect(&self, schedule: &Schedule) -> bool {
        schedule.isolation.has_waiting() && schedule.running == 0 && self.may_start(schedule)
    }

    fn may_start(&self, schedule: &Schedule) -> bool {
        !schedule.stopping && self.0.uncommitted.load(Ordering::Relaxed) < UNCOMMITTED_MAX
    }

    fn has_room(&self, schedule: &Schedule) -> bool {
        schedule.running < self.0.running_max && self.may_start(schedule) && !schedule.isolation.excludes_others()
    }

    fn has_room_for_replays(&self, schedule: &Schedule) -> bool {
        schedule.replaying < replays_max(self.0.running_max)
    }

    /// A worker task: runs deliveries until there is no work or no room.
    async fn work(self) {
        let mut next = {
            let mut schedule = self.lock();
            schedule.worker_starting = false;
            self.pick(&mut schedule)
        };
        let mut yielded = Instant::now();
        while let Some(Picked { spec, delivery, changed, exits }) = next {
            let mut put_back = false;
            match attempt::run(&self.0, &spec, &delivery, changed, exits).await {
                Ran::Ended(ended) => self.commit(&spec, &delivery, *ended).await,
                Ran::Uncounted(measurement) => {
                    measurement.uncounted();
                    put_back = true;
                }
            }
            let must_yield = yielded.elapsed() >= YIELD_AFTER;
            {
                let mut schedule = self.lock();
                if put_back {
                    schedule.put_back_uncounted(&delivery);
                }
                self.release_slot(&mut schedule, &delivery);
                next = if must_yield { None } else { self.pick(&mut schedule) };
            }
            if must_yield {
                let_others_run().await;
                yielded = Instant::now();
                next = self.pick(&mut self.lock());
            }
        }
    }

    /// Makes room for other deliveries after an attempt at `delivery` ran.
    fn release_slot(&self, schedule: &mut Schedule, delivery: &ReadyDelivery) {
        schedule.running = schedule.running.saturating_sub(1);
        schedule.started.remove(&delivery.id);
        schedule.isolation.ended(delivery.id);
        schedule.replaying = schedule.replaying.saturating_sub(u32::from(delivery.replay.is_some()));
        if let Some(function) = schedule.functions.get_mut(&delivery.function) {
            // If no request was sent, the endpoint was not tested. Then another delivery can become the probe.
            if let Some(circuit) = &mut function.circuit {
                circuit.not_started(delivery.id);
            }
            function.lane(Stream::of(delivery.replay)).release_slot();
        }
        self.update_queue(schedule, delivery.function);
    }

    /// Takes the next delivery to run, from the function that has started no delivery for the longest time. If there is
    /// none, takes a suspect.
    fn pick(&self, schedule: &mut Schedule) -> Option<Picked> {
        loop {
            let Some((id, stream)) = self.next_lane(schedule) else { return self.pick_suspect(schedule) };
            let function = schedule.functions.get_mut(&id)?;
            let Schedule { isolation, halted, reruns, .. } = schedule;
            let picked = Self::pick_from(function, stream, halted, reruns, isolation);
            let (suspect, other): (Option<_>, _) = match picked {
                Some(picked) if picked.is_suspect() => (Some(picked), None),
                picked => (None, picked),
            };
            if let Some(picked) = suspect.as_ref().or(other.as_ref())
                && let Some(circuit) = &mut function.circuit
            {
                circuit.started(picked.delivery.id, Instant::now());
            }
            if let Some(suspect) = suspect {
                schedule.isolation.push(suspect);
            }
            if let Some(picked) = &other {
                schedule.count_start(picked);
                schedule.queue.record_run(stream);
            }
            self.update_queue(schedule, id);
            if other.is_some() {
                self.spawn_worker(schedule);
                return other;
            }
        }
    }

    /// Takes the next suspect if no attempt runs. A suspect whose function was suspended in the meantime is released.
    fn pick_suspect(&self, schedule: &mut Schedule) -> Option<Picked> {
        while self.can_start_suspect(schedule) {
            let suspect = schedule.isolation.start_next()?;
            let id = suspect.delivery.function;
            if schedule.functions.get(&id).is_some_and(|function| function.concurrency > 0) {
                schedule.count_start(&suspect);
                return Some(suspect);
            }
            schedule.isolation.ended(suspect.delivery.id);
            schedule.put_back(suspect);
            self.update_queue(schedule, id);
        }
        None
    }

    /// Takes the next delivery of a function. A delivery of a halted replay is removed from memory and not returned;
    /// the replay task purges it in the store.
    fn pick_from(
        function: &mut Function,
        stream: Stream,
        halted: &HashSet<ReplayId>,
        reruns: &mut HashMap<DeliveryId, StateItem>,
        isolation: &Isolation,
    ) -> Option<Picked> {
        loop {
            let is_newest = function.circuit.as_ref().is_some_and(Circuit::probes_newest);
            let lane = function.lane(stream);
            let delivery = if is_newest { lane.pick_newest() } else { lane.pick() }?;
            let changed = if reruns.is_empty() { None } else { reruns.remove(&delivery.id) };
            if delivery.replay.is_none_or(|replay| !halted.contains(&replay)) {
                let exits = isolation.exits(delivery.id);
                return Some(Picked { spec: function.spec.clone(), delivery, changed, exits });
            }
            let lane = function.lane(stream);
            lane.release_slot();
            lane.completed(delivery.id, None);
        }
    }

    /// Changes a lane, then updates the run queue and spawns a worker if the change made work available.
    pub(super) fn change_lane(&self, id: FunctionId, stream: Stream, change: impl FnOnce(&mut Lane)) {
        let mut schedule = self.lock();
        if let Some(function) = schedule.functions.get_mut(&id) {
            change(function.lane(stream));
        }
        self.update_queue(&mut schedule, id);
        self.spawn_worker(&mut schedule);
    }
}
