//! The parts of the sandbox that all functions share.

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::cache::Cache;
use super::context::HostContext;
use super::engine::Ticker;

pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) linker: Linker<HostContext>,
    pub(super) cache: Cache,
    pub(super) ticker: Ticker,
    /// One permit for each concurrent instance that the pool can hold, not counting direct attempts.
    pub(super) permits: Semaphore,
    /// One permit for each function that may be loading.
    pub(super) loads: Semaphore,
    pub(super) concurrency: u32,
}
