//! A loaded function, and how one attempt runs.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::InstancePre;
use wasmtime::{Engine, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use super::attempt::{Attempt, Call};
use super::context::{HostContext, Task};
use super::direct::{DirectRunner, Skips};
use super::engine::TICK;
use super::event_lines::EventLines;
use super::fair_slots::Share;
use super::grant_use::GrantUse;
use super::handler::{self, Delivery};
use super::invocation::{Identity, Invocation};
use super::keyvalue::StateSource;
use super::kind::Kind;
use super::secrets::Secrets;
use super::shared::Shared;
use super::turns::Turns;
use super::warm_pool::{Use, WarmInstance};
use super::{budget, command, imports, instance, outcome};
use evoke_model::outcome::Outcome;

/// A function that is compiled, linked and ready to run.
pub struct Function {
    pub(super) identity: Arc<Identity>,
    pub(super) entry: Entry,
    /// The entry for warm instances (`warm_pool`); `None` if the function does not use them.
    pub(super) warm: Option<Entry>,
    /// The right to take instances for HTTP requests; `None` if the function does not handle HTTP requests.
    pub(super) requests: Option<Share>,
    pub(super) shared: Arc<Shared>,
    pub(super) turns: Turns,
    pub(super) can_send_requests: bool,
    pub(super) refusing_imports: Vec<&'static str>,
}

/// The export to call, with all imports of the component linked. An entry belongs to one engine: the engine of all
/// functions, or that of the warm pool.
pub(super) enum Entry {
    Handler(handler::GuestPre<HostContext>, Option<DirectRunner>),
    Command(CommandPre<HostContext>),
    Http(ProxyPre<HostContext>),
}

impl Entry {
    fn new(kind: Kind, pre: InstancePre<HostContext>, timeout: Duration, skips: &Skips) -> wasmtime::Result<Self> {
        Ok(match kind {
            Kind::Handler => {
                let direct = DirectRunner::new(&pre, timeout, skips)?;
                Self::Handler(handler::GuestPre::new(pre)?, direct)
            }
            Kind::Command => Self::Command(CommandPre::new(pre)?),
            Kind::Http => Self::Http(ProxyPre::new(pre)?),
        })
    }

    pub(super) fn engine(&self) -> &Engine {
        match self {
            Self::Handler(pre, _) => pre.engine(),
            Self::Command(pre) => pre.engine(),
            Self::Http(pre) => pre.engine(),
        }
    }
}

impl Function {
    pub(super) fn new(
        identity: Identity,
        kind: Kind,
        (pre, warm): (InstancePre<HostContext>, Option<InstancePre<HostContext>>),
        shared: Arc<Shared>,
    ) -> wasmtime::Result<Self> {
        let can_send_requests = imports::imports_outgoing_handler(pre.engine(), pre.component());
        let refusing_imports = imports::refusing_imports(pre.engine(), pre.component(), identity.outbound.is_empty());
        let skips = Skips::default();
        let entry = |pre| Entry::new(kind, pre, identity.timeout, &skips);
        let (entry, warm) = (entry(pre)?, warm.map(entry).transpose()?);
        let requests = (kind == Kind::Http).then(|| shared.requests.share());
        let turns = Turns::new(&shared.processors);
        let identity = Arc::new(identity);
        Ok(Self { identity, entry, warm, requests, shared, turns, can_send_requests, refusing_imports })
    }

    /// Returns the entry for an attempt, and a warm instance for it if one is free.
    pub(super) fn entry_for(&self, how: Use) -> (&Entry, Option<WarmInstance<'_>>) {
        let warm = self.warm.as_ref().zip(self.shared.warm.as_ref());
        match warm.and_then(|(entry, pool)| Some((entry, pool.try_take(how)?))) {
            Some((entry, instance)) => (entry, Some(instance)),
            None => (&self.entry, None),
        }
    }

    /// Returns how long an attempt runs before it yields for the first time: one tick, or five ticks with a warm
    /// instance. Most attempts with a warm instance end within five ticks (Python needs 1 to 3 ms). So such an attempt
    /// returns its instance before the next attempt begins, and few instances are in use.
    pub(super) fn undivided(warm: Option<&WarmInstance<'_>>) -> Duration {
        if warm.is_some() { TICK * 5 } else { TICK }
    }

    /// Returns the name in the form `app/function`.
    pub fn name(&self) -> &Arc<str> {
        &self.identity.name
    }

    /// Returns the configuration that the function reads by name.
    pub fn config(&self) -> &BTreeMap<String, String> {
        &self.identity.grants.config
    }

    /// Returns the secrets of the function.
    pub fn secrets(&self) -> &Secrets {
        &self.identity.grants.secrets
    }

    /// Returns the kind of the component, which its exports determine.
    pub fn kind(&self) -> Kind {
        match self.entry {
            Entry::Handler(..) => Kind::Handler,
            Entry::Command(_) => Kind::Command,
            Entry::Http(_) => Kind::Http,
        }
    }

    /// Returns true if the component imports the interface through which it could send requests.
    pub fn can_send_requests(&self) -> bool {
        self.can_send_requests
    }

    /// Returns the record of which grants the function uses.
    pub fn grant_use(&self) -> &Arc<GrantUse> {
        &self.identity.grant_use
    }

    /// Returns the imported packages whose functions refuse every call, because no grant allows them. Such imports are
    /// allowed, because toolchains add them even if a program does not use them.
    pub fn refusing_imports(&self) -> &[&'static str] {
        &self.refusing_imports
    }

    /// Runs one attempt in a fresh instance, which is dropped before this returns. Never fails, because every way in
    /// which a guest can end is an outcome. The attempt ends at most a few milliseconds after the function's time-out.
    /// The wait for a free instance does not count towards the time-out. If the function responds to HTTP requests, the
    /// outcome is always `Unavailable`, because such a function receives no events.
    pub async fn run(&self, call: Call) -> Attempt {
        self.identity.grant_use.attempt();
        let Call { event, trace, delivery_id, attempt, replay, hops, trigger, state, logs, clock, outside } = call;
        let cause = (Some(event), trace, hops);
        let invocation = Invocation::new(self.identity.clone(), (delivery_id, attempt), cause, logs, (clock, outside));
        let delivery = Delivery {
            id: &invocation.delivery_id,
            attempt,
            deadline_ms: u64::try_from(self.identity.timeout.as_millis()).unwrap_or(u64::MAX),
            replay,
            trigger: &trigger,
        };
        if let (Entry::Handler(_, Some(direct)), warm) = self.entry_for(Use::Direct)
            && let Some(attempt) =
                direct.try_run(&self.shared, &self.turns, &invocation, delivery.clone(), warm.as_ref())
        {
            return attempt;
        }
        // Boxed because the future is large and most attempts do not need it.
        Box::pin(self.run_async(&invocation, delivery, state)).await
    }

    /// Runs an attempt as an async task that yields to other tasks at every tick. If the attempt computes for long, it
    /// needs turns (see [`Turns`]).
    async fn run_async(
        &self,
        invocation: &Arc<Invocation>,
        delivery: Delivery<'_>,
        state: Option<Arc<dyn StateSource>>,
    ) -> Attempt {
        // An error means that the semaphore is closed, which never happens. Even then, the pool of instances would
        // limit the number of concurrent attempts.
        let _permit = self.shared.permits.acquire().await;
        let _awake = self.shared.ticker.keep_awake();
        // The attempt takes a warm instance only when it begins, not while it waits for its first turn.
        let turn = self.turns.first(self.warm.is_some()).await;
        let (entry, warm) = self.entry_for(Use::Waiting);
        let started = Instant::now();
        let task = match entry {
            Entry::Command(_) => Task::Command(EventLines::new(invocation.clone())),
            Entry::Handler(..) | Entry::Http(_) => Task::Handle,
        };
        let mut store = instance::new_store(entry.engine(), task, invocation.clone(), state, started);
        budget::yield_at_ticks(&mut store, self.identity.timeout, started, Self::undivided(warm.as_ref()));
        let limit = self.identity.timeout;
        // One statement, so that the borrow of the store ends with it.
        let result = outcome::within(
            limit,
            pin!(self.turns.run(turn, pin!(run_guest(entry, &mut store, invocation, delivery)))),
        )
        .await;
        let attempt = Attempt::finish(result, &mut store, started);
        if let Some(warm) = &warm {
            warm.keep_pages();
        }
        attempt
    }
}

async fn run_guest(
    entry: &Entry,
    store: &mut Store<HostContext>,
    invocation: &Invocation,
    delivery: Delivery<'_>,
) -> wasmtime::Result<Outcome> {
    match entry {
        Entry::Handler(pre, _) => handler::run(pre, store, invocation, delivery).await,
        // Boxed because the future of a program is large, and otherwise the future of a handler, the common case, would
        // have the same size.
        Entry::Command(pre) => Box::pin(command::run(pre, store)).await,
        Entry::Http(_) => {
            Ok(Outcome::Unavailable { message: "the function responds to HTTP requests and receives no events".into() })
        }
    }
}
