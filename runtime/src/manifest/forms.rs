//! The written form of keys whose checked form has another shape. Read by `check`, described to the schema.

use super::model::{FilesSource, HttpSource, Missed, SourceKind};
use super::names::Name;
use super::units::DurationText;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Sources by name.
pub(super) type SourceMap = BTreeMap<Name, SourceKind>;

/// Ticks at the times of `cron`, or at intervals of `every`.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields, extend("oneOf" = [{ "required": ["cron"] }, { "required": ["every"] }]))]
#[allow(
    dead_code,
    reason = "the schema is derived from it; the checked form is TimerSource"
)]
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
#[schemars(deny_unknown_fields, extend("minProperties" = 1))]
#[allow(
    dead_code,
    reason = "the schema is derived from it; the checked form is Trigger"
)]
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

/// `none`, `last`, `all`, or `{ all: N }`.
pub(super) struct MissedForm;

impl JsonSchema for MissedForm {
    fn schema_name() -> Cow<'static, str> {
        "Missed".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({})
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
