//! The engine: how guests are compiled, where their memory comes from, and what makes a spinning one yield.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig, WasmBacktraceDetails,
};

/// What one component may consist of. The largest known guests (Python with its shared libraries) have some 40
/// core instances and 20,000 table elements; a plain Rust guest has one of each.
pub(super) const INSTANCES_MAX: u32 = 64;
pub(super) const MEMORIES_MAX: u32 = 4;
pub(super) const TABLES_MAX: u32 = 8;
pub(super) const TABLE_ELEMENTS_MAX: usize = 65_536;
/// Each slot for a memory reserves 4 GiB of address space (never memory): past this many instances at once the
/// reservation would no longer fit the 128 TiB that a process has.
pub(super) const CONCURRENCY_MAX: u32 = 4_096;
/// All that a 32-bit memory can have. The limit that counts is the function's own.
const MEMORY_BYTES_MAX: usize = 1 << 32;
/// How often a guest that computes gives way. It bounds what a neighbour on the same thread waits for (a call
/// itself takes 10 to 50 µs; one that is made directly is cut off at its second tick) and how late a deadline is
/// noticed; a yield costs about a microsecond.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// Ticks without an attempt after which the ticker sleeps, so that an idle process wakes nobody.
const IDLE_TICKS_MAX: u32 = 200;

/// The engine with the pooling allocator, or without it where its address space cannot be reserved.
pub(super) fn engine(concurrency: u32) -> wasmtime::Result<Engine> {
    let mut pooled = config();
    pooled.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(concurrency)));
    Engine::new(&pooled).or_else(|error| {
        tracing::warn!(
            %error,
            "cannot reserve the address space for {concurrency} instances; guests start several times slower. \
             Raise the limit on virtual memory (ulimit -v) or lower the concurrency"
        );
        Engine::new(&config())
    })
}

fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        // Names come from the name section; a guest's DWARF is input that nothing else needs parsed.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .native_unwind_info(false)
        // What components of today's toolchains do not use: less for a hostile one to try. Exceptions and shared
        // memory are not even compiled in.
        .gc_support(false)
        .concurrency_support(false)
        .wasm_stack_switching(false)
        .wasm_shared_everything_threads(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false);
    config
}

/// Attempts at once that are made directly, and have instances of their own beside those that there are permits for: one
/// on each thread, and as many on threads of others.
fn direct_max() -> u32 {
    2 * thread::available_parallelism().map_or(1, |threads| u32::try_from(threads.get()).unwrap_or(1).min(64))
}

fn pool(concurrency: u32) -> PoolingAllocationConfig {
    // With PAGEMAP_SCAN (Linux 6.7) only pages that a guest wrote are reset, in place: no madvise, no page faults
    // on the next call, no locked address space between threads. Without it wasmtime would clear all that is kept,
    // so little is.
    let keep = if PoolingAllocationConfig::is_pagemap_scan_available() { 2 * 1024 * 1024 } else { 64 * 1024 };
    let mut pool = PoolingAllocationConfig::new();
    let instances = concurrency + direct_max();
    pool.total_component_instances(instances)
        .total_core_instances(instances * INSTANCES_MAX)
        .total_memories(instances * MEMORIES_MAX)
        .total_tables(instances * TABLES_MAX)
        .total_stacks(concurrency)
        .max_core_instances_per_component(INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(MEMORY_BYTES_MAX)
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(keep)
        .table_keep_resident(64 * 1024);
    pool
}

/// The thread that moves the engine's epoch on while attempts run. It ends with this value.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    direct_max: usize,
}

#[derive(Default)]
struct Shared {
    attempts: AtomicUsize,
    /// Those that are made directly.
    direct: AtomicUsize,
    asleep: AtomicBool,
    stop: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engine: Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = thread::Builder::new().name("epochs".into()).spawn(move || tick(&engine, &theirs))?;
        Ok(Self { shared, thread: Some(thread), direct_max: direct_max() as usize })
    }

    /// Keeps the ticker awake until the guard is dropped.
    pub(super) fn awake(&self) -> Awake<'_> {
        self.count(&self.shared.attempts).0
    }

    /// The same for an attempt that is made directly; `None` when there is no instance for one more of these.
    pub(super) fn awake_directly(&self) -> Option<Awake<'_>> {
        let (awake, before) = self.count(&self.shared.direct);
        (before < self.direct_max).then_some(awake)
    }

    /// Counts an attempt; answers how many there were.
    fn count<'a>(&self, attempts: &'a AtomicUsize) -> (Awake<'a>, usize) {
        // Sequential consistency: either the ticker sees this attempt, or this sees that the ticker sleeps.
        let before = attempts.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        (Awake(attempts), before)
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
            // It only counts and sleeps; a panic in it would have nothing to say here.
            let _ = thread.join();
        }
    }
}

pub(super) struct Awake<'a>(&'a AtomicUsize);

impl Drop for Awake<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn tick(engine: &Engine, shared: &Shared) {
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
        engine.increment_epoch();
    }
}
