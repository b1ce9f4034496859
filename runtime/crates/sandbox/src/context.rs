//! The host's side of one attempt. The context owns the parts on which the host capabilities work, and lends them for
//! each call.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{self as wasi_http, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::config::Config;
use super::event_lines::EventLines;
use super::http_types::{CHUNK_BYTES_MAX, HttpTypes};
use super::invocation::{Invocation, LogLines};
use super::keyvalue::{KeyValue, Session, StateSource};
use super::limits::Limits;
use super::log::{AttemptLog, Stream};
use super::poll::Pollables;
use super::publish::Bus;
use super::refusal::Refusals;
use super::stdio::Output;

/// Limit on the handles (streams, pollables and others) that a guest holds at once.
const RESOURCES_MAX: usize = 1_000;
/// Limit on random bytes per call. A guest that needs more calls again, and can be interrupted between the calls.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// The context of the host calls of one attempt.
pub(super) struct HostContext {
    pub(super) invocation: Arc<Invocation>,
    pub(super) limits: Limits,
    pub(super) task: Task,
    pub(super) session: Session,
    pub(super) refusals: Refusals,
    resources: ResourceTable,
    /// Boxed because it is large and rarely needed: the context is moved several times during setup.
    wasi: Option<Box<WasiCtx>>,
    http: WasiHttpCtx,
    no_outbound: NoOutbound,
}

/// The task of the guest.
pub(super) enum Task {
    /// Handles an event.
    Handle,
    /// Handles an event that it reads from stdin, and prints the events to publish.
    Command(EventLines),
    /// Responds to an HTTP request.
    HttpCall,
}

impl HostContext {
    pub(super) fn new(invocation: Arc<Invocation>, task: Task, state: Option<Arc<dyn StateSource>>) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let limits = Limits::new(invocation.identity.memory);
        let session = Session::new(state, invocation.identity.grants.state, invocation.budget.clone());
        let (wasi, http, no_outbound) = (None, WasiHttpCtx::new(), NoOutbound);
        let refusals = Refusals::default();
        Self { invocation, limits, task, session, refusals, resources, wasi, http, no_outbound }
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
        KeyValue { function: &invocation.identity.name, session, resources, refusals }
    }

    pub(super) fn handles(&mut self) -> &mut ResourceTable {
        &mut self.resources
    }

    pub(super) fn pollables(&mut self) -> Pollables<'_> {
        Pollables(&mut self.resources)
    }

    pub(super) fn http_types(&mut self) -> HttpTypes<'_> {
        let Self { invocation, task, http, no_outbound, resources, .. } = self;
        let view = WasiHttpCtxView { ctx: http, hooks: no_outbound, table: resources };
        let publisher = invocation.publisher();
        HttpTypes { view, budget: &invocation.budget, publisher, is_http_request: matches!(task, Task::HttpCall) }
    }

    fn wasi_ctx(&self) -> WasiCtx {
        let lines = |stream| Output(LogLines { invocation: self.invocation.clone(), stream });
        let mut wasi = WasiCtx::builder();
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
        wasi.envs(&self.invocation.config().values().collect::<Vec<_>>()).build()
    }
}

impl WasiView for HostContext {
    /// Creates the WASI context on first use. Most calls of most functions never use it, and creating it (three random
    /// generators, boxed streams) takes longer than a small call.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let made = self.wasi.take().unwrap_or_else(|| Box::new(self.wasi_ctx()));
        WasiCtxView { ctx: self.wasi.insert(made), table: &mut self.resources }
    }
}

impl WasiHttpView for HostContext {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, hooks: &mut self.no_outbound, table: &mut self.resources }
    }
}

/// Rejects outbound HTTP requests; only incoming requests are supported.
struct NoOutbound;

type Sent<T> = Box<dyn Future<Output = wasi_http::Result<T>> + Send>;

impl WasiHttpHooks for NoOutbound {
    fn send_request(
        &mut self,
        _: http::Request<wasi_http::WasiBody>,
        _: Option<wasi_http::RequestOptions>,
        _: Sent<()>,
    ) -> Sent<(http::Response<wasi_http::WasiBody>, Sent<()>)> {
        Box::new(async { Err(wasi_http::Error::HttpRequestDenied) })
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        1
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}
