//! The JSON form of pending deliveries, and of their selection.

use serde::{Deserialize, Serialize};

use super::event::Envelope;
use super::trace::Delivery;
use evoke_model::{DeliveryId, PendingFilter, Seq};

/// A delivery that is not finished, with its event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pending {
    /// The delivery, with its attempts.
    pub delivery: Delivery,
    /// The event, without its data.
    pub event: Envelope,
    /// When the running attempt started; absent if no attempt runs now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_since: Option<String>,
    /// The reason why the function starts no attempts: `paused`, `compiling` if its component is still being compiled
    /// after the start, or `inactive` if no active manifest declares the function. Absent if the function may start
    /// attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// If this delivery is blocked: the delivery for which it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked_by: Option<Blocker>,
}

/// A delivery for which others wait: the first unfinished delivery with an order key blocks all later deliveries with
/// the same key.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blocker {
    /// Number of the blocking delivery.
    pub delivery: DeliveryId,
    /// The state of the blocking delivery. A dead letter (`dead`) blocks its order key until it is redriven or purged.
    pub state: String,
}

/// Selects pending deliveries: `{"delivery": 7}`, `{"function": "app/function"}`, `{"root": 17}` or `{"all": true}`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PendingSelection {
    /// The delivery with this number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    /// All pending deliveries of a function, `app/function`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// All pending deliveries of the event with this number and of all events that it caused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Seq>,
    /// True to select all pending deliveries.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// True to change nothing, and only count the selected deliveries.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Moves the pending deliveries of an inactive function, which no active manifest declares, to an active function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// The function that has the deliveries, `app/function`.
    pub from: String,
    /// The function that receives the deliveries, `app/function`.
    pub to: String,
    /// True to change nothing, and only count the deliveries.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl PendingSelection {
    /// Converts the selection to a filter of the store. Returns `None` unless exactly one of `delivery`, `function`,
    /// `root` and `all` is given.
    pub(in crate::admin) fn to_filter(&self) -> Option<PendingFilter> {
        match self {
            Self { delivery: Some(id), function: None, root: None, all: false, .. } => {
                Some(PendingFilter::Delivery(*id))
            }
            Self { delivery: None, function: Some(name), root: None, all: false, .. } => {
                Some(PendingFilter::Function(name.clone()))
            }
            Self { delivery: None, function: None, root: Some(seq), all: false, .. } => Some(PendingFilter::Root(*seq)),
            Self { delivery: None, function: None, root: None, all: true, .. } => Some(PendingFilter::All),
            _ => None,
        }
    }
}
