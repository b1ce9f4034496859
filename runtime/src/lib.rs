//! Evoke runs WebAssembly functions on events. `ARCHITECTURE.md` describes the modules and their invariants.

pub mod admin;
pub mod app;
pub mod bus;
pub mod cli;
pub mod clock;
pub mod dispatcher;
pub mod event;
pub mod listener;
pub mod logs;
pub mod manifest;
pub mod otlp;
pub mod outcome;
pub mod pattern;
pub mod replay;
pub mod router;
pub mod runtime_events;
pub mod sandbox;
pub mod source;
pub mod state;
pub mod store;
pub mod telemetry;

/// glibc's allocator grows its heaps with `mprotect`, which takes the same kernel lock as resetting a guest's memory.
/// Under full load, two threads spent a fifth of their time waiting for it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
