//! The kind `timer` in a manifest: its settings and their parser.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::settings::{Missed, Schedule, TimerSource};
use super::{cron, zone};
use evoke_manifest::parser::{Node, Reader, Table, Value, ValueError, excerpt, nearest};
use evoke_manifest::units::DurationText;
use evoke_manifest::{Place, Settings, SourceKind};

/// The kind `timer`.
#[derive(Debug)]
pub struct TimerKind;

const INTERVAL_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(366 * 86_400);
const MISSED_MAX: u32 = 10_000;
/// Value of `all` without a number: enough for the minutes of a night, but not for the seconds of a year.
const MISSED_ALL: u32 = 1_000;

const TIMEZONE_DEFAULT: &str = "UTC";

impl SourceKind for TimerKind {
    fn key(&self) -> &'static str {
        "timer"
    }

    fn description(&self) -> &'static str {
        "Each time of a schedule becomes an event."
    }

    fn private_description(&self) -> &'static str {
        "Private timer: only this function receives its ticks."
    }

    fn example(&self) -> &'static str {
        "`timer: { every: 1m }`"
    }

    fn hint(&self, key: &str) -> Option<&'static str> {
        match key {
            "cron" | "schedule" => Some("for a schedule, write `timer: { cron: \"0 2 * * *\" }`"),
            "every" | "interval" => Some("for an interval, write `timer: { every: 1m }`"),
            _ => None,
        }
    }

    fn parse(&self, reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Settings> {
        parse(reader, node, place).map(Settings::new)
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<TimerSource>()
    }
}

fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<TimerSource> {
    let mut table =
        Table::read(reader, node, place.key_span, "Timer", "a timer", "`{ every: 1m }` or `{ cron: \"0 2 * * *\" }`")?;
    let cron_node = table.optional(reader, "cron");
    let cron = cron_node.and_then(|node| reader.parse_advised(node, "`cron`", cron::parse, |expr| cron::advice(expr)));
    let timezone = table.optional(reader, "timezone");
    let timezone =
        timezone.and_then(|node| reader.parse_advised(node, "`timezone`", zone::parse, |zone| zone::advice(zone)));
    let every_node = table.optional(reader, "every");
    let every = every_node.and_then(|node| reader.duration(node, "`every`", INTERVAL_RANGE));
    let missed = table.optional(reader, "missed").and_then(|node| missed(reader, node)).unwrap_or_default();
    match (table.has("cron"), table.has("every")) {
        (false, false) => {
            reader.error(table.span(), "a timer needs a schedule", "add `every: 1m` or `cron: \"0 2 * * *\"`");
        }
        (true, true) => {
            let other = (table.key_span("cron"), "the other schedule");
            reader.error_with_related(
                table.key_span("every"),
                "a timer can have only one schedule",
                "keep either `cron` or `every`",
                other,
            );
        }
        (false, true) if table.has("timezone") => {
            let message = "`timezone` has no effect with `every`: an interval does not depend on a time zone";
            reader.error(
                table.key_span("timezone"),
                message,
                "remove it, or write a `cron` expression instead of `every`",
            );
        }
        _ => {}
    }
    table.reject_unknown_keys(reader, |key| match key {
        "tz" | "time_zone" | "zone" => Some("did you mean `timezone`?"),
        "interval" | "period" => Some("did you mean `every`?"),
        "schedule" => Some("did you mean `cron`?"),
        _ => None,
    });
    let schedule = match (cron, every) {
        (Some(expr), _) => Schedule::Cron { expr, timezone: timezone.unwrap_or_else(|| TIMEZONE_DEFAULT.to_owned()) },
        (None, Some(every)) => Schedule::Every { every },
        (None, None) => return None,
    };
    Some(TimerSource { schedule, missed })
}

fn missed(reader: &mut Reader<'_>, node: &Node) -> Option<Missed> {
    if matches!(node.value, Value::Map(_)) {
        let mut table = Table::read(reader, node, node.span, "MissedAtMost", "`missed`", "`all`")?;
        let example = "`all: N`, the largest number of missed ticks to run";
        let all = table.required(reader, "all", &["last", "none", "max"], example);
        let all = all.and_then(|node| reader.integer(node, "`all`", 1..=MISSED_MAX));
        table.reject_unknown_keys(reader, |key| match key {
            "last" | "max" => Some("to run at most N missed ticks, write `{ all: N }`"),
            "none" => Some("write `missed: none`"),
            _ => None,
        });
        return all.map(Missed::All);
    }
    reader.parse_text(node, "`missed`", |text| match text {
        "none" => Ok(Missed::None),
        "last" => Ok(Missed::Last),
        "all" => Ok(Missed::All(MISSED_ALL)),
        _ => {
            let help = match nearest(text, ["none", "last", "all"]) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => "write `none`, `last`, `all` or `{ all: 100 }`".to_owned(),
            };
            Err(ValueError::new(format!("`{}` is not a valid value of `missed`", excerpt(text)), help))
        }
    })
}

impl JsonSchema for TimerSource {
    fn schema_name() -> Cow<'static, str> {
        "Timer".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut every = generator.subschema_for::<DurationText>();
        every.insert("description".to_owned(), "Interval between ticks, at least 100ms.".into());
        let mut missed = generator.subschema_for::<Missed>();
        let description = "Which ticks to run later if their time passed while Evoke was not running.";
        missed.insert("description".to_owned(), description.into());
        missed.insert("default".to_owned(), "last".into());
        json_schema!({
            "description": "Creates an event at the times of `cron`, or at intervals of `every`.",
            "type": "object",
            "properties": {
                "cron": {
                    "description": "Cron expression: minute, hour, day of month, month, day of week. With six fields, \
                        the first one is seconds.",
                    "type": "string"
                },
                "timezone": {
                    "description": "Time zone of `cron`: an IANA name such as `Europe/Berlin`.",
                    "type": "string",
                    "default": TIMEZONE_DEFAULT
                },
                "every": every,
                "missed": missed
            },
            "additionalProperties": false,
            "oneOf": [{ "required": ["cron"] }, { "required": ["every"] }]
        })
    }
}

impl JsonSchema for Missed {
    fn schema_name() -> Cow<'static, str> {
        "Missed".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let word = |name: &str, description: &str| json_schema!({ "type": "string", "const": name, "description": description });
        let words = [
            word("none", "Skip missed ticks."),
            word("last", "Run only the last missed tick."),
            word("all", "Run the last 1,000 missed ticks, in order."),
        ];
        json_schema!({
            "description": "`none`, `last`, `all` (at most 1,000 ticks), or `{ all: N }` for at most N ticks.",
            "anyOf": [{ "oneOf": words }, generator.subschema_for::<MissedAtMost>()]
        })
    }
}

/// The map form of [`Missed::All`], a definition of its own in the schema.
struct MissedAtMost;

impl JsonSchema for MissedAtMost {
    fn schema_name() -> Cow<'static, str> {
        "MissedAtMost".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Run at most the last N missed ticks, in order.",
            "type": "object",
            "properties": {
                "all": {
                    "description": "Largest number of missed ticks to run.",
                    "type": "integer",
                    "format": "uint32",
                    "minimum": 1,
                    "maximum": MISSED_MAX
                }
            },
            "required": ["all"],
            "additionalProperties": false
        })
    }
}
