//! The dispatcher runs deliveries in parallel. Their number is limited per function and for all functions together. The
//! store commits the outcome of each attempt.
//!
//! The store notifies the dispatcher of ready deliveries after each commit. For each function, the dispatcher keeps a
//! bounded number of ready deliveries in memory (`lane`), and loads the others from the store when there is room
//! (`load`). Worker tasks take deliveries from the functions in turn (`scheduling`), so that a busy function cannot
//! starve another. A *place* is the permission to run one delivery; the last free places are reserved for functions
//! without a running delivery. When an attempt ends (`attempt`), the worker passes the result of the attempt, the
//! completion, to the store. Then it continues with the next delivery without waiting for the commit. The store later
//! reports the committed completions (`commits`). A function with several failed attempts in a row counts as failing
//! (`health`). If an earlier process ended without a clean stop, each delivery that it was running is later run alone
//! (`isolation`). A function that sends its deliveries to an endpoint has a circuit breaker, which holds deliveries
//! back while the endpoint is down (`circuit`, `endpoint`). A function that is renamed is suspended until the store has
//! renamed it (`suspension`).

mod attempt;
mod circuit;
mod commits;
mod endpoint;
mod function;
mod health;
mod isolation;
mod lane;
mod load;
mod measure;
mod run_queue;
mod scheduling;
mod state_locks;
mod suspension;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use foldhash::{HashMap, HashSet};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

pub use self::circuit::{CircuitPolicy, OpenCircuit};
use self::function::Function;
pub use self::health::{Failing, LastFailure};
use self::isolation::Isolation;
use self::scheduling::Schedule;
use self::state_locks::StateLocks;
use crate::bus::Bus;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::{Outcome, RetryPolicy};
use evoke_model::recording::NewRecording;
use evoke_model::state::Transaction;
use evoke_model::{Completion, DeliveryId, FunctionId, ReplayId, Stream};
use evoke_store::DeliveryStore;
use evoke_store::running::{NoRunningLog, RunningLog};
use evoke_telemetry::{FunctionMetrics, TraceContext};

/// Runs one function: a component in the sandbox, or requests to an endpoint.
pub trait Runner: Send + Sync + 'static {
    /// Runs one attempt. The implementation enforces the function's timeout.
    fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult>;

    /// Returns the settings of the function's circuit breaker; `None` if its attempts are no requests to an endpoint.
    /// An attempt that is such a request runs no code of a user, so it is not recorded as work that can crash the
    /// process.
    fn circuit(&self) -> Option<CircuitPolicy> {
        None
    }
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
    /// The number of functions in the chain of events that led to the event.
    pub hops: u32,
    /// The trace context of the attempt. `None` if tracing is off: requests of the function then carry the context of
    /// the event.
    pub trace: Option<TraceContext>,
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
    /// The message of a successful attempt, such as the status of a response.
    pub note: Option<String>,
    /// The recording of the attempt, to store with its outcome.
    pub recording: Option<NewRecording>,
    /// True if a response arrived, unless the response says that the endpoint can take no request now. If this is
    /// false, the outcome does not show that the endpoint is up. Always false if the function has no endpoint.
    pub responded: bool,
}

/// The settings and the runner of a function.
#[derive(Clone)]
pub struct FunctionSpec {
    /// The function's id in the store.
    pub id: FunctionId,
    /// The maximum number of deliveries that run at the same time.
    pub concurrency: u32,
    /// When failed deliveries are retried.
    pub retry: RetryPolicy,
    /// Runs the attempts.
    pub runner: Arc<dyn Runner>,
    /// Counts the attempts.
    pub metrics: Arc<FunctionMetrics>,
}

pub type EndedSink = Box<dyn Fn(&Arc<Completion>) + Send + Sync>;

/// A handle to the dispatcher; cheap to clone.
#[derive(Clone)]
pub struct Dispatcher(Arc<Inner>);

struct Inner {
    store: Arc<dyn DeliveryStore>,
    bus: Bus,
    clock: Clock,
    /// Records the running attempts.
    running: Arc<dyn RunningLog>,
    /// The maximum number of running deliveries of all functions together.
    running_max: u32,
    schedule: Mutex<Schedule>,
    /// Locks on state that several attempts change at the same time.
    state_locks: StateLocks,
    /// The size in bytes of the completions that were passed to the store and are not committed yet.
    uncommitted: AtomicUsize,
    /// Wakes the task that loads retries when a retry may be due earlier than the task expects.
    alarm: Notify,
    /// Wakes the task that watches circuits when a delivery can start earlier than the task expects.
    circuits: Notify,
    /// Receives every committed attempt; must not block.
    on_ended: OnceLock<EndedSink>,
    /// Notified when a function starts or stops failing, when a circuit opens or closes, and when an endpoint turns out
    /// to be gone for good.
    health: Notify,
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
    /// Runs the attempts.
    workers: tokio::runtime::Handle,
}

/// The wait before a retry after an error of the store.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// The longest wait at the end of a drain until the store has released the deliveries that did not start. They are also
/// released when this process ends, so it is harmless to stop waiting.
const RELEASE_MAX: Duration = Duration::from_secs(1);

impl Dispatcher {
    /// Starts a dispatcher that runs at most `running_max` deliveries at the same time, and none before
    /// [`Dispatcher::set_functions`] is called. Must be called within a tokio runtime.
    pub fn start(store: Arc<dyn DeliveryStore>, bus: Bus, clock: Clock, running_max: u32) -> Self {
        let current = tokio::runtime::Handle::current();
        Self::start_recorded(store, bus, clock, running_max, Arc::new(NoRunningLog), BTreeMap::new(), current)
    }

    /// Like [`Dispatcher::start`], but records the running attempts in `running`. `exits` is the result of
    /// [`DeliveryStore::record_exit`]: for some deliveries, how often the process ended without a clean stop while the
    /// delivery ran. Each of these deliveries runs alone, or becomes a dead letter. Attempts run on the tokio runtime
    /// `workers`, all other tasks on the current one.
    pub fn start_recorded(
        store: Arc<dyn DeliveryStore>,
        bus: Bus,
        clock: Clock,
        running_max: u32,
        running: Arc<dyn RunningLog>,
        exits: BTreeMap<DeliveryId, u32>,
        workers: tokio::runtime::Handle,
    ) -> Self {
        let schedule = Schedule::new(Isolation::new(exits));
        let dispatcher = Self(Arc::new(Inner {
            store,
            bus,
            clock,
            running,
            running_max: running_max.max(1),
            schedule: Mutex::new(schedule),
            state_locks: StateLocks::default(),
            uncommitted: AtomicUsize::new(0),
            alarm: Notify::new(),
            circuits: Notify::new(),
            on_ended: OnceLock::new(),
            health: Notify::new(),
            tasks: TaskTracker::new(),
            runtime: tokio::runtime::Handle::current(),
            workers,
        }));
        // The store keeps this closure and outlives the dispatcher. A strong reference would keep the dispatcher alive.
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

    /// Sets the sink that receives every committed attempt. Only the first call has an effect. The sink must not block.
    pub fn on_ended(&self, sink: EndedSink) {
        let _ = self.0.on_ended.set(sink);
    }

    /// Replaces the active functions. A function that is missing in `specs` is suspended. Its running attempts
    /// continue. Its other deliveries are released: they stay pending in the store until the function is active again.
    pub fn set_functions(&self, specs: Vec<FunctionSpec>) {
        let mut schedule = self.lock();
        schedule.functions.values_mut().for_each(Function::deactivate);
        for spec in specs {
            let id = spec.id;
            match schedule.functions.get_mut(&id) {
                Some(function) => function.replace_spec(spec),
                None => {
                    let was_failing = schedule.was_failing.remove(&*spec.metrics.name);
                    let was_open = schedule.circuits.was_open.remove(&*spec.metrics.name);
                    schedule.functions.insert(id, Function::new(spec, was_failing, was_open));
                }
            }
        }
        self.watch_circuits(&mut schedule);
        self.update_all(schedule);
    }

    /// Replaces the set of paused functions, also for functions that become active later. The running attempts of a
    /// paused function continue; its other deliveries stay pending in the store.
    pub fn set_paused(&self, paused: HashSet<FunctionId>) {
        let mut schedule = self.lock();
        schedule.paused = paused;
        self.update_all(schedule);
    }

    /// Suspends the functions that are paused or being renamed, and starts the deliveries that may run now.
    fn update_all(&self, mut schedule: MutexGuard<'_, Schedule>) {
        let Schedule { functions, paused, suspended, .. } = &mut *schedule;
        for (id, function) in functions {
            function.set_paused(paused.contains(id));
            function.set_suspended(suspended.contains(id));
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

    /// Returns, for each running delivery, the time since its attempt started.
    pub fn running_for(&self) -> HashMap<DeliveryId, Duration> {
        self.lock().started.iter().map(|(id, start)| (*id, start.elapsed())).collect()
    }

    /// Returns the number of deliveries that were started and whose completions are not committed yet.
    pub fn unfinished(&self) -> usize {
        let mut schedule = self.lock();
        let functions = schedule.functions.values_mut();
        functions
            .map(|function| Stream::ALL.map(|stream| function.lane(stream).started().len()).iter().sum::<usize>())
            .sum()
    }

    /// Stops starting deliveries of this replay. Returns, for all replays, the deliveries that were started and whose
    /// completions are not committed yet.
    pub fn halt(&self, replay: ReplayId) -> Vec<DeliveryId> {
        let mut schedule = self.lock();
        schedule.halted.insert(replay);
        schedule.functions.values_mut().flat_map(|function| function.lane(Stream::Replay).started()).collect()
    }

    /// Ends the effect of [`Dispatcher::halt`]. Must be called after the store has purged the deliveries of the replay.
    /// Removes those that wait in memory.
    pub fn resume(&self, replay: ReplayId) {
        let mut schedule = self.lock();
        schedule.halted.remove(&replay);
        // The store has purged these deliveries, so they must not start.
        schedule.functions.values_mut().for_each(|function| function.lane(Stream::Replay).forget_replay(replay));
    }

    /// Returns, for each function, the number of deliveries that wait in memory. More may wait in the store.
    pub fn waiting(&self) -> HashMap<FunctionId, u32> {
        self.lock().functions.iter().map(|(id, function)| (*id, function.waiting())).collect()
    }

    /// Stops starting deliveries, and waits at most `limit` for the running ones. Returns the number of deliveries that
    /// still run. Deliveries that did not start are released. Deliveries that did not end stay pending in the store.
    pub async fn drain(&self, limit: Duration) -> u32 {
        self.lock().stopping = true;
        self.0.alarm.notify_one();
        self.0.tasks.close();
        let _ = tokio::time::timeout(limit, self.0.tasks.wait()).await;
        let waiting = self.release_all();
        let _ = tokio::time::timeout(RELEASE_MAX, self.0.store.release(waiting)).await;
        self.lock().running
    }

    /// Removes all waiting deliveries from memory, and returns their ids.
    fn release_all(&self) -> Vec<DeliveryId> {
        let mut schedule = self.lock();
        for suspect in schedule.isolation.take_waiting(|_| true) {
            schedule.put_back(suspect);
        }
        schedule.functions.values_mut().flat_map(Function::release_waiting).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.0.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
