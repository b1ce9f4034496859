//! Durations and sizes as a manifest writes them: `200ms`, `64MiB`.

use super::diagnostics::{Wrong, shown};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// How a manifest writes a duration: a whole number and one of ms, s, m, h, d.
pub struct DurationText;

struct Unit {
    name: &'static str,
    /// How many of the smallest unit it is: milliseconds or bytes.
    worth: u64,
    /// What people also write, in lower case; understood only to say what would be right.
    also: &'static [&'static str],
}

const DURATION_UNITS: [Unit; 5] = [
    Unit { name: "ms", worth: 1, also: &["msec", "msecs", "millis", "millisecond", "milliseconds"] },
    Unit { name: "s", worth: 1000, also: &["sec", "secs", "second", "seconds"] },
    Unit { name: "m", worth: 60_000, also: &["min", "mins", "minute", "minutes"] },
    Unit { name: "h", worth: 3_600_000, also: &["hr", "hrs", "hour", "hours"] },
    Unit { name: "d", worth: 86_400_000, also: &["day", "days"] },
];

const SIZE_UNITS: [Unit; 4] = [
    Unit { name: "B", worth: 1, also: &["byte", "bytes"] },
    Unit { name: "KiB", worth: 1 << 10, also: &["k", "kb", "ki"] },
    Unit { name: "MiB", worth: 1 << 20, also: &["m", "mb", "mi"] },
    Unit { name: "GiB", worth: 1 << 30, also: &["g", "gb", "gi"] },
];

/// Reads a duration such as `200ms`, `5s`, `1m`, `24h` or `7d`.
pub fn parse_duration(text: &str) -> Result<Duration, Wrong> {
    if let Some(millis) = exact(text, &DURATION_UNITS) {
        return Ok(Duration::from_millis(millis));
    }
    let message = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        format!("the duration `{}` has no unit", shown(text))
    } else {
        format!("`{}` is not a duration", shown(text))
    };
    let help = match meant(text, &DURATION_UNITS) {
        Some(Meant::Amount(millis)) => format!("write `{}`", written(millis, &DURATION_UNITS)),
        Some(Meant::Bare(number)) => {
            format!("write `{number}s` for seconds or `{number}ms` for milliseconds")
        }
        None => "write a whole number and its unit, ms, s, m, h or d, as in `200ms` or `24h`".to_owned(),
    };
    Err(Wrong::new(message, help))
}

/// Reads a size such as `64KiB` or `32MiB`.
pub fn parse_size(text: &str) -> Result<ByteSize, Wrong> {
    if let Some(bytes) = exact(text, &SIZE_UNITS) {
        return Ok(ByteSize(bytes));
    }
    let message = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        format!("the size `{}` has no unit", shown(text))
    } else {
        format!("`{}` is not a size", shown(text))
    };
    let help = match meant(text, &SIZE_UNITS) {
        Some(Meant::Amount(bytes)) => format!("write `{}`", written(bytes, &SIZE_UNITS)),
        Some(Meant::Bare(number)) => match number.parse::<u64>() {
            Ok(bytes) if bytes >= 1024 && bytes.is_multiple_of(1024) => {
                format!("write `{}`", written(bytes, &SIZE_UNITS))
            }
            _ => format!("write `{number}B` for bytes or `{number}MiB` for mebibytes"),
        },
        None => "write a whole number and its unit, B, KiB, MiB or GiB, as in `64KiB` or `32MiB`".to_owned(),
    };
    Err(Wrong::new(message, help))
}

/// The shortest exact text of a duration, cut to milliseconds.
pub fn duration_text(duration: Duration) -> String {
    written(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// Only what the language allows: digits, then at once a unit.
fn exact(text: &str, units: &[Unit]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, name) = text.split_at_checked(digits)?;
    let unit = units.iter().find(|unit| unit.name == name)?;
    number.parse::<u64>().ok()?.checked_mul(unit.worth)
}

enum Meant<'a> {
    Amount(u64),
    /// Digits alone: no unit is likelier than another.
    Bare(&'a str),
}

/// What a text that is not exact most likely means: `200 ms`, `1.5s`, `1h30`, `5 Minutes`, `64mb`.
fn meant<'a>(text: &'a str, units: &[Unit]) -> Option<Meant<'a>> {
    let mut rest = text.trim();
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return (rest.len() <= 20).then_some(Meant::Bare(rest)); // more digits fit no number
    }
    let mut total: u64 = 0;
    let mut previous: Option<usize> = None;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, after) = rest.split_at_checked(digits)?;
        let after = after.trim_start();
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (name, after) = after.split_at_checked(letters)?;
        let at = match (name, previous) {
            ("", Some(previous)) => previous.checked_sub(1)?, // `1h30`: the next smaller unit
            _ => find_lenient(name, units)?,
        };
        total = total.checked_add(times(number, units.get(at)?.worth)?)?;
        previous = Some(at);
        rest = after.trim_start();
    }
    previous.map(|_| Meant::Amount(total))
}

fn find_lenient(name: &str, units: &[Unit]) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    units.iter().position(|unit| unit.name.to_ascii_lowercase() == lower || unit.also.contains(&lower.as_str()))
}

/// A decimal number times the worth of its unit, where that is whole.
fn times(number: &str, worth: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse().ok()? };
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? }.checked_mul(worth)?;
    if parts % scale != 0 {
        return None;
    }
    whole.checked_mul(worth)?.checked_add(parts / scale)
}

/// In the largest unit that takes it whole.
fn written(amount: u64, units: &[Unit]) -> String {
    let fits = |unit: &&Unit| amount != 0 && amount.is_multiple_of(unit.worth);
    match units.iter().rev().find(fits).or(units.first()) {
        Some(unit) => format!("{}{}", amount / unit.worth, unit.name),
        None => amount.to_string(),
    }
}

impl DurationText {
    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&duration_text(*duration))
    }
}

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A whole number and its unit: ms, s, m, h or d.",
            "pattern": "^[0-9]+(ms|s|m|h|d)$",
            "examples": ["200ms", "5s", "1m", "24h", "7d"]
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&written(self.0, &SIZE_UNITS))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A whole number and its unit: B, KiB, MiB or GiB.",
            "pattern": "^[0-9]+(B|KiB|MiB|GiB)$",
            "examples": ["64KiB", "32MiB"]
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_and_written_back() {
        for text in ["200ms", "5s", "1m", "24h", "7d", "0ms", "90s"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&duration_text(duration)).unwrap(), duration, "{text}");
        }
        assert_eq!(duration_text(Duration::from_secs(120)), "2m");
        assert_eq!(parse_size("32MiB").unwrap(), ByteSize(32 << 20));
        assert_eq!(ByteSize(1 << 20).to_string(), "1MiB");
        assert_eq!(ByteSize(1500).to_string(), "1500B");
    }

    #[test]
    fn what_was_probably_meant_is_said() {
        let duration = |text| parse_duration(text).unwrap_err().help;
        assert_eq!(duration("200 ms"), "write `200ms`");
        assert_eq!(duration("1h30"), "write `90m`");
        assert_eq!(duration("1h30m"), "write `90m`");
        assert_eq!(duration("1.5s"), "write `1500ms`");
        assert_eq!(duration("5 Minutes"), "write `5m`");
        assert_eq!(duration("5"), "write `5s` for seconds or `5ms` for milliseconds");
        assert!(duration("soon").starts_with("write a whole number"));
        assert!(duration("0.0001ms").starts_with("write a whole number"));
        assert!(duration("99999999999999999999d").starts_with("write a whole number"));
        assert!(duration("").starts_with("write a whole number"));
        let size = |text| parse_size(text).unwrap_err().help;
        assert_eq!(size("64MB"), "write `64MiB`");
        assert_eq!(size("1.5 g"), "write `1536MiB`");
        assert_eq!(size("64"), "write `64B` for bytes or `64MiB` for mebibytes");
        assert_eq!(size("67108864"), "write `64MiB`");
    }
}
