//! A loaded function, and how one attempt runs.

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
use super::command::{self, CommandStdout};
use super::direct::DirectRunner;
use super::fate::{self, DeadlineReached, GuestResult};
use super::host::{HostContext, Task};
use super::invocation::Invocation;
use super::log::LogSink;
use super::publish::Publisher;
use super::state::StateSource;
use super::{Grants, Kind, Shared};
use evoke_model::clock::Clock;
use evoke_model::event::{EVENT_SIZE_MAX, Event};
use evoke_model::outcome::Outcome;
use evoke_model::state::Transaction;

/// Limit on the bytes that a guest passes to the host in one call: the largest event, plus space for its encoding.
const HOSTCALL_BYTES_MAX: usize = 2 * EVENT_SIZE_MAX;
/// Limit on the handles that a component creates for its own resources.
const HANDLES_MAX: usize = 10_000;

/// The properties that are the same for every attempt of a function.
pub(super) struct Identity {
    pub(super) name: Arc<str>,
    pub(super) uri: String,
    pub(super) timeout: Duration,
    pub(super) memory: u64,
    pub(super) grants: Grants,
}

#[cfg(test)]
impl Identity {
    /// Returns an identity without grants.
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

/// The export to call, with all imports of the component linked.
pub(super) enum Entry {
    Handler(GuestPre<HostContext>, Option<DirectRunner>),
    Command(CommandPre<HostContext>),
    Http(ProxyPre<HostContext>),
}

/// The input of one attempt.
pub struct Call {
    /// The event to handle.
    pub event: Arc<Event>,
    /// Id of the delivery: unique, and the same on every attempt. A published event without an id gets
    /// `<delivery_id>-<ordinal>`, with ordinals counted from 0.
    pub delivery_id: Arc<str>,
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// True if the event is a stored event that is replayed.
    pub replay: bool,
    /// Name of the trigger that matched.
    pub trigger: Arc<str>,
    /// Where stored state is read from; `None` if the function has no state grant.
    pub state: Option<Arc<dyn StateSource>>,
    /// Receives the function's log lines.
    pub logs: LogSink,
    /// Clock for the timestamps of published events and log lines.
    pub clock: Clock,
}

/// The result of one attempt.
#[derive(Debug)]
pub struct Attempt {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The published events, in order; empty unless the outcome is `Done`.
    pub published: Vec<Event>,
    /// The attempt's reads and writes of stored state. They are committed with the outcome, or not at all.
    pub state: Transaction,
    /// Time from the start of the instance to the end of the call.
    pub duration: Duration,
    /// Peak linear memory, in bytes.
    pub memory_bytes: u64,
}

impl Function {
    pub(super) fn new(
        identity: Identity,
        kind: Kind,
        pre: InstancePre<HostContext>,
        shared: Arc<Shared>,
    ) -> wasmtime::Result<Self> {
        let entry = match kind {
            Kind::Handler => {
                let direct = DirectRunner::new(&pre, identity.timeout)?;
                Entry::Handler(GuestPre::new(pre)?, direct)
            }
            Kind::Command => Entry::Command(CommandPre::new(pre)?),
            Kind::Http => Entry::Http(ProxyPre::new(pre)?),
        };
        Ok(Self { identity: Arc::new(identity), entry, shared })
    }

    /// Returns the name in the form `app/function`.
    pub fn name(&self) -> &Arc<str> {
        &self.identity.name
    }

    /// Returns how the component is called; its exports determine it.
    pub fn kind(&self) -> Kind {
        match self.entry {
            Entry::Handler(..) => Kind::Handler,
            Entry::Command(_) => Kind::Command,
            Entry::Http(_) => Kind::Http,
        }
    }

    /// Runs one attempt in a fresh instance, which is dropped before this returns. There is no error: every way a guest
    /// can end is an outcome. The attempt ends within a few milliseconds of the function's time-out; the wait for a
    /// free instance does not count. A function that responds to HTTP requests always has the outcome `Unavailable`.
    pub async fn run(&self, call: Call) -> Attempt {
        let Call { event, delivery_id, attempt, replay, trigger, state, logs, clock } = call;
        let invocation = Invocation::new(self.identity.clone(), (delivery_id, attempt), Some(event), logs, clock);
        let delivery = Delivery {
            id: &invocation.delivery_id,
            attempt,
            deadline_ms: u64::try_from(self.identity.timeout.as_millis()).unwrap_or(u64::MAX),
            replay,
            trigger: &trigger,
        };
        if let Entry::Handler(_, Some(direct)) = &self.entry
            && let Some(attempt) = direct.try_run(self, &invocation, delivery.clone())
        {
            return attempt;
        }
        // Boxed because the future is large and most attempts do not need it.
        Box::pin(self.run_async(&invocation, delivery, state)).await
    }

    /// Runs an attempt as an async task that yields to others at every tick.
    async fn run_async(
        &self,
        invocation: &Arc<Invocation>,
        delivery: Delivery<'_>,
        state: Option<Arc<dyn StateSource>>,
    ) -> Attempt {
        // The semaphore is never closed. Without a permit, the pool itself would still enforce the limit.
        let _permit = self.shared.permits.acquire().await;
        let _awake = self.shared.ticker.keep_awake();
        let started = Instant::now();
        let task = match self.entry {
            Entry::Command(_) => Task::Command(CommandStdout::new(Publisher(invocation.clone()))),
            Entry::Handler(..) | Entry::Http(_) => Task::Handle,
        };
        let mut store = self.store(task, invocation.clone(), state);
        self.yield_at_ticks(&mut store, started);
        let result = fate::within(self.identity.timeout, pin!(self.run_guest(&mut store, invocation, delivery))).await;
        Attempt::finish(result, &mut store, started)
    }

    pub(super) fn store(
        &self,
        task: Task,
        invocation: Arc<Invocation>,
        state: Option<Arc<dyn StateSource>>,
    ) -> Store<HostContext> {
        let mut store = Store::new(&self.shared.engine, HostContext::new(invocation, task, state));
        store.limiter(|context| &mut context.limits);
        let value_bytes_max = self.identity.grants.state.map_or(0, |state| state.value_bytes_max);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX + usize::try_from(value_bytes_max).unwrap_or_default());
        store.set_max_component_handles(HANDLES_MAX);
        store
    }

    /// Makes a computing guest yield at every tick. The deadline is also checked here, because tokio's timers fire late
    /// when all threads are busy with such guests.
    pub(super) fn yield_at_ticks(&self, store: &mut Store<HostContext>, started: Instant) {
        let timeout = self.identity.timeout;
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            if started.elapsed() >= timeout { Err(DeadlineReached.into()) } else { Ok(UpdateDeadline::Yield(1)) }
        });
    }

    async fn run_guest(
        &self,
        store: &mut Store<HostContext>,
        invocation: &Invocation,
        delivery: Delivery<'_>,
    ) -> wasmtime::Result<Outcome> {
        match &self.entry {
            Entry::Handler(pre, _) => handle(pre, store, invocation, delivery).await,
            // Boxed so that handlers, the common case, do not carry the large future of a program.
            Entry::Command(pre) => Box::pin(command::run(pre, store)).await,
            Entry::Http(_) => Ok(Outcome::Unavailable {
                message: "the function responds to HTTP requests and receives no events".into(),
            }),
        }
    }
}

async fn handle(
    pre: &GuestPre<HostContext>,
    store: &mut Store<HostContext>,
    invocation: &Invocation,
    delivery: Delivery<'_>,
) -> wasmtime::Result<Outcome> {
    let guest = pre.instantiate_async(&mut *store).await?;
    let Some(event) = invocation.cause.as_deref() else { return Ok(fate::no_event()) };
    let extensions = extensions(event);
    let event = to_guest_event(event, &extensions);
    let handled = guest.evoke_function_handler().call_handle(&mut *store, event, delivery).await?;
    Ok(fate::handler_outcome(handled, store.data()))
}

pub(super) fn extensions(event: &Event) -> Vec<(&str, &str)> {
    event.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Converts an event to the type in the guest's bindings, without copying.
pub(super) fn to_guest_event<'a>(event: &'a Event, extensions: &'a [(&'a str, &'a str)]) -> GuestEvent<'a> {
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
    /// Builds the result of an attempt whose guest has ended.
    pub(super) fn finish(result: GuestResult, store: &mut Store<HostContext>, started: Instant) -> Self {
        let duration = started.elapsed();
        let transaction = store.data_mut().session.finish();
        let context = store.data();
        // The log sink may panic; that ends only this attempt.
        let logged = catch_unwind(AssertUnwindSafe(|| context.attempt_log().finish()));
        let result = logged.map_or_else(|panic| Ok(Err(panic)), |()| result);
        let published = Publisher(context.invocation.clone()).take();
        let memory_bytes = context.limits.memory_peak();
        let outcome = fate::to_outcome(result, context);
        let published = if outcome == Outcome::Done { published } else { Vec::new() };
        let state = if outcome == Outcome::Done { transaction } else { transaction.without_writes() };
        Self { outcome, published, state, duration, memory_bytes }
    }
}
