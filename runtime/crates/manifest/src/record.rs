//! The key `record` of a function: switches the recording of attempts on, and sets the limits of the recordings.

use super::units::{ByteSize, DurationText};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use std::time::Duration;

/// Limits of the recordings of a function. When `keep` or `max_total` is reached, new recordings replace the oldest
/// ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct Record {
    /// Largest recording of one attempt: the event, everything that the attempt read, and everything that the attempt
    /// did. At most 512KiB. An attempt with a larger recording is not recorded.
    pub max_size: ByteSize,
    /// Largest number of recordings.
    #[schemars(range(min = 1, max = 100_000))]
    pub keep: u32,
    /// Largest size of all recordings together.
    pub max_total: ByteSize,
    /// Largest age of a recording. An older one is removed. A recording is removed earlier if its event is removed.
    #[serde(with = "DurationText")]
    pub max_age: Duration,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            max_size: ByteSize(128 << 10),
            keep: 1_000,
            max_total: ByteSize(32 << 20),
            max_age: Duration::from_secs(7 * 86_400),
        }
    }
}

/// `true` or `false`, or the limits of the recordings.
pub(super) fn record_schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "type": "boolean" }, generator.subschema_for::<Record>()] })
}
