//! Replays: stored events are offered again to the functions that match them today, marked, throttled and behind what
//! happens now.
//!
//! A replay is a row in the store. One task takes all that run a step further, again and again: it reads some events
//! behind the replay's position, routes them, and has the store commit their deliveries and the new position at once.
//! So it goes on after a restart from where it came, and offers each event to each function once.

mod filter;
mod pace;
mod plan;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use self::filter::Filter;
use self::filter::Wanted;
use self::pace::Pace;
pub use self::plan::{Example, Plan};
use crate::bus::Bus;
use crate::dispatcher::Dispatcher;
use crate::store::{NewReplay, Replay, ReplayId, ReplayState, Seq, Step, Store, StoreError};

/// Replays that may be on their way at a time: each has deliveries in the store and in memory.
const OPEN_MAX: usize = 16;

/// Deliveries of a replay that are to run. More are offered when half of them ended: what is live finds the store and
/// the dispatcher as good as empty of them.
const OUTSTANDING_MAX: u64 = 512;
/// Those that wait for others of their order key on top, perhaps behind a dead letter.
const BLOCKED_MAX: u64 = 20_000;

/// Events of one step, and so of one commit that live ones may have to wait for: of the largest size they hold 32 MiB.
const STEP_MAX: usize = 32;
/// Events that one step looks at: some milliseconds of reading.
const LOOK_MAX: Seq = 4096;

/// How long to wait when no replay can go on: so many a second are far more than anybody asks for.
const PAUSE: Duration = Duration::from_millis(20);
/// The same after the store did not answer.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// Why a replay is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The filter says nothing that could be done.
    #[error("{0}")]
    Filter(String),
    /// There is no replay of this number.
    #[error("there is no replay {0}")]
    NotFound(ReplayId),
    /// It is not in a state for that.
    #[error("replay {id} is {}: it cannot be {wanted}", state.name())]
    State {
        /// Which.
        id: ReplayId,
        /// Where it stands.
        state: ReplayState,
        /// What it was to be.
        wanted: &'static str,
    },
    /// Too many are on their way.
    #[error("{OPEN_MAX} replays are on their way; wait for one, or cancel it")]
    TooMany,
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What can be done with a replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Offers nothing more for now; what was offered runs.
    Pause,
    /// Goes on.
    Resume,
    /// Offers nothing more, and lets go what did not start.
    Cancel,
}

/// A handle to the replays; cheap to clone.
#[derive(Clone)]
pub struct Replays(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    bus: Bus,
    /// Those that run or are being cancelled.
    active: Mutex<BTreeSet<ReplayId>>,
    changed: Notify,
}

impl Replays {
    /// Replays over a store, routed as the bus does.
    pub fn new(store: Arc<dyn Store>, bus: Bus) -> Self {
        Self(Arc::new(Inner { store, bus, active: Mutex::default(), changed: Notify::new() }))
    }

    /// Begins a replay of what the store has now. `functions` are those in force.
    pub async fn start(&self, filter: Filter, functions: &[String]) -> Result<Replay, Refused> {
        let store = &self.0.store;
        self.wanted(&filter, functions).await?;
        let open = |replay: &&Replay| !matches!(replay.state, ReplayState::Done | ReplayState::Cancelled);
        if store.replays().await?.iter().filter(open).count() >= OPEN_MAX {
            return Err(Refused::TooMany);
        }
        let (after, until) = self.range(&filter);
        // Strings and numbers always serialise.
        let text = serde_json::to_string(&filter).unwrap_or_default();
        let id = store.start_replay(NewReplay { filter: text, after, until }).await?;
        self.activate(id);
        store.replay(id).await?.ok_or(Refused::NotFound(id))
    }

    /// What a replay would do now.
    pub async fn plan(&self, filter: &Filter, functions: &[String]) -> Result<Plan, Refused> {
        let wanted = self.wanted(filter, functions).await?;
        let ids = self.0.store.register(functions.to_vec()).await?;
        let names: BTreeMap<_, _> = ids.into_iter().zip(functions).collect();
        Ok(plan::plan(&*self.0.store, &self.0.bus.router(), &wanted, self.range(filter), &names).await?)
    }

    /// Pauses, resumes or cancels a replay; answers how it stands then.
    pub async fn turn(&self, id: ReplayId, turn: Turn) -> Result<Replay, Refused> {
        use ReplayState::{Cancelling, Paused, Running};
        let (from, to, wanted): (&'static [ReplayState], _, _) = match turn {
            Turn::Pause => (&[Running], Paused, "paused"),
            Turn::Resume => (&[Paused], Running, "resumed"),
            Turn::Cancel => (&[Running, Paused], Cancelling, "cancelled"),
        };
        let turned = self.0.store.transition_replay(id, from, to).await?;
        let replay = self.0.store.replay(id).await?.ok_or(Refused::NotFound(id))?;
        if !turned {
            return Err(Refused::State { id, state: replay.state, wanted });
        }
        self.activate(id);
        Ok(replay)
    }

    /// Takes replays on, as long as it is not stopped and the store is open.
    pub async fn run(self, dispatcher: Dispatcher, stop: CancellationToken) {
        let mut runner = Runner { replays: self, dispatcher, steady: HashMap::new() };
        let _ = stop.run_until_cancelled(runner.run()).await;
    }

    async fn wanted(&self, filter: &Filter, functions: &[String]) -> Result<Wanted, Refused> {
        if let Some(function) = &filter.function
            && !functions.contains(function)
        {
            return Err(Refused::Filter(format!("no function {function} is in force; `evoke status` lists them")));
        }
        compile(&*self.0.store, filter).await
    }

    fn range(&self, filter: &Filter) -> (Seq, Seq) {
        match filter.event {
            Some(seq) => (seq.saturating_sub(1), seq),
            None => (0, *self.0.store.newest().borrow()),
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

async fn compile(store: &dyn Store, filter: &Filter) -> Result<Wanted, Refused> {
    let function = match &filter.function {
        Some(name) => store.register(vec![name.clone()]).await?.first().copied(),
        None => None,
    };
    Wanted::new(filter, function).map_err(Refused::Filter)
}

/// The task that takes replays on.
struct Runner {
    replays: Replays,
    dispatcher: Dispatcher,
    /// What stays the same for a replay from step to step.
    steady: HashMap<ReplayId, (Wanted, Pace)>,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    /// There is more to do at once.
    On,
    /// There is more to do in a while.
    Slowly,
    /// There is nothing more to do with it.
    Over,
}

impl Runner {
    async fn run(&mut self) {
        while let Err(error) = self.find().await {
            tracing::warn!("looking for replays: {error}");
            tokio::time::sleep(STORE_RETRY).await;
        }
        loop {
            let active = self.replays.active().clone();
            let mut wait = if active.is_empty() { None } else { Some(PAUSE) };
            for id in active {
                match self.step(id).await {
                    Ok(Went::On) => wait = Some(Duration::ZERO),
                    Ok(Went::Slowly) => {}
                    Ok(Went::Over) => {
                        self.steady.remove(&id);
                        self.replays.active().remove(&id);
                        // It may have been turned in between: then it is looked at once more.
                        self.look_again(id).await;
                    }
                    Err(Refused::Store(StoreError::Closed)) => return,
                    Err(error) => {
                        tracing::warn!("replay {id}: {error}");
                        wait = Some(STORE_RETRY);
                    }
                }
            }
            match wait {
                // Others have their turn meanwhile.
                Some(Duration::ZERO) => tokio::task::yield_now().await,
                Some(wait) => tokio::time::sleep(wait).await,
                None => self.replays.0.changed.notified().await,
            }
        }
    }

    /// Those that the process left behind.
    async fn find(&self) -> Result<(), StoreError> {
        let all = self.replays.0.store.replays().await?;
        let active = all.iter().filter(|replay| is_active(replay.state)).map(|replay| replay.id);
        self.replays.active().extend(active);
        Ok(())
    }

    async fn look_again(&self, id: ReplayId) {
        if let Ok(Some(replay)) = self.replays.0.store.replay(id).await
            && is_active(replay.state)
        {
            self.replays.activate(id);
        }
    }

    async fn step(&mut self, id: ReplayId) -> Result<Went, Refused> {
        let store = self.replays.0.store.clone();
        let replay = store.replay(id).await?.ok_or(Refused::NotFound(id))?;
        match replay.state {
            ReplayState::Running if replay.position < replay.until => self.offer(&replay).await,
            ReplayState::Running if replay.deliveries.pending() > 0 => Ok(Went::Slowly),
            ReplayState::Running => {
                store.transition_replay(id, &[ReplayState::Running], ReplayState::Done).await?;
                Ok(Went::Over)
            }
            ReplayState::Cancelling => {
                // Asked first: what is not started now is never started.
                let started = self.dispatcher.halt(id);
                store.purge_replay(id, started).await?;
                if store.replay(id).await?.is_some_and(|replay| replay.deliveries.pending() > 0) {
                    return Ok(Went::Slowly);
                }
                store.transition_replay(id, &[ReplayState::Cancelling], ReplayState::Cancelled).await?;
                // A person may redrive what is dead of it.
                self.dispatcher.resume(id);
                Ok(Went::Over)
            }
            ReplayState::Paused | ReplayState::Done | ReplayState::Cancelled => Ok(Went::Over),
        }
    }

    /// Offers what comes next, when it is time to.
    async fn offer(&mut self, replay: &Replay) -> Result<Went, Refused> {
        let counts = &replay.deliveries;
        if counts.ready + counts.retrying > OUTSTANDING_MAX / 2 || counts.blocked > BLOCKED_MAX {
            return Ok(Went::Slowly);
        }
        let inner = self.replays.0.clone();
        let (wanted, pace) = match self.steady.entry(replay.id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let filter: Filter =
                    serde_json::from_str(&replay.filter).map_err(|e| Refused::Filter(e.to_string()))?;
                new.insert((compile(&*inner.store, &filter).await?, Pace::new(filter.rate)))
            }
        };
        let room = pace.room(STEP_MAX);
        if room == 0 {
            return Ok(Went::Slowly);
        }
        let (events, position) = wanted.look(&*inner.store, replay.position, replay.until, room).await?;
        let router = inner.bus.router();
        let mut offered = 0;
        let mut offers = Vec::new();
        for event in events {
            let deliveries = wanted.deliveries(&router, &event);
            offered += deliveries.len();
            if !deliveries.is_empty() {
                offers.push((Arc::new(event), deliveries));
            }
        }
        inner.store.advance_replay(replay.id, Step { position, offers }).await?;
        pace.offered(offered);
        Ok(Went::On)
    }
}

fn is_active(state: ReplayState) -> bool {
    matches!(state, ReplayState::Running | ReplayState::Cancelling)
}

#[cfg(test)]
mod tests;
