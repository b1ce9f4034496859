//! Reads timers: the schedule, its time zone, and the handling of missed ticks.

use super::cron;
use crate::diagnostics::{ValueError, excerpt};
use crate::model::{Missed, Schedule, TimerSource};
use crate::read::Reader;
use crate::schema_types::TimerSchema;
use crate::source_text::Span;
use crate::suggest::nearest;
use crate::tree::{Node, Value};
use std::ops::RangeInclusive;
use std::time::Duration;

const INTERVAL_RANGE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(366 * 86_400);
const MISSED_MAX: u32 = 10_000;
/// Value of `all` without a number: enough for the minutes of a night, but not for the seconds of a year.
const MISSED_ALL: u32 = 1_000;

pub(super) fn timer(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<TimerSource> {
    let mut table = reader.table(node, span, "Timer", "a timer", "`{ every: 1m }` or `{ cron: \"0 2 * * *\" }`")?;
    let cron_node = table.optional(reader, "cron");
    let cron = cron_node.and_then(|node| reader.parse_text(node, "`cron`", cron::parse));
    let timezone = table.optional(reader, "timezone").and_then(|node| reader.parse_text(node, "`timezone`", timezone));
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
        (Some(expr), _) => Schedule::Cron { expr, timezone: timezone.unwrap_or_else(TimerSchema::default_timezone) },
        (None, Some(every)) => Schedule::Every { every },
        (None, None) => return None,
    };
    Some(TimerSource { schedule, missed })
}

fn timezone(text: &str) -> Result<String, ValueError> {
    if jiff::tz::TimeZone::get(text).is_ok() {
        return Ok(text.to_owned());
    }
    let database = jiff::tz::db();
    let known: Vec<String> = database.available().map(|name| name.as_str().to_owned()).collect();
    let city = |name: &&String| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text));
    let help = match nearest(text, known.iter().map(String::as_str)).or(known.iter().find(city).map(String::as_str)) {
        Some(similar) => format!("did you mean `{similar}`?"),
        None if known.is_empty() => "this machine has no time zone database; install the package `tzdata`".to_owned(),
        None => "write a name from the IANA database, such as `Europe/Berlin` or `UTC`".to_owned(),
    };
    Err(ValueError::new(format!("unknown time zone `{}`", excerpt(text)), help))
}

fn missed(reader: &mut Reader<'_>, node: &Node) -> Option<Missed> {
    if matches!(node.value, Value::Map(_)) {
        let mut table = reader.table(node, node.span, "MissedAtMost", "`missed`", "`all`")?;
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
