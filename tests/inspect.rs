//! `inspect` reports the kind of a component and the grants that it needs, and the report agrees with `validate`.

use serde_json::Value;

use crate::support::{Evoke, components};

/// A component that exports `handler` and has imports of each kind: granted, refused at each call, and
/// unknown.
const BY_HAND: &str = r#"(component
  (import "evoke:function/bus@0.1.0" (instance))
  (import "wasi:config/store@0.2.0-rc.1" (instance))
  (import "wasi:sockets/tcp@0.2.0" (instance))
  (import "acme:thing/api" (instance))
  (core module $m (memory 3) (func) (func))
  (core instance (instantiate $m))
  (instance $handler)
  (export "evoke:function/handler@0.1.0" (instance $handler)))"#;

fn folder() -> Evoke {
    Evoke::with("evoke: 1\napp: lab\nfunctions: {}\n")
}

fn inspected(evoke: &Evoke, fixture: &str) -> Value {
    let path = components().join(format!("{fixture}.wasm"));
    let output = evoke.run(&["inspect", path.to_str().unwrap(), "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{fixture}: {e}: {output:?}"))
}

#[test]
fn inspect_prints_the_kind_and_the_needs_of_a_component() {
    let evoke = folder();
    std::fs::write(evoke.path("by-hand.wat"), BY_HAND).unwrap();
    let output = evoke.run(&["inspect", "by-hand.wat"]);
    assert_eq!(output.status.code(), Some(1), "an import can never be granted");
    let text = String::from_utf8(output.stdout).unwrap();
    // The compiled size changes with the compiler, and the list of provided imports with the version of Evoke.
    let stable = |line: &str| match (line.split_once(" B, "), line.split_once("; a function may")) {
        (Some((size, _)), _) => format!("{size} B, …"),
        (_, Some((start, _))) => start.to_owned(),
        _ => line.to_owned(),
    };
    let stable: Vec<String> = text.lines().map(stable).collect();
    let expected = r#"by-hand.wat handles events
  size      362 B, …
  memory    192.0 KiB at the start
  contains  2 functions in 1 core module
  made by   unknown
  sha256    96db33473632370021190d3f1353e9da9ee3d83280ec441ed50af198cc7bc88e
imports
  evoke:function/bus  0.1.0
  wasi:config/store   0.2.0-rc.1
  wasi:sockets/tcp    0.2.0
  acme:thing/api                  nothing provides it
exports
  evoke:function/handler  0.1.0
allow:
  publish: ["*"]                 # the types of the events that it publishes, as narrow as possible
  # config: { NAME: value }      # the settings that it reads through wasi:config"#;
    assert_eq!(stable.join("\n"), expected);
}

#[test]
fn inspect_json_covers_every_kind_of_component() {
    let evoke = folder();
    for (fixture, kind, core_module, export) in [
        ("charge", "handler", false, "evoke:function/handler"),
        ("command", "command", false, "wasi:cli/run"),
        ("command-p1", "command", true, "wasi:cli/run"),
        ("command-c", "command", true, "wasi:cli/run"),
        ("http-hello", "http", false, "wasi:http/incoming-handler"),
    ] {
        let inspected = inspected(&evoke, fixture);
        assert_eq!((&inspected["kind"], &inspected["core_module"]), (&kind.into(), &core_module.into()), "{fixture}");
        assert_eq!(inspected["exports"][0]["name"], export, "{fixture}");
        let file = std::fs::metadata(components().join(format!("{fixture}.wasm"))).unwrap().len();
        assert_eq!(inspected["file_bytes"], file, "{fixture}");
        for key in ["compiled_bytes", "memory_bytes", "functions", "modules"] {
            assert!(inspected[key].as_u64().unwrap() > 0, "{fixture} {key}");
        }
        assert!(inspected["exports"][0]["version"].as_str().unwrap().starts_with("0."), "{fixture}");
    }
    let made_by = inspected(&evoke, "charge")["producers"]["processed-by"].to_string();
    assert!(made_by.contains("wit-component"), "{made_by}");
}

/// A handler that asks for a start when it is compiled, as programs of Go do: its start reads the clock CLOCK, and leaves the
/// result of the attempt, a reject with a message. The function after the snapshot changes the message.
const STARTED: &str = r#"(module (@custom "go:buildid" "x")
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (memory (export "memory") 4)
  (global $result (mut i32) (i32.const 0))
  (data (i32.const 2048) "started")
  (func (export "_initialize")
    (drop (call $clock (i32.const CLOCK) (i64.const 0) (i32.const 8)))
    (global.set $result (i32.const 1024))
    (i32.store (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1032) (i32.const 1))
    (i32.store (i32.const 1040) (i32.const 2048)) (i32.store (i32.const 1044) (i32.const 7)))
  (func (export "evoke-before-snapshot") (result i32) (i32.const 131072))
  (func (export "evoke-after-snapshot") (i32.store8 (i32.const 2048) (i32.const 83)))
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
  (func (export "evoke:function/handler@0.1.0#handle") (param i32) (result i32) (global.get $result)))"#;

#[test]
fn a_program_starts_once_unless_its_start_reads_the_time() {
    let evoke = folder();
    let once = "once, when it is compiled; each attempt continues from there";
    let read = "calls `clock_time_get` of `wasi_snapshot_preview1` while it starts";
    for (clock, start, reason, line, message) in [
        ("1", "compilation", Value::Null, once.to_owned(), "Started"),
        ("0", "attempt", read.into(), format!("in each attempt, because it {read}"), "started"),
    ] {
        std::fs::write(evoke.path("started.wat"), STARTED.replace("CLOCK", clock)).unwrap();
        let inspected = evoke.json(&["inspect", "started.wat"]);
        assert_eq!((&inspected["start"], &inspected["start_reason"]), (&start.into(), &reason));
        let text = String::from_utf8(evoke.run(&["inspect", "started.wat"]).stdout).unwrap();
        assert!(text.contains(&format!("\n  starts    {line}\n")), "{text}");
        evoke.write_manifest(
            "evoke: 1\napp: lab\nfunctions:\n  f: { component: ./started.wat, on: [{ events: { type: [x] } }] }\n",
        );
        let output = evoke.run(&["invoke", "f", "--event", "{}", "--json"]);
        let invoked: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!((&invoked["outcome"], &invoked["message"]), (&"reject".into(), &message.into()), "{invoked}");
    }
}

/// A manifest with the listed grants passes `validate` if and only if `inspect` reports no import that is never
/// granted.
#[test]
fn the_grants_that_inspect_lists_satisfy_validate() {
    let evoke = folder();
    for fixture in ["charge", "config-read", "counter", "command", "command-p1", "http-hello", "fan-out"] {
        let inspected = inspected(&evoke, fixture);
        let grants = inspected["allow"].as_array().unwrap();
        let block = |everything: bool| {
            let wanted = grants.iter().filter(|grant| everything || grant["needed"] == true);
            let entries = wanted.map(|grant| format!("{}: {}", grant["key"].as_str().unwrap(), grant["value"]));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        };
        let trigger = match inspected["kind"].as_str().unwrap() {
            "http" => "http: { path: /in, methods: [GET] }",
            _ => "events: { type: [order.placed] }",
        };
        let can_run = inspected["imports"].as_array().unwrap().iter().all(|import| import["supply"] != "never");
        for everything in [false, true] {
            let allow = block(everything);
            evoke.write_manifest(&format!(
                "evoke: 1\napp: lab\nfunctions:\n  f:\n    component: $FUNCTIONS/{fixture}.wasm\n    \
                 on: [{{ {trigger} }}]\n    allow: {allow}\n"
            ));
            let output = evoke.run(&["validate"]);
            assert_eq!(output.status.success(), can_run, "{fixture} with {allow}: {output:?}");
        }
    }
}

#[test]
fn inspect_reports_why_a_file_is_not_a_component() {
    let evoke = folder();
    for (name, content, code, expected) in [
        ("text.wasm", &b"hello"[..], 1, "is not WebAssembly"),
        ("empty.wasm", b"", 1, "is not WebAssembly"),
        ("torn.wasm", b"\0asm\x0d\0\x01", 1, "an unknown WebAssembly version"),
        ("broken.wasm", b"\0asm\x0d\0\x01\0\x01\x05\0asm", 1, "is not a valid component"),
        ("library.wat", b"(module)", 1, "a core module without `_start`"),
        ("wrong.wat", b"(component (frob))", 1, "is not a valid component"),
    ] {
        std::fs::write(evoke.path(name), content).unwrap();
        let output = evoke.run(&["inspect", name]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {text}");
        assert!(text.contains(name) && text.contains(expected), "{text}");
    }
    assert_eq!(evoke.run(&["inspect", "missing.wasm"]).status.code(), Some(4));

    // A valid component that Evoke cannot call: the full report is printed, and the exit code is 1.
    std::fs::write(evoke.path("other.wat"), "(component)").unwrap();
    let output = evoke.run(&["inspect", "other.wat"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("not a function") && text.contains("evoke:function/handler@0.1.0"), "{text}");
}
