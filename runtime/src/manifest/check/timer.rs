//! Timers: a schedule, its time zone, and what becomes of missed ticks.

use super::cron;
use crate::manifest::diagnostics::{Wrong, shown};
use crate::manifest::forms::TimerForm;
use crate::manifest::model::{Missed, Schedule, TimerSource};
use crate::manifest::read::Reader;
use crate::manifest::source_text::Span;
use crate::manifest::suggest::nearest;
use crate::manifest::tree::{Node, Value};
use std::ops::RangeInclusive;
use std::time::Duration;

const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(366 * 86_400);
const MISSED_MAX: u32 = 10_000;
/// What `all` means without a number: enough for a night of minutes, not for a year of seconds.
const MISSED_ALL: u32 = 1_000;

pub(super) fn timer(reader: &mut Reader<'_>, node: &Node, place: Span) -> Option<TimerSource> {
    let mut table = reader.table(node, place, "Timer", "a timer", "`{ every: 1m }` or `{ cron: \"0 2 * * *\" }`")?;
    let cron_node = table.optional(reader, "cron");
    let cron = cron_node.and_then(|node| reader.parsed(node, "`cron`", cron::parse));
    let timezone = table.optional(reader, "timezone").and_then(|node| reader.parsed(node, "`timezone`", timezone));
    let every_node = table.optional(reader, "every");
    let every = every_node.and_then(|node| reader.duration(node, "`every`", INTERVALS));
    let missed = table.optional(reader, "missed").and_then(|node| missed(reader, node)).unwrap_or_default();
    match (table.has("cron"), table.has("every")) {
        (false, false) => {
            reader.error(table.place(), "a timer without a schedule", "add `every: 1m` or `cron: \"0 2 * * *\"`");
        }
        (true, true) => {
            let other = (table.key_span("cron"), "the other schedule");
            reader.error_beside(
                table.key_span("every"),
                "a timer has one schedule, this has two",
                "keep `cron` or `every`",
                other,
            );
        }
        (false, true) if table.has("timezone") => {
            let message = "`timezone` does nothing beside `every`: an interval has no time zone";
            reader.error(
                table.key_span("timezone"),
                message,
                "remove it, or write a `cron` expression instead of `every`",
            );
        }
        _ => {}
    }
    table.close(reader, |key| match key {
        "tz" | "time_zone" | "zone" => Some("did you mean `timezone`?"),
        "interval" | "period" => Some("did you mean `every`?"),
        "schedule" => Some("did you mean `cron`?"),
        _ => None,
    });
    let schedule = match (cron, every) {
        (Some(expr), _) => Schedule::Cron { expr, timezone: timezone.unwrap_or_else(TimerForm::default_timezone) },
        (None, Some(every)) => Schedule::Every { every },
        (None, None) => return None,
    };
    Some(TimerSource { schedule, missed })
}

fn timezone(text: &str) -> Result<String, Wrong> {
    if jiff::tz::TimeZone::get(text).is_ok() {
        return Ok(text.to_owned());
    }
    let database = jiff::tz::db();
    let known: Vec<String> = database.available().map(|name| name.as_str().to_owned()).collect();
    let city = |name: &&String| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text));
    let help = match nearest(text, known.iter().map(String::as_str)).or(known.iter().find(city).map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => "this machine has no time zone database; install the package `tzdata`".to_owned(),
        None => "write a name of the IANA database, such as `Europe/Berlin` or `UTC`".to_owned(),
    };
    Err(Wrong::new(format!("there is no time zone `{}`", shown(text)), help))
}

fn missed(reader: &mut Reader<'_>, node: &Node) -> Option<Missed> {
    if matches!(node.value, Value::Map(_)) {
        let mut table = reader.table(node, node.span, "MissedAtMost", "`missed`", "`all`")?;
        let example = "`all: N`, how many ticks are made up for at most";
        let all = table.required(reader, "all", &["last", "none", "max"], example);
        let all = all.and_then(|node| reader.integer(node, "`all`", 1..=MISSED_MAX));
        table.close(reader, |key| match key {
            "last" | "max" => Some("how many are made up for at most is `{ all: N }`"),
            "none" => Some("write `missed: none`"),
            _ => None,
        });
        return all.map(Missed::All);
    }
    reader.parsed(node, "`missed`", |text| match text {
        "none" => Ok(Missed::None),
        "last" => Ok(Missed::Last),
        "all" => Ok(Missed::All(MISSED_ALL)),
        _ => {
            let help = match nearest(text, ["none", "last", "all"]) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "write `none`, `last`, `all` or `{ all: 100 }`".to_owned(),
            };
            Err(Wrong::new(format!("`{}` does not say what becomes of missed ticks", shown(text)), help))
        }
    })
}
