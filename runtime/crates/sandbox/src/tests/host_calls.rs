//! Publishing and logging.

use super::*;

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
