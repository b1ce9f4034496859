//! Evoke runs WebAssembly functions when something happens. `ARCHITECTURE.md` has the map.

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

/// glibc's allocator grows its heaps by `mprotect`, which takes the lock that resetting a guest's memory needs too: two
/// threads at full load spent a fifth of their time in it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
