//! Converts a core module to a component. The module is a program for WASI 0.1, a handler, or any other module that
//! embeds its WIT.
//!
//! wasmtime's adapter implements the imports of WASI 0.1. The adapter turns every exit code but 0 into 1, because
//! `wasi:cli/exit` knows only success and failure. So in a program, the import `proc_exit` is replaced by an import
//! that Evoke provides. A program of Go also gets memory for the adapter; see `adapt/go.rs`. A handler without WIT gets
//! WIT; see `adapt/handler.rs`.

pub(super) mod go;
mod handler;

use wasi_preview1_component_adapter_provider as adapter;
use wasmtime::{Engine, Module};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use super::binary::section_id::{CUSTOM, EXPORTS, IMPORTS};
use super::binary::{find_bytes, sections};
use super::proposals::describe_invalid;

/// The import of `proc_exit(u32)` in binary form, and its replacement. Both have the same length, so no offset changes.
/// The zero at the end marks the import as a function.
const PROC_EXIT: &[u8] = b"\x16wasi_snapshot_preview1\x09proc_exit\x00";
const EXIT_CODE: &[u8] = b"\x16evoke:runtime/commands\x09exit-code\x00";
/// The interface of the replacement import.
pub(super) const EXIT: &str = "evoke:runtime/commands";
/// WIT of the replacement import; the host's side is in `exit.rs`.
pub(super) const WIT: &str = "
    package evoke:runtime;
    interface commands { exit-code: func(code: u32); }
    world command { import commands; }
";

/// Returns the component made from `module`. The error text continues a sentence that starts with the name of the file:
/// "`x.wasm` …".
pub(super) fn component(engine: &Engine, mut module: Vec<u8>) -> Result<Vec<u8>, String> {
    // The code below expects a valid module.
    Module::validate(engine, &module).map_err(|error| describe_invalid("core module", &module, &error))?;
    let is_program = has(&module, EXPORTS, b"\x06_start\x00");
    if !is_program && !has(&module, CUSTOM, b"\x0ecomponent-type") {
        if !has(&module, EXPORTS, handler::EXPORT) {
            return Err(
                "is a core module without `_start`, so it is not a program; build it for the target wasm32-wasip2, as a \
                 program for wasm32-wasip1, or as a module that exports `evoke:function/handler@0.1.0#handle`"
                    .into(),
            );
        }
        handler::embed_wit(&mut module).map_err(|error| conversion_error(&error))?;
    }
    if is_program && go::is_program(&module) && !has(&module, EXPORTS, b"\x0ccabi_realloc\x00") {
        module = go::with_reserved_memory(&module).ok_or(
            "was built by a version of Go that this version of Evoke does not support; build it with Go 1.21 to 1.27",
        )?;
    }
    let adapter = match is_program {
        true => adapter::WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
        false => adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
    };
    encode(module, is_program, adapter).map_err(|error| conversion_error(&error))
}

fn conversion_error(error: &anyhow::Error) -> String {
    format!("is a core module that cannot be converted to a component: {error:#}")
}

fn encode(mut module: Vec<u8>, is_program: bool, adapter: &[u8]) -> anyhow::Result<Vec<u8>> {
    if is_program && redirect_exit(&mut module) {
        let mut wit = Resolve::default();
        let package = wit.push_source("command.wit", WIT)?;
        let world = wit.select_world(&[package], None)?;
        embed_component_metadata(&mut module, &wit, world, StringEncoding::UTF8)?;
    }
    ComponentEncoder::default()
        .module(&module)?
        .adapter(adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter)?
        .encode()
}

/// Renames the import of `proc_exit`. Returns true if the module has this import.
fn redirect_exit(module: &mut [u8]) -> bool {
    let found = sections(module)
        .filter(|section| section.id == IMPORTS)
        .find_map(|section| Some(section.start + find_bytes(section.body, PROC_EXIT)?));
    let import = found.and_then(|at| module.get_mut(at..)?.get_mut(..PROC_EXIT.len()));
    import.map(|import| import.copy_from_slice(EXIT_CODE)).is_some()
}

fn has(module: &[u8], id: u8, bytes: &[u8]) -> bool {
    sections(module).any(|section| section.id == id && find_bytes(section.body, bytes).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Engine {
        super::super::engine::engine(1, 0).unwrap()
    }

    fn of(module: &str) -> Result<Vec<u8>, String> {
        component(&engine(), wat::parse_str(module).unwrap())
    }

    #[test]
    fn a_program_with_or_without_an_exit_call_is_converted() {
        let exit = r#"(import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))"#;
        for imports in ["", exit] {
            let component =
                of(&format!(r#"(module {imports} (memory (export "memory") 1) (func (export "_start")))"#)).unwrap();
            assert!(find_bytes(&component, b"wasi:cli/run@0.2").is_some());
            assert_eq!(find_bytes(&component, b"evoke:runtime/commands").is_some(), imports == exit);
        }
    }

    #[test]
    fn a_module_that_cannot_be_converted_reports_why() {
        let unknown = r#"(import "env" "f" (func))"#;
        for (module, reason) in [
            ("(module)".to_owned(), "without `_start`"),
            (format!(r#"(module {unknown} (memory (export "memory") 1) (func (export "_start")))"#), "`env`"),
            (r#"(module (func (export "_start") (param i32)))"#.to_owned(), "cannot be converted to a component"),
        ] {
            let error = of(&module).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_torn_module_is_rejected() {
        let whole = wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#).unwrap();
        let engine = engine();
        for end in 0..whole.len() {
            assert!(component(&engine, whole.get(..end).unwrap().to_vec()).is_err(), "{end} bytes");
        }
    }
}
