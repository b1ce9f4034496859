//! Turns limit how many attempts compute for long at the same time. A turn is the permission to run a guest on a
//! processor until the next tick.
//!
//! A new attempt runs without a turn. After [`FREE_TIME`] of processor time it needs a turn for each poll, which lasts
//! at most one tick, because guests yield at ticks. There is one turn for each processor, and the next turn goes to the
//! function that has used the least time (`fair_slots`). So attempts that compute, also those that wait in between,
//! never occupy more threads than there are processors, and the other threads for guests are left for short attempts.
//! The attempts of a function that usually computes for long need turns from their start.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::engine::TICK;
use super::fair_slots::{FairSlots, Share};

/// Processor time that an attempt may use without turns.
const FREE_TIME: Duration = TICK;
/// A longer attempt counts as this long in the average of its function. One such attempt suffices to raise the average
/// from 0 to [`COMPUTING`].
const SAMPLE_MAX: Duration = TICK.saturating_mul(2);
/// The attempts of a function need turns from their start if they use at least this processor time on average. A turn
/// costs a few microseconds, so a shorter attempt would be noticeably slower with turns.
const COMPUTING: Duration = Duration::from_micros(250);
/// Shorter attempts count as none, so that the average of a quick function stays 0 and is not written at each attempt.
const SAMPLE_MIN: Duration = Duration::from_micros(64);
/// One attempt changes the average by this fraction of the difference.
const SAMPLES: u32 = 8;

/// The turns of one function.
pub(super) struct Turns {
    share: Share,
    /// Moving average of the processor time of attempts.
    average_us: AtomicU32,
}

impl Turns {
    /// `processors` must have one slot for each processor.
    pub(super) fn new(processors: &Arc<FairSlots>) -> Self {
        Self { share: processors.share(), average_us: AtomicU32::new(0) }
    }

    /// Returns true if attempts of the function usually compute for long.
    pub(super) fn is_computing(&self) -> bool {
        self.average_us.load(Ordering::Relaxed) >= micros(COMPUTING)
    }

    /// Records the processor time of an attempt.
    pub(super) fn record(&self, used: Duration) {
        let average_us = self.average_us.load(Ordering::Relaxed);
        let sample_us = if used < SAMPLE_MIN { 0 } else { micros(used.min(SAMPLE_MAX)) };
        let next_us = average_us - average_us.div_ceil(SAMPLES) + sample_us / SAMPLES;
        // A lost update of another thread does no harm.
        if next_us != average_us {
            self.average_us.store(next_us, Ordering::Relaxed);
        }
    }

    /// Runs an attempt to its end.
    pub(super) async fn run<F: Future>(&self, mut guest: Pin<&mut F>) -> F::Output {
        let mut needs_turns = self.is_computing();
        let mut recorder = Recorder { turns: self, used: Duration::ZERO, is_recorded: false };
        loop {
            let turn = if needs_turns { Some(self.share.acquire().await) } else { None };
            let started = Instant::now();
            let polled = poll_fn(|context| Poll::Ready(guest.as_mut().poll(context))).await;
            drop(turn);
            recorder.add(started.elapsed());
            if let Poll::Ready(output) = polled {
                return output;
            }
            needs_turns = needs_turns || recorder.used >= FREE_TIME;
            wait_for_wake().await;
        }
    }
}

/// Records the time of an attempt: as soon as the attempt is a long one, or when it ends or is dropped.
struct Recorder<'a> {
    turns: &'a Turns,
    used: Duration,
    is_recorded: bool,
}

impl Recorder<'_> {
    fn add(&mut self, used: Duration) {
        self.used += used;
        if self.used >= SAMPLE_MAX && !self.is_recorded {
            self.record();
        }
    }

    fn record(&mut self) {
        self.is_recorded = true;
        self.turns.record(self.used);
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if !self.is_recorded {
            self.record();
        }
    }
}

/// Waits until the task is polled again. The guest has registered the task's waker in the current poll.
async fn wait_for_wake() {
    let mut is_polled_again = false;
    poll_fn(|_| if std::mem::replace(&mut is_polled_again, true) { Poll::Ready(()) } else { Poll::Pending }).await;
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn one_long_attempt_makes_a_function_computing_and_short_ones_make_it_quick_again() {
        let turns = Turns::new(&FairSlots::new(1, 0));
        turns.record(Duration::from_micros(10));
        assert!(!turns.is_computing());
        turns.record(Duration::from_secs(30));
        assert!(turns.is_computing());
        (0..8).for_each(|_| turns.record(Duration::from_micros(10)));
        assert!(!turns.is_computing());
        (0..30).for_each(|_| turns.record(Duration::from_micros(600)));
        assert!(turns.is_computing(), "many attempts of half a tick");
    }

    #[tokio::test]
    async fn an_attempt_needs_a_turn_after_it_computed_for_long_in_total_and_holds_none_while_it_waits() {
        let processors = FairSlots::new(1, 0);
        let (alternating, other) = (Turns::new(&processors), processors.share());
        let polls = Cell::new(0);
        let guest = pin!(poll_fn(|_| {
            polls.set(polls.get() + 1);
            let end = Instant::now() + FREE_TIME / 2;
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            if polls.get() == 5 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let mut running = pin!(alternating.run(guest));
        let turn = other.acquire().await;
        for _ in 0..10 {
            assert!(running.as_mut().now_or_never().is_none());
        }
        let free = polls.get();
        assert!((1..=2).contains(&free), "{free} polls without a turn");
        drop(turn);
        loop {
            let before = polls.get();
            let has_ended = running.as_mut().now_or_never().is_some();
            assert_eq!(polls.get(), before + 1);
            drop(other.acquire().now_or_never().expect("a guest that waits holds no turn"));
            if has_ended {
                break;
            }
        }
        assert_eq!(polls.get(), 5);
        assert!(alternating.is_computing());
    }
}
