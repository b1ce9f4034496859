//! The JSON form of stored events, and of the response to posted ones.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use evoke_model::clock::rfc3339;
use evoke_model::event::Event;
use evoke_model::{DamagedEvent, ReadEvent, Seq, StoredEvent};
use evoke_store::InspectionStore;

/// An event in its CloudEvents JSON form.
pub type EventJson = Box<RawValue>;

/// An event with its metadata in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// Number of the event, in the order of acceptance.
    pub seq: Seq,
    /// When the event was accepted.
    pub accepted: String,
    /// The source through which the first event of the chain entered, as the runtime recorded it; `/evoke/emit` if an
    /// operator sent the first event. Unlike this field, the `source` in the event may be a claim of its producer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The verified sender of an event that entered through a source with `auth`, such as `github:new`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// When the event is delivered, if it waits for the time in its attribute `notbefore`. Only in the response for one
    /// event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// The event; null if it is damaged.
    pub event: EventJson,
    /// Description of the damage on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// The line of a damaged event in a list. Clients recognise it by its first field, `damaged`: no event starts with this
/// field.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Damaged {
    /// Description of the damage on disk.
    pub damaged: String,
    /// Number of the event.
    pub seq: Seq,
}

/// Response to posted events.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Posted {
    /// One entry per posted event, in the same order.
    pub accepted: Vec<PostedEvent>,
}

/// Result for one posted event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PostedEvent {
    /// Id of the event; generated if the posted event had none.
    pub id: String,
    /// Number of the event.
    pub seq: Seq,
    /// True if the event was not stored, because an event with the same source and id was accepted before.
    pub duplicate: bool,
    /// When the event is delivered, if it waits for the time in its attribute `notbefore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
}

/// Returns the JSON form of an event on one line, for NDJSON lists.
fn event_json(event: &Event) -> EventJson {
    // `to_json` always returns valid JSON; null is a fallback that needs no panic.
    RawValue::from_string(event.to_json()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl Envelope {
    /// Returns the envelope of an event. Gets the URI of the event's origin from `store`.
    pub(in crate::admin) fn of(store: &dyn InspectionStore, read: &ReadEvent) -> Self {
        let uri = read.as_ref().ok().and_then(|stored| store.origin_uri(stored.lineage.origin));
        Self { origin: uri.map(|uri| uri.to_string()), ..read.into() }
    }
}

impl From<&StoredEvent> for Envelope {
    fn from(stored: &StoredEvent) -> Self {
        let (seq, accepted) = (stored.seq, rfc3339(stored.accepted_ms));
        let principal = stored.event.principal.as_deref().map(str::to_owned);
        let event = event_json(&stored.event);
        Self { seq, accepted, origin: None, principal, due: None, event, damaged: None }
    }
}

impl From<&ReadEvent> for Envelope {
    fn from(read: &ReadEvent) -> Self {
        match read {
            Ok(stored) => stored.into(),
            Err(DamagedEvent { seq, what }) => {
                let (event, damaged) = (RawValue::NULL.to_owned(), Some(what.to_string()));
                let (seq, accepted) = (*seq, rfc3339(0));
                Self { seq, accepted, origin: None, principal: None, due: None, event, damaged }
            }
        }
    }
}
