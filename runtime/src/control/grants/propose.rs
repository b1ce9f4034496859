//! Proposes the grants that a function needs, from those that it used.

use serde_json::{Map, Value, json};

use super::record::{GrantRecord, Record};
use evoke_model::{GrantKey, GrantKind};

/// Maximum number of event types that replace a glob.
const TYPES_MAX: usize = 5;

/// Returns the smallest `allow:` that covers all uses of a function. A grant that was added after the last attempt
/// stays. Returns `None` if the function has not run, if its `allow:` is already the smallest, or if its `allow:` is
/// unknown.
pub fn propose(record: &Record) -> Option<Value> {
    let allow = record.allow.as_ref().and_then(|allow| allow.as_object())?;
    let mut proposed = Map::new();
    for (key, value) in allow {
        let value = match (key.as_str(), value) {
            ("publish", Value::Array(globs)) => list(globs.iter().flat_map(|glob| publish(record, glob))),
            ("state", state_value) => state(record, state_value),
            ("http", Value::Array(entries)) => list(entries.iter().filter_map(|entry| http(record, entry))),
            ("config", Value::Object(settings)) => named(record, GrantKind::Config, settings),
            ("secrets", Value::Object(secrets)) => named(record, GrantKind::Secret, secrets),
            (_, other) => Some(other.clone()),
        };
        proposed.extend(value.map(|value| (key.clone(), value)));
    }
    (record.attempts > 0 && proposed != *allow).then_some(Value::Object(proposed))
}

/// Returns the entry for `allow:` with which this refused use would be allowed.
pub fn line(key: &GrantKey) -> Value {
    let name = key.name.as_str();
    match key.kind {
        GrantKind::Publish => json!({ "publish": [name] }),
        GrantKind::State => json!({ "state": true }),
        GrantKind::SharedState => json!({ "state": { "shared": true } }),
        GrantKind::Http => json!({ "http": [name] }),
        GrantKind::Address => {
            let (url, address) = name.split_once(' ').unwrap_or((name, ""));
            json!({ "http": [{ "url": url, "addresses": [address] }] })
        }
        GrantKind::Config | GrantKind::Secret => json!({ "config": { name: "VALUE" } }),
    }
}

fn list(values: impl Iterator<Item = Value>) -> Option<Value> {
    let mut list: Vec<Value> = Vec::new();
    for value in values {
        if !list.contains(&value) {
            list.push(value);
        }
    }
    (!list.is_empty()).then_some(Value::Array(list))
}

fn grant<'a>(record: &'a Record, kind: GrantKind, name: &str) -> Option<&'a GrantRecord> {
    record.current().find(|grant| grant.key.kind == kind && grant.key.name == name)
}

fn is_unused(record: &Record, kind: GrantKind, name: &str) -> bool {
    grant(record, kind, name).is_some_and(|grant| record.is_unused(grant))
}

/// Returns the event types for which a glob was used, if they are few; else the glob itself. Returns nothing if the
/// glob was not used.
fn publish(record: &Record, glob: &Value) -> Vec<Value> {
    let Some(found) = glob.as_str().and_then(|glob| grant(record, GrantKind::Publish, glob)) else {
        return vec![glob.clone()];
    };
    match found.seen.len() {
        _ if record.is_unused(found) => Vec::new(),
        // A type that contains `*` cannot be listed: in a manifest, it would be a glob.
        1..=TYPES_MAX if !found.more && !found.seen.keys().any(|type_| type_.contains('*')) => {
            found.seen.keys().map(|type_| type_.as_str().into()).collect()
        }
        _ => vec![glob.clone()],
    }
}

fn state(record: &Record, state: &Value) -> Option<Value> {
    if is_unused(record, GrantKind::State, "") {
        return None;
    }
    match state {
        Value::Object(limits) if is_unused(record, GrantKind::SharedState, "") => {
            let mut limits = limits.clone();
            limits.remove("shared");
            Some(if limits.is_empty() { true.into() } else { limits.into() })
        }
        _ => Some(state.clone()),
    }
}

/// Returns an entry of `http`. If the entry has a wildcard and only one host was used, the host replaces the wildcard.
fn http(record: &Record, entry: &Value) -> Option<Value> {
    let url = entry.get("url").unwrap_or(entry);
    let Some(found) = url.as_str().and_then(|url| grant(record, GrantKind::Http, url)) else {
        return Some(entry.clone());
    };
    if record.is_unused(found) {
        return None;
    }
    let mut hosts = found.seen.keys();
    let (Some(host), None, false) = (hosts.next(), hosts.next(), found.more) else { return Some(entry.clone()) };
    Some(match entry {
        Value::Object(settings) => {
            let mut settings = settings.clone();
            settings.insert("url".to_owned(), host.as_str().into());
            settings.into()
        }
        _ => host.as_str().into(),
    })
}

fn named(record: &Record, kind: GrantKind, entries: &Map<String, Value>) -> Option<Value> {
    let kept = entries.iter().filter(|(name, _)| !is_unused(record, kind, name));
    let kept: Map<String, Value> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
    (!kept.is_empty()).then_some(kept.into())
}
