//! Runs the attempt of a test.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

use super::answers::Peer;
use super::state::{GivenBucket, GivenState};
use crate::control::functions::trigger_name;
use evoke_manifest::test_file::{Recorded, Test};
use evoke_model::Json;
use evoke_model::clock::{Clock, rfc3339};
use evoke_model::outcome::Outcome;
use evoke_model::state::Transaction;
use evoke_sandbox::{self as sandbox, Call, Given, Outside};

/// Outcome and effects of an attempt.
#[derive(Debug)]
pub(super) struct Actual {
    pub(super) duration: Duration,
    pub(super) outcome: &'static str,
    pub(super) message: Option<String>,
    /// The published events in CloudEvents JSON form, as text and parsed.
    pub(super) published_json: Vec<String>,
    pub(super) published: Vec<Map<String, Value>>,
    /// Changes of the function's state.
    pub(super) state: Changes,
    /// Changes of the app's state.
    pub(super) shared_state: Changes,
    /// The log lines, each as `LEVEL TEXT`.
    pub(super) logs: Vec<String>,
    /// The requests, each with `method`, `url` and `body`.
    pub(super) http: Vec<Map<String, Value>>,
}

/// Changes of a bucket (one function's or one app's state): the new value by key, or `None` for a deleted key.
pub(super) type Changes = BTreeMap<String, Option<Vec<u8>>>;

/// Runs one attempt of a function of an app. If the state of the test cannot be stored, the outcome is `unavailable`.
pub(super) async fn run(function: Arc<sandbox::Function>, app: Arc<str>, test: Test) -> Actual {
    let clock = test.clock_ms.map_or_else(Clock::system, Clock::fixed);
    let mut event = test.event;
    event.time.get_or_insert_with(|| rfc3339(clock.now_ms()));
    let own = function.name().clone();
    let Recorded { delivery, trigger, replay, mut reads } = test.recorded;
    let (recorded_own, recorded_shared) = (std::mem::take(&mut reads.state), std::mem::take(&mut reads.shared_state));
    let buckets = [
        GivenBucket { name: own.clone(), values: test.state, recorded: recorded_own },
        GivenBucket { name: app.clone(), values: test.shared_state, recorded: recorded_shared },
    ];
    let state = match GivenState::new(buckets, clock.clone()).await {
        Ok(state) => state,
        Err(error) => return Actual::unavailable(format!("cannot store the state of the test: {error:#}")),
    };
    let lines: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = lines.clone();
    let secrets = delivery.is_some().then(|| function.secrets().clone());
    let peer = Peer::new(test.http, secrets.clone());
    let call = Call {
        event: Arc::new(event),
        trace: None,
        delivery_id: delivery.unwrap_or_else(|| "test-1".to_owned()).into(),
        attempt: test.attempt,
        replay,
        hops: 0,
        trigger: trigger.map_or_else(|| trigger_name(0), Arc::from),
        state: Some(Arc::new(state)),
        logs: Arc::new(move |line| {
            let text = format!("{} {}", line.level.name(), line.text);
            sink.lock().unwrap_or_else(PoisonError::into_inner).push(text);
        }),
        clock,
        outside: Outside::Given(Given::new(peer.answers(), reads)),
    };
    let attempt = function.run(call).await;
    // A recording has replacements in place of the values of secrets and their encoded forms. The results get the same
    // replacements before they are compared with the recording.
    let plain =
        |bytes: &[u8]| secrets.as_ref().map_or(bytes.into(), |secrets| secrets.replace_for_tests(bytes)).into_owned();
    let published_json = attempt.published.iter();
    let published_json =
        published_json.map(|event| String::from_utf8_lossy(&plain(event.to_json().as_bytes())).into_owned());
    let published_json: Vec<String> = published_json.collect();
    Actual {
        duration: attempt.duration,
        outcome: attempt.outcome.kind(),
        message: attempt.outcome.message(),
        published: published_json.iter().filter_map(|json| object(json)).collect(),
        published_json,
        state: changes(&attempt.state, &own, plain),
        shared_state: changes(&attempt.state, &app, plain),
        logs: std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner)),
        http: peer.requests(),
    }
}

fn object(json: &str) -> Option<Map<String, Value>> {
    match serde_json::from_str::<Json>(json) {
        Ok(Json(Value::Object(members))) => Some(members),
        _ => None,
    }
}

fn changes(state: &Transaction, bucket: &str, plain: impl Fn(&[u8]) -> Vec<u8>) -> Changes {
    let touched = state.keys.iter().filter(|touched| &*touched.bucket == bucket);
    let changed = touched.filter_map(|touched| {
        let value = touched.change.as_ref()?.value();
        Some((touched.key.to_string(), value.map(|value| plain(value))))
    });
    changed.collect()
}

impl Actual {
    fn unavailable(message: String) -> Self {
        let outcome = Outcome::Unavailable { message };
        Self {
            duration: Duration::ZERO,
            outcome: outcome.kind(),
            message: outcome.message(),
            published_json: Vec::new(),
            published: Vec::new(),
            state: BTreeMap::new(),
            shared_state: BTreeMap::new(),
            logs: Vec::new(),
            http: Vec::new(),
        }
    }
}
