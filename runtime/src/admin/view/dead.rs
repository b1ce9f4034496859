//! The JSON form of dead letters, and of their selection.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::event::Envelope;
use super::trace::Delivery;
use evoke_model::{DeliveryId, Seq};

/// A dead letter with its event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The delivery, with its cause and attempts.
    pub delivery: Delivery,
    /// The event; without its data in lists.
    pub event: Envelope,
}

/// Dead letters of one function with the same cause.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadGroup {
    /// `app/function`.
    pub function: String,
    /// The cause, with `#` in place of each number.
    pub cause: String,
    /// Number of dead letters.
    pub count: u64,
    /// The time of the first of these dead letters: the end of its last attempt. Absent if none of them had an attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// The time of the last of these dead letters: the end of its last attempt. Absent if none of them had an
    /// attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    /// The dead letter with the highest delivery number.
    pub newest: DeliveryId,
}

/// Selects dead letters: one by its number (`delivery`), all that meet the given conditions, or all (`all`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadSelection {
    /// The dead letter with this delivery number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryId>,
    /// Only the dead letters of this function, `app/function`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Only dead letters whose cause contains this text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Only dead letters of events of this type; a trailing `*` matches any ending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<String>,
    /// Only dead letters whose last attempt ended at this time or later, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Only dead letters whose last attempt ended before this time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// True to select all dead letters.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all: bool,
    /// True to change nothing, and only count the selected dead letters.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

impl DeadSelection {
    /// Returns true if at least one of the conditions `function`, `cause`, `type`, `since` and `until` is given.
    pub fn has_conditions(&self) -> bool {
        let Self { function, cause, r#type, since, until, .. } = self;
        [function, cause, r#type, since, until].iter().any(|condition| condition.is_some())
    }
}

/// New data for the event of a dead letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// The data, any JSON value.
    pub data: Box<RawValue>,
}

/// Result of an edit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Edited {
    /// Id of the new event.
    pub id: String,
    /// Number of the new event. Its only delivery is to the function of the dead letter.
    pub seq: Seq,
}
