//! Warm instances (`warm_pool.rs`): their memory stays allocated when an attempt ends.

use super::*;

/// Pages of the memory of these guests.
const PAGES: u32 = 24;
const BYTES: u32 = PAGES * 64 * 1024;
/// The address and the size of the data of these guests. Data of this size are enough for warm instances.
const DATA_AT: u32 = 1024 * 1024;
const DATA_BYTES: u32 = 256 * 1024;

/// Returns the component of a guest whose memory is large, and initially contains this letter `data_bytes` times.
fn large(guest: Guest, letter: char, data_bytes: u32) -> String {
    let text = letter.to_string().repeat(data_bytes as usize);
    let data = format!(r#"(data (i32.const {DATA_AT}) "{text}") (global $next"#);
    Guest { pages: PAGES, ..guest }.wat().replacen("(global $next", &data, 1)
}

/// Returns a guest that checks its memory beyond the first page, and then overwrites all of it. It traps if a byte does
/// not have its initial value.
fn scan_and_fill(letter: char) -> Guest {
    let data = u64::from_le_bytes([letter as u8; 8]);
    let body = format!(
        "(local i32 i64)
        (local.set 1 (i32.const 65536))
        (loop
          (local.set 2 (if (result i64) (i32.lt_u (i32.sub (local.get 1) (i32.const {DATA_AT})) (i32.const {DATA_BYTES}))
            (then (i64.const {data})) (else (i64.const 0))))
          (if (i64.ne (local.get 2) (i64.load (local.get 1))) (then unreachable))
          (local.set 1 (i32.add (local.get 1) (i32.const 8)))
          (br_if 0 (i32.lt_u (local.get 1) (i32.const {BYTES}))))
        (memory.fill (i32.const 65536) (i32.const 255) (i32.const {})) {OK}",
        BYTES - 65_536
    );
    guest(&body)
}

async fn load(harness: &Harness, component: String) -> Arc<Function> {
    harness.sandbox.load(&Spec { memory: 16 << 20, ..harness.spec(component) }).await.unwrap()
}

#[tokio::test]
async fn a_warm_instance_shows_no_byte_of_the_attempts_before() {
    let harness = Harness::new();
    let mut functions = Vec::new();
    for letter in ['x', 'y'] {
        for may_wait in [false, true] {
            let guest = Guest { may_wait, ..scan_and_fill(letter) };
            functions.push(load(&harness, large(guest, letter, DATA_BYTES)).await);
        }
    }
    for round in 0..20 {
        for function in &functions {
            assert!(function.warm.is_some());
            assert_eq!(function.run(harness.call()).await.outcome, Outcome::Done, "round {round}");
        }
        if round % 5 == 0 {
            harness.sandbox.release_memory();
        }
    }
}

#[tokio::test]
async fn attempts_beyond_the_warm_instances_run_in_the_other_pool() {
    let harness = Harness::new();
    let sleep = format!("(call $block (call $in (i64.const 20000000))) {OK}");
    let function = load(&harness, large(guest(&sleep), 'x', DATA_BYTES)).await;
    let direct = load(&harness, large(guest(OK), 'x', DATA_BYTES)).await;
    let warm = function.shared.warm.as_ref().unwrap();
    let runs = (0..4).map(|_| function.run(harness.call()));
    let all: Vec<_> = std::iter::from_fn(|| warm.try_take(crate::warm_pool::Use::Waiting)).collect();
    assert!(!all.is_empty());
    let attempts = futures_util::future::join_all(runs).await;
    assert!(attempts.iter().all(|attempt| attempt.outcome == Outcome::Done));
    // Attempts that may wait take none of the instances for direct attempts.
    assert!(warm.try_take(crate::warm_pool::Use::Direct).is_some());
    assert_eq!(direct.run(harness.call()).await.outcome, Outcome::Done);
    drop(all);
    assert!(warm.try_take(crate::warm_pool::Use::Waiting).is_some());
}

#[tokio::test]
async fn only_components_with_much_data_are_loaded_for_warm_instances() {
    let harness = Harness::new();
    for (data_bytes, is_warm) in [(0, false), (DATA_BYTES - 10_000, false), (DATA_BYTES, true)] {
        let function = load(&harness, large(guest(OK), 'x', data_bytes)).await;
        assert_eq!(function.warm.is_some(), is_warm, "{data_bytes} bytes");
    }
}

/// Returns the number of page faults of this thread: a field after the name in brackets (proc(5), `stat`).
#[cfg(target_os = "linux")]
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(7).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_warm_instance_keeps_its_pages_until_the_memory_is_released() {
    // Pages are kept only if they can be reset in place.
    if crate::pagemap::open().is_none() {
        return;
    }
    let harness = Harness::new();
    let fill = format!("(memory.fill (i32.const 65536) (i32.const 255) (i32.const 900000)) {OK}");
    let function = load(&harness, large(guest(&fill), 'x', DATA_BYTES)).await;
    // A direct attempt runs on this thread.
    let run = async || {
        let before = page_faults();
        assert_eq!(function.run(harness.call()).await.outcome, Outcome::Done);
        page_faults() - before
    };
    run().await;
    let warm = run().await;
    harness.sandbox.release_memory();
    let cold = run().await;
    let warm_again = run().await;
    assert!(warm < 100 && cold > 200 && warm_again < 100, "{warm}, {cold} and {warm_again} page faults");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_warm_instance_keeps_pages_that_are_scattered() {
    // Pages are kept only if they can be reset in place.
    if crate::pagemap::open().is_none() {
        return;
    }
    let harness = Harness::new();
    // Reads and then writes every third page, which makes more regions than wasmtime resets in place.
    let scatter = format!(
        "(local i32)
        (local.set 1 (i32.const 65536))
        (loop
          (if (i32.load8_u (local.get 1)) (then (if (i32.ne (i32.load8_u (local.get 1)) (i32.const 120)) (then unreachable))))
          (i32.store8 (local.get 1) (i32.const 1))
          (local.set 1 (i32.add (local.get 1) (i32.const 12288)))
          (br_if 0 (i32.lt_u (local.get 1) (i32.const {BYTES}))))
        {OK}"
    );
    let pages = u64::from((BYTES - 65_536) / 12_288);
    for may_wait in [false, true] {
        let guest = Guest { may_wait, ..guest(&scatter) };
        let function = load(&harness, large(guest, 'x', DATA_BYTES)).await;
        let run = async || {
            let before = page_faults();
            assert_eq!(function.run(harness.call()).await.outcome, Outcome::Done);
            page_faults() - before
        };
        let first = run().await;
        assert!(first >= pages, "{first} page faults for {pages} pages");
        // Scans have a minimum interval, so the pages are not always kept from the second attempt on.
        let started = std::time::Instant::now();
        while run().await >= pages / 4 {
            assert!(started.elapsed().as_secs() < 20, "the pages are not kept");
        }
    }
}
