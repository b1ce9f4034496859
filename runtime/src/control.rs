//! Control of the running apps: their status, explanations of matches, and reloads.
//!
//! The admin API and [`crate::app::up`] share one [`Control`], which returns data and diagnostics. A [`Host`] shows
//! progress and runs `build:` commands.

pub(crate) mod auth;
pub(crate) mod build;
mod changes;
pub(crate) mod compiling;
mod deliver;
mod explain;
pub(crate) mod flow;
pub(crate) mod functions;
pub mod grants;
mod host;
mod http_function;
mod kinds;
mod listeners;
pub(crate) mod load;
mod logged_runner;
pub(crate) mod manifests;
mod outbound;
mod pause;
mod recording;
pub(crate) mod secrets;
pub(crate) mod sources;
pub(crate) mod state_source;
mod status;
mod take_over;
pub(crate) mod unset_secrets;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

pub use self::changes::Changes;
use self::changes::Declared;
use self::compiling::{Rest, START_WAIT};
use self::functions::{Functions, Wiring};
use self::grants::GrantRecords;
pub use self::host::{Activity, Build, Host, Progress};
pub use self::kinds::registry;
pub(crate) use self::kinds::{KINDS, Kind};
pub use self::listeners::{ListenUrl, ListenerHandle, ListenerStatus, first_end};
pub use self::logged_runner::FAILED;
use self::manifests::Fingerprint;
use self::pause::Paused;
pub use self::pause::{Pause, PauseError};
use self::sources::Sources;
pub use self::status::{Active, FunctionStatus, Phase, SourceStatus, TriggerExplanation};
pub use self::take_over::Successor;
use evoke_core::bus::Bus;
use evoke_core::dispatcher::Dispatcher;
use evoke_http::source::{Http, HttpKind, Routes};
use evoke_manifest::{Checked, Diagnostics, Settings, Severity, Source};
use evoke_model::clock::Clock;
use evoke_model::text::count;
use evoke_model::{DescendantsMax, FunctionId, StoredEvent, TakeOver};
use evoke_pattern::MalformedEvent;
use evoke_sandbox::{LogSink, Sandbox};
use evoke_sources::Services;
use evoke_store::Store;
use evoke_store::running::RunningLog;
use evoke_store_sqlite::running::Interrupted;
use evoke_telemetry::Metrics;

/// The reason why an operation on apps failed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Errors in manifests, or in the components and secrets that the manifests name. The user must correct them.
    #[error("{}", summary(.0))]
    Manifest(Diagnostics),
    /// The store failed while apps ran. Every acknowledged event is on disk and is processed after a restart.
    #[error("Evoke stopped, because the store failed: {0}")]
    StoreFailed(String),
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
    count(diagnostics.count(Severity::Error), "error")
}

/// Handle to the running apps; cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

/// The parts of the application that reloads do not replace.
pub struct Parts {
    /// Events, deliveries and state.
    pub store: Arc<dyn Store>,
    /// Accepts and routes events.
    pub bus: Bus,
    /// Runs deliveries.
    pub dispatcher: Dispatcher,
    /// Compiles and runs components.
    pub sandbox: Sandbox,
    /// Serves the http sources.
    pub http: Http,
    /// Services that the sources share.
    pub services: Services,
    /// Receives the log lines of functions.
    pub logs: LogSink,
    /// Counters and histograms.
    pub metrics: Arc<Metrics>,
    /// Source of timestamps.
    pub clock: Clock,
    /// The limits on the events that one event causes, for apps whose manifest sets no limits.
    pub descendants_max: DescendantsMax,
    /// How long the ids of events are remembered for deduplication.
    pub dedup_window: Duration,
    /// Records which work runs, so that the next start after a crash can read which work was running.
    pub running: Arc<dyn RunningLog>,
    /// The work that was running when the previous process ended without a clean stop; `None` after a clean stop.
    pub interrupted: Option<Interrupted>,
    /// True if deliveries were running when an earlier process ended without a clean stop. One of these deliveries may
    /// be the cause.
    pub has_suspects: bool,
}

struct Inner {
    parts: Parts,
    host: Arc<dyn Host>,
    /// The manifest files and folders that a reload reads.
    paths: Vec<PathBuf>,
    phase: watch::Sender<Phase>,
    active: Mutex<ActiveManifests>,
    paused: Mutex<Paused>,
    /// The functions whose components are still being compiled after the start. After the start, no name is added; a
    /// name is removed when its component is compiled.
    compiling: watch::Sender<BTreeSet<String>>,
    grants: GrantRecords,
    sources: tokio::sync::Mutex<Sources>,
    /// [`Control::start`], [`Control::reload`], a pause and a resume hold this lock from start to end, so they run one
    /// after another. Otherwise, a call that has read older manifests or pauses could make them active after a call
    /// that has read newer ones.
    changing: tokio::sync::Mutex<()>,
}

/// The manifests of the last successful start or reload.
#[derive(Default)]
struct ActiveManifests {
    manifests: Arc<[Checked]>,
    /// The ids of the functions in the store, by full name.
    function_ids: BTreeMap<String, FunctionId>,
    /// The functions that handle HTTP requests and have no deliveries, by full name.
    request_handlers: BTreeSet<String>,
    /// The declared functions, sources and routes, with which the next manifests are compared; `None` before the first
    /// start.
    declared: Option<Declared>,
    /// The renamed functions that the health monitor has not read yet.
    renamed: Vec<TakeOver>,
}

impl Control {
    /// Makes a control without active apps. [`Self::reload`] reads the manifests at `paths`.
    pub fn new(parts: Parts, paths: Vec<PathBuf>, host: Arc<dyn Host>) -> Self {
        let sources = Sources::new(
            parts.store.clone(),
            parts.services.clone(),
            parts.bus.clone(),
            parts.clock.clone(),
            parts.metrics.clone(),
        );
        Self(Arc::new(Inner {
            parts,
            host,
            paths,
            phase: watch::Sender::new(Phase::Starting),
            active: Mutex::default(),
            paused: Mutex::default(),
            compiling: watch::Sender::default(),
            grants: GrantRecords::default(),
            sources: tokio::sync::Mutex::new(sources),
            changing: tokio::sync::Mutex::default(),
        }))
    }

    /// Returns the current phase of the process.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0.parts
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.0.phase.send_replace(phase);
    }

    /// Returns the status of the active functions and sources, and of the sandbox.
    pub async fn status(&self) -> Active {
        let (sandbox, interrupted) = (self.0.parts.sandbox.figures(), self.0.parts.interrupted.clone());
        Active { functions: self.functions(), sources: self.sources().await, sandbox, interrupted }
    }

    /// Returns the status of every active function.
    pub fn functions(&self) -> Vec<FunctionStatus> {
        let dispatcher = &self.0.parts.dispatcher;
        let (running, held, failing) = (dispatcher.running(), dispatcher.waiting(), dispatcher.failing());
        let (circuits, mut last_failures) = (dispatcher.circuits(), dispatcher.last_failures());
        let rates = self.0.parts.metrics.rates();
        let (active, paused, compiling) = (self.active(), self.paused(), self.0.compiling.borrow().clone());
        let all = active.manifests.iter().flat_map(|c| c.manifest.functions.iter().map(move |f| (&c.manifest, f)));
        all.map(|(manifest, function)| {
            let name = functions::full_name(manifest, function);
            let id = active.function_ids.get(&name);
            let count = |counts: &foldhash::HashMap<_, u32>| id.and_then(|id| counts.get(id)).copied();
            FunctionStatus {
                concurrency: function.concurrency,
                running: count(&running).unwrap_or_default(),
                held: count(&held).unwrap_or_default(),
                failing: id.and_then(|id| failing.get(id)).map(status::describe_failing),
                last_failure: id.and_then(|id| last_failures.remove(id)),
                rates: rates.get(name.as_str()).copied().unwrap_or_default(),
                paused: pause::pause_of(&paused, &name),
                is_compiling: compiling.contains(&name),
                endpoint: function.deliver.as_ref().map(|deliver| deliver.url.shown()),
                circuit: id.and_then(|id| circuits.get(id)).map(|open| open.as_ref().map(status::describe_circuit)),
                name,
            }
        })
        .collect()
    }

    /// Returns the status of every active source.
    pub async fn sources(&self) -> Vec<SourceStatus> {
        self.0.sources.lock().await.status()
    }

    /// Returns the name of a function that handles requests and whose component is still being compiled.
    pub(crate) fn compiling_request_handler(&self) -> Option<String> {
        let compiling = self.0.compiling.borrow().clone();
        compiling.into_iter().find(|name| self.active().request_handlers.contains(name))
    }

    /// Returns the store ids of the active functions, by full name.
    pub fn function_ids(&self) -> BTreeMap<String, FunctionId> {
        self.active().function_ids.clone()
    }

    /// Returns the URIs and settings of the timers, sorted by URI.
    pub async fn timers(&self) -> Vec<(String, Settings)> {
        self.0.sources.lock().await.timers()
    }

    /// Matches an event against every active trigger, or only against the triggers of one function. Returns an error if
    /// the data of the event cannot be parsed.
    pub fn explain(
        &self,
        stored: &StoredEvent,
        function: Option<&str>,
    ) -> Result<Vec<TriggerExplanation>, MalformedEvent> {
        let entered = stored.lineage.entered().and_then(|origin| self.0.parts.store.origin_uri(origin));
        explain::explain_event(&self.manifests(), &stored.event, entered.as_deref(), function)
    }

    /// Returns the sources and functions that the active manifests declare.
    pub(crate) fn graph(&self) -> flow::Graph {
        flow::graph(&self.manifests(), self.0.parts.clock.now_ms())
    }

    /// Reads the manifests again, builds outdated components, and makes the manifests active. All components are loaded
    /// before anything changes. So after an error, the previous manifests are still active, and no new function is
    /// registered in the store. If components of the start are still being compiled, waits for them first.
    pub async fn reload(&self) -> Result<(), AppError> {
        // Cannot fail: the sender is a part of `self`, so it is not closed.
        let _ = self.0.compiling.subscribe().wait_for(BTreeSet::is_empty).await;
        let _one_at_a_time = self.0.changing.lock().await;
        let manifests = manifests::prepare(&self.0.paths, &*self.0.host).await?;
        self.activate(manifests, None).await.map(drop)
    }

    /// Makes the first manifests active. Waits at most [`START_WAIT`] for compilations, and returns the unfinished ones
    /// for [`Self::finish_loading`]. Returns an error if a component cannot be loaded or the store fails.
    ///
    /// In two cases, all components are loaded before anything changes. First, if functions have earlier names
    /// (`was:`), because the store must not rename functions when the start fails. Second, if there are suspects:
    /// deliveries that may have crashed an earlier process. If a compilation crashed this process while a suspect runs,
    /// the suspect would be blamed.
    pub(crate) async fn start(&self, manifests: Vec<Checked>) -> Result<Rest, AppError> {
        let _one_at_a_time = self.0.changing.lock().await;
        let loads_first = self.0.parts.has_suspects || take_over::has_earlier_names(&manifests);
        self.activate(manifests, (!loads_first).then_some(START_WAIT)).await
    }

    /// Replaces the active manifests by these. `limit` is the longest wait for compilations. Without it, all components
    /// are loaded before anything changes.
    async fn activate(&self, manifests: Vec<Checked>, limit: Option<Duration>) -> Result<Rest, AppError> {
        let manifests: Arc<[Checked]> = manifests.into();
        let Parts { store, bus, dispatcher, sandbox, http, logs, metrics, clock, running, .. } = &self.0.parts;
        if !self.0.parts.services.monitors.allow_commands() {
            let error = |checked: &Checked, source: &Source, message: String, help: &'static str| {
                checked.error_at(source.span, message, help)
            };
            let refused: Diagnostics = manifests.iter().flat_map(|checked| sources::commands(checked, error)).collect();
            if refused.has_errors() {
                return Err(refused.into());
            }
        }
        auth::check_dedup_window(&manifests, self.0.parts.dedup_window)?;
        let functions = functions::all(&manifests).map(|(c, f)| functions::full_name(&c.manifest, f)).collect();
        self.0.host.report(Progress::Loading { functions });
        let (known, rest) = compiling::load_all(&manifests, sandbox, running, limit).await?;
        let guards = auth::guards(&manifests, metrics)?;
        sources::check_routes(&manifests).map_err(anyhow::Error::from)?;

        let prepared = self.take_over(&manifests).await?;
        let origins = self.register_sources(&manifests, !prepared.taken.is_empty()).await?;
        let requests = bus.for_ingress(Kind::Listener(&HttpKind).ingress(), metrics);
        let wiring = Wiring { store, logs, clock, metrics, origins: &origins, running, bus: &requests, sandbox };
        let registered = functions::register(&manifests, known, wiring).await?;
        let Functions { workers, router, ids, answerers, grant_uses } = registered;
        self.0.compiling.send_replace(rest.names());
        let renamed = prepared.renamed();
        let take_over::Prepared { mut sources, taken } = prepared;
        let request_handlers = ids.iter().filter(|(_, id)| answerers.contains_key(*id));
        let request_handlers = request_handlers.map(|(name, _)| name.clone()).collect();
        let endpoints = sources::endpoints(&manifests, &ids, &origins, &answerers, &guards, &mut sources);
        let declared = Declared::new(&manifests, &endpoints);
        let routes = Routes::new(endpoints).map_err(anyhow::Error::from)?;
        store.limit_descendants(sources::descendants_limits(&manifests, &origins, self.0.parts.descendants_max));
        // Functions are replaced before sources: new events need the new functions.
        bus.set_router(router);
        // A paused function that these manifests no longer declare stays paused until it is removed below.
        let mut held = self.held_ids(&self.function_ids());
        held.extend(self.held_ids(&ids));
        dispatcher.set_paused(held);
        dispatcher.set_functions(workers);
        self.end_take_over();
        sources.apply(&manifests, &ids, &origins).await;
        http.set_routes(routes);
        self.0.grants.remove_others(&ids, clock.now_ms());
        self.0.grants.declare(grants::declared(&manifests, grant_uses), clock.now_ms());
        if rest.is_empty() {
            sandbox.remove_outdated();
        }
        let pending = self.pending().await;
        let changes = match &self.active().declared {
            Some(before) => declared.since(before, &renamed, &pending),
            None => declared.only_routes(),
        };
        self.0.host.report(Progress::Changed(&changes));
        if !taken.is_empty() {
            self.0.host.report(Progress::TakenOver { functions: &taken });
        }
        let is_stranded = |(name, pending): &(String, u64)| *pending > 0 && !ids.contains_key(name);
        let stranded: Vec<_> = pending.into_iter().filter(is_stranded).collect();
        if !stranded.is_empty() {
            self.0.host.report(Progress::Stranded { functions: stranded });
        }
        let declared = Some(declared);
        let mut active = self.active();
        let renamed = std::mem::take(&mut active.renamed).into_iter().chain(renamed).collect();
        *active = ActiveManifests { manifests, function_ids: ids, request_handlers, declared, renamed };
        Ok(rest)
    }

    /// Returns the number of pending deliveries of each function, including inactive functions.
    async fn pending(&self) -> BTreeMap<String, u64> {
        match self.0.parts.store.totals().await {
            Ok(totals) => totals.functions.into_iter().map(|(name, counts)| (name, counts.pending())).collect(),
            Err(error) => {
                tracing::error!("cannot read which functions have pending deliveries: {error}");
                BTreeMap::new()
            }
        }
    }

    /// Stops all sources, and waits for their tasks.
    pub(crate) async fn stop_sources(&self) {
        self.0.sources.lock().await.stop().await;
    }

    /// Returns the files that the active apps depend on. Two different results mean that a file has changed.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        manifests::fingerprint(&self.0.paths, &self.manifests())
    }

    /// Returns the files of the active manifests that `build:` commands may change.
    pub(crate) fn built_files(&self) -> BTreeSet<PathBuf> {
        manifests::built(&self.manifests())
    }

    fn paused(&self) -> MutexGuard<'_, Paused> {
        self.0.paused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the active manifests, and does not hold the lock of `active` afterwards. Work that takes long, because
    /// it grows with the manifests or reads files, uses this method. If such work held the lock, the status, the
    /// health monitor and reloads would have to wait.
    fn manifests(&self) -> Arc<[Checked]> {
        self.active().manifests.clone()
    }

    fn active(&self) -> MutexGuard<'_, ActiveManifests> {
        self.0.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
