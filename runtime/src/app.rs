//! Wires all components, and owns the order of start, reload and drain.

mod build;
mod data;
mod explain;
mod functions;
mod health_monitor;
mod http_function;
mod invoke;
mod manifests;
mod retention;
mod sources;
mod state_source;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::data::DataFolder;
use self::functions::Functions;
use self::health_monitor::HealthMonitor;
pub use self::invoke::{Invocation, InvokeOptions, invoke};
use self::sources::Sources;
use crate::admin;
use crate::admin::{Active, Admin, FunctionStatus, Phase, SourceStatus, TriggerExplanation};
use crate::logs::FunctionLogs;
use crate::otlp::Otlp;
use evoke_core::bus;
use evoke_core::bus::Bus;
use evoke_core::dispatcher::{Dispatcher, Failing};
use evoke_core::replay::Replays;
use evoke_core::router::Router;
use evoke_http::listener;
use evoke_http::listener::Listener;
use evoke_http::source::{Http, Routes};
use evoke_manifest::{Checked, Diagnostics, Severity};
use evoke_model::clock::{Clock, rfc3339};
use evoke_model::event::Event;
use evoke_model::{FunctionId, Retention};
use evoke_pattern::MalformedEvent;
use evoke_sandbox::{LogSink, Sandbox, Settings};
use evoke_store::Store;
use evoke_store_sqlite::SqliteStore;
use evoke_telemetry::{Ingress, Metrics};

/// Options of [`up`].
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Manifest files and folders of manifests; empty means `evoke.yaml`.
    pub manifests: Vec<PathBuf>,
    /// The data folder.
    pub data: PathBuf,
    /// Address on which http sources listen; port 0 picks a free port.
    pub http: SocketAddr,
    /// Address on which the admin API listens.
    pub admin: SocketAddr,
    /// Whether to reload when a manifest, a component or a source file of a component changes.
    pub watch: bool,
    /// How long running deliveries may take after a stop signal.
    pub drain: Duration,
    /// Maximum number of deliveries that run at once, over all functions.
    pub concurrency: u32,
    /// How long source and id of an event are remembered for deduplication.
    pub dedup_window: Duration,
    /// Maximum backlog of pending deliveries; beyond it events are refused.
    pub backlog_max: bus::Amount,
    /// How long, and up to which size, finished events are kept.
    pub retention: Retention,
    /// Free space on the data folder's disk, in bytes, below which `evoke.storage.low` is emitted; `None` uses the
    /// default.
    pub storage_low: Option<u64>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Errors in manifests, or in components and secrets they refer to. The user has to correct them.
    #[error("{}", summary(.0))]
    Manifest(Diagnostics),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl From<Diagnostics> for AppError {
    fn from(errors: Diagnostics) -> Self {
        Self::Manifest(errors)
    }
}

fn summary(diagnostics: &Diagnostics) -> String {
    match diagnostics.count(Severity::Error) {
        1 => "1 error".to_owned(),
        n => format!("{n} errors"),
    }
}

/// Prints a progress line on standard error: a verb, aligned right, and its details.
fn say(verb: &str, details: &str) {
    let style = anstyle::Style::new().bold();
    anstream::eprintln!("{style}{verb:>10}{style:#} {details}");
}

/// How often `--watch` checks for changes. A reload starts once the files are unchanged for this long.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// The components that live across reloads, as the admin API and the health monitor use them.
pub struct Services {
    /// Events, deliveries and state.
    pub store: Arc<dyn Store>,
    /// Accepts and routes events.
    pub bus: Bus,
    /// Runs deliveries.
    pub dispatcher: Dispatcher,
    /// Plans and runs replays of stored events.
    pub replays: Replays,
    /// Log lines of functions.
    pub logs: FunctionLogs,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// When the process started.
    pub started: Instant,
    active: std::sync::Mutex<ActiveManifests>,
    sources: tokio::sync::Mutex<Sources>,
}

/// The manifests of the last successful start or reload.
#[derive(Default)]
struct ActiveManifests {
    manifests: Vec<Checked>,
    /// Ids in the store, by full name.
    function_ids: BTreeMap<String, FunctionId>,
}

impl Services {
    /// Returns the status of every active function.
    pub fn functions(&self) -> Vec<FunctionStatus> {
        let (running, held) = (self.dispatcher.running(), self.dispatcher.waiting());
        let failing = self.dispatcher.failing();
        let active = self.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let all = active.manifests.iter().flat_map(|c| c.manifest.functions.iter().map(move |f| (&c.manifest, f)));
        all.map(|(manifest, function)| {
            let name = functions::full_name(manifest, function);
            let count_of = |counts: &foldhash::HashMap<_, u32>| {
                active.function_ids.get(&name).and_then(|id| counts.get(id)).copied()
            };
            let failing = active.function_ids.get(&name).and_then(|id| failing.get(id)).map(describe_failing);
            let (running, held) = (count_of(&running).unwrap_or_default(), count_of(&held).unwrap_or_default());
            FunctionStatus { name, concurrency: function.concurrency, running, held, failing }
        })
        .collect()
    }

    /// Returns the store ids of the active functions, by full name.
    fn function_ids(&self) -> BTreeMap<String, FunctionId> {
        self.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner).function_ids.clone()
    }

    /// Matches an event against every active trigger, or those of one function. An error means that the data of the
    /// event cannot be parsed.
    pub fn explain(&self, event: &Event, function: Option<&str>) -> Result<Vec<TriggerExplanation>, MalformedEvent> {
        let active = self.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        explain::explain_event(&active.manifests, event, function)
    }

    /// Returns the status of every active source.
    pub async fn sources(&self) -> Vec<SourceStatus> {
        self.sources.lock().await.status()
    }
}

/// Describes how a function is failing, as text for users.
fn describe_failing(failing: &Failing) -> String {
    let Failing { since_ms, attempts, outcome, message, .. } = failing;
    let since = rfc3339(*since_ms);
    match (attempts, message) {
        // The function was failing before the start; the attempts are unknown.
        (0, _) => format!("since {since}"),
        (_, Some(message)) => format!("{attempts} attempts failed since {since}, the last as {outcome}: {message}"),
        (_, None) => format!("{attempts} attempts failed since {since}, the last as {outcome}"),
    }
}

/// The running application. [`App::apply`] changes it on reload.
struct App {
    options: UpOptions,
    sandbox: Sandbox,
    clock: Clock,
    log_sink: LogSink,
    http: Http,
    /// Exports spans, if a collector is configured.
    otlp: Option<Otlp>,
    phase: watch::Sender<Phase>,
    services: Arc<Services>,
}

/// Runs until SIGTERM or Ctrl-C, or until the store fails, then drains. Returns an error if the store failed.
pub async fn up(options: UpOptions) -> Result<(), AppError> {
    let manifests = prepare(&options.manifests).await?;
    let data = DataFolder::acquire(&options.data)?;
    let (app, public, admin) = start(options, &data).await?;
    let (stop_http, stop_admin) = (CancellationToken::new(), CancellationToken::new());
    let (http_address, admin_address) = (local_address(&public)?, local_address(&admin)?);
    say("starting", &format!("http://{admin_address} (admin)"));
    let admin_task = tokio::spawn(admin::serve(app.admin(stop_admin.clone()), admin));
    let (services, clock, storage_low) = (app.services.clone(), app.clock.clone(), app.options.storage_low);
    let monitor = HealthMonitor::new(services, clock, data.path().to_owned(), storage_low).await;
    let monitor = monitor.context("cannot read the last reported health from the store, evoke.db")?;
    app.apply(manifests).await?;

    let limits =
        listener::Limits { drain: app.options.drain.min(listener::Limits::default().drain), ..Default::default() };
    let http_task = tokio::spawn(app.http.clone().serve(public, limits, stop_http.clone()));
    app.phase.send_replace(Phase::Running);
    let stop_background = CancellationToken::new();
    let retention = retention::run(app.services.store.clone(), app.options.retention, stop_background.clone());
    let replays = app.services.replays.clone().run(app.services.dispatcher.clone(), stop_background.clone());
    let (retention_task, replay_task) = (tokio::spawn(retention), tokio::spawn(replays));
    let stop_monitor = CancellationToken::new();
    let monitor_task = tokio::spawn(monitor.run(stop_monitor.clone()));
    data.write_addresses(http_address, admin_address)?;
    say("listening", &format!("http://{http_address} (sources), http://{admin_address} (admin)"));
    say("ready", "press Ctrl-C to stop");

    let failed = app.run_until_stopped().await?;

    // Drain order: first no more events, then no more attempts, then no more commits.
    app.phase.send_replace(Phase::Draining);
    say("draining", &format!("at most {:?}", app.options.drain));
    // The monitor stops first: functions and sources that are stopping are not failing.
    stop_monitor.cancel();
    let _ = monitor_task.await;
    stop_http.cancel();
    let _ = http_task.await;
    app.services.sources.lock().await.stop().await;
    stop_background.cancel();
    let _ = replay_task.await;
    let running = app.services.dispatcher.drain(app.options.drain).await;
    if running > 0 {
        say("drained", &format!("{running} deliveries were still running; they run again at the next start"));
    }
    let _ = retention_task.await;
    let closed = app.services.store.close().await;
    stop_admin.cancel();
    let _ = admin_task.await;
    app.services.logs.flush().await;
    if let Some(otlp) = app.otlp {
        otlp.stop().await;
    }
    data.remove_addresses();
    match (failed, closed) {
        (Some(reason), _) => Err(anyhow::anyhow!("stopped: {reason}").into()),
        (None, closed) => Ok(closed.context("stopping")?),
    }
}

/// Opens the store, the logs, the sandbox and the listeners, which live across reloads.
async fn start(options: UpOptions, data: &DataFolder) -> anyhow::Result<(App, Listener, Listener)> {
    let clock = Clock::system();
    let metrics = Arc::new(Metrics::new());
    let (window, commits) = (options.dedup_window, metrics.commits.clone());
    let opening = |what| format!("cannot open {what} in the data folder {}", data.path().display());
    let store = SqliteStore::open_measured(data.path(), clock.clone(), window, commits);
    let store: Arc<dyn Store> = Arc::new(store.with_context(|| opening("the store, evoke.db,"))?);
    let otlp = Otlp::from_environment(store.instance(), metrics.spans.clone())?;
    let logs = FunctionLogs::open(data.path()).with_context(|| opening("the logs, logs/evoke.jsonl,"))?;
    let sandbox = open_sandbox(&options)?;
    let public = bind(options.http, "--http").await?;
    let admin = bind(options.admin, "--admin").await?;
    let limits = bus::Limits { backlog_max: options.backlog_max, ..bus::Limits::default() };
    let spans = otlp.as_ref().map(Otlp::spans).unwrap_or_default();
    let bus = Bus::new(store.clone(), Router::default(), limits).with_spans(spans);
    let dispatcher = Dispatcher::start(store.clone(), bus.clone(), clock.clone(), options.concurrency);
    let http = Http::new(bus.for_ingress(Ingress::Http, &metrics), clock.clone(), Routes::default());
    let sources = tokio::sync::Mutex::new(Sources::new(store.clone(), bus.clone(), clock.clone(), metrics.clone()));
    let log_sink = logs.sink();
    let active = std::sync::Mutex::default();
    let started = Instant::now();
    let replays = Replays::new(store.clone(), bus.clone());
    let services = Arc::new(Services { store, bus, dispatcher, replays, logs, metrics, started, active, sources });
    let (phase, _) = watch::channel(Phase::Starting);
    Ok((App { options, sandbox, clock, log_sink, http, otlp, phase, services }, public, admin))
}

fn open_sandbox(options: &UpOptions) -> anyhow::Result<Sandbox> {
    let settings = Settings { cache_dir: options.data.join("compiled"), concurrency: options.concurrency };
    Ok(Sandbox::new(settings)?)
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<Listener> {
    Listener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another address with {option}; port 0 picks a free port")
    })
}

fn local_address(listener: &Listener) -> anyhow::Result<SocketAddr> {
    listener.local_addr().context("cannot read the address of a listener")
}

/// Loads the manifests, prints their warnings, and builds missing or outdated components.
async fn prepare(arguments: &[PathBuf]) -> Result<Vec<Checked>, AppError> {
    let (manifests, warnings) = manifests::load(&manifests::find(arguments)?)?;
    if !warnings.is_empty() {
        anstream::eprint!("{}", warnings.styled());
    }
    manifests::build_all(&manifests, false).await?;
    Ok(manifests)
}

impl App {
    /// Returns what the admin API needs. Cancelling `stop` stops the API.
    fn admin(&self, stop: CancellationToken) -> Admin {
        let (services, sandbox, explainer) = (self.services.clone(), self.sandbox.clone(), self.services.clone());
        Admin {
            store: services.store.clone(),
            bus: services.bus.for_ingress(Ingress::Api, &services.metrics),
            logs: services.logs.clone(),
            replays: services.replays.clone(),
            clock: self.clock.clone(),
            started: services.started,
            metrics: services.metrics.clone(),
            phase: self.phase.subscribe(),
            active: Arc::new(move || {
                let (services, sandbox) = (services.clone(), sandbox.figures());
                async move { Active { functions: services.functions(), sources: services.sources().await, sandbox } }
                    .boxed()
            }),
            explain: Arc::new(move |event, function| explainer.explain(event, function)),
            stop,
        }
    }

    /// Makes manifests active. If one of their functions cannot be loaded, the previous manifests stay active.
    async fn apply(&self, manifests: Vec<Checked>) -> Result<(), AppError> {
        let services = &self.services;
        let count = manifests.iter().map(|c| c.manifest.functions.len()).sum::<usize>();
        say("loading", &format!("{count} functions"));
        let (store, metrics) = (&services.store, &services.metrics);
        let loaded = functions::load(&manifests, &self.sandbox, store, &self.log_sink, &self.clock, metrics).await?;
        let Functions { workers, router, ids, answerers } = loaded?;
        let mut sources = services.sources.lock().await;
        let endpoints = sources::endpoints(&manifests, &ids, &answerers, &mut sources);
        let routes = Routes::new(endpoints).map_err(anyhow::Error::from)?;
        // Functions are replaced before sources: new events need the new functions.
        services.bus.set_router(router);
        services.dispatcher.set_functions(workers);
        sources.apply(&manifests, &ids).await;
        self.http.set_routes(routes);
        *services.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
            ActiveManifests { manifests, function_ids: ids };
        Ok(())
    }

    /// Waits for a stop signal or a store failure, and reloads meanwhile. Returns the reason if the store failed.
    async fn run_until_stopped(&self) -> anyhow::Result<Option<String>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok(None),
            _ = interrupt.recv() => Ok(None),
            reason = self.services.store.failure() => Ok(Some(reason)),
            () = self.watch() => Ok(None),
        }
    }

    /// With `--watch`, reloads on every change. If a reload fails, the previous manifests stay active.
    async fn watch(&self) {
        if !self.options.watch {
            return std::future::pending().await;
        }
        let mut active = self.fingerprint();
        let mut previous = active.clone();
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let now = self.fingerprint();
            if now != previous || now == active {
                previous = now;
                continue;
            }
            say("reloading", "files have changed");
            let reloaded = match prepare(&self.options.manifests).await {
                Ok(manifests) => self.apply(manifests).await,
                Err(error) => Err(error),
            };
            match reloaded {
                Ok(()) => say("reloaded", ""),
                Err(AppError::Manifest(errors)) => {
                    anstream::eprint!("{}", errors.styled());
                    say("unchanged", "the previous manifests stay active");
                }
                Err(error) => say("unchanged", &format!("{error}; the previous manifests stay active")),
            }
            // The reload may have built components, which changes the fingerprint.
            active = self.fingerprint();
            previous.clone_from(&active);
        }
    }

    fn fingerprint(&self) -> BTreeMap<PathBuf, Option<std::time::SystemTime>> {
        let active = self.services.active.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        manifests::fingerprint(&self.options.manifests, &active.manifests)
    }
}

/// Checks manifests, and that the existing components load under their grants. Returns the warnings, the number of
/// manifests and the number of functions.
pub async fn validate(arguments: &[PathBuf]) -> Result<(Diagnostics, usize, usize), AppError> {
    let (manifests, mut found) = manifests::load(&manifests::find(arguments)?)?;
    let cache = std::env::temp_dir().join(format!("evoke-validate-{}", std::process::id()));
    let sandbox = Sandbox::new(Settings { cache_dir: cache.clone(), concurrency: 1 }).map_err(anyhow::Error::from)?;
    let mut count = 0;
    for (checked, function) in manifests.iter().flat_map(|c| c.manifest.functions.iter().map(move |f| (c, f))) {
        count += 1;
        // A missing component is no error if the manifest has a `build:` command for it.
        if (function.component.path.exists() || function.build.is_none())
            && let Err(errors) = functions::load_one(checked, function, &sandbox).await
        {
            found.extend(errors);
        }
    }
    let _ = std::fs::remove_dir_all(cache);
    if found.has_errors() { Err(found.into()) } else { Ok((found, manifests.len(), count)) }
}

/// Runs the `build:` command of every function. Returns the number of builds.
pub async fn build(arguments: &[PathBuf]) -> Result<usize, AppError> {
    let (manifests, _) = manifests::load(&manifests::find(arguments)?)?;
    manifests::build_all(&manifests, true).await?;
    Ok(manifests::buildable(&manifests).count())
}
