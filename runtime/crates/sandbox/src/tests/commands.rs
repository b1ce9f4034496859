//! Commands: programs for WASI 0.1 and 0.2 that are not written for Evoke.

use super::*;

/// Returns a core module whose `_start` is `body`. The body may call `$say` with a file descriptor, an address and a
/// length.
fn program(fields: &str, body: &str) -> String {
    format!(
        r#"(module
          (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
          (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
          (memory (export "memory") 2)
          (func $say (param $fd i32) (param $at i32) (param $length i32)
            (i32.store (i32.const 0) (local.get $at))
            (i32.store (i32.const 4) (local.get $length))
            (drop (call $write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
          {fields}
          (func (export "_start") {body}))"#
    )
}

/// Returns a program that prints `out` and `err`, and exits with `code`.
fn prints(out: &str, err: &str, code: i32) -> String {
    let escaped = |text: &str| text.bytes().map(|byte| format!("\\{byte:02x}")).collect::<String>();
    program(
        &format!(r#"(data (i32.const 1024) "{}{}")"#, escaped(out), escaped(err)),
        &format!(
            "(call $say (i32.const 1) (i32.const 1024) (i32.const {}))
             (call $say (i32.const 2) (i32.const {}) (i32.const {}))
             (call $exit (i32.const {code}))",
            out.len(),
            1024 + out.len(),
            err.len(),
        ),
    )
}

impl Harness {
    /// Returns the spec of a command, with the additional memory that the adapter needs.
    fn command(&self, program: &str) -> Spec {
        Spec { memory: 1024 * 1024, ..self.spec(program) }
    }

    async fn run_command(&self, program: &str) -> Attempt {
        let function = self.sandbox.load(&self.command(program)).await.unwrap();
        assert_eq!(function.kind(), Kind::Command);
        function.run(self.call()).await
    }

    fn logged(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().map(|line| line.text.clone()).collect()
    }
}

/// Returns a program that copies stdin to stdout.
fn cat() -> String {
    program(
        "",
        "(loop
           (i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const 4096))
           (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
           (if (i32.load (i32.const 8)) (then
             (call $say (i32.const 1) (i32.const 1024) (i32.load (i32.const 8)))
             (br 1))))",
    )
}

#[tokio::test]
async fn a_command_reads_its_event_on_stdin_and_publishes_the_lines_that_it_prints() {
    let harness = Harness::new();
    let grants = Grants { publish: vec!["t".into()], ..Grants::default() };
    let function = harness.sandbox.load(&Spec { grants, ..harness.command(&cat()) }).await.unwrap();
    let attempt = function.run(harness.call()).await;
    assert_eq!(attempt.outcome, Outcome::Done);
    let [event] = &attempt.published[..] else { panic!("{:?}", attempt.published) };
    let (id, source, type_) = (event.id.as_str(), event.source.as_str(), event.type_.as_str());
    assert_eq!((id, source, type_, event.data.as_bytes()), ("1", "/shop/charge", "t", &br#"{"n":1}"#[..]));
    assert!(attempt.memory_bytes >= 2 * 64 * 1024);
}

#[tokio::test]
async fn a_large_event_is_read_and_published_unchanged() {
    let harness = Harness::new();
    let grants = Grants { publish: vec!["t".into()], ..Grants::default() };
    let function = harness.sandbox.load(&Spec { grants, ..harness.command(&cat()) }).await.unwrap();
    let data = "x".repeat(900_000);
    let event = format!(r#"{{"id":"1","source":"/a","type":"t","data":"{data}"}}"#);
    let event = Arc::new(Event::from_json(event.as_bytes(), |_| {}).unwrap());
    let attempt = function.run(Call { event: event.clone(), ..harness.call() }).await;
    assert_eq!(attempt.outcome, Outcome::Done);
    assert_eq!(attempt.published[0].data, event.data);
}

#[tokio::test]
async fn the_exit_code_sets_the_outcome_and_stderr_its_message() {
    let harness = Harness::new();
    let line = r#"{"type":"payment.taken"}"#;
    let retry = |message: &str| Outcome::Retry { message: message.into(), after: None };
    let reject = |message: &str| Outcome::Reject { message: message.into() };
    for (code, err, outcome) in [
        (0, "all is well\n", Outcome::Done),
        (1, "connecting\ngateway down\n\n", retry("gateway down")),
        (1, "gateway \u{1b}[1mdown", retry("gateway \\u{1b}[1mdown")),
        (75, "", retry("exited with code 75")),
        (65, "no such customer\r\n", reject("no such customer")),
        (65, "", reject("exited with code 65")),
    ] {
        let attempt = harness.run_command(&prints(line, err, code)).await;
        assert_eq!(attempt.published.len(), usize::from(code == 0), "{code}");
        assert_eq!(attempt.outcome, outcome);
    }
    assert_eq!(harness.logged()[..3], ["all is well", "connecting", "gateway down"]);
}

#[tokio::test]
async fn lines_may_be_blank_and_the_last_one_needs_no_newline() {
    let lines = "\n{\"type\":\"payment.taken\"}\r\n  \n\n{\"type\":\"payment.taken\",\"data\":[1]}";
    let attempt = Harness::new().run_command(&prints(lines, "", 0)).await;
    let ids: Vec<_> = attempt.published.iter().map(|event| event.id.as_str()).collect();
    assert_eq!((attempt.outcome, ids), (Outcome::Done, vec!["s-7-0", "s-7-1"]));
}

#[tokio::test]
async fn a_line_that_cannot_be_published_ends_the_command_and_is_named() {
    let harness = Harness::new();
    let fine = r#"{"type":"payment.taken"}"#;
    for (lines, reason) in [
        (format!("{fine}\nconnecting...\n"), "line 2 on stdout is not published: not a JSON object"),
        (format!("{fine}\n{{}}\n"), "line 2 on stdout is not published: `type` is missing"),
        (r#"{"type":"order.placed"}"#.to_owned(), r#"`allow: { publish: ["order.placed"] }`"#),
        (
            format!("{fine}\n").repeat(1_001),
            "line 1001 on stdout is not published: an attempt may publish at most 1000",
        ),
    ] {
        let attempt = harness.run_command(&prints(&lines, "", 0)).await;
        let Outcome::Denied { message } = &attempt.outcome else { panic!("{:?}", attempt.outcome) };
        assert!(message.contains(reason), "{message}");
        assert!(attempt.published.is_empty());
    }
    let endless = "(loop (call $say (i32.const 1) (i32.const 1024) (i32.const 65536)) (br 0))";
    let attempt = harness.run_command(&program("", endless)).await;
    let Outcome::Denied { message } = attempt.outcome else { panic!("{:?}", attempt.outcome) };
    assert!(
        message.contains("line 1 on stdout is not published: the line is longer than the limit of 1048576 bytes"),
        "{message}"
    );
}

#[tokio::test]
async fn a_command_that_traps_hangs_or_exceeds_its_memory_has_that_outcome() {
    let harness = Harness::new();
    let attempt = harness.run_command(&program("(func $charge unreachable)", "(call $charge)")).await;
    let Outcome::Trap { message } = attempt.outcome else { panic!("{:?}", attempt.outcome) };
    assert_eq!(message, "wasm `unreachable` instruction executed, in charge");

    let timeout = Duration::from_millis(60);
    let spin = harness.command(&program("", "(loop (br 0))"));
    let function = harness.sandbox.load(&Spec { timeout, ..spin }).await.unwrap();
    assert_eq!(function.run(harness.call()).await.outcome, Outcome::Timeout { limit: timeout });

    let grow = "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then (call $exit (i32.const 1))))";
    let attempt = harness.run_command(&program("", grow)).await;
    assert_eq!(attempt.outcome, Outcome::OutOfMemory { limit_bytes: 1024 * 1024 });
}

#[tokio::test]
async fn configuration_and_secrets_are_environment_variables() {
    let harness = Harness::new();
    let body = "(drop (call $environ (i32.const 64) (i32.const 1024))) (call $say (i32.const 2) (i32.const 1024) (i32.const 23))";
    let grants = Grants {
        config: BTreeMap::from([("CURRENCY".into(), "EUR".into())]),
        secrets: secrets(&[("KEY", "abcdef")]),
        ..Grants::default()
    };
    let function = harness.sandbox.load(&Spec { grants, ..harness.command(&program("", body)) }).await.unwrap();
    assert_eq!(function.run(harness.call()).await.outcome, Outcome::Done);
    assert_eq!(harness.logged(), ["CURRENCY=EUR\\u{0}KEY=[secret KEY]"]);
}

/// Returns a component that exports `wasi:cli/run`. Its `run` returns `result`; 0 stands for `ok`.
fn component(imports: &str, result: i32) -> String {
    format!(
        r#"(component {imports}
          (core module $m (func (export "run") (result i32) (i32.const {result})))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $run (export "run" (func $run)))
          (export "wasi:cli/run@0.2.3" (instance $run)))"#
    )
}

#[tokio::test]
async fn a_component_that_exports_run_is_a_command_and_may_import_sockets() {
    let harness = Harness::new();
    let sockets = r#"(import "wasi:sockets/tcp@0.2.0" (instance))"#;
    assert_eq!(harness.run_command(&component(sockets, 0)).await.outcome, Outcome::Done);
    let failed = Outcome::Retry { message: "exited with code 1".into(), after: None };
    assert_eq!(harness.run_command(&component("", 1)).await.outcome, failed);
    let keyvalue = r#"(import "wasi:keyvalue/store@0.2.0-draft" (instance))"#;
    assert!(harness.refused(component(keyvalue, 0)).await.contains("state must be granted"));
}
