//! Starts programs of Go once, while they are compiled, instead of in each attempt.
//!
//! The start of Go's runtime and of the packages takes longer than a short function. So the module is started here, in an
//! interpreter (`snapshot/start.rs`), and its memory and its global variables become its initial ones
//! (`snapshot/module.rs`). In each attempt, `_initialize` is then a function that only seeds the generators of random
//! numbers anew and reads the environment (`sdk/go/snapshot`).
//!
//! A module asks for this with the exports [`BEFORE`] and [`AFTER`]. The start gets nothing from outside: the
//! environment is empty, the monotonic clock stands still, and any other call of the host that could have another result in
//! an attempt ends the start, and the module stays as it is. The random numbers of the
//! start depend only on the module, so that a recorded attempt has the same result after the module was compiled again.

mod module;
mod start;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use wasmparser::{BinaryReader, ExportSectionReader, Validator};

use super::super::adapt::go;
use super::super::binary::body;
use super::super::binary::section_id::EXPORTS;
use super::super::proposals;
use super::bulk::map_modules;

const INITIALIZE: &str = "_initialize";
/// `() -> i32`: called after the start and before the snapshot. Returns the address of [`RESERVED`] bytes for the adapter
/// of WASI 0.1, or zero to refuse the snapshot.
const BEFORE: &str = "evoke-before-snapshot";
/// `() -> ()`: called in each attempt in place of [`INITIALIZE`].
const AFTER: &str = "evoke-after-snapshot";
const MEMORY: &str = "memory";
/// `(i32, i32, i32, i32) -> i32`: allocates memory for the adapter and for results of the host.
const REALLOC: &str = "cabi_realloc";

const PAGE: usize = 64 * 1024;
/// The adapter takes one page for its state and one for its stack at its first call. They must not come from Go's
/// allocator, which would free them.
const RESERVED: usize = 2 * PAGE;

/// Why a module stays as it is. The text continues a sentence that starts with the module.
type Refused = Cow<'static, str>;

/// The layout is not that of Go's linker.
const LAYOUT: Refused = Cow::Borrowed("has another layout than programs of Go");

/// Returns the component with its first program of Go that asks for it started, or why that program stays as it is.
/// Returns `None` if no program asks for it, or if the component is malformed.
pub(super) fn started(component: &[u8]) -> Option<Result<Vec<u8>, Refused>> {
    // One program at most, which bounds the time.
    let mut result = None;
    let changed = map_modules(component, &mut |module| {
        if result.is_some() || !go::is_program(module) || !asks(module) || !is_valid(module) {
            return Some(Cow::Borrowed(module));
        }
        let started = start::start(module).and_then(|started| module::with_start(module, &started).ok_or(LAYOUT));
        let (module, of_start) = match started {
            Ok(started) => (Cow::Owned(started), Ok(())),
            Err(reason) => (Cow::Borrowed(module), Err(reason)),
        };
        result = Some(of_start);
        Some(module)
    })?;
    result.map(|of_start| of_start.map(|()| changed.into_owned()))
}

fn asks(module: &[u8]) -> bool {
    let exports = body(module, EXPORTS).and_then(|body| ExportSectionReader::new(BinaryReader::new(body, 0)).ok());
    let names: Vec<&str> = exports.into_iter().flatten().flatten().map(|export| export.name).collect();
    [INITIALIZE, BEFORE, AFTER].iter().all(|name| names.contains(name))
}

fn is_valid(module: &[u8]) -> bool {
    Validator::new_with_features(proposals::SUPPORTED).validate_all(module).is_ok()
}
