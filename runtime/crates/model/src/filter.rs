//! Filters for events, dead letters and pending deliveries, and the retention limits.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::UnixMs;
use crate::{DeliveryId, DeliveryState, ReadEvent, Seq};

/// Selects events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only events of this type; a trailing `*` matches any ending.
    pub type_: Option<String>,
    /// Only events of this source.
    pub source: Option<String>,
    /// Only events with a delivery to the function that has this full name, `app/function`.
    pub function: Option<String>,
    /// Only events with a delivery in one of these states. If `function` is set, this delivery must be to the function.
    /// An empty list means any state.
    pub states: Vec<DeliveryState>,
    /// Only events after this position, listed in ascending order. With `None`, the newest events are listed.
    pub after: Option<Seq>,
    /// Only events after this position. If more than `limit` events match, the newest ones are listed.
    pub above: Option<Seq>,
    /// Only events before this position.
    pub before: Option<Seq>,
    /// Only events that were accepted at this time of the wall clock or later.
    pub since_ms: Option<UnixMs>,
    /// Only events that were accepted before this time of the wall clock.
    pub until_ms: Option<UnixMs>,
    /// The maximum number of events to return.
    pub limit: usize,
    /// The list ends as soon as the total size of its events is at least this many bytes, even if more events match;
    /// `None` for no limit.
    pub bytes_max: Option<usize>,
}

impl EventFilter {
    /// Returns the number of bytes that an event counts towards `bytes_max`; 0 for a damaged event.
    pub fn size_of(read: &ReadEvent) -> usize {
        read.as_ref().map_or(0, |stored| stored.event.size())
    }

    /// Returns true if the list `found` ended at one of the limits. There can then be more events that match.
    pub fn is_cut(found: &[ReadEvent], limit: usize, bytes_max: Option<usize>) -> bool {
        let bytes = || found.iter().map(Self::size_of).sum::<usize>();
        found.len() >= limit || bytes_max.is_some_and(|max| bytes() >= max)
    }

    /// Collects events until their total size reaches [`EventFilter::bytes_max`].
    pub fn take<E>(&self, events: impl Iterator<Item = Result<ReadEvent, E>>) -> Result<Vec<ReadEvent>, E> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        for read in events {
            let read = read?;
            bytes += Self::size_of(&read);
            found.push(read);
            if self.bytes_max.is_some_and(|max| bytes >= max) {
                break;
            }
        }
        Ok(found)
    }
}

/// Selects dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadFilter {
    /// All dead letters.
    All,
    /// All dead letters of the function that has this full name.
    Function(String),
    /// The dead letter that has this delivery id.
    Delivery(DeliveryId),
    /// The dead letters among these deliveries. The ids must be in ascending order.
    Deliveries(Arc<[DeliveryId]>),
}

/// A dead letter without the records of its attempts, for lists and groups of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadSummary {
    /// The delivery's id.
    pub id: DeliveryId,
    /// The position of its event.
    pub event: Seq,
    /// The function's full name.
    pub function: String,
    /// Why the delivery became a dead letter.
    pub cause: String,
    /// When the last attempt ended, by the wall clock; `None` for a delivery without attempts.
    pub ended_ms: Option<UnixMs>,
}

/// Selects pending deliveries: ready, retrying or blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingFilter {
    /// All pending deliveries.
    All,
    /// All pending deliveries of the function that has this full name.
    Function(String),
    /// All pending deliveries of an event and of the events that it caused, through any number of functions.
    Root(Seq),
    /// One delivery.
    Delivery(DeliveryId),
}

/// The limits beyond which finished events are removed from the store. An event that has a pending delivery or a dead
/// letter is never removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Maximum time since the event was accepted.
    pub age: Duration,
    /// Maximum size of the store in bytes, not counting its free pages.
    pub bytes: u64,
}
