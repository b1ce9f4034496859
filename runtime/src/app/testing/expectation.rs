//! Makes the expectation of a test from the outcome and the effects of its attempt.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::attempt::{Actual, Changes};
use crate::recorded::{self, HOST_LINES};
use evoke_manifest::test_file::Expect;

/// The parts of an expectation, in the order in which they are written.
pub(super) type Parts = Vec<(&'static str, Value)>;

/// Returns a new expectation. If the test has an expectation, the new one has the same parts, and the maps in its
/// lists have the same keys. Otherwise, the new one has the outcome and all effects of the attempt.
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
    let raw = |old: Option<&BTreeMap<String, Vec<u8>>>| old.map(BTreeMap::len).unwrap_or_default() > 0;
    if has(|old| old.state.is_some(), !actual.state.is_empty()) {
        add_changes(&mut parts, ["state", "state_raw"], &actual.state, raw(old.and_then(|old| old.state_raw.as_ref())));
    }
    if has(|old| old.shared_state.is_some(), !actual.shared_state.is_empty()) {
        let is_raw = raw(old.and_then(|old| old.shared_state_raw.as_ref()));
        add_changes(&mut parts, ["shared_state", "shared_state_raw"], &actual.shared_state, is_raw);
    }
    if has(|old| old.logs.is_some(), !actual.logs.is_empty()) {
        let lines = actual.logs.iter().filter(|line| !HOST_LINES.iter().any(|start| line.starts_with(start)));
        parts.push(("logs", lines.map(|line| Value::from(line.as_str())).collect()));
    }
    if has(|old| old.http.is_some(), !actual.http.is_empty()) {
        let old = old.and_then(|old| old.http.as_deref()).unwrap_or_default();
        parts.push(("http", maps(old, &actual.http, &["method", "url", "body"])));
    }
    parts
}

/// Adds changes of state. With `is_raw`, a value that is not JSON in the shortest form is written under `key_raw`, with
/// its exact bytes.
fn add_changes(parts: &mut Parts, [key, key_raw]: [&'static str; 2], changed: &Changes, is_raw: bool) {
    if is_raw {
        let (values, raw) = recorded::changes(changed.iter().map(|(key, value)| (key, value.as_deref())));
        parts.push((key, values.into()));
        if !raw.is_empty() {
            parts.push((key_raw, raw.into()));
        }
    } else {
        let value = |value: &Option<Vec<u8>>| value.as_deref().map_or(Value::Null, recorded::json_or_text);
        parts.push((key, changed.iter().map(|(key, changed)| (key.clone(), value(changed))).collect()));
    }
}

/// Returns the actual maps, each with only some of its entries. If the old expectation has a map at the same position,
/// the entries with the keys of that map remain; otherwise, the entries with one of the `keys`.
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
