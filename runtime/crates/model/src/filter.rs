//! Filters for events and dead letters, and the retention limits.

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
    /// Only events with a delivery to this function, given by its full name.
    pub function: Option<String>,
    /// Only events with a delivery in one of these states, to `function` if that is given; empty for any state.
    pub states: Vec<DeliveryState>,
    /// Only events after this position, listed in ascending order. With `None`, the newest events are listed.
    pub after: Option<Seq>,
    /// Only events after this position. If they are more than `limit`, the newest of them are listed.
    pub above: Option<Seq>,
    /// Only events before this position.
    pub before: Option<Seq>,
    /// Only events that were accepted at this time or later.
    pub since_ms: Option<UnixMs>,
    /// Only events that were accepted before this time.
    pub until_ms: Option<UnixMs>,
    /// The maximum number of events to return.
    pub limit: usize,
    /// The list ends with the event at which the total size of the events reaches this many bytes; `None` for no limit.
    pub bytes_max: Option<usize>,
}

impl EventFilter {
    /// Returns the size of an event as `bytes_max` counts it; a damaged event counts nothing.
    pub fn size_of(read: &ReadEvent) -> usize {
        read.as_ref().map_or(0, |stored| stored.event.size())
    }

    /// Returns true if a list with these limits has reached one of them, so that more events may follow.
    pub fn is_cut(found: &[ReadEvent], limit: usize, bytes_max: Option<usize>) -> bool {
        let bytes = || found.iter().map(Self::size_of).sum::<usize>();
        found.len() >= limit || bytes_max.is_some_and(|max| bytes() >= max)
    }

    /// Collects events until they reach [`EventFilter::bytes_max`].
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
    /// All dead letters of a function, given by its full name.
    Function(String),
    /// One dead letter, given by its delivery id.
    Delivery(DeliveryId),
    /// The dead letters among these deliveries. The ids must be in ascending order.
    Deliveries(Arc<[DeliveryId]>),
}

/// A dead letter without its attempts, for lists and groups.
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
    /// When its last attempt ended, by the wall clock; `None` for a delivery without attempts.
    pub ended_ms: Option<UnixMs>,
}

/// Selects pending deliveries: ready, retrying or blocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingFilter {
    /// All pending deliveries.
    All,
    /// All pending deliveries of a function, given by its full name.
    Function(String),
    /// All pending deliveries of an event and of the events that it caused, through any number of functions.
    Root(Seq),
    /// One delivery.
    Delivery(DeliveryId),
}

/// Limits for finished events. Events with a pending or dead delivery are never removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Maximum age since acceptance.
    pub age: Duration,
    /// Maximum size of the store in bytes, not counting its free pages.
    pub bytes: u64,
}
