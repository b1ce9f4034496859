//! Metrics of functions that handle HTTP requests.

use std::sync::Arc;
use std::time::Duration;

use super::{Counter, Histogram};

/// How a request to a function ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The function sent a response, with any status.
    Answered,
    /// The function already handled its maximum of concurrent requests.
    Busy,
    /// The function sent no response within its timeout.
    Late,
    /// The function failed before it sent a response.
    Failed,
    /// The events that the function published could not be stored.
    Refused,
}

impl RequestOutcome {
    /// Every outcome, in the order of the declaration.
    pub const ALL: [Self; 5] = [Self::Answered, Self::Busy, Self::Late, Self::Failed, Self::Refused];

    /// Returns the value of the label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Busy => "busy",
            Self::Late => "late",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// The metrics of one function that handles HTTP requests.
#[derive(Debug)]
pub struct RequestMetrics {
    /// The full name, `app/function`.
    pub name: Arc<str>,
    requests: [Counter; RequestOutcome::ALL.len()],
    /// Time from the arrival of a request at the function to the start of the response. Includes the wait of the
    /// request while the function handles its maximum of concurrent requests.
    pub duration: Histogram,
}

impl RequestMetrics {
    /// Creates the metrics of a function, all zero.
    pub fn new(name: Arc<str>) -> Self {
        Self { name, requests: Default::default(), duration: Histogram::for_durations() }
    }

    /// Counts an ended request. Records the duration only if the function sent a response.
    pub fn ended(&self, outcome: RequestOutcome, took: Duration) {
        self.requests(outcome).increment();
        if outcome == RequestOutcome::Answered {
            self.duration.observe(took);
        }
    }

    /// Returns the counter of the requests that ended with this outcome.
    pub fn requests(&self, outcome: RequestOutcome) -> &Counter {
        // The index is the variant's position in `ALL`, which has the order of the declaration.
        &self.requests[outcome as usize]
    }
}
