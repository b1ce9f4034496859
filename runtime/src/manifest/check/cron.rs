//! Cron expressions: five fields, or six with seconds first.

use crate::manifest::diagnostics::{Wrong, shown};
use crate::manifest::suggest::{choices, nearest};

const FIELDS: [(&str, &str); 6] = [
    ("a second", "0 to 59"),
    ("a minute", "0 to 59"),
    ("an hour", "0 to 23"),
    ("a day of the month", "1 to 31, or `L` for the last"),
    ("a month", "1 to 12, or JAN to DEC"),
    ("a day of the week", "0 to 6 from Sunday, or SUN to SAT"),
];

const NICKNAMES: [&str; 6] = ["@yearly", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Takes an expression that croner takes and that has a time.
pub(super) fn parse(text: &str) -> Result<String, Wrong> {
    if text.starts_with('@') {
        if NICKNAMES.contains(&text) {
            return Ok(text.to_owned());
        }
        let help = match nearest(text, NICKNAMES) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("write five fields, or {}", choices(NICKNAMES)),
        };
        return Err(Wrong::new(format!("`{}` is not a schedule", shown(text)), help));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if !(5..=6).contains(&fields.len()) {
        let message =
            format!("a cron expression has 5 fields, or 6 with seconds first; `{}` has {}", shown(text), fields.len());
        let help =
            "the fields are minute, hour, day of month, month, day of week, as in `0 2 * * *`: every day at 02:00";
        return Err(Wrong::new(message, help));
    }
    let expression = croner(text).map_err(|error| wrong(text, &fields, &error))?;
    if !comes(&expression.pattern) {
        let message = format!("the cron expression `{}` never comes: no month it names has such a day", shown(text));
        return Err(Wrong::new(message, "choose a day that the month has"));
    }
    Ok(text.to_owned())
}

/// Whether a month that it names has a day that it names. Looking for the next time would tell the same, but
/// walks through years day by day.
fn comes(pattern: &croner::CronPattern) -> bool {
    let days_alone = pattern.is_dow_wildcard() || pattern.matches_dom_and_dow();
    if pattern.is_dom_wildcard() || !days_alone || pattern.days.has_modifiers() {
        return true;
    }
    let longest = |month: u16| match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let first = pattern.days.values().into_iter().min();
    first.is_some_and(|day| pattern.months.values().into_iter().any(|month| day <= longest(month)))
}

fn croner(text: &str) -> Result<croner::Cron, croner::errors::CronError> {
    use croner::parser::{CronParser, Seconds};
    CronParser::builder().seconds(Seconds::Optional).build().parse(text)
}

/// The first field that is wrong when every other one is `*`.
fn wrong(text: &str, fields: &[&str], error: &croner::errors::CronError) -> Wrong {
    let names = FIELDS.get(FIELDS.len() - fields.len()..).unwrap_or_default();
    for (at, (field, (name, range))) in fields.iter().zip(names).enumerate() {
        let alone: Vec<&str> = (0..fields.len()).map(|other| if other == at { *field } else { "*" }).collect();
        if croner(&alone.join(" ")).is_err() {
            let message = format!("`{}` is not {name} in the cron expression `{}`", shown(field), shown(text));
            let help = format!("{name} is {range}; also `*`, a range `1-5`, a step `*/10`, or several with commas");
            return Wrong::new(message, help);
        }
    }
    Wrong::new(
        format!("`{}` is not a cron expression: {error}", shown(text)),
        "write it like `0 2 * * *`: every day at 02:00",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn expressions_with_a_next_time_are_taken() {
        for text in [
            "* * * * *",
            "0 2 * * *",
            "*/10 * * * * *",
            "0 0 29 2 *",
            "0 0 L * *",
            "0 9 * * MON-FRI",
            "0 0 1,15 JAN *",
            "0 0 29 2 MON",
            "0 12 * * 7",
            "@daily",
            "@hourly",
        ] {
            parse(text).unwrap_or_else(|wrong| panic!("{text}: {}", wrong.message));
        }
    }

    #[test]
    fn days_that_no_month_has_never_come() {
        for text in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 0 30 FEB *"] {
            assert!(parse(text).unwrap_err().message.contains("never comes"), "{text}");
        }
        for text in ["0 0 31 2,3 *", "0 0 29 2 *", "0 0 30 2 MON", "0 0 L 2 *", "0 0 5,31 4 *"] {
            parse(text).unwrap_or_else(|wrong| panic!("{text}: {}", wrong.message));
        }
    }

    #[test]
    fn the_field_that_is_wrong_is_named() {
        for (text, name) in [
            ("60 * * * *", "a minute"),
            ("0 24 * * *", "an hour"),
            ("0 0 32 * *", "a day of the month"),
            ("0 0 * 13 *", "a month"),
            ("0 0 * * 8", "a day of the week"),
            ("99 0 0 * * *", "a second"),
            ("a 0 0 * * *", "a second"),
            ("0 5-1/0 * * *", "an hour"),
        ] {
            let message = parse(text).unwrap_err().message;
            assert!(message.contains(name), "{text}: {message}");
        }
    }
}
