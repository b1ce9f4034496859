//! Limits how many attempts compute for long at the same time, so that short attempts need not wait for them. A turn is
//! the permission to run a guest on a processor until the next tick (1 ms). There is one turn for each processor.
//!
//! Most attempts start without a turn. An attempt that has used [`FREE_TIME`] of processor time needs a turn for each
//! further poll of its future. Such a poll lasts at most one tick, because guests yield at ticks. Only the first poll
//! of an attempt with a warm instance may last five ticks. A free turn goes to the function that has used the least
//! time (`fair_slots`). So attempts that compute never occupy more threads than there are processors, even if they wait
//! in between. The other threads for guests are left for short attempts.
//!
//! Two kinds of attempts need turns from their start: those of a function that usually computes for long, and those
//! that use warm instances (`warm_pool`), of which there are few. They begin, and get their instance, only with their
//! first turn. Their further turns come before the first turns of other attempts of the function. So about two attempts
//! for each processor are in progress, and the attempts that wait for their first turn hold no instance.
//!
//! Processor time is the time for which the thread runs, not the time that passes. So a short attempt does not count as
//! long if other programs interrupt it on a busy machine. Reading the processor time is a system call, so it is read
//! only if the attempt may be long ([`Stopwatch`]). Of the attempts that need turns from their start, it is read for
//! one of [`MEASURED_EVERY`].

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::engine::TICK;
use super::fair_slots::{FairSlots, Place, Share, Slot};

/// Processor time that an attempt may use without turns.
const FREE_TIME: Duration = TICK;
/// While an attempt has used less processor time than this, it gets its next turn before the other attempts of its
/// function.
const FINISH_TIME: Duration = TICK.saturating_mul(10);
/// An attempt that is longer than this counts as this long in the average of its function. One such attempt is enough
/// to raise the average from 0 to [`COMPUTING`].
const SAMPLE_MAX: Duration = TICK.saturating_mul(2);
/// If the attempts of a function use at least this processor time on average, they need turns from their start. A turn
/// costs a few microseconds, so attempts that are shorter than this would become noticeably slower.
const COMPUTING: Duration = Duration::from_micros(250);
/// An attempt that is shorter than this counts as 0 in the average. So the average of a quick function stays 0, and is
/// not written at each attempt.
const SAMPLE_MIN: Duration = Duration::from_micros(64);
/// Each attempt moves the average towards its own time, by one `SAMPLES`th of the difference.
const SAMPLES: u32 = 8;
/// Of the attempts that need turns from their start, one of this number is measured from its first poll, and recorded.
/// The first poll of the others does not count towards [`FINISH_TIME`].
const MEASURED_EVERY: u32 = 8;

/// Gives turns to the attempts of one function, and keeps the average of their processor time.
pub(super) struct Turns {
    share: Share,
    /// Moving average of the processor time of attempts.
    average_us: AtomicU32,
    /// True if the last attempt may have used [`SAMPLE_MIN`] or more. Then the processor time of the next attempt is
    /// read.
    is_measured: AtomicBool,
    /// The number of attempts that needed turns from their start.
    with_turns: AtomicU32,
}

impl Turns {
    /// `processors` must have one slot for each processor.
    pub(super) fn new(processors: &Arc<FairSlots>) -> Self {
        let (average_us, is_measured, with_turns) = Default::default();
        Self { share: processors.share(), average_us, is_measured, with_turns }
    }

    /// Returns true if attempts of the function usually compute for long.
    pub(super) fn is_computing(&self) -> bool {
        self.average_us.load(Ordering::Relaxed) >= micros(COMPUTING)
    }

    /// Starts to measure an attempt that runs on this thread.
    pub(super) fn start(&self) -> Stopwatch {
        Stopwatch::start(self.is_measured())
    }

    /// Records the processor time that an attempt used; `None` if it was not measured.
    pub(super) fn record(&self, used: Option<Duration>) {
        let is_long = used.is_none_or(|used| used >= SAMPLE_MIN);
        // The value is written only if it changes, because all threads share it and each write slows them down.
        if is_long != self.is_measured() {
            self.is_measured.store(is_long, Ordering::Relaxed);
        }
        let Some(used) = used else { return };
        let average_us = self.average_us.load(Ordering::Relaxed);
        let sample_us = if is_long { micros(used.min(SAMPLE_MAX)) } else { 0 };
        let next_us = average_us - average_us.div_ceil(SAMPLES) + sample_us / SAMPLES;
        // Another thread may have changed the average in the meantime. Its sample is then lost, which does no harm.
        if next_us != average_us {
            self.average_us.store(next_us, Ordering::Relaxed);
        }
    }

    /// Waits for the first turn of an attempt if it needs turns from its start. This is so if attempts of the function
    /// usually compute for long, or if `are_few` is true: the attempt can get a warm instance, of which there are few.
    /// For any other attempt, returns `None` without waiting. The caller must create the instance of the attempt after
    /// this call, so that an attempt that waits here holds no instance.
    pub(super) async fn first(&self, are_few: bool) -> Option<Slot<'_>> {
        if are_few || self.is_computing() { Some(self.share.acquire().await) } else { None }
    }

    /// Runs an attempt to its end. `turn` is the result of [`Turns::first`].
    pub(super) async fn run<F: Future>(&self, mut turn: Option<Slot<'_>>, mut guest: Pin<&mut F>) -> F::Output {
        let mut needs_turns = turn.is_some();
        let is_sample = !needs_turns || self.with_turns.fetch_add(1, Ordering::Relaxed).is_multiple_of(MEASURED_EVERY);
        let mut is_measured = if needs_turns { is_sample } else { self.is_measured() };
        // An attempt that is no sample records nothing. Otherwise short attempts, whose time is known without a system
        // call, would be recorded more often than long ones.
        let mut recorder = Recorder { turns: self, used: Duration::ZERO, is_exact: true, is_recorded: !is_sample };
        loop {
            if needs_turns && turn.is_none() {
                // An attempt that has computed only for a short time should end before other attempts of its function
                // begin, so that few instances are in use.
                let place = if recorder.used < FINISH_TIME { Place::First } else { Place::Last };
                turn = Some(self.share.acquire_at(place).await);
            }
            let (polled, used) = poll_fn(|context| {
                let (started, stopwatch) = (Instant::now(), Stopwatch::start(is_measured));
                let polled = guest.as_mut().poll(context);
                Poll::Ready((polled, stopwatch.used(started.elapsed())))
            })
            .await;
            drop(turn.take());
            recorder.add(used);
            if let Poll::Ready(output) = polled {
                return output;
            }
            is_measured = true;
            needs_turns = needs_turns || recorder.used >= FREE_TIME;
            wait_for_wake().await;
        }
    }

    fn is_measured(&self) -> bool {
        self.is_measured.load(Ordering::Relaxed)
    }
}

/// Measures the processor time that an attempt uses on the current thread, or only estimates it without a system call.
pub(super) struct Stopwatch {
    /// Processor time of the thread at the start; `None` if it was not read.
    cpu_started: Option<Duration>,
}

impl Stopwatch {
    fn start(is_measured: bool) -> Self {
        Self { cpu_started: is_measured.then(thread_cpu_time) }
    }

    /// Returns the processor time since the start; `None` if it is not known. `elapsed` is the wall time since the
    /// start. If the processor time was not read at the start, an `elapsed` below [`SAMPLE_MIN`] gives zero, because
    /// [`Turns::record`] counts such an attempt as zero.
    pub(super) fn used(&self, elapsed: Duration) -> Option<Duration> {
        match self.cpu_started {
            Some(before) => Some(thread_cpu_time().saturating_sub(before)),
            None => (elapsed < SAMPLE_MIN).then_some(Duration::ZERO),
        }
    }
}

fn thread_cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Records the processor time of an attempt once: when it reaches [`SAMPLE_MAX`], or, if it never does, when the
/// attempt ends or is dropped.
struct Recorder<'a> {
    turns: &'a Turns,
    /// The part of the processor time that was measured.
    used: Duration,
    /// True if the whole processor time was measured.
    is_exact: bool,
    is_recorded: bool,
}

impl Recorder<'_> {
    fn add(&mut self, used: Option<Duration>) {
        self.used += used.unwrap_or_default();
        self.is_exact &= used.is_some();
        if self.used >= SAMPLE_MAX && !self.is_recorded {
            self.record();
        }
    }

    fn record(&mut self) {
        self.is_recorded = true;
        let is_known = self.is_exact || self.used >= SAMPLE_MAX;
        self.turns.record(is_known.then_some(self.used));
    }
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if !self.is_recorded {
            self.record();
        }
    }
}

/// Waits until the task is polled again. The guest's future has already registered the waker of the task in the current
/// poll.
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

    /// Computes until the thread has used this processor time.
    fn compute(time: Duration) {
        let end = thread_cpu_time() + time;
        while thread_cpu_time() < end {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn one_long_attempt_makes_a_function_computing_and_short_ones_make_it_quick_again() {
        let turns = Turns::new(&FairSlots::new(1, 0));
        turns.record(Some(Duration::from_micros(10)));
        assert!(!turns.is_computing());
        turns.record(Some(Duration::from_secs(30)));
        assert!(turns.is_computing());
        (0..8).for_each(|_| turns.record(Some(Duration::from_micros(10))));
        assert!(!turns.is_computing());
        (0..30).for_each(|_| turns.record(Some(Duration::from_micros(600))));
        assert!(turns.is_computing(), "many attempts of half a tick");
    }

    #[test]
    fn an_attempt_that_is_interrupted_for_long_does_not_count_as_computing() {
        let turns = Turns::new(&FairSlots::new(1, 0));
        let mut measured = 0;
        for _ in 0..10 {
            measured += u32::from(turns.is_measured());
            let (started, stopwatch) = (Instant::now(), turns.start());
            // The thread waits, as it does while another program has the processor.
            let (_sender, receiver) = std::sync::mpsc::channel::<()>();
            let _ = receiver.recv_timeout(SAMPLE_MAX);
            turns.record(stopwatch.used(started.elapsed()));
        }
        // After an attempt with little processor time, the next one is not measured. Its processor time is not known,
        // so the one after it is measured again.
        assert!(measured >= 5, "{measured}");
        assert!(!turns.is_computing());
    }

    #[test]
    fn an_attempt_after_a_slow_one_is_measured_exactly() {
        let turns = Turns::new(&FairSlots::new(1, 0));
        let run = || {
            let (started, stopwatch) = (Instant::now(), turns.start());
            compute(SAMPLE_MAX);
            let used = stopwatch.used(started.elapsed());
            turns.record(used);
            used
        };
        assert_eq!(run(), None);
        assert!(!turns.is_computing());
        assert!(run().is_some_and(|used| used >= SAMPLE_MAX));
        assert!(turns.is_computing());
    }

    #[tokio::test]
    async fn of_attempts_that_need_turns_short_ones_count_no_more_than_long_ones() {
        let turns = Turns::new(&FairSlots::new(1, 0));
        (0..30).for_each(|_| turns.record(Some(SAMPLE_MAX)));
        // Seven of eight attempts are short, and none of them is the one that is measured.
        for n in 0..8 * MEASURED_EVERY {
            let time = if n.is_multiple_of(MEASURED_EVERY) { SAMPLE_MAX } else { Duration::ZERO };
            let turn = turns.first(false).await;
            assert!(turn.is_some());
            turns.run(turn, pin!(async { compute(time) })).await;
        }
        assert!(turns.is_computing());
    }

    #[tokio::test]
    async fn an_attempt_needs_a_turn_after_it_computed_for_long_in_total_and_holds_none_while_it_waits() {
        let processors = FairSlots::new(1, 0);
        let (alternating, other) = (Turns::new(&processors), processors.share());
        let polls = Cell::new(0);
        let guest = pin!(poll_fn(|_| {
            polls.set(polls.get() + 1);
            compute(FREE_TIME / 2);
            if polls.get() == 6 { Poll::Ready(()) } else { Poll::Pending }
        }));
        let mut running = pin!(alternating.run(None, guest));
        let turn = other.acquire().await;
        for _ in 0..10 {
            assert!(running.as_mut().now_or_never().is_none());
        }
        // The time of the first poll is not measured, so the limit is reached after the third poll. If other programs
        // interrupt the thread, it can be reached after the second.
        let free = polls.get();
        assert!((2..=3).contains(&free), "{free} polls without a turn");
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
        assert_eq!(polls.get(), 6);
        assert!(alternating.is_computing());
    }
}
