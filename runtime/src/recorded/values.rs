//! Converts recorded bytes to values of a test file. When the file is read, the values give the same bytes again. Bytes
//! that are JSON in its shortest form are written as YAML values, so that users can read and change them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};

use evoke_model::Json;
use evoke_model::event::Event;
use evoke_model::recording::{BucketReads, Content};

/// Maximum size of JSON that is written as a YAML value, in bytes. Longer JSON is written as text, because the number
/// of values in a test file is limited.
const VALUE_BYTES_MAX: usize = 16 * 1024;
/// Maximum number of nested levels of a value. A test file may have 64 levels in total.
const VALUE_LEVELS_MAX: usize = 32;
/// Maximum length of a key in a value, in characters. A YAML key has at most 1,024 characters, including its escapes.
const KEY_CHARS_MAX: usize = 128;

/// Determines how the JSON of a test is written: as YAML values, or as text, which is harder to read and change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON is written as YAML values if it has at most [`VALUE_BYTES_MAX`] bytes and reading them back gives the same
    /// bytes; else as text.
    Values,
    /// All JSON is written as text. Used if the test would have more values than `VALUES_MAX` in `recorded.rs`.
    Text,
}

/// Returns true if a value does not exceed [`VALUE_LEVELS_MAX`] and [`KEY_CHARS_MAX`], so that it can be read back
/// from a test file.
pub(super) fn is_writable(value: &Value) -> bool {
    fn fits(value: &Value, levels: usize) -> bool {
        match (value, levels.checked_sub(1)) {
            (Value::Array(items), Some(levels)) => items.iter().all(|item| fits(item, levels)),
            (Value::Object(map), Some(levels)) => {
                map.iter().all(|(key, value)| key.chars().nth(KEY_CHARS_MAX).is_none() && fits(value, levels))
            }
            (Value::Array(_) | Value::Object(_), None) => false,
            _ => true,
        }
    }
    fits(value, VALUE_LEVELS_MAX)
}

/// Returns the number of JSON values in `value`: the value itself, and its items and members at all levels.
pub(super) fn count_values(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count_values).sum(),
        Value::Object(map) => map.values().map(count_values).sum::<usize>(),
        _ => 0,
    }
}

/// Parses bytes as JSON. Returns bytes that are not JSON as text.
pub(crate) fn json_or_text(bytes: &[u8]) -> Value {
    serde_json::from_slice::<Json>(bytes).map_or_else(|_| String::from_utf8_lossy(bytes).into(), |json| json.0)
}

/// Parses bytes that are JSON in its shortest form. Returns `None` for all other bytes, and for JSON that must not be
/// written as a YAML value.
fn exact(bytes: &[u8], form: Form) -> Option<Value> {
    if bytes.len() > VALUE_BYTES_MAX || form == Form::Text {
        return None;
    }
    let Json(value) = serde_json::from_slice(bytes).ok()?;
    (value.to_string().as_bytes() == bytes && is_writable(&value)).then_some(value)
}

/// Returns bytes as a string if they are UTF-8, else as a map with their base64.
fn raw_value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => [("base64".to_owned(), Value::from(BASE64.encode(bytes)))].into_iter().collect::<Map<_, _>>().into(),
    }
}

/// Returns an event as a map. Returns it as text with [`Form::Text`], if it is too large, or if an event that is read
/// back from the map would differ.
pub(super) fn event_value(json: &str, form: Form) -> Value {
    let parse = |json: &str| Event::from_json(json.as_bytes(), |_| {}).ok();
    if json.len() > VALUE_BYTES_MAX || form == Form::Text {
        return json.into();
    }
    match serde_json::from_str::<Json>(json) {
        Ok(Json(value)) if is_writable(&value) && parse(&value.to_string()) == parse(json) => value,
        _ => json.into(),
    }
}

/// Returns two maps with the results of an attempt's reads in a bucket of state. The first map has the values that are
/// JSON in its shortest form. The second map has all other values (`raw`), the listed keys, and the size of the bucket.
pub(super) fn bucket(reads: &BucketReads, form: Form) -> (Map<String, Value>, Map<String, Value>) {
    let (mut values, mut raw, mut others) = (Map::new(), Map::new(), Map::new());
    for (key, content) in &reads.values {
        let Some(Content(content)) = content else { continue };
        match exact(content, form) {
            Some(value) => values.insert(key.clone(), value),
            None => raw.insert(key.clone(), raw_value(content)),
        };
    }
    let has_value = |key: &&String| reads.values.get(*key).is_some_and(Option::is_some);
    let keys: Vec<Value> = reads.keys.iter().filter(|key| !has_value(key)).map(|key| key.as_str().into()).collect();
    if !raw.is_empty() {
        others.insert("raw".to_owned(), raw.into());
    }
    if !keys.is_empty() {
        others.insert("keys".to_owned(), keys.into());
    }
    if let Some((keys, bytes)) = reads.usage {
        others.insert("usage".to_owned(), vec![keys, bytes].into());
    }
    (values, others)
}

/// Returns changes of state in two maps. The first has the new values that are JSON in its shortest form, and null for
/// deleted keys. The second has all other new values, as raw values.
pub(crate) fn changes<'a>(
    changed: impl Iterator<Item = (&'a String, Option<&'a [u8]>)>,
) -> (Map<String, Value>, Map<String, Value>) {
    changes_in(changed, Form::Values)
}

/// Like [`changes`]; with [`Form::Text`], only deleted keys are in the first map.
pub(super) fn changes_in<'a>(
    changed: impl Iterator<Item = (&'a String, Option<&'a [u8]>)>,
    form: Form,
) -> (Map<String, Value>, Map<String, Value>) {
    let (mut values, mut raw) = (Map::new(), Map::new());
    for (key, content) in changed {
        // In an expectation, null means a deleted key, so a value that is JSON null is written as a raw value.
        match content.map(|content| (exact(content, form).filter(|value| !value.is_null()), content)) {
            None => drop(values.insert(key.clone(), Value::Null)),
            Some((Some(value), _)) => drop(values.insert(key.clone(), value)),
            Some((None, content)) => drop(raw.insert(key.clone(), raw_value(content))),
        }
    }
    (values, raw)
}

/// Returns headers by name. A header that occurs several times has a list of values.
pub(super) fn headers(given: &[(String, String)]) -> Map<String, Value> {
    let mut map: Map<String, Value> = Map::new();
    for (name, value) in given {
        let value = Value::from(value.as_str());
        match map.get_mut(name) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = vec![first.take(), value].into(),
            None => drop(map.insert(name.clone(), value)),
        }
    }
    map
}
