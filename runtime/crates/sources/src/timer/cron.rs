//! Checks cron expressions: five fields, six with seconds first, or a nickname such as `@daily`.

mod advice;
mod fields;

use self::advice::Advice;
use self::fields::{Fields, Invalid};
use super::schedule::Times;
use super::settings::Schedule;
use croner::Weekday;
use evoke_manifest::parser::{ValueError, excerpt, join_with_or, nearest};

/// Each nickname that a user can write, with the nickname of the same meaning that croner supports.
const NICKNAMES: [(&str, &str); 7] = [
    ("@yearly", "@yearly"),
    ("@annually", "@yearly"),
    ("@monthly", "@monthly"),
    ("@weekly", "@weekly"),
    ("@daily", "@daily"),
    ("@midnight", "@daily"),
    ("@hourly", "@hourly"),
];

/// A valid expression must match a date in these years. These 28 years are enough: after them, the calendar repeats,
/// and within them, February 29 falls once on each weekday.
const YEARS: std::ops::Range<i16> = 2024..2052;
/// The start of [`YEARS`], in milliseconds since the Unix epoch.
const YEARS_START_MS: i64 = 1_704_067_200_000;

/// Returns the expression if it is valid and matches at least one time. Replaces a nickname with the one that croner
/// supports.
pub(super) fn parse(text: &str) -> Result<String, ValueError> {
    if text.starts_with('@') {
        if let Some((_, known)) = NICKNAMES.iter().find(|(name, _)| *name == text) {
            return occurring(known, text);
        }
        let names = NICKNAMES.map(|(name, _)| name);
        let help = match nearest(text, names) {
            _ if text.starts_with("@every ") => {
                let interval = text.split_whitespace().nth(1).unwrap_or_default();
                format!("for an interval, write `every: {}` instead of `cron`", excerpt(interval))
            }
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("write five fields, or {}", join_with_or(names)),
        };
        return Err(ValueError::new(format!("`{}` is not a cron expression", excerpt(text)), help));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if let Some((first, rest)) = fields.split_first()
        && let Some((variable, zone)) = first.split_once('=')
    {
        let message = format!("`{}` cannot be in the cron expression `{}`", excerpt(first), excerpt(text));
        let help = match variable.to_ascii_uppercase().as_str() {
            "TZ" | "CRON_TZ" => {
                format!("write `cron: \"{}\"` and beside it `timezone: {}`", excerpt(&rest.join(" ")), excerpt(zone))
            }
            _ => "remove it: a cron expression cannot set variables".to_owned(),
        };
        return Err(ValueError::new(message, help));
    }
    if !(5..=6).contains(&fields.len()) {
        let message = format!(
            "a cron expression has 5 fields, or 6 with seconds first; `{}` has {}",
            excerpt(text),
            fields.len()
        );
        let help = if fields.len() == 7 {
            "remove the last field: a cron expression has no year; with six fields, the first one is the seconds"
        } else {
            "the fields are minute, hour, day of month, month, day of week, as in `0 2 * * *`: every day at 02:00"
        };
        return Err(ValueError::new(message, help));
    }
    Fields::parse(&fields).map_err(|invalid| explain(text, &fields, invalid))?;
    occurring(text, text)
}

/// Returns the warnings about a valid expression.
pub(super) fn advice(text: &str) -> Vec<Advice> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    Fields::parse(&fields).map_or_else(|_| Vec::new(), |fields| advice::advice(&fields))
}

/// Returns the expression `expr` if it matches at least one time. `text` is the expression as written in the manifest,
/// for messages.
fn occurring(expr: &str, text: &str) -> Result<String, ValueError> {
    let schedule = Schedule::Cron { expr: expr.to_owned(), timezone: "UTC".to_owned() };
    let times = Times::new(&schedule).map_err(|error| {
        let message = format!("`{}` is not a cron expression: {error}", excerpt(text));
        ValueError::new(message, "write five fields, as in `0 2 * * *`: every day at 02:00")
    })?;
    // croner searches up to the year 5000 for a day that does not exist, which is slow. Therefore `has_day` runs first.
    if times.cron().is_some_and(|cron| !has_day(&cron.pattern)) || times.after(YEARS_START_MS).is_none() {
        let message =
            format!("the cron expression `{}` never occurs: no date matches its days and months", excerpt(text));
        return Err(ValueError::new(message, "choose a day that exists in one of the months"));
    }
    Ok(expr.to_owned())
}

/// Returns true if a date in [`YEARS`] matches the days and months of a pattern.
fn has_day(pattern: &croner::CronPattern) -> bool {
    let matches = |date: jiff::civil::Date| {
        let (year, month, day) = (i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs());
        let weekday = Weekday::from_days_from_sunday(date.weekday().to_sunday_zero_offset().unsigned_abs().into());
        pattern.day_match(year, month.into(), day.into(), weekday).unwrap_or(false)
    };
    YEARS.flat_map(|year| (1..=12_i8).map(move |month| (year, month))).any(|(year, month)| {
        let is_selected = pattern.month_match(month.unsigned_abs().into()).unwrap_or(false);
        let first = jiff::civil::Date::new(year, month, 1).ok().filter(|_| is_selected);
        first.is_some_and(|first| {
            (1..=first.days_in_month()).filter_map(|day| jiff::civil::Date::new(year, month, day).ok()).any(matches)
        })
    })
}

fn explain(text: &str, fields: &[&str], Invalid { field, text: invalid, help }: Invalid<'_>) -> ValueError {
    let message = format!("`{}` is not {} in the cron expression `{}`", excerpt(invalid), field.what, excerpt(text));
    let is_year = |field: &&str| field.len() == 4 && field.bytes().all(|byte| byte.is_ascii_digit());
    let help = if fields.len() == 6 && (fields.contains(&"?") || fields.last().is_some_and(is_year)) {
        "remove the last field: a cron expression has no year; with six fields, the first one is the seconds".to_owned()
    } else if let Some(help) = help {
        help
    } else {
        format!("write {}; `*`, a range `1-5`, a step `*/10` and a list `1,5` are also allowed", field.range)
    };
    ValueError::new(message, help)
}

#[cfg(test)]
mod tests;
