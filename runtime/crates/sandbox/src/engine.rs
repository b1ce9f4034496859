//! The wasmtime engine: its compiler settings, its pool of preallocated slots for instances (wasmtime's pooling
//! allocator), and the ticker, a thread that interrupts guests that compute for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails,
};

use super::proposals;
use super::threads::processors;

/// Limits on the core instances, memories, tables and table elements of one component. The largest known guests (Python
/// with its shared libraries) have about 40 core instances and 20,000 table elements; a plain Rust guest has one
/// instance and one table.
pub(super) const INSTANCES_MAX: u32 = 64;
pub(super) const MEMORIES_MAX: u32 = 4;
pub(super) const TABLES_MAX: u32 = 8;
pub(super) const TABLE_ELEMENTS_MAX: usize = 65_536;
/// Limit on concurrent instances for deliveries, which no setting can exceed. For each of the [`MEMORIES_MAX`] memories
/// of an instance, the pool reserves 4 GiB of address space (not of memory). With more instances, the reservation would
/// exceed the 128 TiB of address space that a process has.
pub(super) const CONCURRENCY_MAX: u32 = 4_096;
/// Limit on concurrent instances for HTTP requests, in addition to those for deliveries.
pub(super) const REQUESTS_MAX: u32 = 2_048;
/// Size of the largest 32-bit memory, in bytes. The pool reserves address space for memories of this size. The `memory`
/// limit of the function applies when a memory grows.
pub(super) const MEMORY_BYTES_MAX: usize = 1 << 32;
/// Memory that stays allocated in a slot of the pool when its instance ends, in bytes: eight pages of the operating
/// system (4 KiB) of each linear memory, and two of each table.
const RESIDENT_BYTES: usize = 32 * 1024;
const RESIDENT_TABLE_BYTES: usize = 8 * 1024;
/// Memory that stays allocated in a slot of the warm pool (`warm_pool.rs`), in bytes. It is enough for the pages that
/// an attempt of a Go function writes (1 MiB). It is also enough for those of a Python function together with the pages
/// between them that `warm_pool/regions.rs` allocates (4 MiB).
pub(super) const WARM_RESIDENT_BYTES: usize = 6 * 1024 * 1024;
const WARM_RESIDENT_TABLE_BYTES: usize = 64 * 1024;
/// Limit on the memories of an instance in the warm pool. Components with QuickJS have two memories, of which one is
/// small.
pub(super) const WARM_MEMORIES_MAX: u32 = 2;
/// Interval at which a guest that computes yields to other tasks on its thread. The interval limits how long these
/// tasks wait, and how late an exceeded deadline is noticed. For comparison: most calls take 10 to 50 µs, and one yield
/// costs about a microsecond. A direct attempt cannot yield; it is interrupted at its second tick (`direct.rs`).
pub(super) const TICK: Duration = Duration::from_millis(1);
/// Number of ticks without a running attempt after which the ticker thread sleeps, so that an idle process causes no
/// wake-ups.
const IDLE_TICKS_MAX: u32 = 200;

/// Creates the engine that runs functions. Its instances come from wasmtime's pooling allocator, unless the address
/// space for the pool cannot be reserved.
pub(super) fn engine(concurrency: u32, requests: u32) -> wasmtime::Result<Engine> {
    let mut pooled = config();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(concurrency + requests)));
    Engine::new(&pooled).or_else(|error| {
        tracing::warn!(
            %error,
            "cannot reserve the address space for {concurrency} concurrent deliveries and {requests} concurrent HTTP \
             requests; functions start several times slower; raise the limit on virtual memory (ulimit -v), or lower \
             the limit on concurrent deliveries (`--concurrency`)"
        );
        Engine::new(&config())
    })
}

/// Creates the engine of the warm pool (`warm_pool.rs`). The pool has `direct` instances for direct attempts and
/// `waiting` instances for other attempts. Each instance has at most [`WARM_MEMORIES_MAX`] memories. Code that was
/// compiled for another engine of this module also runs on this one.
pub(super) fn warm_engine(direct: u32, waiting: u32) -> wasmtime::Result<Engine> {
    let mut pool = pool_of(direct + waiting, waiting);
    pool.total_memories((direct + waiting) * WARM_MEMORIES_MAX)
        .linear_memory_keep_resident(if resets_in_place() { WARM_RESIDENT_BYTES } else { RESIDENT_BYTES })
        .table_keep_resident(WARM_RESIDENT_TABLE_BYTES);
    let mut pooled = config();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&pooled)
}

/// Creates the engine of the compiler process. The process runs no guests, so it has no pool of instances. The engines
/// with a pool can still load the code that it compiles: all engines have the same compiler settings (`config`), and
/// compiled code does not depend on where an instance gets its memory.
pub(super) fn compiler() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        // Backtraces show function names, which come from the name section. wasmtime does not parse DWARF debug
        // information, because it is untrusted input, and nothing in Evoke needs it.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .native_unwind_info(false)
        .concurrency_support(false);
    proposals::configure(&mut config);
    config
}

/// Returns the limit on concurrent direct attempts (`direct.rs`): at most 128, one for each thread that runs guests.
/// Direct attempts have instances of their own, in addition to those for deliveries and HTTP requests.
pub(super) fn direct_max() -> u32 {
    2 * processors().min(64)
}

/// Returns the pool for all functions. `waiting` is the limit on concurrent instances whose guests can wait; each of
/// these instances needs a stack of its own. The pool also has instances for direct attempts.
fn pool(waiting: u32) -> PoolingAllocationConfig {
    // When an instance ends, wasmtime can reset pages of its memory in place, instead of returning them to the
    // operating system. That needs no madvise, no page faults in the next attempt, and no lock on the address space
    // that all threads share. With PAGEMAP_SCAN (Linux 6.7), wasmtime resets only the pages that the guest wrote, up to
    // the limit that is set here; the smallest Rust guest writes two pages. Every slot that has been used keeps its
    // pages: after many guests with large memories, 64 slots keep 2 MiB. Without PAGEMAP_SCAN, wasmtime resets the
    // first bytes of the memory, up to the same limit. A Rust guest writes to none of these bytes, so resetting in
    // place then saves nothing. PAGEMAP_SCAN is not used if a page can be in swap space, where wasmtime would not find
    // it (`swap.rs`).
    let mut pool = pool_of(waiting + direct_max(), waiting);
    pool.linear_memory_keep_resident(RESIDENT_BYTES).table_keep_resident(RESIDENT_TABLE_BYTES);
    pool
}

/// Returns true if wasmtime may use PAGEMAP_SCAN.
#[cfg(target_os = "linux")]
fn resets_in_place() -> bool {
    super::pagemap::open().is_some()
}

#[cfg(not(target_os = "linux"))]
fn resets_in_place() -> bool {
    false
}

/// Returns a pool with slots for `instances` instances. At most `stacks` of them can have a stack at the same time.
fn pool_of(instances: u32, stacks: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances * INSTANCES_MAX)
        .total_memories(instances * MEMORIES_MAX)
        .total_tables(instances * TABLES_MAX)
        .total_stacks(stacks)
        .max_core_instances_per_component(INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .pagemap_scan(if resets_in_place() { Enabled::Auto } else { Enabled::No });
    pool
}

/// The thread that increments the epoch counter of each engine once per tick while attempts run. Guests compare this
/// counter with their deadline, so they can be interrupted at ticks. Dropping the ticker stops the thread.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    direct_max: usize,
}

#[derive(Default)]
struct Shared {
    attempts: AtomicUsize,
    /// Number of running direct attempts.
    direct: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engines: Vec<Engine>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let thread_shared = shared.clone();
        let thread = thread::Builder::new().name("epochs".into()).spawn(move || tick(&engines, &thread_shared))?;
        Ok(Self { shared, thread: Some(thread), direct_max: direct_max() as usize })
    }

    /// Keeps the ticker running until the guard is dropped.
    pub(super) fn keep_awake(&self) -> AwakeGuard<'_> {
        self.count(&self.shared.attempts).0
    }

    /// Like [`Self::keep_awake`], for a direct attempt. Returns `None` if all instances for direct attempts are in use.
    pub(super) fn keep_awake_direct(&self) -> Option<AwakeGuard<'_>> {
        let (awake, before) = self.count(&self.shared.direct);
        (before < self.direct_max).then_some(awake)
    }

    /// Counts an attempt. Returns the guard and the number of attempts that were already running.
    fn count<'a>(&self, attempts: &'a AtomicUsize) -> (AwakeGuard<'a>, usize) {
        // All these operations are sequentially consistent. So either the ticker sees this attempt before it sleeps, or
        // this thread sees that the ticker sleeps, and wakes it.
        let before = attempts.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        (AwakeGuard(attempts), before)
    }

    #[cfg(test)]
    pub(super) fn is_asleep(&self) -> bool {
        self.shared.asleep.load(Ordering::SeqCst)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // An error means that the thread panicked. Nothing useful can be done about that here.
            let _ = thread.join();
        }
    }
}

pub(super) struct AwakeGuard<'a>(&'a AtomicUsize);

impl Drop for AwakeGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn tick(engines: &[Engine], shared: &Shared) {
    evoke_fs::shorten_time_slice();
    let is_idle = || [&shared.attempts, &shared.direct].iter().all(|count| count.load(Ordering::SeqCst) == 0);
    let must_stop = || shared.stop.load(Ordering::SeqCst);
    let mut ticks_idle = 0;
    while !must_stop() {
        ticks_idle = if is_idle() { ticks_idle + 1 } else { 0 };
        if ticks_idle > IDLE_TICKS_MAX {
            shared.asleep.store(true, Ordering::SeqCst);
            while is_idle() && !must_stop() {
                thread::park();
            }
            shared.asleep.store(false, Ordering::SeqCst);
        }
        thread::park_timeout(TICK);
        engines.iter().for_each(Engine::increment_epoch);
    }
}
