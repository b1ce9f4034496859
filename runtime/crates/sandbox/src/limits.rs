//! Resource limits of one instance: memory from the manifest, tables and instances from constants.

use wasmtime::ResourceLimiter;

use super::engine::{INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};

/// Checks and records the growth of memory and tables in one attempt.
#[derive(Debug)]
pub(super) struct Limits {
    memory_max: usize,
    memory: usize,
    /// The bytes of the last permitted growth, which wasmtime may report as failed.
    last_growth: usize,
    memory_denied: bool,
}

impl Limits {
    pub(super) fn new(memory_max: u64) -> Self {
        let memory_max = usize::try_from(memory_max).unwrap_or(usize::MAX);
        Self { memory_max, memory: 0, last_growth: 0, memory_denied: false }
    }

    /// Peak memory in bytes. A wasm memory never shrinks, so the current size is the peak.
    pub(super) fn memory_peak(&self) -> u64 {
        self.memory as u64
    }

    /// Returns true if the guest requested more memory than its limit.
    pub(super) fn memory_denied(&self) -> bool {
        self.memory_denied
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // The limit applies to the sum of all memories of the instance.
        let total = self.memory.saturating_sub(current).saturating_add(desired);
        if total > self.memory_max {
            self.memory_denied = true;
            self.last_growth = 0;
            return Ok(false);
        }
        self.last_growth = total.saturating_sub(self.memory);
        self.memory = total;
        Ok(true)
    }

    /// Called if growth fails although `memory_growing` permitted it, for example beyond the maximum that the memory
    /// declares. For memories with custom page sizes, wasmtime can call this without a call of `memory_growing` before,
    /// but the proposal for custom page sizes is off.
    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory -= std::mem::take(&mut self.last_growth);
        Ok(())
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX as usize
    }

    fn tables(&self) -> usize {
        TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX as usize
    }
}
