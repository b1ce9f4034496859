//! Detects jumps of the wall clock, and wakes all timers that use this clock after a jump. So a timer need not wake up
//! again and again to check the clock, and can sleep until its next tick.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use evoke_model::clock::{Clock, UnixMs};

/// The time between two comparisons of the clocks. A tick that a jump makes due is late by at most this time.
const POLL: Duration = Duration::from_secs(1);
/// From one check to the next, the wall clock may advance this much more or less than the monotonic clock. A larger
/// difference counts as a jump. A gradual adjustment of the wall clock (slewing) stays far below this value.
pub(super) const JUMP_MIN_MS: i64 = 2_000;

/// A background task that compares a wall clock with the monotonic clock. The task ends when this value is dropped.
pub(super) struct Jumps {
    clock: Clock,
    jumped: watch::Receiver<()>,
    task: AbortHandle,
}

/// The running detectors, one for each clock that timers use.
static ALL: Mutex<Vec<Weak<Jumps>>> = Mutex::new(Vec::new());

impl Jumps {
    /// Returns the shared detector for this clock. Starts a detector if none runs for this clock. Must be called within
    /// a tokio runtime.
    pub(super) fn of(clock: &Clock) -> Arc<Self> {
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        let same = all.iter().filter_map(Weak::upgrade).find(|one| one.clock.is_same(clock) && !one.task.is_finished());
        same.unwrap_or_else(|| {
            let (sender, jumped) = watch::channel(());
            let task = tokio::spawn(compare(clock.clone(), sender)).abort_handle();
            let new = Arc::new(Self { clock: clock.clone(), jumped, task });
            all.push(Arc::downgrade(&new));
            new
        })
    }

    /// Returns a receiver that reports a change after each jump.
    pub(super) fn receiver(&self) -> watch::Receiver<()> {
        self.jumped.clone()
    }
}

impl Drop for Jumps {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn compare(clock: Clock, jumped: watch::Sender<()>) {
    let mut last = (clock.now_ms(), Instant::now());
    loop {
        tokio::time::sleep(POLL).await;
        let now = (clock.now_ms(), Instant::now());
        if jump_ms(last, now).abs() > JUMP_MIN_MS {
            jumped.send_replace(());
        }
        last = now;
    }
}

/// Returns how many milliseconds the wall clock jumped between two readings of both clocks; negative for a jump back.
pub(super) fn jump_ms(before: (UnixMs, Instant), now: (UnixMs, Instant)) -> i64 {
    let passed_ms = i64::try_from((now.1 - before.1).as_millis()).unwrap_or(i64::MAX);
    now.0.saturating_sub(before.0).saturating_sub(passed_ms)
}
