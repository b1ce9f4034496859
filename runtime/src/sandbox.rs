//! The sandbox: compiles functions, and runs each attempt in a fresh instance that can reach nothing but what its
//! manifest grants. Only this folder knows wasmtime.
//!
//! What one attempt may take is bounded: memory and time by the function's manifest; everything else (tables,
//! instances, handles, log lines, published events, bytes a call) by constants that stand where they are used.

mod adapt;
mod answer;
mod bindings;
mod cache;
mod census;
mod command;
mod direct;
mod engine;
mod fate;
mod function;
mod host;
mod imports;
mod inspect;
mod keyvalue;
mod limits;
mod log;
mod producers;
mod publish;
mod state;
mod stdio;
#[cfg(test)]
mod tests;
mod work;

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

use crate::telemetry;
use cache::{Cache, hex};
use engine::Ticker;
use host::State;

pub use answer::{Answer, BodyError, Visit};
pub use function::{Attempt, Call, Function};
pub use inspect::{Import, Inspection, Interface, Supply, inspect};
pub use log::{Level, LogLine, LogSink};
pub use state::{StateGrant, StateSource};

/// The largest component that is taken, in bytes. Python's, the largest known, have 18 MB; compiling takes some 50
/// times the component's size in memory and 0.3 s a MB.
pub const COMPONENT_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// The most functions that a component may have, all its modules together; Python's has some 30,000. At this many,
/// compiling takes about half a gigabyte.
pub const COMPONENT_FUNCTIONS_MAX: u64 = 100_000;

/// The largest component in text form, in bytes: text is for what people write by hand.
pub const COMPONENT_TEXT_SIZE_MAX: usize = 1024 * 1024;

/// How a sandbox is set up.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where compiled functions are kept; made if it is missing, and closed to other users.
    pub cache_dir: PathBuf,
    /// Instances at once. Each reserves address space, and memory only as the guests use it.
    pub concurrency: u32,
}

/// A function to load.
#[derive(Debug, Clone)]
pub struct Spec {
    /// `app/function`.
    pub name: Arc<str>,
    /// The source of the events that it publishes, `/app/function`.
    pub uri: String,
    /// The component: a `.wasm` or `.wat` file.
    pub component: PathBuf,
    /// The SHA-256 that the file must have, in hexadecimal.
    pub digest: Option<String>,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// The most linear memory an attempt may have, in bytes.
    pub memory: u64,
    /// What it may touch.
    pub grants: Grants,
}

/// What a function may touch: the `allow:` of its manifest, secrets resolved.
#[derive(Clone, Default)]
pub struct Grants {
    /// Event types that it may publish; `*` stands for any run of characters.
    pub publish: Vec<String>,
    /// What it may keep; `None` when it has no state.
    pub state: Option<StateGrant>,
    /// Origins that it may send requests to.
    pub http: Vec<String>,
    /// Configuration by name.
    pub config: BTreeMap<String, String>,
    /// Secrets by name; in `wasi:config` they stand beside configuration.
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

/// How a component is called, read from its exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It exports `evoke:function/handler`.
    Handler,
    /// It exports `wasi:cli/run`, or is a core module with `_start`: a program that reads the event as JSON on stdin
    /// and prints the events that it publishes.
    Command,
    /// It exports `wasi:http/incoming-handler`: it answers requests itself, and takes no events.
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

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The folder for compiled functions cannot be used.
    #[error("cannot use {path} for compiled functions: {error}; it must belong to this user")]
    Cache {
        /// The folder.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// This machine cannot run WebAssembly the way Evoke does.
    #[error("cannot start the WebAssembly engine: {0}")]
    Engine(String),
}

/// Why a function cannot be loaded. Each message says what is wrong and what would be right.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The component's file.
        path: String,
        /// What the system says.
        error: std::io::Error,
    },
    /// The file is larger than [`COMPONENT_SIZE_MAX`].
    #[error("{path} is larger than {max} bytes, the most that is taken")]
    TooLarge {
        /// The component's file.
        path: String,
        /// The limit in bytes.
        max: u64,
    },
    /// The file is not the one that the manifest pins.
    #[error("{path} has SHA-256 {found}, and the manifest asks for {expected}")]
    Digest {
        /// The component's file.
        path: String,
        /// What the manifest says.
        expected: String,
        /// What it is.
        found: String,
    },
    /// It is no valid component.
    #[error("{path} {message}")]
    Invalid {
        /// The component's file.
        path: String,
        /// What it is instead, and what would be right.
        message: String,
    },
    /// It imports what it is not granted, or what does not exist.
    #[error("{path} imports what it is not granted:\n{}", missing.iter().map(|m| format!("  {m}")).collect::<Vec<_>>().join("\n"))]
    Imports {
        /// The component's file.
        path: String,
        /// Each import, with what to do about it.
        missing: Vec<String>,
    },
    /// It needs more memory to start than it may have.
    #[error("{path} needs {needed} KiB of memory to start, and its `memory` is {limit} KiB")]
    Memory {
        /// The component's file.
        path: String,
        /// What it starts with, in KiB.
        needed: u64,
        /// What it may have, in KiB.
        limit: u64,
    },
}

/// Loads functions and gives their attempts room to run. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

struct Shared {
    engine: Engine,
    linker: Linker<State>,
    cache: Cache,
    ticker: Ticker,
    /// One permit for each instance that the pool has room for.
    room: Semaphore,
    concurrency: u32,
}

impl Sandbox {
    /// Sets up the engine, its thread and the folder for compiled functions.
    pub fn new(settings: Settings) -> Result<Self, SandboxError> {
        let Settings { cache_dir, concurrency } = settings;
        let engine_error = |error: wasmtime::Error| SandboxError::Engine(format!("{error:#}"));
        let concurrency = concurrency.clamp(1, engine::CONCURRENCY_MAX);
        let engine = engine::engine(concurrency).map_err(engine_error)?;
        let linker = imports::linker(&engine).map_err(engine_error)?;
        let path = cache_dir.display().to_string();
        let cache = Cache::open(cache_dir, engine.clone()).map_err(|error| SandboxError::Cache { path, error })?;
        let ticker = Ticker::start(engine.clone()).map_err(|e| SandboxError::Engine(e.to_string()))?;
        let room = Semaphore::new(concurrency as usize);
        Ok(Self(Arc::new(Shared { engine, linker, cache, ticker, room, concurrency })))
    }

    /// How it is doing.
    pub fn figures(&self) -> telemetry::Sandbox {
        let Shared { engine, room, concurrency, cache, .. } = &*self.0;
        let permits = *concurrency as usize - room.available_permits().min(*concurrency as usize);
        // Attempts that are made directly take no permit. Without a pool only those that do are known.
        let instances = engine.pooling_allocator_metrics().map_or(permits as u64, |pool| pool.component_instances());
        let (cache_hits, cache_misses) = cache.loads();
        let instances_max = u64::from(*concurrency);
        telemetry::Sandbox { instances, instances_max, cache_hits, cache_misses }
    }

    /// Reads, checks, compiles (or takes from the cache) and links a function. Takes seconds for a large one that is
    /// new, on a thread of its own.
    pub async fn load(&self, spec: &Spec) -> Result<Arc<Function>, LoadError> {
        let path = spec.component.display().to_string();
        let (shared, spec) = (self.0.clone(), spec.clone());
        match tokio::task::spawn_blocking(move || load(&shared, spec)).await {
            Ok(loaded) => loaded.map(Arc::new),
            Err(panic) => Err(LoadError::Invalid { path, message: format!("made the compiler fail: {panic}") }),
        }
    }
}

fn load(shared: &Arc<Shared>, spec: Spec) -> Result<Function, LoadError> {
    let path = spec.component.display().to_string();
    let invalid = |message: String| LoadError::Invalid { path: path.clone(), message };
    let bytes = read(&spec.component)?;
    if let Some(expected) = spec.digest
        && let found = hex(&Sha256::digest(&bytes))
        && !expected.eq_ignore_ascii_case(&found)
    {
        return Err(LoadError::Digest { path, expected, found });
    }
    let bytes = checked(bytes, &path)?;
    let is_module = census::is_module(&bytes);
    let bytes = if is_module { adapt::component(&shared.engine, bytes).map_err(invalid)? } else { bytes };
    let component = shared.cache.component(&bytes);
    let component = component.map_err(|error| invalid(format!("is not a valid component: {error:#}")))?;
    let kind = Kind::of(&shared.engine, &component).map_err(|exports| {
        let exports = if exports.is_empty() { "nothing".into() } else { exports.join(", ") };
        invalid(format!("exports {exports}; {EXPECTED}"))
    })?;
    let missing = imports::not_covered(&shared.engine, &component, kind, &spec.grants);
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

/// What a function exports, in words.
pub const EXPECTED: &str =
    "a function exports evoke:function/handler@0.1.0, wasi:http/incoming-handler@0.2 or wasi:cli/run@0.2";

/// The linear memory that it starts with, in bytes.
fn memory_at_start(component: &Component) -> u64 {
    component.resources_required().and_then(|r| r.max_initial_memory_size).unwrap_or(0) * 64 * 1024
}

/// What is in a component's file.
fn read(file: &Path) -> Result<Vec<u8>, LoadError> {
    let path = file.display().to_string();
    let mut bytes = Vec::new();
    let taken = std::fs::File::open(file).and_then(|f| f.take(COMPONENT_SIZE_MAX + 1).read_to_end(&mut bytes));
    match taken {
        Err(error) => Err(LoadError::Read { path, error }),
        Ok(_) if bytes.len() as u64 > COMPONENT_SIZE_MAX => Err(LoadError::TooLarge { path, max: COMPONENT_SIZE_MAX }),
        Ok(_) => Ok(bytes),
    }
}

/// The component or core module of a file in binary form, checked as far as that goes without compiling.
fn checked(mut bytes: Vec<u8>, path: &str) -> Result<Vec<u8>, LoadError> {
    let invalid = |message: String| LoadError::Invalid { path: path.to_owned(), message };
    if !bytes.starts_with(b"\0asm") {
        bytes = binary(&bytes, path)?;
    }
    // After the magic number, a module has version 1 of layer 0, and a component any version of layer 1.
    if !matches!(bytes.get(4..8), Some([1, 0, 0, 0] | [_, _, 1, 0])) {
        return Err(invalid("is WebAssembly of a version that does not exist".into()));
    }
    match census::functions(&bytes) {
        0..=COMPONENT_FUNCTIONS_MAX => Ok(bytes),
        n => Err(invalid(format!("has {n} functions; the most that is taken is {COMPONENT_FUNCTIONS_MAX}"))),
    }
}

/// The binary form of WebAssembly in text form.
fn binary(bytes: &[u8], path: &str) -> Result<Vec<u8>, LoadError> {
    let invalid = |message: String| LoadError::Invalid { path: path.to_owned(), message };
    let text = std::str::from_utf8(bytes).ok().filter(|text| text.trim_start().starts_with(['(', ';']));
    let text = text.ok_or_else(|| invalid("is not WebAssembly".into()))?;
    if text.len() > COMPONENT_TEXT_SIZE_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned(), max: COMPONENT_TEXT_SIZE_MAX as u64 });
    }
    wat::parse_str(text).map_err(|error| invalid(format!("is not a valid component: {error}")))
}
