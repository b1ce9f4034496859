//! Reads component files, checks them before they are compiled, and reports why a file cannot be loaded.

use std::io::Read as _;
use std::path::Path;

use wasmtime::component::Component;

use super::binary;

/// Size limit of a component file, in bytes. Python components are the largest known ones and have 18 MB. Compiling
/// takes about 50 times the component's size in memory and 0.3 s per MB.
pub const COMPONENT_SIZE_MAX: u64 = 64 * 1024 * 1024;

/// Limit on the number of functions in a component, summed over all its modules. Python components have about 30,000.
/// At this limit, compiling takes about half a gigabyte of memory.
pub const COMPONENT_FUNCTIONS_MAX: u64 = 100_000;

/// Size limit of a component in text form, in bytes. The text form is for components written by hand.
pub const COMPONENT_TEXT_SIZE_MAX: usize = 1024 * 1024;

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

/// Returns the component's initial linear memory, in bytes.
pub(super) fn memory_at_start(component: &Component) -> u64 {
    component.resources_required().and_then(|r| r.max_initial_memory_size).unwrap_or(0) * 64 * 1024
}

/// Reads a component file, up to [`COMPONENT_SIZE_MAX`] bytes.
pub(super) fn read_file(file: &Path) -> Result<Vec<u8>, LoadError> {
    let path = file.display().to_string();
    let mut bytes = Vec::new();
    let taken = evoke_fs::open_regular(file).and_then(|f| f.take(COMPONENT_SIZE_MAX + 1).read_to_end(&mut bytes));
    match taken {
        Err(error) => Err(LoadError::Read { path, error }),
        Ok(_) if bytes.len() as u64 > COMPONENT_SIZE_MAX => Err(LoadError::TooLarge { path, max: COMPONENT_SIZE_MAX }),
        Ok(_) => Ok(bytes),
    }
}

/// Returns the file's component or core module in binary form, after all checks that need no compilation.
pub(super) fn check_binary(mut bytes: Vec<u8>, path: &str) -> Result<Vec<u8>, LoadError> {
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
