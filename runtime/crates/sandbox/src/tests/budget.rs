//! The deadline and the limits of each call bound the work of the host for a guest.

use super::*;

/// Returns code that calls the log many times without a loop or a call of a function of the guest, so that wasmtime
/// itself never interrupts it.
fn straight_line_logs() -> String {
    let log = "(call $log (i32.const 1) (i32.const 0) (i32.const 60000) (i32.const 0) (i32.const 60000))";
    format!("(memory.fill (i32.const 0) (i32.const 10) (i32.const 60000)) {} {OK}", log.repeat(5_000))
}

/// Returns the binary form of a guest, because the text form has a lower size limit.
fn binary(guest: &Guest) -> Vec<u8> {
    wat::parse_str(guest.wat()).unwrap()
}

#[tokio::test]
async fn host_calls_in_straight_line_code_end_at_the_deadline() {
    let harness = Harness::new();
    let timeout = Duration::from_millis(60);
    for may_wait in [false, true] {
        let guest = Guest { may_wait, ..guest(&straight_line_logs()) };
        let function = harness.sandbox.load(&Spec { timeout, ..harness.spec(binary(&guest)) }).await.unwrap();
        let started = std::time::Instant::now();
        let attempt = function.run(harness.call()).await;
        assert_eq!(attempt.outcome, Outcome::Timeout { limit: timeout });
        assert!(started.elapsed() < timeout + Duration::from_secs(2), "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn host_calls_in_straight_line_code_yield_to_others_on_the_same_thread() {
    let harness = Harness::new();
    let timeout = Duration::from_secs(2);
    let hostile = Guest { may_wait: true, ..guest(&straight_line_logs()) };
    let hostile = harness.sandbox.load(&Spec { timeout, ..harness.spec(binary(&hostile)) }).await.unwrap();
    harness.assert_neighbour_runs_beside(&hostile).await;
}

/// A symbol of the Itanium C++ ABI whose parts double: demangled, it is gigabytes long.
fn expanding_symbol() -> String {
    let mut name = "_Z1fSt4pairIiiE".to_owned();
    for part in 0..30 {
        let number = char::from_digit(part, 36).unwrap().to_ascii_uppercase();
        name.push_str(&format!("S0_IS{number}_S{number}_E"));
    }
    name
}

#[tokio::test]
async fn a_trap_in_a_function_with_an_expanding_name_takes_no_time() {
    let harness = Harness::new();
    let name = expanding_symbol();
    let guest = guest_with(&format!("(func ${name} unreachable)"), &format!("(call ${name}) {OK}"));
    let function = harness.load(&guest).await;
    let started = std::time::Instant::now();
    let Outcome::Trap { message } = function.run(harness.call()).await.outcome else { panic!("no trap") };
    // Expanding the name takes many seconds.
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(message.starts_with("wasm `unreachable` instruction executed, in _Z1fSt4pairIiiES0_"), "{message}");
    assert!(message.len() < 1_000, "{}", message.len());
}

#[tokio::test]
async fn a_poll_of_one_pollable_many_times_traps() {
    let harness = Harness::new();
    let component = r#"(component
        (import "wasi:io/poll@0.2.0" (instance $poll
          (export "pollable" (type $pollable (sub resource)))
          (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
          (alias outer 1 $pollable (type $pollable'))
          (export "pollable" (type $pollable (eq $pollable')))
          (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
        (core module $memory
          (memory (export "memory") 2)
          (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
        (core instance $memory (instantiate $memory))
        (alias core export $memory "memory" (core memory $mem))
        (alias core export $memory "realloc" (core func $realloc))
        (core func $poll (canon lower (func $poll "poll") (memory $mem) (realloc $realloc)))
        (core func $in (canon lower (func $clock "subscribe-duration")))
        (core module $m
          (import "" "memory" (memory 1))
          (import "" "poll" (func $poll (param i32 i32 i32)))
          (import "" "in" (func $in (param i64) (result i32)))
          (func (export "run") (result i32) (local $handle i32) (local $at i32)
            (local.set $handle (call $in (i64.const 1)))
            (loop
              (i32.store (local.get $at) (local.get $handle))
              (local.set $at (i32.add (local.get $at) (i32.const 4)))
              (br_if 0 (i32.lt_u (local.get $at) (i32.const 20000))))
            (call $poll (i32.const 0) (i32.const 5000) (i32.const 40000))
            (i32.const 0)))
        (core instance $i (instantiate $m (with "" (instance
          (export "memory" (memory $mem)) (export "poll" (func $poll)) (export "in" (func $in))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.3" (instance $run)))"#;
    let function = harness.sandbox.load(&Spec { memory: 1 << 20, ..harness.spec(component) }).await.unwrap();
    let Outcome::Trap { message } = function.run(harness.call()).await.outcome else { panic!("no trap") };
    assert!(message.contains("waited for 5000 timers, streams and responses in one call"), "{message}");
}

/// Returns a command that imports `function` of `interface` and runs `body`, in which `$f` is this function. `exports`
/// are the exports of the interface in text form.
fn command(interface: &str, exports: &str, function: &str, signature: &str, body: &str) -> String {
    format!(
        r#"(component
          (core module $memory
            (memory (export "memory") 2)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
          (core instance $memory (instantiate $memory))
          (alias core export $memory "memory" (core memory $mem))
          (alias core export $memory "realloc" (core func $realloc))
          (import "{interface}" (instance $interface {exports}))
          (core func $f (canon lower (func $interface "{function}") (memory $mem) (realloc $realloc)))
          (core module $m
            (import "" "memory" (memory 1))
            (import "" "f" (func $f {signature}))
            (func (export "run") (result i32) {body}))
          (core instance $i (instantiate $m (with "" (instance
            (export "memory" (memory $mem)) (export "f" (func $f))))))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $run (export "run" (func $run)))
          (export "wasi:cli/run@0.2.3" (instance $run)))"#
    )
}

#[tokio::test]
async fn random_bytes_beyond_the_limit_trap() {
    let harness = Harness::new();
    let random = r#"(export "get-random-bytes" (func (param "len" u64) (result (list u8))))"#;
    let body = "(call $f (i64.const 4294967296) (i32.const 8)) (i32.const 0)";
    let component = command("wasi:random/random@0.2.0", random, "get-random-bytes", "(param i64 i32)", body);
    let function = harness.sandbox.load(&Spec { memory: 1 << 20, ..harness.spec(component) }).await.unwrap();
    let Outcome::Trap { message } = function.run(harness.call()).await.outcome else { panic!("no trap") };
    assert!(message.contains("exceeds limit 65536"), "{message}");
}

/// With a deadline that has passed, the first return from the host ends the attempt. If an import lacked the check, its
/// guest would reach `unreachable` and trap.
#[tokio::test]
async fn the_return_from_every_kind_of_host_function_checks_the_deadline() {
    let harness = Harness::new();
    let scalar = |name: &str, result: &str| format!(r#"(export "{name}" (func (result {result})))"#);
    let (now, random, config) = (
        scalar("now", "u64"),
        scalar("get-random-u64", "u64"),
        r#"(type $e' (variant (case "upstream" string) (case "io" string))) (export "error" (type $e (eq $e')))
           (export "get-all" (func (result (result (list (tuple string string)) (error $e)))))"#,
    );
    let call = "(drop (call $f)) unreachable";
    let mut guests = vec![
        command("wasi:clocks/monotonic-clock@0.2.0", &now, "now", "(result i64)", call),
        command("wasi:random/random@0.2.0", &random, "get-random-u64", "(result i64)", call),
        command(
            "wasi:config/store@0.2.0-rc.1",
            config,
            "get-all",
            "(param i32)",
            "(call $f (i32.const 8)) unreachable",
        ),
        command(
            "wasi:cli/environment@0.2.0",
            r#"(export "get-environment" (func (result (list (tuple string string)))))"#,
            "get-environment",
            "(param i32)",
            "(call $f (i32.const 8)) unreachable",
        ),
        // `memory.grow` calls a function of wasmtime itself.
        command(
            "wasi:clocks/monotonic-clock@0.2.0",
            &now,
            "now",
            "(result i64)",
            "(drop (memory.grow (i32.const 1))) unreachable",
        ),
    ];
    let log = "(call $log (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1))";
    let block = "(call $block (call $in (i64.const 0)))";
    for body in [log, PUBLISH, block, "(drop (call $in (i64.const 0)))"] {
        guests.push(guest(&format!("{body} unreachable")).wat());
    }
    for component in guests {
        let spec = Spec { timeout: Duration::ZERO, memory: 1 << 20, ..harness.spec(&component) };
        let outcome = harness.sandbox.load(&spec).await.unwrap().run(harness.call()).await.outcome;
        assert_eq!(outcome, Outcome::Timeout { limit: Duration::ZERO }, "{component}");
    }
}
