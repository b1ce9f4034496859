//! Deadlines, and many attempts on few threads and instances.

use super::*;

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
        // Usually, an attempt ends a tick after its time-out. The bound here is for a machine that is busy with other
        // work.
        assert!(attempt.duration < timeout + Duration::from_secs(2), "{:?} {}", attempt.duration, guest.core);
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
    harness.assert_neighbour_runs_beside(&spin).await;
}

#[tokio::test]
async fn one_operation_on_much_memory_yields_to_others_and_ends_at_the_deadline() {
    const BYTES: u32 = 512 << 20;
    let harness = Harness::new();
    let fill = format!("(memory.fill (i32.const 0) (i32.const 0) (i32.const {BYTES}))");
    let copy = format!("(memory.copy (i32.const 0) (i32.const {0}) (i32.const {0}))", BYTES / 2);
    let spec = |body: String| {
        let guest = Guest { pages: BYTES / 65_536, ..guest(&body) };
        Spec { memory: u64::from(BYTES), ..harness.spec(guest.wat()) }
    };
    for operation in [&fill, &copy] {
        let function = harness.sandbox.load(&spec(format!("{operation} (i32.const 1024)"))).await.unwrap();
        harness.assert_neighbour_runs_beside(&function).await;
    }
    let timeout = Duration::from_millis(20);
    let long = spec(format!("{fill} (i32.const 1024)"));
    let function = harness.sandbox.load(&Spec { timeout, ..long }).await.unwrap();
    assert_eq!(function.run(harness.call()).await.outcome, Outcome::Timeout { limit: timeout });
}

#[tokio::test]
async fn copies_of_a_large_data_segment_yield_to_others() {
    const BYTES: usize = 60 << 20;
    let harness = Harness::new();
    // Far fewer copies than the number of times that the neighbour must run, because other tasks run between copies.
    let copies = format!("(memory.init $large (i32.const 4096) (i32.const 0) (i32.const {BYTES}))").repeat(10);
    let segment = format!(r#"(data $large "{}")"#, "x".repeat(BYTES));
    let guest = Guest { pages: BYTES as u32 / 65_536 + 1, ..guest_with(&segment, &format!("{copies} {OK}")) };
    let spec = Spec { memory: 64 << 20, ..harness.spec(wat::parse_str(guest.wat()).unwrap()) };
    let function = harness.sandbox.load(&spec).await.unwrap();
    harness.assert_neighbour_runs_beside(&function).await;
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
        assert!(attempt.duration < timeout + Duration::from_secs(2), "{:?}", attempt.duration);
    }
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
