//! Compares the outcome and the effects of an attempt with the expectation of its test.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::attempt::{Actual, Changes};
use crate::recorded::json_or_text;
use evoke_manifest::test_file::Expect;

/// A value that differs from the expected one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// The place, such as `published[0].data.total`.
    pub at: String,
    /// The expected value; `None` if no value is expected.
    pub expected: Option<Value>,
    /// The actual value; `None` if the attempt has no value here.
    pub actual: Option<Value>,
}

/// Returns the differences, in the order of the parts of an expectation.
pub(super) fn differences(expect: &Expect, actual: &Actual) -> Vec<Difference> {
    let mut found = Found(Vec::new());
    let outcome = expect.outcome.as_deref().unwrap_or("done");
    if outcome != actual.outcome {
        found.add("outcome", Some(outcome.into()), Some(actual.outcome.into()));
    }
    if let Some(part) = &expect.message
        && !actual.message.as_ref().is_some_and(|message| message.contains(part))
    {
        found.add("message", Some(part.as_str().into()), actual.message.clone().map(Value::String));
    }
    if let Some(expected) = &expect.published {
        found.maps("published", expected, &actual.published);
    }
    let none = BTreeMap::new();
    if let Some(expected) = expect.state.as_ref().or(expect.state_raw.as_ref().map(|_| &none)) {
        found.state("state", expected, expect.state_raw.as_ref(), &actual.state);
    }
    if let Some(expected) = expect.shared_state.as_ref().or(expect.shared_state_raw.as_ref().map(|_| &none)) {
        found.state("shared_state", expected, expect.shared_state_raw.as_ref(), &actual.shared_state);
    }
    if let Some(expected) = &expect.logs {
        found.logs(expected, &actual.logs);
    }
    if let Some(expected) = &expect.http {
        found.maps("http", expected, &actual.http);
    }
    found.0
}

struct Found(Vec<Difference>);

impl Found {
    fn add(&mut self, at: impl Into<String>, expected: Option<Value>, actual: Option<Value>) {
        self.0.push(Difference { at: at.into(), expected, actual });
    }

    /// Compares lists of maps. Only the keys that the expected map has are compared.
    fn maps(&mut self, at: &str, expected: &[Map<String, Value>], actual: &[Map<String, Value>]) {
        for index in 0..expected.len().max(actual.len()) {
            let at = format!("{at}[{index}]");
            match (expected.get(index), actual.get(index)) {
                (Some(expected), Some(actual)) => {
                    for (key, value) in expected {
                        self.value(&format!("{at}.{key}"), Some(value), actual.get(key));
                    }
                }
                (expected, actual) => {
                    self.add(at, expected.cloned().map(Value::Object), actual.cloned().map(Value::Object));
                }
            }
        }
    }

    /// Compares changes of state. Each change must be expected. Raw values are compared byte by byte.
    fn state(
        &mut self,
        at: &str,
        expected: &BTreeMap<String, Value>,
        raw: Option<&BTreeMap<String, Vec<u8>>>,
        actual: &Changes,
    ) {
        let value = |value: &Option<Vec<u8>>| value.as_deref().map_or(Value::Null, json_or_text);
        let is_raw = |key: &str| raw.is_some_and(|raw| raw.contains_key(key));
        let added = actual.keys().filter(|key| !expected.contains_key(*key) && !is_raw(key));
        for key in expected.keys().chain(added) {
            self.value(&format!("{at}.{key}"), expected.get(key), actual.get(key).map(value).as_ref());
        }
        for (key, expected) in raw.into_iter().flatten() {
            let actual = actual.get(key);
            if actual.and_then(Option::as_ref) != Some(expected) {
                let actual = actual.map(|value| value.as_deref().map_or(Value::Null, text));
                self.add(format!("{at}.{key}"), Some(text(expected)), actual);
            }
        }
    }

    /// Reports the first expected line that is missing. The expected lines must occur in the same order. Other lines
    /// between them are allowed.
    fn logs(&mut self, expected: &[String], actual: &[String]) {
        let mut rest = actual.iter();
        if let Some(index) = expected.iter().position(|line| !rest.any(|actual| actual == line)) {
            self.add(format!("logs[{index}]"), expected.get(index).cloned().map(Value::String), None);
        }
    }

    /// Compares values, and reports the smallest parts that differ.
    fn value(&mut self, at: &str, expected: Option<&Value>, actual: Option<&Value>) {
        match (expected, actual) {
            (Some(expected), Some(actual)) if expected == actual => {}
            (Some(Value::Object(expected)), Some(Value::Object(actual))) => {
                let added = actual.keys().filter(|key| !expected.contains_key(*key));
                for key in expected.keys().chain(added) {
                    self.value(&format!("{at}.{key}"), expected.get(key), actual.get(key));
                }
            }
            (Some(Value::Array(expected)), Some(Value::Array(actual))) if expected.len() == actual.len() => {
                for (index, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                    self.value(&format!("{at}[{index}]"), Some(expected), Some(actual));
                }
            }
            (expected, actual) => self.add(at, expected.cloned(), actual.cloned()),
        }
    }
}

/// Returns bytes as text, with U+FFFD in place of bytes that are not valid UTF-8.
fn text(bytes: &[u8]) -> Value {
    String::from_utf8_lossy(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use evoke_manifest::TestFile;

    fn actual() -> Actual {
        let map = |value: Value| value.as_object().unwrap().clone();
        let published =
            json!({ "id": "test-1-0", "type": "payment.taken", "data": { "total": 42, "items": ["book"] } });
        Actual {
            duration: Duration::ZERO,
            outcome: "retry",
            message: Some("the gateway is down (attempt 1)".into()),
            published_json: vec![published.to_string()],
            published: vec![map(published)],
            state: BTreeMap::from([("seen".into(), Some(b"8".to_vec())), ("gone".into(), None)]),
            shared_state: BTreeMap::new(),
            logs: ["info a", "info b", "warn c"].map(str::to_owned).into(),
            http: vec![map(json!({ "method": "POST", "url": "https://a/", "body": { "n": 1 } }))],
        }
    }

    /// Returns each difference as its place, the expected value and the actual value, as in `state.seen: 7 8`.
    fn found(expect: &str) -> Vec<String> {
        let text = format!("tests:\n  a:\n    expect: {expect}\n");
        let file = TestFile::parse(&text, Path::new("a.test.yaml")).unwrap();
        let shown = |value: Option<Value>| value.map_or("-".to_owned(), |value| value.to_string());
        let all = differences(&file.tests[0].expect, &actual()).into_iter();
        all.map(|one| format!("{}: {} {}", one.at, shown(one.expected), shown(one.actual))).collect()
    }

    #[test]
    fn what_a_test_does_not_name_is_not_compared_except_the_outcome() {
        assert_eq!(
            found("{ message: x }"),
            ["outcome: \"done\" \"retry\"", "message: \"x\" \"the gateway is down (attempt 1)\"",]
        );
        assert!(found("{ outcome: retry, message: gateway is down }").is_empty());
        assert!(found("{ outcome: retry, published: [{ type: payment.taken }], http: [{ method: POST }] }").is_empty());
        assert!(
            found("{ outcome: retry, state: { seen: 8, gone: }, shared_state: {}, logs: [info a, warn c] }").is_empty()
        );
        assert!(found("{ outcome: retry, http: ['POST https://a/'] }").is_empty());
    }

    #[test]
    fn the_smallest_part_that_differs_is_reported() {
        let published = "published: [{ type: payment.taken, data: { total: 43, items: [pen], more: 1 } }]";
        assert_eq!(
            found(&format!("{{ outcome: retry, {published} }}")),
            [
                "published[0].data.items[0]: \"pen\" \"book\"",
                "published[0].data.more: 1 -",
                "published[0].data.total: 43 42",
            ]
        );
        assert_eq!(found("{ outcome: retry, published: [] }").len(), 1);
        assert_eq!(found("{ outcome: retry, published: [{}, { type: b }] }"), ["published[1]: {\"type\":\"b\"} -"]);
        assert_eq!(
            found("{ outcome: retry, state: { seen: 7, other: 1 } }"),
            ["state.other: 1 -", "state.seen: 7 8", "state.gone: - null",]
        );
        assert_eq!(found("{ outcome: retry, logs: [info b, info a] }"), ["logs[1]: \"info a\" -"]);
        assert_eq!(found("{ outcome: retry, http: [{ body: { n: 2 } }] }"), ["http[0].body.n: 2 1"]);
    }
}
