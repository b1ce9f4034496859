//! Replays: stored events are delivered again, to the functions whose triggers match them now. Replayed deliveries are
//! marked as such, their number is limited, and live deliveries run before them.
//!
//! A replay is a row in the store. One task advances all active replays step by step. A step reads some events after
//! the replay's position, routes them, and commits their deliveries together with the new position. So after a restart,
//! the replay continues from its position, and delivers no event twice to the same function.

mod filter;
mod plan;
mod rate_limit;

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::filter::{CompiledFilter, Filter, stored_filter_error};
pub use self::plan::{DryRun, Example, Plan, ReadStep};
use self::rate_limit::RateLimiter;
use crate::blocking;
use crate::bus::Bus;
use crate::dispatcher::Dispatcher;
use evoke_model::text::parser_message;
use evoke_model::{Actor, FunctionId, NewReplay, Replay, ReplayId, ReplayState, Seq, Step};
use evoke_store::{DeliveryStore, Ownership, Store, StoreError};

/// The maximum number of replays that are not finished. Each of them has deliveries in the store and in memory.
const OPEN_MAX: usize = 16;

/// The approximate maximum number of outstanding deliveries of a replay: ready to run, or waiting for a retry. The
/// replay creates further deliveries only while at most half of this number are outstanding. So replays hardly load the
/// store and the dispatcher, and leave room for live deliveries.
const OUTSTANDING_MAX: u64 = 512;
/// A replay creates no deliveries while more than this number of its deliveries are blocked. A blocked delivery waits
/// for an earlier delivery with the same order key. The earlier delivery can be a dead letter.
const BLOCKED_MAX: u64 = 20_000;

/// The maximum number of events for which one step creates deliveries. A step is one commit, and live events may have
/// to wait for that commit. This number of events of the largest size has 32 MiB.
const STEP_MAX: usize = 32;
/// The maximum number of events that one step reads; this takes some milliseconds.
const SCAN_MAX: i64 = 4096;

/// The wait before the next try when no replay can advance: short enough for any reasonable rate.
const PAUSE: Duration = Duration::from_millis(20);
/// The wait before a retry after an error of the store.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// The wait before the next try to take the ownership of a replay that another owner advances.
const OWN_RETRY: Duration = Duration::from_secs(1);

/// Why a request about a replay was rejected or failed.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The filter is not valid.
    #[error("{0}")]
    Filter(String),
    /// No replay has this number.
    #[error("there is no replay {0}")]
    NotFound(ReplayId),
    /// The state of the replay does not allow the action.
    #[error("replay {id} is {} and cannot be {action}", state.name())]
    State {
        /// The number of the replay.
        id: ReplayId,
        /// The state of the replay.
        state: ReplayState,
        /// The action: `paused`, `resumed` or `cancelled`.
        action: &'static str,
    },
    /// The limit of unfinished replays is reached.
    #[error("the limit of {OPEN_MAX} unfinished replays is reached; wait until a replay is finished, or cancel one")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An action on a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayAction {
    /// Stops creating deliveries. The deliveries that exist already still run.
    Pause,
    /// Continues a paused replay.
    Resume,
    /// Ends the replay: no more deliveries are created, and deliveries that did not start are purged.
    Cancel,
}

/// A handle to the replays; cheap to clone.
#[derive(Clone)]
pub struct Replays(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    bus: Bus,
    /// The replays that the task advances: running or being cancelled.
    active: Mutex<BTreeSet<ReplayId>>,
    changed: Notify,
}

impl Replays {
    /// Creates a handle. Replayed events are routed with the active router of `bus`.
    pub fn new(store: Arc<dyn Store>, bus: Bus) -> Self {
        Self(Arc::new(Inner { store, bus, active: Mutex::default(), changed: Notify::new() }))
    }

    /// Checks the function of a filter. `functions` are the full names of the active functions. Returns the work that
    /// compiles the filter. The caller must run it on a thread for blocking work, because long patterns take long to
    /// compile.
    ///
    /// # Errors
    /// [`ReplayError::Filter`], also as the result of the work, or [`ReplayError::Store`].
    pub async fn compile(
        &self,
        filter: Filter,
        functions: &[String],
    ) -> Result<impl FnOnce() -> Result<CompiledFilter, ReplayError> + Send + use<>, ReplayError> {
        if let Some(function) = &filter.function
            && !functions.contains(function)
        {
            return Err(ReplayError::Filter(format!(
                "there is no active function `{function}`; `evoke status` lists the active functions"
            )));
        }
        let function = function_id(&*self.0.store, &filter).await?;
        Ok(move || CompiledFilter::new(filter, function))
    }

    /// Starts a replay of the events that the store has now. `actor` is the requester.
    ///
    /// # Errors
    /// [`ReplayError::TooMany`] or [`ReplayError::Store`].
    pub async fn start(&self, actor: &Actor, filter: &CompiledFilter) -> Result<Replay, ReplayError> {
        let (store, filter) = (&self.0.store, filter.filter());
        let is_over = |state| matches!(state, ReplayState::Done | ReplayState::Cancelled | ReplayState::Failed);
        let open = |replay: &&Replay| !is_over(replay.state);
        if store.replays(ReplayId(0), usize::MAX).await?.iter().filter(open).count() >= OPEN_MAX {
            return Err(ReplayError::TooMany);
        }
        let (after, until) = self.range(filter);
        // Serialization cannot fail: the filter has only strings, numbers and JSON.
        let text = serde_json::to_string(filter).unwrap_or_default();
        let id = store.start_replay(actor, NewReplay { filter: text, after, until }).await?;
        self.activate(id);
        store.replay(id).await?.ok_or(ReplayError::NotFound(id))
    }

    /// Starts a dry run. The dry run counts the events and the deliveries of a replay that would start now, and creates
    /// no deliveries. `functions` are the full names of the active functions.
    ///
    /// # Errors
    /// The store failed.
    pub async fn dry_run(&self, filter: CompiledFilter, functions: Vec<String>) -> Result<DryRun, StoreError> {
        let ids = self.0.store.register(functions.clone()).await?;
        let names = ids.into_iter().zip(functions).collect();
        let range = self.range(filter.filter());
        Ok(DryRun::new(self.0.store.clone(), self.0.bus.router(), filter, range, names))
    }

    /// Pauses, resumes or cancels a replay. `actor` is the requester. Returns the replay after the action.
    ///
    /// # Errors
    /// [`ReplayError::NotFound`], [`ReplayError::State`] or [`ReplayError::Store`].
    pub async fn apply(&self, actor: &Actor, id: ReplayId, action: ReplayAction) -> Result<Replay, ReplayError> {
        use ReplayState::{Cancelling, Paused, Running};
        let (from, to, done): (&'static [ReplayState], _, _) = match action {
            ReplayAction::Pause => (&[Running], Paused, "paused"),
            ReplayAction::Resume => (&[Paused], Running, "resumed"),
            ReplayAction::Cancel => (&[Running, Paused], Cancelling, "cancelled"),
        };
        let changed = self.0.store.transition_replay(actor, id, from, to).await?;
        let replay = self.0.store.replay(id).await?.ok_or(ReplayError::NotFound(id))?;
        if !changed {
            return Err(ReplayError::State { id, state: replay.state, action: done });
        }
        self.activate(id);
        Ok(replay)
    }

    /// Runs the task that advances the replays, until `stop` is cancelled or the store is closed.
    pub async fn run(self, dispatcher: Dispatcher, stop: CancellationToken) {
        let mut task = ReplayTask { replays: self, dispatcher, prepared: HashMap::new(), owned: HashMap::new() };
        let _ = stop.run_until_cancelled(task.run()).await;
    }

    /// Returns the range of events to replay: after the first number, up to and including the second.
    fn range(&self, filter: &Filter) -> (Seq, Seq) {
        match filter.event {
            Some(seq) => (Seq(seq.0.saturating_sub(1)), seq),
            None => (Seq(0), *self.0.store.newest().borrow()),
        }
    }

    fn activate(&self, id: ReplayId) {
        self.active().insert(id);
        self.0.changed.notify_one();
    }

    fn active(&self) -> std::sync::MutexGuard<'_, BTreeSet<ReplayId>> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn function_id(store: &dyn DeliveryStore, filter: &Filter) -> Result<Option<FunctionId>, StoreError> {
    Ok(match &filter.function {
        Some(name) => store.register(vec![name.clone()]).await?.first().copied(),
        None => None,
    })
}

/// The task that advances the replays.
struct ReplayTask {
    replays: Replays,
    dispatcher: Dispatcher,
    /// The compiled filter and the rate limiter of each replay, kept from step to step.
    prepared: HashMap<ReplayId, Prepared>,
    /// The ownership of each replay that this task advances. For a replay that another owner advances, the time of the
    /// next try to take the ownership.
    owned: HashMap<ReplayId, Result<Ownership, Instant>>,
}

struct Prepared {
    /// The filter as stored, to notice when the store changes it.
    text: String,
    filter: Arc<CompiledFilter>,
    limiter: RateLimiter,
}

/// The result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The next step can follow immediately.
    Again,
    /// The replay cannot advance now; try again after [`PAUSE`].
    Wait,
    /// The replay is finished or paused.
    Finished,
}

impl ReplayTask {
    async fn run(&mut self) {
        while let Err(error) = self.load_active().await {
            tracing::warn!("cannot load the unfinished replays from the store; trying again: {error}");
            tokio::time::sleep(STORE_RETRY).await;
        }
        loop {
            let active = self.replays.active().clone();
            let mut wait = if active.is_empty() { None } else { Some(PAUSE) };
            for id in active {
                match self.step(id).await {
                    Ok(Progress::Again) => wait = Some(Duration::ZERO),
                    Ok(Progress::Wait) => {}
                    Ok(Progress::Finished) => {
                        self.prepared.remove(&id);
                        self.owned.remove(&id);
                        self.replays.active().remove(&id);
                        // An operator may have resumed or cancelled the paused replay in the meantime.
                        self.reactivate(id).await;
                    }
                    Err(ReplayError::Store(StoreError::Closed | StoreError::Fenced(_))) => return,
                    Err(error) => {
                        tracing::warn!("cannot continue replay {id}; trying again: {error}");
                        wait = Some(STORE_RETRY);
                    }
                }
            }
            match wait {
                // Lets other tasks run in between.
                Some(Duration::ZERO) => tokio::task::yield_now().await,
                Some(wait) => tokio::time::sleep(wait).await,
                None => self.replays.0.changed.notified().await,
            }
        }
    }

    /// Adds the replays that were active when the previous process ended.
    async fn load_active(&self) -> Result<(), StoreError> {
        let all = self.replays.0.store.replays(ReplayId(0), usize::MAX).await?;
        let active = all.iter().filter(|replay| is_active(replay.state)).map(|replay| replay.id);
        self.replays.active().extend(active);
        Ok(())
    }

    /// Marks a replay as active again if its state in the store is active.
    async fn reactivate(&self, id: ReplayId) {
        if let Ok(Some(replay)) = self.replays.0.store.replay(id).await
            && is_active(replay.state)
        {
            self.replays.activate(id);
        }
    }

    /// Takes the ownership of a replay. Returns false while another owner advances the replay.
    async fn own(&mut self, id: ReplayId) -> Result<bool, StoreError> {
        match self.owned.get(&id) {
            Some(Ok(_)) => return Ok(true),
            Some(Err(retry_at)) if Instant::now() < *retry_at => return Ok(false),
            Some(Err(_)) | None => {}
        }
        let owned = self.replays.0.store.own(&format!("replay/{id}")).await?;
        let is_owned = owned.is_some();
        self.owned.insert(id, owned.ok_or_else(|| Instant::now() + OWN_RETRY));
        Ok(is_owned)
    }

    async fn step(&mut self, id: ReplayId) -> Result<Progress, ReplayError> {
        let store = self.replays.0.store.clone();
        if !self.own(id).await? {
            return Ok(Progress::Wait);
        }
        let replay = store.replay(id).await?.ok_or(ReplayError::NotFound(id))?;
        match replay.state {
            ReplayState::Running if replay.position < replay.until => match self.offer(&replay).await {
                // The filter was valid when the replay was started, but is not valid any more. A retry cannot succeed.
                Err(ReplayError::Filter(reason)) => {
                    tracing::error!("replay {id} stopped and failed: its stored filter is not valid: {reason}");
                    let from = &[ReplayState::Running];
                    store.transition_replay(&Actor::Runtime, id, from, ReplayState::Failed).await?;
                    Ok(Progress::Finished)
                }
                result => result,
            },
            ReplayState::Running if replay.deliveries.pending() > 0 => Ok(Progress::Wait),
            ReplayState::Running => {
                store.transition_replay(&Actor::Runtime, id, &[ReplayState::Running], ReplayState::Done).await?;
                Ok(Progress::Finished)
            }
            ReplayState::Cancelling => {
                // First, the dispatcher stops starting deliveries of this replay. So a delivery that has not started
                // now will never start.
                let started = self.dispatcher.halt(id);
                store.purge_replay(&Actor::Runtime, id, started).await?;
                if store.replay(id).await?.is_some_and(|replay| replay.deliveries.pending() > 0) {
                    return Ok(Progress::Wait);
                }
                store
                    .transition_replay(&Actor::Runtime, id, &[ReplayState::Cancelling], ReplayState::Cancelled)
                    .await?;
                // Ends the halt. Otherwise, no dead letter of this replay would start after an operator redrove it.
                self.dispatcher.resume(id);
                Ok(Progress::Finished)
            }
            ReplayState::Paused | ReplayState::Done | ReplayState::Cancelled | ReplayState::Failed => {
                Ok(Progress::Finished)
            }
        }
    }

    /// Creates the deliveries of the next events, if the limits and the rate allow it.
    async fn offer(&mut self, replay: &Replay) -> Result<Progress, ReplayError> {
        let counts = &replay.deliveries;
        if counts.ready + counts.retrying > OUTSTANDING_MAX / 2 || counts.blocked > BLOCKED_MAX {
            return Ok(Progress::Wait);
        }
        let inner = self.replays.0.clone();
        // The store changes a filter when its function is renamed.
        if self.prepared.get(&replay.id).is_some_and(|prepared| prepared.text != replay.filter) {
            self.prepared.remove(&replay.id);
        }
        let Prepared { filter, limiter, .. } = match self.prepared.entry(replay.id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let filter: Filter =
                    serde_json::from_str(&replay.filter).map_err(|e| ReplayError::Filter(parser_message(&e)))?;
                let (text, limiter) = (replay.filter.clone(), RateLimiter::new(filter.rate));
                let function = function_id(&*inner.store, &filter).await?;
                let filter = blocking::run(move || CompiledFilter::new(filter, function)).await?;
                new.insert(Prepared { text, filter: filter.into(), limiter })
            }
        };
        let room = limiter.room(STEP_MAX);
        if room == 0 {
            return Ok(Progress::Wait);
        }
        let (events, position) = filter.next_events(&*inner.store, replay.position, replay.until, room, None).await?;
        let (filter, store, router) = (filter.clone(), inner.store.clone(), inner.bus.router());
        let route = move || {
            let route = |event| (filter.deliveries(&*store, &router, &event), Arc::new(event));
            let routed = events.into_iter().map(route).filter(|(deliveries, _)| !deliveries.is_empty());
            routed.map(|(deliveries, event)| (event, deliveries)).collect::<Vec<_>>()
        };
        let offers = blocking::run(route).await;
        let offered = offers.iter().map(|(_, deliveries)| deliveries.len()).sum();
        inner.store.advance_replay(replay.id, Step { position, offers }).await?;
        limiter.offered(offered);
        Ok(Progress::Again)
    }
}

fn is_active(state: ReplayState) -> bool {
    matches!(state, ReplayState::Running | ReplayState::Cancelling)
}

#[cfg(test)]
mod tests;
