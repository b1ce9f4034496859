//! The JSON form of the status of the process, its functions and sources.

use serde::{Deserialize, Serialize};

use crate::control::{FunctionStatus, SourceStatus};
use evoke_model::{Counts, Removed};

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
        let FunctionStatus { name, concurrency, running, held: _, failing } = function;
        Self { name, active: true, running, concurrency: Some(concurrency), failing, deliveries: Counts::default() }
    }
}

impl Function {
    /// A function that no active manifest declares.
    pub(in crate::admin) fn inactive(name: String) -> Self {
        let deliveries = Counts::default();
        Self { name, active: false, running: 0, concurrency: None, failing: None, deliveries }
    }
}

impl From<SourceStatus> for Source {
    fn from(source: SourceStatus) -> Self {
        let SourceStatus { uri, kind, trouble } = source;
        let state = if trouble.is_some() { "degraded" } else { "ok" };
        Self { uri, kind: kind.into(), state: state.into(), trouble }
    }
}
