use wasmtime::{Caller, Config, Engine, Extern, Instance, Linker, Module, Store};

use super::super::super::binary::section_id::DATA;
use super::super::super::binary::sections;
use super::*;

/// The start of a program whose layout is that of Go's: it reads random numbers and a clock, takes more memory, and
/// changes a global and the memory.
const START: &str = r#"
    (drop (call $random (i32.const 4096) (i32.const 32)))
    (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 4160)))
    (drop (call $status (i32.const 1) (i32.const 4200)))
    (drop (memory.grow (i32.const 3)))
    (global.set $sp (i64.const -5))
    (global.set $ratio (f64.const 0.5))
    (i64.store (i32.const 8) (i64.load (i32.const 4096)))
    (i32.store (i32.const 300000) (i32.const 7))"#;

fn program(start: &str) -> String {
    program_with(start, "(i32.const 131072)", "")
}

fn program_with(start: &str, reserved: &str, more: &str) -> String {
    format!(
        r#"(module (@custom "go:buildid" "x")
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_fdstat_get" (func $status (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi:config/store@0.2.0-rc.1" "get" (func $config (param i32 i32 i32)))
            (memory (export "memory") 4)
            (global $sp (mut i64) (i64.const 1)) (global $ratio (mut f64) (f64.const 1)) (global $page i32 (i32.const 9))
            (func (export "_initialize") {start})
            (func (export "evoke-before-snapshot") (result i32) {reserved})
            (func (export "evoke-after-snapshot")
                (global.set $sp (i64.add (global.get $sp) (i64.const 1)))
                (drop (call $random (i32.const 16) (i32.const 8))))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 77))
            (func (export "sp") (result i64) (global.get $sp))
            (func (export "ratio") (result f64) (global.get $ratio))
            (func (export "page") (result i32) (global.get $page))
            (data (i32.const 64) "data")
            {more})"#
    )
}

fn started_module(text: &str) -> Result<Vec<u8>, Refused> {
    started(&wat::parse_str(text).unwrap()).unwrap()
}

fn reason(text: &str) -> String {
    started_module(text).unwrap_err().into_owned()
}

/// An instance of the module in which random numbers are 9.
fn instance(module: &[u8]) -> (Store<()>, Instance) {
    let engine = Engine::new(Config::new().gc_support(false)).unwrap();
    let module = Module::new(&engine, module).unwrap();
    let mut linker = Linker::new(&engine);
    let random = |mut caller: Caller<'_, ()>, at: u32, length: u32| {
        let memory = caller.get_export("memory").and_then(Extern::into_memory).unwrap();
        memory.write(&mut caller, at as usize, &vec![9; length as usize]).unwrap();
        0_i32
    };
    linker.func_wrap("wasi_snapshot_preview1", "random_get", random).unwrap();
    linker.define_unknown_imports_as_traps(&module).unwrap();
    let mut store = Store::new(&engine, ());
    let instance = linker.instantiate(&mut store, &module).unwrap();
    (store, instance)
}

#[test]
fn an_instance_continues_after_the_start() {
    let module = started_module(&program(START)).unwrap();
    let (mut store, instance) = instance(&module);
    let memory = instance.get_memory(&mut store, "memory").unwrap();
    assert_eq!(memory.size(&store), 7);
    let bytes = |at: usize, length: usize| memory.data(&store)[at..at + length].to_vec();
    assert_eq!(bytes(64, 4), b"data");
    assert_eq!(bytes(300_000, 4), [7, 0, 0, 0]);
    assert_eq!(bytes(4160, 8), [1, 0, 0, 0, 0, 0, 0, 0], "the clock");
    let random = bytes(4096, 32);
    assert!(random.iter().any(|byte| *byte != 0), "the random numbers");
    assert_eq!(bytes(8, 8), random[..8]);
    assert!(bytes(300_004, 158_744).iter().all(|byte| *byte == 0));
    let sp = instance.get_typed_func::<(), i64>(&mut store, "sp").unwrap();
    assert_eq!(sp.call(&mut store, ()).unwrap(), -5);
    let ratio = instance.get_typed_func::<(), f64>(&mut store, "ratio").unwrap();
    assert_eq!(ratio.call(&mut store, ()).unwrap(), 0.5);
    let page = instance.get_typed_func::<(), i32>(&mut store, "page").unwrap();
    assert_eq!(page.call(&mut store, ()).unwrap(), 9);
    let initialize = instance.get_typed_func::<(), ()>(&mut store, "_initialize").unwrap();
    initialize.call(&mut store, ()).unwrap();
    assert_eq!(sp.call(&mut store, ()).unwrap(), -4, "the function after the snapshot runs in place of the start");
    assert_eq!(memory.data(&store)[16..24], [9; 8], "new random numbers");
}

#[test]
fn the_adapter_gets_the_reserved_pages_and_then_the_memory_of_the_program() {
    let (mut store, instance) = instance(&started_module(&program(START)).unwrap());
    let realloc = instance.get_typed_func::<(i32, i32, i32, i32), i32>(&mut store, "cabi_realloc").unwrap();
    for (size, expected) in [(65_537, 77), (65_536, 131_072), (100, 196_608), (1, 77), (65_536, 77)] {
        assert_eq!(realloc.call(&mut store, (0, 0, 8, size)).unwrap(), expected, "{size} bytes");
    }
}

#[test]
fn the_same_module_has_the_same_start_and_another_one_has_other_random_numbers() {
    let first = started_module(&program(START)).unwrap();
    assert_eq!(started_module(&program(START)).unwrap(), first);
    let other = started_module(&program_with(START, "(i32.const 131072)", r#"(data (i32.const 80) "other")"#)).unwrap();
    let random = |module: &[u8]| {
        let (mut store, instance) = instance(module);
        instance.get_memory(&mut store, "memory").unwrap().data(&store)[4096..4128].to_vec()
    };
    assert_ne!(random(&first), random(&other));
}

#[test]
fn what_could_differ_in_an_attempt_refuses_the_snapshot() {
    let random = "(drop (call $random (i32.const 0) (i32.const 8)))";
    let status = "(drop (call $status (i32.const 1) (i32.const 8)))";
    for (start, expected) in [
        ("(drop (call $clock (i32.const 0) (i64.const 0) (i32.const 0)))", "calls `clock_time_get` of"),
        (&format!("{random}{random}"), "calls `random_get` of"),
        ("(drop (call $random (i32.const 0) (i32.const 33)))", "calls `random_get` of"),
        ("(drop (call $random (i32.const -1) (i32.const 8)))", "calls `random_get` of"),
        ("(drop (call $status (i32.const 3) (i32.const 8)))", "calls `fd_fdstat_get` of"),
        ("(drop (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0)))", "calls `fd_write` of"),
        ("(call $config (i32.const 1) (i32.const 0) (i32.const 0))", "calls `get` of `wasi:config/store@0.2.0-rc.1`"),
        ("(loop (br 0))", "takes too long to start"),
        ("unreachable", "fails while it starts"),
        ("(i32.store (i32.const -1) (i32.const 0))", "fails while it starts"),
        ("(drop (memory.grow (i32.const 253)))", "takes more than 16 MiB of memory while it starts"),
        ("(loop (drop (memory.grow (i32.const 0))) (br 0))", "takes too long to start"),
        (&format!("(loop {status} (br 0))"), "takes too long to start"),
    ] {
        let reason = reason(&program(start));
        assert!(reason.contains(expected), "{start}: {reason}");
    }
    assert_eq!(reason(&program_with(START, "(i32.const 0)", "")), "refuses the snapshot");
}

#[test]
fn a_module_with_another_layout_stays_as_it_is() {
    let whole = program(START);
    for (from, to) in [
        (r#"(export "cabi_realloc")"#, ""),
        (r#"(param i32 i32 i32 i32) (result i32) (i32.const 77)"#, ""),
        (r#"(export "evoke-after-snapshot")"#, r#"(export "evoke-after-snapshot") (param i32)"#),
        (r#"(export "_initialize")"#, r#"(export "_initialize") (param i32)"#),
        (r#"(memory (export "memory") 4)"#, r#"(memory 4)"#),
        (r#"(memory (export "memory") 4)"#, r#"(memory (export "memory") 257)"#),
        (r#"(data (i32.const 64) "data")"#, r#"(func $start) (start $start)"#),
        (r#"(data (i32.const 64) "data")"#, r#"(data $d "data") (func (data.drop $d))"#),
        (
            r#"(data (i32.const 64) "data")"#,
            r#"(table 1 funcref) (elem func) (func (elem.drop 0)) (data (i32.const 64) "d")"#,
        ),
        (
            r#"(data (i32.const 64) "data")"#,
            r#"(table $t 1 funcref) (func (table.set $t (i32.const 0) (ref.null func))) (data (i32.const 64) "d")"#,
        ),
        (r#"(global $sp"#, r#"(global $any (mut funcref) (ref.null func)) (global $sp"#),
        (r#"(memory (export "memory") 4)"#, r#"(import "other" "g" (global i32)) (memory (export "memory") 4)"#),
    ] {
        assert!(whole.contains(from), "{from}");
        let module = wat::parse_str(whole.replacen(from, to, 1)).unwrap();
        assert!(matches!(started(&module), Some(Err(_))), "{from} becomes {to}");
    }
    for reserved in ["(i32.const 8)", "(i32.const -16)", "(i32.const 327696)"] {
        assert!(started_module(&program_with(START, reserved, "")).is_err(), "{reserved}");
    }
}

#[test]
fn only_a_program_of_go_that_asks_for_it_is_started_and_only_one() {
    let whole = program(START);
    for absent in ["go:buildid", "_initialize", "evoke-before-snapshot", "evoke-after-snapshot"] {
        assert!(started(&wat::parse_str(whole.replacen(absent, "other", 1)).unwrap()).is_none(), "{absent}");
    }
    let module = wat::parse_str(&whole).unwrap();
    let component = wat::parse_str(format!("(component (core {0} (core {0})", &whole[1..])).unwrap();
    let started_component = started(&component).unwrap().unwrap();
    let started_module = started(&module).unwrap().unwrap();
    let find = |part: &[u8]| started_component.windows(part.len()).any(|window| window == part);
    assert!(find(&module) && find(&started_module));
}

#[test]
fn a_torn_module_is_not_started() {
    let whole = wat::parse_str(program(START)).unwrap();
    let data = sections(&whole).find(|section| section.id == DATA).unwrap();
    for end in 0..data.start + data.body.len() {
        assert!(!matches!(started(&whole[..end]), Some(Ok(_))), "{end} bytes");
    }
}

#[test]
fn an_invalid_module_is_not_started() {
    let text = program(START).replacen("(i32.const 77)", "(i64.const 77)", 1);
    assert!(started(&wat::parse_str(text).unwrap()).is_none());
}
