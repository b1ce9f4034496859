//! From the functions of a manifest to what the dispatcher and the router run.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::answers::{self, Answering};
use super::kept::{self, Kept};
use crate::clock::Clock;
use crate::dispatcher::{Call, Ran, Runner, Worker};
use crate::manifest::{self, Checked, Diagnostics, Function, SecretRef, TriggerSource};
use crate::outcome::RetryPolicy;
use crate::router::{OrderBy, Router};
use crate::sandbox::{self, Grants, Kind, LogSink, Sandbox, Spec, StateSource};
use crate::source::http::Answerer;
use crate::store::{FunctionId, Store};
use crate::telemetry::Metrics;

/// The functions of all apps, ready to be put in charge.
pub(super) struct Functions {
    pub(super) workers: Vec<Worker>,
    pub(super) router: Router,
    /// The ids in the store, by full name.
    pub(super) ids: BTreeMap<String, FunctionId>,
    /// Those that answer requests.
    pub(super) answerers: BTreeMap<FunctionId, Arc<dyn Answerer>>,
}

/// A sandboxed function as the dispatcher's runner.
struct Sandboxed {
    function: Arc<sandbox::Function>,
    /// Where its state is, when it has any.
    state: Option<Arc<dyn StateSource>>,
    logs: LogSink,
    clock: Clock,
}

impl Runner for Sandboxed {
    fn run(&self, call: Call) -> BoxFuture<'_, Ran> {
        let Call { event, delivery_id, attempt, trigger, replay, .. } = call;
        let (delivery_id, state) = (delivery_id.into(), self.state.clone());
        let (logs, clock) = (self.logs.clone(), self.clock.clone());
        let call = sandbox::Call { event, delivery_id, attempt, replay, trigger, state, logs, clock };
        async move {
            let sandbox::Attempt { outcome, published, state, duration, .. } = self.function.run(call).await;
            Ran { outcome, published, state, duration }
        }
        .boxed()
    }
}

/// The name of a function across apps.
pub(super) fn full_name(manifest: &manifest::Manifest, function: &Function) -> String {
    format!("{}/{}", manifest.app.as_str(), function.name.as_str())
}

/// The name of a trigger, as deliveries keep it.
pub(super) fn trigger_name(index: usize) -> Arc<str> {
    format!("on[{index}]").into()
}

/// Loads every function of these manifests; all mistakes come back at once.
pub(super) async fn load(
    manifests: &[Checked],
    sandbox: &Sandbox,
    store: &Arc<dyn Store>,
    logs: &LogSink,
    clock: &Clock,
    metrics: &Metrics,
) -> anyhow::Result<Result<Functions, Diagnostics>> {
    let all = || manifests.iter().flat_map(|checked| checked.manifest.functions.iter().map(move |f| (checked, f)));
    let names: Vec<String> = all().map(|(checked, function)| full_name(&checked.manifest, function)).collect();
    let ids = store.register(names.clone()).await.context("cannot note the functions in the store, evoke.db")?;

    let kept: Arc<dyn StateSource> = Arc::new(Kept(store.clone()));
    let mut problems = Diagnostics::default();
    let mut workers = Vec::new();
    let mut router = Router::default();
    let mut answerers: BTreeMap<_, Arc<dyn Answerer>> = BTreeMap::new();
    for ((checked, function), id) in all().zip(&ids) {
        match load_one(checked, function, sandbox).await {
            // Deliveries that it was owed while it was something else rest in the store.
            Ok(loaded) if loaded.kind() == Kind::Http => {
                let metrics = metrics.answering(loaded.name());
                let answering = Answering::new(loaded, function.concurrency, logs.clone(), clock.clone(), metrics);
                answerers.insert(*id, Arc::new(answering));
            }
            Ok(loaded) => {
                let metrics = metrics.function(loaded.name());
                let state = function.allow.state.map(|_| kept.clone());
                let runner = Sandboxed { function: loaded, state, logs: logs.clone(), clock: clock.clone() };
                workers.push(Worker {
                    id: *id,
                    concurrency: function.concurrency,
                    retry: retry_policy(function),
                    runner: Arc::new(runner),
                    metrics,
                });
            }
            Err(found) => problems.extend(found),
        }
        add_routes(&mut router, *id, checked, function, answerers.contains_key(id));
    }
    if problems.has_errors() {
        return Ok(Err(problems));
    }
    Ok(Ok(Functions { workers, router, ids: names.into_iter().zip(ids).collect(), answerers }))
}

/// Checks that a function's component loads under its grants, without a store.
pub(super) async fn load_one(
    checked: &Checked,
    function: &Function,
    sandbox: &Sandbox,
) -> Result<Arc<sandbox::Function>, Diagnostics> {
    let one = |diagnostic| Err(Diagnostics::from_iter([diagnostic]));
    let secrets = match secrets(function) {
        Ok(secrets) => secrets,
        Err((message, help)) => return one(checked.error_at(function.spans.allow, message, help)),
    };
    let spec = Spec {
        name: full_name(&checked.manifest, function).into(),
        uri: format!("/{}", full_name(&checked.manifest, function)),
        component: function.component.path.clone(),
        digest: function.component.sha256.map(|digest| digest.iter().map(|byte| format!("{byte:02x}")).collect()),
        timeout: function.timeout,
        memory: function.memory.0,
        grants: Grants {
            publish: function.allow.publish.iter().map(|glob| glob.as_str().to_owned()).collect(),
            state: function.allow.state.map(kept::grant),
            http: function.allow.http.iter().map(ToString::to_string).collect(),
            config: function.allow.config.clone(),
            secrets,
        },
    };
    match sandbox.load(&spec).await {
        Ok(loaded) => match loaded.kind() {
            Kind::Http => match answers::mistakes(checked, function) {
                mistakes if mistakes.is_empty() => Ok(loaded),
                mistakes => Err(Diagnostics::from_iter(mistakes)),
            },
            Kind::Handler | Kind::Command => Ok(loaded),
        },
        Err(error) => {
            let missing = matches!(&error, sandbox::LoadError::Read { .. });
            let help = match (missing, &function.build) {
                (true, Some(_)) => "`evoke build` makes it with this function's `build:`",
                (true, None) => "build the component, or say how in `build:`",
                (false, _) => "the component and what the manifest grants it must fit",
            };
            one(checked.error_at(function.spans.component, error.to_string(), help))
        }
    }
}

fn retry_policy(function: &Function) -> RetryPolicy {
    let manifest::Retry { attempts, backoff, max_backoff, max_age } = function.retry;
    RetryPolicy { attempts, backoff, max_backoff, max_age }
}

fn add_routes(router: &mut Router, id: FunctionId, checked: &Checked, function: &Function, answers: bool) {
    if let Some(by) = &function.order_by {
        let by = match by {
            manifest::OrderBy::Attribute(name) => OrderBy::Attribute(name.clone()),
            manifest::OrderBy::Data(path) => OrderBy::Data(path.clone()),
        };
        router.order(id, by);
    }
    for trigger in &function.triggers {
        let name = trigger_name(trigger.index);
        let pattern = trigger.events.as_ref().map(|events| &events.pattern);
        match &trigger.source {
            TriggerSource::Any => router.add(id, name, None, pattern),
            TriggerSource::Shared(source) => {
                let uri = checked.manifest.source(source.as_str()).map(|source| source.uri.as_str());
                router.add(id, name, uri, pattern);
            }
            // Its events are offered to the function alone, past the patterns; what is answered makes no events.
            TriggerSource::Private(_) if answers => {}
            TriggerSource::Private(source) => router.own(&source.uri, id, name),
        }
    }
}

/// The values of a function's secrets. The error is what is wrong and what would be right, and holds no value.
fn secrets(function: &Function) -> Result<BTreeMap<String, String>, (String, String)> {
    let read = |(name, secret): (&String, &SecretRef)| {
        let value = match secret {
            SecretRef::Env(variable) => std::env::var(variable).map_err(|_| {
                let message =
                    format!("the secret {name} is to come from the environment variable {variable}, which is not set");
                (message, format!("start Evoke with {variable} set"))
            }),
            SecretRef::File(path) => std::fs::read_to_string(path)
                // Editors end a file with a line break that is no part of the secret.
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| {
                    let message = format!("the secret {name} is to come from {}: {error}", path.display());
                    (message, "put the secret into this file, readable for Evoke".to_owned())
                }),
        };
        value.map(|value| (name.clone(), value))
    };
    function.allow.secrets.iter().map(read).collect()
}
