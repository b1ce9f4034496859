//! The progress of a chain: of an event from outside and of the events that it caused.

use crate::{DeliveryId, ReadEvent};

/// The progress of a chain as seen by a caller that waits for one of its events. The runtime's own events and their
/// deliveries are not part of a chain.
#[derive(Debug, Clone)]
pub enum ChainState {
    /// A function of the chain published an event of a wanted type; the first of these events.
    Published(ReadEvent),
    /// There is no such event, and a delivery of the chain is a dead letter.
    Dead {
        /// The first of these deliveries.
        delivery: DeliveryId,
        /// The [kind](crate::outcome::Outcome::kind) of its last outcome, or [`CANCELLED`].
        kind: String,
    },
    /// There is no such event yet, and deliveries of the chain are pending.
    Pending,
    /// There is no such event, and no delivery of the chain is pending.
    Finished,
}

/// The kind of a dead letter that results from the cancellation of a pending delivery by an operator.
pub const CANCELLED: &str = "cancelled";

impl ChainState {
    /// Returns the state of a chain with this dead letter, by its cause and the kind of its last attempt's outcome.
    pub fn dead(delivery: DeliveryId, cause: Option<&str>, last_outcome: Option<String>) -> Self {
        // A cancelled delivery may have had attempts that failed.
        let is_cancelled = cause.is_some_and(|cause| cause.starts_with(CANCELLED)) || last_outcome.is_none();
        let kind = last_outcome.filter(|_| !is_cancelled).unwrap_or_else(|| CANCELLED.to_owned());
        Self::Dead { delivery, kind }
    }
}
