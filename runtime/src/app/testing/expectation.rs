//! Makes the expectation of a test from what its attempt did.

use serde_json::{Map, Value};

use super::attempt::Actual;
use evoke_manifest::test_file::Expect;

/// The parts of an expectation, in the order in which they are written.
pub(super) type Parts = Vec<(&'static str, Value)>;

/// Log lines of the host about requests are not expected: the requests themselves are.
const HOST_LINE: &str = "debug http: ";

/// Returns a new expectation. An expectation that exists keeps its parts, and the attributes that these compare; without
/// one, all that the attempt did is expected.
pub(super) fn of(old: Option<&Expect>, actual: &Actual) -> Parts {
    let has = |part: fn(&Expect) -> bool, default: bool| old.map_or(default, part);
    let mut parts: Parts = Vec::new();
    if actual.outcome != "done" || has(|old| old.outcome.is_some(), true) {
        parts.push(("outcome", actual.outcome.into()));
    }
    if let Some(message) = &actual.message
        && has(|old| old.message.is_some(), true)
    {
        let kept = old.and_then(|old| old.message.as_ref()).filter(|part| message.contains(*part));
        parts.push(("message", kept.unwrap_or(message).as_str().into()));
    }
    let is_done = actual.outcome == "done";
    if has(|old| old.published.is_some(), is_done) {
        let old = old.and_then(|old| old.published.as_deref()).unwrap_or_default();
        parts.push(("published", maps(old, &actual.published, &["type", "subject", "data", "data_base64"])));
    }
    if has(|old| old.state.is_some(), !actual.state.is_empty()) {
        parts.push(("state", actual.state.clone().into_iter().collect::<Map<_, _>>().into()));
    }
    if has(|old| old.shared_state.is_some(), !actual.shared_state.is_empty()) {
        parts.push(("shared_state", actual.shared_state.clone().into_iter().collect::<Map<_, _>>().into()));
    }
    if has(|old| old.logs.is_some(), !actual.logs.is_empty()) {
        let lines = actual.logs.iter().filter(|line| !line.starts_with(HOST_LINE));
        parts.push(("logs", lines.map(|line| Value::from(line.as_str())).collect()));
    }
    if has(|old| old.http.is_some(), !actual.http.is_empty()) {
        let old = old.and_then(|old| old.http.as_deref()).unwrap_or_default();
        parts.push(("http", maps(old, &actual.http, &["method", "url", "body"])));
    }
    parts
}

/// Returns the keys of each map that the old expectation compares, else `keys`.
fn maps(old: &[Map<String, Value>], actual: &[Map<String, Value>], keys: &[&str]) -> Value {
    let map = |(index, actual): (usize, &Map<String, Value>)| -> Value {
        let is_wanted = |key: &str| match old.get(index) {
            Some(old) => old.contains_key(key),
            None => keys.contains(&key),
        };
        let wanted = actual.iter().filter(|(key, _)| is_wanted(key));
        wanted.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>().into()
    };
    actual.iter().enumerate().map(map).collect()
}
