//! The JSON form of the status of the process, its functions and sources.

use serde::{Deserialize, Serialize};

use crate::control::{FunctionStatus, ListenerStatus, SourceStatus};
use evoke_core::dispatcher::LastFailure;
use evoke_model::clock::rfc3339;
use evoke_model::{Counts, DeliveryId, Removed};
use evoke_store_sqlite::running::Interrupted;
use evoke_telemetry::Rates;

/// Status of the process, its functions and sources.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Version of Evoke.
    pub version: String,
    /// Time since the start, in milliseconds.
    pub uptime_ms: u64,
    /// Number of accepted events, including events that retention has removed.
    pub events: u64,
    /// Events and deliveries that retention removed.
    #[serde(default)]
    pub removed: Removed,
    /// Number of pending deliveries.
    pub pending: u64,
    /// Number of events that wait for the time in their attribute `notbefore`.
    #[serde(default)]
    pub scheduled: u64,
    /// Absolute path of the data folder.
    #[serde(default)]
    pub data: String,
    /// Functions, sorted by name.
    pub functions: Vec<Function>,
    /// Sources, sorted by URI.
    pub sources: Vec<Source>,
    /// The public listener and the listener of the admin API.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<Listener>,
    /// The work that was running when the previous process ended without a clean stop; absent after a clean stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unclean_exit: Option<UncleanExit>,
}

/// Status of a listener.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Listener {
    /// `public` or `admin`.
    pub name: String,
    /// The URL, without a path.
    pub url: String,
    /// The time at which the first of the listener's certificates expires; absent without TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires: Option<String>,
    /// `ok` or `degraded`.
    pub state: String,
    /// Why the listener is degraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

impl From<ListenerStatus> for Listener {
    fn from(status: ListenerStatus) -> Self {
        let ListenerStatus { name, url, expires_ms, trouble } = status;
        let state = if trouble.is_some() { "degraded" } else { "ok" };
        let certificate_expires = expires_ms.map(rfc3339);
        Self { name: name.into(), url: url.to_string(), certificate_expires, state: state.into(), trouble }
    }
}

/// The work that was running when a process ended without a clean stop: by a crash, a kill or a lack of memory. Some of
/// the deliveries may have ended shortly before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UncleanExit {
    /// The deliveries that were running. A delivery becomes a dead letter if it was running at two unclean exits.
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
    /// True if an active manifest declares the function. If false, the deliveries of the function wait in the store.
    #[serde(rename = "in_force")]
    pub active: bool,
    /// Number of deliveries that run now.
    pub running: u32,
    /// Maximum number of deliveries that run at the same time; absent if the function is not active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// A description of the failure, if the function keeps failing; absent if it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<String>,
    /// The last failed attempt since the start of the process; absent if none failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// Ended attempts per second, over about the last minute.
    #[serde(default)]
    pub rate: f64,
    /// Failed attempts per second, over about the last minute.
    #[serde(default)]
    pub failed_rate: f64,
    /// The duration in microseconds that 95 of 100 attempts of the last minute did not exceed; absent if none ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p95_us: Option<u64>,
    /// The time since which the oldest ready or retrying delivery is pending; absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_since: Option<String>,
    /// The time since which the function is paused; absent if it is not paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    /// Why Evoke itself paused the function; absent if an operator did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_reason: Option<String>,
    /// True if the component is still being compiled after the start of the process. Deliveries wait meanwhile. Absent
    /// if false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub compiling: bool,
    /// The endpoint to which a function with `deliver` sends events; absent for a component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Describes the circuit breaker of the endpoint, which is open because deliveries failed. Absent if the circuit
    /// breaker is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<String>,
    /// Number of deliveries by state, flattened into this object.
    #[serde(flatten)]
    pub deliveries: Counts,
}

/// A failed attempt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LastError {
    /// When the attempt started.
    pub at: String,
    /// The number of the delivery.
    pub delivery: DeliveryId,
    /// How the attempt ended, as in [`super::Attempt`].
    pub outcome: String,
    /// Details of the outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl From<LastFailure> for LastError {
    fn from(failure: LastFailure) -> Self {
        let LastFailure { at_ms, delivery, outcome, message } = failure;
        Self { at: rfc3339(at_ms), delivery, outcome, message }
    }
}

/// Status of a source.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Source {
    /// The attribute `source` of the events of this source.
    pub uri: String,
    /// `http`, `files`, `timer` or `monitor`.
    pub kind: String,
    /// `ok` or `degraded`.
    pub state: String,
    /// Why the source is degraded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Number of requests that the source refused since its start.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
    /// The reasons of the last refusals, newest first. At a high rate of refusals, some reasons are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
}

/// A reason for which a source refused requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// When a request was last refused for this reason.
    pub at: String,
    /// Status and detail of the response.
    pub reason: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl From<FunctionStatus> for Function {
    fn from(function: FunctionStatus) -> Self {
        let FunctionStatus { name, concurrency, running, held: _, failing, paused, endpoint, circuit, .. } = function;
        let Rates { attempts, failed, p95 } = function.rates;
        Self {
            active: true,
            running,
            concurrency: Some(concurrency),
            failing,
            last_error: function.last_failure.map(LastError::from),
            rate: attempts,
            failed_rate: failed,
            p95_us: p95.map(|p95| u64::try_from(p95.as_micros()).unwrap_or(u64::MAX)),
            paused: paused.as_ref().map(|pause| rfc3339(pause.since_ms)),
            paused_reason: paused.and_then(|pause| pause.reason),
            compiling: function.is_compiling,
            endpoint,
            circuit: circuit.flatten(),
            ..Self::inactive(name)
        }
    }
}

impl Function {
    /// Makes the entry of a function that no active manifest declares.
    pub(in crate::admin) fn inactive(name: String) -> Self {
        Self {
            name,
            active: false,
            running: 0,
            concurrency: None,
            failing: None,
            last_error: None,
            rate: 0.0,
            failed_rate: 0.0,
            p95_us: None,
            pending_since: None,
            paused: None,
            paused_reason: None,
            compiling: false,
            endpoint: None,
            circuit: None,
            deliveries: Counts::default(),
        }
    }
}

impl From<SourceStatus> for Source {
    fn from(source: SourceStatus) -> Self {
        let SourceStatus { uri, kind, trouble, refused } = source;
        let state = if trouble.is_some() { "degraded" } else { "ok" };
        let refusal = |one: evoke_core::source::Refusal| Refusal { at: rfc3339(one.at_ms), reason: one.reason };
        let refusals = refused.last.into_iter().map(refusal).collect();
        Self { uri, kind: kind.into(), state: state.into(), trouble, refused: refused.count, refusals }
    }
}
