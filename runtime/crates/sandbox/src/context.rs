//! The data that the host keeps for one attempt, which is one run of a function for an event or an HTTP request.
//! wasmtime passes this context to each host function that the guest calls. Each group of host functions (log, publish,
//! stored state and others) gets a view that borrows only the fields that it needs.

use std::sync::Arc;

use tokio::time::Instant;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::config::Config;
use super::event_lines::EventLines;
use super::http_types::HttpTypes;
use super::invocation::{Invocation, LogLines};
use super::keyvalue::{KeyValue, Session, StateSource};
use super::limits::Limits;
use super::log::{AttemptLog, Stream};
use super::outbound::Outbound;
use super::pending_response::Unfinished;
use super::poll::Pollables;
use super::publish::Bus;
use super::refusal::Refusals;
use super::stdio::Output;

/// Limit on the handles (streams, timers and others) that a guest holds at the same time. Without a limit, a guest
/// could fill the host's memory with handles.
const RESOURCES_MAX: usize = 1_000;
/// Limit on the random bytes of one call. A guest that needs more bytes must call again. The guest can be interrupted
/// between two calls, but not during a call.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

pub(super) struct HostContext {
    pub(super) invocation: Arc<Invocation>,
    pub(super) limits: Limits,
    pub(super) task: Task,
    pub(super) session: Session,
    pub(super) refusals: Refusals,
    resources: ResourceTable,
    /// Created on first use. Boxed because it is large and rarely needed, and the context is moved several times during
    /// setup.
    wasi: Option<Box<WasiCtx>>,
    http: WasiHttpCtx,
    deadline: Instant,
    /// Sends the requests of the guest, and holds those that have not ended. Created on first use, and boxed for the
    /// same reason as `wasi`.
    outbound: Option<Box<(Outbound, Unfinished)>>,
}

/// How the guest gets its input and returns its output.
pub(super) enum Task {
    /// Handles an event that is an argument of the call.
    Handle,
    /// Handles an event that it reads from stdin. Each line on stdout is an event to publish.
    Command(EventLines),
    /// Responds to an HTTP request.
    HttpCall,
}

impl HostContext {
    /// Creates the context of an attempt, whose time limit counts from `started`.
    pub(super) fn new(
        invocation: Arc<Invocation>,
        task: Task,
        state: Option<Arc<dyn StateSource>>,
        started: Instant,
    ) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let limits = Limits::new(invocation.identity.memory);
        let state = invocation.outside.state(state, &invocation.identity.name);
        let session = Session::new(state, invocation.identity.grants.state, invocation.budget.clone());
        let (wasi, http, outbound) = (None, WasiHttpCtx::new(), None);
        let deadline = started + invocation.identity.timeout;
        let refusals = Refusals::default();
        Self { invocation, limits, task, session, refusals, resources, wasi, http, deadline, outbound }
    }

    pub(super) fn log(&mut self) -> AttemptLog<'_> {
        self.invocation.log()
    }

    pub(super) fn config(&mut self) -> Config<'_> {
        self.invocation.config()
    }

    pub(super) fn bus(&mut self) -> Bus<'_> {
        Bus { publisher: self.invocation.publisher(), refusals: &mut self.refusals }
    }

    pub(super) fn keyvalue(&mut self) -> KeyValue<'_> {
        let Self { invocation, session, resources, refusals, .. } = self;
        let grant_use = &*invocation.identity.grant_use;
        KeyValue { function: &invocation.identity.name, grant_use, session, resources, refusals }
    }

    pub(super) fn handles(&mut self) -> &mut ResourceTable {
        &mut self.resources
    }

    pub(super) fn pollables(&mut self) -> Pollables<'_> {
        Pollables { table: &mut self.resources, outside: &self.invocation.outside }
    }

    pub(super) fn http_types(&mut self) -> HttpTypes<'_> {
        let (view, invocation, unfinished) = self.http_view();
        HttpTypes {
            view,
            budget: &invocation.budget,
            unfinished,
            publisher: invocation.publisher(),
            redactor: invocation.redactor(),
        }
    }

    /// Returns a text that lists the HTTP requests of the attempt and how they ended; `None` if there were no requests.
    pub(super) fn outbound_note(&self) -> Option<String> {
        self.outbound.as_ref()?.0.note()
    }

    fn http_view(&mut self) -> (WasiHttpCtxView<'_>, &Invocation, &mut Unfinished) {
        let Self { invocation, http, outbound, deadline, refusals, resources, .. } = self;
        let new =
            || Box::new((Outbound::new(invocation.clone(), *deadline, refusals.outbound()), Unfinished::default()));
        let (hooks, unfinished) = &mut **outbound.get_or_insert_with(new);
        (WasiHttpCtxView { ctx: http, hooks, table: resources }, &**invocation, unfinished)
    }

    fn wasi_ctx(&self) -> WasiCtx {
        let lines = |stream| Output(LogLines { invocation: self.invocation.clone(), stream });
        let mut wasi = WasiCtx::builder();
        self.invocation.outside.set_up(&mut wasi, self.invocation.clock());
        wasi.stderr(lines(Stream::Stderr)).max_random_size(RANDOM_BYTES_MAX).allow_tcp(false).allow_udp(false);
        match &self.task {
            Task::Handle => return wasi.stdout(lines(Stream::Stdout)).build(),
            Task::HttpCall => wasi.stdout(lines(Stream::Stdout)),
            Task::Command(stdout) => wasi
                .arg(&*self.invocation.identity.name)
                .stdin(MemoryInputPipe::new(
                    self.invocation.cause.as_ref().map_or_else(String::new, |cause| cause.to_json() + "\n"),
                ))
                .stdout(Output(stdout.clone())),
        };
        // Programs written for other hosts read their configuration from the environment.
        wasi.envs(&self.invocation.config().environment().collect::<Vec<_>>()).build()
    }
}

impl WasiView for HostContext {
    /// Creates the WASI context on first use. Most attempts never use the context, and creating it (three random
    /// generators, boxed streams) takes longer than a short attempt.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let made = self.wasi.take().unwrap_or_else(|| Box::new(self.wasi_ctx()));
        WasiCtxView { ctx: self.wasi.insert(made), table: &mut self.resources }
    }
}

impl WasiHttpView for HostContext {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.http_view().0
    }
}

#[cfg(test)]
impl HostContext {
    /// Returns the context of an attempt of a function without grants.
    pub(super) fn for_test() -> Self {
        let (name, timeout) = ("shop/charge".into(), std::time::Duration::from_secs(1));
        let client = evoke_egress::Client::new(tokio::runtime::Handle::current(), Arc::default());
        let (outbound, spans) = (client.owner("shop/charge", Vec::new()), evoke_telemetry::Spans::default());
        let (uri, grants, grant_use) = ("/shop/charge".into(), Default::default(), Default::default());
        let identity =
            super::invocation::Identity { name, uri, timeout, memory: 0, grants, grant_use, outbound, spans };
        let call = ("s-7".into(), 1);
        let outside = (evoke_model::clock::Clock::system(), super::outside::Outside::Live);
        let invocation = Invocation::new(Arc::new(identity), call, (None, None, 0), Arc::new(|_| {}), outside);
        Self::new(invocation, Task::Handle, None, Instant::now())
    }
}
