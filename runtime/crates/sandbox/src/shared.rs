//! The parts of the sandbox that all functions share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

use super::cache::Cache;
use super::context::HostContext;
use super::engine::Ticker;
use super::fair_slots::FairSlots;
use super::threads::GuestThreads;
use super::warm_pool::WarmPool;
use evoke_egress::Client;
use evoke_telemetry::Spans;

pub(super) struct Shared {
    pub(super) engine: Engine,
    pub(super) linker: Linker<HostContext>,
    /// The warm instances; `None` if their address space cannot be reserved.
    pub(super) warm: Option<WarmPool>,
    pub(super) cache: Cache,
    pub(super) ticker: Ticker,
    pub(super) threads: GuestThreads,
    /// One turn (the permission to run a guest until the next tick, see `turns`) for each processor.
    pub(super) processors: Arc<FairSlots>,
    /// One permit for each instance that the pool has for deliveries. Direct attempts have other instances and need no
    /// permit.
    pub(super) permits: Semaphore,
    /// The instances for HTTP requests. They are separate from those for deliveries, so that neither requests nor
    /// deliveries can use all instances.
    pub(super) requests: Arc<FairSlots>,
    /// The permits to load functions. Their number limits how many functions can be in the process of loading at once.
    pub(super) loads: Semaphore,
    pub(super) concurrency: u32,
    /// Sends the requests of all functions.
    pub(super) client: Client,
    pub(super) spans: Spans,
}
