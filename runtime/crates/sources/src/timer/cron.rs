//! Checks cron expressions: five fields, six with seconds first, or a nickname such as `@daily`.

use evoke_manifest::parser::{ValueError, excerpt, join_with_or, nearest};

const FIELDS: [(&str, &str); 6] = [
    ("a second", "0 to 59"),
    ("a minute", "0 to 59"),
    ("an hour", "0 to 23"),
    ("a day of the month", "1 to 31, or `L` for the last"),
    ("a month", "1 to 12, or JAN to DEC"),
    ("a day of the week", "0 to 6 from Sunday, or SUN to SAT"),
];

const NICKNAMES: [&str; 6] = ["@yearly", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Returns the expression if the croner crate accepts it and it has at least one time.
pub(super) fn parse(text: &str) -> Result<String, ValueError> {
    if text.starts_with('@') {
        if NICKNAMES.contains(&text) {
            return Ok(text.to_owned());
        }
        let help = match nearest(text, NICKNAMES) {
            Some(similar) => format!("did you mean `{similar}`?"),
            None => format!("write five fields, or {}", join_with_or(NICKNAMES)),
        };
        return Err(ValueError::new(format!("`{}` is not a cron expression", excerpt(text)), help));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if !(5..=6).contains(&fields.len()) {
        let message = format!(
            "a cron expression has 5 fields, or 6 with seconds first; `{}` has {}",
            excerpt(text),
            fields.len()
        );
        let help =
            "the fields are minute, hour, day of month, month, day of week, as in `0 2 * * *`: every day at 02:00";
        return Err(ValueError::new(message, help));
    }
    let expression = parse_with_croner(text).map_err(|error| explain_error(text, &fields, &error))?;
    if !can_occur(&expression.pattern) {
        let message =
            format!("the cron expression `{}` never occurs: none of its months has such a day", excerpt(text));
        return Err(ValueError::new(message, "choose a day that exists in the month"));
    }
    Ok(text.to_owned())
}

/// Returns true if one of the pattern's months has one of its days. Computing the next time would also show this, but
/// croner searches years day by day.
fn can_occur(pattern: &croner::CronPattern) -> bool {
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

fn parse_with_croner(text: &str) -> Result<croner::Cron, croner::errors::CronError> {
    use croner::parser::{CronParser, Seconds};
    CronParser::builder().seconds(Seconds::Optional).build().parse(text)
}

/// Finds the first invalid field by parsing each field alone, with `*` for all others.
fn explain_error(text: &str, fields: &[&str], error: &croner::errors::CronError) -> ValueError {
    let names = FIELDS.get(FIELDS.len() - fields.len()..).unwrap_or_default();
    for (at, (field, (name, range))) in fields.iter().zip(names).enumerate() {
        let alone: Vec<&str> = (0..fields.len()).map(|other| if other == at { *field } else { "*" }).collect();
        if parse_with_croner(&alone.join(" ")).is_err() {
            let message = format!("`{}` is not {name} in the cron expression `{}`", excerpt(field), excerpt(text));
            let help =
                format!("write {range}; `*`, a range `1-5`, a step `*/10` and several with commas are also allowed");
            return ValueError::new(message, help);
        }
    }
    ValueError::new(
        format!("`{}` is not a cron expression: {error}", excerpt(text)),
        "write five fields, as in `0 2 * * *`: every day at 02:00",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_with_a_next_time_are_accepted() {
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
            parse(text).unwrap_or_else(|error| panic!("{text}: {}", error.message));
        }
    }

    #[test]
    fn expressions_without_any_valid_day_are_rejected() {
        for text in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 0 30 FEB *"] {
            assert!(parse(text).unwrap_err().message.contains("never occurs"), "{text}");
        }
        for text in ["0 0 31 2,3 *", "0 0 29 2 *", "0 0 30 2 MON", "0 0 L 2 *", "0 0 5,31 4 *"] {
            parse(text).unwrap_or_else(|error| panic!("{text}: {}", error.message));
        }
    }

    #[test]
    fn the_error_names_the_invalid_field() {
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
