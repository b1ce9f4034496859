//! Metrics of the events that enter from outside, by kind of source.

use super::Counter;

/// The way through which events enter: a kind of source, or the admin API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ingress {
    name: &'static str,
    /// True if a client waits for the acknowledgement of its events.
    pub(super) is_request: bool,
}

impl Ingress {
    /// The admin API.
    pub const API: Self = Self::requests("api");

    /// A kind of source whose events are requests of clients, such as `http`.
    pub const fn requests(name: &'static str) -> Self {
        Self { name, is_request: true }
    }

    /// A kind of source that watches something and makes the events itself, such as `files`.
    pub const fn observations(name: &'static str) -> Self {
        Self { name, is_request: false }
    }

    /// Returns the value of the label `source` in metrics, and of the attribute `evoke.ingress` in spans.
    pub fn name(self) -> &'static str {
        self.name
    }
}

/// Why events were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request contains no valid events, or has a format that the source does not accept.
    Invalid,
    /// The sender is not verified.
    Unverified,
    /// An event or the whole request is larger than allowed.
    TooLarge,
    /// Too many deliveries or scheduled events are pending, or too many requests are in flight.
    Overloaded,
    /// The pending deliveries of the source already take its whole share of the backlog.
    Crowding,
    /// The disk is full.
    DiskFull,
    /// Another program has locked the file of the store.
    StoreBusy,
    /// The store failed or is closed.
    StoreFailed,
}

impl Refusal {
    /// Every reason, in the order of the declaration.
    pub(super) const ALL: [Self; 8] = [
        Self::Invalid,
        Self::Unverified,
        Self::TooLarge,
        Self::Overloaded,
        Self::Crowding,
        Self::DiskFull,
        Self::StoreBusy,
        Self::StoreFailed,
    ];

    /// Returns the value of the label `reason` in metrics, and of the attribute `error.type` in spans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unverified => "unverified",
            Self::TooLarge => "too-large",
            Self::Overloaded => "overloaded",
            Self::Crowding => "crowding",
            Self::DiskFull => "disk-full",
            Self::StoreBusy => "store-busy",
            Self::StoreFailed => "store-failed",
        }
    }
}

/// Counters of one kind of source.
#[derive(Debug, Default)]
pub struct IngressMetrics {
    /// Events that were stored as new.
    pub new: Counter,
    /// Events that were already stored.
    pub duplicate: Counter,
    refused: [Counter; Refusal::ALL.len()],
}

impl IngressMetrics {
    /// Returns the counter of the events that were refused for this reason.
    pub fn refused(&self, reason: Refusal) -> &Counter {
        // The index is the variant's position in `ALL`, which has the order of the declaration.
        &self.refused[reason as usize]
    }
}
