//! Describes a component and the grants it needs, without running it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::adapt::EXIT;
use super::cache::{Cache, Compiled};
use super::compile::{Compiler, Facts, Start};
use super::component::{LoadError, memory_at_start, read_file};
use super::engine;
use super::grants::Grants;
use super::imports::{OUTGOING, import_error};
use super::keyvalue::StateGrant;
use super::kind::Kind;
use evoke_model::hex;
use evoke_model::state::Quota;

/// The description of a component as it would be loaded.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The SHA-256 of the file, in hexadecimal: the value that a manifest can require.
    pub sha256: String,
    /// Size of the file, in bytes.
    pub file_bytes: u64,
    /// Size of the compiled code, in bytes.
    pub compiled_bytes: u64,
    /// True if the file is a core module, which is converted to a component at load.
    pub is_module: bool,
    /// How Evoke calls the component; `None` if it has no export that Evoke can call.
    pub kind: Option<Kind>,
    /// The imports, in the order of the component.
    pub imports: Vec<Import>,
    /// The exports, in the order of the component.
    pub exports: Vec<Interface>,
    /// Initial linear memory, in bytes: the smallest possible `memory` limit.
    pub memory_bytes: u64,
    /// Number of functions in all modules, plus conversions between core functions and component functions.
    pub functions: u64,
    /// Number of core modules.
    pub modules: u64,
    /// The tools that made the component, by field (`language`, `processed-by`, `sdk`), as listed in the component
    /// itself.
    pub producers: BTreeMap<String, BTreeSet<String>>,
    /// When its program starts.
    pub start: Start,
}

/// Name and version of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// The name, such as `wasi:cli/run`.
    pub name: String,
    /// The version, such as `0.2.6`, if the interface has one.
    pub version: Option<String>,
}

/// An imported interface, and whether Evoke can provide it.
#[derive(Debug, Clone)]
pub struct Import {
    /// The imported interface.
    pub interface: Interface,
    /// Whether Evoke can provide it.
    pub availability: Availability,
}

/// Whether Evoke can provide an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// Provided to every function.
    Always,
    /// Works if the manifest grants it. Without a grant, the component is rejected or the calls are refused.
    IfGranted,
    /// Never provided, for this reason.
    Never(&'static str),
}

/// Reads, checks and compiles a component (binary or text form, or a core module that can be converted to one). Takes
/// seconds for a large component, at most the compiler's time limit. An error means that the component cannot be
/// loaded, whatever its grants.
pub fn inspect(file: &Path, compiler: Compiler) -> Result<Inspection, LoadError> {
    let path = file.display().to_string();
    let machine = |message: String| LoadError::Machine { path: path.clone(), message };
    let input = read_file(file)?;
    let engine = engine::engine(1, 0).map_err(|error| machine(format!("{error:#}")))?;
    let cache = Cache::in_memory(engine.clone(), compiler).map_err(|error| machine(error.to_string()))?;
    let compiled = cache.load_or_compile(&input, None).map_err(|error| LoadError::compiling(path, error))?;
    let Compiled { component, facts, bytes: compiled_bytes, .. } = compiled;
    let Facts { is_module, modules, functions, producers, start, .. } = facts;
    let (sha256, file_bytes) = (hex(&input.sha256), input.bytes);
    let kind = Kind::of(&engine, &component).ok();
    let ty = component.component_type();
    let import = |name: &str| {
        let availability = Availability::of(name, kind.unwrap_or(Kind::Handler));
        Import { interface: Interface::of(name), availability }
    };
    Ok(Inspection {
        sha256,
        file_bytes,
        compiled_bytes,
        is_module,
        kind,
        // The exit import is added by the conversion of a core module; the module itself does not have it.
        imports: ty.imports(&engine).filter(|(name, _)| *name != EXIT).map(|(name, _)| import(name)).collect(),
        exports: ty.exports(&engine).map(|(name, _)| Interface::of(name)).collect(),
        memory_bytes: memory_at_start(&component),
        functions,
        modules,
        producers,
        start,
    })
}

impl Interface {
    fn of(name: &str) -> Self {
        let (name, version) = name.split_once('@').map_or((name, None), |(name, version)| (name, Some(version)));
        Self { name: name.to_owned(), version: version.map(str::to_owned) }
    }
}

impl Availability {
    pub(super) fn of(import: &str, kind: Kind) -> Self {
        let nothing = Grants::default();
        let state = StateGrant { shared: true, value_bytes_max: 0, quota: Quota::default() };
        let everything = Grants { state: Some(state), ..Grants::default() };
        if import.split('@').next() == Some(OUTGOING) {
            return Self::IfGranted;
        }
        match (import_error(import, kind, &nothing), import_error(import, kind, &everything)) {
            (None, _) => Self::Always,
            (Some(_), None) => Self::IfGranted,
            (Some(_), Some(reason)) => Self::Never(reason),
        }
    }
}
