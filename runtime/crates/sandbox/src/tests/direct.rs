//! Direct attempts (`direct.rs`): they run on the caller's thread and cannot wait.

use super::*;
use crate::function::Entry;

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
    let Entry::Handler(_, Some(direct)) = &function.entry else { panic!("the guest cannot run directly") };
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
