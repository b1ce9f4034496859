//! The dispatcher: runs deliveries in parallel, within the limits of each function and of the whole, and has the
//! store commit how each ended.
//!
//! It is told of ready deliveries by the store, keeps a bounded window of them per function ([`lane`]), and loads
//! the rest when there is room. Workers take turns through the functions that have work, so that a busy one cannot
//! starve another. A worker hands the end of an attempt to the store and goes on to the next delivery; the store tells
//! of what it committed, for many at a time.

mod attempt;
mod function;
mod lane;
mod load;
mod measure;
mod streak;
mod turns;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use self::function::{Function, Queue, replays_max};
use self::lane::Lane;
use self::measure::Measured;
pub use self::streak::Failing;
use self::turns::Turns;
use crate::bus::Bus;
use crate::clock::{Clock, UnixMs};
use crate::event::Event;
use crate::outcome::{Outcome, RetryPolicy};
use crate::runtime_events;
use crate::state::{Place, Transaction};
use crate::store::{
    Committed, Completed, Completion, DeliveryId, FunctionId, ReadyDelivery, ReplayId, Store, StoreError, Stream,
    Verdict,
};
use crate::telemetry::FunctionMetrics;

/// Runs one function; the sandbox's side of the dispatcher.
pub trait Runner: Send + Sync + 'static {
    /// Makes one attempt. It ends by itself within the function's time-out.
    fn run(&self, call: Call) -> BoxFuture<'_, Ran>;
}

/// One attempt to make.
#[derive(Debug, Clone)]
pub struct Call {
    /// The event that is owed.
    pub event: Arc<Event>,
    /// The delivery's number, for people.
    pub delivery: DeliveryId,
    /// The same on every attempt, and in no other store.
    pub delivery_id: String,
    /// Counts from 1.
    pub attempt: u32,
    /// The trigger that matched.
    pub trigger: Arc<str>,
    /// Whether it is a stored event that is offered again.
    pub replay: bool,
}

/// How an attempt went.
#[derive(Debug, Clone)]
pub struct Ran {
    /// How it ended.
    pub outcome: Outcome,
    /// What it published; counts only when it is done.
    pub published: Vec<Event>,
    /// What it read of its state, and what it writes to it when it is done.
    pub state: Transaction,
    /// How long it took.
    pub duration: Duration,
}

/// A function as the dispatcher knows it.
#[derive(Clone)]
pub struct Worker {
    /// Its id in the store.
    pub id: FunctionId,
    /// How many deliveries run at once.
    pub concurrency: u32,
    /// What follows a failure.
    pub retry: RetryPolicy,
    /// What runs it.
    pub runner: Arc<dyn Runner>,
    /// What its attempts are counted in.
    pub metrics: Arc<FunctionMetrics>,
}

/// A handle to the dispatcher; cheap to clone.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    bus: Bus,
    clock: Clock,
    /// Of all functions together.
    running_max: u32,
    state: Mutex<State>,
    /// At state that several attempts change at once.
    turns: Turns,
    /// What ends of attempts weigh that the store has and did not commit yet.
    uncommitted: AtomicUsize,
    /// Woken when an earlier retry than the one that is waited for came up.
    alarm: Notify,
    /// Woken when a function fails from now on, or does not any more.
    health: Notify,
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
}

#[derive(Default)]
struct State {
    functions: HashMap<FunctionId, Function>,
    queue: Queue,
    running: u32,
    /// Of these, replays.
    replaying: u32,
    /// Replays of which nothing more is started.
    halted: HashSet<ReplayId>,
    /// A worker is on its way that has not looked for work yet.
    worker_comes: bool,
    stopping: bool,
    /// Attempts that used state and are not committed: they may have to run again.
    unsure: HashMap<DeliveryId, (ReadyDelivery, Measured)>,
    /// Since when functions were failing that were not given yet.
    was_failing: HashMap<String, UnixMs>,
    /// Deliveries that run again, with what another changed.
    again: HashMap<DeliveryId, Place>,
}

/// A delivery that is to run now.
struct Picked {
    worker: Arc<Worker>,
    delivery: ReadyDelivery,
    /// What another changed, when it ran before.
    changed: Option<Place>,
}

/// Bytes of published events that wait for their commit, with [`COMPLETION_BYTES`] for each attempt that ended: some
/// four group commits. Past it nothing more is started.
const UNCOMMITTED_MAX: usize = 32 * 1024 * 1024;
const COMPLETION_BYTES: usize = 8 * 1024;

/// The wait after the store did not answer.
const STORE_RETRY: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// A dispatcher that runs at most `running_max` deliveries at once. It does nothing before it is given functions.
    pub fn start(store: &Arc<dyn Store>, bus: Bus, clock: Clock, running_max: u32) -> Self {
        let dispatcher = Self(Arc::new(Inner {
            store: store.clone(),
            bus,
            clock,
            running_max: running_max.max(1),
            state: Mutex::default(),
            turns: Turns::default(),
            uncommitted: AtomicUsize::new(0),
            alarm: Notify::new(),
            health: Notify::new(),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
        }));
        // The store outlives the dispatcher and must not keep it alive.
        let inner = Arc::downgrade(&dispatcher.0);
        store.on_commit(Box::new(move |committed| {
            if let Some(inner) = inner.upgrade() {
                Self(inner).committed(committed);
            }
        }));
        let inner = Arc::downgrade(&dispatcher.0);
        tokio::spawn(Self::watch_retries(inner));
        dispatcher
    }

    /// Puts these functions in charge from now on. A function that is not among them rests: what runs goes on, what
    /// waits stays in the store until it is back.
    pub fn set_functions(&self, workers: Vec<Worker>) {
        let mut state = self.lock();
        state.functions.values_mut().for_each(|function| function.concurrency = 0);
        for worker in workers {
            let id = worker.id;
            match state.functions.get_mut(&id) {
                Some(function) => function.put_in_charge(worker),
                None => {
                    let was_failing = state.was_failing.remove(&*worker.metrics.name);
                    state.functions.insert(id, Function::new(worker, was_failing));
                }
            }
            self.consider(&mut state, id);
        }
        self.bring_worker(&mut state);
        drop(state);
        self.0.alarm.notify_one();
    }

    /// How many deliveries of each function run now.
    pub fn running(&self) -> HashMap<FunctionId, u32> {
        self.lock().functions.iter().map(|(id, function)| (*id, function.running())).collect()
    }

    /// Starts nothing more of a replay; answers what of all replays was started and is not committed yet.
    pub fn halt(&self, replay: ReplayId) -> Vec<DeliveryId> {
        let mut state = self.lock();
        state.halted.insert(replay);
        state.functions.values_mut().flat_map(|function| function.lane(Stream::Replay).started()).collect()
    }

    /// Starts deliveries of a replay again.
    pub fn resume(&self, replay: ReplayId) {
        self.lock().halted.remove(&replay);
    }

    /// How many deliveries of each function wait in memory now.
    pub fn held(&self) -> HashMap<FunctionId, u32> {
        self.lock().functions.iter().map(|(id, function)| (*id, function.waiting())).collect()
    }

    /// The functions that are failing now.
    pub fn failing(&self) -> HashMap<FunctionId, Failing> {
        let failing = |(id, function): (&FunctionId, &Function)| Some((*id, function.streak.failing()?.clone()));
        self.lock().functions.iter().filter_map(failing).collect()
    }

    /// Takes functions that were failing at these times, when they were seen last, for failing until they succeed.
    /// They are told before they are given, by their full names.
    pub fn resume_failing(&self, since_ms: HashMap<String, UnixMs>) {
        self.lock().was_failing = since_ms;
    }

    /// Waits until a function fails from now on, or does not any more. For one who waits.
    pub async fn health_changed(&self) {
        self.0.health.notified().await;
    }

    /// Starts nothing more and waits for what runs, at most for `limit`; answers how many were left running. What
    /// was not finished stays pending in the store.
    pub async fn drain(&self, limit: Duration) -> u32 {
        self.lock().stopping = true;
        self.0.alarm.notify_one();
        self.0.tasks.close();
        let _ = tokio::time::timeout(limit, self.0.tasks.wait()).await;
        self.lock().running
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the store committed: attempts that are over, and deliveries that can run.
    fn committed(&self, committed: Committed) {
        let Committed { ready, settled } = committed;
        let mut weight = 0;
        let mut state = self.lock();
        let mut earliest_retry_ms = None;
        for (completion, result) in settled {
            if let Err(StoreError::Full) = result {
                self.0.tasks.spawn_on(self.clone().commit_later(completion), &self.0.runtime);
                continue;
            }
            weight += weight_of(&completion);
            let is_committed = result.is_ok();
            if !completion.state.is_empty() && self.has_to_go_on(&mut state, &completion, result) {
                continue;
            }
            let retry_at_ms = attempt::retry_at_ms(&completion);
            earliest_retry_ms = earliest_retry_ms.or(retry_at_ms);
            if let Some(function) = state.functions.get_mut(&completion.function) {
                function.ended(completion.delivery, retry_at_ms);
                if is_committed {
                    self.note_health(function, &completion);
                }
            }
        }
        for delivery in ready {
            let id = delivery.function;
            if let Some(function) = state.functions.get_mut(&id) {
                function.lane(Stream::of(delivery.replay)).offer(delivery);
                self.consider(&mut state, id);
            }
        }
        self.0.uncommitted.fetch_sub(weight, Ordering::Relaxed);
        self.bring_worker(&mut state);
        drop(state);
        if earliest_retry_ms.is_some() {
            self.0.alarm.notify_one();
        }
    }

    /// Notes how an attempt ended, in the order of their commits.
    fn note_health(&self, function: &mut Function, completion: &Completion) {
        let streak = &mut function.streak;
        let is_done = completion.verdict == Verdict::Done;
        if is_done && !streak.is_broken() {
            return;
        }
        // What came of a runtime event says nothing of a function: it would be told with another. And where the event
        // was damaged, the function had nothing to do with it.
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

    /// What follows on the commit of an attempt that used state. `false` when it is over.
    fn has_to_go_on(&self, state: &mut State, completion: &Completion, result: Result<Completed, StoreError>) -> bool {
        let Some((delivery, measured)) = state.unsure.remove(&completion.delivery) else { return false };
        let Some(function) = state.functions.get_mut(&completion.function) else { return false };
        let metrics = &function.worker.metrics;
        match result {
            Ok(Completed::Conflict(place)) => {
                measured.runs_again(metrics);
                state.again.insert(delivery.id, place);
                function.lane(Stream::of(delivery.replay)).again(delivery);
                self.consider(state, completion.function);
            }
            Ok(Completed::OverQuota(message)) => {
                let refused = attempt::OverQuota { record: completion.record.clone(), message };
                let failed = self.clone().fail(function.worker.clone(), delivery, measured, refused);
                self.0.tasks.spawn_on(failed, &self.0.runtime);
            }
            Ok(Completed::Committed) | Err(_) => {
                measured.ended(metrics, completion);
                return false;
            }
        }
        true
    }

    /// Ends an attempt that was done, but for the room in a bucket of its state.
    async fn fail(self, worker: Arc<Worker>, delivery: ReadyDelivery, measured: Measured, refused: attempt::OverQuota) {
        let completion = attempt::over_quota(&self.0, &worker, &delivery, refused).await;
        measured.ended(&worker.metrics, &completion);
        self.0.uncommitted.fetch_add(weight_of(&completion), Ordering::Relaxed);
        // The store says itself when it is gone for good; the delivery is pending when it is opened again.
        let _ = self.0.store.settle(Arc::new(completion)).await;
    }

    async fn commit_later(self, completion: Arc<Completion>) {
        let result = attempt::commit_when_there_is_room(&*self.0.store, &completion).await;
        self.committed(Committed { ready: Vec::new(), settled: vec![(completion, result)] });
    }

    /// After every change of a function's lanes: gives them a turn when they can use one, and loads when they are
    /// behind.
    fn consider(&self, state: &mut State, id: FunctionId) {
        let State { functions, queue, .. } = state;
        let Some(function) = functions.get_mut(&id) else { return };
        for stream in Stream::ALL {
            if function.takes_turn(stream) {
                queue.push(id, stream);
            }
            if function.concurrency > 0
                && let Some(after) = function.lane(stream).start_load()
            {
                self.load(id, stream, after);
            }
        }
    }

    /// Brings a worker when there is work and room for it. One is brought at a time; it brings the next before it
    /// starts to work itself. So while guests only compute, a burst of deliveries takes as many tasks as there are
    /// threads, and while guests wait, as many as there are deliveries.
    fn bring_worker(&self, state: &mut State) {
        if !state.worker_comes && self.has_room(state) && state.queue.has_next(self.has_room_for_replays(state)) {
            state.worker_comes = true;
            self.0.tasks.spawn_on(self.clone().work(), &self.0.runtime);
        }
    }

    fn has_room(&self, state: &State) -> bool {
        !state.stopping
            && state.running < self.0.running_max
            && self.0.uncommitted.load(Ordering::Relaxed) < UNCOMMITTED_MAX
    }

    fn has_room_for_replays(&self, state: &State) -> bool {
        state.replaying < replays_max(self.0.running_max)
    }

    async fn work(self) {
        let mut next = {
            let mut state = self.lock();
            state.worker_comes = false;
            self.pick(&mut state)
        };
        while let Some(Picked { worker, delivery, changed }) = next {
            let (completion, measured, turn) = attempt::make(&self.0, &worker, &delivery, changed).await;
            self.0.uncommitted.fetch_add(weight_of(&completion), Ordering::Relaxed);
            if completion.state.is_empty() {
                measured.ended(&worker.metrics, &completion);
            } else {
                self.lock().unsure.insert(delivery.id, (delivery.clone(), measured));
            }
            let completion = Arc::new(completion);
            if turn.is_some() && !completion.state.lists.is_empty() {
                // A list of keys shows what is committed, so whoever has the next turn has to find it committed.
                let result = self.0.store.complete(completion.clone()).await;
                self.committed(Committed { ready: Vec::new(), settled: vec![(completion, result)] });
            } else {
                // The store says itself when it is gone for good; the delivery is pending when it is opened again.
                let _ = self.0.store.settle(completion).await;
            }
            drop(turn);
            let mut state = self.lock();
            state.running = state.running.saturating_sub(1);
            state.replaying = state.replaying.saturating_sub(u32::from(delivery.replay.is_some()));
            if let Some(function) = state.functions.get_mut(&delivery.function) {
                function.lane(Stream::of(delivery.replay)).ran();
            }
            self.consider(&mut state, delivery.function);
            next = self.pick(&mut state);
        }
    }

    /// The next delivery to run: functions take turns.
    fn pick(&self, state: &mut State) -> Option<Picked> {
        while self.has_room(state) {
            let replays = self.has_room_for_replays(state);
            let (id, stream) = state.queue.next(replays)?;
            let Some(function) = state.functions.get_mut(&id) else { continue };
            function.turn_came(stream);
            // Its room may be gone since it queued for a turn: a reload made it smaller.
            if !function.has_room(stream) {
                continue;
            }
            let picked = Self::pick_of(function, stream, &state.halted).map(|delivery| {
                let changed = if state.again.is_empty() { None } else { state.again.remove(&delivery.id) };
                Picked { worker: function.worker.clone(), delivery, changed }
            });
            state.running += u32::from(picked.is_some());
            state.replaying += u32::from(picked.is_some() && stream == Stream::Replay);
            if picked.is_some() {
                state.queue.used(stream);
            }
            self.consider(state, id);
            if picked.is_some() {
                self.bring_worker(state);
                return picked;
            }
        }
        None
    }

    /// The next delivery of a function; those of replays that are halted are left to whoever halted them.
    fn pick_of(function: &mut Function, stream: Stream, halted: &HashSet<ReplayId>) -> Option<ReadyDelivery> {
        let lane = function.lane(stream);
        while let Some(delivery) = lane.pick() {
            if delivery.replay.is_none_or(|replay| !halted.contains(&replay)) {
                return Some(delivery);
            }
            lane.ran();
            lane.ended(delivery.id, None);
        }
        None
    }

    /// Changes a function's lanes, and starts what the change makes possible.
    fn change(&self, id: FunctionId, change: impl FnOnce(&mut Function)) {
        let mut state = self.lock();
        if let Some(function) = state.functions.get_mut(&id) {
            change(function);
        }
        self.consider(&mut state, id);
        self.bring_worker(&mut state);
    }

    fn change_lane(&self, id: FunctionId, stream: Stream, change: impl FnOnce(&mut Lane)) {
        self.change(id, |function| change(function.lane(stream)));
    }
}

fn weight_of(completion: &Completion) -> usize {
    COMPLETION_BYTES + completion.publishes.iter().map(|new| new.event.size()).sum::<usize>() + completion.state.size()
}

#[cfg(test)]
mod tests;
