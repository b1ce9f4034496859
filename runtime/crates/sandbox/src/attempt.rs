//! The input and the result of one attempt.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::Store;

use super::answers::HttpAnswers;
use super::context::HostContext;
use super::keyvalue::StateSource;
use super::log::LogSink;
use super::outcome::{self, GuestResult};
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_model::state::Transaction;
use evoke_telemetry::TraceContext;

/// The input of one attempt.
pub struct Call {
    /// The event to handle.
    pub event: Arc<Event>,
    /// The trace context of the attempt, of which the function's requests become a part. With `None`, the context of the
    /// event is used.
    pub trace: Option<TraceContext>,
    /// Id of the delivery: unique, and the same on every attempt. A published event without an id gets
    /// `<delivery_id>-<ordinal>`, with ordinals counted from 0.
    pub delivery_id: Arc<str>,
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// True if the event is a stored event that is replayed.
    pub replay: bool,
    /// Name of the trigger that matched.
    pub trigger: Arc<str>,
    /// Where stored state is read from; `None` if the function has no state grant.
    pub state: Option<Arc<dyn StateSource>>,
    /// Receives the function's log lines.
    pub logs: LogSink,
    /// Clock for the timestamps of published events and log lines.
    pub clock: Clock,
    /// The test's responses to the function's requests; `None` sends requests over the network.
    pub answers: Option<HttpAnswers>,
}

/// The result of one attempt.
#[derive(Debug)]
pub struct Attempt {
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The published events, in order; empty unless the outcome is `Done`.
    pub published: Vec<Event>,
    /// The attempt's reads and writes of stored state. They are committed with the outcome, or not at all.
    pub state: Transaction,
    /// Time from the start of the instance to the end of the call.
    pub duration: Duration,
    /// Peak linear memory, in bytes.
    pub memory_bytes: u64,
    /// The requests that the function sent, each with its status or error and its duration; `None` without requests.
    pub note: Option<String>,
}

impl Attempt {
    /// Builds the result of an attempt whose guest has ended.
    pub(super) fn finish(result: GuestResult, store: &mut Store<HostContext>, started: Instant) -> Self {
        let duration = started.elapsed();
        let transaction = store.data_mut().session.finish();
        let context = store.data();
        // The log sink may panic; that ends only this attempt.
        let logged = catch_unwind(AssertUnwindSafe(|| context.invocation.log().finish()));
        let result = logged.map_or_else(|panic| Ok(Err(panic)), |()| result);
        let published = context.invocation.publisher().take();
        let memory_bytes = context.limits.memory_peak();
        let outcome = outcome::to_outcome(result, context);
        let published = if outcome == Outcome::Done { published } else { Vec::new() };
        let state = if outcome == Outcome::Done { transaction } else { transaction.without_writes() };
        let note = context.outbound_note().map(|note| outcome::sanitize(context.invocation.redactor(), &note));
        Self { outcome, published, state, duration, memory_bytes, note }
    }
}
