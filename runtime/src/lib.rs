//! Evoke runs WebAssembly functions on events. `ARCHITECTURE.md` describes the modules and their invariants.

pub mod admin;
pub mod app;
pub mod cli;
pub mod logs;
pub mod otlp;

/// glibc's allocator grows its heaps with `mprotect`, which takes the same kernel lock as resetting a guest's memory.
/// Under full load, two threads spent a fifth of their time waiting for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
