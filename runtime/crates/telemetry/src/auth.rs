//! Metrics of the http sources that verify their senders.

use std::sync::Arc;

use super::Counter;

/// Why a source could not verify the sender of a request, and refused the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthRefusal {
    /// The request has no credentials.
    Missing,
    /// The credentials do not have the form that the source requires.
    Malformed,
    /// The time that the request states differs from the current time by more than the source tolerates.
    Expired,
    /// The credentials match no secret of the source.
    Mismatch,
}

impl AuthRefusal {
    /// Every reason, in the order of the declaration.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Malformed, Self::Expired, Self::Mismatch];

    /// Returns the value of the label `reason`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Expired => "expired",
            Self::Mismatch => "mismatch",
        }
    }
}

/// The requests that one source refused because their senders were not verified.
#[derive(Debug, Default)]
pub struct AuthMetrics {
    /// The URI of the source.
    pub source: Arc<str>,
    refused: [Counter; AuthRefusal::ALL.len()],
}

impl AuthMetrics {
    /// Creates the metrics of a source, all zero.
    pub fn new(source: Arc<str>) -> Self {
        Self { source, refused: Default::default() }
    }

    /// Returns the counter of the requests that were refused for this reason.
    pub fn refused(&self, reason: AuthRefusal) -> &Counter {
        // The index is the variant's position in `ALL`, which has the order of the declaration.
        &self.refused[reason as usize]
    }
}
