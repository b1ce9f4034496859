//! Parses and formats the durations and sizes of a manifest: `200ms`, `64MiB`.

use super::diagnostics::{ValueError, excerpt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A size in bytes, displayed in the largest unit that divides it without a remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

/// YAML form of a duration, for serde and the schema: a whole number and one of ms, s, m, h, d.
pub struct DurationText;

struct Unit {
    name: &'static str,
    /// Value in the smallest unit: milliseconds or bytes.
    factor: u64,
    /// Other common names of the unit in lower case. They are not accepted; error messages suggest the right form
    /// instead.
    aliases: &'static [&'static str],
}

const DURATION_UNITS: [Unit; 5] = [
    Unit { name: "ms", factor: 1, aliases: &["msec", "msecs", "millis", "millisecond", "milliseconds"] },
    Unit { name: "s", factor: 1000, aliases: &["sec", "secs", "second", "seconds"] },
    Unit { name: "m", factor: 60_000, aliases: &["min", "mins", "minute", "minutes"] },
    Unit { name: "h", factor: 3_600_000, aliases: &["hr", "hrs", "hour", "hours"] },
    Unit { name: "d", factor: 86_400_000, aliases: &["day", "days"] },
];

const SIZE_UNITS: [Unit; 4] = [
    Unit { name: "B", factor: 1, aliases: &["byte", "bytes"] },
    Unit { name: "KiB", factor: 1 << 10, aliases: &["k", "kb", "ki"] },
    Unit { name: "MiB", factor: 1 << 20, aliases: &["m", "mb", "mi"] },
    Unit { name: "GiB", factor: 1 << 30, aliases: &["g", "gb", "gi"] },
];

/// Parses a duration such as `200ms`, `5s`, `1m`, `24h` or `7d`.
///
/// # Errors
/// The text has another form, or the milliseconds do not fit in 64 bits; the help suggests a valid form.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    if let Some(millis) = parse_exact(text, &DURATION_UNITS) {
        return Ok(Duration::from_millis(millis));
    }
    let message = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        format!("the duration `{}` has no unit", excerpt(text))
    } else {
        format!("`{}` is not a duration", excerpt(text))
    };
    let help = match guess(text, &DURATION_UNITS) {
        Some(Guess::Amount(millis)) => format!("write `{}`", format_amount(millis, &DURATION_UNITS)),
        Some(Guess::Bare(number)) => {
            format!("write `{number}s` for seconds or `{number}ms` for milliseconds")
        }
        None => "write a whole number and its unit, ms, s, m, h or d, as in `200ms` or `24h`".to_owned(),
    };
    Err(ValueError::new(message, help))
}

/// Parses a size such as `64KiB` or `32MiB`.
///
/// # Errors
/// The text has another form, or the number of bytes does not fit in 64 bits; the help suggests a valid form.
pub fn parse_size(text: &str) -> Result<ByteSize, ValueError> {
    if let Some(bytes) = parse_exact(text, &SIZE_UNITS) {
        return Ok(ByteSize(bytes));
    }
    let message = if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        format!("the size `{}` has no unit", excerpt(text))
    } else {
        format!("`{}` is not a size", excerpt(text))
    };
    let help = match guess(text, &SIZE_UNITS) {
        Some(Guess::Amount(bytes)) => format!("write `{}`", format_amount(bytes, &SIZE_UNITS)),
        Some(Guess::Bare(number)) => match number.parse::<u64>() {
            Ok(bytes) if bytes >= 1024 && bytes.is_multiple_of(1024) => {
                format!("write `{}`", format_amount(bytes, &SIZE_UNITS))
            }
            _ => format!("write `{number}B` for bytes or `{number}MiB` for mebibytes"),
        },
        None => "write a whole number and its unit, B, KiB, MiB or GiB, as in `64KiB` or `32MiB`".to_owned(),
    };
    Err(ValueError::new(message, help))
}

/// Formats a duration in the largest unit that divides it without a remainder. Fractions of a millisecond are cut off.
pub fn duration_text(duration: Duration) -> String {
    format_amount(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &DURATION_UNITS)
}

/// Parses the only accepted form: digits directly followed by a unit.
fn parse_exact(text: &str, units: &[Unit]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, name) = text.split_at_checked(digits)?;
    let unit = units.iter().find(|unit| unit.name == name)?;
    number.parse::<u64>().ok()?.checked_mul(unit.factor)
}

enum Guess<'a> {
    Amount(u64),
    /// Digits without a unit. The unit cannot be guessed.
    Bare(&'a str),
}

/// Guesses the meaning of a text in another form: `200 ms`, `1.5s`, `1h30`, `5 Minutes`, `64mb`.
fn guess<'a>(text: &'a str, units: &[Unit]) -> Option<Guess<'a>> {
    let mut rest = text.trim();
    if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return (rest.len() <= 20).then_some(Guess::Bare(rest)); // more digits do not fit in 64 bits
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
            _ => find_unit_ignoring_case(name, units)?,
        };
        total = total.checked_add(multiply_decimal(number, units.get(at)?.factor)?)?;
        previous = Some(at);
        rest = after.trim_start();
    }
    previous.map(|_| Guess::Amount(total))
}

fn find_unit_ignoring_case(name: &str, units: &[Unit]) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    units.iter().position(|unit| unit.name.to_ascii_lowercase() == lower || unit.aliases.contains(&lower.as_str()))
}

/// Multiplies a decimal number by the value of its unit. Returns `None` if the result is not a whole number or
/// overflows.
fn multiply_decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse().ok()? };
    let scale = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? }.checked_mul(factor)?;
    if parts % scale != 0 {
        return None;
    }
    whole.checked_mul(factor)?.checked_add(parts / scale)
}

/// Formats an amount in the largest unit that divides it without a remainder.
fn format_amount(amount: u64, units: &[Unit]) -> String {
    let divides = |unit: &&Unit| amount != 0 && amount.is_multiple_of(unit.factor);
    match units.iter().rev().find(divides).or(units.first()) {
        Some(unit) => format!("{}{}", amount / unit.factor, unit.name),
        None => amount.to_string(),
    }
}

impl DurationText {
    /// Serializes a duration in its YAML form, for `#[serde(with = "DurationText")]`.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
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
        f.write_str(&format_amount(self.0, &SIZE_UNITS))
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
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_round_trip() {
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
    fn the_help_suggests_a_valid_form() {
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
