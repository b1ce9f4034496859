//! Makes the workers of the dispatcher and the routes of the router from the functions of manifests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::compiling::{Component, Known};
use super::http_function::HttpFunction;
use super::load::Code;
use super::logged_runner::LoggedRunner;
use super::recording::RunningRecording;
use super::state_source::StoredState;
use evoke_core::bus::Bus;
use evoke_core::dispatcher::{AttemptResult, Call, FunctionSpec, Runner};
use evoke_core::router::{OrderBy, Router};
use evoke_http::source::RequestHandler;
use evoke_manifest::{self as manifest, Checked, Function, Record, Source, TriggerSource};
use evoke_model::clock::Clock;
use evoke_model::outcome::{Outcome, RetryPolicy};
use evoke_model::recording::Recording;
use evoke_model::state::Transaction;
use evoke_model::{FunctionId, Origin};
use evoke_sandbox::{self as sandbox, GrantUse, Kind, LogSink, Outside, Sandbox, StateSource};
use evoke_store::Store;
use evoke_store::running::RunningLog;
use evoke_telemetry::Metrics;

/// The functions in the forms that the dispatcher, the router and the http sources need.
pub(super) struct Functions {
    pub(super) workers: Vec<FunctionSpec>,
    pub(super) router: Router,
    /// The ids of the functions in the store, by full name.
    pub(super) ids: BTreeMap<String, FunctionId>,
    /// The functions that handle HTTP requests.
    pub(super) answerers: BTreeMap<FunctionId, Arc<dyn RequestHandler>>,
    /// The records of the use of grants, by full name. Functions whose components are not loaded yet have none.
    pub(super) grant_uses: BTreeMap<String, LoadedGrants>,
}

/// The record of the use of a function's grants, and the imports of its component that refuse every call.
pub(super) type LoadedGrants = (Arc<GrantUse>, Vec<&'static str>);

/// The parts of the runtime that loaded functions use.
#[derive(Clone, Copy)]
pub(super) struct Wiring<'a> {
    pub(super) store: &'a Arc<dyn Store>,
    pub(super) logs: &'a LogSink,
    pub(super) clock: &'a Clock,
    pub(super) metrics: &'a Metrics,
    /// The origins of all sources, by URI.
    pub(super) origins: &'a BTreeMap<String, Origin>,
    pub(super) running: &'a Arc<dyn RunningLog>,
    pub(super) bus: &'a Bus,
    /// Provides the client for outbound requests.
    pub(super) sandbox: &'a Sandbox,
}

/// Runs the deliveries of a function in the sandbox, for the dispatcher.
struct SandboxRunner {
    name: Arc<str>,
    component: Arc<Component>,
    /// The stored state, if the function has a grant for it.
    state: Option<Arc<dyn StateSource>>,
    logs: LogSink,
    clock: Clock,
    /// The limits of recordings; `None` if attempts are not recorded.
    record: Option<Record>,
}

impl Runner for SandboxRunner {
    fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult> {
        let Call { event, delivery_id, attempt, trigger, replay, hops, trace, .. } = call;
        let recording = self.record.map(|record| {
            let (function, trigger) = (self.name.to_string(), trigger.to_string());
            let delivery_id = delivery_id.clone();
            let recording = Recording { function, delivery_id, attempt, trigger, replay, ..Recording::default() };
            RunningRecording::start(record, recording, event.clone())
        });
        let (logs, outside) = match &recording {
            Some(recording) => (recording.logs(self.logs.clone()), Outside::Recorded(recording.recorder())),
            None => (self.logs.clone(), Outside::Live),
        };
        let (delivery_id, state, clock) = (delivery_id.into(), self.state.clone(), self.clock.clone());
        let call =
            sandbox::Call { event, trace, delivery_id, attempt, replay, hops, trigger, state, logs, clock, outside };
        async move {
            // This wait ends at once: the dispatcher starts no delivery of a function whose component is still being
            // compiled.
            let Some(function) = self.component.wait().await else {
                let outcome = Outcome::Unavailable { message: "the component was not loaded".into() };
                let (published, state, duration) = (Vec::new(), Transaction::default(), Duration::ZERO);
                let (note, recording) = (None, None);
                return AttemptResult { outcome, published, state, duration, note, recording, responded: false };
            };
            let attempt = function.run(call).await;
            let recording = recording.map(|recording| recording.end(function, &attempt));
            let sandbox::Attempt { outcome, published, state, duration, note, .. } = attempt;
            AttemptResult { outcome, published, state, duration, note, recording, responded: false }
        }
        .boxed()
    }
}

/// Returns the unique name of a function: `app/function`.
pub(crate) fn full_name(manifest: &manifest::Manifest, function: &Function) -> String {
    format!("{}/{}", manifest.app.as_str(), function.name.as_str())
}

/// Returns the name of a trigger, such as `on[0]`, which is stored with deliveries.
pub(crate) fn trigger_name(index: usize) -> Arc<str> {
    format!("on[{index}]").into()
}

/// Returns the functions of manifests, each with its manifest.
pub(crate) fn all(manifests: &[Checked]) -> impl Iterator<Item = (&Checked, &Function)> {
    manifests.iter().flat_map(|checked| checked.manifest.functions.iter().map(move |function| (checked, function)))
}

/// Registers the functions in the store, and makes their workers and routes. `known` has the code of each function, in
/// the order of the functions. Returns an error if the store fails.
pub(super) async fn register(
    manifests: &[Checked],
    known: Vec<Known>,
    wiring: Wiring<'_>,
) -> anyhow::Result<Functions> {
    let Wiring { store, logs, clock, metrics, origins, running, bus, sandbox } = wiring;
    let names: Vec<String> = all(manifests).map(|(checked, function)| full_name(&checked.manifest, function)).collect();
    let ids = store.register(names.clone()).await.context("cannot register the functions in the store, evoke.db")?;

    let stored_state: Arc<dyn StateSource> = Arc::new(StoredState(store.clone()));
    let mut workers = Vec::new();
    let mut router = Router::default();
    manifests.iter().for_each(|checked| router.add_app(checked.manifest.app.as_str()));
    let mut answerers: BTreeMap<_, Arc<dyn RequestHandler>> = BTreeMap::new();
    let mut grant_uses = BTreeMap::new();
    let parts = all(manifests).zip(known).zip(names.iter().zip(&ids));
    for (((checked, function), known), (name, id)) in parts {
        let spec = |runner: Arc<dyn Runner>| FunctionSpec {
            id: *id,
            concurrency: function.concurrency,
            retry: retry_policy(function),
            runner: Arc::new(LoggedRunner {
                runner,
                function: name.as_str().into(),
                logs: logs.clone(),
                clock: clock.clone(),
            }),
            metrics: metrics.function(name),
        };
        let (component, kind) = match known {
            Known::Loaded(Code::Component(loaded)) => {
                let grant_use = (loaded.grant_use().clone(), loaded.refusing_imports().to_vec());
                grant_uses.insert(name.clone(), grant_use);
                let kind = loaded.kind();
                (Arc::new(Component::loaded(loaded)), kind)
            }
            Known::Compiling(kind, component) => (component, kind),
            Known::Loaded(Code::Endpoint(endpoint)) => {
                add_routes(&mut router, *id, checked, function, origins, false);
                let runner = endpoint.into_runner(sandbox.client(), Handle::current(), clock);
                let runner = runner.with_context(|| format!("the URL of {name} has no valid origin"))?;
                grant_uses.insert(name.clone(), (runner.grant_use().clone(), Vec::new()));
                workers.push(spec(Arc::new(runner)));
                continue;
            }
        };
        let is_http = kind == Kind::Http;
        add_routes(&mut router, *id, checked, function, origins, is_http);
        if is_http {
            // A function that handles HTTP requests runs no deliveries. If it had another kind of component before, its
            // deliveries from that time stay pending in the store.
            let metrics = metrics.request_metrics(name);
            let (logs, clock, running) = (logs.clone(), clock.clone(), running.clone());
            let bus = bus.clone();
            let answering = HttpFunction::new(component, function.concurrency, logs, clock, metrics, running, bus);
            answerers.insert(*id, Arc::new(answering));
            continue;
        }
        let state = function.allow.state.map(|_| stored_state.clone());
        let (logs, clock, record) = (logs.clone(), clock.clone(), function.record);
        let runner = SandboxRunner { name: name.as_str().into(), component, state, logs, clock, record };
        workers.push(spec(Arc::new(runner)));
    }
    Ok(Functions { workers, router, ids: names.into_iter().zip(ids).collect(), answerers, grant_uses })
}

fn retry_policy(function: &Function) -> RetryPolicy {
    let manifest::Retry { attempts, backoff, max_backoff, max_age } = function.retry;
    RetryPolicy { attempts, backoff, max_backoff, max_age }
}

fn add_routes(
    router: &mut Router,
    id: FunctionId,
    checked: &Checked,
    function: &Function,
    origins: &BTreeMap<String, Origin>,
    handles_requests: bool,
) {
    // All sources are already registered, and the loader has checked that the source of each trigger exists.
    let origin_of = |source: &Source| origins.get(&source.uri).copied().unwrap_or_default();
    if let Some(by) = &function.order_by {
        let by = match by {
            manifest::OrderBy::Attribute(name) => OrderBy::Attribute(name.clone()),
            manifest::OrderBy::Data(path) => OrderBy::Data(path.clone()),
        };
        router.set_order(id, by);
    }
    for trigger in &function.triggers {
        let name = trigger_name(trigger.index);
        let pattern = trigger.events.as_ref().map(|events| &events.pattern);
        match &trigger.source {
            TriggerSource::Any => router.add(id, name, None, pattern),
            TriggerSource::Shared(source) => {
                let source = checked.manifest.source(source.as_str());
                router.add(id, name, Some(source.map(origin_of).unwrap_or_default()), pattern);
            }
            // All events of a private source go to the function that declares it, so the router does not match patterns
            // for them. If that function handles HTTP requests, its private source makes no events.
            TriggerSource::Private(_) if handles_requests => {}
            TriggerSource::Private(source) => router.add_private_source(origin_of(source), id, name),
        }
    }
}
