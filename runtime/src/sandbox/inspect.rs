//! What a component is and what it would need, told without running it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use sha2::{Digest, Sha256};
use wasmtime::component::Component;

use super::adapt::EXIT;
use super::cache::hex;
use super::census;
use super::imports::objection;
use super::producers::producers;
use super::{Grants, Kind, LoadError, StateGrant, adapt, checked, engine, memory_at_start, read};
use crate::state::Quota;

/// A component as it would be loaded.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The SHA-256 of the file, in hexadecimal, as a manifest pins it.
    pub sha256: String,
    /// The size of the file in bytes.
    pub file_bytes: u64,
    /// The size of what it is compiled to, in bytes.
    pub compiled_bytes: u64,
    /// Whether it is a core module, which is made a component when it is loaded.
    pub is_module: bool,
    /// How it is called; `None` when it exports nothing that Evoke calls.
    pub kind: Option<Kind>,
    /// What it imports, in its order.
    pub imports: Vec<Import>,
    /// What it exports, in its order.
    pub exports: Vec<Interface>,
    /// The linear memory that it starts with, in bytes: the least that its `memory` can be.
    pub memory_bytes: u64,
    /// Functions of all its modules, and conversions between them and the outside.
    pub functions: u64,
    /// Core modules.
    pub modules: u64,
    /// What made it, by field (`language`, `processed-by`, `sdk`), as it says itself.
    pub producers: BTreeMap<String, BTreeSet<String>>,
}

/// The name of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// As in `wasi:cli/run`.
    pub name: String,
    /// As in `0.2.6`, where it has one.
    pub version: Option<String>,
}

/// An interface that is imported, and whether it can be had.
#[derive(Debug, Clone)]
pub struct Import {
    /// Which.
    pub interface: Interface,
    /// Whether it can be had.
    pub supply: Supply,
}

/// Whether an import can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Supply {
    /// Every function has it.
    Always,
    /// It is there once it is granted.
    IfGranted,
    /// It can never be granted, for this reason.
    Never(&'static str),
}

/// Reads, checks and compiles a component (binary or text, or a core module that can be made one). Takes seconds for
/// a large one. An error is that it could never be loaded, whatever it is granted.
pub fn inspect(file: &Path) -> Result<Inspection, LoadError> {
    let path = file.display().to_string();
    let invalid = |message: String| LoadError::Invalid { path: path.clone(), message };
    let as_it_lies = read(file)?;
    let (sha256, file_bytes) = (hex(&Sha256::digest(&as_it_lies)), as_it_lies.len() as u64);
    let bytes = checked(as_it_lies, &path)?;
    let is_module = census::is_module(&bytes);
    let modules = census::parts(&bytes).into_iter().filter(|part| census::is_module(part)).count() as u64;
    let (functions, producers) = (census::functions(&bytes), producers(&bytes));

    let engine = engine::engine(1).map_err(|error| invalid(format!("cannot be compiled here: {error:#}")))?;
    let bytes = if is_module { adapt::component(&engine, bytes).map_err(invalid)? } else { bytes };
    let not_valid = |error: wasmtime::Error| invalid(format!("is not a valid component: {error:#}"));
    let component = Component::new(&engine, &bytes).map_err(not_valid)?;
    let compiled_bytes = component.serialize().map_err(not_valid)?.len() as u64;
    let kind = Kind::of(&engine, &component).ok();
    let ty = component.component_type();
    let import = |name: &str| {
        let supply = Supply::of(name, kind.unwrap_or(Kind::Handler));
        Import { interface: Interface::of(name), supply }
    };
    Ok(Inspection {
        sha256,
        file_bytes,
        compiled_bytes,
        is_module,
        kind,
        // What is adapted leaves its exit to us; that is none of its own imports.
        imports: ty.imports(&engine).filter(|(name, _)| *name != EXIT).map(|(name, _)| import(name)).collect(),
        exports: ty.exports(&engine).map(|(name, _)| Interface::of(name)).collect(),
        memory_bytes: memory_at_start(&component),
        functions,
        modules,
        producers,
    })
}

impl Interface {
    fn of(name: &str) -> Self {
        let (name, version) = name.split_once('@').map_or((name, None), |(name, version)| (name, Some(version)));
        Self { name: name.to_owned(), version: version.map(str::to_owned) }
    }
}

impl Supply {
    fn of(import: &str, kind: Kind) -> Self {
        let nothing = Grants::default();
        let state = StateGrant { shared: true, value_bytes_max: 0, quota: Quota::default() };
        let everything = Grants { state: Some(state), http: vec!["https://a.example:443".into()], ..Grants::default() };
        match (objection(import, kind, &nothing), objection(import, kind, &everything)) {
            (None, _) => Self::Always,
            (Some(_), None) => Self::IfGranted,
            (Some(_), Some(reason)) => Self::Never(reason),
        }
    }
}
