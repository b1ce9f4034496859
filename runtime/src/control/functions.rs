//! Loads the functions of manifests, and makes the workers of the dispatcher and the routes of the router.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt as _, stream};
use tokio::runtime::Handle;

use super::deliver::{self, Endpoint};
use super::http_function::{self, HttpFunction};
use super::logged_runner::LoggedRunner;
use super::outbound;
use super::recording::RunningRecording;
use super::state_source::{self, StoredState};
use evoke_core::bus::Bus;
use evoke_core::dispatcher::{AttemptResult, Call, FunctionSpec, Runner};
use evoke_core::router::{OrderBy, Router};
use evoke_egress::Grant;
use evoke_http::source::RequestHandler;
use evoke_manifest::{self as manifest, Checked, ComponentRef, Diagnostics, Function, Record, Source, TriggerSource};
use evoke_model::clock::Clock;
use evoke_model::outcome::RetryPolicy;
use evoke_model::recording::Recording;
use evoke_model::{FunctionId, Origin};
use evoke_sandbox::{
    self as sandbox, GrantUse, Grants, Kind, LoadError, LogSink, Outside, Refusal, Sandbox, Secrets, Spec, StateSource,
};
use evoke_store::Store;
use evoke_store::running::{Recorded, RunningLog, Work};
use evoke_telemetry::Metrics;

/// The functions in the forms that the dispatcher, the router and the http sources need.
pub(super) struct Functions {
    pub(super) workers: Vec<FunctionSpec>,
    pub(super) router: Router,
    /// Ids in the store, by full name.
    pub(super) ids: BTreeMap<String, FunctionId>,
    /// The functions that handle HTTP requests.
    pub(super) answerers: BTreeMap<FunctionId, Arc<dyn RequestHandler>>,
    /// The records of the use of grants, by full name.
    pub(super) grant_uses: BTreeMap<String, LoadedGrants>,
}

/// The record of the use of a function's grants, and the imports of its component that refuse every call.
pub(super) type LoadedGrants = (Arc<GrantUse>, Vec<&'static str>);

/// A loaded function that is not registered and not active yet.
pub(super) struct Loaded<'a> {
    checked: &'a Checked,
    function: &'a Function,
    code: Code,
}

/// The part of a function that handles its events or requests.
pub(crate) enum Code {
    /// A component.
    Component(Arc<sandbox::Function>),
    /// The endpoint of a function with `deliver`.
    Endpoint(Box<Endpoint>),
}

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
    function: Arc<sandbox::Function>,
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
            let (function, trigger) = (self.function.name().to_string(), trigger.to_string());
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
            let attempt = self.function.run(call).await;
            let recording = recording.map(|recording| recording.end(&self.function, &attempt));
            let sandbox::Attempt { outcome, published, state, duration, note, .. } = attempt;
            AttemptResult { outcome, published, state, duration, note, recording }
        }
        .boxed()
    }
}

/// Returns the unique name of a function: `app/function`.
pub(crate) fn full_name(manifest: &manifest::Manifest, function: &Function) -> String {
    format!("{}/{}", manifest.app.as_str(), function.name.as_str())
}

/// Returns the name of a trigger as stored with deliveries: `on[0]`.
pub(crate) fn trigger_name(index: usize) -> Arc<str> {
    format!("on[{index}]").into()
}

/// Returns the functions of manifests, each with its manifest.
pub(crate) fn all(manifests: &[Checked]) -> impl Iterator<Item = (&Checked, &Function)> {
    manifests.iter().flat_map(|checked| checked.manifest.functions.iter().map(move |function| (checked, function)))
}

/// Loads functions in parallel. Changes nothing that is active. The results are in the order of the functions.
/// `running` records each load of a component while it runs.
pub(crate) async fn load_each<'a>(
    functions: impl Iterator<Item = (&'a Checked, &'a Function)>,
    sandbox: &'a Sandbox,
    running: Option<&'a Arc<dyn RunningLog>>,
) -> Vec<Result<Code, Diagnostics>> {
    let load = async |(checked, function): (&'a Checked, &'a Function)| {
        if let Some(deliver) = &function.deliver {
            return deliver::load(checked, function, deliver).map(|endpoint| Code::Endpoint(Box::new(endpoint)));
        }
        let name = full_name(&checked.manifest, function);
        let _recorded = running.map(|log| Recorded::start(log, &Work::Load(&name)));
        load_one(checked, function, sandbox).await.map(Code::Component)
    };
    let loads: Vec<_> = functions.map(|each| load(each).boxed()).collect();
    stream::iter(loads).buffered(Sandbox::loads_max()).collect().await
}

/// Loads all functions. Changes nothing that is active. Returns all errors together.
pub(super) async fn load_all<'a>(
    manifests: &'a [Checked],
    sandbox: &Sandbox,
    running: &Arc<dyn RunningLog>,
) -> Result<Vec<Loaded<'a>>, Diagnostics> {
    let (mut loaded, mut errors) = (Vec::new(), Diagnostics::default());
    let results = load_each(all(manifests), sandbox, Some(running)).await;
    for ((checked, function), result) in all(manifests).zip(results) {
        match result {
            Ok(code) => loaded.push(Loaded { checked, function, code }),
            Err(found) => errors.extend(found),
        }
    }
    if errors.has_errors() { Err(errors) } else { Ok(loaded) }
}

/// Registers the functions in the store, and makes their workers and routes. Returns an error if the store fails.
pub(super) async fn register(
    manifests: &[Checked],
    loaded: Vec<Loaded<'_>>,
    wiring: Wiring<'_>,
) -> anyhow::Result<Functions> {
    let Wiring { store, logs, clock, metrics, origins, running, bus, sandbox } = wiring;
    let names: Vec<String> = loaded.iter().map(|l| full_name(&l.checked.manifest, l.function)).collect();
    let ids = store.register(names.clone()).await.context("cannot register the functions in the store, evoke.db")?;

    let stored_state: Arc<dyn StateSource> = Arc::new(StoredState(store.clone()));
    let mut workers = Vec::new();
    let mut router = Router::default();
    manifests.iter().for_each(|checked| router.add_app(checked.manifest.app.as_str()));
    let mut answerers: BTreeMap<_, Arc<dyn RequestHandler>> = BTreeMap::new();
    let mut grant_uses = BTreeMap::new();
    for (Loaded { checked, function, code }, id) in loaded.into_iter().zip(&ids) {
        let spec = |runner: Arc<dyn Runner>, name: &str| FunctionSpec {
            id: *id,
            concurrency: function.concurrency,
            retry: retry_policy(function),
            runner: Arc::new(LoggedRunner { runner, function: name.into(), logs: logs.clone(), clock: clock.clone() }),
            metrics: metrics.function(name),
        };
        let component = match code {
            Code::Component(component) => component,
            Code::Endpoint(endpoint) => {
                add_routes(&mut router, *id, checked, function, origins, false);
                let name = endpoint.name().to_owned();
                let runner = endpoint.into_runner(sandbox.client(), Handle::current(), clock);
                let runner = runner.with_context(|| format!("the URL of {name} has no valid origin"))?;
                grant_uses.insert(name.clone(), (runner.grant_use().clone(), Vec::new()));
                workers.push(spec(Arc::new(runner), &name));
                continue;
            }
        };
        let grant_use = (component.grant_use().clone(), component.refusing_imports().to_vec());
        grant_uses.insert(component.name().to_string(), grant_use);
        let is_http = component.kind() == Kind::Http;
        add_routes(&mut router, *id, checked, function, origins, is_http);
        if is_http {
            // A function that handles HTTP requests runs no deliveries. If it had another kind of component before, its
            // deliveries from that time stay pending in the store.
            let metrics = metrics.request_metrics(component.name());
            let (logs, clock, running) = (logs.clone(), clock.clone(), running.clone());
            let bus = bus.clone();
            let answering = HttpFunction::new(component, function.concurrency, logs, clock, metrics, running, bus);
            answerers.insert(*id, Arc::new(answering));
            continue;
        }
        let state = function.allow.state.map(|_| stored_state.clone());
        let name = component.name().to_owned();
        let (logs, clock, record) = (logs.clone(), clock.clone(), function.record);
        let runner = SandboxRunner { function: component, state, logs, clock, record };
        workers.push(spec(Arc::new(runner), &name));
    }
    Ok(Functions { workers, router, ids: names.into_iter().zip(ids).collect(), answerers, grant_uses })
}

/// Loads a function's component under its grants, without a store. Returns all errors at once.
pub(crate) async fn load_one(
    checked: &Checked,
    function: &Function,
    sandbox: &Sandbox,
) -> Result<Arc<sandbox::Function>, Diagnostics> {
    component_of(checked, function)?;
    match outbound::read(function) {
        Ok(read) => load_with(checked, function, read, sandbox).await,
        Err((message, help)) => Err(Diagnostics::from_iter([checked.error_at(function.spans.allow, message, help)])),
    }
}

fn component_of<'a>(checked: &Checked, function: &'a Function) -> Result<&'a ComponentRef, Diagnostics> {
    function.component.as_ref().ok_or_else(|| {
        let message =
            format!("`{}` has `deliver` and no component, so this command cannot run it", function.name.as_str());
        let help = "start `evoke up`, which sends its events to the endpoint";
        Diagnostics::from_iter([checked.error_at(function.spans.component, message, help)])
    })
}

/// Like [`load_one`], but with the given secrets and destinations of requests instead of those in the manifest.
pub(crate) async fn load_with(
    checked: &Checked,
    function: &Function,
    (secrets, http): (Secrets, Vec<Grant>),
    sandbox: &Sandbox,
) -> Result<Arc<sandbox::Function>, Diagnostics> {
    let component = component_of(checked, function)?;
    let fail = |diagnostic| Err(Diagnostics::from_iter([diagnostic]));
    let spec = Spec {
        name: full_name(&checked.manifest, function).into(),
        uri: format!("/{}", full_name(&checked.manifest, function)),
        component: component.path.clone(),
        digest: component.sha256.map(|digest| evoke_model::hex(&digest)),
        timeout: function.timeout,
        memory: function.memory.0,
        grants: Grants {
            publish: function.allow.publish.iter().map(|glob| glob.as_str().to_owned()).collect(),
            state: function.allow.state.map(state_source::grant),
            config: function.allow.config.clone(),
            http,
            secrets,
        },
    };
    match sandbox.load(&spec).await {
        Ok(loaded) => match loaded.kind() {
            Kind::Http => match http_function::check_manifest(checked, function) {
                errors if errors.is_empty() => Ok(loaded),
                errors => Err(Diagnostics::from_iter(errors)),
            },
            Kind::Handler | Kind::Command => match http_function::check_event_sources(checked, function) {
                errors if errors.is_empty() => Ok(loaded),
                errors => Err(Diagnostics::from_iter(errors)),
            },
        },
        Err(error) => {
            let missing = matches!(&error, LoadError::Read { .. });
            let help = compile_help(&error).unwrap_or_else(|| match (missing, &function.build) {
                (true, Some(_)) => "run `evoke build` to build it with the `build:` command of the function".into(),
                (true, None) => "build the component, or add a `build:` command".into(),
                (false, _) => "the component must work with the grants of the manifest".into(),
            });
            fail(checked.error_at(function.spans.component, error.to_string(), help))
        }
    }
}

/// Returns the help for an error of compilation: how to raise the limit, or how to try again. Returns `None` for other
/// errors.
pub(crate) fn compile_help(error: &LoadError) -> Option<String> {
    let (refusal, record) = match error {
        LoadError::Machine { .. } => return Some("the component may be fine; try again".into()),
        LoadError::Refused { refusal, record, .. } => (refusal, record),
        _ => return None,
    };
    let help = match refusal {
        Refusal::Memory(_) => {
            "make the component smaller, or raise the limit with --compile-memory SIZE or EVOKE_COMPILE_MEMORY"
        }
        Refusal::Time(_) => {
            "make the component smaller, or raise the limit with --compile-time DURATION or EVOKE_COMPILE_TIME"
        }
        Refusal::Output(_) => "make the component smaller; this limit is fixed",
        Refusal::Crash(_) => "build the component with another version of its tools",
    };
    Some(match record {
        Some(record) => format!("{help}; to try again without a change, remove {}", record.display()),
        None => help.to_owned(),
    })
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
    // All sources are registered before, and the loader has checked that the source of each trigger exists.
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
