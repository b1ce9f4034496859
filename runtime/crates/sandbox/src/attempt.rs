//! The input and the result of one attempt, which is one run of a function for one event.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::Store;

use super::context::HostContext;
use super::keyvalue::StateSource;
use super::log::LogSink;
use super::outcome::{self, GuestResult};
use super::outside::Outside;
use evoke_model::clock::Clock;
use evoke_model::event::Event;
use evoke_model::outcome::Outcome;
use evoke_model::state::{Change, Transaction};
use evoke_model::text::count;
use evoke_telemetry::TraceContext;

/// Limit on the number of changed keys that [`Attempt::note`] lists.
const CHANGES_MAX: usize = 10;

/// The input of one attempt.
pub struct Call {
    /// The event to handle.
    pub event: Arc<Event>,
    /// The trace context of the attempt. The requests that the function sends become part of this trace. With `None`,
    /// the trace context of the event is used.
    pub trace: Option<TraceContext>,
    /// Id of the delivery. The id is unique, and all attempts of the delivery have the same id. A published event
    /// without an id gets `<delivery_id>-<ordinal>`, where the ordinal counts the events of the attempt from 0.
    pub delivery_id: Arc<str>,
    /// Number of the attempt, counted from 1.
    pub attempt: u32,
    /// True if the event is a stored event that is replayed.
    pub replay: bool,
    /// The number of functions that the chain of events passed through before this event.
    pub hops: u32,
    /// Name of the trigger that matched.
    pub trigger: Arc<str>,
    /// The source of stored state; `None` if the function has no state grant.
    pub state: Option<Arc<dyn StateSource>>,
    /// Receives the function's log lines.
    pub logs: LogSink,
    /// Clock for the timestamps of published events and log lines.
    pub clock: Clock,
    /// The source of clocks, random numbers and responses. If it is a [`super::Recorder`], the reads of `state` are
    /// recorded, too, and the caller can take the recorded values from the recorder when the attempt has ended.
    pub outside: Outside,
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
    /// Time from the creation of the instance until the guest ended.
    pub duration: Duration,
    /// Peak linear memory, in bytes.
    pub memory_bytes: u64,
    /// Lists the requests that the function sent (each with its status or error, and its duration), and the keys of
    /// stored state that the function changed. `None` if it sent no requests and changed no keys.
    pub note: Option<String>,
}

impl Attempt {
    /// Builds the result of an attempt whose guest has ended.
    pub(super) fn finish(result: GuestResult, store: &mut Store<HostContext>, started: Instant) -> Self {
        let duration = started.elapsed();
        let transaction = store.data_mut().session.finish();
        let context = store.data();
        // The log sink is code of the caller and can panic. A panic ends only this attempt.
        let logged = catch_unwind(AssertUnwindSafe(|| context.invocation.log().finish()));
        let result = logged.map_or_else(|panic| Ok(Err(panic)), |()| result);
        let published = context.invocation.publisher().take();
        let memory_bytes = context.limits.memory_peak();
        let outcome = outcome::to_outcome(result, context);
        let published = if outcome == Outcome::Done { published } else { Vec::new() };
        let state = if outcome == Outcome::Done { transaction } else { transaction.without_writes() };
        let notes = [context.outbound_note(), changes_note(&state)];
        let note = notes.into_iter().flatten().reduce(|requests, changes| requests + "; " + &changes);
        let note = note.map(|note| outcome::sanitize(context.invocation.redactor(), &note));
        Self { outcome, published, state, duration, memory_bytes, note }
    }
}

/// Returns a text that lists the changes to stored state; `None` without changes. The keys may contain secrets.
fn changes_note(state: &Transaction) -> Option<String> {
    let mut changes = state.keys.iter().filter_map(|touched| Some((&touched.key, touched.change.as_ref()?)));
    let listed: Vec<_> = changes.by_ref().take(CHANGES_MAX).map(describe).collect();
    let more = changes.count();
    let more = if more == 0 { String::new() } else { format!(", and {}", count(more, "more key")) };
    (!listed.is_empty()).then(|| format!("state: {}{more}", listed.join(", ")))
}

fn describe((key, change): (&Arc<str>, &Change)) -> String {
    match change {
        Change::Set(value) => format!("{key} set ({} B)", value.len()),
        Change::Delete => format!("{key} deleted"),
    }
}

#[cfg(test)]
mod tests {
    use evoke_model::state::Touched;

    use super::*;

    #[test]
    fn the_note_names_the_changed_keys_and_counts_those_beyond_the_limit() {
        let touched = |key: &str, change| Touched { bucket: "a/f".into(), key: key.into(), seen: Some(1), change };
        let keys = vec![
            touched("read", None),
            touched("cart", Some(Change::Set("[1,2]".into()))),
            touched("draft", Some(Change::Delete)),
        ];
        let mut state = Transaction { keys, ..Transaction::default() };
        assert_eq!(changes_note(&state).as_deref(), Some("state: cart set (5 B), draft deleted"));
        state.keys.extend((0..CHANGES_MAX).map(|at| touched(&at.to_string(), Some(Change::Delete))));
        assert!(changes_note(&state).unwrap().ends_with("7 deleted, and 2 more keys"));
        state.keys.truncate(1);
        assert_eq!(changes_note(&state), None);
    }
}
