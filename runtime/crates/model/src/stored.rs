//! Events as callers pass them to the store, and as the store returns them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::event::Event;
use crate::{DeliveryId, NewDelivery, Origin, Seq};

/// The cause of an event, and the chain of events to which it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lineage {
    /// The delivery that caused the event. Either the function of the delivery published the event, or the event is a
    /// runtime event that reports the failure of the delivery. `None` for an event from outside.
    pub cause: Option<DeliveryId>,
    /// The event from outside that started the chain. `None` if this event started the chain.
    pub root: Option<Seq>,
    /// Number of functions that the chain passed through before this event.
    pub hops: u32,
    /// The source through which the chain entered the runtime. The limit of pending deliveries is shared between
    /// sources; deliveries of the chain count towards the share of this source.
    pub origin: Origin,
}

impl Lineage {
    /// Returns the source through which the event itself entered. Returns `None` for an event that a function
    /// published, and for a runtime event about a delivery.
    ///
    /// Deduplication compares this value together with `source` and `id`, so an event of one source never makes an
    /// event of another source a duplicate.
    pub fn entered(&self) -> Option<Origin> {
        self.cause.is_none().then_some(self.origin)
    }
}

/// The limits on the events that functions publish, directly or through other functions, because of one event from
/// outside. Without these limits, functions that publish to each other in a loop could fill the store with the events
/// of one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescendantsMax {
    /// The maximum number of events.
    pub events: u64,
    /// The maximum total size of the events in bytes.
    pub bytes: u64,
}

impl Default for DescendantsMax {
    fn default() -> Self {
        Self { events: 10_000, bytes: 64 << 20 }
    }
}

/// The limits on the events that one event from outside causes: the limits of the source through which that event
/// entered, or else `default`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DescendantsLimits {
    /// The limits of chains that entered through a source that is not in `origins`, or through no source.
    pub default: DescendantsMax,
    /// Limits by the source through which a chain entered.
    pub origins: HashMap<Origin, DescendantsMax>,
}

impl DescendantsLimits {
    /// Returns the limits of a chain that entered through a source.
    pub fn of(&self, origin: Origin) -> DescendantsMax {
        self.origins.get(&origin).copied().unwrap_or(self.default)
    }
}

impl From<DescendantsMax> for DescendantsLimits {
    fn from(default: DescendantsMax) -> Self {
        Self { default, ..Self::default() }
    }
}

/// An event to be stored, with its deliveries.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event as the producer or the function sent it.
    pub event: Arc<Event>,
    /// The event's cause, root, hop count and origin.
    pub lineage: Lineage,
    /// One delivery for each function whose triggers matched.
    pub deliveries: Vec<NewDelivery>,
}

/// A value that a source stores in the same commit as its events, e.g. a timer's last tick or a file's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The source that owns the mark.
    pub scope: String,
    /// The name of the mark within its scope.
    pub key: String,
    /// The value to store; `None` deletes the mark.
    pub value: Option<Vec<u8>>,
}

/// The result of accepting one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The event was stored at this position.
    New(Seq),
    /// The event was not stored, because an event with the same origin, source and id was accepted within the dedup
    /// window. That event is stored at this position.
    Duplicate(Seq),
}

/// An event as read from the store.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// The event's position in accept order.
    pub seq: Seq,
    /// When the event was accepted: by store time if the event is read for a delivery, by the wall clock if it is read
    /// for inspection.
    pub accepted_ms: UnixMs,
    /// The event's cause, root, hop count and origin.
    pub lineage: Lineage,
    /// The event itself.
    pub event: Arc<Event>,
}
