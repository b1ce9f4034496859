//! The sources of all apps: started, replaced when their settings changed, stopped.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::functions::{full_name, trigger_name};
use crate::admin::SourceStatus;
use crate::bus::{Bus, Target};
use crate::clock::Clock;
use crate::manifest::{Checked, HttpSource, Method, Source, SourceKind, TriggerSource};
use crate::source::http::{Answerer, Endpoint};
use crate::source::{self, Context, Health};
use crate::store::FunctionId;
use crate::telemetry::{Ingress, Metrics};

/// The sources that run, by the URI of their events.
pub(super) struct Sources {
    bus: Bus,
    metrics: Arc<Metrics>,
    clock: Clock,
    running: BTreeMap<String, Running>,
    /// Of http sources that are about to run.
    prepared: BTreeMap<String, Health>,
}

struct Running {
    kind: SourceKind,
    target: Target,
    health: Health,
    stop: CancellationToken,
    /// `None` for an HTTP source: the listener serves all of them.
    task: Option<JoinHandle<()>>,
}

impl Sources {
    pub(super) fn new(bus: Bus, clock: Clock, metrics: Arc<Metrics>) -> Self {
        Self { bus, metrics, clock, running: BTreeMap::new(), prepared: BTreeMap::new() }
    }

    /// Has exactly the sources of these manifests run: those that are as they were go on undisturbed.
    pub(super) async fn set(&mut self, manifests: &[Checked], functions: &BTreeMap<String, FunctionId>) {
        let mut before = std::mem::take(&mut self.running);
        let mut wanted = Vec::new();
        for (source, target) in manifests.iter().flat_map(|checked| targets(checked, functions)) {
            match before.remove(&source.uri) {
                Some(same) if same.is(&source.kind, &target) => {
                    self.running.insert(source.uri.clone(), same);
                }
                other => {
                    if let Some(changed) = other {
                        if let (SourceKind::Http(_), SourceKind::Http(_)) = (&changed.kind, &source.kind) {
                            self.prepared.insert(source.uri.clone(), changed.health.clone());
                        }
                        before.insert(source.uri.clone(), changed);
                    }
                    wanted.push((source, target));
                }
            }
        }
        // The old one ends before the new one starts: they share their marks.
        stop_all(before).await;
        for (source, target) in wanted {
            let running = self.start(source, target);
            self.running.insert(source.uri.clone(), running);
        }
        self.prepared.clear();
    }

    /// How an http source is doing that runs, or will: it is its endpoint that knows.
    pub(super) fn health(&mut self, uri: &str) -> Health {
        match self.running.get(uri) {
            Some(Running { kind: SourceKind::Http(_), health, .. }) => health.clone(),
            _ => self.prepared.entry(uri.to_owned()).or_default().clone(),
        }
    }

    fn start(&mut self, source: &Source, target: Target) -> Running {
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
            bus: self.bus.through(ingress, &self.metrics),
            uri: source.uri.clone(),
            target: target.clone(),
            clock: self.clock.clone(),
            stop: stop.clone(),
            health: health.clone(),
        };
        let task = match source.kind.clone() {
            SourceKind::Http(_) => None,
            SourceKind::Files(config) => Some(tokio::spawn(source::files::run(config, context))),
            SourceKind::Timer(config) => Some(tokio::spawn(source::timer::run(config, context))),
        };
        Running { kind: source.kind.clone(), target, health, stop, task }
    }

    /// How each of them is doing.
    pub(super) fn status(&self) -> Vec<SourceStatus> {
        let status = self.running.iter().map(|(uri, running)| SourceStatus {
            uri: uri.clone(),
            kind: running.kind.key(),
            trouble: running.health.trouble(),
        });
        status.collect()
    }

    /// Stops them all.
    pub(super) async fn stop(&mut self) {
        stop_all(std::mem::take(&mut self.running)).await;
    }
}

impl Running {
    fn is(&self, kind: &SourceKind, target: &Target) -> bool {
        // The settings are plain data: their debug form tells them apart.
        self.target == *target && format!("{:?}", self.kind) == format!("{kind:?}")
    }
}

async fn stop_all(sources: BTreeMap<String, Running>) {
    sources.values().for_each(|running| running.stop.cancel());
    for (uri, running) in sources {
        if let Some(task) = running.task
            && let Err(error) = task.await
        {
            tracing::error!("the source {uri} failed: {error}");
        }
    }
}

/// The endpoints of the HTTP sources of these manifests.
pub(super) fn endpoints(
    manifests: &[Checked],
    functions: &BTreeMap<String, FunctionId>,
    answerers: &BTreeMap<FunctionId, Arc<dyn Answerer>>,
    sources: &mut Sources,
) -> Vec<Endpoint> {
    let all = manifests.iter().flat_map(|checked| targets(checked, functions));
    let endpoints = all.filter_map(|(source, target)| match &source.kind {
        SourceKind::Http(http) => {
            let answerer = match &target {
                Target::Function { function, .. } => answerers.get(function).cloned(),
                Target::Matching => None,
            };
            let health = sources.health(&source.uri);
            Some(Endpoint { answerer, health, ..endpoint(http, &source.uri, target) })
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
        answerer: None,
        health: Health::default(),
    }
}

/// The sources of a manifest, each with who its events are for.
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
