//! The WebAssembly proposals that a component may use: exactly those that today's toolchains emit. A component that
//! needs another proposal is rejected when it is loaded, so no guest can reach code of wasmtime that usual components
//! never use.
//!
//! wasmtime turns new proposals on as they become standard. The set here starts empty and lists each proposal, so a
//! newer wasmtime adds nothing to it.
//!
//! Handlers that are built with these toolchains load and run with this set. They use these proposals beyond the first
//! version of WebAssembly:
//!
//! | toolchain | proposals |
//! |---|---|
//! | Rust: rustc 1.96, `wasm32-wasip2` | sign extension, bulk memory |
//! | C: clang 14, `wasm32-wasi` | none |
//! | QuickJS: componentize-qjs 0.4.5 | sign extension, saturating float-to-int, bulk memory, mutable globals |
//! | StarlingMonkey: componentize-js 0.23 | those of QuickJS, and reference types |
//! | Python: componentize-py 0.25.1 | sign extension, saturating float-to-int, bulk memory, mutable globals |
//! | Go 1.27.3, `wasip1` | sign extension, saturating float-to-int, bulk memory |

use wasmparser::Validator;
use wasmtime::{Config, WasmFeatures};

/// The supported proposals. The comments name the toolchains or options that emit a proposal. "LLVM's default" is the
/// list of the target `generic` of LLVM 20, which rustc and clang use unless an option selects others (LLVM,
/// `WebAssembly.td`; rustc book, `wasm32-wasip2`).
pub(super) const SUPPORTED: WasmFeatures = WasmFeatures::empty()
    // Not a proposal, but a feature that wasmparser can turn off: floating point.
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::COMPONENT_MODEL)
    // LLVM's default. wit-component's modules for dynamic linking (Python) import mutable globals.
    .union(WasmFeatures::MUTABLE_GLOBAL)
    // LLVM's default; Go.
    .union(WasmFeatures::SIGN_EXTENSION)
    // LLVM's default; Go; TinyGo.
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    // LLVM's default.
    .union(WasmFeatures::MULTI_VALUE)
    // LLVM's default; Go; TinyGo. Includes `bulk-memory-opt`.
    .union(WasmFeatures::BULK_MEMORY)
    // Not an instruction: an encoding of the table number, which LLVM emits by default.
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    // LLVM's default. Of this proposal, guests can use only `funcref`: `externref` also needs wasmparser's feature
    // `GC_TYPES`, which is off.
    .union(WasmFeatures::REFERENCE_TYPES)
    // Users turn it on with `-C target-feature=+simd128` and `-msimd128`.
    .union(WasmFeatures::SIMD)
    // Constant addresses of position-independent code: clang with `-mextended-const`, a part of LLVM's target `lime1`.
    .union(WasmFeatures::EXTENDED_CONST)
    // wasmtime generates code that passes values between two composed components, each with a memory of its own. This
    // code uses the proposal, and wasmtime panics if it is off (wasmtime-environ, `adapt.rs`). `MEMORIES_MAX` in
    // `engine.rs` bounds the number of memories.
    .union(WasmFeatures::MULTI_MEMORY);

/// Turns the supported proposals on, and all others off.
pub(super) fn configure(config: &mut Config) {
    config.wasm_features(WasmFeatures::all(), false).wasm_features(SUPPORTED, true);
}

/// Explains why wasmtime rejected a module or component. The message continues a sentence that starts with the file
/// name. If the binary needs a proposal that is off, the message names the proposal.
pub(super) fn describe_invalid(what: &str, binary: &[u8], error: &wasmtime::Error) -> String {
    let missing = || {
        let invalid = Validator::new_with_features(SUPPORTED).validate_all(binary).err()?;
        Some((proposal_name(invalid.missing_wasm_feature()?)?, invalid))
    };
    match missing() {
        Some((proposal, invalid)) => format!(
            "needs the WebAssembly proposal `{proposal}`, which Evoke does not support: {invalid}; build it without \
             this proposal"
        ),
        None => format!("is not a valid {what}: {error:#}"),
    }
}

/// Returns the name of a proposal as its repository and LLVM spell it.
fn proposal_name(feature: WasmFeatures) -> Option<String> {
    let (name, _) = feature.iter_names().next()?;
    Some(match name {
        "GC_TYPES" => "gc".into(),
        "EXCEPTIONS" | "LEGACY_EXCEPTIONS" => "exception-handling".into(),
        name => name.to_lowercase().replace('_', "-").replace("cm-", "component-model-"),
    })
}

#[cfg(test)]
mod tests {
    use wasmtime::Module;
    use wasmtime::component::Component;

    use super::*;

    /// Returns the message for a module or component that must be rejected.
    fn rejected(text: &str) -> String {
        let engine = super::super::engine::engine(1, 0).unwrap();
        let binary = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"));
        let error = match text.starts_with("(component") {
            true => Component::new(&engine, &binary).map(drop).unwrap_err(),
            false => Module::new(&engine, &binary).map(drop).unwrap_err(),
        };
        describe_invalid("component", &binary, &error)
    }

    #[test]
    fn each_unsupported_proposal_is_rejected_by_name() {
        for (proposal, text) in [
            ("gc", "(module (type $a (sub (func))) (type $b (sub $a (func))))"),
            ("gc", "(module (rec (type (func)) (type (func))))"),
            ("gc", "(module (type (struct (field i32))))"),
            ("gc", "(module (type (array i8)))"),
            ("gc", "(module (func (param externref)))"),
            ("gc", "(module (table 1 anyref))"),
            ("gc", "(module (global i31ref (ref.i31 (i32.const 1))))"),
            (
                "function-references",
                "(module (type $t (func)) (func (param (ref null $t)) (call_ref $t (local.get 0))))",
            ),
            ("function-references", "(module (type $t (func)) (table 1 (ref null $t)))"),
            ("exception-handling", "(module (tag $e) (func (throw $e)))"),
            ("exception-handling", "(module (func (try_table)))"),
            ("tail-call", "(module (func $f (return_call $f)))"),
            (
                "tail-call",
                "(module (table 1 funcref) (type $t (func)) (func (return_call_indirect (type $t) (i32.const 0))))",
            ),
            ("threads", "(module (memory 1 1 shared))"),
            ("threads", "(module (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))"),
            ("memory64", "(module (memory i64 1))"),
            ("memory64", "(module (table i64 1 funcref))"),
            (
                "relaxed-simd",
                "(module (func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0))))",
            ),
            ("custom-page-sizes", "(module (memory 1 (pagesize 1)))"),
            (
                "wide-arithmetic",
                "(module (func (param i64) (result i64 i64) (i64.mul_wide_u (local.get 0) (local.get 0))))",
            ),
            ("stack-switching", "(module (type $f (func)) (type $c (cont $f)))"),
            ("component-model-async", "(component (core func (canon task.cancel)))"),
            ("component-model-error-context", "(component (core func (canon error-context.drop)))"),
            ("gc", "(component (core module (type (sub (func)))))"),
        ] {
            let message = rejected(text);
            assert!(message.starts_with(&format!("needs the WebAssembly proposal `{proposal}`")), "{text}: {message}");
        }
    }

    #[test]
    fn a_binary_that_is_invalid_for_another_reason_keeps_its_error() {
        assert!(rejected("(module (func (result i32)))").starts_with("is not a valid component: "));
    }

    #[test]
    fn the_set_of_proposals_is_independent_of_the_defaults_of_wasmtime() {
        let off = WasmFeatures::all().difference(SUPPORTED);
        for feature in [
            WasmFeatures::GC,
            WasmFeatures::GC_TYPES,
            WasmFeatures::FUNCTION_REFERENCES,
            WasmFeatures::EXCEPTIONS,
            WasmFeatures::TAIL_CALL,
            WasmFeatures::THREADS,
            WasmFeatures::MEMORY64,
            WasmFeatures::RELAXED_SIMD,
            WasmFeatures::CM_ASYNC,
        ] {
            assert!(off.contains(feature), "{feature:?}");
        }
    }

    /// If a component is composed of other components, wasmtime generates the code that passes values between them.
    #[test]
    fn composed_components_compile() {
        let text = r#"(component
          (component $inner
            (core module $m
              (memory (export "memory") 1)
              (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0))
              (func (export "f") (param i32 i32)))
            (core instance $i (instantiate $m))
            (func (export "f") (param "s" string)
              (canon lift (core func $i "f") (memory (core memory $i "memory")) (realloc (core func $i "realloc")))))
          (component $outer
            (import "f" (func $f (param "s" string)))
            (core module $m (memory (export "memory") 1))
            (core instance $i (instantiate $m))
            (core func $lowered (canon lower (func $f) (memory (core memory $i "memory"))))
            (core module $caller
              (import "" "f" (func $f (param i32 i32)))
              (func (export "g") (call $f (i32.const 0) (i32.const 0))))
            (core instance $c (instantiate $caller (with "" (instance (export "f" (func $lowered))))))
            (func (export "g") (canon lift (core func $c "g"))))
          (instance $a (instantiate $inner))
          (instance $b (instantiate $outer (with "f" (func $a "f"))))
          (export "g" (func $b "g")))"#;
        let engine = super::super::engine::engine(1, 0).unwrap();
        Component::new(&engine, text).unwrap_or_else(|error| panic!("{error:#}"));
    }
}
