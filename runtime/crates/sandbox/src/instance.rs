//! The wasmtime store of one instance, with its limits.

use std::sync::Arc;

use tokio::time::Instant;
use wasmtime::{Engine, Store};

use super::context::{HostContext, Task};
use super::invocation::Invocation;
use super::keyvalue::StateSource;
use evoke_model::event::EVENT_SIZE_MAX;

/// Limit on the bytes that a guest passes to the host in one call: the largest event, plus space for its encoding.
const HOSTCALL_BYTES_MAX: usize = 2 * EVENT_SIZE_MAX;
/// Limit on the handles that a component creates for its own resources.
const HANDLES_MAX: usize = 10_000;

/// Creates the store of a new instance. The time limit counts from `started`.
pub(super) fn new_store(
    engine: &Engine,
    task: Task,
    invocation: Arc<Invocation>,
    state: Option<Arc<dyn StateSource>>,
    started: Instant,
) -> Store<HostContext> {
    let value_bytes_max = invocation.identity.grants.state.map_or(0, |state| state.value_bytes_max);
    let mut store = Store::new(engine, HostContext::new(invocation, task, state, started));
    store.limiter(|context| &mut context.limits);
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX + usize::try_from(value_bytes_max).unwrap_or_default());
    store.set_max_component_handles(HANDLES_MAX);
    store
}
