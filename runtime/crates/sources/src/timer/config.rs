//! The kind `timer` in a manifest: its settings and their parser.

use std::borrow::Cow;
use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::settings::{Missed, Overlap, Schedule, TimerSource, instant};
use super::{cron, zone};
use evoke_manifest::parser::{Node, Reader, Table, Value, ValueError, excerpt, nearest};
use evoke_manifest::units::DurationText;
use evoke_manifest::{Place, Settings, SourceKind};
use evoke_model::clock::UnixMs;
use evoke_model::rfc3339;

/// The kind `timer`.
#[derive(Debug)]
pub struct TimerKind;

const INTERVAL_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(366 * 86_400);
const DEADLINE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(366 * 86_400);
const JITTER_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);
/// Maximum number of times in `at`. Each tick writes the mark of the timer, and the mark contains all these times.
const AT_MAX: usize = 100;
const MISSED_MAX: u32 = 10_000;
/// Maximum number of missed ticks that `missed: all` (without a number) runs. This is enough for a timer that ticks
/// every minute and was down for a night. It limits a timer that ticks every second and was down for a year.
const MISSED_ALL: u32 = 1_000;

const TIMEZONE_DEFAULT: &str = "UTC";

impl SourceKind for TimerKind {
    fn key(&self) -> &'static str {
        "timer"
    }

    fn description(&self) -> &'static str {
        "The times of a schedule become events."
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
            "at" | "once" => Some("for single times, write `timer: { at: 2030-01-31T12:00:00Z }`"),
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
    let at_node = table.optional(reader, "at");
    let at = at_node.and_then(|node| instants(reader, node));
    let overlap = table.optional(reader, "overlap").and_then(|node| overlap(reader, node)).unwrap_or_default();
    let start_deadline = table.optional(reader, "start_deadline");
    let start_deadline = start_deadline.and_then(|node| reader.duration(node, "`start_deadline`", DEADLINE_RANGE));
    let jitter_node = table.optional(reader, "jitter");
    let jitter = jitter_node.and_then(|node| reader.duration(node, "`jitter`", JITTER_RANGE));
    if let (Some(node), Some(jitter), Some(every)) = (jitter_node, jitter, every)
        && jitter > every
    {
        let help = "write at most the time of `every`: otherwise, a tick could be sent after the time of the next tick";
        reader.error(node.span, "`jitter` is longer than `every`", help);
    }
    let missed = table.optional(reader, "missed").and_then(|node| missed(reader, node)).unwrap_or_default();
    match (table.has("cron"), table.has("every"), table.has("at")) {
        (false, false, false) => {
            reader.error(table.span(), "a timer needs a schedule", "add `every: 1m` or `cron: \"0 2 * * *\"`");
        }
        (true, true, _) => {
            let other = (table.key_span("cron"), "the other schedule");
            reader.error_with_related(
                table.key_span("every"),
                "a timer can have only one schedule",
                "keep either `cron` or `every`",
                other,
            );
        }
        (true, _, true) | (_, true, true) => {
            let other = (table.key_span(if table.has("cron") { "cron" } else { "every" }), "the other schedule");
            reader.error_with_related(
                table.key_span("at"),
                "a timer can have only one schedule",
                "keep one of them, and write a second timer for the other",
                other,
            );
        }
        (false, _, true) if table.has("timezone") => {
            let message = "`timezone` has no effect with `at`: each time has its own offset";
            reader.error(
                table.key_span("timezone"),
                message,
                "remove `timezone`, and write times with an offset, such as 2030-01-31T12:00:00+01:00",
            );
        }
        (false, true, _) if table.has("timezone") => {
            let message = "`timezone` has no effect with `every`: an interval does not depend on a time zone";
            reader.error(
                table.key_span("timezone"),
                message,
                "remove `timezone`, or write a `cron` expression instead of `every`",
            );
        }
        _ => {}
    }
    table.reject_unknown_keys(reader, |key| match key {
        "tz" | "time_zone" | "zone" => Some("did you mean `timezone`?"),
        "interval" | "period" => Some("did you mean `every`?"),
        "once" | "time" | "times" => Some("did you mean `at`?"),
        "deadline" => Some("did you mean `start_deadline`?"),
        "schedule" => Some("did you mean `cron`?"),
        _ => None,
    });
    let schedule = match (cron, every, at) {
        (Some(expr), ..) => Schedule::Cron { expr, timezone: timezone.unwrap_or_else(|| TIMEZONE_DEFAULT.to_owned()) },
        (None, Some(every), _) => Schedule::Every { every },
        (None, None, Some(at)) => Schedule::At { at },
        (None, None, None) => return None,
    };
    Some(TimerSource { schedule, missed, overlap, start_deadline, jitter })
}

/// Reads one time or a list of times. Returns the times in order.
fn instants(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<UnixMs>> {
    let nodes: Vec<&Node> = match &node.value {
        Value::List(_) => {
            let help = "write a time such as 2030-01-31T12:00:00Z, or remove the timer";
            reader.nonempty_list(node, "`at`", "the timer would never tick", help).iter().map(|node| &**node).collect()
        }
        _ => vec![node],
    };
    if nodes.len() > AT_MAX {
        let help = "instead, send one event for each time, with a delayed delivery: `evoke emit --not-before TIME`";
        reader.error(node.span, format!("`at` has {} times, more than the maximum of {AT_MAX}", nodes.len()), help);
        return None;
    }
    let mut instants: Vec<UnixMs> = Vec::new();
    for node in &nodes {
        let parsed = reader.parse_text(node, "`at`", |text| {
            rfc3339::unix_ms(text).ok_or_else(|| {
                let help =
                    "write date, time and offset as in RFC 3339: 2030-01-31T12:00:00Z or 2030-01-31T12:00:00+01:00";
                ValueError::new(format!("`{}` is not a time", excerpt(text)), help)
            })
        });
        let Some(at) = parsed else { continue };
        if instants.contains(&at) {
            reader.error(
                node.span,
                format!("`at` has the time {} twice", instant(at)),
                "remove one of them: a timer ticks only once at each time",
            );
        }
        instants.push(at);
    }
    instants.sort_unstable();
    (!instants.is_empty()).then_some(instants)
}

fn overlap(reader: &mut Reader<'_>, node: &Node) -> Option<Overlap> {
    reader.parse_text(node, "`overlap`", |text| match text {
        "queue" => Ok(Overlap::Queue),
        "skip" => Ok(Overlap::Skip),
        _ => {
            let help = match nearest(text, ["queue", "skip"]) {
                Some(similar) => format!("did you mean `{similar}`?"),
                None => "write `queue` or `skip`".to_owned(),
            };
            Err(ValueError::new(format!("`{}` is not a valid value of `overlap`", excerpt(text)), help))
        }
    })
}

fn missed(reader: &mut Reader<'_>, node: &Node) -> Option<Missed> {
    if matches!(node.value, Value::Map(_)) {
        let mut table = Table::read(reader, node, node.span, "MissedAtMost", "`missed`", "`all`")?;
        let example = "`all: N`, to run at most the last N missed ticks";
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
        let mut start_deadline = generator.subschema_for::<DurationText>();
        let description = "A tick is skipped if it cannot be stored within this time after its scheduled time. This \
                           holds for missed ticks too.";
        start_deadline.insert("description".to_owned(), description.into());
        let mut jitter = generator.subschema_for::<DurationText>();
        let description = "Spreads timers with the same schedule: a timer delays all its ticks by a fixed part of this \
                           time. The part depends on the name of the timer.";
        jitter.insert("description".to_owned(), description.into());
        let mut missed = generator.subschema_for::<Missed>();
        let description = "Which missed ticks to run. A tick is missed if its time passed while Evoke was not running.";
        missed.insert("description".to_owned(), description.into());
        missed.insert("default".to_owned(), "last".into());
        json_schema!({
            "description": "Creates events at the times of `cron`, at the interval `every`, or once at each time of `at`.",
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
                "at": {
                    "description": "One time or a list of times, as in RFC 3339. A time that has passed without a tick \
                        counts as missed.",
                    "anyOf": [
                        { "type": "string", "format": "date-time" },
                        {
                            "type": "array",
                            "items": { "type": "string", "format": "date-time" },
                            "minItems": 1,
                            "maxItems": AT_MAX
                        }
                    ]
                },
                "missed": missed,
                "overlap": {
                    "description": "What to do with a tick while deliveries of the previous tick are pending: `queue` \
                        stores the tick, `skip` skips it.",
                    "type": "string",
                    "enum": ["queue", "skip"],
                    "default": "queue"
                },
                "start_deadline": start_deadline,
                "jitter": jitter
            },
            "additionalProperties": false,
            "oneOf": [{ "required": ["cron"] }, { "required": ["every"] }, { "required": ["at"] }]
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

/// The form `{ all: N }` of [`Missed::All`]. A separate type, because it has its own definition in the JSON schema.
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
                    "description": "Maximum number of missed ticks to run.",
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
