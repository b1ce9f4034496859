//! The warm pool: a few instances whose memory stays allocated when an attempt ends, for functions that write many
//! pages.
//!
//! An attempt of Go, QuickJS or Python writes a hundred pages or more. In the pool for all functions, most of these
//! pages cause a page fault in every attempt, because a slot there keeps only eight pages: there can be thousands of
//! slots, so more pages per slot would take too much memory. The warm pool has few slots, so each of them can keep all
//! these pages. Before another instance gets the slot, wasmtime resets the pages to the memory image of the component.
//!
//! An attempt that finds no free warm instance runs in the pool for all functions, as fast as without the warm pool.
//! Direct attempts, which never wait, have warm instances of their own, so that attempts that wait for long cannot take
//! all of them.
//!
//! The memory need not stay allocated while the process is idle: [`WarmPool::release_memory`] returns all of it to the
//! operating system.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Instance, Memory, Module, ResourcesRequired, Store};

use super::compile::Facts;
use super::context::HostContext;
use super::threads::processors;
use super::{engine, linker};

#[cfg(target_os = "linux")]
use super::pagemap;

#[cfg(target_os = "linux")]
mod regions;

/// A component with at least this many bytes of data uses the warm pool. Data of this size is the memory image of a
/// language runtime (QuickJS has 400 KB, Go 1.5 MB, Python 11 MB), and an attempt writes many of its pages. Components
/// in Rust and C have less data, and write few pages.
const DATA_BYTES_MIN: u64 = 256 * 1024;
/// Number of warm instances for each processor, for attempts that are not direct. On each processor, about two of these
/// attempts compute. The others wait for the response to an outbound request, or for the client to read their own
/// response.
const WAITING_PER_PROCESSOR: u32 = 8;
/// A module with a memory and nothing else, for [`for_each_slot`].
const EMPTY: &str = r#"(module (memory (export "memory") 0))"#;

/// How an attempt runs in its instance: directly (`direct.rs`), or as a task that can wait.
#[derive(Clone, Copy)]
pub(super) enum Use {
    Direct,
    Waiting,
}

/// The engine of the warm instances.
pub(super) struct WarmPool {
    pub(super) engine: Engine,
    pub(super) linker: Linker<HostContext>,
    /// The number of free instances for direct attempts, and for others.
    free: [AtomicU32; 2],
    /// True if an instance was used since the memory was released.
    is_used: AtomicBool,
    empty: Module,
    #[cfg(target_os = "linux")]
    slots: regions::Slots,
}

impl WarmPool {
    pub(super) fn new() -> wasmtime::Result<Self> {
        let free = [engine::direct_max(), WAITING_PER_PROCESSOR * processors().min(64)];
        let [direct, waiting] = free;
        let engine = engine::warm_engine(direct, waiting)?;
        let linker = linker::linker(&engine)?;
        let empty = Module::new(&engine, wat::parse_str(EMPTY)?)?;
        #[cfg(target_os = "linux")]
        let slots = {
            let mut starts = Vec::new();
            for_each_slot(&engine, &empty, direct + waiting, |store, memory| {
                starts.push(memory.data_ptr(store).expose_provenance());
                Ok(())
            })?;
            regions::Slots::new(starts, pagemap::open())
        };
        Ok(Self {
            engine,
            linker,
            free: free.map(AtomicU32::new),
            is_used: AtomicBool::new(false),
            empty,
            #[cfg(target_os = "linux")]
            slots,
        })
    }

    /// Returns true if a component should also be loaded for this pool.
    pub(super) fn is_for(facts: &Facts, component: &Component) -> bool {
        let fits = |required: ResourcesRequired| required.num_memories <= engine::WARM_MEMORIES_MAX;
        // A component without this information could have more memories.
        facts.data_bytes >= DATA_BYTES_MIN && component.resources_required().is_some_and(fits)
    }

    pub(super) fn try_take(&self, how: Use) -> Option<WarmInstance<'_>> {
        let taken = self.free_of(how).fetch_update(Ordering::AcqRel, Ordering::Relaxed, |free| free.checked_sub(1));
        taken.is_ok().then(|| WarmInstance {
            pool: self,
            how,
            #[cfg(target_os = "linux")]
            page_faults: pagemap::page_faults(),
        })
    }

    /// Returns the memory of all free instances to the system.
    pub(super) fn release_memory(&self) -> wasmtime::Result<()> {
        if !self.is_used.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        // All free instances are taken, so attempts that start now run in the pool for all functions.
        let taken = [Use::Direct, Use::Waiting].map(|how| (how, self.free_of(how).swap(0, Ordering::AcqRel)));
        let instances = taken.iter().map(|(_, instances)| instances).sum();
        let released = for_each_slot(&self.engine, &self.empty, instances, release);
        #[cfg(target_os = "linux")]
        self.slots.released();
        for (how, instances) in taken {
            self.free_of(how).fetch_add(instances, Ordering::AcqRel);
        }
        released
    }

    fn free_of(&self, how: Use) -> &AtomicU32 {
        let [direct, waiting] = &self.free;
        match how {
            Use::Direct => direct,
            Use::Waiting => waiting,
        }
    }
}

/// A warm instance that an attempt may use. Must be dropped after the store of the attempt, which uses the slot.
pub(super) struct WarmInstance<'a> {
    pool: &'a WarmPool,
    how: Use,
    /// The page faults of the thread before the attempt.
    #[cfg(target_os = "linux")]
    page_faults: u64,
}

impl WarmInstance<'_> {
    /// Makes sure that the pool keeps the pages that the attempt wrote, even if they are scattered over the memory.
    /// Must be called before the store of the attempt is dropped.
    pub(super) fn keep_pages(&self) {
        // The count also contains page faults that other attempts on this thread caused while this attempt waited. The
        // worst effect is an unnecessary scan.
        #[cfg(target_os = "linux")]
        self.pool.slots.join_regions(pagemap::page_faults().saturating_sub(self.page_faults));
    }
}

impl Drop for WarmInstance<'_> {
    fn drop(&mut self) {
        // The value is written only if it changes, because all threads share it and each write slows them down.
        if !self.pool.is_used.load(Ordering::Relaxed) {
            self.pool.is_used.store(true, Ordering::Relaxed);
        }
        self.pool.free_of(self.how).fetch_add(1, Ordering::AcqRel);
    }
}

/// Calls `each` for each slot of `instances` instances, with an empty memory in the slot. This many instances must be
/// free.
fn for_each_slot(
    engine: &Engine,
    empty: &Module,
    instances: u32,
    mut each: impl FnMut(&Store<()>, &Memory) -> wasmtime::Result<()>,
) -> wasmtime::Result<()> {
    // All stores are kept until the function returns, so that no two memories get the same slot.
    let mut stores = Vec::new();
    for _ in 0..instances * engine::WARM_MEMORIES_MAX {
        let mut store = Store::new(engine, ());
        let instance = Instance::new(&mut store, empty, &[])?;
        if let Some(memory) = instance.get_memory(&mut store, "memory") {
            each(&store, &memory)?;
        }
        stores.push(store);
    }
    Ok(())
}

/// Returns all pages of a slot to the operating system. `memory` is an empty memory in this slot. On other systems than
/// Linux, slots keep no pages.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn release(store: &Store<()>, memory: &Memory) -> wasmtime::Result<()> {
    let start = memory.data_ptr(store);
    // SAFETY: the slot of each memory of this engine has this size and is a private mapping. This memory has the size
    // 0, and its store owns the slot, so no instance uses the pages of the slot. The pool has reset the pages of the
    // previous instance, so they are zero. They are also zero after this call, because the slot has no memory image:
    // the module of this memory has none.
    unsafe { rustix::mm::madvise(start.cast(), engine::MEMORY_BYTES_MAX, rustix::mm::Advice::LinuxDontNeed) }?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn release(_: &Store<()>, _: &Memory) -> wasmtime::Result<()> {
    Ok(())
}
