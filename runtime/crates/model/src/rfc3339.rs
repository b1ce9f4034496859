//! The grammar of dates and times of RFC 3339, section 5.6.
//!
//! This module has its own parser, because parsers of ISO 8601 also accept other texts (without seconds, in the basic
//! format, with names of time zones), or reject valid texts (with years or fractions that they cannot represent).

use std::ops::RangeInclusive;

use crate::clock::UnixMs;

/// Returns true if `text` is a `date-time`, such as `2026-01-31T12:00:00.5+01:00`.
///
/// `t` and `z` may be lower case. A fraction can have any number of digits. `-00:00` is an unknown offset (section
/// 4.3). The second 60 is valid only in the last minute of a month in UTC, where leap seconds are inserted (section
/// 5.7).
#[must_use]
pub fn is_date_time(text: &str) -> bool {
    unix_ms(text).is_some()
}

/// Returns a `date-time` in milliseconds since the Unix epoch, rounded up; `None` if `text` is not a `date-time`. A
/// leap second counts as the first second of the next minute.
#[must_use]
pub fn unix_ms(text: &str) -> Option<UnixMs> {
    let mut reader = Reader(text.as_bytes());
    let year = reader.number(4, 0..=9999)?;
    reader.one_of(b"-")?;
    let month = reader.number(2, 1..=12)?;
    reader.one_of(b"-")?;
    let day = reader.number(2, 1..=days(year, month))?;
    reader.one_of(b"Tt")?;
    let hour = reader.number(2, 0..=23)?;
    reader.one_of(b":")?;
    let minute = reader.number(2, 0..=59)?;
    reader.one_of(b":")?;
    let second = reader.number(2, 0..=60)?;
    let fraction_ms = reader.fraction_ms()?;
    let offset = match reader.one_of(b"Zz+-")? {
        sign @ (b'+' | b'-') => {
            let hours = reader.number(2, 0..=23)?;
            reader.one_of(b":")?;
            let minutes = hours * 60 + reader.number(2, 0..=59)?;
            if sign == b'-' { -minutes } else { minutes }
        }
        _ => 0,
    };
    if !reader.0.is_empty() {
        return None;
    }
    if second == 60 {
        let utc = hour * 60 + minute - offset;
        let day = day + utc.div_euclid(24 * 60);
        // Day 0 is the last day of the month before.
        let is_month_end = day == 0 || day == days(year, month);
        if utc.rem_euclid(24 * 60) != 23 * 60 + 59 || !is_month_end {
            return None;
        }
    }
    let minutes = days_since_epoch(year, month, day) * 24 * 60 + i64::from(hour * 60 + minute - offset);
    Some((minutes * 60 + i64::from(second)) * 1000 + fraction_ms)
}

/// The days from 0000-03-01 to 1970-01-01.
const EPOCH: i32 = 719_468;

/// Returns the number of days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_epoch(year: i32, month: i32, day: i32) -> i64 {
    // Counts years from March, so that the leap day is the last day of a year. Month 0 is March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days_before_month = (153 * month + 2) / 5;
    let days_before_year = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    i64::from(days_before_year + days_before_month + day - 1 - EPOCH)
}

/// Returns the number of days in a month.
fn days(year: i32, month: i32) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The part of the text that was not read yet.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    /// Reads a number with exactly `digits` digits; `None` if it is not in `range`.
    fn number(&mut self, digits: usize, range: RangeInclusive<i32>) -> Option<i32> {
        let (number, rest) = self.0.split_at_checked(digits)?;
        self.0 = rest;
        let digit = |value: i32, byte: &u8| byte.is_ascii_digit().then(|| value * 10 + i32::from(byte - b'0'));
        number.iter().try_fold(0, digit).filter(|value| range.contains(value))
    }

    /// Reads one of these characters.
    fn one_of(&mut self, characters: &[u8]) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        characters.contains(&first).then_some(first)
    }

    /// Reads a fraction of a second and returns it in milliseconds, rounded up; 0 if the text has no fraction here.
    fn fraction_ms(&mut self) -> Option<i64> {
        let Some(after) = self.0.strip_prefix(b".") else { return Some(0) };
        let length = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = after.split_at_checked(length).filter(|_| length > 0)?;
        self.0 = rest;
        let digit = |at: usize| digits.get(at).map_or(0, |byte| i64::from(byte - b'0'));
        let ms = digit(0) * 100 + digit(1) * 10 + digit(2);
        Some(ms + i64::from(digits.iter().skip(3).any(|byte| *byte != b'0')))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_date_time_of_the_grammar_is_accepted() {
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00z",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999999999999-23:59",
            "2026-01-31T12:00:00.1234567890Z",
            "2026-01-31T12:00:00.0+01:00",
            "2026-01-31T12:00:00-00:00",
            "2026-01-31T12:00:00+23:59",
            "2024-02-29T00:00:00Z",
            "2000-02-29T00:00:00Z",
            // The examples of section 5.8.
            "1985-04-12T23:20:50.52Z",
            "1996-12-19T16:39:57-08:00",
            "1937-01-01T12:00:27.87+00:20",
            // Leap seconds.
            "1990-12-31T23:59:60Z",
            "1990-12-31T15:59:60-08:00",
            "2017-01-01T00:59:60.5+01:00",
            "2015-06-30T23:59:60Z",
            "2027-03-31T23:59:60z",
            "2017-01-01T05:29:60+05:30",
        ] {
            assert!(is_date_time(text), "{text}");
        }
    }

    #[test]
    fn everything_else_is_rejected() {
        for text in [
            "",
            "yesterday",
            "2026-01-31",
            "12:00:00Z",
            "2026-01-31T12:00Z",
            "2026-01-31T12Z",
            "2026-01-31T12:00:00",
            "2026-01-31 12:00:00Z",
            "2026-01-31_12:00:00Z",
            "20260131T120000Z",
            "2026-031T12:00:00Z",
            "2026-W05-6T12:00:00Z",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00:00+01:60",
            "2026-01-31T12:00:00+0100",
            "2026-01-31T12:00:00+01",
            "2026-01-31T12:00:00+1:00",
            "2026-01-31T12:00:00+01:00:30",
            "2026-01-31T12:00:00\u{2212}01:00",
            "2026-01-31T12:00:00Z[Europe/Berlin]",
            "2026-01-31T12:00:00+01:00[Europe/Berlin]",
            "2026-01-31T12:00:00 Z",
            "2026-01-31T12:00:00ZZ",
            "2026-01-31T12:00:00X",
            "2026-01-31T12:00:00,5Z",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00.-5Z",
            " 2026-01-31T12:00:00Z",
            "2026-01-31T12:00:00Z ",
            "2026-01-31T12:00:00Z\n",
            "+002026-01-31T12:00:00Z",
            "-2026-01-31T12:00:00Z",
            "12026-01-31T12:00:00Z",
            "26-01-31T12:00:00Z",
            "2026-1-31T12:00:00Z",
            "2026-00-31T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-32T12:00:00Z",
            "2026-04-31T12:00:00Z",
            "2026-02-29T12:00:00Z",
            "1900-02-29T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:61Z",
            "2026-01-31T12:+1:00Z",
            "２026-01-31T12:00:00Z",
            // Texts with the second 60 at times at which leap seconds are not inserted.
            "2026-01-31T12:00:60Z",
            "2026-01-30T23:59:60Z",
            "2026-01-31T23:59:60+01:00",
            "2026-01-31T23:58:60Z",
        ] {
            assert!(!is_date_time(text), "{text}");
        }
    }

    #[test]
    fn unix_ms_counts_from_the_epoch_and_rounds_up() {
        for (text, ms) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1969-12-31T23:59:59.999Z", -1),
            ("2000-02-29T00:00:00Z", 951_782_400_000),
            ("2026-01-31T12:00:00.5Z", 1_769_860_800_500),
            ("2026-01-31T12:00:00.0001Z", 1_769_860_800_001),
            ("2026-01-31T12:00:00.0000Z", 1_769_860_800_000),
            ("2026-01-31T12:00:00-00:30", 1_769_862_600_000),
            // A leap second is the first second of the next minute.
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("0000-01-01T00:00:00Z", -62_167_219_200_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ] {
            assert_eq!(unix_ms(text), Some(ms), "{text}");
        }
        assert_eq!(unix_ms("tomorrow"), None);
    }
}
