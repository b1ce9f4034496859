//! Returns freed memory to the system when the process becomes idle.
//!
//! The allocator keeps freed memory reserved for the thread that allocated it, until that thread allocates again. So
//! after a burst of large events, threads without work would keep tens of megabytes. The sandbox also keeps the memory
//! of warm instances for the attempts that follow.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use evoke_sandbox::Sandbox;
use tokio::runtime::Handle;

const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The process counts as idle if all threads together were busy for at most this time since the last poll.
const IDLE_BUSY_MAX: Duration = Duration::from_millis(20);
/// Number of idle polls in a row after which memory is returned. By then, the store has also released its caches.
const IDLE_POLLS: u32 = 4;
/// The longest time that a thread waits for the other threads of its runtime to return their memory.
const HOLD_MAX: Duration = Duration::from_millis(2);

/// Returns memory to the system each time the process becomes idle. Never returns. `runtimes` are the tokio runtimes
/// whose threads allocate memory.
pub(super) async fn run(runtimes: [Handle; 2], sandbox: Sandbox) {
    let (mut busy, mut idle_polls, mut has_worked) = (Duration::ZERO, 0, true);
    loop {
        tokio::time::sleep(POLL_INTERVAL).await;
        let before = std::mem::replace(&mut busy, runtimes.iter().map(busy_time).sum());
        if busy.saturating_sub(before) > IDLE_BUSY_MAX {
            (idle_polls, has_worked) = (0, true);
            continue;
        }
        idle_polls += 1;
        if has_worked && idle_polls >= IDLE_POLLS {
            has_worked = false;
            for runtime in &runtimes {
                return_memory(runtime).await;
            }
            return_memory_of_c();
            let sandbox = sandbox.clone();
            // The task cannot fail. It may be cancelled at the end of the process.
            let _ = tokio::task::spawn_blocking(move || sandbox.release_memory()).await;
        }
    }
}

fn busy_time(runtime: &Handle) -> Duration {
    let metrics = runtime.metrics();
    (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).sum()
}

/// Returns the freed memory of all threads of a runtime to the system. Spawns one task for each thread. A task blocks
/// its thread until all tasks have started, so that no thread runs two of the tasks.
async fn return_memory(runtime: &Handle) {
    let threads = runtime.metrics().num_workers();
    let arrived = Arc::new(AtomicUsize::new(0));
    let task = |_| {
        let arrived = arrived.clone();
        runtime.spawn(async move {
            return_memory_of_thread();
            arrived.fetch_add(1, Ordering::Relaxed);
            let end = Instant::now() + HOLD_MAX;
            while arrived.load(Ordering::Relaxed) < threads && Instant::now() < end {
                std::thread::sleep(Duration::from_micros(50));
            }
        })
    };
    let tasks: Vec<_> = (0..threads).map(task).collect();
    for task in tasks {
        // The task cannot fail. It may be cancelled at the end of the process.
        let _ = task.await;
    }
}

/// Returns to the system the memory that the current thread has freed, and the free memory in all arenas.
#[allow(unsafe_code, reason = "a function of the allocator that its crate does not export")]
fn return_memory_of_thread() {
    // Links the allocator mimalloc, which has the function.
    use mimalloc as _;
    unsafe extern "C" {
        safe fn mi_collect(force: bool);
    }
    mi_collect(true);
}

/// Returns to the system the memory that C libraries have freed. SQLite uses the allocator of the system.
#[allow(unsafe_code, reason = "a function of glibc without a safe binding")]
fn return_memory_of_c() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> i32;
        }
        malloc_trim(0);
    }
}
