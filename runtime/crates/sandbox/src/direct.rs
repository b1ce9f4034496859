//! Direct attempts: they run synchronously on the caller's thread, without a separate stack on which they could wait.
//!
//! Most attempts end within microseconds. For them, a stack, a permit to use an instance, and a polled future are a
//! large part of the cost. So an attempt of a function whose imports never wait first runs directly, without these. If
//! the attempt has not ended at the second tick (1 to 2 ms after its start), its instance is dropped. The attempt then
//! runs again from the start, with its full time limit, as an async task that yields to other tasks. The restart is not
//! visible: an attempt has no effects before its outcome is committed, and its log lines are held back until it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::Trap;
use wasmtime::component::InstancePre;

use super::attempt::Attempt;
use super::context::{HostContext, Task};
use super::engine::TICK;
use super::handler::{self, Delivery, DirectGuestPre};
use super::invocation::Invocation;
use super::shared::Shared;
use super::turns::Turns;
use super::warm_pool::WarmInstance;
use super::{budget, imports, instance};

/// After a direct run of a function was interrupted, this many attempts of the function skip the direct run. So a
/// function that computes for long rarely loses the time of an interrupted run.
const SKIPS_AFTER_CUTOFF: u32 = 256;

/// The number of following attempts of one function that skip the direct run.
pub(super) type Skips = Arc<AtomicU32>;

/// Runs attempts of one function directly, with instances of one engine (the engine of all functions, or that of the
/// warm pool).
pub(super) struct DirectRunner {
    pre: DirectGuestPre<HostContext>,
    skips_left: Skips,
}

impl DirectRunner {
    /// Returns `None` if the component imports a function that can wait, or if an interrupted direct run would take a
    /// large part of the time limit.
    pub(super) fn new(
        pre: &InstancePre<HostContext>,
        timeout: Duration,
        skips: &Skips,
    ) -> wasmtime::Result<Option<Self>> {
        if timeout < 4 * TICK || !imports::imports_never_wait(pre.engine(), pre.component()) {
            return Ok(None);
        }
        Ok(Some(Self { pre: DirectGuestPre::new(pre.clone())?, skips_left: skips.clone() }))
    }

    #[cfg(test)]
    pub(super) fn skips_left(&self) -> u32 {
        self.skips_left.load(Ordering::Relaxed)
    }

    /// Runs an attempt directly. Returns `None` if the attempt must run as an async task instead. The reason is one of
    /// these: this attempt or an earlier one was interrupted; all instances for direct attempts are in use; or the
    /// attempts of the function usually compute for long and need turns ([`Turns`]).
    pub(super) fn try_run(
        &self,
        shared: &Shared,
        turns: &Turns,
        invocation: &Arc<Invocation>,
        delivery: Delivery<'_>,
        warm: Option<&WarmInstance<'_>>,
    ) -> Option<Attempt> {
        if self.skips_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return None;
        }
        if turns.is_computing() {
            return None;
        }
        let _awake = shared.ticker.keep_awake_direct()?;
        let (started, stopwatch) = (Instant::now(), turns.start());
        // A direct attempt gets no access to stored state (`None`), because a read of it can wait for the disk.
        let mut store = instance::new_store(self.pre.engine(), Task::Handle, invocation.clone(), None, started);
        budget::interrupt_at_second_tick(&mut store, started);
        invocation.log().hold();
        let result =
            catch_unwind(AssertUnwindSafe(|| handler::run_direct(&self.pre, &mut store, invocation, delivery)));
        if matches!(&result, Ok(Err(error)) if error.downcast_ref() == Some(&Trap::Interrupt)) {
            self.skips_left.store(SKIPS_AFTER_CUTOFF, Ordering::Relaxed);
            turns.record(stopwatch.used(started.elapsed()));
            invocation.reset();
            return None;
        }
        let attempt = Attempt::finish(Ok(result), &mut store, started);
        turns.record(stopwatch.used(attempt.duration));
        if let Some(warm) = warm {
            warm.keep_pages();
        }
        Some(attempt)
    }
}
