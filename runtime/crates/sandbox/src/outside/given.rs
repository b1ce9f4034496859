//! The values that a test gives to an attempt.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::clocks::Readings;
use crate::answers::HttpAnswers;
use evoke_model::clock::UnixMs;
use evoke_model::recording::Reads;

/// The values that a test gives to an attempt in place of those of the machine and the network. The test gives stored
/// state as a [`crate::StateSource`].
#[derive(Clone)]
pub struct Given(Arc<Inner>);

struct Inner {
    answers: HttpAnswers,
    reads: Reads,
    published: AtomicUsize,
    polls: AtomicUsize,
}

impl Given {
    /// Answers requests with `answers`. Clocks return the readings in `reads`, and random numbers come from the seed in
    /// `reads`. Without readings, the monotonic clock is that of the machine, and the wall clock is the fixed clock of
    /// the [`crate::Call`] if it has one, otherwise that of the machine. Without a seed, random numbers are those of
    /// the machine.
    pub fn new(answers: HttpAnswers, reads: Reads) -> Self {
        Self(Arc::new(Inner { answers, reads, published: AtomicUsize::new(0), polls: AtomicUsize::new(0) }))
    }

    pub(super) fn answers(&self) -> &HttpAnswers {
        &self.0.answers
    }

    pub(super) fn reads(&self) -> &Reads {
        &self.0.reads
    }

    /// Returns a wall clock that starts at the first reading; `None` without readings.
    pub(super) fn wall(&self) -> Option<Readings> {
        Readings::new(self.0.reads.wall_ns.clone())
    }

    /// Like [`Self::wall`], for the monotonic clock.
    pub(super) fn monotonic(&self) -> Option<Readings> {
        Readings::new(self.0.reads.monotonic_ns.clone())
    }

    /// Returns the time that the test gives for the next published event. After the last time, returns the last time
    /// again.
    pub(super) fn publish_ms(&self) -> Option<UnixMs> {
        let times = &self.0.reads.published_ms;
        times.get(self.0.published.fetch_add(1, Ordering::Relaxed)).or(times.last()).copied()
    }

    /// Returns the next of the results that the test gives for polls. Returns `None` after the last one; the guest then
    /// gets the real result of its poll.
    pub(super) fn poll(&self) -> Option<Vec<u32>> {
        self.0.reads.polls.get(self.0.polls.fetch_add(1, Ordering::Relaxed)).cloned()
    }

    /// Starts again at the beginning of both lists of the test: the timestamps of published events, and the results of
    /// polls.
    pub(super) fn reset(&self) {
        self.0.published.store(0, Ordering::Relaxed);
        self.0.polls.store(0, Ordering::Relaxed);
    }
}
