//! A guest that exceeds a limit fails, and no other guest does.

use super::*;

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
async fn memory_that_a_guest_asks_for_and_does_not_get_is_not_counted() {
    // The second memory is at its own maximum, so each of the three growths fails.
    let small = "(memory $small 1 1)";
    let grow = "(if (i32.ne (memory.grow $small (i32.const 1)) (i32.const -1)) (then unreachable))".repeat(3);
    let body = format!(
        "{grow} (if (i32.eq (memory.grow 0 (i32.const 1)) (i32.const -1)) (then unreachable)) (i32.const 1024)"
    );
    let attempt = Harness::new().run(&guest_with(small, &body)).await;
    assert_eq!((attempt.outcome, attempt.memory_bytes), (Outcome::Done, 4 * 64 * 1024));
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

#[tokio::test]
async fn creating_resources_without_end_traps() {
    let harness = Harness::new();
    let imports = r#"
      (core module $nothing (func (export "drop") (param i32)))
      (core instance $nothing (instantiate $nothing))
      (alias core export $nothing "drop" (core func $dtor))
      (type $own (resource (rep i32) (dtor (core func $dtor))))
      (core func $new (canon resource.new $own))"#;
    let hoard = Guest { imports, ..guest("(loop (drop (call $new (i32.const 1))) (br 0)) unreachable") };
    // The core module of the template does not import the function, so the import is added here.
    let hoard = hoard
        .wat()
        .replace(
            r#"(import "env" "log""#,
            r#"(import "env" "new" (func $new (param i32) (result i32))) (import "env" "log""#,
        )
        .replace(r#"(export "log" (func $log))"#, r#"(export "new" (func $new)) (export "log" (func $log))"#);
    let function = harness.sandbox.load(&harness.spec(hoard)).await.unwrap();
    let outcome = function.run(harness.call()).await.outcome;
    assert!(matches!(&outcome, Outcome::Trap { message } if message.contains("handle limit exceeded")), "{outcome:?}");
}

#[tokio::test]
async fn lists_that_refer_to_the_same_text_many_times_are_counted_each_time() {
    let harness = Harness::new();
    // 5,000 extensions; the name and the value of each are the same 60,000 bytes.
    let fill = "(local $at i32) (memory.fill (i32.const 0) (i32.const 120) (i32.const 60000))
        (local.set $at (i32.const 65536))
        (loop
          (i32.store (local.get $at) (i32.const 4096))
          (i32.store (i32.add (local.get $at) (i32.const 4)) (i32.const 50000))
          (local.set $at (i32.add (local.get $at) (i32.const 8)))
          (br_if 0 (i32.lt_u (local.get $at) (i32.const 131072))))
        (memory.fill (i32.const 2048) (i32.const 0) (i32.const 96))
        (i32.store (i32.const 2092) (i32.const 65536)) (i32.store (i32.const 2096) (i32.const 4096))";
    let attempt = harness.run(&guest(&format!("{fill} {PUBLISH} {OK}"))).await;
    let Outcome::Trap { message } = attempt.outcome else { panic!("{:?}", attempt.outcome) };
    assert!(message.contains("exhausted"), "{message}");
}
