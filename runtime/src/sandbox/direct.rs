//! An attempt that is made directly: on the thread that it came on, with no stack of its own on which it could wait.
//!
//! Most are over within microseconds. For them a stack, a permit and a future to poll are much of what they cost, and a
//! guest whose calls the host all answers at once has no use for them as long as it does not compute for long. So it is
//! run without first. When it is not over at the second tick it is dropped and made again from its start, giving way to
//! others this time. Nobody sees that: an attempt has no effects before its end is committed, and what it logs is held
//! back until it is over.

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
use super::function::{Attempt, Function, extensions, in_words_of_the_guest};
use super::host::{State, Task};
use super::imports;
use super::log::AttemptLog;
use super::work::Work;
use crate::outcome::Outcome;

/// Where such an attempt is cut off: between one tick and two after its start. It may take its whole time then once more.
const TICKS_MAX: u64 = 2;

/// After one that was cut off so many are not tried: a function that computes for long pays once more in a while.
const RESTS: u32 = 256;

/// A function whose attempts may be made directly.
pub(super) struct Direct {
    pre: GuestPre<State>,
    /// For how many attempts it is not tried.
    rests: AtomicU32,
}

impl Direct {
    /// `None` for one that may wait, or whose time is shorter than what it could be held up by.
    pub(super) fn new(pre: &InstancePre<State>, timeout: Duration) -> wasmtime::Result<Option<Self>> {
        if timeout < 4 * TICK || !imports::never_wait(pre.engine(), pre.component()) {
            return Ok(None);
        }
        Ok(Some(Self { pre: GuestPre::new(pre.clone())?, rests: AtomicU32::new(0) }))
    }

    /// For how many attempts it is not tried.
    #[cfg(test)]
    pub(super) fn rests(&self) -> u32 {
        self.rests.load(Ordering::Relaxed)
    }

    /// Makes an attempt; `None` when it has to be made in the other way.
    pub(super) fn attempt(&self, function: &Function, work: &Arc<Work>, delivery: Delivery<'_>) -> Option<Attempt> {
        if self.rests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rests| rests.checked_sub(1)).is_ok() {
            return None;
        }
        let _awake = function.shared.ticker.awake_directly()?;
        // It has no state: that is among what may wait.
        let mut store = function.store(Task::Handle, work.clone(), None);
        store.set_epoch_deadline(TICKS_MAX);
        AttemptLog(work.clone()).hold();
        let started = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(|| self.handle(&mut store, work, delivery)));
        if matches!(&ended, Ok(Err(error)) if error.downcast_ref() == Some(&Trap::Interrupt)) {
            self.rests.store(RESTS, Ordering::Relaxed);
            work.begin_again();
            return None;
        }
        Some(Attempt::ended(Ok(ended), &mut store, started))
    }

    fn handle(&self, store: &mut Store<State>, work: &Work, delivery: Delivery<'_>) -> wasmtime::Result<Outcome> {
        let guest = self.pre.instantiate(&mut *store)?;
        let Some(event) = work.cause.as_deref() else { return Ok(fate::no_event()) };
        let extensions = extensions(event);
        let event = in_words_of_the_guest(event, &extensions);
        let handled = guest.evoke_function_handler().call_handle(&mut *store, event, delivery)?;
        Ok(fate::handled(handled, store.data()))
    }
}
