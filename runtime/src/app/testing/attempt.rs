//! Runs the attempt of a test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use super::answers::{Peer, json_or_text};
use crate::app::invoke::seed;
use crate::control::functions::trigger_name;
use crate::control::state_source::StoredState;
use evoke_manifest::test_file::{Spanned, Test};
use evoke_model::clock::{Clock, rfc3339};
use evoke_model::outcome::Outcome;
use evoke_sandbox::{self as sandbox, Call};
use evoke_store::StateStore;
use evoke_store::memory::MemoryStore;

/// Outcome and effects of an attempt.
#[derive(Debug)]
pub(super) struct Actual {
    pub(super) duration: Duration,
    pub(super) outcome: &'static str,
    pub(super) message: Option<String>,
    /// The published events in CloudEvents JSON form.
    pub(super) published: Vec<Map<String, Value>>,
    /// Changes of the function's state; null for a deleted key.
    pub(super) state: BTreeMap<String, Value>,
    /// Changes of the app's state.
    pub(super) shared_state: BTreeMap<String, Value>,
    /// `LEVEL TEXT`.
    pub(super) logs: Vec<String>,
    /// `method`, `url` and `body`.
    pub(super) http: Vec<Map<String, Value>>,
}

/// Runs one attempt of a function of an app. An error of the store of state is an outcome.
pub(super) async fn run(function: Arc<sandbox::Function>, app: String, test: Test) -> Actual {
    let clock = test.clock_ms.map_or_else(Clock::system, Clock::fixed);
    let mut event = test.event;
    event.time.get_or_insert_with(|| rfc3339(clock.now_ms()));
    let store: Arc<dyn StateStore> = Arc::new(MemoryStore::new(clock.clone()));
    let own = function.name().clone();
    for (bucket, given) in [(&*own, test.state), (&*app, test.shared_state)] {
        if let Err(error) = seed(&*store, bucket, stored(given)).await {
            return Actual::unavailable(format!("cannot store the state of the test: {error:#}"));
        }
    }
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = lines.clone();
    let peer = Peer::new(test.http);
    let call = Call {
        event: Arc::new(event),
        trace: None,
        delivery_id: "test-1".into(),
        attempt: test.attempt,
        replay: false,
        hops: 0,
        trigger: trigger_name(0),
        state: Some(Arc::new(StoredState(store))),
        logs: Arc::new(move |line| {
            let text = format!("{} {}", line.level.name(), line.text);
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }),
        clock,
        answers: Some(peer.answers()),
    };
    let attempt = function.run(call).await;
    let changes = |bucket: &str| {
        let touched = attempt.state.keys.iter().filter(|touched| &*touched.bucket == bucket);
        let changed = touched.filter_map(|touched| {
            let value = touched.change.as_ref()?.value();
            Some((touched.key.to_string(), value.map_or(Value::Null, |value| json_or_text(value))))
        });
        changed.collect()
    };
    let published = attempt.published.iter().filter_map(|event| serde_json::from_str(&event.to_json()).ok());
    Actual {
        duration: attempt.duration,
        outcome: attempt.outcome.kind(),
        message: attempt.outcome.message(),
        published: published.collect(),
        state: changes(&own),
        shared_state: changes(&app),
        logs: std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner)),
        http: peer.requests(),
    }
}

impl Actual {
    fn unavailable(message: String) -> Self {
        let outcome = Outcome::Unavailable { message };
        Self {
            duration: Duration::ZERO,
            outcome: outcome.kind(),
            message: outcome.message(),
            published: Vec::new(),
            state: BTreeMap::new(),
            shared_state: BTreeMap::new(),
            logs: Vec::new(),
            http: Vec::new(),
        }
    }
}

/// Returns the values in the form in which the SDKs store them: as JSON.
fn stored(given: Option<Spanned<BTreeMap<String, Value>>>) -> Vec<(String, String)> {
    given.into_iter().flat_map(|given| given.value).map(|(key, value)| (key, value.to_string())).collect()
}
