//! A loaded function, and one attempt with it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::InstancePre;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::bindings::GuestPre;
use super::bindings::exports::evoke::function::handler::{Delivery, Event as GuestEvent};
use super::command::{self, Printer};
use super::direct::Direct;
use super::fate::{self, DeadlineReached, Ended};
use super::host::{State, Task};
use super::log::LogSink;
use super::publish::Publisher;
use super::state::StateSource;
use super::work::Work;
use super::{Grants, Kind, Shared};
use crate::clock::Clock;
use crate::event::{EVENT_SIZE_MAX, Event};
use crate::outcome::Outcome;
use crate::state::Transaction;

/// What a guest may hand to the host in one call: the largest event, with room for how it is laid out.
const HOSTCALL_BYTES_MAX: usize = 2 * EVENT_SIZE_MAX;
/// Handles that a component may make for its own resources.
const HANDLES_MAX: usize = 10_000;

/// What stays the same for every attempt of a function.
pub(super) struct Identity {
    pub(super) name: Arc<str>,
    pub(super) uri: String,
    pub(super) timeout: Duration,
    pub(super) memory: u64,
    pub(super) grants: Grants,
}

#[cfg(test)]
impl Identity {
    /// One that is granted nothing.
    pub(super) fn named(name: &str) -> Self {
        let (timeout, grants) = (Duration::from_secs(1), Grants::default());
        Self { name: name.into(), uri: format!("/{name}"), timeout, memory: 0, grants }
    }
}

/// A function that is compiled, linked and ready to run.
pub struct Function {
    pub(super) identity: Arc<Identity>,
    pub(super) entry: Entry,
    pub(super) shared: Arc<Shared>,
}

/// Where a component is entered, all its imports linked.
pub(super) enum Entry {
    Handler(GuestPre<State>, Option<Direct>),
    Command(CommandPre<State>),
    Http(ProxyPre<State>),
}

/// One attempt to be made.
pub struct Call {
    /// What happened.
    pub event: Arc<Event>,
    /// The delivery's id: the same on every attempt, and unlike any other's. Published events that bring no id get
    /// `<delivery_id>-<ordinal>`, ordinals counted from 0.
    pub delivery_id: Arc<str>,
    /// Which try this is, from 1.
    pub attempt: u32,
    /// Whether it is a stored event offered again on request.
    pub replay: bool,
    /// The trigger that matched.
    pub trigger: Arc<str>,
    /// Where its state is; `None` for a function that is granted none.
    pub state: Option<Arc<dyn StateSource>>,
    /// Where the function's log lines go.
    pub logs: LogSink,
    /// What published events and log lines are stamped with.
    pub clock: Clock,
}

/// How an attempt went.
#[derive(Debug)]
pub struct Attempt {
    /// How it ended.
    pub outcome: Outcome,
    /// What it published, in order; empty unless it is done.
    pub published: Vec<Event>,
    /// What it read of its state and what it writes to it: to be committed with the outcome, or not at all.
    pub state: Transaction,
    /// From the start of the instance to the end of the call.
    pub duration: Duration,
    /// The most linear memory that it had, in bytes.
    pub memory_bytes: u64,
}

impl Function {
    pub(super) fn new(
        identity: Identity,
        kind: Kind,
        pre: InstancePre<State>,
        shared: Arc<Shared>,
    ) -> wasmtime::Result<Self> {
        let entry = match kind {
            Kind::Handler => {
                let direct = Direct::new(&pre, identity.timeout)?;
                Entry::Handler(GuestPre::new(pre)?, direct)
            }
            Kind::Command => Entry::Command(CommandPre::new(pre)?),
            Kind::Http => Entry::Http(ProxyPre::new(pre)?),
        };
        Ok(Self { identity: Arc::new(identity), entry, shared })
    }

    /// `app/function`.
    pub fn name(&self) -> &Arc<str> {
        &self.identity.name
    }

    /// How it is called, read from its exports.
    pub fn kind(&self) -> Kind {
        match self.entry {
            Entry::Handler(..) => Kind::Handler,
            Entry::Command(_) => Kind::Command,
            Entry::Http(_) => Kind::Http,
        }
    }

    /// Runs one attempt, in a fresh instance that is gone when this returns. It never fails: whatever the guest does
    /// is an outcome. It ends within a few milliseconds of the function's time-out; time spent waiting for a free
    /// instance does not count. A function that answers requests is unavailable for events.
    pub async fn run(&self, call: Call) -> Attempt {
        let Call { event, delivery_id, attempt, replay, trigger, state, logs, clock } = call;
        let work = Work::new(self.identity.clone(), (delivery_id, attempt), Some(event), logs, clock);
        let delivery = Delivery {
            id: &work.delivery_id,
            attempt,
            deadline_ms: u64::try_from(self.identity.timeout.as_millis()).unwrap_or(u64::MAX),
            replay,
            trigger: &trigger,
        };
        if let Entry::Handler(_, Some(direct)) = &self.entry
            && let Some(attempt) = direct.attempt(self, &work, delivery.clone())
        {
            return attempt;
        }
        // Boxed, as most attempts have no use for so large a future.
        Box::pin(self.attempt(&work, delivery, state)).await
    }

    /// Makes an attempt that gives way to others.
    async fn attempt(&self, work: &Arc<Work>, delivery: Delivery<'_>, state: Option<Arc<dyn StateSource>>) -> Attempt {
        // The semaphore is never closed; were it, the pool itself would still say no.
        let _room = self.shared.room.acquire().await;
        let _awake = self.shared.ticker.awake();
        let started = Instant::now();
        let task = match self.entry {
            Entry::Command(_) => Task::Command(Printer::new(Publisher(work.clone()))),
            Entry::Handler(..) | Entry::Http(_) => Task::Handle,
        };
        let mut store = self.store(task, work.clone(), state);
        self.give_way(&mut store, started);
        let ended = fate::within(self.identity.timeout, pin!(self.enter(&mut store, work, delivery))).await;
        Attempt::ended(ended, &mut store, started)
    }

    pub(super) fn store(&self, task: Task, work: Arc<Work>, state: Option<Arc<dyn StateSource>>) -> Store<State> {
        let mut store = Store::new(&self.shared.engine, State::new(work, task, state));
        store.limiter(|state| &mut state.limits);
        let value_bytes_max = self.identity.grants.state.map_or(0, |state| state.value_bytes_max);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX + usize::try_from(value_bytes_max).unwrap_or_default());
        store.set_max_component_handles(HANDLES_MAX);
        store
    }

    /// A guest that computes gives way at every tick. The deadline is looked at here too: when all threads are busy with
    /// such guests, tokio comes to its timers late.
    pub(super) fn give_way(&self, store: &mut Store<State>, started: Instant) {
        let timeout = self.identity.timeout;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            if started.elapsed() >= timeout { Err(DeadlineReached.into()) } else { Ok(UpdateDeadline::Yield(1)) }
        });
    }

    async fn enter(&self, store: &mut Store<State>, work: &Work, delivery: Delivery<'_>) -> wasmtime::Result<Outcome> {
        match &self.entry {
            Entry::Handler(pre, _) => handle(pre, store, work, delivery).await,
            // Boxed: handlers, which are many, do not carry the room that programs need.
            Entry::Command(pre) => Box::pin(command::run(pre, store)).await,
            Entry::Http(_) => Ok(Outcome::Unavailable { message: "it answers requests and takes no events".into() }),
        }
    }
}

async fn handle(
    pre: &GuestPre<State>,
    store: &mut Store<State>,
    work: &Work,
    delivery: Delivery<'_>,
) -> wasmtime::Result<Outcome> {
    let guest = pre.instantiate_async(&mut *store).await?;
    let Some(event) = work.cause.as_deref() else { return Ok(fate::no_event()) };
    let extensions = extensions(event);
    let event = in_words_of_the_guest(event, &extensions);
    let handled = guest.evoke_function_handler().call_handle(&mut *store, event, delivery).await?;
    Ok(fate::handled(handled, store.data()))
}

pub(super) fn extensions(event: &Event) -> Vec<(&str, &str)> {
    event.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// The event as a guest takes it.
pub(super) fn in_words_of_the_guest<'a>(event: &'a Event, extensions: &'a [(&'a str, &'a str)]) -> GuestEvent<'a> {
    GuestEvent {
        id: &event.id,
        source: &event.source,
        type_: &event.type_,
        subject: event.subject.as_deref(),
        time: event.time.as_deref(),
        datacontenttype: event.datacontenttype.as_deref(),
        dataschema: event.dataschema.as_deref(),
        extensions,
        data: event.data.as_bytes(),
    }
}

impl Attempt {
    /// What is to be told of an attempt when its guest has ended.
    pub(super) fn ended(ended: Ended, store: &mut Store<State>, started: Instant) -> Self {
        let duration = started.elapsed();
        let transaction = store.data_mut().session.finish();
        let state = store.data();
        // Who takes the lines may panic: that too is the end of this attempt alone.
        let logged = catch_unwind(AssertUnwindSafe(|| state.attempt_log().finish()));
        let ended = logged.map_or_else(|panic| Ok(Err(panic)), |()| ended);
        let published = Publisher(state.work.clone()).take();
        let memory_bytes = state.limits.memory_peak();
        let outcome = fate::ended(ended, state);
        let published = if outcome == Outcome::Done { published } else { Vec::new() };
        let state = if outcome == Outcome::Done { transaction } else { transaction.without_writes() };
        Self { outcome, published, state, duration, memory_bytes }
    }
}
