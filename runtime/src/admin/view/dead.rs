//! The JSON form of dead letters, and of their selection.

use serde::{Deserialize, Serialize};

use super::event::Envelope;
use super::trace::Delivery;
use evoke_model::{DeadFilter, DeliveryId};

/// A dead letter with its event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The delivery, with its cause and attempts.
    pub delivery: Delivery,
    /// The event; without its data in lists.
    pub event: Envelope,
}

/// Selects dead letters: `{"delivery": 7}`, `{"function": "app/function"}` or `{"all": true}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeadSelection {
    /// The dead letter with this delivery number.
    Delivery(DeliveryId),
    /// All dead letters of a function, `app/function`.
    Function(String),
    /// All dead letters. `{"all": false}` selects nothing and is rejected.
    All(bool),
}

impl DeadSelection {
    /// Converts to a filter of the store; `None` for `{"all": false}`.
    pub(in crate::admin) fn into_filter(self) -> Option<DeadFilter> {
        match self {
            Self::Delivery(id) => Some(DeadFilter::Delivery(id)),
            Self::Function(name) => Some(DeadFilter::Function(name)),
            Self::All(all) => all.then_some(DeadFilter::All),
        }
    }
}
