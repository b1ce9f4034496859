//! Components made of several components, which pass handles and flags to each other, and guests that are called again
//! after a trap.

use super::*;

impl Harness {
    async fn outcome(&self, component: &str) -> Outcome {
        self.sandbox.load(&self.spec(component)).await.unwrap().run(self.call()).await.outcome
    }

    /// Runs a guest that must trap. Returns the message.
    async fn trap(&self, component: &str) -> String {
        match self.outcome(component).await {
            Outcome::Trap { message } => message,
            other => panic!("{other:?}"),
        }
    }
}

/// A command in which one component lends a resource to another: `$main` gets the resource from `$owner` and passes it
/// to `$borrower`.
fn lends(borrower: &str) -> String {
    r#"(component
      (component $owner
        (type $r' (resource (rep i32)))
        (export $r "r" (type $r'))
        (core func $new (canon resource.new $r'))
        (core module $m
          (import "" "new" (func $new (param i32) (result i32)))
          (func (export "make") (result i32) (call $new (i32.const 7))))
        (core instance $i (instantiate $m (with "" (instance (export "new" (func $new))))))
        (func (export "make") (result (own $r)) (canon lift (core func $i "make"))))
      (component $borrower
        (import "r" (type $r (sub resource)))
        (core func $drop (canon resource.drop $r))
        (core module $m
          (import "" "drop" (func $drop (param i32)))
          (func (export "take") (param i32) {BORROWER}))
        (core instance $i (instantiate $m (with "" (instance (export "drop" (func $drop))))))
        (func (export "take") (param "r" (borrow $r)) (canon lift (core func $i "take"))))
      (component $main
        (import "r" (type $r (sub resource)))
        (import "make" (func $make (result (own $r))))
        (import "take" (func $take (param "r" (borrow $r))))
        (core func $make (canon lower (func $make)))
        (core func $take (canon lower (func $take)))
        (core module $m
          (import "" "make" (func $make (result i32)))
          (import "" "take" (func $take (param i32)))
          (func (export "run") (result i32) (call $take (call $make)) (i32.const 0)))
        (core instance $i (instantiate $m (with "" (instance
          (export "make" (func $make)) (export "take" (func $take))))))
        (func (export "run") (result (result)) (canon lift (core func $i "run"))))
      (instance $owner (instantiate $owner))
      (alias export $owner "r" (type $r))
      (instance $borrower (instantiate $borrower (with "r" (type $r))))
      (instance $main (instantiate $main (with "r" (type $r))
        (with "make" (func $owner "make")) (with "take" (func $borrower "take"))))
      (instance $run (export "run" (func $main "run")))
      (export "wasi:cli/run@0.2.3" (instance $run)))"#
        .replace("{BORROWER}", borrower)
}

#[tokio::test]
async fn a_borrow_that_is_not_returned_traps() {
    let harness = Harness::new();
    assert_eq!(harness.outcome(&lends("(call $drop (local.get 0))")).await, Outcome::Done);
    let message = harness.trap(&lends("")).await;
    assert!(message.contains("borrow handles still remain"), "{message}");
    let message = harness.trap(&lends("(call $drop (local.get 0)) (call $drop (local.get 0))")).await;
    assert!(message.contains("unknown handle index"), "{message}");
}

#[tokio::test]
async fn undefined_bits_of_flags_reach_no_other_component() {
    let harness = Harness::new();
    for (count, undefined) in [(5, 0xffff_ffe0_u32), (12, 0xffff_f000), (31, 0x8000_0000)] {
        let labels: String = (0..count).map(|n| format!(r#""l{n}" "#)).collect();
        let component = format!(
            r#"(component
              (component $reader
                (type $flags' (flags {labels}))
                (export $flags "f" (type $flags'))
                (core module $m (func (export "take") (param i32)
                  (if (i32.and (local.get 0) (i32.const {undefined})) (then unreachable))))
                (core instance $i (instantiate $m))
                (func (export "take") (param "f" $flags) (canon lift (core func $i "take"))))
              (component $main
                (type $flags' (flags {labels}))
                (import "f" (type $flags (eq $flags')))
                (import "take" (func $take (param "f" $flags)))
                (core func $take (canon lower (func $take)))
                (core module $m
                  (import "" "take" (func $take (param i32)))
                  (func (export "run") (result i32) (call $take (i32.const -1)) (i32.const 0)))
                (core instance $i (instantiate $m (with "" (instance (export "take" (func $take))))))
                (func (export "run") (result (result)) (canon lift (core func $i "run"))))
              (instance $reader (instantiate $reader))
              (alias export $reader "f" (type $f))
              (instance $main (instantiate $main (with "f" (type $f)) (with "take" (func $reader "take"))))
              (instance $run (export "run" (func $main "run")))
              (export "wasi:cli/run@0.2.3" (instance $run)))"#
        );
        assert_eq!(harness.outcome(&component).await, Outcome::Done, "{count} flags");
    }
}

/// Only functions of `wasi:filesystem` take flags from a guest, and they need a descriptor, which no guest has.
#[tokio::test]
async fn undefined_bits_of_flags_for_the_host_do_no_harm() {
    let errors = [
        "access would-block already bad-descriptor busy deadlock quota exist file-too-large illegal-byte-sequence",
        "in-progress interrupted invalid io is-directory loop too-many-links message-size name-too-long no-device",
        "no-entry no-lock insufficient-memory insufficient-space not-directory not-empty not-recoverable unsupported",
        "no-tty no-such-device overflow not-permitted pipe read-only invalid-seek text-file-busy cross-device",
    ];
    let errors: String = errors.join(" ").split(' ').map(|name| format!(r#""{name}" "#)).collect();
    let component = format!(
        r#"(component
          (core module $memory (memory (export "memory") 1))
          (core instance $memory (instantiate $memory))
          (alias core export $memory "memory" (core memory $mem))
          (import "wasi:filesystem/types@0.2.0" (instance $files
            (export "descriptor" (type $descriptor (sub resource)))
            (type $error' (enum {errors}))
            (export "error-code" (type $error (eq $error')))
            (type $path' (flags "symlink-follow"))
            (export "path-flags" (type $path (eq $path')))
            (type $open' (flags "create" "directory" "exclusive" "truncate"))
            (export "open-flags" (type $open (eq $open')))
            (type $flags' (flags "read" "write" "file-integrity-sync" "data-integrity-sync" "requested-write-sync"
              "mutate-directory"))
            (export "descriptor-flags" (type $flags (eq $flags')))
            (export "[method]descriptor.open-at" (func (param "self" (borrow $descriptor)) (param "path-flags" $path)
              (param "path" string) (param "open-flags" $open) (param "flags" $flags)
              (result (result (own $descriptor) (error $error)))))))
          (core func $open (canon lower (func $files "[method]descriptor.open-at") (memory $mem)))
          (core module $m
            (import "" "memory" (memory 1))
            (import "" "open" (func $open (param i32 i32 i32 i32 i32 i32 i32)))
            (func (export "run") (result i32)
              (call $open (i32.const 1) (i32.const -1) (i32.const 0) (i32.const 1) (i32.const -1) (i32.const -1)
                (i32.const 64))
              (i32.const 0)))
          (core instance $i (instantiate $m (with "" (instance
            (export "memory" (memory $mem)) (export "open" (func $open))))))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $run (export "run" (func $run)))
          (export "wasi:cli/run@0.2.3" (instance $run)))"#
    );
    let message = Harness::new().trap(&component).await;
    assert!(message.contains("unknown handle index"), "{message}");
}

#[tokio::test]
async fn a_component_that_calls_the_one_around_it_or_within_it_traps() {
    let harness = Harness::new();
    let inner = r#"(component $inner
        (import "f" (func $f))
        (core func $f (canon lower (func $f)))
        (core module $m
          (import "" "f" (func $f))
          (func (export "call") (call $f))
          (func (export "run") (result i32) (call $f) (i32.const 0)))
        (core instance $i (instantiate $m (with "" (instance (export "f" (func $f))))))
        (func (export "call") (canon lift (core func $i "call")))
        (func (export "run") (result (result)) (canon lift (core func $i "run"))))
      (core module $target (func (export "f")))
      (core instance $target (instantiate $target))
      (func $f (canon lift (core func $target "f")))
      (instance $inner (instantiate $inner (with "f" (func $f))))"#;
    let outwards = format!(
        r#"(component {inner}
          (instance $run (export "run" (func $inner "run")))
          (export "wasi:cli/run@0.2.3" (instance $run)))"#
    );
    let inwards_and_back = format!(
        r#"(component {inner}
          (core func $call (canon lower (func $inner "call")))
          (core module $m
            (import "" "call" (func $call))
            (func (export "run") (result i32) (call $call) (i32.const 0)))
          (core instance $i (instantiate $m (with "" (instance (export "call" (func $call))))))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $run (export "run" (func $run)))
          (export "wasi:cli/run@0.2.3" (instance $run)))"#
    );
    for component in [outwards, inwards_and_back] {
        let message = harness.trap(&component).await;
        assert!(message.contains("cannot enter component instance"), "{message}");
    }
}

/// An instance that has trapped is never called again: its globals and its memory are gone.
#[tokio::test]
async fn each_attempt_after_a_trap_gets_a_fresh_instance() {
    let harness = Harness::new();
    let traps_first = guest_with(
        "(global $calls (mut i32) (i32.const 0))",
        &format!(
            "(if (i32.eqz (i32.or (global.get $calls) (i32.load (i32.const 8))))
               (then (global.set $calls (i32.const 1)) (i32.store (i32.const 8) (i32.const 1)) unreachable)) {OK}"
        ),
    );
    for may_wait in [false, true] {
        let function = harness.load(&Guest { may_wait, ..traps_first.clone() }).await;
        for _ in 0..20 {
            let outcome = function.run(harness.call()).await.outcome;
            assert!(matches!(outcome, Outcome::Trap { .. }), "{outcome:?}");
        }
    }
}

#[tokio::test]
async fn tail_calls_between_functions_are_rejected_and_calls_end_at_the_stack_limit() {
    let harness = Harness::new();
    let ping_pong = |call: &str| {
        let functions = format!("(func $ping ({call} $pong)) (func $pong ({call} $ping))");
        guest_with(&functions, &format!("(call $ping) {OK}")).wat()
    };
    let error = harness.refused(ping_pong("return_call")).await;
    assert!(error.contains("needs the WebAssembly proposal `tail-call`"), "{error}");
    let message = harness.trap(&ping_pong("call")).await;
    assert!(message.contains("call stack exhausted"), "{message}");
}

#[tokio::test]
async fn a_component_that_starts_with_four_gigabytes_of_memory_is_rejected() {
    let error = Harness::new().refused(Guest { pages: 65_536, ..guest(OK) }.wat()).await;
    assert!(error.contains("needs 4194304 KiB of memory to start, but its `memory` limit is 256 KiB"), "{error}");
}

/// Returns a command that runs `body`, which can wait for an instant (`$at`) and for a duration (`$in`).
fn waits(body: &str) -> String {
    format!(
        r#"(component
        (import "wasi:io/poll@0.2.0" (instance $poll
          (export "pollable" (type $pollable (sub resource)))
          (export "[method]pollable.block" (func (param "self" (borrow $pollable))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
          (alias outer 1 $pollable (type $pollable'))
          (export "pollable" (type $pollable (eq $pollable')))
          (export "subscribe-instant" (func (param "when" u64) (result (own $pollable))))
          (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
        (core func $block (canon lower (func $poll "[method]pollable.block")))
        (core func $at (canon lower (func $clock "subscribe-instant")))
        (core func $in (canon lower (func $clock "subscribe-duration")))
        (core module $m
          (import "" "block" (func $block (param i32)))
          (import "" "at" (func $at (param i64) (result i32)))
          (import "" "in" (func $in (param i64) (result i32)))
          (func (export "run") (result i32) (local $h i32) {body} (i32.const 0)))
        (core instance $i (instantiate $m (with "" (instance
          (export "block" (func $block)) (export "at" (func $at)) (export "in" (func $in))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.3" (instance $run)))"#
    )
}

/// The clocks of WASI 0.2 count nanoseconds in 64 bits, so the longest wait ends after 584 years.
#[tokio::test]
async fn waits_without_end_and_waits_of_zero_end_at_the_deadline() {
    let harness = Harness::new();
    let timeout = Duration::from_millis(60);
    for body in [
        "(call $block (call $at (i64.const -1)))",
        "(call $block (call $at (i64.const 9223372036854775807)))",
        "(call $block (call $in (i64.const -1)))",
        "(local.set $h (call $in (i64.const 0))) (loop (call $block (local.get $h)) (br 0))",
        "(local.set $h (call $at (i64.const 0))) (loop (call $block (local.get $h)) (br 0))",
    ] {
        let function = harness.sandbox.load(&Spec { timeout, ..harness.spec(waits(body)) }).await.unwrap();
        let attempt = function.run(harness.call()).await;
        assert_eq!(attempt.outcome, Outcome::Timeout { limit: timeout }, "{body}");
        assert!(attempt.duration < timeout + Duration::from_secs(5), "{:?} {body}", attempt.duration);
    }
    let spin = "(local.set $h (call $in (i64.const 0))) (loop (call $block (local.get $h)) (br 0))";
    let long = Spec { timeout: Duration::from_secs(2), ..harness.spec(waits(spin)) };
    let spin = harness.sandbox.load(&long).await.unwrap();
    harness.assert_neighbour_runs_beside(&spin).await;
}
