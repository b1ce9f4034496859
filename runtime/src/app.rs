//! Wires everything, and owns the order of starting, reloading and draining.

mod answers;
mod build;
mod data;
mod explain;
mod functions;
mod invoke;
mod kept;
mod lookout;
mod manifests;
mod retention;
mod sources;

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
pub use self::invoke::{InvokeOptions, Invoked, invoke};
use self::lookout::Lookout;
use self::sources::Sources;
use crate::admin::{self, Admin, Explained, FunctionStatus, InForce, Phase, SourceStatus};
use crate::bus::{self, Bus};
use crate::clock::{Clock, rfc3339};
use crate::dispatcher::{Dispatcher, Failing};
use crate::event::Event;
use crate::listener::{self, Listener};
use crate::logs::FunctionLogs;
use crate::manifest::{Checked, Diagnostics, Severity};
use crate::otlp::Otlp;
use crate::pattern::MalformedEvent;
use crate::replay::Replays;
use crate::router::Router;
use crate::sandbox::{LogSink, Sandbox, Settings};
use crate::source::http::{Http, Routes};
use crate::store::sqlite::SqliteStore;
use crate::store::{FunctionId, Retention, Store};
use crate::telemetry::{Ingress, Metrics};

/// How `up` is to run.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Manifests and folders of manifests; none is `evoke.yaml`.
    pub manifests: Vec<PathBuf>,
    /// The data folder.
    pub data: PathBuf,
    /// Where sources listen; port 0 is a free one.
    pub http: SocketAddr,
    /// Where the admin API listens.
    pub admin: SocketAddr,
    /// Whether to reload when a manifest, a component or one of its sources changes.
    pub watch: bool,
    /// How long deliveries that run may take after the stop.
    pub drain: Duration,
    /// Deliveries at once over all functions.
    pub concurrency: u32,
    /// How long a source and id are known.
    pub dedup_window: Duration,
    /// What may be pending before no more is taken on.
    pub backlog_max: bus::Amount,
    /// What is kept of what is over.
    pub retention: Retention,
    /// What has to be free on the data folder's disk, in bytes; `None`: as much as is usual.
    pub storage_low: Option<u64>,
}

/// Why a command could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Mistakes in manifests or in what they name, for people to mend.
    #[error("{}", summary(.0))]
    Mistakes(Diagnostics),
    /// Anything else.
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

impl From<Diagnostics> for AppError {
    fn from(mistakes: Diagnostics) -> Self {
        Self::Mistakes(mistakes)
    }
}

fn summary(found: &Diagnostics) -> String {
    match found.count(Severity::Error) {
        1 => "1 mistake".to_owned(),
        n => format!("{n} mistakes"),
    }
}

/// Tells on standard error what is being done.
fn say(doing: &str, what: &str) {
    let style = anstyle::Style::new().bold();
    anstream::eprintln!("{style}{doing:>10}{style:#} {what}");
}

/// How often a change is looked for with `--watch`; a change is taken up when it has stood this long.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// What is running, as it is looked at from outside.
pub struct Running {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The bus.
    pub bus: Bus,
    /// The dispatcher.
    pub dispatcher: Dispatcher,
    /// Stored events that are offered again.
    pub replays: Replays,
    /// What functions log.
    pub logs: FunctionLogs,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Since when it runs.
    pub started: Instant,
    declared: std::sync::Mutex<Declared>,
    sources: tokio::sync::Mutex<Sources>,
}

/// What the manifests in force declare.
#[derive(Default)]
struct Declared {
    manifests: Vec<Checked>,
    ids: BTreeMap<String, FunctionId>,
}

impl Running {
    /// The functions in force, by name.
    pub fn functions(&self) -> Vec<FunctionStatus> {
        let (running, held) = (self.dispatcher.running(), self.dispatcher.held());
        let failing = self.dispatcher.failing();
        let declared = self.declared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let all = declared.manifests.iter().flat_map(|c| c.manifest.functions.iter().map(move |f| (&c.manifest, f)));
        all.map(|(manifest, function)| {
            let name = functions::full_name(manifest, function);
            let of =
                |counts: &foldhash::HashMap<_, u32>| declared.ids.get(&name).and_then(|id| counts.get(id)).copied();
            let failing = declared.ids.get(&name).and_then(|id| failing.get(id)).map(failing_in_words);
            let (running, held) = (of(&running).unwrap_or_default(), of(&held).unwrap_or_default());
            FunctionStatus { name, concurrency: function.concurrency, running, held, failing }
        })
        .collect()
    }

    /// The ids of the functions in force, by name.
    fn function_ids(&self) -> BTreeMap<String, FunctionId> {
        self.declared.lock().unwrap_or_else(std::sync::PoisonError::into_inner).ids.clone()
    }

    /// How an event meets the triggers in force, or those of one function.
    pub fn explain(&self, event: &Event, function: Option<&str>) -> Result<Vec<Explained>, MalformedEvent> {
        let declared = self.declared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        explain::event(&declared.manifests, event, function)
    }

    /// The sources in force.
    pub async fn sources(&self) -> Vec<SourceStatus> {
        self.sources.lock().await.status()
    }
}

/// What a failing function is said to do.
fn failing_in_words(failing: &Failing) -> String {
    let Failing { since_ms, attempts, outcome, message, .. } = failing;
    let since = rfc3339(*since_ms);
    match (attempts, message) {
        // It was before the start.
        (0, _) => format!("since {since}"),
        (_, Some(message)) => format!("{attempts} attempts failed since {since}, the last as {outcome}: {message}"),
        (_, None) => format!("{attempts} attempts failed since {since}, the last as {outcome}"),
    }
}

/// What is changed by a reload.
struct App {
    options: UpOptions,
    sandbox: Sandbox,
    clock: Clock,
    log_sink: LogSink,
    http: Http,
    /// Where spans go.
    otlp: Option<Otlp>,
    phase: watch::Sender<Phase>,
    running: Arc<Running>,
}

/// Runs until it is asked to stop, or until the store fails.
pub async fn up(options: UpOptions) -> Result<(), AppError> {
    let manifests = prepare(&options.manifests).await?;
    let data = DataFolder::take(&options.data)?;
    let (app, public, admin) = start(options, &data).await?;
    let (stop_http, stop_admin) = (CancellationToken::new(), CancellationToken::new());
    let (http_address, admin_address) = (local(&public)?, local(&admin)?);
    say("starting", &format!("http://{admin_address} (admin)"));
    let administering = tokio::spawn(admin::serve(app.admin(stop_admin.clone()), admin));
    let (running, clock, storage_low) = (app.running.clone(), app.clock.clone(), app.options.storage_low);
    let lookout = Lookout::new(running, clock, data.path().to_owned(), storage_low).await;
    let lookout = lookout.context("cannot read in the store, evoke.db, what was told last")?;
    app.apply(manifests).await?;

    let limits =
        listener::Limits { drain: app.options.drain.min(listener::Limits::default().drain), ..Default::default() };
    let serving = tokio::spawn(app.http.clone().serve(public, limits, stop_http.clone()));
    app.phase.send_replace(Phase::Running);
    let stop_keeping = CancellationToken::new();
    let retaining = retention::run(app.running.store.clone(), app.options.retention, stop_keeping.clone());
    let replaying = app.running.replays.clone().run(app.running.dispatcher.clone(), stop_keeping.clone());
    let (retaining, replaying) = (tokio::spawn(retaining), tokio::spawn(replaying));
    let stop_looking = CancellationToken::new();
    let looking = tokio::spawn(lookout.run(stop_looking.clone()));
    data.announce(http_address, admin_address)?;
    say("listening", &format!("http://{http_address} (sources), http://{admin_address} (admin)"));
    say("ready", "Ctrl-C stops");

    let failed = app.serve().await?;

    // No more events, then no more attempts, then nothing that could still be committed.
    app.phase.send_replace(Phase::Draining);
    say("draining", &format!("at most {:?}", app.options.drain));
    // What stops is in no trouble.
    stop_looking.cancel();
    let _ = looking.await;
    stop_http.cancel();
    let _ = serving.await;
    app.running.sources.lock().await.stop().await;
    stop_keeping.cancel();
    let _ = replaying.await;
    let left = app.running.dispatcher.drain(app.options.drain).await;
    if left > 0 {
        say("drained", &format!("{left} deliveries were still running; they run again at the next start"));
    }
    let _ = retaining.await;
    let closed = app.running.store.close().await;
    stop_admin.cancel();
    let _ = administering.await;
    app.running.logs.flush().await;
    if let Some(otlp) = app.otlp {
        otlp.stop().await;
    }
    data.retract();
    match (failed, closed) {
        (Some(reason), _) => Err(anyhow::anyhow!("stopped: {reason}").into()),
        (None, closed) => Ok(closed.context("stopping")?),
    }
}

/// Opens what outlives reloads.
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
    let bus = Bus::new(store.clone(), Router::default(), limits).traced(spans);
    let dispatcher = Dispatcher::start(&store, bus.clone(), clock.clone(), options.concurrency);
    let http = Http::new(bus.through(Ingress::Http, &metrics), clock.clone(), Routes::default());
    let sources = tokio::sync::Mutex::new(Sources::new(bus.clone(), clock.clone(), metrics.clone()));
    let log_sink = logs.sink();
    let declared = std::sync::Mutex::default();
    let started = Instant::now();
    let replays = Replays::new(store.clone(), bus.clone());
    let running = Arc::new(Running { store, bus, dispatcher, replays, logs, metrics, started, declared, sources });
    let (phase, _) = watch::channel(Phase::Starting);
    Ok((App { options, sandbox, clock, log_sink, http, otlp, phase, running }, public, admin))
}

fn open_sandbox(options: &UpOptions) -> anyhow::Result<Sandbox> {
    let settings = Settings { cache_dir: options.data.join("compiled"), concurrency: options.concurrency };
    Ok(Sandbox::new(settings)?)
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<Listener> {
    Listener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; choose another address with {option}, port 0 is a free one")
    })
}

fn local(listener: &Listener) -> anyhow::Result<SocketAddr> {
    listener.local_addr().context("cannot read the address that is listened on")
}

/// Reads the manifests and builds what they need. Warnings are told.
async fn prepare(arguments: &[PathBuf]) -> Result<Vec<Checked>, AppError> {
    let (manifests, warnings) = manifests::load(&manifests::find(arguments)?)?;
    if !warnings.is_empty() {
        anstream::eprint!("{}", warnings.styled());
    }
    manifests::build_all(&manifests, false).await?;
    Ok(manifests)
}

impl App {
    /// What the admin API is given.
    fn admin(&self, stop: CancellationToken) -> Admin {
        let (running, sandbox, explains) = (self.running.clone(), self.sandbox.clone(), self.running.clone());
        Admin {
            store: running.store.clone(),
            bus: running.bus.through(Ingress::Api, &running.metrics),
            logs: running.logs.clone(),
            replays: running.replays.clone(),
            clock: self.clock.clone(),
            started: running.started,
            metrics: running.metrics.clone(),
            phase: self.phase.subscribe(),
            in_force: Arc::new(move || {
                let (running, sandbox) = (running.clone(), sandbox.figures());
                async move { InForce { functions: running.functions(), sources: running.sources().await, sandbox } }
                    .boxed()
            }),
            explain: Arc::new(move |event, function| explains.explain(event, function)),
            stop,
        }
    }

    /// Puts manifests in force. When one of their functions cannot be loaded, everything stays as it was.
    async fn apply(&self, manifests: Vec<Checked>) -> Result<(), AppError> {
        let running = &self.running;
        let count = manifests.iter().map(|c| c.manifest.functions.len()).sum::<usize>();
        say("loading", &format!("{count} functions"));
        let (store, metrics) = (&running.store, &running.metrics);
        let loaded = functions::load(&manifests, &self.sandbox, store, &self.log_sink, &self.clock, metrics).await?;
        let Functions { workers, router, ids, answerers } = loaded?;
        let mut sources = running.sources.lock().await;
        let endpoints = sources::endpoints(&manifests, &ids, &answerers, &mut sources);
        let routes = Routes::new(endpoints).map_err(anyhow::Error::from)?;
        // Who handles comes before what comes in.
        running.bus.set_router(router);
        running.dispatcher.set_functions(workers);
        sources.set(&manifests, &ids).await;
        self.http.set_routes(routes);
        *running.declared.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Declared { manifests, ids };
        Ok(())
    }

    /// Waits for the end, reloading on the way. Answers the reason when the store failed.
    async fn serve(&self) -> anyhow::Result<Option<String>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok(None),
            _ = interrupt.recv() => Ok(None),
            reason = self.running.store.failure() => Ok(Some(reason)),
            () = self.watch() => Ok(None),
        }
    }

    /// With `--watch`, reloads at every change. A reload that fails leaves everything as it was.
    async fn watch(&self) {
        if !self.options.watch {
            return std::future::pending().await;
        }
        let mut in_force = self.fingerprint();
        let mut before = in_force.clone();
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let now = self.fingerprint();
            if now != before || now == in_force {
                before = now;
                continue;
            }
            say("reloading", "something changed");
            let reloaded = match prepare(&self.options.manifests).await {
                Ok(manifests) => self.apply(manifests).await,
                Err(error) => Err(error),
            };
            match reloaded {
                Ok(()) => say("reloaded", ""),
                Err(AppError::Mistakes(mistakes)) => {
                    anstream::eprint!("{}", mistakes.styled());
                    say("kept", "what was running goes on as it was");
                }
                Err(error) => say("kept", &format!("{error}; what was running goes on as it was")),
            }
            // What the reload built is part of what is in force.
            in_force = self.fingerprint();
            before.clone_from(&in_force);
        }
    }

    fn fingerprint(&self) -> BTreeMap<PathBuf, Option<std::time::SystemTime>> {
        let declared = self.running.declared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        manifests::fingerprint(&self.options.manifests, &declared.manifests)
    }
}

/// Checks manifests: the text, and the components that are there against what they are granted. Answers what was
/// found short of a mistake, and how many manifests and functions there are.
pub async fn validate(arguments: &[PathBuf]) -> Result<(Diagnostics, usize, usize), AppError> {
    let (manifests, mut found) = manifests::load(&manifests::find(arguments)?)?;
    let cache = std::env::temp_dir().join(format!("evoke-validate-{}", std::process::id()));
    let sandbox = Sandbox::new(Settings { cache_dir: cache.clone(), concurrency: 1 }).map_err(anyhow::Error::from)?;
    let mut count = 0;
    for (checked, function) in manifests.iter().flat_map(|c| c.manifest.functions.iter().map(move |f| (c, f))) {
        count += 1;
        // What is not built yet is no mistake of the manifest when it says how to build it.
        if (function.component.path.exists() || function.build.is_none())
            && let Err(mistakes) = functions::load_one(checked, function, &sandbox).await
        {
            found.extend(mistakes);
        }
    }
    let _ = std::fs::remove_dir_all(cache);
    if found.has_errors() { Err(found.into()) } else { Ok((found, manifests.len(), count)) }
}

/// Runs the `build:` of every function; answers how many there were.
pub async fn build(arguments: &[PathBuf]) -> Result<usize, AppError> {
    let (manifests, _) = manifests::load(&manifests::find(arguments)?)?;
    manifests::build_all(&manifests, true).await?;
    Ok(manifests::buildable(&manifests).count())
}
