//! Why the bus rejects an offer.

use std::time::Duration;

use evoke_model::Amount;
use evoke_model::text::{count, fitting};
use evoke_store::StoreError;
use evoke_telemetry::Refusal;

/// The maximum length of a claimed `source` in an error message, in bytes. A longer one is cut.
const EXCERPT_MAX: usize = 200;

/// Why an offer was rejected. Nothing of the offer was stored, except possibly after the two errors of the store that
/// [`Bus::accept`](super::Bus::accept) names.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// An event is not valid.
    #[error("event {index}: {message}")]
    Invalid {
        /// The index of the event in the offer, from 0.
        index: usize,
        /// The mistake and the correct form.
        message: String,
    },
    /// The producer of an event chose a `source` that belongs to an app or to the runtime.
    #[error(
        "event {index}: its `source` is `{}`, which belongs to {owner}; a producer must set another `source`",
        excerpt(claimed)
    )]
    Claimed {
        /// The index of the event in the offer, from 0.
        index: usize,
        /// The `source` that the producer set.
        claimed: String,
        /// The owner of `claimed`: ``the app `shop` `` or `the runtime`.
        owner: String,
    },
    /// An event exceeds the size limit of the bus.
    #[error("event {index} has {size} bytes; the limit is {max} bytes")]
    TooLarge {
        /// The index of the event in the offer, from 0.
        index: usize,
        /// The size of the event in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The backlog is full.
    #[error(
        "there is no room for more events: {} {} pending, with {} of events; the limits are {} and {}",
        count(backlog.deliveries, "delivery"), fitting(backlog.deliveries, "is", "are"), count(backlog.bytes, "byte"),
        count(max.deliveries, "delivery"), count(max.bytes, "byte")
    )]
    Overloaded {
        /// The pending deliveries of all sources.
        backlog: Amount,
        /// The limits of the backlog.
        max: Amount,
        /// The estimated time until there is room again.
        retry_after: Duration,
    },
    /// The pending deliveries of this source take at least as much room of the backlog as is free. The free room is
    /// reserved for other sources.
    #[error(
        "{} from this source {} pending, with {} of events; the remaining room for {} and {} is reserved for other \
         sources",
        count(owned.deliveries, "delivery"), fitting(owned.deliveries, "is", "are"), count(owned.bytes, "byte"),
        count(free.deliveries, "delivery"), count(free.bytes, "byte")
    )]
    Crowding {
        /// The pending deliveries that this source's events caused.
        owned: Amount,
        /// The room that is left within the limits.
        free: Amount,
        /// The estimated time until there is room for this source again.
        retry_after: Duration,
    },
    /// The schedule (the events that wait for their `notbefore`) is at least half full. The events of this source take
    /// at least as much room as is free, and the free room is reserved for other sources.
    #[error(
        "{} {} `notbefore`, {} in total; the remaining room for {} and {} is reserved for other sources than this one",
        count(scheduled.deliveries, "event"), fitting(scheduled.deliveries, "waits for its", "wait for their"),
        count(scheduled.bytes, "byte"), count(free.deliveries, "event"), count(free.bytes, "byte")
    )]
    ScheduleFull {
        /// The scheduled events of all sources.
        scheduled: Amount,
        /// The room that is left within the limits.
        free: Amount,
        /// The time to wait before a retry.
        retry_after: Duration,
    },
    /// Too many dead letters came of this source's events. Dead letters end only when an operator redrives or purges
    /// them, so without this limit a producer whose events functions reject would fill the disk.
    #[error(
        "{} came of events of this source, with {} of events; the limits are {} and {}: an operator has to redrive or \
         purge dead letters first (`evoke dead`)",
        count(owned.deliveries, "dead letter"), count(owned.bytes, "byte"), count(max.deliveries, "dead letter"),
        count(max.bytes, "byte")
    )]
    DeadLetters {
        /// The dead letters that this source's events caused.
        owned: Amount,
        /// The limits for one source.
        max: Amount,
        /// The time to wait before a retry.
        retry_after: Duration,
    },
    /// The store did not commit the offer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Refused {
    /// Returns the time to wait before a retry, if this rejection is about room.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. }
            | Self::Crowding { retry_after, .. }
            | Self::ScheduleFull { retry_after, .. }
            | Self::DeadLetters { retry_after, .. } => Some(*retry_after),
            Self::Invalid { .. } | Self::Claimed { .. } | Self::TooLarge { .. } | Self::Store(_) => None,
        }
    }

    /// Returns the kind of this rejection, for metrics.
    pub fn reason(&self) -> Refusal {
        match self {
            Self::Invalid { .. } | Self::Claimed { .. } => Refusal::Invalid,
            Self::TooLarge { .. } => Refusal::TooLarge,
            Self::Overloaded { .. } | Self::ScheduleFull { .. } => Refusal::Overloaded,
            Self::Crowding { .. } | Self::DeadLetters { .. } => Refusal::Crowding,
            Self::Store(StoreError::Full) => Refusal::DiskFull,
            Self::Store(StoreError::Busy) => Refusal::StoreBusy,
            Self::Store(
                StoreError::Failed(_)
                | StoreError::Unreachable(_)
                | StoreError::Fenced(_)
                | StoreError::Damaged(_)
                | StoreError::Closed,
            ) => Refusal::StoreFailed,
        }
    }
}

fn excerpt(text: &str) -> String {
    match text.get(..text.floor_char_boundary(EXCERPT_MAX)) {
        Some(start) if start.len() < text.len() => format!("{start}…"),
        _ => text.to_owned(),
    }
}
