//! Each way in which a handler ends has its own outcome and message.

use super::*;

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
async fn a_handler_that_calls_exit_traps() {
    let attempt = Harness::new().run(&guest("(call $exit (i32.const 0)) (i32.const 1024)")).await;
    assert_eq!(attempt.outcome, Outcome::Trap { message: "called exit(0); a handler must return instead".into() });
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
