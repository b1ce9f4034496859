//! The sandbox compiles functions and runs each attempt in a fresh instance. An instance reaches only what its manifest
//! grants. This folder is the only one that uses wasmtime.
//!
//! Every resource of an attempt is bounded: memory and time by the function's manifest; everything else (tables,
//! instances, handles, log lines, published events, bytes per call) by constants defined next to the code that uses
//! them.

mod adapt;
mod binary;
mod bindings;
mod cache;
mod command;
mod direct;
mod engine;
mod fate;
mod function;
mod host;
mod http_call;
mod imports;
mod inspect;
mod invocation;
mod keyvalue;
mod limits;
mod log;
mod producers;
mod publish;
mod state;
mod stdio;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use cache::Cache;
use engine::Ticker;
use evoke_model::hex;
use evoke_telemetry as telemetry;
use host::HostContext;

pub use function::{Attempt, Call, Function};
pub use http_call::{BodyError, HttpCall, ResponseBody};
pub use inspect::{Availability, Import, Inspection, Interface, inspect};
pub use log::{Level, LogLine, LogSink};
pub use state::{StateGrant, StateSource};

/// Size limit of a component file, in bytes. Python components are the largest known ones and have 18 MB. Compiling
/// takes about 50 times the component's size in memory and 0.3 s per MB.
pub const COMPONENT_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// Limit on the number of functions in a component, summed over all its modules. Python components have about 30,000.
/// At this limit, compiling takes about half a gigabyte of memory.
pub const COMPONENT_FUNCTIONS_MAX: u64 = 100_000;

/// Size limit of a component in text form, in bytes. The text form is for components written by hand.
pub const COMPONENT_TEXT_SIZE_MAX: usize = 1024 * 1024;

/// Settings of a [`Sandbox`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Cache folder for compiled functions. The sandbox creates it if it is missing and denies other users access to
    /// it.
    pub cache_dir: PathBuf,
    /// Limit on concurrent instances. Each instance reserves address space; it takes memory only as the guest uses it.
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

/// The capabilities of a function: the `allow:` section of its manifest, with secrets resolved.
#[derive(Clone, Default)]
pub struct Grants {
    /// Patterns of the event types that the function may publish; `*` matches any run of characters.
    pub publish: Vec<String>,
    /// Grant for stored state; `None` if the function has no state.
    pub state: Option<StateGrant>,
    /// Origins that the function may send HTTP requests to.
    pub http: Vec<String>,
    /// Configuration values by name.
    pub config: BTreeMap<String, String>,
    /// Secrets by name. `wasi:config` returns them together with the configuration.
    pub secrets: BTreeMap<String, String>,
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { publish, state, http, config, secrets } = self;
        f.debug_struct("Grants")
            .field("publish", publish)
            .field("state", state)
            .field("http", http)
            .field("config", config)
            .field("secrets", &secrets.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// How Evoke calls a component. The component's exports determine it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The component exports `evoke:function/handler`.
    Handler,
    /// The component exports `wasi:cli/run`, or is a core module with `_start`. Such a program reads the event as JSON
    /// from stdin and prints the events to publish.
    Command,
    /// The component exports `wasi:http/incoming-handler`. It responds to HTTP requests and receives no events.
    Http,
}

impl Kind {
    fn of(engine: &Engine, component: &Component) -> Result<Self, Vec<String>> {
        let ty = component.component_type();
        let exports: Vec<String> = ty.exports(engine).map(|(name, _)| name.to_owned()).collect();
        let kinds = [
            ("evoke:function/handler@", Self::Handler),
            ("wasi:http/incoming-handler@0.2.", Self::Http),
            ("wasi:cli/run@0.2.", Self::Command),
        ];
        let kind = kinds.into_iter().find(|(prefix, _)| exports.iter().any(|name| name.starts_with(prefix)));
        kind.map(|(_, kind)| kind).ok_or(exports)
    }
}

/// Why a sandbox cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The cache folder for compiled functions is not usable.
    #[error("cannot use {path} as the cache for compiled functions: {error}; the folder must belong to this user")]
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

/// Why a function cannot be loaded. Each message names the mistake and how to correct it.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The component's file.
        path: String,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// The file is larger than [`COMPONENT_SIZE_MAX`].
    #[error("{path} is larger than the limit of {max} bytes")]
    TooLarge {
        /// The component's file.
        path: String,
        /// The limit in bytes.
        max: u64,
    },
    /// The file does not have the SHA-256 that the manifest requires.
    #[error("{path} has SHA-256 {found}, but the manifest requires {expected}")]
    Digest {
        /// The component's file.
        path: String,
        /// The SHA-256 in the manifest.
        expected: String,
        /// The SHA-256 of the file.
        found: String,
    },
    /// The file is not a valid component.
    #[error("{path} {message}")]
    Invalid {
        /// The component's file.
        path: String,
        /// The mistake and how to correct it; the sentence continues after the path.
        message: String,
    },
    /// The component imports interfaces that its grants do not cover or that do not exist.
    #[error("{path} has imports that are not granted:\n{}", missing.iter().map(|m| format!("  {m}")).collect::<Vec<_>>().join("\n"))]
    Imports {
        /// The component's file.
        path: String,
        /// One line per import: its name and what to change.
        missing: Vec<String>,
    },
    /// The component's initial memory is larger than its memory limit.
    #[error("{path} needs {needed} KiB of memory to start, but its `memory` limit is {limit} KiB")]
    Memory {
        /// The component's file.
        path: String,
        /// Initial linear memory, in KiB.
        needed: u64,
        /// Memory limit, in KiB.
        limit: u64,
    },
}

/// Loads functions and limits how many attempts run at once. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

struct Shared {
    engine: Engine,
    linker: Linker<HostContext>,
    cache: Cache,
    ticker: Ticker,
    /// One permit for each concurrent instance that the pool can hold, not counting direct attempts.
    permits: Semaphore,
    concurrency: u32,
}

impl Sandbox {
    /// Creates the engine, the ticker thread and the cache folder.
    pub fn new(settings: Settings) -> Result<Self, SandboxError> {
        let Settings { cache_dir, concurrency } = settings;
        let engine_error = |error: wasmtime::Error| SandboxError::Engine(format!("{error:#}"));
        let concurrency = concurrency.clamp(1, engine::CONCURRENCY_MAX);
        let engine = engine::engine(concurrency).map_err(engine_error)?;
        let linker = imports::linker(&engine).map_err(engine_error)?;
        let path = cache_dir.display().to_string();
        let cache = Cache::open(cache_dir, engine.clone()).map_err(|error| SandboxError::Cache { path, error })?;
        let ticker = Ticker::start(engine.clone()).map_err(|e| SandboxError::Engine(e.to_string()))?;
        let permits = Semaphore::new(concurrency as usize);
        Ok(Self(Arc::new(Shared { engine, linker, cache, ticker, permits, concurrency })))
    }

    /// Returns the current values of the sandbox metrics.
    pub fn figures(&self) -> telemetry::Sandbox {
        let Shared { engine, permits, concurrency, cache, .. } = &*self.0;
        let permits_taken = *concurrency as usize - permits.available_permits().min(*concurrency as usize);
        // Direct attempts take no permit. Without a pool, only attempts that hold a permit are counted.
        let instances =
            engine.pooling_allocator_metrics().map_or(permits_taken as u64, |pool| pool.component_instances());
        let (cache_hits, cache_misses) = cache.load_counts();
        let instances_max = u64::from(*concurrency);
        telemetry::Sandbox { instances, instances_max, cache_hits, cache_misses }
    }

    /// Reads, checks, compiles (or takes from the cache) and links a function. Compiling a large component that is not
    /// in the cache takes seconds; it runs on a blocking thread.
    pub async fn load(&self, spec: &Spec) -> Result<Arc<Function>, LoadError> {
        let path = spec.component.display().to_string();
        let (shared, spec) = (self.0.clone(), spec.clone());
        match tokio::task::spawn_blocking(move || load(&shared, spec)).await {
            Ok(loaded) => loaded.map(Arc::new),
            Err(panic) => Err(LoadError::Invalid { path, message: format!("makes the compiler panic: {panic}") }),
        }
    }
}

fn load(shared: &Arc<Shared>, spec: Spec) -> Result<Function, LoadError> {
    let path = spec.component.display().to_string();
    let invalid = |message: String| LoadError::Invalid { path: path.clone(), message };
    let bytes = read_file(&spec.component)?;
    if let Some(expected) = spec.digest
        && let found = hex(&Sha256::digest(&bytes))
        && !expected.eq_ignore_ascii_case(&found)
    {
        return Err(LoadError::Digest { path, expected, found });
    }
    let bytes = check_binary(bytes, &path)?;
    let is_module = binary::is_module(&bytes);
    let bytes = if is_module { adapt::component(&shared.engine, bytes).map_err(invalid)? } else { bytes };
    let component = shared.cache.load_or_compile(&bytes);
    let component = component.map_err(|error| invalid(format!("is not a valid component: {error:#}")))?;
    let kind = Kind::of(&shared.engine, &component).map_err(|exports| {
        let exports = if exports.is_empty() { "nothing".into() } else { exports.join(", ") };
        invalid(format!("exports {exports}; {EXPECTED_EXPORTS}"))
    })?;
    let missing = imports::uncovered_imports(&shared.engine, &component, kind, &spec.grants);
    if !missing.is_empty() {
        return Err(LoadError::Imports { path, missing });
    }
    let needed = memory_at_start(&component);
    if needed > spec.memory {
        return Err(LoadError::Memory { path, needed: needed / 1024, limit: spec.memory / 1024 });
    }
    let Spec { name, uri, timeout, memory, grants, .. } = spec;
    let identity = function::Identity { name, uri, timeout, memory, grants };
    shared
        .linker
        .instantiate_pre(&component)
        .and_then(|pre| Function::new(identity, kind, pre, shared.clone()))
        .map_err(|error| invalid(format!("does not fit this version of Evoke: {error:#}")))
}

/// The exports that Evoke can call, for error messages.
pub const EXPECTED_EXPORTS: &str =
    "a function exports evoke:function/handler@0.1.0, wasi:http/incoming-handler@0.2 or wasi:cli/run@0.2";

/// Returns the component's initial linear memory, in bytes.
fn memory_at_start(component: &Component) -> u64 {
    component.resources_required().and_then(|r| r.max_initial_memory_size).unwrap_or(0) * 64 * 1024
}

/// Reads a component file, up to [`COMPONENT_SIZE_MAX`] bytes.
fn read_file(file: &Path) -> Result<Vec<u8>, LoadError> {
    let path = file.display().to_string();
    let mut bytes = Vec::new();
    let taken = std::fs::File::open(file).and_then(|f| f.take(COMPONENT_SIZE_MAX + 1).read_to_end(&mut bytes));
    match taken {
        Err(error) => Err(LoadError::Read { path, error }),
        Ok(_) if bytes.len() as u64 > COMPONENT_SIZE_MAX => Err(LoadError::TooLarge { path, max: COMPONENT_SIZE_MAX }),
        Ok(_) => Ok(bytes),
    }
}

/// Returns the file's component or core module in binary form, after all checks that need no compilation.
fn check_binary(mut bytes: Vec<u8>, path: &str) -> Result<Vec<u8>, LoadError> {
    let invalid = |message: String| LoadError::Invalid { path: path.to_owned(), message };
    if !bytes.starts_with(b"\0asm") {
        bytes = parse_text(&bytes, path)?;
    }
    // After the magic number, a module has version 1 of layer 0; a component has any version of layer 1.
    if !matches!(bytes.get(4..8), Some([1, 0, 0, 0] | [_, _, 1, 0])) {
        return Err(invalid("has an unknown WebAssembly version".into()));
    }
    match binary::function_count(&bytes) {
        0..=COMPONENT_FUNCTIONS_MAX => Ok(bytes),
        n => Err(invalid(format!("has {n} functions; the limit is {COMPONENT_FUNCTIONS_MAX}"))),
    }
}

/// Converts WebAssembly from text form to binary form.
fn parse_text(bytes: &[u8], path: &str) -> Result<Vec<u8>, LoadError> {
    let invalid = |message: String| LoadError::Invalid { path: path.to_owned(), message };
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.trim_start().starts_with(['(', ';']));
    let text = text.ok_or_else(|| invalid("is not WebAssembly".into()))?;
    if text.len() > COMPONENT_TEXT_SIZE_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned(), max: COMPONENT_TEXT_SIZE_MAX as u64 });
    }
    wat::parse_str(text).map_err(|error| invalid(format!("is not a valid component: {error}")))
}
