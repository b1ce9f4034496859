//! Metrics of the requests that functions and monitors send.

use std::sync::Arc;
use std::time::Duration;

use super::{Counter, Histogram};

/// How an outbound request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundOutcome {
    /// A response with a status below 300.
    Success,
    /// A redirect, which is returned to the function and not followed.
    Redirect,
    /// A response with a status from 400 to 499.
    ClientError,
    /// A response with a status of 500 or more.
    ServerError,
    /// The manifest does not allow the request.
    Refused,
    /// The request reached one of its time limits.
    Timeout,
    /// The request ended without a response for another reason.
    Failed,
}

impl OutboundOutcome {
    /// All outcomes, in the order of the declaration.
    pub const ALL: [Self; 7] = [
        Self::Success,
        Self::Redirect,
        Self::ClientError,
        Self::ServerError,
        Self::Refused,
        Self::Timeout,
        Self::Failed,
    ];

    /// Returns the outcome of a response with this status.
    pub fn of_status(status: u16) -> Self {
        match status {
            ..300 => Self::Success,
            300..400 => Self::Redirect,
            400..500 => Self::ClientError,
            500.. => Self::ServerError,
        }
    }

    /// Returns the value of the label `outcome`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Success => "2xx",
            Self::Redirect => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Failed => "failed",
        }
    }
}

/// The requests of one function to the hosts that one entry of its `allow.http` covers.
#[derive(Debug)]
pub struct OutboundMetrics {
    /// The full name, `app/function`; `monitors` for requests of monitors.
    pub function: Arc<str>,
    /// The host as the manifest allows it, which can be a pattern such as `*.example.com`; `(not granted)` for hosts
    /// that the manifest does not allow.
    pub host: Arc<str>,
    requests: [Counter; OutboundOutcome::ALL.len()],
    /// Time from the start of a request to the start of its response. Requests without a response do not count.
    pub duration: Histogram,
}

impl OutboundMetrics {
    /// Creates metrics that are all zero.
    pub fn new(function: Arc<str>, host: Arc<str>) -> Self {
        Self { function, host, requests: Default::default(), duration: Histogram::for_durations() }
    }

    /// Counts a request. Called when the response begins, or when the request ends without a response. `took` is the
    /// time since the start of the request.
    pub fn ended(&self, outcome: OutboundOutcome, took: Duration) {
        self.requests(outcome).increment();
        if !matches!(outcome, OutboundOutcome::Refused | OutboundOutcome::Timeout | OutboundOutcome::Failed) {
            self.duration.observe(took);
        }
    }

    /// Returns the counter of the requests that ended with this outcome.
    pub fn requests(&self, outcome: OutboundOutcome) -> &Counter {
        // The index is the variant's position in `ALL`, which has the order of the declaration.
        &self.requests[outcome as usize]
    }
}
