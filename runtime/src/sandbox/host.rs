//! The host's side of one attempt: its state and the functions it serves to the guest.

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
use super::command::Printer;
use super::limits::Limits;
use super::log::{AttemptLog, Level, Stream};
use super::publish::Publisher;
use super::state::{Session, StateSource};
use super::stdio::{Lines, Output};
use super::work::Work;

/// Handles to streams, pollables and the like that a guest may hold at once.
const RESOURCES_MAX: usize = 1_000;
/// The most random bytes in one call; a guest that needs more asks again, and can be interrupted in between.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// The most of an answer's body in one piece. Two of them are in memory at a time: what the guest wrote and the client
/// has not taken.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// What belongs to one attempt.
pub(super) struct State {
    pub(super) work: Arc<Work>,
    pub(super) limits: Limits,
    pub(super) task: Task,
    pub(super) session: Session,
    pub(super) resources: ResourceTable,
    /// Boxed, as it is large and seldom there: the state of an attempt is moved about when it is set up.
    wasi: Option<Box<WasiCtx>>,
    http: WasiHttpCtx,
    no_outbound: NoOutbound,
}

/// What the guest is there for.
pub(super) enum Task {
    /// To handle an event.
    Handle,
    /// To handle an event that it reads on stdin.
    Command(Printer),
    /// To answer a request.
    Answer,
}

impl State {
    pub(super) fn new(work: Arc<Work>, task: Task, state: Option<Arc<dyn StateSource>>) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let limits = Limits::new(work.identity.memory);
        let session = Session::new(state, work.identity.grants.state);
        let (wasi, http, no_outbound) = (None, WasiHttpCtx::new(), NoOutbound);
        Self { work, limits, task, session, resources, wasi, http, no_outbound }
    }

    /// What the guest says.
    pub(super) fn attempt_log(&self) -> AttemptLog {
        AttemptLog(self.work.clone())
    }

    /// What it publishes; `None` when it handles no event.
    pub(super) fn publisher(&self) -> Option<Publisher> {
        match self.task {
            Task::Handle | Task::Command(_) => Some(Publisher(self.work.clone())),
            Task::Answer => None,
        }
    }

    pub(super) fn handles(&mut self) -> &mut ResourceTable {
        &mut self.resources
    }

    fn wasi_ctx(&self) -> WasiCtx {
        let lines = |stream| Output(Lines { log: self.attempt_log(), stream });
        let mut wasi = WasiCtx::builder();
        wasi.stderr(lines(Stream::Stderr)).max_random_size(RANDOM_BYTES_MAX).allow_tcp(false).allow_udp(false);
        match &self.task {
            Task::Handle => return wasi.stdout(lines(Stream::Stdout)).build(),
            Task::Answer => wasi.stdout(lines(Stream::Stdout)),
            Task::Command(printer) => wasi
                .arg(&*self.work.identity.name)
                .stdin(MemoryInputPipe::new(
                    self.work.cause.as_ref().map_or_else(String::new, |cause| cause.to_json() + "\n"),
                ))
                .stdout(Output(printer.clone())),
        };
        // What was made elsewhere looks for its configuration here.
        let Grants { config, secrets, .. } = &self.work.identity.grants;
        let config = config.iter().filter(|(name, _)| !secrets.contains_key(*name));
        wasi.envs(&config.chain(secrets).collect::<Vec<_>>()).build()
    }
}

impl WasiView for State {
    /// Made when the guest first asks: most calls of most functions never do, and making one (three random
    /// generators, boxed streams) takes longer than a small call.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let made = self.wasi.take().unwrap_or_else(|| Box::new(self.wasi_ctx()));
        WasiCtxView { ctx: self.wasi.insert(made), table: &mut self.resources }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, hooks: &mut self.no_outbound, table: &mut self.resources }
    }
}

/// HTTP as far as answering goes.
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

/// Names the table of handles as what `wasi:io` works on.
pub(super) struct Handles;

impl HasData for Handles {
    type Data<'a> = &'a mut ResourceTable;
}

/// Names `State` as what the generated bindings work on.
pub(super) struct Host;

impl HasData for Host {
    type Data<'a> = &'a mut State;
}

impl types::Host for State {}

impl bus::Host for State {
    fn publish(&mut self, draft: types::Draft) -> Result<String, String> {
        let publisher = self.publisher().ok_or("only a function that handles an event publishes")?;
        publisher.draft(draft)
    }
}

impl commands::Host for State {
    fn exit_code(&mut self, code: u32) -> wasmtime::Result<()> {
        Err(I32Exit(code.cast_signed()).into())
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>, config::Error> {
        let Grants { config, secrets, .. } = &self.work.identity.grants;
        Ok(secrets.get(&key).or_else(|| config.get(&key)).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, config::Error> {
        let Grants { config, secrets, .. } = &self.work.identity.grants;
        let config = config.iter().filter(|(key, _)| !secrets.contains_key(*key));
        Ok(config.chain(secrets).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl logging::Host for State {
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
