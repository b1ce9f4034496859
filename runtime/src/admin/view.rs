//! What the API answers, as JSON. The command line reads the same types.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock::rfc3339;
use crate::store::{AttemptRecord, Counts, DeliveryRecord, StoredEvent};

/// An event with what the store knows of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Envelope {
    /// Its position in the total order.
    pub seq: i64,
    /// When it was accepted, RFC 3339.
    pub accepted: String,
    /// The delivery whose function published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<i64>,
    /// The position of the event from outside that started the chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<i64>,
    /// How many functions the chain went through.
    pub hops: u32,
    /// The event in CloudEvents JSON form.
    pub event: Value,
}

impl Envelope {
    /// The view of a stored event.
    pub fn of(stored: &StoredEvent) -> Self {
        Self {
            seq: stored.seq,
            accepted: rfc3339(stored.accepted_ms),
            cause: stored.lineage.cause,
            root: stored.lineage.root,
            hops: stored.lineage.hops,
            event: serde_json::to_value(&*stored.event).unwrap_or_default(),
        }
    }
}

/// One attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts from 1.
    pub attempt: u32,
    /// When it started, RFC 3339.
    pub started: String,
    /// How long it took.
    pub duration_us: u64,
    /// `done`, `retry`, `reject`, `trap`, `timeout`, `out-of-memory`, `denied`, `unavailable` or `loop`.
    pub outcome: String,
    /// What a person is told of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Attempt {
    fn of(record: AttemptRecord) -> Self {
        let AttemptRecord { attempt, started_ms, duration_us, outcome, message } = record;
        Self { attempt, started: rfc3339(started_ms), duration_us, outcome, message }
    }
}

/// One delivery.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delivery {
    /// Its number.
    pub id: i64,
    /// The position of its event.
    pub event: i64,
    /// `app/function`.
    pub function: String,
    /// The trigger that matched, `on[0]`.
    pub trigger: String,
    /// Its order key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_key: Option<String>,
    /// `ready`, `retrying`, `blocked`, `done`, `dead` or `purged`.
    pub state: String,
    /// Why it was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// When it is tried again, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// The attempts that ended, in order.
    pub attempts: Vec<Attempt>,
}

impl Delivery {
    /// The view of a delivery.
    pub fn of(record: DeliveryRecord) -> Self {
        Self {
            id: record.id,
            event: record.event,
            function: record.function,
            trigger: record.trigger,
            order_key: record.order_key,
            state: record.state.name().to_owned(),
            cause: record.cause,
            due: record.due_ms.map(rfc3339),
            attempts: record.attempts.into_iter().map(Attempt::of).collect(),
        }
    }
}

/// An event with everything that came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trace {
    /// The event.
    #[serde(flatten)]
    pub envelope: Envelope,
    /// What it was owed to, in order.
    pub deliveries: Vec<TracedDelivery>,
    /// Whether more came of it than a trace shows.
    #[serde(default)]
    pub cut: bool,
}

/// A delivery with what its function published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TracedDelivery {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// What was published, in order.
    pub published: Vec<Trace>,
}

/// A dead letter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The delivery that was given up.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The event that it was for.
    pub letter: Envelope,
}

/// How many deliveries a function has in each state.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Numbers {
    /// Ready to run.
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
}

impl Numbers {
    /// The view of a function's counts.
    pub fn of(counts: &Counts) -> Self {
        let Counts { ready, retrying, blocked, done, dead, purged } = *counts;
        Self { ready, retrying, blocked, done, dead, purged }
    }
}

/// A function in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Function {
    /// `app/function`.
    pub name: String,
    /// Whether a manifest in force declares it; else only its deliveries are left.
    pub declared: bool,
    /// How many of its deliveries run at once at most.
    pub concurrency: u32,
    /// How many run now.
    pub running: u32,
    /// Its deliveries.
    #[serde(flatten)]
    pub numbers: Numbers,
}

/// A source in force.
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

/// What is running.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Of Evoke.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// Events accepted, ever.
    pub events: u64,
    /// Deliveries that are owed.
    pub pending: u64,
    /// The functions.
    pub functions: Vec<Function>,
    /// The sources.
    pub sources: Vec<Source>,
}
