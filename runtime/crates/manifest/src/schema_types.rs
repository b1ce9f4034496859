//! Types used only to derive the JSON schema, for keys whose YAML form differs from their type in the model.
//! `check` parses these keys.

use super::grants::StateLimits;
use super::model::{FilesSource, HttpSource, Missed, SourceKind};
use super::names::Name;
use super::units::DurationText;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// YAML form of `sources`: a map from name to kind.
pub(super) type SourceMap = BTreeMap<Name, SourceKind>;

/// Default of `sources` and `functions` in the schema.
pub(super) fn empty_map() -> BTreeMap<(), ()> {
    BTreeMap::new()
}

/// Creates an event at the times of `cron`, or at intervals of `every`.
#[derive(JsonSchema)]
#[schemars(rename = "Timer", deny_unknown_fields, extend("oneOf" = [{ "required": ["cron"] }, { "required": ["every"] }]))]
#[allow(dead_code, reason = "used only to derive the schema; the model type is TimerSource")]
pub(super) struct TimerSchema {
    /// Cron expression: minute, hour, day of month, month, day of week. With six fields, the first one is seconds.
    cron: Option<String>,
    /// Time zone of `cron`: an IANA name such as `Europe/Berlin`.
    #[schemars(default = "TimerSchema::default_timezone")]
    timezone: String,
    /// Interval between ticks, at least 100ms.
    every: Option<DurationText>,
    /// Which ticks to run later if their time passed while Evoke was not running.
    #[schemars(default, with = "MissedSchema")]
    missed: Missed,
}

impl TimerSchema {
    pub(super) fn default_timezone() -> String {
        "UTC".to_owned()
    }
}

/// One trigger: an event pattern, a source, or a source with a pattern that its events must match.
#[derive(JsonSchema)]
#[schemars(rename = "Trigger", deny_unknown_fields, extend("minProperties" = 1))]
#[allow(dead_code, reason = "used only to derive the schema; the model type is Trigger")]
pub(super) struct TriggerSchema {
    /// Event pattern (the EventBridge language), matched against the event in CloudEvents JSON form.
    #[schemars(with = "Option<PatternSchema>")]
    events: Option<()>,
    /// Name of a source declared under `sources`. The trigger takes all its events, or those that match `events`.
    source: Option<Name>,
    /// Private http source: only this function receives its events.
    http: Option<HttpSource>,
    /// Private files source: only this function receives its events.
    files: Option<FilesSource>,
    /// Private timer: only this function receives its ticks.
    timer: Option<TimerSchema>,
}

/// `none`, `last`, `all` (at most 1,000 ticks), or `{ all: N }` for at most N ticks.
#[derive(JsonSchema)]
#[schemars(rename = "Missed", untagged)]
#[allow(dead_code, reason = "used only to derive the schema; the model type is Missed")]
enum MissedSchema {
    Word(MissedWord),
    AtMost(MissedAtMost),
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
#[allow(dead_code, reason = "used only to derive the schema")]
enum MissedWord {
    /// Skip missed ticks.
    None,
    /// Run only the last missed tick.
    Last,
    /// Run the last 1,000 missed ticks, in order.
    All,
}

/// Run at most the last N missed ticks, in order.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "used only to derive the schema")]
struct MissedAtMost {
    /// Largest number of missed ticks to run.
    #[schemars(range(min = 1, max = 10_000))]
    all: u32,
}

/// `true` or `false`, or the limits of the state.
#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[allow(dead_code, reason = "used only to derive the schema; the model type is an optional StateLimits")]
pub(super) enum StateSchema {
    Granted(bool),
    Limited(StateLimits),
}

impl Default for StateSchema {
    fn default() -> Self {
        Self::Granted(false)
    }
}

/// An event pattern: each field has a list of accepted values and operators, or a nested pattern.
pub(super) struct PatternSchema;

impl JsonSchema for PatternSchema {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let inner = generator.subschema_for::<Self>();
        json_schema!({
            "type": "object",
            "description": "Fields of the event. Each has a list of accepted values and operators such as \
                `{ prefix: order. }`, or a pattern for the fields inside it.",
            "minProperties": 1,
            "additionalProperties": { "anyOf": [{ "type": "array", "minItems": 1 }, inner] }
        })
    }
}

/// A setting: any scalar. The function reads it as a string.
pub(super) struct ConfigValueSchema;

impl JsonSchema for ConfigValueSchema {
    fn schema_name() -> Cow<'static, str> {
        "ConfigValue".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}
