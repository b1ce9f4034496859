//! Runs one function once, without a server and without storing anything.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;

use crate::control::functions::{full_name, trigger_name};
use crate::control::load::load_one;
use crate::control::state_source::StoredState;
use crate::control::{AppError, Host, build, manifests};
use evoke_manifest::{Checked, Function};
use evoke_model::Actor;
use evoke_model::clock::{Clock, rfc3339};
use evoke_model::event::Event;
use evoke_model::state::{Change, Touched, Transaction};
use evoke_sandbox::{Attempt, Call, CompileLimits, Compiler, Kind, LogLine, Outside, Sandbox, Settings};
use evoke_store::StateStore;
use evoke_store::memory::MemoryStore;

/// Options of [`invoke`].
#[derive(Debug, Clone)]
pub struct InvokeOptions {
    /// Manifest files and folders of manifests; empty means `evoke.yaml`.
    pub manifests: Vec<PathBuf>,
    /// The function as `app/function`. The app can be omitted if only one app declares a function with this name.
    pub function: String,
    /// The event in CloudEvents JSON form; a missing id, source, type or time gets a default.
    pub event: String,
    /// The attempt number that the function receives, from 1.
    pub attempt: u32,
    /// Initial state of the function: keys and values.
    pub state: Vec<(String, String)>,
    /// Initial state shared by the functions of the app: keys and values.
    pub shared_state: Vec<(String, String)>,
    /// The data folder; only its cache of compiled components is used.
    pub data: PathBuf,
    /// Limits on compiling the component.
    pub compile: CompileLimits,
}

/// Result of [`invoke`].
pub struct Invocation {
    /// `app/function`.
    pub function: String,
    /// Outcome, published events, time and memory.
    pub attempt: Attempt,
    /// Log lines of the function, in order.
    pub logs: Vec<LogLine>,
}

/// Builds and loads the function, and runs one attempt. Nothing is stored, and published events are not delivered.
pub async fn invoke(options: InvokeOptions, host: &dyn Host) -> Result<Invocation, AppError> {
    let (manifests, _) = manifests::load(&manifests::find(&options.manifests)?)?;
    let (checked, function) = find(&manifests, &options.function)?;
    if function.deliver.is_some() {
        return Err(anyhow::anyhow!(
            "{} has no component: it sends events to an endpoint; run it with `evoke up`",
            options.function
        )
        .into());
    }
    let clock = Clock::system();
    let event = event(&options.event, &clock)?;
    build::build(checked, function, false, host).await?;
    let sandbox = sandbox(&options.data, options.compile, 1)?;
    let loaded = load_one(checked, function, &sandbox).await?;
    if loaded.kind() == Kind::Http {
        return Err(
            anyhow::anyhow!("{} handles HTTP requests, not events; run it with `evoke up`", options.function).into()
        );
    }
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new(clock.clone()));
    let (own, shared) = (full_name(&checked.manifest, function), checked.manifest.app.as_str());
    let bytes = |(key, value): (String, String)| (key, value.into_bytes());
    for (bucket, values) in [(own.as_str(), options.state), (shared, options.shared_state)] {
        let values = values.into_iter().map(bytes).collect();
        seed(&*store, bucket, values).await?;
    }
    let logs: Arc<Mutex<Vec<LogLine>>> = Arc::default();
    let sink = logs.clone();
    let call = Call {
        event: Arc::new(event),
        trace: None,
        delivery_id: "invoke-1".into(),
        attempt: options.attempt,
        replay: false,
        hops: 0,
        trigger: trigger_name(0),
        state: Some(Arc::new(StoredState(store))),
        logs: Arc::new(move |line| sink.lock().unwrap_or_else(PoisonError::into_inner).push(line)),
        clock,
        outside: Outside::Live,
    };
    let attempt = loaded.run(call).await;
    let logs = std::mem::take(&mut *logs.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(Invocation { function: full_name(&checked.manifest, function), attempt, logs })
}

/// Stores these keys and values in a bucket.
pub(super) async fn seed(store: &dyn StateStore, bucket: &str, values: Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    let set = |(key, value): (String, Vec<u8>)| {
        let change = Some(Change::Set(value.into()));
        Touched { bucket: bucket.into(), key: key.into(), seen: None, change }
    };
    let keys = values.into_iter().map(set).collect();
    store.state_write(&Actor::Runtime, Transaction { keys, ..Transaction::default() }).await?;
    Ok(())
}

fn find<'a>(manifests: &'a [Checked], wanted: &str) -> anyhow::Result<(&'a Checked, &'a Function)> {
    let all = || manifests.iter().flat_map(|checked| checked.manifest.functions.iter().map(move |f| (checked, f)));
    let named = |(checked, function): &(&Checked, &Function)| {
        function.name.as_str() == wanted || full_name(&checked.manifest, function) == wanted
    };
    let found: Vec<_> = all().filter(named).collect();
    match found.as_slice() {
        [one] => Ok(*one),
        [] => {
            let names: Vec<String> = all().map(|(checked, function)| full_name(&checked.manifest, function)).collect();
            bail!("there is no function {wanted}; the manifests declare {}", names.join(", "))
        }
        _ => bail!("several apps have a function {wanted}; write app/function"),
    }
}

fn event(text: &str, clock: &Clock) -> anyhow::Result<Event> {
    let fill = |event: &mut Event| {
        for (attribute, default) in
            [(&mut event.id, "invoke-1"), (&mut event.source, "/cli"), (&mut event.type_, "evoke.invoke")]
        {
            if attribute.is_empty() {
                default.clone_into(attribute);
            }
        }
        event.time.get_or_insert_with(|| rfc3339(clock.now_ms()));
    };
    Event::from_json(text.as_bytes(), fill).map_err(|e| anyhow::anyhow!("--event is not a valid event: {e}"))
}

/// Returns a sandbox that uses the cache of compiled components in the data folder. If that folder cannot be used, the
/// sandbox has no cache on disk. `concurrency` is the number of attempts that run at the same time.
pub(super) fn sandbox(data: &Path, limits: CompileLimits, concurrency: u32) -> anyhow::Result<Sandbox> {
    let settings = |cache_dir| Settings { cache_dir, compiler: Compiler::this_program(limits), concurrency };
    // The cache contains machine code that Evoke runs, so other users must not be able to write to its folder.
    let usable = evoke_store_sqlite::prepare_data_folder(data).map_err(anyhow::Error::from);
    match usable.and_then(|_| Ok(Sandbox::new(settings(Some(data.join("compiled"))))?)) {
        Err(error) => {
            tracing::warn!("{error:#}; without the cache of compiled components, functions are compiled at each run");
            Ok(Sandbox::new(settings(None))?)
        }
        sandbox => sandbox,
    }
}
