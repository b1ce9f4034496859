//! The host's side of one attempt: its context and the functions that the host provides to the guest.

use std::sync::Arc;

use wasmtime::component::{HasData, ResourceTable};
use wasmtime_wasi::p2::pipe::MemoryInputPipe;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{self as wasi_http, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

use super::Grants;
use super::bindings::evoke::function::{bus, types};
use super::bindings::evoke::runtime::commands;
use super::bindings::wasi::config::store as config;
use super::bindings::wasi::logging::logging;
use super::command::CommandStdout;
use super::invocation::Invocation;
use super::limits::Limits;
use super::log::{AttemptLog, Level, Stream};
use super::publish::Publisher;
use super::state::{Session, StateSource};
use super::stdio::{LogLines, Output};

/// Limit on the handles (streams, pollables and others) that a guest holds at once.
const RESOURCES_MAX: usize = 1_000;
/// Limit on random bytes per call. A guest that needs more calls again, and can be interrupted between the calls.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// Limit on one chunk of a response body, in bytes. At most two chunks are in memory at a time: one that the guest
/// wrote and one that the client has not yet received.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The context of the host calls of one attempt.
pub(super) struct HostContext {
    pub(super) invocation: Arc<Invocation>,
    pub(super) limits: Limits,
    pub(super) task: Task,
    pub(super) session: Session,
    pub(super) resources: ResourceTable,
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
    Command(CommandStdout),
    /// Responds to an HTTP request.
    HttpCall,
}

impl HostContext {
    pub(super) fn new(invocation: Arc<Invocation>, task: Task, state: Option<Arc<dyn StateSource>>) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let limits = Limits::new(invocation.identity.memory);
        let session = Session::new(state, invocation.identity.grants.state);
        let (wasi, http, no_outbound) = (None, WasiHttpCtx::new(), NoOutbound);
        Self { invocation, limits, task, session, resources, wasi, http, no_outbound }
    }

    /// Returns the log of this attempt.
    pub(super) fn attempt_log(&self) -> AttemptLog {
        AttemptLog(self.invocation.clone())
    }

    /// Returns the publisher of this attempt; `None` if the guest handles no event.
    pub(super) fn publisher(&self) -> Option<Publisher> {
        match self.task {
            Task::Handle | Task::Command(_) => Some(Publisher(self.invocation.clone())),
            Task::HttpCall => None,
        }
    }

    pub(super) fn handles(&mut self) -> &mut ResourceTable {
        &mut self.resources
    }

    fn wasi_ctx(&self) -> WasiCtx {
        let lines = |stream| Output(LogLines { log: self.attempt_log(), stream });
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
        let Grants { config, secrets, .. } = &self.invocation.identity.grants;
        let config = config.iter().filter(|(name, _)| !secrets.contains_key(*name));
        wasi.envs(&config.chain(secrets).collect::<Vec<_>>()).build()
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

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// Tells the generated bindings that `wasi:io` works on the handle table.
pub(super) struct Handles;

impl HasData for Handles {
    type Data<'a> = &'a mut ResourceTable;
}

/// Tells the generated bindings that they work on `HostContext`.
pub(super) struct Host;

impl HasData for Host {
    type Data<'a> = &'a mut HostContext;
}

impl types::Host for HostContext {}

impl bus::Host for HostContext {
    fn publish(&mut self, draft: types::Draft) -> Result<String, String> {
        let publisher = self.publisher().ok_or("only a function that handles an event publishes")?;
        publisher.publish_draft(draft)
    }
}

impl commands::Host for HostContext {
    fn exit_code(&mut self, code: u32) -> wasmtime::Result<()> {
        Err(I32Exit(code.cast_signed()).into())
    }
}

impl config::Host for HostContext {
    fn get(&mut self, key: String) -> Result<Option<String>, config::Error> {
        let Grants { config, secrets, .. } = &self.invocation.identity.grants;
        Ok(secrets.get(&key).or_else(|| config.get(&key)).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, config::Error> {
        let Grants { config, secrets, .. } = &self.invocation.identity.grants;
        let config = config.iter().filter(|(key, _)| !secrets.contains_key(*key));
        Ok(config.chain(secrets).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl logging::Host for HostContext {
    fn log(&mut self, level: logging::Level, context: String, message: String) {
        let level = match level {
            logging::Level::Trace => Level::Trace,
            logging::Level::Debug => Level::Debug,
            logging::Level::Info => Level::Info,
            logging::Level::Warn => Level::Warn,
            logging::Level::Error | logging::Level::Critical => Level::Error,
        };
        self.attempt_log().message(level, &context, &message);
    }
}
