//! The sandbox: loads functions, and limits how many attempts run at the same time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wasmtime::Engine;

use super::cache::{Cache, CacheError, Compiled};
use super::compile::{Cancelled, Compiler, Input, cancellation};
use super::component::{LoadError, memory_at_start, read_file};
use super::engine::{self, Ticker};
use super::fair_slots::FairSlots;
use super::function::Function;
use super::grants::Grants;
use super::invocation::Identity;
use super::kind::{EXPECTED_EXPORTS, Kind};
use super::shared::Shared;
use super::threads::{GuestThreads, processors};
use super::warm_pool::WarmPool;
use super::{imports, linker};
use evoke_egress::Client;
use evoke_model::{hex, reserved_places};
use evoke_telemetry::{self as telemetry, Spans};

/// Settings of a [`Sandbox`].
#[derive(Debug)]
pub struct Settings {
    /// Cache folder for compiled functions. The sandbox creates it if it is missing and denies other users access to
    /// it. `None` keeps compiled functions in memory.
    pub cache_dir: Option<PathBuf>,
    /// How components are compiled.
    pub compiler: Compiler,
    /// Limit on the instances that run at the same time for deliveries of events. HTTP requests have as many instances
    /// of their own, but at most 2,048. Of these, the last free ones are reserved for functions that have no running
    /// request, so that one function cannot use all of them. Each possible instance reserves address space, but takes
    /// memory only for the pages that the guest uses.
    pub concurrency: u32,
}

/// A function to load: its component, limits and grants.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The name, in the form `app/function`.
    pub name: Arc<str>,
    /// The CloudEvents `source` of the events that the function publishes, in the form `/app/function`.
    pub uri: String,
    /// Path of the component, a `.wasm` or `.wat` file.
    pub component: PathBuf,
    /// The SHA-256 that the file must have, in hexadecimal; `None` accepts any file.
    pub digest: Option<String>,
    /// Time limit of one attempt.
    pub timeout: Duration,
    /// Limit on the linear memory of one attempt, in bytes.
    pub memory: u64,
    /// The capabilities of the function.
    pub grants: Grants,
}

/// Why a sandbox cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The cache folder for compiled functions is not usable.
    #[error(
        "cannot use {path} as the cache for compiled functions: {error}; the folder must belong to the user \
         that runs Evoke"
    )]
    Cache {
        /// The cache folder.
        path: String,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// wasmtime cannot be set up on this machine.
    #[error("cannot start the WebAssembly engine: {0}")]
    Engine(String),
}

/// Loads functions, and limits how many attempts run at the same time. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

impl Sandbox {
    /// Starts the threads of the sandbox, and creates the cache folder. The requests that functions send go through a
    /// new client, whose metrics are not exported. The requests have no trace spans.
    pub fn new(settings: Settings) -> Result<Self, SandboxError> {
        let new_client = |threads: &GuestThreads| Client::new(threads.handle().clone(), Arc::default());
        Self::start(settings, new_client, Spans::default())
    }

    /// Creates a sandbox whose functions send their requests with this client.
    pub fn with_client(settings: Settings, client: Client, spans: Spans) -> Result<Self, SandboxError> {
        Self::start(settings, |_| client, spans)
    }

    /// Returns the client that sends the requests of functions.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    fn start(
        settings: Settings,
        client: impl FnOnce(&GuestThreads) -> Client,
        spans: Spans,
    ) -> Result<Self, SandboxError> {
        let Settings { cache_dir, compiler, concurrency } = settings;
        let engine_error = |error: wasmtime::Error| SandboxError::Engine(format!("{error:#}"));
        let concurrency = concurrency.clamp(1, engine::CONCURRENCY_MAX);
        let requests = concurrency.min(engine::REQUESTS_MAX);
        let engine = engine::engine(concurrency, requests).map_err(engine_error)?;
        let linker = linker::linker(&engine).map_err(engine_error)?;
        let warm = WarmPool::new().inspect_err(|error| {
            tracing::warn!(
                error = %format!("{error:#}"),
                "cannot create the instances that keep their memory between attempts; functions with much data (Go, \
                 JavaScript, Python) start slower; if address space is missing, raise the limit on virtual memory \
                 (ulimit -v)"
            );
        });
        let warm = warm.ok();
        let cache = match cache_dir {
            Some(folder) => {
                let path = folder.display().to_string();
                Cache::open(folder, engine.clone(), compiler).map_err(|error| SandboxError::Cache { path, error })?
            }
            None => Cache::in_memory(engine.clone(), compiler).map_err(|e| SandboxError::Engine(e.to_string()))?,
        };
        let cache = match &warm {
            Some(warm) => cache.with_second_engine(warm.engine.clone(), WarmPool::is_for),
            None => cache,
        };
        let engines = [&engine].into_iter().chain(warm.as_ref().map(|warm| &warm.engine)).cloned().collect();
        let ticker = Ticker::start(engines).map_err(|e| SandboxError::Engine(e.to_string()))?;
        let threads = GuestThreads::start().map_err(|e| SandboxError::Engine(e.to_string()))?;
        let processors = FairSlots::new(processors(), 0);
        let permits = Semaphore::new(concurrency as usize);
        let requests = FairSlots::new(requests, reserved_places(requests));
        let loads = Semaphore::new(Self::loads_max());
        let client = client(&threads);
        let shared = Shared {
            engine,
            linker,
            warm,
            cache,
            ticker,
            threads,
            processors,
            permits,
            requests,
            loads,
            concurrency,
            client,
            spans,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// Returns the tokio runtime whose threads run guests. [`Function::call_http`] moves its guest to these threads
    /// itself. Callers of [`Function::run`] should call it in tasks of this runtime, because short attempts run on the
    /// thread of the caller.
    pub fn guest_threads(&self) -> &Handle {
        self.0.threads.handle()
    }

    /// Returns the current values of the sandbox metrics.
    pub fn figures(&self) -> telemetry::Sandbox {
        let Shared { engine, warm, permits, concurrency, cache, .. } = &*self.0;
        let permits_taken = *concurrency as usize - permits.available_permits().min(*concurrency as usize);
        // wasmtime's instance pool counts all running instances, also those of direct attempts and HTTP requests, which
        // take no permit. If the address space for the pool could not be reserved, only attempts with a permit are
        // counted.
        let in_pool = |engine: &Engine| engine.pooling_allocator_metrics().map(|pool| pool.component_instances());
        let warm_instances = warm.as_ref().and_then(|warm| in_pool(&warm.engine)).unwrap_or_default();
        let instances = in_pool(engine).map_or(permits_taken as u64, |instances| instances + warm_instances);
        let (cache_hits, cache_misses) = cache.load_counts();
        let instances_max = u64::from(*concurrency);
        telemetry::Sandbox { instances, instances_max, cache_hits, cache_misses }
    }

    /// Returns to the operating system the memory that free warm instances keep for their next attempts (`warm_pool`).
    /// Call this while no function runs: the next attempts start slower, because they must allocate the memory again.
    pub fn release_memory(&self) {
        if let Some(Err(error)) = self.0.warm.as_ref().map(WarmPool::release_memory) {
            tracing::warn!(error = %format!("{error:#}"), "cannot return the memory of unused instances to the operating system");
        }
    }

    /// Returns how many functions can be loaded at the same time: one for each processor, because loading may include a
    /// compilation, which uses a processor and much memory.
    pub fn loads_max() -> usize {
        processors() as usize
    }

    /// Removes from the cache the compiled functions that were not loaded since the previous call of this method. Keeps
    /// the few that were used last, so that going back to a previous build needs no compilation.
    pub fn remove_outdated(&self) {
        self.0.cache.remove_outdated();
    }

    /// Reads and checks a component, compiles it or takes its compiled form from the cache, and links it. Compiling a
    /// large component takes seconds. The compiler runs in a process of its own, which ends when the returned future is
    /// dropped.
    pub async fn load(&self, spec: &Spec) -> Result<Arc<Function>, LoadError> {
        let loaded = self
            .load_from(spec, |shared, input, cancelled| shared.cache.load_or_compile(input, Some(cancelled)).map(Some));
        // The function that is passed here never returns `None`.
        let path = spec.component.display().to_string();
        loaded.await?.ok_or_else(|| LoadError::Machine {
            path,
            message: "the compiler returned no component; this is a bug in Evoke".into(),
        })
    }

    /// Loads a function as [`Self::load`] does, but does not compile: returns `None` if the component is not in the
    /// cache.
    pub async fn load_cached(&self, spec: &Spec) -> Result<Option<Arc<Function>>, LoadError> {
        self.load_from(spec, |shared, input, _| shared.cache.load_cached(input)).await
    }

    async fn load_from(&self, spec: &Spec, get: GetCompiled) -> Result<Option<Arc<Function>>, LoadError> {
        let path = spec.component.display().to_string();
        let machine = |message: String| LoadError::Machine { path: path.clone(), message };
        // An error means that the semaphore is closed, which never happens.
        let _permit = self.0.loads.acquire().await;
        let (_cancel_on_drop, cancelled) = cancellation().map_err(|error| machine(error.to_string()))?;
        let (shared, spec) = (self.0.clone(), spec.clone());
        match tokio::task::spawn_blocking(move || load(&shared, spec, &cancelled, get)).await {
            Ok(loaded) => loaded.map(|function| function.map(Arc::new)),
            Err(panic) => Err(machine(format!("the task that loads it failed: {panic}"))),
        }
    }
}

/// Limit on the entries of a list that an error message shows.
const LISTED_MAX: usize = 30;

/// Keeps the first [`LISTED_MAX`] entries of a list for an error message, and adds how many more there are.
fn shorten(mut list: Vec<String>) -> Vec<String> {
    if list.len() > LISTED_MAX {
        let more = list.len() - LISTED_MAX;
        list.truncate(LISTED_MAX);
        list.push(format!("and {more} more"));
    }
    list
}

/// The function of the cache that returns the compiled component: [`Cache::load_or_compile`], or
/// [`Cache::load_cached`], which returns `None` if the cache does not contain the component.
type GetCompiled = fn(&Shared, &Input, &Cancelled) -> Result<Option<Compiled>, CacheError>;

fn load(
    shared: &Arc<Shared>,
    spec: Spec,
    cancelled: &Cancelled,
    get: GetCompiled,
) -> Result<Option<Function>, LoadError> {
    let path = spec.component.display().to_string();
    let invalid = |message: String| LoadError::Invalid { path: path.clone(), message };
    let input = read_file(&spec.component)?;
    if let Some(expected) = spec.digest
        && let found = hex(&input.sha256)
        && !expected.eq_ignore_ascii_case(&found)
    {
        return Err(LoadError::Digest { path, expected, found });
    }
    let compiled = get(shared, &input, cancelled).map_err(|error| LoadError::compiling(path.clone(), error))?;
    let Some(compiled) = compiled else { return Ok(None) };
    let (component, warm_component) = (compiled.component, compiled.warm);
    let kind = Kind::of(&shared.engine, &component).map_err(|exports| {
        let exports = if exports.is_empty() { "nothing".into() } else { shorten(exports).join(", ") };
        invalid(format!("exports {exports}; {EXPECTED_EXPORTS}"))
    })?;
    let missing = imports::uncovered_imports(&shared.engine, &component, kind, &spec.grants);
    if !missing.is_empty() {
        return Err(LoadError::Imports { path, missing: shorten(missing) });
    }
    let needed = memory_at_start(&component);
    if needed > spec.memory {
        return Err(LoadError::Memory { path, needed: needed / 1024, limit: spec.memory / 1024 });
    }
    let Spec { name, uri, timeout, memory, mut grants, .. } = spec;
    let grant_use = Arc::new(grants.grant_use());
    let outbound = shared.client.owner(&name, std::mem::take(&mut grants.http));
    let spans = shared.spans.clone();
    let identity = Identity { name, uri, timeout, memory, grants, grant_use, outbound, spans };
    let warm = shared.warm.as_ref().zip(warm_component);
    let warm = warm.map(|(warm, component)| warm.linker.instantiate_pre(&component)).transpose();
    shared
        .linker
        .instantiate_pre(&component)
        .and_then(|pre| Function::new(identity, kind, (pre, warm?), shared.clone()).map(Some))
        .map_err(|error| invalid(format!("cannot be linked by this version of Evoke: {error:#}")))
}
