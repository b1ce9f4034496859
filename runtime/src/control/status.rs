//! The status of apps as data, and its texts for users.

use serde::Serialize;

use super::pause::Pause;
use evoke_core::dispatcher::{Failing, LastFailure, OpenCircuit};
use evoke_core::source::Refused;
use evoke_model::clock::rfc3339;
use evoke_model::text::count;
use evoke_pattern::Explanation;
use evoke_store_sqlite::running::Interrupted;
use evoke_telemetry as telemetry;

/// Phase of the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The first functions are being loaded; no events are accepted yet.
    Starting,
    /// Events are accepted.
    Running,
    /// No more events are accepted; Evoke waits until the running attempts end.
    Draining,
}

/// Status of the functions and sources that the active manifests declare.
#[derive(Debug, Clone, Default)]
pub struct Active {
    /// Every declared function.
    pub functions: Vec<FunctionStatus>,
    /// Every declared source.
    pub sources: Vec<SourceStatus>,
    /// Instance counts and limits of the sandbox.
    pub sandbox: telemetry::Sandbox,
    /// The work that was running when the previous process ended without a clean stop; `None` after a clean stop.
    pub interrupted: Option<Interrupted>,
}

/// Current status of an active function.
#[derive(Debug, Clone)]
pub struct FunctionStatus {
    /// `app/function`.
    pub name: String,
    /// Maximum number of deliveries that run at the same time.
    pub concurrency: u32,
    /// Number of deliveries that run now.
    pub running: u32,
    /// Number of deliveries that wait in the memory of the dispatcher. More may wait in the store.
    pub held: u32,
    /// A description of the failure, as text for users, if the function keeps failing; `None` if it works.
    pub failing: Option<String>,
    /// The last failed attempt since the start.
    pub last_failure: Option<LastFailure>,
    /// The attempts of about the last minute.
    pub rates: telemetry::Rates,
    /// The pause of the function; `None` when it is not paused.
    pub paused: Option<Pause>,
    /// True if the component of the function is still being compiled, so that the deliveries wait.
    pub is_compiling: bool,
    /// Scheme, host and port of the endpoint of a function with `deliver`.
    pub endpoint: Option<String>,
    /// The circuit breaker of a function with `deliver`: `Some(None)` if the circuit is closed, else a description of
    /// the open circuit, as text for users. `None` for a function with a component.
    pub circuit: Option<Option<String>>,
}

/// Current status of an active source.
#[derive(Debug, Clone)]
pub struct SourceStatus {
    /// The attribute `source` of the events of this source.
    pub uri: String,
    /// `http`, `files`, `timer` or `monitor`.
    pub kind: &'static str,
    /// Why the source is degraded, as text for users; `None` when it works.
    pub trouble: Option<String>,
    /// The requests that the source refused since its start.
    pub refused: Refused,
}

/// The result of matching an event against a trigger, with the reason.
#[derive(Debug, Clone, Serialize)]
pub struct TriggerExplanation {
    /// `app/function`.
    pub function: String,
    /// The name of the trigger, such as `on[0]`.
    pub trigger: String,
    /// True if the trigger matches the event.
    pub matched: bool,
    /// The reason, as text for users.
    pub text: String,
    /// The source of the trigger, if the trigger names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The result of the pattern for each field, if the trigger has a pattern.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Explanation>,
}

/// Describes the failure of a function that keeps failing, as text for users.
pub(super) fn describe_failing(failing: &Failing) -> String {
    let Failing { since_ms, attempts, outcome, message, .. } = failing;
    let (since, failed) = (rfc3339(*since_ms), count(*attempts, "attempt"));
    match (attempts, message) {
        // The function was failing before the start, so the number of failed attempts is unknown.
        (0, _) => format!("since {since}"),
        (_, Some(message)) => format!("{failed} failed since {since}, the last with outcome `{outcome}`: {message}"),
        (_, None) => format!("{failed} failed since {since}, the last with outcome `{outcome}`"),
    }
}

/// Describes an open circuit, as text for users.
pub(super) fn describe_circuit(open: &OpenCircuit) -> String {
    let OpenCircuit { since_ms, failures, outcome, message, next_probe, .. } = open;
    let mut text = format!("since {}", rfc3339(*since_ms));
    if *failures > 0 {
        text += &format!(": {} in a row failed, the last with outcome `{outcome}`", count(*failures, "request"));
        text.extend(message.iter().map(|message| format!(": {message}")));
    }
    match next_probe {
        Some(wait) => text + &format!("; the next request is sent in {} s", wait.as_secs_f64().ceil()),
        None => text + "; a request is running, to find out if the endpoint works again",
    }
}
