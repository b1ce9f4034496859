//! Starts, replaces and stops the sources of all apps. A source is replaced when its settings change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::SourceStatus;
use super::auth::Guards;
use super::functions::{full_name, trigger_name};
use super::kinds::Kind;
use evoke_core::bus::{Bus, Origin, Target};
use evoke_core::source::{Context, Health};
use evoke_http::source::{Endpoint, HttpSource, RequestHandler, RouteConflict, Routes, SourceMethod};
use evoke_manifest::{Checked, Diagnostic, Settings, Source, TriggerSource};
use evoke_model::clock::Clock;
use evoke_model::{DescendantsLimits, DescendantsMax, FunctionId, TakeOver};
use evoke_sources::Services;
use evoke_sources::monitor::MonitorSource;
use evoke_sources::timer::TimerSource;
use evoke_store::{EventStore, Ownership, ScopeStore, StoreError};
use evoke_telemetry::Metrics;

/// Time between two tries to own the scope of a source while another process owns the scope. A scope is a named lock in
/// the store. A source runs only in the process that owns its scope.
const OWN_RETRY: Duration = Duration::from_secs(1);

/// The running sources, by the URI of their events.
pub(super) struct Sources {
    scopes: Arc<dyn ScopeStore>,
    services: Services,
    bus: Bus,
    metrics: Arc<Metrics>,
    clock: Clock,
    running: BTreeMap<String, RunningSource>,
    /// Health of http sources that have an endpoint but are not started yet.
    prepared: BTreeMap<String, Health>,
}

struct RunningSource {
    /// The key of the source's kind, such as `timer`.
    kind: &'static str,
    settings: Settings,
    origin: Origin,
    target: Target,
    health: Health,
    stop: CancellationToken,
    /// `None` for an http source: the listener serves all http sources.
    task: Option<JoinHandle<()>>,
}

impl Sources {
    pub(super) fn new(
        scopes: Arc<dyn ScopeStore>,
        services: Services,
        bus: Bus,
        clock: Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { scopes, services, bus, metrics, clock, running: BTreeMap::new(), prepared: BTreeMap::new() }
    }

    /// Runs exactly the sources of these manifests. An unchanged source keeps running without interruption, unless it
    /// has a problem that only a restart of the source can end.
    pub(super) async fn apply(
        &mut self,
        manifests: &[Checked],
        functions: &BTreeMap<String, FunctionId>,
        origins: &BTreeMap<String, Origin>,
    ) {
        let mut previous = std::mem::take(&mut self.running);
        let mut to_start = Vec::new();
        for (source, target) in manifests.iter().flat_map(|checked| targets(checked, functions)) {
            match previous.remove(&source.uri) {
                Some(same) if same.is_unchanged(source, &target) => {
                    self.running.insert(source.uri.clone(), same);
                }
                other => {
                    if let Some(changed) = other {
                        if changed.settings.get::<HttpSource>().and(source.settings.get::<HttpSource>()).is_some() {
                            self.prepared.insert(source.uri.clone(), changed.health.clone());
                        }
                        previous.insert(source.uri.clone(), changed);
                    }
                    to_start.push((source, target));
                }
            }
        }
        // The changed source stops before its successor starts, because both store their progress under the same keys.
        stop_all(previous).await;
        for (source, target) in to_start {
            let running = self.start(source, origin_of(source, origins), target);
            self.running.insert(source.uri.clone(), running);
        }
        self.prepared.clear();
    }

    /// Stops the private sources that run under the earlier names of the renamed functions. Returns the URIs of these
    /// sources with their origins, for [`Sources::restart`].
    pub(super) async fn stop_own_of(&mut self, renamed: &[TakeOver]) -> BTreeMap<String, Origin> {
        let is_own = |uri: &str| renamed.iter().any(|take_over| take_over.renamed_uri(uri).is_some());
        let (own, others) = std::mem::take(&mut self.running).into_iter().partition(|(uri, _)| is_own(uri));
        self.running = others;
        let own: BTreeMap<String, RunningSource> = own;
        let origins = own.iter().map(|(uri, running)| (uri.clone(), running.origin)).collect();
        stop_all(own).await;
        origins
    }

    /// Starts again the sources that [`Sources::stop_own_of`] stopped.
    pub(super) fn restart(
        &mut self,
        manifests: &[Checked],
        functions: &BTreeMap<String, FunctionId>,
        stopped: &BTreeMap<String, Origin>,
    ) {
        for (source, target) in manifests.iter().flat_map(|checked| targets(checked, functions)) {
            if let Some(origin) = stopped.get(&source.uri) {
                let running = self.start(source, *origin, target);
                self.running.insert(source.uri.clone(), running);
            }
        }
    }

    /// Returns the health handle of an http source that is running or will be started. The endpoint of the source
    /// updates the health.
    pub(super) fn health(&mut self, uri: &str) -> Health {
        match self.running.get(uri) {
            Some(running) if running.settings.get::<HttpSource>().is_some() => running.health.clone(),
            _ => self.prepared.entry(uri.to_owned()).or_default().clone(),
        }
    }

    fn start(&mut self, source: &Source, origin: Origin, target: Target) -> RunningSource {
        let (kind, settings, stop) = (source.kind.key(), source.settings.clone(), CancellationToken::new());
        let (health, task) = match Kind::of(source.kind) {
            Some(Kind::Task(kind)) => {
                let health = Health::default();
                let context = Context {
                    bus: self.bus.for_ingress(Kind::Task(kind).ingress(), &self.metrics),
                    uri: source.uri.clone(),
                    origin,
                    target: target.clone(),
                    clock: self.clock.clone(),
                    stop: stop.clone(),
                    health: health.clone(),
                };
                let run = kind.run(&settings, context.clone(), &self.services);
                let task = run.map(|run| tokio::spawn(run_owned(self.scopes.clone(), context, run)));
                (health, task)
            }
            Some(Kind::Listener(_)) | None => (self.health(&source.uri), None),
        };
        RunningSource { kind, settings, origin, target, health, stop, task }
    }

    /// Returns the status of every running source, sorted by URI.
    pub(super) fn status(&self) -> Vec<SourceStatus> {
        let status = self.running.iter().map(|(uri, running)| SourceStatus {
            uri: uri.clone(),
            kind: running.kind,
            trouble: running.health.trouble(),
            refused: running.health.refusals(),
        });
        status.collect()
    }

    /// Returns the URIs and settings of the timers, sorted by URI.
    pub(super) fn timers(&self) -> Vec<(String, Settings)> {
        let is_timer = |running: &RunningSource| running.settings.get::<TimerSource>().is_some();
        let timers = self.running.iter().filter(|(_, running)| is_timer(running));
        timers.map(|(uri, running)| (uri.clone(), running.settings.clone())).collect()
    }

    /// Stops all sources, and waits for their tasks.
    pub(super) async fn stop(&mut self) {
        stop_all(std::mem::take(&mut self.running)).await;
    }
}

impl RunningSource {
    fn is_unchanged(&self, source: &Source, target: &Target) -> bool {
        self.settings == source.settings && self.target == *target && !self.health.needs_reload()
    }
}

/// Runs a source as soon as this process owns its scope, so that only one process runs the source. Does nothing if the
/// source is stopped first.
async fn run_owned(scopes: Arc<dyn ScopeStore>, context: Context, source: impl Future<Output = ()>) {
    if let Some(_owned) = own(&*scopes, &context).await {
        source.await;
    }
}

/// Waits until this process owns the scope of the source. Tries again after each [`OWN_RETRY`]. Returns `None` if the
/// source is stopped first.
async fn own(scopes: &dyn ScopeStore, context: &Context) -> Option<Ownership> {
    let scope = format!("source{}", context.uri);
    loop {
        match scopes.own(&scope).await {
            Ok(owned) => {
                context.health.recovered();
                if owned.is_some() {
                    return owned;
                }
            }
            Err(error) => {
                context.health.degraded(format!("cannot find out whether another process runs this source: {error}"));
            }
        }
        context.stop.run_until_cancelled(tokio::time::sleep(OWN_RETRY)).await?;
    }
}

async fn stop_all(sources: BTreeMap<String, RunningSource>) {
    sources.values().for_each(|running| running.stop.cancel());
    for (uri, running) in sources {
        if let Some(task) = running.task
            && let Err(error) = task.await
        {
            tracing::error!("the task of the source {uri} ended with an error: {error}");
        }
    }
}

/// Returns the limits on chains. A chain is an event with all events that it causes. The limits of an app apply to the
/// chains whose first event enters through a source of the app.
pub(super) fn descendants_limits(
    manifests: &[Checked],
    origins: &BTreeMap<String, Origin>,
    default: DescendantsMax,
) -> DescendantsLimits {
    let of_app = |checked: &Checked| {
        let evoke_manifest::Limits { descendants, descendants_bytes } = checked.manifest.limits;
        DescendantsMax {
            events: descendants.map_or(default.events, u64::from),
            bytes: descendants_bytes.map_or(default.bytes, |bytes| bytes.0),
        }
    };
    let of_sources = |checked| {
        let max = of_app(checked);
        checked.manifest.all_sources().map(move |(source, _)| (origin_of(source, origins), max))
    };
    DescendantsLimits { default, origins: manifests.iter().flat_map(of_sources).collect() }
}

/// Registers the sources of these manifests in the store. Returns their origins, by URI.
pub(super) async fn register_origins(
    manifests: &[Checked],
    store: &dyn EventStore,
) -> Result<BTreeMap<String, Origin>, StoreError> {
    let all = manifests.iter().flat_map(|checked| checked.manifest.all_sources());
    let uris: Vec<String> = all.map(|(source, _)| source.uri.clone()).collect();
    let origins = store.register_origins(uris.clone()).await?;
    Ok(uris.into_iter().zip(origins).collect())
}

/// Returns the origin of a source. Every source is registered before it is used.
fn origin_of(source: &Source, origins: &BTreeMap<String, Origin>) -> Origin {
    origins.get(&source.uri).copied().unwrap_or_default()
}

/// Returns an error if two http sources of these manifests share a path and a method.
pub(super) fn check_routes(manifests: &[Checked]) -> Result<(), RouteConflict> {
    let all = manifests.iter().flat_map(|checked| checked.manifest.all_sources());
    let endpoints = all.filter_map(|(source, _)| {
        let http = source.settings.get::<HttpSource>()?;
        Some(Endpoint::new(http, &source.uri, Origin::default(), Target::Matching))
    });
    Routes::new(endpoints).map(drop)
}

/// Returns the result of `report` for each monitor that runs a command. The operator, not the author of a manifest,
/// decides whether programs are started.
pub(crate) fn commands(
    checked: &Checked,
    report: fn(&Checked, &Source, String, &'static str) -> Diagnostic,
) -> Vec<Diagnostic> {
    let runs = |source: &Source| source.settings.get::<MonitorSource>().is_some_and(MonitorSource::runs_commands);
    let all = checked.manifest.all_sources().map(|(source, _)| source).filter(|source| runs(source));
    let message = |source: &Source| {
        format!("the monitor `{}` runs a program, which is not allowed by default", source.name.as_str())
    };
    all.map(|source| report(checked, source, message(source), "start with `evoke up --allow-commands`")).collect()
}

/// Returns the endpoints of the http sources of these manifests.
pub(super) fn endpoints(
    manifests: &[Checked],
    functions: &BTreeMap<String, FunctionId>,
    origins: &BTreeMap<String, Origin>,
    answerers: &BTreeMap<FunctionId, Arc<dyn RequestHandler>>,
    guards: &Guards,
    sources: &mut Sources,
) -> Vec<Endpoint> {
    let all = manifests.iter().flat_map(|checked| targets(checked, functions));
    let endpoints = all.filter_map(|(source, target)| {
        let http = source.settings.get::<HttpSource>()?;
        let handler = match &target {
            Target::Function { function, .. } => answerers.get(function).cloned(),
            Target::Matching => None,
        };
        let health = sources.health(&source.uri);
        let mut endpoint = Endpoint::new(http, &source.uri, origin_of(source, origins), target);
        (endpoint.handler, endpoint.health) = (handler, health);
        // If the source verifies senders but its guard is missing, the endpoint refuses all requests.
        if let Some(guard) = guards.get(&source.uri) {
            endpoint.auth = Some(guard.clone());
        }
        Some((endpoint, http.has_default_methods))
    });
    with_all_methods(endpoints.collect())
}

/// Sets the methods of the endpoints of functions that handle requests. If the manifest names no methods, such an
/// endpoint accepts all methods that no other source with the same path names. Each endpoint comes with a flag, which
/// is true if the manifest names no methods.
fn with_all_methods(endpoints: Vec<(Endpoint, bool)>) -> Vec<Endpoint> {
    let accepts_all = |(endpoint, is_default): &(Endpoint, bool)| *is_default && endpoint.handler.is_some();
    let named: Vec<(String, Method)> = (endpoints.iter().filter(|each| !accepts_all(each)))
        .flat_map(|(endpoint, _)| endpoint.methods.iter().map(|method| (endpoint.path.clone(), method.clone())))
        .collect();
    let extend = |each: (Endpoint, bool)| {
        let is_extended = accepts_all(&each);
        let mut endpoint = each.0;
        if is_extended {
            let is_named =
                |method: &Method| named.iter().any(|(path, other)| *path == endpoint.path && other == method);
            // A source that accepts GET also accepts HEAD, so HEAD is free only if GET is free.
            let is_free = |method: &Method| !(is_named(method) || *method == Method::HEAD && is_named(&Method::GET));
            endpoint.methods = SourceMethod::ALL.into_iter().map(SourceMethod::to_http).filter(is_free).collect();
        }
        endpoint
    };
    endpoints.into_iter().map(extend).collect()
}

/// Returns the sources of a manifest, each with the target of its events.
fn targets<'a>(
    checked: &'a Checked,
    functions: &'a BTreeMap<String, FunctionId>,
) -> impl Iterator<Item = (&'a Source, Target)> {
    let manifest = &checked.manifest;
    let shared = manifest.sources.iter().map(|source| (source, Target::Matching));
    let private = manifest.functions.iter().flat_map(move |function| {
        let id = functions.get(&full_name(manifest, function)).copied();
        function.triggers.iter().filter_map(move |trigger| match &trigger.source {
            TriggerSource::Private(source) => {
                let target = Target::Function { function: id?, trigger: trigger_name(trigger.index) };
                Some((source, target))
            }
            TriggerSource::Any | TriggerSource::Shared(_) => None,
        })
    });
    shared.chain(private)
}
