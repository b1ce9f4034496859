//! The JSON form of pauses, and of the selection of pending deliveries.

use serde::{Deserialize, Serialize};

use evoke_model::{DeliveryId, PendingFilter, Seq};

/// A function or an app to pause or resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PauseTarget {
    /// `app/function`, or `app` for all of its functions.
    pub name: String,
}

/// The result of a pause or a resume.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// False if it was so before.
    pub changed: bool,
}

/// Selects pending deliveries: `{"delivery": 7}`, `{"function": "app/function"}` or `{"root": 17}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PendingSelection {
    /// The delivery with this number.
    Delivery(DeliveryId),
    /// All pending deliveries of a function, `app/function`.
    Function(String),
    /// All pending deliveries of the event with this number and of all events that it caused.
    Root(Seq),
}

impl From<PendingSelection> for PendingFilter {
    fn from(selection: PendingSelection) -> Self {
        match selection {
            PendingSelection::Delivery(id) => Self::Delivery(id),
            PendingSelection::Function(name) => Self::Function(name),
            PendingSelection::Root(seq) => Self::Root(seq),
        }
    }
}
