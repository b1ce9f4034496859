//! What the API answers and takes, as JSON. Times are RFC 3339 in UTC; an optional member is absent when there is none.

mod replay;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::rfc3339;
use crate::event::Event;
use crate::state::Entry;
use crate::store::{self, CheckReport, DeadFilter, DeliveryId, DeliveryRecord, ReplayId, Seq, StoredEvent};

pub use self::replay::Replay;

/// An event in its CloudEvents JSON form.
pub type EventJson = Box<RawValue>;

/// An event with what the store knows about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// Its position in the order of accepted events.
    pub seq: Seq,
    /// When it was accepted.
    pub accepted: String,
    /// The event; null when it is damaged.
    pub event: EventJson,
    /// What is wrong with it on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// What stands in a list in place of an event that is damaged: `damaged` comes first, as it does in no event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Damaged {
    /// What is wrong with it on disk.
    pub damaged: String,
    /// Its position.
    pub seq: Seq,
}

/// What became of events that were posted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Posted {
    /// One for each, in their order.
    pub accepted: Vec<PostedEvent>,
}

/// What became of one event that was posted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PostedEvent {
    /// Its id, which may have been filled in.
    pub id: String,
    /// Its position.
    pub seq: Seq,
    /// Whether its source and id were known: nothing was stored now.
    pub duplicate: bool,
}

/// An event and all that followed from it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Its position.
    pub seq: Seq,
    /// When it was accepted.
    pub accepted: String,
    /// How many functions the chain went through to it; 0 for an event from outside.
    pub hops: u32,
    /// The delivery whose function published it, or that the runtime tells of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published_by: Option<DeliveryId>,
    /// The event from outside that started the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Seq>,
    /// The event; null when it is damaged.
    pub event: EventJson,
    /// What is wrong with it on disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// The deliveries that it is owed, in order.
    pub deliveries: Vec<Delivery>,
    /// Why its deliveries are not shown, when they are not: the trace got too large here. Tracing this event shows them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
    /// What of the trace may be missing because retention removed it; at most at the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// One event owed to one function.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number.
    pub id: DeliveryId,
    /// The event.
    pub event: Seq,
    /// `app/function`.
    pub function: String,
    /// The trigger that matched.
    pub trigger: String,
    /// Its order key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_key: Option<String>,
    /// The replay that offered the event again; absent for a live delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayId>,
    /// `ready`, `retrying`, `blocked`, `done`, `dead` or `purged`; `damaged` when nothing else is known of it.
    pub state: String,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// The attempts that ended, in order.
    pub attempts: Vec<Attempt>,
    /// In a trace, the events that it published, and what the runtime tells of it, in order; absent when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub published: Vec<Node>,
    /// In a trace that got too large, how many published events are left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: usize,
}

/// One try at a delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts from 1.
    pub attempt: u32,
    /// When it started.
    pub started: String,
    /// How long it took.
    pub duration_us: u64,
    /// How it ended: `done`, `retry`, `reject`, `trap`, `timeout`, `out-of-memory`, `denied`, `quota`, `unavailable`,
    /// `damaged`, `loop`.
    pub outcome: String,
    /// What is known beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A delivery that was given up, with its event.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The delivery.
    pub delivery: Delivery,
    /// The event; in lists without its data.
    pub event: Envelope,
}

/// Which dead letters are meant: `{"delivery": 7}`, `{"function": "app/function"}` or `{"all": true}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Which {
    /// One, by the number of its delivery.
    Delivery(DeliveryId),
    /// Those of a function.
    Function(String),
    /// All, when this is `true`; none otherwise, which is refused.
    All(bool),
}

/// How many there were.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The number.
    pub count: u64,
}

/// A bucket of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBucket {
    /// `app/function`, or `app` for the one that the app's functions share.
    pub bucket: String,
    /// How many keys it has.
    pub keys: u64,
    /// Bytes of its keys and values together.
    pub bytes: u64,
}

/// A value of state: `value` when it is text, else `value_base64`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateValue {
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64 (RFC 4648, section 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// A key of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Of the write that the value is from; higher than that of any earlier write.
    pub version: u64,
    /// Of the value.
    pub bytes: u64,
    /// The value; in lists only a short one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// What an attempt makes of a key; `deleted` without a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// Whether it is gone.
    pub deleted: bool,
    /// The value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value where it is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// How everything is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Of the program.
    pub version: String,
    /// How long it has been running.
    pub uptime_ms: u64,
    /// Events that were accepted.
    pub events: u64,
    /// What of these, and of their deliveries, retention removed.
    #[serde(default)]
    pub removed: Removed,
    /// Deliveries that are owed now.
    pub pending: u64,
    /// The functions, by name.
    pub functions: Vec<Function>,
    /// The sources, by URI.
    pub sources: Vec<Source>,
}

/// How a function is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Function {
    /// `app/function`.
    pub name: String,
    /// Whether a manifest declares it now; its deliveries stay when none does.
    pub in_force: bool,
    /// How many of its deliveries run now.
    pub running: u32,
    /// How many run at once at most; absent when it is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// In what way it is failing; absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// Its deliveries, as members beside these.
    #[serde(flatten)]
    pub deliveries: Counts,
}

/// Deliveries by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Ready to run, or running.
    pub ready: u64,
    /// Waiting for another attempt.
    pub retrying: u64,
    /// Waiting for an earlier one of their order key.
    pub blocked: u64,
    /// Done.
    pub done: u64,
    /// Given up.
    pub dead: u64,
    /// Given up and let go.
    pub purged: u64,
    /// Of those that are done or purged, how many retention removed.
    #[serde(default)]
    pub removed: u64,
}

/// How a source is doing.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    /// The `source` of its events.
    pub uri: String,
    /// `http`, `files` or `timer`.
    pub kind: String,
    /// `ok` or `degraded`.
    pub state: String,
    /// Why it is degraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

/// What retention removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Events.
    pub events: u64,
    /// Deliveries that they were owed.
    pub owed: u64,
    /// Deliveries that replays had added.
    #[serde(default)]
    pub replayed: u64,
    /// The newest of them: events up to here may be gone.
    pub to: Seq,
}

/// What `check` found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Check {
    /// Events that were accepted.
    pub events: u64,
    /// Deliveries that these were owed.
    pub owed: u64,
    /// Deliveries that replays added.
    #[serde(default)]
    pub replayed: u64,
    /// What of these retention removed.
    pub removed: Removed,
    /// Deliveries by function.
    pub functions: BTreeMap<String, Counts>,
    /// What is wrong; nothing, when conservation and integrity hold.
    pub problems: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // what serde calls
fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// The JSON form on one line, so that it can be a line of a list.
pub(super) fn event_json(event: &Event) -> EventJson {
    // What an event gives is JSON; null stands where it should not be.
    RawValue::from_string(event.to_json()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

impl From<&StoredEvent> for Envelope {
    fn from(stored: &StoredEvent) -> Self {
        let damaged = stored.damage.as_deref().map(Into::into);
        let event = if damaged.is_some() { RawValue::NULL.to_owned() } else { event_json(&stored.event) };
        Self { seq: stored.seq, accepted: rfc3339(stored.accepted_ms), event, damaged }
    }
}

impl From<&StoredEvent> for Node {
    fn from(stored: &StoredEvent) -> Self {
        let Envelope { seq, accepted, event, damaged } = stored.into();
        let store::Lineage { cause: published_by, root, hops, .. } = stored.lineage;
        let deliveries = Vec::new();
        Self { seq, accepted, hops, published_by, root, event, damaged, deliveries, cut: None, missing: None }
    }
}

impl From<DeliveryRecord> for Delivery {
    fn from(record: DeliveryRecord) -> Self {
        Self {
            id: record.id,
            event: record.event,
            function: record.function,
            trigger: record.trigger,
            order_key: record.order_key,
            replay: record.replay,
            state: if record.damage.is_some() { "damaged" } else { record.state.name() }.into(),
            cause: record.damage.or(record.cause),
            due: record.due_ms.map(rfc3339),
            attempts: record.attempts.into_iter().map(Attempt::from).collect(),
            published: Vec::new(),
            omitted: 0,
        }
    }
}

impl From<store::AttemptRecord> for Attempt {
    fn from(record: store::AttemptRecord) -> Self {
        let store::AttemptRecord { attempt, started_ms, duration_us, outcome, message } = record;
        Self { attempt, started: rfc3339(started_ms), duration_us, outcome: outcome.into_owned(), message }
    }
}

impl From<&store::Counts> for Counts {
    fn from(counts: &store::Counts) -> Self {
        let store::Counts { ready, retrying, blocked, done, dead, purged, removed } = *counts;
        Self { ready, retrying, blocked, done, dead, purged, removed }
    }
}

impl From<store::Removed> for Removed {
    fn from(removed: store::Removed) -> Self {
        let store::Removed { events, owed, replayed, to } = removed;
        Self { events, owed, replayed, to }
    }
}

impl From<CheckReport> for Check {
    fn from(report: CheckReport) -> Self {
        let store::Totals { events, owed, replayed, removed, functions } = report.totals;
        let functions = functions.iter().map(|(name, counts)| (name.clone(), counts.into())).collect();
        Self { events, owed, replayed, removed: removed.into(), functions, problems: report.problems }
    }
}

impl StateValue {
    /// The form of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { value: Some(text.to_owned()), value_base64: None },
            Err(_) => Self { value: None, value_base64: Some(STANDARD.encode(bytes)) },
        }
    }

    /// The bytes; the error says what would be right.
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
    /// A key with its value, or without it where there are more bytes than `bytes_max`.
    pub(super) fn new(bucket: &str, key: &str, entry: &Entry, bytes_max: usize) -> Self {
        let is_short = entry.value.len() <= bytes_max;
        let StateValue { value, value_base64 } =
            if is_short { StateValue::of(&entry.value) } else { StateValue::default() };
        let (bucket, key, bytes) = (bucket.to_owned(), key.to_owned(), entry.value.len() as u64);
        Self { bucket, key, version: entry.version, bytes, value, value_base64 }
    }
}

impl StateChange {
    /// A key that has this value now; `None` when it is gone.
    pub fn new(bucket: &str, key: &str, value: Option<&Bytes>) -> Self {
        let deleted = value.is_none();
        let StateValue { value, value_base64 } = value.map(|value| StateValue::of(value)).unwrap_or_default();
        Self { bucket: bucket.to_owned(), key: key.to_owned(), deleted, value, value_base64 }
    }
}

impl Which {
    /// The same for the store; `None` for `{"all": false}`.
    pub(super) fn filter(self) -> Option<DeadFilter> {
        match self {
            Self::Delivery(id) => Some(DeadFilter::Delivery(id)),
            Self::Function(name) => Some(DeadFilter::Function(name)),
            Self::All(all) => all.then_some(DeadFilter::All),
        }
    }
}
