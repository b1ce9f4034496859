//! The admin API over the store of a stopped Evoke or over a backup, inside the process of a command. The request
//! handlers are the same as in a running Evoke. The store is opened for reading only, so it refuses every change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, bail};
use axum::body::Body;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, HOST};
use http::{Method, Request, Response};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Admin, Readiness, Tokens, router};
use crate::app::StopSignals;
use crate::control::{Build, Control, Host, ListenerHandle, Parts, Phase, Progress};
use crate::logs::FunctionLogs;
use evoke_core::bus::{Bus, Limits};
use evoke_core::dispatcher::Dispatcher;
use evoke_core::replay::Replays;
use evoke_core::router::Router;
use evoke_egress::Client;
use evoke_http::listener::Listener;
use evoke_http::source::{Http, Routes};
use evoke_model::DescendantsMax;
use evoke_model::clock::Clock;
use evoke_sandbox::{CompileLimits, Compiler, Sandbox, Settings};
use evoke_sources::Services;
use evoke_sources::monitor::Monitors;
use evoke_store::running::NoRunningLog;
use evoke_store::{DEDUP_WINDOW, Store};
use evoke_store_sqlite::SqliteStore;
use evoke_telemetry::Metrics;

/// The address in the `Host` header of requests after [`Offline::open`]. Nothing listens on this address.
const ADDRESS: &str = "127.0.0.1:1";
/// The name of the token that authenticates the requests.
const TOKEN: &str = "offline";

/// The admin API over the store in one folder.
pub struct Offline {
    admin: Arc<Admin>,
    service: TowerToHyperService<axum::Router>,
    /// The token of the requests.
    token: String,
    runtime: Runtime,
    /// A temporary folder with the tokens. It also has empty logs of functions if the opened folder has no logs.
    temporary: TempDir,
}

impl Offline {
    /// Opens the store in a folder for reading. Nothing in the folder is changed.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        Self::open_at(folder, ADDRESS.parse().context("the address")?, start_threads()?, false)
    }

    /// Opens the store in a folder like [`Self::open`], and serves the API and the console on a loopback address. With
    /// port 0, the system chooses a free port.
    pub fn serve(folder: &Path, address: SocketAddr) -> anyhow::Result<Self> {
        let runtime = start_threads()?;
        let listener = runtime.block_on(Listener::bind(address)).and_then(|bound| Ok((bound.local_addr()?, bound)));
        let (address, listener) = listener.with_context(|| format!("cannot listen on {address}"))?;
        let offline = Self::open_at(folder, address, runtime, true)?;
        drop(offline.runtime.spawn(admin::serve(offline.admin.clone(), listener)));
        Ok(offline)
    }

    fn open_at(folder: &Path, address: SocketAddr, runtime: Runtime, is_served: bool) -> anyhow::Result<Self> {
        if !folder.join("evoke.db").exists() {
            bail!("there is no store at {}", folder.join("evoke.db").display());
        }
        let entered = runtime.enter();
        let clock = Clock::system();
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open_read_only(folder, clock.clone())?);
        let temporary = TempDir::new().context("cannot create a temporary folder")?;
        let logs_folder = if folder.join("logs").is_dir() { folder } else { temporary.path() };
        let logs = FunctionLogs::open(logs_folder).context("cannot read the logs")?;
        let bus = Bus::new(store.clone(), Router::default(), Limits::default());
        let metrics: Arc<Metrics> = Arc::default();
        let outbound = Client::new(runtime.handle().clone(), metrics.clone());
        let monitors = Monitors::new(outbound, false, metrics.monitors.clone());
        let compiler = Compiler::this_program(CompileLimits::DEFAULT);
        let parts = Parts {
            dispatcher: Dispatcher::start(store.clone(), bus.clone(), clock.clone(), 1),
            sandbox: Sandbox::new(Settings { cache_dir: None, compiler, concurrency: 1 })?,
            http: Http::new(bus.clone(), clock.clone(), Routes::default()),
            store: store.clone(),
            bus: bus.clone(),
            logs: logs.sink(),
            metrics: Arc::clone(&metrics),
            clock: clock.clone(),
            descendants_max: DescendantsMax::default(),
            dedup_window: DEDUP_WINDOW,
            running: Arc::new(NoRunningLog),
            services: Services { monitors },
            interrupted: None,
            has_suspects: false,
        };
        let control = Control::new(parts, Vec::new(), Arc::new(NoHost));
        control.set_phase(Phase::Running);
        runtime.block_on(control.restore_paused())?;
        runtime.block_on(control.restore_grant_records())?;
        let tokens = Tokens::open(temporary.path(), clock.clone())?;
        let token = if is_served { tokens.create_viewer(TOKEN)? } else { tokens.create_local(TOKEN)? };
        let admin = Admin {
            control,
            replays: Replays::new(store.clone(), bus.clone()),
            store,
            bus,
            logs,
            clock,
            started: Instant::now(),
            metrics,
            tokens,
            listener: ListenerHandle::new("admin", address, None),
            public: None,
            data: std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()),
            readiness: Readiness::default(),
            console: admin::Console::default(),
            stop: CancellationToken::new(),
        };
        let admin = Arc::new(admin);
        let service = TowerToHyperService::new(router(admin.clone()));
        drop(entered);
        Ok(Self { admin, service, token, runtime, temporary })
    }

    /// Returns the URL of the API, without a path.
    pub fn url(&self) -> String {
        self.admin.listener.url().to_string()
    }

    /// Returns a private folder for the caller's files. Dropping `self` removes the folder.
    pub fn temporary(&self) -> &Path {
        self.temporary.path()
    }

    /// Sends a request without a body and waits for the start of the response.
    pub fn send(&self, method: Method, path_and_query: &str) -> anyhow::Result<Response<Body>> {
        let request = Request::builder()
            .method(method)
            .uri(path_and_query)
            .header(HOST, self.admin.listener.address.to_string())
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(http_body_util::Empty::<bytes::Bytes>::new())?;
        let response = self.runtime.block_on(self.service.call(request));
        Ok(response.unwrap_or_else(|never| match never {}))
    }

    /// Waits for the result of a task, such as the next part of a response.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Starts to receive SIGTERM and Ctrl-C. [`Self::wait`] can wait for such a signal.
    pub fn stop_signals(&self) -> anyhow::Result<StopSignals> {
        let _entered = self.runtime.enter();
        StopSignals::new().context("cannot receive signals")
    }
}

fn start_threads() -> anyhow::Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("cannot start threads")
}

/// A host that does nothing, because no app runs.
struct NoHost;

impl Host for NoHost {
    fn report(&self, _: Progress<'_>) {}

    fn build(&self, _: Build) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async { Err("nothing is built offline".to_owned()) })
    }
}
