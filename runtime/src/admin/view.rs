//! The JSON types of requests and responses. Times are RFC 3339 in UTC; an optional field without a value is absent.

mod delivery;
mod replay;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use evoke_model::clock::rfc3339;
use evoke_model::event::Event;
use evoke_model::state::Entry;
use evoke_model::{CheckReport, DamagedEvent, DeadFilter, DeliveryId, ReadEvent, ReplayId, Seq, StoredEvent};

pub use self::replay::Replay;

/// An event in its CloudEvents JSON form.
pub type EventJson = Box<RawValue>;

/// An event with its metadata in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// Number of the event, in the order of acceptance.
    pub seq: Seq,
    /// When the event was accepted.
    pub accepted: String,
    /// The event; null if it is damaged.
    pub event: EventJson,
    /// Description of the damage on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// Replaces a damaged event in a list. Clients recognise it by its first field, `damaged`: no event starts with that.
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
    /// Whether an event with the same source and id was accepted before; this one was not stored.
    pub duplicate: bool,
}

/// An event with its deliveries and the events they published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Number of the event.
    pub seq: Seq,
    /// When the event was accepted.
    pub accepted: String,
    /// Number of functions in the chain before this event; 0 for an event from a source.
    pub hops: u32,
    /// The delivery that published the event, or that the runtime reports with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_by: Option<DeliveryId>,
    /// Number of the event that started the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Seq>,
    /// The event; null if it is damaged.
    pub event: EventJson,
    /// Description of the damage on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// Deliveries of the event, in order.
    pub deliveries: Vec<Delivery>,
    /// Set if the trace became too large at this event. A trace that starts at this event shows the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// The part of the trace that may be missing because retention removed it; only set at the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// The delivery of one event to one function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// Number of the delivery.
    pub id: DeliveryId,
    /// Number of the event.
    pub event: Seq,
    /// `app/function`.
    pub function: String,
    /// The trigger that matched.
    pub trigger: String,
    /// The order key, if the function has `order_by`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_key: Option<String>,
    /// The replay that made this delivery; absent for a live delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayId>,
    /// `ready`, `retrying`, `blocked`, `done`, `dead` or `purged`; `damaged` if the delivery
    /// cannot be read.
    pub state: String,
    /// Why the delivery became a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When the next attempt is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Completed attempts, in order.
    pub attempts: Vec<Attempt>,
    /// In a trace, the published events and the events of the runtime about this delivery, in order; absent if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Node>,
    /// In a trace that is too large, the number of omitted published events.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

/// One attempt at a delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// When the attempt started.
    pub started: String,
    /// Duration in microseconds.
    pub duration_us: u64,
    /// How the attempt ended: `done`, `retry`, `reject`, `trap`, `timeout`, `out-of-memory`, `denied`, `quota`,
    /// `unavailable`, `damaged`, `loop`.
    pub outcome: String,
    /// Details of the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

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

/// Number of changed or deleted objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Number of objects.
    pub count: u64,
}

/// A bucket of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBucket {
    /// `app/function`, or `app` for the state that the functions of the app share.
    pub bucket: String,
    /// Number of keys.
    pub keys: u64,
    /// Total size of keys and values, in bytes.
    pub bytes: u64,
}

/// A state value: `value` if it is UTF-8 text, else `value_base64`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateValue {
    /// The value as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64 (RFC 4648, section 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// A state key with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// The bucket: `app/function` or `app`.
    pub bucket: String,
    /// The key within the bucket.
    pub key: String,
    /// Version of the write that set the value; higher than the version of every earlier write.
    pub version: u64,
    /// Size of the value in bytes.
    pub bytes: u64,
    /// The value if it is text; absent in lists if it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64 if it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// A change of a state key by an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The bucket: `app/function` or `app`.
    pub bucket: String,
    /// The key within the bucket.
    pub key: String,
    /// Whether the key was deleted; then there is no value.
    pub deleted: bool,
    /// The new value if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The new value in base64 if it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// Status of the process, its functions and sources.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of Evoke.
    pub version: String,
    /// Time since the start, in milliseconds.
    pub uptime_ms: u64,
    /// Number of accepted events, also those that retention has removed.
    pub events: u64,
    /// Events and deliveries that retention removed.
    #[serde(default)]
    pub removed: Removed,
    /// Number of pending deliveries.
    pub pending: u64,
    /// Functions, sorted by name.
    pub functions: Vec<Function>,
    /// Sources, sorted by URI.
    pub sources: Vec<Source>,
}

/// Status of a function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Function {
    /// `app/function`.
    pub name: String,
    /// Whether an active manifest declares the function; if not, its deliveries stay in the store.
    #[serde(rename = "in_force")]
    pub active: bool,
    /// Number of deliveries that run now.
    pub running: u32,
    /// Maximum number of deliveries that run at once; absent if the function is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// How the function is failing; absent if it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// Number of deliveries by state, flattened into this object.
    #[serde(flatten)]
    pub deliveries: Counts,
}

/// Number of deliveries by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Ready to run, or running.
    pub ready: u64,
    /// Waiting for another attempt.
    pub retrying: u64,
    /// Waiting for an earlier delivery with the same order key.
    pub blocked: u64,
    /// Done.
    pub done: u64,
    /// Dead letters.
    pub dead: u64,
    /// Dead letters that were purged.
    pub purged: u64,
    /// How many of the done and purged deliveries retention removed.
    #[serde(default)]
    pub removed: u64,
}

/// Status of a source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    /// The `source` of its events.
    pub uri: String,
    /// `http`, `files` or `timer`.
    pub kind: String,
    /// `ok` or `degraded`.
    pub state: String,
    /// Why the source is degraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// Numbers of events and deliveries that retention removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Number of events.
    pub events: u64,
    /// Number of their live deliveries.
    pub owed: u64,
    /// Number of their deliveries from replays.
    #[serde(default)]
    pub replayed: u64,
    /// Number of the newest removed event; any earlier event may be removed too.
    pub to: Seq,
}

/// Result of `check`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// Number of accepted events, also those that retention has removed.
    pub events: u64,
    /// Number of live deliveries of these events.
    pub owed: u64,
    /// Number of deliveries that replays added.
    #[serde(default)]
    pub replayed: u64,
    /// How many of these retention removed.
    pub removed: Removed,
    /// Number of deliveries by state, for each function.
    pub functions: BTreeMap<String, Counts>,
    /// Problems found; empty if conservation and integrity hold.
    pub problems: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Returns the JSON form of an event on one line, for NDJSON lists.
pub(super) fn event_json(event: &Event) -> EventJson {
    // `to_json` always returns valid JSON; null is a fallback that needs no panic.
    RawValue::from_string(event.to_json()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl From<&StoredEvent> for Envelope {
    fn from(stored: &StoredEvent) -> Self {
        let (seq, accepted) = (stored.seq, rfc3339(stored.accepted_ms));
        Self { seq, accepted, event: event_json(&stored.event), damaged: None }
    }
}

impl From<&ReadEvent> for Envelope {
    fn from(read: &ReadEvent) -> Self {
        match read {
            Ok(stored) => stored.into(),
            Err(DamagedEvent { seq, what }) => {
                let (event, damaged) = (RawValue::NULL.to_owned(), Some(what.to_string()));
                Self { seq: *seq, accepted: rfc3339(0), event, damaged }
            }
        }
    }
}

impl From<&ReadEvent> for Node {
    fn from(read: &ReadEvent) -> Self {
        let Envelope { seq, accepted, event, damaged } = read.into();
        let lineage = read.as_ref().map(|stored| stored.lineage).unwrap_or_default();
        let evoke_model::Lineage { cause: published_by, root, hops, .. } = lineage;
        let deliveries = Vec::new();
        Self { seq, accepted, hops, published_by, root, event, damaged, deliveries, cut: None, missing: None }
    }
}

impl From<evoke_model::AttemptRecord> for Attempt {
    fn from(record: evoke_model::AttemptRecord) -> Self {
        let evoke_model::AttemptRecord { attempt, started_ms, duration_us, outcome, message } = record;
        Self { attempt, started: rfc3339(started_ms), duration_us, outcome: outcome.into_owned(), message }
    }
}

impl From<&evoke_model::Counts> for Counts {
    fn from(counts: &evoke_model::Counts) -> Self {
        let evoke_model::Counts { ready, retrying, blocked, done, dead, purged, removed } = *counts;
        Self { ready, retrying, blocked, done, dead, purged, removed }
    }
}

impl From<evoke_model::Removed> for Removed {
    fn from(removed: evoke_model::Removed) -> Self {
        let evoke_model::Removed { events, owed, replayed, to } = removed;
        Self { events, owed, replayed, to }
    }
}

impl From<CheckReport> for Check {
    fn from(report: CheckReport) -> Self {
        let evoke_model::Totals { events, owed, replayed, removed, functions } = report.totals;
        let functions = functions.iter().map(|(name, counts)| (name.clone(), counts.into())).collect();
        Self { events, owed, replayed, removed: removed.into(), functions, problems: report.problems }
    }
}

impl StateValue {
    /// Encodes bytes as text if they are UTF-8, else as base64.
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { value: Some(text.to_owned()), value_base64: None },
            Err(_) => Self { value: None, value_base64: Some(STANDARD.encode(bytes)) },
        }
    }

    /// Decodes the bytes. The error message contains the expected form.
    pub(super) fn bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Self { value: Some(text), value_base64: None } => Ok(text.into_bytes()),
            Self { value: None, value_base64: Some(encoded) } => {
                STANDARD.decode(encoded).map_err(|error| format!("value_base64 is not base64: {error}"))
            }
            _ => Err(r#"send {"value": "text"} or {"value_base64": "dGV4dA=="}"#.into()),
        }
    }
}

impl StateEntry {
    /// Makes an entry; leaves the value out if it has more than `bytes_max` bytes.
    pub(super) fn new(bucket: &str, key: &str, entry: &Entry, bytes_max: usize) -> Self {
        let is_short = entry.value.len() <= bytes_max;
        let StateValue { value, value_base64 } =
            if is_short { StateValue::of(&entry.value) } else { StateValue::default() };
        let (bucket, key, bytes) = (bucket.to_owned(), key.to_owned(), entry.value.len() as u64);
        Self { bucket, key, version: entry.version, bytes, value, value_base64 }
    }
}

impl StateChange {
    /// Makes a change that sets the key to `value`; `None` deletes it.
    pub fn new(bucket: &str, key: &str, value: Option<&Bytes>) -> Self {
        let deleted = value.is_none();
        let StateValue { value, value_base64 } = value.map(|value| StateValue::of(value)).unwrap_or_default();
        Self { bucket: bucket.to_owned(), key: key.to_owned(), deleted, value, value_base64 }
    }
}

impl DeadSelection {
    /// Converts to a filter of the store; `None` for `{"all": false}`.
    pub(super) fn into_filter(self) -> Option<DeadFilter> {
        match self {
            Self::Delivery(id) => Some(DeadFilter::Delivery(id)),
            Self::Function(name) => Some(DeadFilter::Function(name)),
            Self::All(all) => all.then_some(DeadFilter::All),
        }
    }
}
