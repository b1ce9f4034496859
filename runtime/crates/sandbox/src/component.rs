//! Reads component files, and reports why a file cannot be loaded.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use wasmtime::component::Component;

use super::cache::CacheError;
use super::compile::{COMPONENT_SIZE_MAX, CompileError, Input, Refusal};
use super::kind::Kind;

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
    /// The file is larger than [`COMPONENT_SIZE_MAX`], or than the limit on the text form.
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
        /// The mistake and how to correct it. The text continues a sentence that starts with the path.
        message: String,
    },
    /// Compiling the component exceeds a limit, or makes the compiler crash.
    #[error("{path} {refusal}{}", if *.is_repeated { "; it was refused before and not compiled again" } else { "" })]
    Refused {
        /// The component's file.
        path: String,
        /// The exceeded limit with its value, or the crash of the compiler.
        refusal: Refusal,
        /// True if an earlier compilation was refused for this reason, and the component was not compiled again.
        is_repeated: bool,
        /// The file that records the earlier compilation. If this file is removed, the component is compiled again.
        record: Option<PathBuf>,
    },
    /// The component cannot be compiled now, for a reason that has nothing to do with the component.
    #[error("{path} cannot be compiled now: {message}")]
    Machine {
        /// The component's file.
        path: String,
        /// The failed operation and its error.
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
    /// The component's initial memory is larger than the memory limit of the function.
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
pub(super) fn read_file(file: &Path) -> Result<Input, LoadError> {
    let path = file.display().to_string();
    match Input::read(file) {
        Err(error) => Err(LoadError::Read { path, error }),
        Ok(None) => Err(LoadError::TooLarge { path, max: COMPONENT_SIZE_MAX }),
        Ok(Some(input)) => Ok(input),
    }
}

/// Returns the kind that the exports in the file indicate, without compiling the component. Returns `None` if they
/// indicate none, or if the file cannot be read. When the component is loaded, it can still be invalid or have another
/// kind.
pub async fn expected_kind(file: &Path) -> Option<Kind> {
    let file = file.to_owned();
    let read = move || Kind::expected(BufReader::new(evoke_fs::open_regular(&file).ok()?)).ok().flatten();
    tokio::task::spawn_blocking(read).await.ok().flatten()
}

impl LoadError {
    /// Converts an error of the cache to the error of the component file at `path`.
    pub(super) fn compiling(path: String, error: CacheError) -> Self {
        let error = match error {
            CacheError::Compile(error) => error,
            CacheError::RefusedBefore { refusal, record } => {
                return Self::Refused { path, refusal, is_repeated: true, record };
            }
        };
        match error {
            CompileError::Invalid(message) => Self::Invalid { path, message },
            CompileError::TooLarge(max) => Self::TooLarge { path, max },
            CompileError::Refused(refusal) => Self::Refused { path, refusal, is_repeated: false, record: None },
            CompileError::Machine(message) => Self::Machine { path, message },
        }
    }
}
