//! The admin API over the store of a stopped Evoke or over a backup, inside the process of a command. The handlers are
//! those of the running process; the store, opened for reading only, refuses every change.

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

use crate::admin::{self, Admin, Readiness, Tokens, router, tokens};
use crate::control::{Build, Control, Host, ListenerHandle, Parts, Phase, Progress};
use crate::logs::FunctionLogs;
use evoke_core::bus::{Bus, Limits};
use evoke_core::dispatcher::Dispatcher;
use evoke_core::replay::Replays;
use evoke_core::router::Router;
use evoke_egress::Client;
use evoke_http::source::{Http, Routes};
use evoke_model::DescendantsMax;
use evoke_model::clock::Clock;
use evoke_sandbox::{CompileLimits, Compiler, Sandbox, Settings};
use evoke_sources::Services;
use evoke_sources::monitor::Monitors;
use evoke_store::Store;
use evoke_store::running::NoRunningLog;
use evoke_store_sqlite::SqliteStore;
use evoke_telemetry::Metrics;

/// The address that requests name. Nothing listens there.
const ADDRESS: &str = "127.0.0.1:1";

/// The API over a folder.
pub struct Offline {
    service: TowerToHyperService<axum::Router>,
    /// The token of the requests.
    token: String,
    runtime: Runtime,
    /// Holds the token, and an empty log if the folder has none.
    _temporary: TempDir,
}

impl Offline {
    /// Opens the store in a folder for reading. Nothing in the folder is changed.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        if !folder.join("evoke.db").exists() {
            bail!("there is no store at {}", folder.join("evoke.db").display());
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.context("cannot start threads")?;
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
            running: Arc::new(NoRunningLog),
            services: Services { monitors },
            interrupted: None,
        };
        let control = Control::new(parts, Vec::new(), Arc::new(NoHost));
        control.set_phase(Phase::Running);
        runtime.block_on(control.restore_paused())?;
        let tokens = Tokens::open(temporary.path(), clock.clone())?;
        let token = tokens::read_owner(temporary.path())?.context("there is no token")?;
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
            listener: ListenerHandle::new("admin", ADDRESS.parse().context("the address")?, None),
            public: None,
            data: std::path::absolute(folder).unwrap_or_else(|_| folder.to_owned()),
            readiness: Readiness::default(),
            console: admin::Console::default(),
            stop: CancellationToken::new(),
        };
        let service = TowerToHyperService::new(router(Arc::new(admin)));
        drop(entered);
        Ok(Self { service, token, runtime, _temporary: temporary })
    }

    /// Sends a GET request and waits for the start of the response.
    pub fn get(&self, path_and_query: &str) -> anyhow::Result<Response<Body>> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(path_and_query)
            .header(HOST, ADDRESS)
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .body(http_body_util::Empty::<bytes::Bytes>::new())?;
        let response = self.runtime.block_on(self.service.call(request));
        Ok(response.unwrap_or_else(|never| match never {}))
    }

    /// Waits for the result of a task, such as the next part of a response.
    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }
}

/// No app runs, so nothing is shown or built.
struct NoHost;

impl Host for NoHost {
    fn report(&self, _: Progress<'_>) {}

    fn build(&self, _: Build) -> BoxFuture<'static, Result<(), String>> {
        Box::pin(async { Err("nothing is built offline".to_owned()) })
    }
}
