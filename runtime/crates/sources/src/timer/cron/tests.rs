use super::*;

#[test]
fn expressions_with_a_next_time_are_accepted() {
    for text in [
        "* * * * *",
        "0 2 * * *",
        "*/10 * * * * *",
        "0 0 29 2 *",
        "0 0 29 2 +MON",
        "0 0 L * *",
        "0 0 LW * *",
        "0 0 15W * *",
        "0 0 L,15W * *",
        "0 9 * * MON-FRI",
        "0 9 * * mon-fri",
        "0 9 * * SAT-SUN",
        "0 9 * * 5L",
        "0 9 * * FRI#2",
        "0 0 1,15 JAN *",
        "0 0 ? * MON",
        "0 12 * * 7",
        "0 12 * * 5-7",
        "00 08-17/2 * * *",
        "0 0 31W 2,3 *",
    ] {
        assert_eq!(parse(text).as_deref(), Ok(text));
    }
}

#[test]
fn every_nickname_runs() {
    for (name, known) in NICKNAMES {
        assert_eq!(parse(name).as_deref(), Ok(known));
    }
}

#[test]
fn expressions_without_any_valid_day_are_rejected() {
    for text in [
        "0 0 30 2 *",
        "0 0 31 2,4,6,9,11 *",
        "0 0 0 30 FEB *",
        "0 0 31W 2 *",
        "0 0 30W FEB *",
        "0 0 31 4 +MON",
        "0 0 1-3 * +MON#5",
    ] {
        assert!(parse(text).unwrap_err().message.contains("never occurs"), "{text}");
    }
    for text in ["0 0 31 2,3 *", "0 0 30 2 MON", "0 0 L 2 *", "0 0 5,31 4 *", "0 0 1-7 * +MON#1"] {
        parse(text).unwrap_or_else(|error| panic!("{text}: {}", error.message));
    }
}

#[test]
fn the_error_names_the_invalid_field_and_says_what_would_be_right() {
    for (text, what, help) in [
        ("60 * * * *", "a minute", "0 to 59"),
        ("0 24 * * *", "an hour", "0 to 23"),
        ("0 0 32 * *", "a day of the month", "1 to 31"),
        ("0 0 0 * *", "a day of the month", "1 to 31"),
        ("0 0 * 13 *", "a month", "JAN to DEC"),
        ("0 0 * * 8", "a day of the week", "SUN to SAT"),
        ("99 0 0 * * *", "a second", "0 to 59"),
        ("a 0 0 * * *", "a second", "0 to 59"),
        ("0 0 * * L", "a day of the week", "`5L`"),
        ("0 0 * * L,5", "a day of the week", "`5L`"),
        ("0 0 L,LW * *", "a day of the month", "either"),
        ("0 0 15W5 * *", "a day of the month", "1 to 31"),
        ("0 0 L-3 * *", "a day of the month", "1 to 31"),
        ("0 0 MON * *", "a day of the month", "is a day of the week"),
        ("0 0 1 MON *", "a month", "is a day of the week"),
        ("0 0 * * JAN", "a day of the week", "is a month"),
        ("0 0 * * MON1", "a day of the week", "SUN to SAT"),
        ("0 0 * * MON#6", "a day of the week", "`MON#5`"),
        (", 0 * * *", "a minute", "comma"),
        ("0 0 * * 1,,2", "a day of the week", "comma"),
        ("0 22-2 * * *", "an hour", "`22-23,0-2`"),
        ("0 0 * * FRI-MON", "a day of the week", "`5-6,0-1`"),
        ("0 0 * * SAT-MON", "a day of the week", "`6,0-1`"),
        ("0/15 * * * *", "a minute", "`0-59/15`, or `*/15`"),
        ("/15 * * * *", "a minute", "`*/15`"),
        ("*/0 * * * *", "a minute", "at least 1"),
        ("*/+5 * * * *", "a minute", "0 to 59"),
        ("? * * * *", "a minute", "0 to 59"),
        ("0 10 ? * MON-FRI *", "an hour", "remove the last field"),
        ("0 10 * * 1 2027", "a day of the week", "remove the last field"),
        ("0 0 12 ? * MON 2027", "has 7", "remove the last field"),
        (
            "TZ=Europe/Berlin 0 2 * * *",
            "`TZ=Europe/Berlin`",
            "`cron: \"0 2 * * *\"` and beside it `timezone: Europe/Berlin`",
        ),
        ("CRON_TZ=UTC */5 0 2 * * *", "`CRON_TZ=UTC`", "`timezone: UTC`"),
        ("MAILTO=x 0 2 * * *", "`MAILTO=x`", "remove it"),
        ("@every 1h30m", "is not a cron expression", "write `every: 1h30m`"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.message.contains(what), "{text}: {}", error.message);
        assert!(error.help.contains(help), "{text}: {}", error.help);
    }
}

#[test]
fn odd_forms_get_a_warning_that_says_what_they_mean() {
    for (text, message, help) in [
        ("*/90 * * * *", "only the value 0", "write `0`; for equal intervals, write `every: 90m`"),
        ("0 */24 * * *", "only the value 0", "`every: 24h`"),
        ("*/7 * * * *", "in each hour", "`every: 7m`"),
        ("0-59/7 * * * *", "in each hour", "`every: 7m`"),
        ("0 */5 * * *", "in each day", "`every: 5h`"),
        ("0 0 */2 * *", "in each month", "`every: 2d`"),
        ("0 0 1 */5 *", "in each year", "write `1,6,11`"),
        ("0 0 * * */2", "in each week", "write `0,2,4,6`"),
        ("10-20/30 * * * *", "only the value 10", "write `10`"),
        ("* 2 * * *", "each minute from 02:00 to 02:59", "write `0 2 * * *`"),
        ("0 * 2 * * *", "each minute from 02:00 to 02:59", "write `0 2 * * *`"),
        ("* 30 2 * * *", "60 seconds", "write `0 30 2 * * *`"),
        ("0 0 31 * *", "does not exist in every month", "write `L`"),
        ("0 0 1,30 * *", "does not exist in every month", "write `L`"),
        ("0 0 31W 1-3 *", "does not exist in every month", "write `LW`"),
        ("0 0 1 * MON", "only one of the two fields", "write `+MON`"),
    ] {
        parse(text).unwrap_or_else(|error| panic!("{text}: {}", error.message));
        let found = advice(text);
        assert!(found.len() == 1 && found[0].0.contains(message) && found[0].1.contains(help), "{text}: {found:?}");
    }
}

#[test]
fn common_expressions_get_no_warning() {
    for text in [
        "* * * * *",
        "*/10 * * * * *",
        "*/15 * * * *",
        "0 */6 * * *",
        "0 2 * * *",
        "* 9-17 * * *",
        "0 0 1 */3 *",
        "0 0 29 2 *",
        "0 0 31 1,3,5 *",
        "0 0 L * *",
        "0 0 31,L * *",
        "0 0 28-31 * *",
        "0 0 1-7 * +MON",
        "0 9 * * MON-FRI",
        "5-59/10 * * * *",
        "0 0 ? * MON",
        "*/1 * * * *",
    ] {
        assert!(advice(text).is_empty(), "{text}: {:?}", advice(text));
    }
    for (name, _) in NICKNAMES {
        assert!(advice(name).is_empty(), "{name}");
    }
}
