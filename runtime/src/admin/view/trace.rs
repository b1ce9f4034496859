//! The JSON form of a trace: a tree of events and their deliveries.

use serde::{Deserialize, Serialize};

use super::event::{Envelope, EventJson};
use evoke_model::clock::rfc3339;
use evoke_model::{
    AttemptRecord, DamagedDelivery, DeliveryId, DeliveryRecord, Lineage, ReadDelivery, ReadEvent, ReplayId, Seq,
};
use evoke_store::InspectionStore;

/// An event with its deliveries and the events that the deliveries published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Node {
    /// Number of the event.
    pub seq: Seq,
    /// When the event was accepted.
    pub accepted: String,
    /// Number of functions in the chain before this event; 0 for an event from a source.
    pub hops: u32,
    /// The source through which the chain entered, as in [`Envelope`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The verified sender, as in [`Envelope`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The delivery that published the event. If Evoke itself published the event, the delivery about which the event
    /// reports.
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
    /// The reason why the trace stops at this event, if it became too large. A trace that starts at this event shows
    /// the rest.
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
    /// `ready`, `retrying`, `blocked`, `done`, `dead` or `purged`; `damaged` if the delivery cannot be read, `removed`
    /// if retention removed it meanwhile.
    pub state: String,
    /// The reason why the delivery became a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When the next attempt is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// Completed attempts, in order.
    pub attempts: Vec<Attempt>,
    /// In a trace, the events that the delivery published and the events in which Evoke reports about it, in order;
    /// absent if there are none.
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

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl Node {
    /// Returns the node of an event, without its deliveries.
    pub(in crate::admin) fn of(store: &dyn InspectionStore, read: &ReadEvent) -> Self {
        let Envelope { seq, accepted, origin, principal, event, damaged, .. } = Envelope::of(store, read);
        let lineage = read.as_ref().map(|stored| stored.lineage).unwrap_or_default();
        let Lineage { cause: published_by, root, hops, .. } = lineage;
        let deliveries = Vec::new();
        Self {
            seq,
            accepted,
            hops,
            origin,
            principal,
            published_by,
            root,
            event,
            damaged,
            deliveries,
            cut: None,
            missing: None,
        }
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
            state: record.state.name().into(),
            cause: record.cause,
            due: record.due_ms.map(rfc3339),
            attempts: record.attempts.into_iter().map(Attempt::from).collect(),
            published: Vec::new(),
            omitted: 0,
        }
    }
}

impl Delivery {
    /// Makes the entry of a delivery that retention has removed.
    pub(in crate::admin) fn removed(id: DeliveryId, event: Seq) -> Self {
        Self { event, state: "removed".into(), ..Self::damaged(id, Vec::new(), "retention has removed it".into()) }
    }

    fn damaged(id: DeliveryId, attempts: Vec<AttemptRecord>, what: String) -> Self {
        Self {
            id,
            event: Seq(0),
            function: String::new(),
            trigger: String::new(),
            order_key: None,
            replay: None,
            state: "damaged".into(),
            cause: Some(what),
            due: None,
            attempts: attempts.into_iter().map(Attempt::from).collect(),
            published: Vec::new(),
            omitted: 0,
        }
    }
}

impl From<ReadDelivery> for Delivery {
    fn from(read: ReadDelivery) -> Self {
        match read {
            Ok(record) => record.into(),
            Err(DamagedDelivery { id, state: _, attempts, what }) => Self::damaged(id, attempts, what),
        }
    }
}

impl From<AttemptRecord> for Attempt {
    fn from(record: AttemptRecord) -> Self {
        let AttemptRecord { attempt, started_ms, duration_us, outcome, message } = record;
        Self { attempt, started: rfc3339(started_ms), duration_us, outcome: outcome.into_owned(), message }
    }
}
