//! How functions that answer requests themselves are doing.

use std::sync::Arc;
use std::time::Duration;

use super::{Counter, Histogram};

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The function answered, whatever its status says.
    Answered,
    /// As many were answered as may be at once.
    Busy,
    /// There was no answer within the time-out.
    Late,
    /// The function failed before it had answered.
    Failed,
}

impl Answered {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Answered, Self::Busy, Self::Late, Self::Failed];

    /// The label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Busy => "busy",
            Self::Late => "late",
            Self::Failed => "failed",
        }
    }
}

/// How one function that answers requests is doing.
#[derive(Debug)]
pub struct AnswerMetrics {
    /// `app/function`.
    pub name: Arc<str>,
    requests: [Counter; Answered::ALL.len()],
    /// How long answers took to begin, the wait for a turn included.
    pub duration: Histogram,
}

impl AnswerMetrics {
    /// Of a function that answered nothing yet.
    pub fn new(name: Arc<str>) -> Self {
        Self { name, requests: Default::default(), duration: Histogram::of_durations() }
    }

    /// Counts a request.
    pub fn ended(&self, answered: Answered, took: Duration) {
        self.requests(answered).increment();
        if answered == Answered::Answered {
            self.duration.observe(took);
        }
    }

    /// Requests of which this became.
    pub fn requests(&self, answered: Answered) -> &Counter {
        // In the order of `ALL`, which is that of the declaration.
        &self.requests[answered as usize]
    }
}
