//! Runs components as they are and linked, and compares what they do.

use wasmparser::{Parser, Payload};
use wasmtime::component::{Component, Linker, Val};
use wasmtime::{Store, StoreContextMut};

use super::*;

/// A program with a library, as linkers for dynamic linking make it: all memory, tables and addresses belong to the
/// first module, the library calls the host through a table that is filled last, and functions are called by pointer.
const PROGRAM: &str = r#"
    (component
      (import "host" (func $host (param "a" string) (result u32)))
      (core module $main
        (memory (export "memory") 1)
        (table (export "table") 6 funcref)
        (global (export "stack") (mut i32) (i32.const 4096))
        (global (export "library data") i32 (i32.const 64))
        (global (export "library table") i32 (i32.const 2))
        (global (export "got") (mut i32) (i32.const 3))
        (data (i32.const 16) "main")
        (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192)))
      (core module $trampolines
        (type $t (func (param i32 i32) (result i32)))
        (table (export "imports") 1 funcref)
        (func (export "0") (type $t) (call_indirect (type $t) (local.get 0) (local.get 1) (i32.const 0))))
      (core module $library
        (type $unary (func (param i32) (result i32)))
        (import "env" "memory" (memory 1))
        (import "env" "table" (table 3 funcref))
        (import "env" "stack" (global $stack (mut i32)))
        (import "env" "data" (global $data i32))
        (import "env" "base" (global $base i32))
        (import "env" "got" (global $got (mut i32)))
        (import "env" "host" (func $host (param i32 i32) (result i32)))
        (global $copy i32 (i32.add (global.get $data) (i32.const 1)))
        (func $double (export "double") (type $unary) (i32.mul (local.get 0) (i32.const 2)))
        (func $stacked (type $unary)
          (global.set $stack (i32.sub (global.get $stack) (i32.const 16)))
          (i32.add (global.get $stack) (local.get 0)))
        (func (export "pointer") (param i32 i32) (result i32)
          (call_indirect (type $unary) (local.get 1) (i32.add (global.get $base) (local.get 0))))
        (func (export "got") (param i32) (result i32) (call_indirect (type $unary) (local.get 0) (global.get $got)))
        (func (export "say") (result i32) (call $host (global.get $data) (i32.const 5)))
        (func (export "byte") (result i32) (i32.load8_u (global.get $copy)))
        (elem (global.get $base) func $double $stacked)
        (data (global.get $data) "hello")
        (data $passive "xyz")
        (func (export "passive") (result i32)
          (memory.init $passive (i32.const 200) (i32.const 1) (i32.const 2))
          (i32.load8_u (i32.const 201))))
      (core module $fill
        (import "" "0" (func $host (param i32 i32) (result i32)))
        (import "" "imports" (table 1 funcref))
        (elem (i32.const 0) func $host))
      (core module $user
        (import "library" "double" (func $double (param i32) (result i32)))
        (import "main" "memory" (memory 1))
        (func (export "quadruple") (param i32) (result i32) (call $double (call $double (local.get 0))))
        (func (export "text") (result i32) (i32.load8_u (i32.const 19))))

      (core instance $trampolines (instantiate $trampolines))
      (core instance $main (instantiate $main))
      (alias core export $main "memory" (core memory $memory))
      (alias core export $main "realloc" (core func $realloc))
      (core instance $env (export "memory" (memory $memory)) (export "table" (table $main "table"))
        (export "stack" (global $main "stack")) (export "data" (global $main "library data"))
        (export "base" (global $main "library table")) (export "got" (global $main "got"))
        (export "host" (func $trampolines "0")))
      (core instance $library (instantiate $library (with "env" (instance $env))))
      (core func $lowered (canon lower (func $host) (memory $memory) (realloc $realloc)))
      (alias core export $trampolines "imports" (core table $imports))
      (core instance $filled (export "0" (func $lowered)) (export "imports" (table $imports)))
      (core instance (instantiate $fill (with "" (instance $filled))))
      (core instance $user (instantiate $user (with "library" (instance $library)) (with "main" (instance $main))))

      (func (export "pointer") (param "a" u32) (param "b" u32) (result u32)
        (canon lift (core func $library "pointer")))
      (func (export "got") (param "a" u32) (result u32) (canon lift (core func $library "got")))
      (func (export "say") (result u32) (canon lift (core func $library "say")))
      (func (export "byte") (result u32) (canon lift (core func $library "byte")))
      (func (export "passive") (result u32) (canon lift (core func $library "passive")))
      (func (export "quadruple") (param "a" u32) (result u32) (canon lift (core func $user "quadruple")))
      (func (export "text") (result u32) (canon lift (core func $user "text"))))
"#;

/// Calls of the exports of [`PROGRAM`], in one instance.
const CALLS: [(&str, &[u32]); 10] = [
    ("pointer", &[0, 21]),
    ("pointer", &[1, 5]),
    ("pointer", &[1, 5]),
    ("pointer", &[2, 0]),
    ("got", &[7]),
    ("say", &[]),
    ("byte", &[]),
    ("passive", &[]),
    ("quadruple", &[3]),
    ("text", &[]),
];

/// Calls the exports of a component. Returns the result of each call, `None` for a trap (which ends the instance), and
/// the texts that the host got.
fn run(component: &[u8], calls: &[(&str, &[u32])]) -> (Vec<Option<u32>>, Vec<String>) {
    // With the pool, in which an instance has limits of its own.
    let engine = crate::engine::engine(1, 0).unwrap();
    let component = Component::new(&engine, component).unwrap();
    let mut linker = Linker::new(&engine);
    linker
        .root()
        .func_wrap("host", |mut store: StoreContextMut<'_, Vec<String>>, (text,): (String,)| {
            let bytes = text.len() as u32;
            store.data_mut().push(text);
            Ok((bytes,))
        })
        .unwrap();
    let (mut results, mut texts) = (Vec::new(), Vec::new());
    for (name, arguments) in calls {
        let mut store = Store::new(&engine, Vec::new());
        store.set_epoch_deadline(1_000_000);
        let instance = linker.instantiate(&mut store, &component).unwrap();
        let function = instance.get_func(&mut store, name).unwrap();
        let arguments: Vec<_> = arguments.iter().map(|argument| Val::U32(*argument)).collect();
        let mut result = [Val::U32(0)];
        let returned = function.call(&mut store, &arguments, &mut result);
        results.push(match (returned, &result) {
            (Ok(()), [Val::U32(value)]) => Some(*value),
            _ => None,
        });
        texts.append(store.data_mut());
    }
    (results, texts)
}

/// Returns the sizes of the core modules of a component in bytes, without empty ones.
fn modules(component: &[u8]) -> Vec<u64> {
    let payloads = Parser::new(0).parse_all(component).map(|payload| payload.unwrap());
    let sizes = payloads.filter_map(|payload| match payload {
        Payload::ModuleSection { unchecked_range, .. } => Some((unchecked_range.end - unchecked_range.start) as u64),
        _ => None,
    });
    sizes.filter(|size| *size > EMPTY_MODULE_BYTES).collect()
}

const EMPTY_MODULE_BYTES: u64 = 8;

fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn a_linked_program_does_what_it_did_with_fewer_modules() {
    let program = parse(PROGRAM);
    let linked = linked(&program).unwrap();
    Validator::new_with_features(proposals::SUPPORTED).validate_all(&linked).unwrap();
    // The module that fills the table needs a function of the host, which needs the memory of the linked modules. The
    // module after it stays, too.
    assert_eq!((modules(&program).len(), modules(&linked).len()), (5, 3));
    let found = run(&linked, &CALLS);
    assert_eq!(found, run(&program, &CALLS));
    let results = [Some(42), Some(4085), Some(4085), None, Some(4087), Some(5), Some(101), Some(122), Some(12)];
    assert_eq!((&found.0[..9], &found.1[..]), (&results[..], &["hello".to_owned()][..]));
    assert_eq!(found.0[9], Some(u32::from(b'n')));
}

#[test]
fn all_addresses_of_a_linked_program_are_constants() {
    let linked = linked(&parse(PROGRAM)).unwrap();
    for payload in Parser::new(0).parse_all(&linked) {
        if let Payload::ElementSection(segments) = payload.unwrap() {
            for segment in segments {
                let wasmparser::ElementKind::Active { offset_expr, .. } = segment.unwrap().kind else { continue };
                let first = offset_expr.get_operators_reader().read().unwrap();
                assert!(matches!(first, wasmparser::Operator::I32Const { .. }), "{first:?}");
            }
        }
    }
}

#[test]
fn components_in_a_component_are_linked_too() {
    let nested = PROGRAM.trim().strip_prefix("(component").unwrap();
    let program = parse(&format!(
        r#"(component (import "host" (func $host (param "a" string) (result u32)))
             (component $c {nested}
             (instance $i (instantiate $c (with "host" (func $host))))
             (export "say" (func $i "say")))"#
    ));
    let linked = linked(&program).unwrap();
    assert_eq!((modules(&program).len(), modules(&linked).len()), (5, 3));
    assert_eq!(run(&linked, &[("say", &[])]), (vec![Some(5)], vec!["hello".to_owned()]));
}

/// Two modules of which the second one imports a function of the first one.
fn pair(first: &str, second: &str, between: &str) -> Vec<u8> {
    parse(&format!(
        r#"(component
             (core module $a (func (export "f") (result i32) (i32.const 7)) {first})
             (core module $b (import "a" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)) {second})
             (core instance $a (instantiate $a))
             {between}
             (core instance $b (instantiate $b (with "a" (instance $a))))
             (func (export "g") (result u32) (canon lift (core func $b "g"))))"#
    ))
}

#[test]
fn modules_stay_separate_if_that_could_be_noticed() {
    let result = |component: &[u8]| run(component, &[("g", &[])]).0;
    let plain = pair("", "", "");
    assert_eq!(result(&linked(&plain).unwrap()), [Some(7)]);
    for (component, expected) in [
        // A start function runs between the instances of two modules.
        (pair("(func $s) (start $s)", "", ""), Some(7)),
        (pair("", "(func $s) (start $s)", ""), Some(7)),
        (pair("", "(func $s unreachable) (start $s)", ""), None),
        // Two instances of one module.
        (pair("", "", "(core instance (instantiate $a))"), Some(7)),
        // A nested component could use a module of the outer one.
        (pair("", "", "(component (alias outer 1 0 (core module)))"), Some(7)),
        (pair("", "", r#"(export "m" (core module $a))"#), Some(7)),
        // wasmtime's pool has one memory for each module.
        (pair("(memory 1)", "(memory 1)", ""), Some(7)),
        // A destructor is a core function that the section of types names.
        (pair("(func (export \"d\") (param i32))", "", "(type (resource (rep i32) (dtor (func $a \"d\"))))"), Some(7)),
        // With a segment that does not fit, creating the instance fails, and the memory could not be mapped.
        (pair("(memory 1) (data (i32.const 65535) \"ab\")", "", ""), None),
        (pair("(table 1 funcref) (elem (i32.const 1) 0)", "", ""), None),
        // The data span more than wasmtime maps.
        (pair("(memory 400) (data (i32.const 0) \"a\") (data (i32.const 20000000) \"b\")", "", ""), Some(7)),
    ] {
        assert!(linked(&component).is_none());
        if expected.is_some() {
            assert_eq!(result(&component), [expected]);
        }
    }
}

#[test]
fn a_module_stays_separate_if_it_shares_memory_with_a_module_outside_of_the_group() {
    let component = parse(
        r#"(component
             (core module $m (memory (export "m") 1) (func $s) (start $s))
             (core module $a (import "m" "m" (memory 1)) (data (i32.const 0) "A") (func (export "f")))
             (core module $s (import "m" "m" (memory 1))
               (func $s (if (i32.ne (i32.load8_u (i32.const 0)) (i32.const 65)) (then unreachable))) (start $s))
             (core module $b (func (export "g") (result i32) (i32.const 7)))
             (core module $c (import "b" "g" (func $g (result i32))) (func (export "g") (result i32) (call $g)))
             (core instance $m (instantiate $m))
             (core instance $a (instantiate $a (with "m" (instance $m))))
             (core instance $s (instantiate $s (with "m" (instance $m))))
             (core instance $b (instantiate $b))
             (core instance $c (instantiate $c (with "b" (instance $b))))
             (func (export "g") (result u32) (canon lift (core func $c "g"))))"#,
    );
    let linked = linked(&component).unwrap();
    assert_eq!((modules(&component).len(), modules(&linked).len()), (5, 4));
    assert_eq!(run(&linked, &[("g", &[])]).0, [Some(7)]);
}

#[test]
fn a_function_that_only_its_export_declared_can_still_be_an_operand() {
    let component = pair("(func (export \"k\") (drop (ref.func 0)))", "", "");
    let linked = linked(&component).unwrap();
    assert_eq!(run(&linked, &[("g", &[])]).0, [Some(7)]);
}

#[test]
fn an_invalid_component_is_not_made_valid() {
    let valid = pair("", "", "");
    let text = r#"(result i32)))"#;
    let wrong = format!(
        r#"(component
             (core module $a (func (export "f") (result i64) (i64.const 7)))
             (core module $b (import "a" "f" (func {text} (func (export "g")))
             (core instance $a (instantiate $a))
             (core instance $b (instantiate $b (with "a" (instance $a)))))"#
    );
    assert!(linked(&valid).is_some());
    assert!(linked(&parse(&wrong)).is_none());
}

#[test]
fn no_part_of_a_component_makes_linking_panic() {
    let program = parse(PROGRAM);
    for end in 0..program.len() {
        linked(&program[..end]);
    }
    // One wrong byte at a time.
    for at in 8..program.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut changed = program.clone();
            changed[at] = value;
            linked(&changed);
        }
    }
}
