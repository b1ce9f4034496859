//! Compares the functions that the linker offers with the reviewed list in `linked.txt`, one by one. If a newer
//! wasmtime or a change of Evoke links another function, the list has no line for it, and the test fails.
//!
//! A linker does not show its contents. So for each function of every WIT package that could be linked, the test makes
//! a component that imports only this function. The linker accepts or rejects the component.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Function, Resolve};

use super::*;
use crate::context::HostContext;
use crate::inspect::Availability;

const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/linked.txt");
/// The kinds in the order of the columns of the list.
const KINDS: [Kind; 3] = [Kind::Handler, Kind::Command, Kind::Http];
/// The words with which the list describes the limit on the work of a function. The list explains these words.
const BOUNDS: [&str; 10] =
    ["constant", "copy", "handle", "chunk", "budget", "wait", "log", "publish", "state", "refused"];

/// Returns the folder of a package that this crate depends on.
fn package(name: &str) -> PathBuf {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{metadata:?}");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let manifest = packages.find(|package| package["name"] == name).unwrap()["manifest_path"].as_str().unwrap();
    Path::new(manifest).parent().unwrap().to_owned()
}

/// Returns every interface that could be linked: WASI 0.2 with its unstable functions, the WIT of Evoke, and the exit
/// import of converted programs.
fn interfaces() -> Resolve {
    let mut wit = Resolve { all_features: true, ..Resolve::default() };
    wit.push_dir(package("wasmtime-wasi-http").join("wit")).unwrap();
    wit.push_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../sdk/wit")).unwrap();
    wit.push_source("exit.wit", crate::adapt::WIT).unwrap();
    wit
}

/// Returns a component that imports one function and exports nothing.
fn importing(wit: &Resolve, interface: &str, function: &Function) -> Vec<u8> {
    let type_ = |type_: &WasmType| match type_ {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
        WasmType::I64 | WasmType::PointerOrI64 => "i64",
        WasmType::F32 => "f32",
        WasmType::F64 => "f64",
    };
    let signature = wit.wasm_signature(AbiVariant::GuestImport, function);
    let list = |types: &[WasmType]| types.iter().map(type_).collect::<Vec<_>>().join(" ");
    let (params, results) = (list(&signature.params), list(&signature.results));
    let module = format!(
        r#"(module
          (import "{interface}" "{}" (func (param {params}) (result {results})))
          (memory (export "memory") 1)
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))"#,
        function.name
    );
    encode(wit, &format!("import {interface};"), &module)
}

/// Returns the component made from a core module in text form. `world` has the imports and exports of the module in
/// WIT.
fn encode(wit: &Resolve, world: &str, module: &str) -> Vec<u8> {
    let (mut wit, mut module) = (wit.clone(), wat::parse_str(module).unwrap());
    let probe = wit.push_source("probe.wit", &format!("package evoke:probe; world probe {{ {world} }}")).unwrap();
    let world = wit.select_world(&[probe], None).unwrap();
    embed_component_metadata(&mut module, &wit, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

/// Returns the linked functions by interface.
fn linked(engine: &Engine, linker: &Linker<HostContext>) -> BTreeMap<String, Vec<String>> {
    let wit = interfaces();
    let mut linked: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (id, interface) in wit.interfaces.iter() {
        let Some(name) = wit.id_of(id) else { continue };
        for function in interface.functions.values() {
            // A component that wasmtime cannot compile cannot be linked either.
            let component = Component::new(engine, importing(&wit, &name, function));
            if component.is_ok_and(|component| linker.instantiate_pre(&component).is_ok()) {
                let without_version = name.split('@').next().unwrap().to_owned();
                linked.entry(without_version).or_default().push(function.name.clone());
            }
        }
    }
    linked
}

/// Returns the availability of an interface for each kind of function, as in the list.
fn availability(interface: &str) -> String {
    let word = |kind| match Availability::of(interface, kind) {
        Availability::Always => "always",
        Availability::IfGranted => "granted",
        Availability::Never(_) => "never",
    };
    KINDS.map(word).join(" ")
}

/// The list without its comments: each interface with its availability, and each function with its bound.
struct List {
    head: String,
    interfaces: BTreeMap<String, String>,
    functions: BTreeMap<(String, String), String>,
}

impl List {
    fn read() -> Self {
        let text = std::fs::read_to_string(LIST).unwrap();
        let (mut interfaces, mut functions) = (BTreeMap::new(), BTreeMap::new());
        let mut interface = String::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
            let (name, rest) = line.trim().split_once(' ').unwrap();
            if line.starts_with(' ') {
                functions.insert((interface.clone(), name.to_owned()), rest.trim().to_owned());
            } else {
                interface = name.to_owned();
                interfaces.insert(interface.clone(), rest.trim().to_owned());
            }
        }
        let head = text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        Self { head, interfaces, functions }
    }
}

#[tokio::test]
async fn every_linked_function_is_in_the_reviewed_list_with_its_bound() {
    let engine = crate::engine::engine(1, 0).unwrap();
    let linker = crate::linker::linker(&engine).unwrap();
    let (linked, list) = (linked(&engine, &linker), List::read());
    if std::env::var_os("EVOKE_BLESS").is_some() {
        let mut text = list.head.clone();
        for (interface, functions) in &linked {
            writeln!(text, "\n{interface} {}", availability(interface)).unwrap();
            for function in functions {
                let bound = list.functions.get(&(interface.clone(), function.clone()));
                writeln!(text, "  {function} {}", bound.map_or("?", String::as_str)).unwrap();
            }
        }
        std::fs::write(LIST, text).unwrap();
        return;
    }
    assert!(linked.values().flatten().count() > 150, "{linked:#?}");
    for (interface, functions) in &linked {
        let listed = list.interfaces.get(interface).map(String::as_str);
        assert_eq!(listed, Some(availability(interface).as_str()), "{interface}");
        for function in functions {
            let bound = list.functions.get(&(interface.clone(), function.clone()));
            let bound = bound.unwrap_or_else(|| {
                panic!("{interface} {function} is linked, but has no line in linked.txt; review it and add it")
            });
            assert!(BOUNDS.contains(&&**bound), "{interface} {function}: {bound:?} is not one of {BOUNDS:?}");
        }
    }
    for (interface, function) in list.functions.keys() {
        let is_linked = linked.get(interface).is_some_and(|functions| functions.contains(function));
        assert!(is_linked, "{interface} {function} is in linked.txt, but is not linked");
    }
    assert_eq!(list.interfaces.len(), linked.len());
}

#[tokio::test]
async fn commands_get_no_folder_and_no_socket() {
    let (harness, wit) = (Harness::new(), interfaces());
    let names: Vec<String> = wit.interfaces.iter().filter_map(|(id, _)| wit.id_of(id)).collect();
    let versioned = |name: &str| names.iter().find(|full| full.split('@').next() == Some(name)).unwrap();
    let run = versioned("wasi:cli/run");
    // The result is at address 64: either a list, whose length is at 68, or a `result`, which begins with 1 if it is an
    // error.
    for (interface, function, arguments, is_nothing) in [
        ("wasi:filesystem/preopens", "get-directories", 0, "(i32.eqz (i32.load (i32.const 68)))"),
        ("wasi:sockets/tcp-create-socket", "create-tcp-socket", 1, "(i32.load8_u (i32.const 64))"),
        ("wasi:sockets/udp-create-socket", "create-udp-socket", 1, "(i32.load8_u (i32.const 64))"),
    ] {
        let interface = versioned(interface);
        let (params, zeros) = ("i32 ".repeat(arguments), "(i32.const 0)".repeat(arguments));
        let module = format!(
            r#"(module
              (import "{interface}" "{function}" (func $f (param {params} i32)))
              (memory (export "memory") 1)
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
              (func (export "{run}#run") (result i32)
                (call $f {zeros} (i32.const 64))
                (if (i32.eqz {is_nothing}) (then unreachable))
                (i32.const 0)))"#
        );
        let component = encode(&wit, &format!("import {interface}; export {run};"), &module);
        let function = harness.sandbox.load(&harness.spec(component)).await.unwrap();
        assert_eq!(function.run(harness.call()).await.outcome, Outcome::Done, "{interface}");
    }
}
