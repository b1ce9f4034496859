//! Every way a guest can end, with hand-written guests that also do what no toolchain would emit.

mod commands;

use std::sync::Mutex;

use super::*;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;

/// Body of a `handle` that returns `ok`.
const OK: &str = "(i32.const 1024)";

#[derive(Clone)]
struct Guest {
    pages: u32,
    imports: &'static str,
    realloc: &'static str,
    lift: &'static str,
    /// True if the guest imports functions that may wait, even if it never calls them; then its attempts are never
    /// direct.
    may_wait: bool,
    core: String,
}

/// Returns a guest whose `handle` has this body. The body leaves the address of its result.
fn guest(body: &str) -> Guest {
    Guest {
        pages: 2,
        imports: "",
        realloc: "",
        lift: "",
        may_wait: ["(call $block", "(call $exit", "(call $in"].iter().any(|call| body.contains(call)),
        core: format!(r#"(func $handle (export "handle") (param i32) (result i32) {body})"#),
    }
}

/// Returns a guest with further fields in its core module.
fn guest_with(fields: &str, body: &str) -> Guest {
    let mut guest = guest(body);
    guest.core.push_str(fields);
    guest
}

impl Guest {
    fn wat(&self) -> String {
        let template = include_str!("guest.wat").lines().filter(|line| self.may_wait || !line.ends_with(";; wasi"));
        let template: Vec<&str> = template.collect();
        template
            .join("\n")
            .replace("{PAGES}", &self.pages.to_string())
            .replace("{IMPORTS}", self.imports)
            .replace("{REALLOC}", self.realloc)
            .replace("{LIFT}", self.lift)
            .replace("{CORE}", &self.core)
    }
}

struct Harness {
    dir: tempfile::TempDir,
    sandbox: Sandbox,
    lines: Arc<Mutex<Vec<LogLine>>>,
}

impl Harness {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sandbox = Sandbox::new(Settings { cache_dir: dir.path().join("cache"), concurrency: 4 }).unwrap();
        Self { dir, sandbox, lines: Arc::default() }
    }

    fn spec(&self, component: impl AsRef<[u8]>) -> Spec {
        let path = self.dir.path().join("guest.wat");
        std::fs::write(&path, component).unwrap();
        Spec {
            name: "shop/charge".into(),
            uri: "/shop/charge".into(),
            component: path,
            digest: None,
            timeout: Duration::from_secs(5),
            memory: 4 * 64 * 1024,
            grants: Grants { publish: vec!["payment.*".into()], ..Grants::default() },
        }
    }

    fn call(&self) -> Call {
        let lines = self.lines.clone();
        Call {
            event: Arc::new(
                Event::from_json(br#"{"id":"1","source":"/a","type":"t","data":{"n":1}}"#, |_| {}).unwrap(),
            ),
            delivery_id: "s-7".into(),
            attempt: 1,
            replay: false,
            trigger: "orders".into(),
            state: None,
            logs: Arc::new(move |line| lines.lock().unwrap().push(line)),
            clock: Clock::system(),
        }
    }

    async fn load(&self, guest: &Guest) -> Arc<Function> {
        self.sandbox.load(&self.spec(guest.wat())).await.unwrap()
    }

    /// Runs a guest. If it can run directly, runs it as an async task too, and checks that both give the same result.
    async fn run(&self, guest: &Guest) -> Attempt {
        let attempt = self.load(guest).await.run(self.call()).await;
        if !guest.may_wait {
            let waiting = Guest { may_wait: true, ..guest.clone() };
            let other = self.load(&waiting).await.run(self.call()).await;
            assert_eq!((&attempt.outcome, attempt.memory_bytes), (&other.outcome, other.memory_bytes));
            assert_eq!(attempt.published.len(), other.published.len());
        }
        attempt
    }

    async fn refused(&self, component: impl AsRef<[u8]>) -> String {
        match self.sandbox.load(&self.spec(component)).await {
            Err(error) => error.to_string(),
            Ok(_) => panic!("the component loads"),
        }
    }
}

/// Returns a guest whose result is a `failure` at address 2048; `fields` are its bytes from the case on.
fn failure(fields: &str) -> Guest {
    guest_with(
        &format!(
            r#"(data (i32.const 2048) "\01\00\00\00\00\00\00\00{fields}") (data (i32.const 3000) "gateway down")"#
        ),
        "(i32.const 2048)",
    )
}

/// Data for a draft at address 2048, with its type at address 3000.
fn draft(type_: &str) -> String {
    let length = u8::try_from(type_.len()).unwrap();
    format!(r#"(data (i32.const 2048) "\b8\0b\00\00\{length:02x}\00\00\00") (data (i32.const 3000) "{type_}")"#)
}

const PUBLISH: &str = "(call $publish (i32.const 2048) (i32.const 4096))";

#[tokio::test]
async fn success_is_done_and_reports_memory_and_duration() {
    let attempt = Harness::new().run(&guest(OK)).await;
    assert_eq!(attempt.outcome, Outcome::Done);
    assert_eq!(attempt.memory_bytes, 2 * 64 * 1024);
    assert!(attempt.duration > Duration::ZERO);
}

#[tokio::test]
async fn a_retry_carries_its_message_and_its_delay() {
    let harness = Harness::new();
    let message = r"\00\00\00\00\00\00\00\00\b8\0b\00\00\0c\00\00\00";
    let by_policy = harness.run(&failure(message)).await;
    assert_eq!(by_policy.outcome, Outcome::Retry { message: "gateway down".into(), after: None });
    let after = harness.run(&failure(&format!(r"{message}\01\00\00\00\00\00\00\00\dc\05\00\00\00\00\00\00"))).await;
    let expected = Outcome::Retry { message: "gateway down".into(), after: Some(Duration::from_millis(1500)) };
    assert_eq!(after.outcome, expected);
}

#[tokio::test]
async fn a_reject_carries_its_message() {
    let attempt = Harness::new().run(&failure(r"\01\00\00\00\00\00\00\00\b8\0b\00\00\07\00\00\00")).await;
    assert_eq!(attempt.outcome, Outcome::Reject { message: "gateway".into() });
}

#[tokio::test]
async fn a_trap_names_its_reason_and_the_innermost_functions() {
    let harness = Harness::new();
    let attempt =
        harness.run(&guest_with("(func $charge_card unreachable)", "(call $charge_card) (i32.const 1024)")).await;
    let Outcome::Trap { message } = attempt.outcome else { panic!("{:?}", attempt.outcome) };
    assert_eq!(message, "wasm `unreachable` instruction executed, in charge_card < handle");
    let attempt = harness.run(&guest_with("(func $deep (call $deep))", "(call $deep) (i32.const 1024)")).await;
    let Outcome::Trap { message } = attempt.outcome else { panic!("{:?}", attempt.outcome) };
    assert_eq!(message, "call stack exhausted, in deep < deep < deep");
    let attempt = harness.run(&guest("(i32.const 0x7ffffff0)")).await;
    assert!(matches!(attempt.outcome, Outcome::Trap { .. }), "{:?}", attempt.outcome);
}

#[tokio::test]
async fn the_deadline_holds_in_loops_around_the_call_and_in_host_calls() {
    let harness = Harness::new();
    let after = r#"(func (export "after") (param i32) (loop (br 0)))"#;
    for guest in [
        Guest { realloc: "(loop (br 0))", ..guest(OK) },
        Guest { lift: r#"(post-return (core func $main "after"))"#, ..guest_with(after, OK) },
        guest("(loop (br 0)) unreachable"),
        guest_with("(func $spin (loop (br 0))) (start $spin)", OK),
        guest(
            "(loop (call $log (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)) (br 0)) unreachable",
        ),
        guest("(call $block (call $in (i64.const 3600000000000))) (i32.const 1024)"),
        guest("(call $block (call $in (i64.const -1))) (i32.const 1024)"),
    ] {
        let timeout = Duration::from_millis(60);
        let function = harness.sandbox.load(&Spec { timeout, ..harness.spec(guest.wat()) }).await.unwrap();
        let attempt = function.run(harness.call()).await;
        assert_eq!(attempt.outcome, Outcome::Timeout { limit: timeout }, "{}", guest.core);
        assert!(attempt.duration < timeout + Duration::from_millis(50), "{:?} {}", attempt.duration, guest.core);
    }
}

#[tokio::test]
async fn a_spinning_guest_yields_to_others_on_the_same_thread() {
    let harness = Harness::new();
    let timeout = Duration::from_secs(2);
    let spin = harness
        .sandbox
        .load(&Spec { timeout, ..harness.spec(guest("(loop (br 0)) unreachable").wat()) })
        .await
        .unwrap();
    let quick = harness.load(&guest(OK)).await;
    let mut spinning = Box::pin(spin.run(harness.call()));
    let neighbour = async {
        for _ in 0..20 {
            assert_eq!(quick.run(harness.call()).await.outcome, Outcome::Done);
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        biased;
        _ = &mut spinning => panic!("the neighbour did not run"),
        () = neighbour => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spinning_guests_that_share_few_threads_all_end_in_time() {
    let harness = Harness::new();
    let timeout = Duration::from_millis(100);
    let spin = guest("(loop (br 0)) unreachable").wat();
    let function = harness.sandbox.load(&Spec { timeout, ..harness.spec(spin) }).await.unwrap();
    let attempts: Vec<_> = (0..4)
        .map(|_| (function.clone(), harness.call()))
        .map(|(function, call)| tokio::spawn(async move { function.run(call).await }))
        .collect();
    for attempt in attempts {
        let attempt = attempt.await.unwrap();
        assert_eq!(attempt.outcome, Outcome::Timeout { limit: timeout });
        assert!(attempt.duration < timeout + Duration::from_millis(50), "{:?}", attempt.duration);
    }
}

#[tokio::test]
async fn a_guest_that_fails_after_refused_memory_is_out_of_memory_and_one_that_copes_is_done() {
    let harness = Harness::new();
    let limit = Outcome::OutOfMemory { limit_bytes: 4 * 64 * 1024 };
    let grow = |pages: i32, then: &str| {
        guest(&format!("(if (i32.eq (memory.grow (i32.const {pages})) (i32.const -1)) (then {then})) (i32.const 1024)"))
    };
    assert_eq!(harness.run(&grow(3, "unreachable")).await.outcome, limit);
    assert_eq!(harness.run(&grow(65_000, "unreachable")).await.outcome, limit);
    assert_eq!(harness.run(&grow(3, "")).await.outcome, Outcome::Done);
    let grown = harness.run(&grow(2, "unreachable")).await;
    assert_eq!((grown.outcome, grown.memory_bytes), (Outcome::Done, 4 * 64 * 1024));
    assert!(
        harness
            .refused(Guest { pages: 5, ..guest(OK) }.wat())
            .await
            .ends_with("needs 320 KiB of memory to start, but its `memory` limit is 256 KiB")
    );
}

#[tokio::test]
async fn published_events_are_returned_only_on_success() {
    let harness = Harness::new();
    let attempt = harness.run(&guest_with(&draft("payment.charged"), &format!("{PUBLISH} {PUBLISH} {OK}"))).await;
    assert_eq!(attempt.outcome, Outcome::Done);
    let ids: Vec<_> = attempt.published.iter().map(|e| (e.id.as_str(), e.type_.as_str(), e.source.as_str())).collect();
    assert_eq!(ids, [("s-7-0", "payment.charged", "/shop/charge"), ("s-7-1", "payment.charged", "/shop/charge")]);
    let attempt = harness.run(&guest_with(&draft("payment.charged"), &format!("{PUBLISH} unreachable"))).await;
    assert!(matches!(attempt.outcome, Outcome::Trap { .. }));
    assert_eq!(attempt.published, []);
}

#[tokio::test]
async fn a_function_that_fails_after_a_refused_publish_is_denied_and_the_message_names_the_grant() {
    let harness = Harness::new();
    let attempt = harness.run(&guest_with(&draft("order.placed"), &format!("{PUBLISH} unreachable"))).await;
    let Outcome::Denied { message } = attempt.outcome else { panic!("{:?}", attempt.outcome) };
    assert!(message.contains(r#"`allow: { publish: ["order.placed"] }`"#), "{message}");
    let attempt = harness.run(&guest_with(&draft("order.placed"), &format!("{PUBLISH} {OK}"))).await;
    assert_eq!((attempt.outcome, attempt.published.len()), (Outcome::Done, 0));
}

#[tokio::test]
async fn publishing_stops_at_the_limit() {
    let storm = format!(
        "(local $n i32) (loop {PUBLISH} (local.set $n (i32.add (local.get $n) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $n) (i32.const 2000)))) {OK}"
    );
    let attempt = Harness::new().run(&guest_with(&draft("payment.charged"), &storm)).await;
    assert_eq!((attempt.outcome, attempt.published.len()), (Outcome::Done, 1_000));
}

#[tokio::test]
async fn log_calls_reach_the_sink() {
    let harness = Harness::new();
    let log = "(call $log (i32.const 3) (i32.const 3000) (i32.const 4) (i32.const 3004) (i32.const 5))";
    harness.run(&guest_with(r#"(data (i32.const 3000) "card\1b[2Jx")"#, &format!("{log} {OK}"))).await;
    let lines = harness.lines.lock().unwrap();
    assert_eq!(
        lines.iter().map(|l| (l.level, l.text.as_str())).collect::<Vec<_>>(),
        [(Level::Warn, "card: \\u{1b}[2Jx"); 2]
    );
}

/// Returns a guest that logs, publishes, and computes for some hundred milliseconds.
fn long() -> Guest {
    let log = "(call $log (i32.const 2) (i32.const 3000) (i32.const 0) (i32.const 3000) (i32.const 7))";
    let compute = "(local.set 1 (i32.const 200000000))
        (loop (br_if 0 (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))";
    let body = format!("(local i32) {log} {PUBLISH} {compute} {log} {OK}");
    guest_with(&draft("payment.done"), &body)
}

#[tokio::test]
async fn an_interrupted_direct_attempt_runs_again_and_is_visible_once() {
    let harness = Harness::new();
    let function = harness.load(&long()).await;
    let function::Entry::Handler(_, Some(direct)) = &function.entry else { panic!("the guest may wait") };
    for _ in 0..2 {
        let attempt = function.run(harness.call()).await;
        assert_eq!((&attempt.outcome, attempt.published.len()), (&Outcome::Done, 1));
        let lines = std::mem::take(&mut *harness.lines.lock().unwrap());
        let lines: Vec<_> = lines.iter().map(|l| (&*l.function, &*l.delivery_id, l.attempt, l.text.as_str())).collect();
        assert_eq!(lines, [("shop/charge", "s-7", 1, "payment"); 2]);
    }
    // The second attempt skipped the direct run.
    assert_eq!(direct.skips_left(), 255);
}

#[test]
fn direct_attempts_beyond_the_instance_limit_all_run() {
    let harness = Harness::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let function = runtime.block_on(harness.load(&long()));
    std::thread::scope(|scope| {
        for _ in 0..4 * std::thread::available_parallelism().unwrap().get() + 4 {
            scope.spawn(|| assert_eq!(runtime.block_on(function.run(harness.call())).outcome, Outcome::Done));
        }
    });
}

#[tokio::test]
async fn a_direct_attempt_wakes_the_ticker() {
    let harness = Harness::new();
    let timeout = Duration::from_millis(60);
    let spin = guest("(loop (br 0)) unreachable").wat();
    let function = harness.sandbox.load(&Spec { timeout, ..harness.spec(spin) }).await.unwrap();
    while !function.shared.ticker.is_asleep() {
        std::thread::yield_now();
    }
    assert_eq!(function.run(harness.call()).await.outcome, Outcome::Timeout { limit: timeout });
}

#[tokio::test]
async fn a_handler_that_calls_exit_traps() {
    let attempt = Harness::new().run(&guest("(call $exit (i32.const 0)) (i32.const 1024)")).await;
    assert_eq!(attempt.outcome, Outcome::Trap { message: "called exit(0); a handler must return instead".into() });
}

#[tokio::test]
async fn huge_strings_invalid_text_and_bad_addresses_trap() {
    let harness = Harness::new();
    for (message, length) in [(3000, 0x7fff_ffff), (3000, -1), (0x7fff_0000, 100)] {
        let log = format!(
            "(call $log (i32.const 3) (i32.const 0) (i32.const 0) (i32.const {message}) (i32.const {length})) {OK}"
        );
        let attempt = harness.run(&guest(&log)).await;
        assert!(matches!(attempt.outcome, Outcome::Trap { .. }), "{:?}", attempt.outcome);
    }
    let log = format!("(call $log (i32.const 9) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)) {OK}");
    assert!(matches!(harness.run(&guest(&log)).await.outcome, Outcome::Trap { .. }));
    let data = r#"(data (i32.const 3000) "\ff\fe")"#;
    let log = format!("(call $log (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 3000) (i32.const 2)) {OK}");
    assert!(matches!(harness.run(&guest_with(data, &log)).await.outcome, Outcome::Trap { .. }));
}

#[tokio::test]
async fn a_result_larger_than_any_event_traps() {
    let harness = Harness::new();
    // A reject with a message of 5 MiB.
    let reject = r"\01\00\00\00\00\00\00\00\b8\0b\00\00\00\00\50\00";
    let guest = Guest { pages: 100, ..failure(reject) };
    let function = harness.sandbox.load(&Spec { memory: 16 << 20, ..harness.spec(guest.wat()) }).await.unwrap();
    let attempt = function.run(harness.call()).await;
    let Outcome::Trap { message } = attempt.outcome else { panic!("{:?}", attempt.outcome) };
    assert!(message.contains("exhausted"), "{message}");
}

#[tokio::test]
async fn hoarding_handles_traps() {
    let hoard = "(loop (drop (call $in (i64.const 1))) (br 0)) unreachable";
    let attempt = Harness::new().run(&guest(hoard)).await;
    assert!(matches!(attempt.outcome, Outcome::Trap { .. }), "{:?}", attempt.outcome);
}

#[tokio::test]
async fn a_panic_of_the_host_ends_only_that_attempt() {
    let harness = Harness::new();
    let log = "(call $log (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 3000) (i32.const 1))";
    let function = harness.load(&guest(&format!("{log} {OK}"))).await;
    let attempt = function.run(Call { logs: Arc::new(|_| panic!("sink gone")), ..harness.call() }).await;
    let Outcome::Unavailable { message } = attempt.outcome else { panic!("{:?}", attempt.outcome) };
    assert!(message.contains("sink gone"), "{message}");
    assert_eq!(function.run(harness.call()).await.outcome, Outcome::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_beyond_the_instance_limit_wait() {
    let harness = Harness::new();
    let function = harness.load(&guest("(call $block (call $in (i64.const 1000000))) (i32.const 1024)")).await;
    let attempts: Vec<_> = (0..40)
        .map(|_| (function.clone(), harness.call()))
        .map(|(function, call)| tokio::spawn(async move { function.run(call).await.outcome }))
        .collect();
    for attempt in attempts {
        assert_eq!(attempt.await.unwrap(), Outcome::Done);
    }
}

#[tokio::test]
async fn a_dropped_attempt_frees_its_instance() {
    let harness = Harness::new();
    let function = harness.load(&guest("(call $block (call $in (i64.const -1))) (i32.const 1024)")).await;
    for _ in 0..20 {
        let mut attempt = Box::pin(function.run(harness.call()));
        assert!(futures_util::poll!(&mut attempt).is_pending());
    }
    assert_eq!(harness.run(&guest(OK)).await.outcome, Outcome::Done);
}

#[tokio::test]
async fn imports_without_a_grant_are_reported_at_load() {
    let harness = Harness::new();
    let imports =
        r#"(import "wasi:keyvalue/store@0.2.0-draft" (instance)) (import "wasi:sockets/tcp@0.2.0" (instance))"#;
    let error = harness.refused(Guest { imports, ..guest(OK) }.wat()).await;
    let lines: Vec<_> = error.lines().collect();
    assert!(lines[0].ends_with("guest.wat has imports that are not granted:"), "{error}");
    assert!(lines[1].starts_with("  `wasi:keyvalue/store@0.2.0-draft`: state must be granted"), "{error}");
    assert!(lines[2].starts_with("  `wasi:sockets/tcp@0.2.0`: raw sockets are never granted"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_not_a_function_is_rejected_with_the_reason() {
    let harness = Harness::new();
    for (component, reason) in [
        (&b"\0asm\x01\0\0\0"[..], "is a core module without `_start`, so it is not a program"),
        (b" (module)", "is a core module without `_start`, so it is not a program"),
        (b"\0asm\x02\0\0\0", "has an unknown WebAssembly version"),
        (b"\x7fELF\0\0\0\0\0\0", "is not WebAssembly"),
        (b"", "is not WebAssembly"),
        // A component with one module whose header declares 1,000,000 functions.
        (b"\0asm\x0d\0\x01\0\x01\x0d\0asm\x01\0\0\0\x03\x03\xc0\x84\x3d", "has 1000000 functions; the limit is 100000"),
        (b"(component (core module $m) (core", "is not a valid component"),
        (
            b"(component)",
            "exports nothing; a function exports evoke:function/handler@0.1.0, wasi:http/incoming-handler@0.2 or wasi:cli/run@0.2",
        ),
    ] {
        let error = harness.refused(component).await;
        assert!(error.contains(reason), "{error}");
    }
    let other = Spec { digest: Some("00".repeat(32)), ..harness.spec("(component)") };
    assert!(matches!(harness.sandbox.load(&other).await, Err(LoadError::Digest { .. })));
    let missing = Spec { component: "/nowhere/x.wasm".into(), ..harness.spec("") };
    assert!(matches!(harness.sandbox.load(&missing).await, Err(LoadError::Read { .. })));
}

#[tokio::test]
async fn a_component_with_too_many_parts_is_rejected_or_fails_alone() {
    let harness = Harness::new();
    let tables: String = (0..9).map(|n| format!("(table $t{n} 1 funcref)")).collect();
    let instances = "(core module $x) ".to_owned() + &"(core instance (instantiate $x))".repeat(100);
    let huge_table = guest_with("(table 100000000 funcref)", OK);
    for guest in [guest_with(&tables, OK), Guest { imports: instances.leak(), ..guest(OK) }, huge_table] {
        match harness.sandbox.load(&harness.spec(guest.wat())).await {
            Err(error) => assert!(error.to_string().contains("exceeds"), "{error}"),
            Ok(function) => assert_ne!(function.run(harness.call()).await.outcome, Outcome::Done),
        }
    }
    let storm = guest_with(
        "(table $t 1 funcref)",
        "(if (i32.ne (table.grow $t (ref.null func) (i32.const 1000000)) (i32.const -1)) (then unreachable)) (i32.const 1024)",
    );
    assert_eq!(harness.run(&storm).await.outcome, Outcome::Done);
}

#[test]
fn secrets_are_not_in_debug_output() {
    let secrets = BTreeMap::from([("API_KEY".to_owned(), "hunter2".to_owned())]);
    let shown = format!("{:?}", Grants { secrets, ..Grants::default() });
    assert!(shown.contains("API_KEY") && !shown.contains("hunter2"), "{shown}");
}
