//! The JSON form of the status of the process, its functions and sources.

use serde::{Deserialize, Serialize};

use crate::control::{FunctionStatus, SourceStatus};
use evoke_model::clock::rfc3339;
use evoke_model::{Counts, DeliveryId, Removed};
use evoke_store_sqlite::running::Interrupted;

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
    /// Absolute path of the data folder.
    #[serde(default)]
    pub data: String,
    /// Functions, sorted by name.
    pub functions: Vec<Function>,
    /// Sources, sorted by URI.
    pub sources: Vec<Source>,
    /// The work that ran when the process before this one ended without a clean stop; absent after a clean stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclean_exit: Option<UncleanExit>,
}

/// The work that ran when a process ended without a clean stop: by a crash, a kill or a lack of memory. Some of the
/// deliveries may have ended shortly before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UncleanExit {
    /// The deliveries; one that runs at two such ends becomes a dead letter.
    pub deliveries: Vec<InterruptedDelivery>,
    /// The functions that handled HTTP requests, by full name.
    pub requests: Vec<String>,
    /// The functions whose components were compiled or loaded, by full name.
    pub loads: Vec<String>,
}

/// An attempt that was running.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InterruptedDelivery {
    /// The delivery's number.
    pub id: DeliveryId,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// `app/function`.
    pub function: String,
}

impl From<Interrupted> for UncleanExit {
    fn from(interrupted: Interrupted) -> Self {
        let Interrupted { run: _, deliveries, requests, loads } = interrupted;
        let deliveries = deliveries.into_iter();
        let deliveries = deliveries.map(|(id, attempt, function)| InterruptedDelivery { id, attempt, function });
        Self { deliveries: deliveries.collect(), requests, loads }
    }
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
    /// Since when an operator has paused the function; absent if it is not paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Number of deliveries by state, flattened into this object.
    #[serde(flatten)]
    pub deliveries: Counts,
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

impl From<FunctionStatus> for Function {
    fn from(function: FunctionStatus) -> Self {
        let FunctionStatus { name, concurrency, running, held: _, failing, paused_since_ms } = function;
        let (concurrency, paused) = (Some(concurrency), paused_since_ms.map(rfc3339));
        Self { name, active: true, running, concurrency, failing, paused, deliveries: Counts::default() }
    }
}

impl Function {
    /// A function that no active manifest declares.
    pub(in crate::admin) fn inactive(name: String) -> Self {
        let deliveries = Counts::default();
        Self { name, active: false, running: 0, concurrency: None, failing: None, paused: None, deliveries }
    }
}

impl From<SourceStatus> for Source {
    fn from(source: SourceStatus) -> Self {
        let SourceStatus { uri, kind, trouble } = source;
        let state = if trouble.is_some() { "degraded" } else { "ok" };
        Self { uri, kind: kind.into(), state: state.into(), trouble }
    }
}
