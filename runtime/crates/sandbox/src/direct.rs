//! Direct attempts: they run synchronously on the caller's thread, without a separate stack on which they could wait.
//!
//! Most attempts end within microseconds. For them, a stack, a permit and a polled future are a large part of the cost,
//! and a guest that makes no blocking host calls and does not compute for long needs none of these. So such a guest
//! runs directly first. If it has not ended at the second tick, its instance is dropped and the attempt runs again from
//! the start, this time yielding to others. The restart is not visible: an attempt has no effects before its outcome is
//! committed, and its log lines are held back until it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::InstancePre;
use wasmtime::{Store, Trap};

use super::bindings::direct::GuestPre;
use super::bindings::exports::evoke::function::handler::Delivery;
use super::engine::TICK;
use super::fate;
use super::function::{Attempt, Function, extensions, to_guest_event};
use super::host::{HostContext, Task};
use super::imports;
use super::invocation::Invocation;
use super::log::AttemptLog;
use evoke_model::outcome::Outcome;

/// Tick at which a direct attempt is interrupted: between one and two ticks after its start. The second run has the
/// full time limit again.
const TICKS_MAX: u64 = 2;

/// Number of attempts that skip the direct run after one was interrupted, so that a function that computes for long
/// pays for the failed try only rarely.
const SKIPS_AFTER_CUTOFF: u32 = 256;

/// Runs attempts of one function directly.
pub(super) struct DirectRunner {
    pre: GuestPre<HostContext>,
    /// Number of attempts that still skip the direct run.
    skips_left: AtomicU32,
}

impl DirectRunner {
    /// Returns `None` if the component imports a function that may wait, or if its time limit is too short to absorb an
    /// interrupted direct run.
    pub(super) fn new(pre: &InstancePre<HostContext>, timeout: Duration) -> wasmtime::Result<Option<Self>> {
        if timeout < 4 * TICK || !imports::imports_never_wait(pre.engine(), pre.component()) {
            return Ok(None);
        }
        Ok(Some(Self { pre: GuestPre::new(pre.clone())?, skips_left: AtomicU32::new(0) }))
    }

    /// Returns the number of attempts that still skip the direct run.
    #[cfg(test)]
    pub(super) fn skips_left(&self) -> u32 {
        self.skips_left.load(Ordering::Relaxed)
    }

    /// Runs an attempt directly. Returns `None` if the attempt must run as an async task instead.
    pub(super) fn try_run(
        &self,
        function: &Function,
        invocation: &Arc<Invocation>,
        delivery: Delivery<'_>,
    ) -> Option<Attempt> {
        if self.skips_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return None;
        }
        let _awake = function.shared.ticker.keep_awake_direct()?;
        // A direct attempt has no stored state, because reading state may wait.
        let mut store = function.store(Task::Handle, invocation.clone(), None);
        store.set_epoch_deadline(TICKS_MAX);
        AttemptLog(invocation.clone()).hold();
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| self.handle(&mut store, invocation, delivery)));
        if matches!(&result, Ok(Err(error)) if error.downcast_ref() == Some(&Trap::Interrupt)) {
            self.skips_left.store(SKIPS_AFTER_CUTOFF, Ordering::Relaxed);
            invocation.reset();
            return None;
        }
        Some(Attempt::finish(Ok(result), &mut store, started))
    }

    fn handle(
        &self,
        store: &mut Store<HostContext>,
        invocation: &Invocation,
        delivery: Delivery<'_>,
    ) -> wasmtime::Result<Outcome> {
        let guest = self.pre.instantiate(&mut *store)?;
        let Some(event) = invocation.cause.as_deref() else { return Ok(fate::no_event()) };
        let extensions = extensions(event);
        let event = to_guest_event(event, &extensions);
        let handled = guest.evoke_function_handler().call_handle(&mut *store, event, delivery)?;
        Ok(fate::handler_outcome(handled, store.data()))
    }
}
