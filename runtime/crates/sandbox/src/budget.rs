//! The host's budget for one attempt: the time that host calls may take, and the bytes that the host may hold for the
//! guest.
//!
//! Time: wasmtime interrupts a guest only where a function or a loop starts. A guest that calls the host in
//! straight-line code reaches no such point, and no point is reached during a host call. So the time is also checked
//! whenever control returns from the host to the guest. wasmtime's call hook does that around every import, including
//! those of wasmtime-wasi, and around wasmtime's own functions for guests, so no import can lack the check. An attempt
//! therefore exceeds its deadline by at most one host call. The work of one call is bounded in three ways:
//!
//! - wasmtime reads a limited number of bytes of arguments (`HOSTCALL_BYTES_MAX` and the size limit of a value of
//!   stored state; `instance.rs`), in linear time.
//! - A host function whose short argument can request much work (random bytes, a list of pollables, `write-zeroes`) has
//!   a limit of its own.
//! - A call that waits is ended by the timer around the attempt.
//!
//! Bytes: all data that stays with the host until the attempt ends is charged before it is stored: published events,
//! state that was read or written, and HTTP fields and bodies. A charge is never undone, even if the guest drops the
//! data. So a guest that repeatedly makes the host allocate also reaches the limit.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::{CallHook, CallHookHandler, Store, StoreContextMut, Trap, UpdateDeadline};

use super::engine::TICK;

/// Limit on the bytes that the host holds for an attempt at a delivery. Published events (8 MiB), state reads (16 MiB)
/// and state writes (8 MiB) also have limits of their own, with their own messages. This limit is higher than the sum
/// of those limits. It also covers the host's records of events and keys, and HTTP fields and bodies.
const EVENT_BYTES_MAX: usize = 40 * 1024 * 1024;
/// Limit on the bytes that the host holds for an HTTP request: fields, requests, responses and buffers of bodies.
const HTTP_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Number of ticks after which a direct attempt (`direct.rs`) is interrupted. A direct attempt starts between two
/// ticks, so it can run for one to two ticks.
const DIRECT_TICKS_MAX: u32 = 2;

/// An attempt exceeded its deadline while it computed or in a host call.
#[derive(Debug, thiserror::Error)]
#[error("the deadline was reached")]
pub(super) struct DeadlineReached;

/// The host would hold too many bytes for the attempt.
#[derive(Debug, thiserror::Error)]
#[error(
    "the data that Evoke holds for the attempt (events, state, HTTP headers and bodies) exceed the limit of {} MiB",
    .bytes_max / (1024 * 1024)
)]
pub(super) struct BytesExceeded {
    bytes_max: usize,
}

/// The bytes that the host may hold for one attempt.
#[derive(Debug)]
pub(super) struct HostBudget {
    bytes_max: usize,
    bytes_left: AtomicUsize,
}

impl HostBudget {
    pub(super) fn of_delivery() -> Self {
        Self::new(EVENT_BYTES_MAX)
    }

    pub(super) fn of_http_request() -> Self {
        Self::new(HTTP_BYTES_MAX)
    }

    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes_left: AtomicUsize::new(bytes_max) }
    }

    /// Charges bytes before the host stores them. After an error nothing was charged.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), BytesExceeded> {
        let left = self.bytes_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        left.map(drop).map_err(|_| BytesExceeded { bytes_max: self.bytes_max })
    }

    /// Restores the whole budget, for an attempt that runs again.
    pub(super) fn reset(&self) {
        self.bytes_left.store(self.bytes_max, Ordering::Relaxed);
    }
}

/// Ends a direct attempt, which began at `started`, with [`Trap::Interrupt`]: at its second tick, or when a host call
/// returns after that time.
pub(super) fn interrupt_at_second_tick<T: 'static>(store: &mut Store<T>, started: Instant) {
    let end = started + TICK * DIRECT_TICKS_MAX;
    store.set_epoch_deadline(u64::from(DIRECT_TICKS_MAX));
    store.call_hook(move |_, event| match event {
        CallHook::ReturningFromHost if Instant::now() >= end => Err(Trap::Interrupt.into()),
        _ => Ok(()),
    });
}

/// Ends a guest at its deadline. Once the time `undivided` has passed since `started`, the guest also yields to other
/// tasks at every tick, while it computes and between its host calls. The timer around the attempt is not enough for
/// the deadline, because tokio's timers fire late when guests that compute occupy all threads.
pub(super) fn yield_at_ticks<T: Send + 'static>(
    store: &mut Store<T>,
    timeout: Duration,
    started: Instant,
    undivided: Duration,
) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| match started.elapsed() {
        elapsed if elapsed >= timeout => Err(DeadlineReached.into()),
        elapsed if elapsed < undivided => Ok(UpdateDeadline::Continue(1)),
        _ => Ok(UpdateDeadline::Yield(1)),
    });
    store.call_hook_async(HostCallTimer { started, timeout, next_yield_us: AtomicU64::new(micros(undivided)) });
}

/// Checks the time after each host call.
struct HostCallTimer {
    started: Instant,
    timeout: Duration,
    /// Time from `started` to the next yield, in microseconds.
    next_yield_us: AtomicU64,
}

impl HostCallTimer {
    async fn yield_now(&self) -> wasmtime::Result<()> {
        tokio::task::yield_now().await;
        self.next_yield_us.store(micros(self.started.elapsed() + TICK), Ordering::Relaxed);
        Ok(())
    }
}

type HookFuture<'a> = Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + 'a>>;

impl<T: Send + 'static> CallHookHandler<T> for HostCallTimer {
    // The signature that `async_trait` gives to an async fn, written by hand, because the macro would allocate a future
    // for every call.
    fn handle_call_event<'handler, 'store, 'future>(
        &'handler self,
        _: StoreContextMut<'store, T>,
        event: CallHook,
    ) -> HookFuture<'future>
    where
        'handler: 'future,
        'store: 'future,
        Self: 'future,
    {
        if !matches!(event, CallHook::ReturningFromHost) {
            return Box::pin(Done);
        }
        let elapsed = self.started.elapsed();
        if elapsed >= self.timeout {
            let over: wasmtime::Result<()> = Err(DeadlineReached.into());
            return Box::pin(std::future::ready(over));
        }
        if micros(elapsed) < self.next_yield_us.load(Ordering::Relaxed) {
            return Box::pin(Done);
        }
        Box::pin(self.yield_now())
    }
}

/// A future that is ready. The type has no size, so a box of it allocates nothing.
struct Done;

impl Future for Done {
    type Output = wasmtime::Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_beyond_the_budget_is_refused_and_costs_nothing() {
        let budget = HostBudget::of_http_request();
        budget.charge(HTTP_BYTES_MAX - 10).unwrap();
        assert!(budget.charge(11).unwrap_err().to_string().ends_with("exceed the limit of 4 MiB"));
        budget.charge(usize::MAX).unwrap_err();
        budget.charge(10).unwrap();
        budget.charge(1).unwrap_err();
        budget.reset();
        budget.charge(HTTP_BYTES_MAX).unwrap();
    }
}
