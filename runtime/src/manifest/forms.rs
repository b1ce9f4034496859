//! The written form of keys whose checked form has another shape. Read by `check`, described to the schema.

use super::grants::State;
use super::model::{FilesSource, HttpSource, Missed, SourceKind};
use super::names::Name;
use super::units::DurationText;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Sources by name.
pub(super) type SourceMap = BTreeMap<Name, SourceKind>;

/// Sources or functions that there are by default.
pub(super) fn none_by_name() -> BTreeMap<(), ()> {
    BTreeMap::new()
}

/// Ticks at the times of `cron`, or at intervals of `every`.
#[derive(JsonSchema)]
#[schemars(rename = "Timer", deny_unknown_fields, extend("oneOf" = [{ "required": ["cron"] }, { "required": ["every"] }]))]
#[allow(dead_code, reason = "the schema is derived from it; the checked form is TimerSource")]
pub(super) struct TimerForm {
    /// Cron expression: minute, hour, day of month, month, day of week; with six fields seconds come first.
    cron: Option<String>,
    /// Time zone of `cron`, by its IANA name.
    #[schemars(default = "TimerForm::default_timezone")]
    timezone: String,
    /// Interval, at least 100ms.
    every: Option<DurationText>,
    /// What becomes of ticks whose time passed while Evoke was not running.
    #[schemars(default, with = "MissedForm")]
    missed: Missed,
}

impl TimerForm {
    pub(super) fn default_timezone() -> String {
        "UTC".to_owned()
    }
}

/// One trigger: an event pattern, a source, or an event pattern over the events of a source.
#[derive(JsonSchema)]
#[schemars(rename = "Trigger", deny_unknown_fields, extend("minProperties" = 1))]
#[allow(dead_code, reason = "the schema is derived from it; the checked form is Trigger")]
pub(super) struct TriggerForm {
    /// Event pattern (the EventBridge language) over the event in its CloudEvents JSON form.
    #[schemars(with = "Option<PatternForm>")]
    events: Option<()>,
    /// A source that the manifest declares, by name: all its events, or those of them that match `events`.
    source: Option<Name>,
    /// An http source of this function alone.
    http: Option<HttpSource>,
    /// A files source of this function alone.
    files: Option<FilesSource>,
    /// A timer of this function alone.
    timer: Option<TimerForm>,
}

/// `none`, `last`, `all` (at most 1,000), or how many at most.
#[derive(JsonSchema)]
#[schemars(rename = "Missed", untagged)]
#[allow(dead_code, reason = "the schema is derived from it; the checked form is Missed")]
enum MissedForm {
    Word(MissedWord),
    AtMost(MissedAtMost),
}

#[derive(JsonSchema)]
#[schemars(inline, rename_all = "lowercase")]
#[allow(dead_code, reason = "the schema is derived from it")]
enum MissedWord {
    /// Missed ticks are left out.
    None,
    /// Only the last one is made up for.
    Last,
    /// The last 1,000 are made up for, in order.
    All,
}

/// The last so many are made up for, in order.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[allow(dead_code, reason = "the schema is derived from it")]
struct MissedAtMost {
    /// How many.
    #[schemars(range(min = 1, max = 10_000))]
    all: u32,
}

/// Whether there is state: `true`, or how much of it.
#[derive(JsonSchema)]
#[schemars(inline, untagged)]
#[allow(dead_code, reason = "the schema is derived from it; the checked form is an optional State")]
pub(super) enum StateForm {
    Granted(bool),
    Bounded(State),
}

impl Default for StateForm {
    fn default() -> Self {
        Self::Granted(false)
    }
}

/// A pattern: a field's list of accepted values, or a pattern for what is inside the field.
pub(super) struct PatternForm;

impl JsonSchema for PatternForm {
    fn schema_name() -> Cow<'static, str> {
        "Pattern".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let inner = generator.subschema_for::<Self>();
        json_schema!({
            "type": "object",
            "description": "Fields of the event, each with the list of what it may be: values and operators such as \
                `{ prefix: order. }`; or with a pattern for the fields inside it.",
            "minProperties": 1,
            "additionalProperties": { "anyOf": [{ "type": "array", "minItems": 1 }, inner] }
        })
    }
}

/// A setting: any scalar, handed to the function as its text.
pub(super) struct ConfigScalar;

impl JsonSchema for ConfigScalar {
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
