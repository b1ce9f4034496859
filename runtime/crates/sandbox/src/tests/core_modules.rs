//! Core modules that are handlers and contain no WIT. The compilers of Go and C build such modules without further
//! tools.

use super::*;

/// Returns a module that exports a handler with this body. The body must leave the address of its result on the stack.
/// Zeros at address 1024 are the result `ok`.
fn module(imports: &str, body: &str) -> String {
    format!(
        r#"(module
          {imports}
          (memory (export "memory") 4)
          (data (i32.const 8) "hello")
          (global $next (mut i32) (i32.const 4096))
          (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $next))
            (global.set $next (i32.and (i32.add (i32.add (local.get $at) (local.get 3)) (i32.const 7)) (i32.const -8)))
            (local.get $at))
          (func (export "evoke:function/handler@0.1.0#handle") (param i32) (result i32) {body}))"#
    )
}

const LOG: &str = r#"(import "wasi:logging/logging@0.1.0-draft" "log" (func $log (param i32 i32 i32 i32 i32)))"#;
const EXIT: &str = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))"#;

impl Harness {
    async fn run_module(&self, module: &str) -> Attempt {
        let spec = Spec { memory: 1024 * 1024, ..self.spec(module) };
        let function = self.sandbox.load(&spec).await.unwrap();
        assert_eq!(function.kind(), Kind::Handler);
        function.run(self.call()).await
    }
}

#[tokio::test]
async fn a_core_module_that_exports_the_handler_needs_no_wit() {
    let harness = Harness::new();
    let body = "(call $log (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 5)) (i32.const 1024)";
    let attempt = harness.run_module(&module(LOG, body)).await;
    assert_eq!(attempt.outcome, Outcome::Done);
    assert_eq!(harness.lines.lock().unwrap()[0].text, "hello");
}

#[tokio::test]
async fn the_event_and_the_result_of_such_a_module_have_the_types_of_the_contract() {
    let harness = Harness::new();
    // The first field of the event is its id, "1". A reject has a tag of 1 at byte 0 and at byte 8, then the message.
    let body = "(i32.store8 (i32.const 1024) (i32.const 1)) (i32.store8 (i32.const 1032) (i32.const 1))
                (i32.store (i32.const 1040) (i32.load (local.get 0)))
                (i32.store (i32.const 1044) (i32.load offset=4 (local.get 0)))
                (i32.const 1024)";
    let attempt = harness.run_module(&module("", body)).await;
    assert_eq!(attempt.outcome, Outcome::Reject { message: "1".into() });
}

#[tokio::test]
async fn a_handler_that_exits_is_a_trap_with_the_panic_of_its_language() {
    let harness = Harness::new();
    let exit = "(call $exit (i32.const 2)) (i32.const 1024)";
    let attempt = harness.run_module(&module(EXIT, exit)).await;
    assert_eq!(attempt.outcome, Outcome::Trap { message: "called exit(1); a handler must return instead".into() });

    // Prints "fatal error: hello\n" before the exit.
    let text = "fatal error: hello\\n";
    let print = format!(
        r#"(i32.store (i32.const 64) (i32.const 100)) (i32.store (i32.const 68) (i32.const 19))
           (drop (call $write (i32.const 2) (i32.const 64) (i32.const 1) (i32.const 72))) {exit}"#
    );
    let with_text =
        module(EXIT, &print).replace(r#""hello")"#, &format!(r#""hello") (data (i32.const 100) "{text}")"#));
    let attempt = harness.run_module(&with_text).await;
    assert_eq!(attempt.outcome, Outcome::Trap { message: "fatal error: hello".into() });
}

#[tokio::test]
async fn the_panic_of_a_handler_that_exits_is_bounded_and_escaped() {
    // Prints two long lines of escape characters, and exits. The lines are in a part of the memory that no allocation
    // reaches.
    let body = r#"(memory.fill (i32.const 262156) (i32.const 0x1b) (i32.const 65000))
        (i32.store8 (i32.const 327156) (i32.const 10))
        (i32.store (i32.const 64) (i32.const 262144)) (i32.store (i32.const 68) (i32.const 65013))
        (drop (call $write (i32.const 2) (i32.const 64) (i32.const 1) (i32.const 72)))
        (i32.store (i32.const 64) (i32.const 262156)) (i32.store (i32.const 68) (i32.const 65001))
        (drop (call $write (i32.const 2) (i32.const 64) (i32.const 1) (i32.const 72)))
        (call $exit (i32.const 1)) (i32.const 1024)"#;
    let text = r#""hello") (data (i32.const 262144) "panicked at ")"#;
    let module = module(EXIT, body).replace(r#""hello")"#, text).replace("\"memory\") 4)", "\"memory\") 8)");
    let attempt = Harness::new().run_module(&module).await;
    let Outcome::Trap { message } = attempt.outcome else { panic!("{:?}", attempt.outcome) };
    assert!(message.starts_with(r"panicked at \u{1b}") && message.len() <= 4 * 1024 + '…'.len_utf8(), "{message}");
    assert!(!message.contains(char::is_control), "{message}");
}

#[tokio::test]
async fn a_core_module_with_an_import_of_no_known_interface_is_rejected() {
    let harness = Harness::new();
    let unknown = r#"(import "acme:thing/api" "f" (func))"#;
    let error = harness.refused(module(unknown, "(i32.const 1024)")).await;
    assert!(error.contains("cannot be converted to a component") && error.contains("acme:thing/api"), "{error}");
}

#[tokio::test]
async fn a_core_module_imports_state_only_with_its_grant() {
    let harness = Harness::new();
    let open = r#"(import "wasi:keyvalue/store@0.2.0-draft" "open" (func $open (param i32 i32 i32)))"#;
    let body = "(call $open (i32.const 0) (i32.const 0) (i32.const 512)) (i32.const 1024)";
    let error = harness.refused(module(open, body)).await;
    assert!(error.contains("state must be granted") && !error.contains("atomics"), "{error}");
}
