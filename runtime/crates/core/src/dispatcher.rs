//! The dispatcher: runs deliveries in parallel, within the limits of each function and of all functions together, and
//! has the store commit the outcome of each attempt.
//!
//! The store notifies the dispatcher of ready deliveries after each commit. The dispatcher keeps a bounded window of
//! them per function ([`lane`]), and loads the rest when there is room. Worker tasks take deliveries from the functions
//! in round-robin order, so that a busy function cannot starve another. A worker passes the completion of an attempt to
//! the store without waiting for the commit, and continues with the next delivery. The store later reports the
//! committed completions, many at a time.

mod attempt;
mod function;
mod lane;
mod load;
mod measure;
mod state_locks;
mod streak;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use self::function::{Function, RunQueue, replays_max};
use self::lane::Lane;
use self::measure::Measurement;
use self::state_locks::StateLocks;
pub use self::streak::Failing;
use crate::bus::Bus;
use crate::runtime_events;
use evoke_model::clock::{Clock, UnixMs};
use evoke_model::event::Event;
use evoke_model::outcome::{Outcome, RetryPolicy};
use evoke_model::state::{StateItem, Transaction};
use evoke_model::{Completed, Completion, DeliveryId, FunctionId, ReadyDelivery, ReplayId, Stream, Verdict};
use evoke_store::{Committed, DeliveryStore, StoreError};
use evoke_telemetry::FunctionMetrics;

/// Runs one function. The sandbox implements this for the dispatcher.
pub trait Runner: Send + Sync + 'static {
    /// Runs one attempt. The implementation enforces the function's timeout.
    fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult>;
}

/// The input of one attempt.
#[derive(Debug, Clone)]
pub struct Call {
    /// The event to handle.
    pub event: Arc<Event>,
    /// The delivery's number, for logs.
    pub delivery: DeliveryId,
    /// The delivery's id, unique over all stores and the same for every attempt.
    pub delivery_id: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The trigger that matched.
    pub trigger: Arc<str>,
    /// True if the delivery belongs to a replay.
    pub replay: bool,
}

/// The result of one attempt.
#[derive(Debug, Clone)]
pub struct AttemptResult {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The events that the function published. They are stored only if the outcome is [`Outcome::Done`].
    pub published: Vec<Event>,
    /// The state that the attempt read, and its writes. The writes are stored only if the outcome is
    /// [`Outcome::Done`].
    pub state: Transaction,
    /// The run time of the attempt.
    pub duration: Duration,
}

/// The settings and the runner of a function.
#[derive(Clone)]
pub struct FunctionSpec {
    /// The function's id in the store.
    pub id: FunctionId,
    /// The maximum number of deliveries that run at once.
    pub concurrency: u32,
    /// When failed deliveries are retried.
    pub retry: RetryPolicy,
    /// Runs the attempts.
    pub runner: Arc<dyn Runner>,
    /// Counts the attempts.
    pub metrics: Arc<FunctionMetrics>,
}

/// A handle to the dispatcher; cheap to clone.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    store: Arc<dyn DeliveryStore>,
    bus: Bus,
    clock: Clock,
    /// The maximum number of running deliveries of all functions together.
    running_max: u32,
    schedule: Mutex<Schedule>,
    /// Locks on state that concurrent attempts change.
    state_locks: StateLocks,
    /// The size in bytes of the completions that the store received but did not commit yet: [`completion_bytes`].
    uncommitted: AtomicUsize,
    /// Notified when a retry may be due earlier than the retry that the task waits for.
    alarm: Notify,
    /// Notified when a function starts or stops failing.
    health: Notify,
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
}

/// The deliveries that wait and run, behind one lock.
#[derive(Default)]
struct Schedule {
    functions: HashMap<FunctionId, Function>,
    queue: RunQueue,
    /// The running deliveries, live and replayed.
    running: u32,
    /// The running deliveries of replays.
    replaying: u32,
    /// Replays whose deliveries are no longer started.
    halted: HashSet<ReplayId>,
    /// True if a worker task was spawned and has not picked a delivery yet.
    worker_starting: bool,
    stopping: bool,
    /// Attempts that used state and are not committed yet. On a conflict they must run again.
    awaiting_commit: HashMap<DeliveryId, (ReadyDelivery, Measurement)>,
    /// Functions that were failing before the start, and since when. Entries are removed when the function is set.
    was_failing: HashMap<String, UnixMs>,
    /// Deliveries that must run again, with the state that another attempt changed.
    reruns: HashMap<DeliveryId, StateItem>,
}

/// A delivery to run now.
struct Picked {
    spec: Arc<FunctionSpec>,
    delivery: ReadyDelivery,
    /// The state that another attempt changed, if this delivery runs again because of it.
    changed: Option<StateItem>,
}

/// The maximum size in bytes of completions that wait for their commit, about four group commits. Above it no attempt
/// is started.
const UNCOMMITTED_MAX: usize = 32 * 1024 * 1024;
/// The size that is assumed for a completion without its published events and its state.
const COMPLETION_BYTES: usize = 8 * 1024;

/// The wait before a retry after an error of the store.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// The longest wait for the release of deliveries at the end of a drain. Claims that are not released end with this
/// process anyway.
const RELEASE_MAX: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// Starts a dispatcher that runs at most `running_max` deliveries at once. Call [`Dispatcher::set_functions`] to
    /// make it run deliveries. Must be called within a tokio runtime.
    pub fn start(store: Arc<dyn DeliveryStore>, bus: Bus, clock: Clock, running_max: u32) -> Self {
        let dispatcher = Self(Arc::new(Inner {
            store,
            bus,
            clock,
            running_max: running_max.max(1),
            schedule: Mutex::default(),
            state_locks: StateLocks::default(),
            uncommitted: AtomicUsize::new(0),
            alarm: Notify::new(),
            health: Notify::new(),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
        }));
        // A weak reference: the store outlives the dispatcher and must not keep it alive.
        let inner = Arc::downgrade(&dispatcher.0);
        dispatcher.0.store.on_commit(Box::new(move |committed| {
            if let Some(inner) = inner.upgrade() {
                Self(inner).committed(committed);
            }
        }));
        let inner = Arc::downgrade(&dispatcher.0);
        tokio::spawn(Self::watch_retries(inner));
        dispatcher
    }

    /// Replaces the active functions. A function that is missing in `specs` is suspended: its running attempts
    /// continue, its other deliveries are released: they stay pending in the store until the function is active again.
    pub fn set_functions(&self, specs: Vec<FunctionSpec>) {
        let mut schedule = self.lock();
        schedule.functions.values_mut().for_each(|function| function.concurrency = 0);
        for spec in specs {
            let id = spec.id;
            match schedule.functions.get_mut(&id) {
                Some(function) => function.replace_spec(spec),
                None => {
                    let was_failing = schedule.was_failing.remove(&*spec.metrics.name);
                    schedule.functions.insert(id, Function::new(spec, was_failing));
                }
            }
        }
        let all: Vec<FunctionId> = schedule.functions.keys().copied().collect();
        all.into_iter().for_each(|id| self.update_queue(&mut schedule, id));
        self.spawn_worker(&mut schedule);
        drop(schedule);
        self.0.alarm.notify_one();
    }

    /// Returns the number of running deliveries of each function.
    pub fn running(&self) -> HashMap<FunctionId, u32> {
        self.lock().functions.iter().map(|(id, function)| (*id, function.running())).collect()
    }

    /// Stops starting deliveries of this replay. Returns the deliveries of all replays that were started and are not
    /// committed yet.
    pub fn halt(&self, replay: ReplayId) -> Vec<DeliveryId> {
        let mut schedule = self.lock();
        schedule.halted.insert(replay);
        schedule.functions.values_mut().flat_map(|function| function.lane(Stream::Replay).started()).collect()
    }

    /// Allows deliveries of this replay to start again after [`Dispatcher::halt`].
    pub fn resume(&self, replay: ReplayId) {
        self.lock().halted.remove(&replay);
    }

    /// Returns the number of deliveries of each function that wait in memory. More may wait in the store.
    pub fn waiting(&self) -> HashMap<FunctionId, u32> {
        self.lock().functions.iter().map(|(id, function)| (*id, function.waiting())).collect()
    }

    /// Returns the functions that are failing.
    pub fn failing(&self) -> HashMap<FunctionId, Failing> {
        let failing = |(id, function): (&FunctionId, &Function)| Some((*id, function.streak.failing()?.clone()));
        self.lock().functions.iter().filter_map(failing).collect()
    }

    /// Restores the functions that were failing before the start, by full name, with the time since when. They count as
    /// failing until an attempt succeeds. Call this before [`Dispatcher::set_functions`].
    pub fn restore_failing(&self, since_ms: HashMap<String, UnixMs>) {
        self.lock().was_failing = since_ms;
    }

    /// Waits until a function starts or stops failing. Only one task may wait.
    pub async fn health_changed(&self) {
        self.0.health.notified().await;
    }

    /// Stops starting deliveries and waits for the running ones, at most for `limit`. Returns the number of deliveries
    /// that still run. Deliveries that did not start are released; those that were not finished stay pending in the
    /// store.
    pub async fn drain(&self, limit: Duration) -> u32 {
        self.lock().stopping = true;
        self.0.alarm.notify_one();
        self.0.tasks.close();
        let _ = tokio::time::timeout(limit, self.0.tasks.wait()).await;
        let waiting = self.lock().functions.values_mut().flat_map(Function::release_waiting).collect();
        let _ = tokio::time::timeout(RELEASE_MAX, self.0.store.release(waiting)).await;
        self.lock().running
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.0.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives the result of a commit from the store: settled attempts, and deliveries that became ready.
    fn committed(&self, committed: Committed) {
        let Committed { ready, settled } = committed;
        let mut bytes = 0;
        let mut schedule = self.lock();
        let mut earliest_retry_ms = None;
        for (completion, result) in settled {
            if matches!(&result, Err(error) if error.is_temporary()) {
                self.0.tasks.spawn_on(self.clone().commit_later(completion), &self.0.runtime);
                continue;
            }
            bytes += completion_bytes(&completion);
            let is_committed = matches!(result, Ok(Completed::Committed));
            let is_superseded = matches!(result, Ok(Completed::Superseded));
            if !completion.state.is_empty() && self.needs_rerun(&mut schedule, &completion, result) {
                continue;
            }
            let retry_at_ms = if is_superseded { None } else { attempt::retry_at_ms(&completion) };
            earliest_retry_ms = earliest_retry_ms.or(retry_at_ms);
            if let Some(function) = schedule.functions.get_mut(&completion.function) {
                function.completed(completion.delivery, retry_at_ms);
                if is_committed {
                    self.update_health(function, &completion);
                }
            }
        }
        let mut unknown = Vec::new();
        for delivery in ready {
            let id = delivery.function;
            match schedule.functions.get_mut(&id) {
                Some(function) => {
                    function.lane(Stream::of(delivery.replay)).offer(delivery);
                    self.update_queue(&mut schedule, id);
                }
                None => unknown.push(delivery.id),
            }
        }
        self.release(unknown);
        self.0.uncommitted.fetch_sub(bytes, Ordering::Relaxed);
        self.spawn_worker(&mut schedule);
        drop(schedule);
        if earliest_retry_ms.is_some() {
            self.0.alarm.notify_one();
        }
    }

    /// Updates the function's failure streak after an attempt. Attempts are processed in the order of their commits.
    fn update_health(&self, function: &mut Function, completion: &Completion) {
        let streak = &mut function.streak;
        let is_done = completion.verdict == Verdict::Done;
        if is_done && !streak.has_failures() {
            return;
        }
        // A delivery that a runtime event caused is ignored: it would cause another runtime event. An attempt at a
        // damaged event is ignored: the function did not run.
        if completion.origin == runtime_events::origin() || completion.record.outcome == Outcome::DAMAGED {
            return;
        }
        let has_changed = if is_done {
            streak.succeeded()
        } else {
            streak.failed(completion.delivery, &completion.record, self.0.clock.now_ms())
        };
        if has_changed {
            self.0.health.notify_one();
        }
    }

    /// Handles the commit result of an attempt that used state. Returns true if the attempt is not over: it must run
    /// again after a conflict, or its failure must be committed because it exceeded a quota.
    fn needs_rerun(
        &self,
        schedule: &mut Schedule,
        completion: &Completion,
        result: Result<Completed, StoreError>,
    ) -> bool {
        let Some((delivery, measurement)) = schedule.awaiting_commit.remove(&completion.delivery) else { return false };
        let Some(function) = schedule.functions.get_mut(&completion.function) else { return false };
        let metrics = &function.spec.metrics;
        match result {
            Ok(Completed::Conflict(item)) => {
                measurement.runs_again(metrics);
                schedule.reruns.insert(delivery.id, item);
                function.lane(Stream::of(delivery.replay)).put_back(delivery);
                self.update_queue(schedule, completion.function);
            }
            Ok(Completed::OverQuota(message)) => {
                let refused = attempt::OverQuota { record: completion.record.clone(), message };
                let failed = self.clone().fail_over_quota(function.spec.clone(), delivery, measurement, refused);
                self.0.tasks.spawn_on(failed, &self.0.runtime);
            }
            Ok(Completed::Committed | Completed::Superseded) | Err(_) => {
                measurement.ended(metrics, completion);
                return false;
            }
        }
        true
    }

    /// Commits the failure of an attempt that succeeded but exceeded the quota of a state bucket.
    async fn fail_over_quota(
        self,
        spec: Arc<FunctionSpec>,
        delivery: ReadyDelivery,
        measurement: Measurement,
        refused: attempt::OverQuota,
    ) {
        let completion = attempt::over_quota(&self.0, &spec, &delivery, refused).await;
        measurement.ended(&spec.metrics, &completion);
        self.0.uncommitted.fetch_add(completion_bytes(&completion), Ordering::Relaxed);
        // The store reports its permanent failure itself; the delivery is pending when the store is opened again.
        let _ = self.0.store.settle(Arc::new(completion)).await;
    }

    /// Commits a completion once the disk has room again, or the store can be reached again.
    async fn commit_later(self, completion: Arc<Completion>) {
        let result = attempt::commit_when_possible(&*self.0.store, &completion).await;
        self.committed(Committed { ready: Vec::new(), settled: vec![(completion, result)] });
    }

    /// Gives claimed deliveries that do not run here back to the store, in the background.
    fn release(&self, deliveries: Vec<DeliveryId>) {
        if deliveries.is_empty() {
            return;
        }
        let released = self.0.store.release(deliveries);
        // An error needs no retry: the store reports its permanent failure itself, and claims end with their owner.
        self.0.tasks.spawn_on(async move { drop(released.await) }, &self.0.runtime);
    }

    /// Puts the function's lanes into the run queue if they have work and room, and starts a load for each lane that is
    /// behind the store. Releases the waiting deliveries of a suspended function. Must be called after every change of a
    /// lane.
    fn update_queue(&self, schedule: &mut Schedule, id: FunctionId) {
        let Schedule { functions, queue, reruns, .. } = schedule;
        let Some(function) = functions.get_mut(&id) else { return };
        if function.concurrency == 0 {
            let waiting = function.release_waiting();
            waiting.iter().for_each(|id| drop(reruns.remove(id)));
            self.release(waiting);
            return;
        }
        for stream in Stream::ALL {
            if function.try_queue(stream) {
                queue.push(id, stream);
            }
            if let Some(after) = function.lane(stream).start_load() {
                self.load(id, stream, after);
            }
        }
    }

    /// Spawns a worker task if there is work and room for it. Only one worker starts at a time, and it spawns the next
    /// worker before it runs its own delivery. So a burst of deliveries uses as many tasks as there are threads while
    /// guests only compute, and as many tasks as there are deliveries while guests wait.
    fn spawn_worker(&self, schedule: &mut Schedule) {
        if !schedule.worker_starting
            && self.has_room(schedule)
            && schedule.queue.has_next(self.has_room_for_replays(schedule))
        {
            schedule.worker_starting = true;
            self.0.tasks.spawn_on(self.clone().work(), &self.0.runtime);
        }
    }

    fn has_room(&self, schedule: &Schedule) -> bool {
        !schedule.stopping
            && schedule.running < self.0.running_max
            && self.0.uncommitted.load(Ordering::Relaxed) < UNCOMMITTED_MAX
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
        while let Some(Picked { spec, delivery, changed }) = next {
            let (completion, measurement, state_lock) = attempt::run(&self.0, &spec, &delivery, changed).await;
            self.0.uncommitted.fetch_add(completion_bytes(&completion), Ordering::Relaxed);
            if completion.state.is_empty() {
                measurement.ended(&spec.metrics, &completion);
            } else {
                self.lock().awaiting_commit.insert(delivery.id, (delivery.clone(), measurement));
            }
            let completion = Arc::new(completion);
            if state_lock.is_some() && !completion.state.lists.is_empty() {
                // A list of keys contains only committed keys. So the lock is held until the commit, for the next
                // holder to see this attempt's keys.
                let result = self.0.store.complete(completion.clone()).await;
                self.committed(Committed { ready: Vec::new(), settled: vec![(completion, result)] });
            } else {
                // The store reports its permanent failure itself; the delivery is pending when the store is opened
                // again.
                let _ = self.0.store.settle(completion).await;
            }
            drop(state_lock);
            let mut schedule = self.lock();
            schedule.running = schedule.running.saturating_sub(1);
            schedule.replaying = schedule.replaying.saturating_sub(u32::from(delivery.replay.is_some()));
            if let Some(function) = schedule.functions.get_mut(&delivery.function) {
                function.lane(Stream::of(delivery.replay)).release_slot();
            }
            self.update_queue(&mut schedule, delivery.function);
            next = self.pick(&mut schedule);
        }
    }

    /// Takes the next delivery to run, from the functions in round-robin order.
    fn pick(&self, schedule: &mut Schedule) -> Option<Picked> {
        while self.has_room(schedule) {
            let replays = self.has_room_for_replays(schedule);
            let (id, stream) = schedule.queue.next(replays)?;
            let Some(function) = schedule.functions.get_mut(&id) else { continue };
            function.dequeued(stream);
            // A reload may have lowered the concurrency since the function was queued.
            if !function.has_room(stream) {
                continue;
            }
            let picked = Self::pick_from(function, stream, &schedule.halted).map(|delivery| {
                let changed = if schedule.reruns.is_empty() { None } else { schedule.reruns.remove(&delivery.id) };
                Picked { spec: function.spec.clone(), delivery, changed }
            });
            schedule.running += u32::from(picked.is_some());
            schedule.replaying += u32::from(picked.is_some() && stream == Stream::Replay);
            if picked.is_some() {
                schedule.queue.record_run(stream);
            }
            self.update_queue(schedule, id);
            if picked.is_some() {
                self.spawn_worker(schedule);
                return picked;
            }
        }
        None
    }

    /// Takes the next delivery of a function. Deliveries of halted replays are dropped from memory; the replay task
    /// purges them in the store.
    fn pick_from(function: &mut Function, stream: Stream, halted: &HashSet<ReplayId>) -> Option<ReadyDelivery> {
        let lane = function.lane(stream);
        while let Some(delivery) = lane.pick() {
            if delivery.replay.is_none_or(|replay| !halted.contains(&replay)) {
                return Some(delivery);
            }
            lane.release_slot();
            lane.completed(delivery.id, None);
        }
        None
    }

    /// Changes a function's lanes, then updates the run queue and spawns a worker if the change made work available.
    fn change(&self, id: FunctionId, change: impl FnOnce(&mut Function)) {
        let mut schedule = self.lock();
        if let Some(function) = schedule.functions.get_mut(&id) {
            change(function);
        }
        self.update_queue(&mut schedule, id);
        self.spawn_worker(&mut schedule);
    }

    fn change_lane(&self, id: FunctionId, stream: Stream, change: impl FnOnce(&mut Lane)) {
        self.change(id, |function| change(function.lane(stream)));
    }
}

/// Returns the approximate size of a completion in bytes, for [`UNCOMMITTED_MAX`].
fn completion_bytes(completion: &Completion) -> usize {
    COMPLETION_BYTES + completion.publishes.iter().map(|new| new.event.size()).sum::<usize>() + completion.state.size()
}

#[cfg(test)]
mod tests;
