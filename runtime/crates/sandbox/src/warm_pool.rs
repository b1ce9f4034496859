//! The warm pool: a few instances whose memory stays allocated when an attempt ends, for functions that write to much
//! memory.
//!
//! An attempt of Go, QuickJS or Python writes a hundred pages or more. In the pool for all functions, most of these
//! pages cause a page fault in every attempt, because a slot there keeps only eight pages: many attempts can use
//! thousands of slots. The warm pool has few slots, so each of them may keep all these pages. Before another instance
//! gets the slot, wasmtime resets the pages to the memory image of the component.
//!
//! An attempt that finds no free warm instance runs in the pool for all functions, as fast as without the warm pool.
//! Half of the warm instances are for direct attempts, which never wait, so that attempts that wait for long cannot
//! take all.
//!
//! The memory need not stay allocated while the process is idle: [`WarmPool::release_memory`] returns all of it to the
//! operating system.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Instance, Memory, Module, ResourcesRequired, Store};

use super::compile::Facts;
use super::context::HostContext;
use super::{engine, linker};

/// A component with at least this many bytes of data uses the warm pool. Data of this size is the memory image of a
/// language runtime (QuickJS has 400 KB, Go 1.5 MB, Python 11 MB), of which an attempt writes many pages. Components in
/// Rust and C have less data, and write few pages.
const DATA_BYTES_MIN: u64 = 256 * 1024;
/// A module with a memory and nothing else, for [`WarmPool::release_memory`].
const EMPTY: &str = r#"(module (memory (export "memory") 0))"#;

/// How an attempt runs in its instance: directly (`direct.rs`), or as a task that may wait.
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
}

impl WarmPool {
    pub(super) fn new() -> wasmtime::Result<Self> {
        let free = engine::direct_max();
        let engine = engine::warm_engine(free, free)?;
        let linker = linker::linker(&engine)?;
        let empty = Module::new(&engine, wat::parse_str(EMPTY)?)?;
        let free = [AtomicU32::new(free), AtomicU32::new(free)];
        Ok(Self { engine, linker, free, is_used: AtomicBool::new(false), empty })
    }

    /// Returns true if a component should also be loaded for this pool.
    pub(super) fn is_for(facts: &Facts, component: &Component) -> bool {
        let fits = |required: ResourcesRequired| required.num_memories <= engine::WARM_MEMORIES_MAX;
        // A component without this information could have more memories.
        facts.data_bytes >= DATA_BYTES_MIN && component.resources_required().is_some_and(fits)
    }

    /// Takes a warm instance if one is free.
    pub(super) fn try_take(&self, how: Use) -> Option<WarmInstance<'_>> {
        let taken = self.free_of(how).fetch_update(Ordering::AcqRel, Ordering::Relaxed, |free| free.checked_sub(1));
        taken.is_ok().then(|| WarmInstance { pool: self, how })
    }

    /// Returns the memory of all free instances to the system.
    pub(super) fn release_memory(&self) -> wasmtime::Result<()> {
        if !self.is_used.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        // All free instances are taken, so attempts that start now run in the pool for all functions.
        let taken = [Use::Direct, Use::Waiting].map(|how| (how, self.free_of(how).swap(0, Ordering::AcqRel)));
        let released = self.release_slots(taken.iter().map(|(_, instances)| instances).sum());
        for (how, instances) in taken {
            self.free_of(how).fetch_add(instances, Ordering::AcqRel);
        }
        released
    }

    /// Returns the memory of the slots of this number of instances to the system. The stores must live until the last
    /// one has its slot, so that each of them gets another slot.
    fn release_slots(&self, instances: u32) -> wasmtime::Result<()> {
        let mut stores = Vec::new();
        for _ in 0..instances * engine::WARM_MEMORIES_MAX {
            let mut store = Store::new(&self.engine, ());
            let instance = Instance::new(&mut store, &self.empty, &[])?;
            if let Some(memory) = instance.get_memory(&mut store, "memory") {
                release(&store, &memory)?;
            }
            stores.push(store);
        }
        Ok(())
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

/// Returns all pages of the slot of an empty memory to the system. On other systems than Linux, slots keep no pages.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn release(store: &Store<()>, memory: &Memory) -> wasmtime::Result<()> {
    let start = memory.data_ptr(store);
    // SAFETY: the slot of each memory of this engine has this size and is a private mapping. Its pages beyond the size
    // of the memory, which is 0, belong to no instance: the store owns the slot, and the pool has reset the pages of
    // the instance before, so they are zero, as they are after this call. A slot has no memory image here, because the
    // module of this memory has none.
    unsafe { rustix::mm::madvise(start.cast(), engine::MEMORY_BYTES_MAX, rustix::mm::Advice::LinuxDontNeed) }?;
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn release(_: &Store<()>, _: &Memory) -> wasmtime::Result<()> {
    Ok(())
}
