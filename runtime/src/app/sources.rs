//! Starts the sources of all apps, replaces those whose settings changed, and stops them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::functions::{full_name, trigger_name};
use crate::admin::SourceStatus;
use evoke_core::bus::{Bus, Target};
use evoke_core::source::{Context, Health};
use evoke_http::source::{Endpoint, RequestHandler};
use evoke_manifest::{Checked, HttpSource, Method, Source, SourceKind, TriggerSource};
use evoke_model::FunctionId;
use evoke_model::clock::Clock;
use evoke_sources::{files, timer};
use evoke_store::{Ownership, ScopeStore};
use evoke_telemetry::{Ingress, Metrics};

/// How long a source waits until it tries again to own its scope, while another process runs the source.
const OWN_RETRY: Duration = Duration::from_secs(1);

/// The running sources, by the URI of their events.
pub(super) struct Sources {
    scopes: Arc<dyn ScopeStore>,
    bus: Bus,
    metrics: Arc<Metrics>,
    clock: Clock,
    running: BTreeMap<String, RunningSource>,
    /// Health of http sources that have an endpoint but are not started yet.
    prepared: BTreeMap<String, Health>,
}

struct RunningSource {
    kind: SourceKind,
    target: Target,
    health: Health,
    stop: CancellationToken,
    /// `None` for an http source: the listener serves all http sources.
    task: Option<JoinHandle<()>>,
}

impl Sources {
    pub(super) fn new(scopes: Arc<dyn ScopeStore>, bus: Bus, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { scopes, bus, metrics, clock, running: BTreeMap::new(), prepared: BTreeMap::new() }
    }

    /// Runs exactly the sources of these manifests. Unchanged sources keep running without interruption.
    pub(super) async fn apply(&mut self, manifests: &[Checked], functions: &BTreeMap<String, FunctionId>) {
        let mut previous = std::mem::take(&mut self.running);
        let mut to_start = Vec::new();
        for (source, target) in manifests.iter().flat_map(|checked| targets(checked, functions)) {
            match previous.remove(&source.uri) {
                Some(same) if same.is_unchanged(&source.kind, &target) => {
                    self.running.insert(source.uri.clone(), same);
                }
                other => {
                    if let Some(changed) = other {
                        if let (SourceKind::Http(_), SourceKind::Http(_)) = (&changed.kind, &source.kind) {
                            self.prepared.insert(source.uri.clone(), changed.health.clone());
                        }
                        previous.insert(source.uri.clone(), changed);
                    }
                    to_start.push((source, target));
                }
            }
        }
        // A changed source stops before its successor starts: both use the same marks in the store.
        stop_all(previous).await;
        for (source, target) in to_start {
            let running = self.start(source, target);
            self.running.insert(source.uri.clone(), running);
        }
        self.prepared.clear();
    }

    /// Returns the health handle of an http source that runs or is about to. The endpoint updates it.
    pub(super) fn health(&mut self, uri: &str) -> Health {
        match self.running.get(uri) {
            Some(RunningSource { kind: SourceKind::Http(_), health, .. }) => health.clone(),
            _ => self.prepared.entry(uri.to_owned()).or_default().clone(),
        }
    }

    fn start(&mut self, source: &Source, target: Target) -> RunningSource {
        let health = match &source.kind {
            SourceKind::Http(_) => self.health(&source.uri),
            SourceKind::Files(_) | SourceKind::Timer(_) => Health::default(),
        };
        let stop = CancellationToken::new();
        let ingress = match &source.kind {
            SourceKind::Http(_) => Ingress::Http,
            SourceKind::Files(_) => Ingress::Files,
            SourceKind::Timer(_) => Ingress::Timer,
        };
        let context = Context {
            bus: self.bus.for_ingress(ingress, &self.metrics),
            uri: source.uri.clone(),
            target: target.clone(),
            clock: self.clock.clone(),
            stop: stop.clone(),
            health: health.clone(),
        };
        let scopes = self.scopes.clone();
        let task = match source.kind.clone() {
            SourceKind::Http(_) => None,
            SourceKind::Files(config) => {
                Some(tokio::spawn(run_owned(scopes, context.clone(), files::run(config, context))))
            }
            SourceKind::Timer(config) => {
                Some(tokio::spawn(run_owned(scopes, context.clone(), timer::run(config, context))))
            }
        };
        RunningSource { kind: source.kind.clone(), target, health, stop, task }
    }

    /// Returns the status of every running source, sorted by URI.
    pub(super) fn status(&self) -> Vec<SourceStatus> {
        let status = self.running.iter().map(|(uri, running)| SourceStatus {
            uri: uri.clone(),
            kind: running.kind.key(),
            trouble: running.health.trouble(),
        });
        status.collect()
    }

    /// Stops all sources, and waits for their tasks.
    pub(super) async fn stop(&mut self) {
        stop_all(std::mem::take(&mut self.running)).await;
    }
}

impl RunningSource {
    fn is_unchanged(&self, kind: &SourceKind, target: &Target) -> bool {
        // The settings are plain data, so equal debug output means equal settings.
        self.target == *target && format!("{:?}", self.kind) == format!("{kind:?}")
    }
}

/// Runs a source while this process owns it. While another process does, the source waits until it is stopped.
async fn run_owned(scopes: Arc<dyn ScopeStore>, context: Context, source: impl Future<Output = ()>) {
    if let Some(_owned) = own(&*scopes, &context).await {
        source.await;
    }
}

/// Takes the ownership of a source. Returns `None` when the source is stopped first.
async fn own(scopes: &dyn ScopeStore, context: &Context) -> Option<Ownership> {
    let scope = format!("source{}", context.uri);
    loop {
        match scopes.own(&scope).await {
            Ok(Some(owned)) => return Some(owned),
            Ok(None) => context.health.recovered(),
            Err(error) => context.health.degraded(format!("cannot find out whether another process runs it: {error}")),
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
            tracing::error!("the source {uri} failed: {error}");
        }
    }
}

/// Returns the endpoints of the http sources of these manifests.
pub(super) fn endpoints(
    manifests: &[Checked],
    functions: &BTreeMap<String, FunctionId>,
    answerers: &BTreeMap<FunctionId, Arc<dyn RequestHandler>>,
    sources: &mut Sources,
) -> Vec<Endpoint> {
    let all = manifests.iter().flat_map(|checked| targets(checked, functions));
    let endpoints = all.filter_map(|(source, target)| match &source.kind {
        SourceKind::Http(http) => {
            let handler = match &target {
                Target::Function { function, .. } => answerers.get(function).cloned(),
                Target::Matching => None,
            };
            let health = sources.health(&source.uri);
            Some(Endpoint { handler, health, ..endpoint(http, &source.uri, target) })
        }
        SourceKind::Files(_) | SourceKind::Timer(_) => None,
    });
    endpoints.collect()
}

fn endpoint(source: &HttpSource, uri: &str, target: Target) -> Endpoint {
    let method = |method: &Method| http::Method::from_bytes(method.as_str().as_bytes()).unwrap_or_default();
    Endpoint {
        path: source.path.clone(),
        methods: source.methods.iter().map(method).collect(),
        type_: source.type_.clone(),
        body_max: usize::try_from(source.max_body.0).unwrap_or(usize::MAX),
        uri: uri.to_owned(),
        target,
        handler: None,
        health: Health::default(),
    }
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
