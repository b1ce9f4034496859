//! HTTP components that use more than their limits allow.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};

use super::*;

/// Returns an HTTP component whose `handle` has this body.
fn http_guest(body: &str) -> String {
    let core = format!(r#"(func (export "handle") (param i32 i32) (local $n i32) (local $h i32) {body})"#);
    include_str!("../http_guest.wat").replace("{CORE}", &core)
}

/// Returns code that runs `body` 2,000 times.
fn repeat(body: &str) -> String {
    format!(
        "(loop {body} (local.set $n (i32.add (local.get $n) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $n) (i32.const 2000))))"
    )
}

impl Harness {
    async fn load_http(&self, body: &str, timeout: Duration) -> Arc<Function> {
        let spec = Spec { memory: 8 << 20, timeout, ..self.spec(http_guest(body)) };
        let function = self.sandbox.load(&spec).await.unwrap();
        assert_eq!(function.kind(), Kind::Http);
        function
    }

    async fn request(&self, function: &Arc<Function>) -> Outcome {
        let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
        let request = http::Request::builder().uri("http://a.example/").body(body).unwrap();
        let lines = self.lines.clone();
        let call = HttpCall {
            request,
            trace: None,
            hops: 0,
            id: "r-1".into(),
            held: Box::new(()),
            logs: Arc::new(move |line| lines.lock().unwrap().push(line)),
            clock: Clock::system(),
        };
        match function.call_http(call).await {
            Ok(_) => Outcome::Done,
            Err(outcome) => outcome,
        }
    }

    /// Runs an HTTP component that must trap. Returns the message.
    async fn http_trap(&self, body: &str) -> String {
        let function = self.load_http(body, Duration::from_secs(5)).await;
        match self.request(&function).await {
            Outcome::Trap { message } => message,
            other => panic!("{other:?}"),
        }
    }
}

/// Code that makes fields with one field of 100 KB.
const LARGE_FIELDS: &str = r#"(local.set $h (call $fields))
    (call $append (local.get $h) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 100000) (i32.const 8))"#;
const FILL: &str = "(memory.fill (i32.const 0) (i32.const 120) (i32.const 2000000))";

#[tokio::test]
async fn fields_requests_and_bodies_that_the_host_holds_are_bounded() {
    let harness = Harness::new();
    for body in [
        repeat(LARGE_FIELDS),
        format!("{LARGE_FIELDS} {}", repeat("(drop (call $clone (local.get $h)))")),
        repeat("(drop (call $method (call $request (call $fields)) (i32.const 9) (i32.const 0) (i32.const 2000000)))"),
        repeat("(call $body (call $response (call $fields)) (i32.const 8))"),
    ] {
        let message = harness.http_trap(&format!("{FILL} {body}")).await;
        assert!(message.contains("HTTP headers and bodies) exceed the limit of 4 MiB"), "{message}");
    }
    // Fields without contents reach the limit on handles before that on bytes.
    let message = harness.http_trap(&repeat("(drop (call $fields))")).await;
    assert!(message.contains("resource table"), "{message}");
}

#[tokio::test]
async fn a_write_beyond_what_check_write_permits_traps() {
    let write = "(call $write (call $stderr) (i32.const 0) (i32.const 2000000) (i32.const 8))";
    let message = Harness::new().http_trap(&format!("{FILL} {write}")).await;
    assert!(message.contains("wrote 2000000 bytes to a stream in one call; `check-write` permits 65536"), "{message}");
}

#[tokio::test]
async fn a_function_that_sets_no_response_has_the_reason_in_its_log() {
    let harness = Harness::new();
    let message = harness.http_trap("").await;
    assert_eq!(message, "the function returned without setting a response");
    let lines = harness.lines.lock().unwrap();
    assert!(lines.iter().any(|line| line.level == Level::Error && line.text.contains(&message)), "{lines:?}");
}

#[tokio::test]
async fn empty_writes_without_end_stop_at_the_deadline() {
    let harness = Harness::new();
    let flood = "(local.set $h (call $stderr))
        (loop (call $write (local.get $h) (i32.const 0) (i32.const 0) (i32.const 8)) (br 0))";
    let timeout = Duration::from_millis(60);
    let function = harness.load_http(flood, timeout).await;
    let started = Instant::now();
    assert_eq!(harness.request(&function).await, Outcome::Timeout { limit: timeout });
    assert!(started.elapsed() < timeout + Duration::from_secs(2), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_an_instance_and_responding_share_one_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let settings = Settings { cache_dir: None, compiler: Compiler::in_process(), concurrency: 1 };
    let harness = Harness { dir, sandbox: Sandbox::new(settings).unwrap(), lines: Arc::default() };
    let timeout = Duration::from_millis(200);
    let spin = harness.load_http("(loop (br 0))", timeout).await;
    let started = Instant::now();
    // The second request gets the only instance when the first request ends, which is at the deadline of the first.
    let both = futures_util::future::join(harness.request(&spin), harness.request(&spin));
    both.await;
    assert!(started.elapsed() < timeout + Duration::from_millis(80), "{:?}", started.elapsed());
}

#[tokio::test]
async fn fields_of_a_command_count_towards_its_handles() {
    let harness = Harness::new();
    let command = r#"(component
        (import "wasi:http/types@0.2.0" (instance $types
          (export "fields" (type $fields (sub resource)))
          (export "[constructor]fields" (func (result (own $fields))))))
        (core func $fields (canon lower (func $types "[constructor]fields")))
        (core module $m
          (import "" "fields" (func $fields (result i32)))
          (func (export "run") (result i32) (loop (drop (call $fields)) (br 0)) (i32.const 0)))
        (core instance $i (instantiate $m (with "" (instance (export "fields" (func $fields))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.3" (instance $run)))"#;
    let function = harness.sandbox.load(&Spec { memory: 1 << 20, ..harness.spec(command) }).await.unwrap();
    let Outcome::Trap { message } = function.run(harness.call()).await.outcome else { panic!("no trap") };
    assert!(message.contains("no free keys"), "{message}");
}
