//! The progress of a chain. A chain is an event that came from outside, and all events that it caused.

use crate::{DeliveryId, ReadEvent};

/// The progress of a chain, for a caller that waits until a function of the chain publishes an event of a wanted type.
/// The runtime's own events and their deliveries are not part of a chain.
#[derive(Debug, Clone)]
pub enum ChainState {
    /// A function of the chain published an event of a wanted type. The field is the first such event.
    Published(ReadEvent),
    /// No event of a wanted type was published, and a delivery of the chain is a dead letter.
    Dead {
        /// The first dead letter of the chain.
        delivery: DeliveryId,
        /// The [kind](crate::outcome::Outcome::kind) of the outcome of the delivery's last attempt; [`CANCELLED`] if an
        /// operator cancelled the delivery, or if it had no attempt.
        kind: String,
    },
    /// No event of a wanted type was published yet, and deliveries of the chain are pending.
    Pending,
    /// No event of a wanted type was published, and no delivery of the chain is pending.
    Finished,
}

/// The kind of a dead letter that an operator made by cancelling a pending delivery.
pub const CANCELLED: &str = "cancelled";

impl ChainState {
    /// Returns the state of a chain whose first dead letter is `delivery`. `cause` is the cause of the dead letter.
    /// `last_outcome` is the kind of the outcome of the delivery's last attempt; `None` if there was no attempt.
    pub fn dead(delivery: DeliveryId, cause: Option<&str>, last_outcome: Option<String>) -> Self {
        // Attempts may have failed before the cancellation, so the last outcome alone does not show the cancellation.
        let is_cancelled = cause.is_some_and(|cause| cause.starts_with(CANCELLED)) || last_outcome.is_none();
        let kind = last_outcome.filter(|_| !is_cancelled).unwrap_or_else(|| CANCELLED.to_owned());
        Self::Dead { delivery, kind }
    }
}
