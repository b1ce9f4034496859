//! Warnings about cron expressions that are valid but easily misunderstood.

use super::fields::{DAY, FIELDS, Field, Fields, HOUR, MINUTE, MONTH, Part, WEEKDAY};

/// A message and a help text.
pub(super) type Advice = (String, String);

/// Returns the warnings about an expression.
pub(super) fn advice(fields: &Fields<'_>) -> Vec<Advice> {
    let mut found = Vec::new();
    for (at, field) in FIELDS.iter().enumerate() {
        found.extend(fields.parts(at).iter().filter_map(|part| uneven_step(field, *part)));
    }
    found.extend(every_minute_of_an_hour(fields));
    found.extend(skipped_months(fields));
    found.extend(either_day(fields));
    found
}

/// Warns about a step that does not divide its period, such as `*/7` minutes: steps start again in each hour, so the
/// time between two ticks is not always the same.
fn uneven_step(field: &Field, part: Part) -> Option<Advice> {
    let (text, min, count, step) = match part {
        Part::Step(step) => (format!("*/{step}"), field.min, field.count, step),
        Part::Range(first, last, step) if step > 1 => (format!("{first}-{last}/{step}"), first, last - first + 1, step),
        _ => return None,
    };
    let interval = |step: u16| match field.unit {
        Some(unit) => format!("for equal intervals, write `every: {step}{unit}` instead of `cron`"),
        None => {
            let values: Vec<_> = (min..min + count).step_by(usize::from(step)).map(|value| value.to_string()).collect();
            format!("if you want these values, write `{}`", values.join(","))
        }
    };
    if step >= count && step > 1 {
        let message = format!("`{text}` matches only the value {min}: steps start again in each {}", field.period);
        let help = match (field.unit, part) {
            (Some(_), Part::Step(_)) => format!("write `{min}`; {}", interval(step)),
            _ => format!("write `{min}`"),
        };
        return Some((message, help));
    }
    if matches!(part, Part::Step(_)) && count % step != 0 {
        let period = field.period;
        let message = format!("`{text}` starts again at {min} in each {period}: the last interval can be shorter");
        return Some((message, interval(step)));
    }
    None
}

/// Warns about expressions such as `* 2 * * *`, a common mistake for `0 2 * * *`.
fn every_minute_of_an_hour(fields: &Fields<'_>) -> Option<Advice> {
    let texts = |at: usize, text: &'static str| {
        let from = usize::from(fields.text(0) == "0");
        let texts: Vec<&str> =
            (from..FIELDS.len()).map(|other| if other == at { text } else { fields.text(other) }).collect();
        texts.join(" ")
    };
    if fields.is_all(0) && fields.single(MINUTE).is_some() {
        let message = "the second is `*`: the timer ticks in each of the 60 seconds of the minute".to_owned();
        return Some((message, format!("to tick once in the minute, write `{}`", texts(0, "0"))));
    }
    let hour = fields.single(HOUR).filter(|_| fields.is_all(MINUTE))?;
    let message = format!("the minute is `*`: the timer ticks in each minute from {hour:02}:00 to {hour:02}:59");
    Some((message, format!("to tick once, at {hour:02}:00, write `{}`", texts(MINUTE, "0"))))
}

/// Returns the number of days that a month has in every year: 28 for February.
fn days_of_month(month: u16) -> u16 {
    match month {
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Warns about a day of the month from 29 on, which does not exist in every month.
fn skipped_months(fields: &Fields<'_>) -> Option<Advice> {
    let parts = fields.parts(DAY);
    if parts.iter().any(|part| matches!(part, Part::LastDay | Part::LastWorkday)) {
        return None;
    }
    let (day, text, last) = parts.iter().find_map(|part| match part {
        Part::Value(day @ 29..) => Some((*day, day.to_string(), "L")),
        Part::NearestWorkday(day @ 29..) => Some((*day, format!("{day}W"), "LW")),
        _ => None,
    })?;
    let is_selected = |month: &u16| {
        fields.parts(MONTH).iter().any(|part| match part {
            Part::Value(value) => value == month,
            Part::Range(first, last, step) => (first..=last).contains(&month) && (month - first).is_multiple_of(*step),
            Part::Step(step) => (month - 1).is_multiple_of(*step),
            _ => true,
        })
    };
    let months: Vec<u16> = (1..=12).filter(is_selected).collect();
    let skipped = months.iter().filter(|month| days_of_month(**month) < day).count();
    // No warning if every selected month lacks the day, at least in some years, as with February 29: the user surely
    // means this.
    if skipped == 0 || skipped == months.len() {
        return None;
    }
    let message = format!("the day `{text}` does not exist in every month: there is no tick in a month without it");
    Some((message, format!("for the last day of every month, write `{last}`")))
}

/// Warns if both the day of the month and the day of the week are set: the timer ticks on days that match either field.
/// Cron has the same rule. But some versions of cron treat `*/2` like `*`, and then a day must match both fields.
fn either_day(fields: &Fields<'_>) -> Option<Advice> {
    if fields.both_days || fields.is_all(DAY) || fields.is_all(WEEKDAY) {
        return None;
    }
    let (day, weekday) = (fields.text(DAY), fields.text(WEEKDAY));
    let message = format!(
        "the timer ticks on the days of the month `{day}` and also on the days of the week `{weekday}`: a day needs to \
         match only one of the two fields"
    );
    Some((message, format!("if a day must match both, write `+{weekday}`; if one is enough, write a timer for each")))
}
