//! The JSON form of stored state.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use evoke_model::state::Entry;

/// A bucket of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateBucket {
    /// `app/function`, or `app` for the state that the functions of the app share.
    pub bucket: String,
    /// Number of keys.
    pub keys: u64,
    /// Total size of keys and values, in bytes.
    pub bytes: u64,
}

/// A state value: `value` if it is UTF-8 text, else `value_base64`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateValue {
    /// The value as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64 (RFC 4648, section 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// A state key with its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateEntry {
    /// The bucket: `app/function` or `app`.
    pub bucket: String,
    /// The key within the bucket.
    pub key: String,
    /// Version of the write that set the value. Each write has a higher version than all earlier writes.
    pub version: u64,
    /// Size of the value in bytes.
    pub bytes: u64,
    /// The value if it is text; absent in lists if it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The value in base64 if it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// A change of a state key by an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateChange {
    /// The bucket: `app/function` or `app`.
    pub bucket: String,
    /// The key within the bucket.
    pub key: String,
    /// True if the attempt deleted the key; then there is no value.
    pub deleted: bool,
    /// The new value if it is text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The new value in base64 if it is not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

impl StateValue {
    /// Encodes bytes as text if they are UTF-8, else as base64.
    pub fn of(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { value: Some(text.to_owned()), value_base64: None },
            Err(_) => Self { value: None, value_base64: Some(STANDARD.encode(bytes)) },
        }
    }

    /// Decodes the bytes. The error message contains the expected form.
    pub(in crate::admin) fn bytes(self) -> Result<Vec<u8>, String> {
        match self {
            Self { value: Some(text), value_base64: None } => Ok(text.into_bytes()),
            Self { value: None, value_base64: Some(encoded) } => {
                STANDARD.decode(encoded).map_err(|error| format!("value_base64 is not base64: {error}"))
            }
            _ => Err(r#"send {"value": "text"} or {"value_base64": "dGV4dA=="}"#.into()),
        }
    }
}

impl StateEntry {
    /// Makes an entry; leaves the value out if it has more than `bytes_max` bytes.
    pub(in crate::admin) fn new(bucket: &str, key: &str, entry: &Entry, bytes_max: usize) -> Self {
        let is_short = entry.value.len() <= bytes_max;
        let StateValue { value, value_base64 } =
            if is_short { StateValue::of(&entry.value) } else { StateValue::default() };
        let (bucket, key, bytes) = (bucket.to_owned(), key.to_owned(), entry.value.len() as u64);
        Self { bucket, key, version: entry.version, bytes, value, value_base64 }
    }
}

impl StateChange {
    /// Makes a change that sets the key to `value`, or deletes the key if `value` is `None`.
    pub fn new(bucket: &str, key: &str, value: Option<&Bytes>) -> Self {
        let deleted = value.is_none();
        let StateValue { value, value_base64 } = value.map(|value| StateValue::of(value)).unwrap_or_default();
        Self { bucket: bucket.to_owned(), key: key.to_owned(), deleted, value, value_base64 }
    }
}
