//! Numbers with units, as in thresholds: `80%`, `10GiB`, `14d`, `> 5/s`.

use std::borrow::Cow;
use std::fmt;

use evoke_manifest::parser::{ValueError, excerpt};
use evoke_threshold::{Direction, Limit, Per};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// The unit of a value. Values are stored in base units: percent, bytes, seconds, degrees Celsius.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Percent,
    Bytes,
    Seconds,
    Celsius,
    Count,
}

/// The spellings of units in the manifest, each with its factor to the base unit. Within a unit, larger factors come
/// first, because a value is formatted with the first spelling in which it is at least 1 and has at most one decimal
/// place. If there is no such spelling, the first one in which the value is at least 1 is used, or else the last.
const SPELLINGS: &[(Unit, &str, f64)] = &[
    (Unit::Percent, "%", 1.0),
    (Unit::Bytes, "TiB", 1_099_511_627_776.0),
    (Unit::Bytes, "GiB", 1_073_741_824.0),
    (Unit::Bytes, "MiB", 1_048_576.0),
    (Unit::Bytes, "KiB", 1_024.0),
    (Unit::Bytes, "B", 1.0),
    (Unit::Seconds, "d", 86_400.0),
    (Unit::Seconds, "h", 3_600.0),
    (Unit::Seconds, "m", 60.0),
    (Unit::Seconds, "s", 1.0),
    (Unit::Seconds, "ms", 0.001),
    (Unit::Celsius, "°C", 1.0),
    (Unit::Celsius, "C", 1.0),
    (Unit::Count, "", 1.0),
];

impl Unit {
    pub(super) const ALL: &'static [Self] = &[Self::Count, Self::Percent, Self::Bytes, Self::Seconds, Self::Celsius];

    /// Returns the symbol of the base unit in events.
    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Percent => "%",
            Self::Bytes => "B",
            Self::Seconds => "s",
            Self::Celsius => "°C",
            Self::Count => "",
        }
    }

    /// Returns an example of a threshold in this unit, for messages.
    pub(super) fn example(self) -> &'static str {
        match self {
            Self::Percent => "80%",
            Self::Bytes => "10GiB",
            Self::Seconds => "30s",
            Self::Celsius => "85C",
            Self::Count => "5",
        }
    }
}

/// A value with its unit; for a rate, also with its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Quantity {
    /// The value in the base unit.
    pub(super) value: f64,
    pub(super) unit: Unit,
    /// For a rate, the time that the value refers to, in milliseconds: 1,000 for `5/s`.
    pub(super) per_ms: Option<i64>,
}

impl Quantity {
    /// Returns how a counter is compared with this threshold: by its rate, or by the difference of two readings.
    pub(super) fn per(self) -> Per {
        self.per_ms.map_or(Per::Reading, Per::Millis)
    }

    /// Returns the symbol of the base unit. For a rate, the time follows, as in `B/s`.
    pub(super) fn symbol(self) -> String {
        let per = match self.per_ms {
            Some(3_600_000) => "/h",
            Some(60_000) => "/m",
            Some(_) => "/s",
            None => "",
        };
        format!("{}{per}", self.unit.symbol())
    }

    /// Parses a number and its unit, with `/s`, `/m` or `/h` for a rate.
    pub(super) fn parse(text: &str) -> Result<Self, ValueError> {
        let malformed = || {
            let message = format!("`{}` is not a value with a unit", excerpt(text));
            let help = "write a number and its unit: `80%`, `10GiB`, `30s`, `85C`, `5`, or a rate such as `10MiB/s`";
            ValueError::new(message, help)
        };
        let trimmed = text.trim();
        let (amount, per_ms) = match trimmed.rsplit_once('/') {
            Some((amount, "s")) => (amount, Some(1_000)),
            Some((amount, "m" | "min")) => (amount, Some(60_000)),
            Some((amount, "h")) => (amount, Some(3_600_000)),
            Some(_) => return Err(malformed()),
            None => (trimmed, None),
        };
        let digits = amount.bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-')).count();
        let (number, unit) = amount.split_at_checked(digits).ok_or_else(malformed)?;
        let number: f64 = number.parse().map_err(|_| malformed())?;
        let unit = unit.trim();
        let known = SPELLINGS.iter().find(|(_, spelling, _)| *spelling == unit);
        let Some((unit, _, factor)) = known else {
            let similar = SPELLINGS.iter().find(|(_, spelling, _)| {
                let decimal =
                    [format!("{spelling}ytes"), spelling.replace('i', ""), spelling.trim_end_matches("iB").to_owned()];
                spelling.eq_ignore_ascii_case(unit) || decimal.iter().any(|other| other.eq_ignore_ascii_case(unit))
            });
            return Err(match similar {
                Some((_, spelling, _)) if !spelling.is_empty() => {
                    let message = format!("`{}` has the unknown unit `{}`", excerpt(text), excerpt(unit));
                    ValueError::new(message, format!("write `{number}{spelling}`"))
                }
                _ => malformed(),
            });
        };
        if !number.is_finite() {
            return Err(malformed());
        }
        Ok(Self { value: number * factor, unit: *unit, per_ms })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spellings = || SPELLINGS.iter().filter(|(unit, spelling, _)| *unit == self.unit && *spelling != "C");
        let exact = |(_, _, factor): &&&(Unit, &str, f64)| {
            self.value.abs() >= *factor && (self.value / factor * 10.0).fract() == 0.0
        };
        let fits = |(_, _, factor): &&&(Unit, &str, f64)| self.value.abs() >= *factor;
        let found = spellings().collect::<Vec<_>>();
        let (spelling, factor) = match found.iter().find(exact).or_else(|| found.iter().find(fits)).or(found.last()) {
            Some((_, spelling, factor)) => (*spelling, *factor),
            None => ("", 1.0),
        };
        let symbol = self.symbol();
        let per = symbol.strip_prefix(self.unit.symbol()).unwrap_or_default();
        let shown = format!("{:.2}", self.value / factor);
        let shown = if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.') } else { &shown };
        write!(f, "{shown}{spelling}{per}")
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A threshold: a quantity, with an optional sign for the side on which readings are bad.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Threshold {
    pub(super) quantity: Quantity,
    /// `>`, `>=`, `<` or `<=`. Without a sign, the reading decides which side is bad, and a value equal to the
    /// threshold is bad.
    comparison: Option<&'static str>,
}

/// The comparison signs. Each has the side on which values are bad, and `true` if a value equal to the threshold is
/// bad. `>=` is before `>`, because both match the start of `>= 5`.
static COMPARISONS: [(&str, Direction, bool); 4] = [
    (">=", Direction::Above, true),
    ("<=", Direction::Below, true),
    (">", Direction::Above, false),
    ("<", Direction::Below, false),
];

impl Threshold {
    pub(super) fn parse(text: &str) -> Result<Self, ValueError> {
        let trimmed = text.trim();
        let found = COMPARISONS.iter().find_map(|(sign, ..)| Some((*sign, trimmed.strip_prefix(sign)?)));
        let (comparison, rest) = match found {
            Some((sign, rest)) => (Some(sign), rest),
            None => (None, trimmed),
        };
        Ok(Self { quantity: Quantity::parse(rest)?, comparison })
    }

    /// Returns the side on which readings are bad, if the threshold has a comparison sign.
    pub(super) fn direction(self) -> Option<Direction> {
        self.sign().map(|(_, direction, _)| *direction)
    }

    /// Returns the threshold in the form that the state machine uses.
    pub(super) fn limit(self) -> Limit {
        Limit { value: self.quantity.value, inclusive: self.sign().is_none_or(|(_, _, inclusive)| *inclusive) }
    }

    fn sign(self) -> Option<&'static (&'static str, Direction, bool)> {
        COMPARISONS.iter().find(|(sign, ..)| Some(*sign) == self.comparison)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.comparison {
            Some(sign) => write!(f, "{sign} {}", self.quantity),
            None => self.quantity.fmt(f),
        }
    }
}

impl Serialize for Threshold {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Threshold {
    fn schema_name() -> Cow<'static, str> {
        "Threshold".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "description": "A number and its unit: `80%`, `10GiB`, `14d`, `200ms`, `85C`, a plain number, or a rate \
                such as `5/s` or `10MiB/s`. Write `>`, `>=`, `<` or `<=` before it to choose which values are bad.",
            "examples": ["80%", "10GiB", "14d", "> 5/s", "< 1"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_with_all_units_are_parsed_and_shown_again() {
        for (text, value, shown) in [
            ("80%", 80.0, "80%"),
            ("10GiB", 10.0 * 1_073_741_824.0, "10GiB"),
            ("1.5KiB", 1536.0, "1.5KiB"),
            ("500B", 500.0, "500B"),
            ("14d", 1_209_600.0, "14d"),
            ("90s", 90.0, "1.5m"),
            ("200ms", 0.2, "200ms"),
            ("85C", 85.0, "85°C"),
            ("85 °C", 85.0, "85°C"),
            ("5", 5.0, "5"),
            ("-3.5", -3.5, "-3.5"),
            ("0.75", 0.75, "0.75"),
            ("10MiB/s", 10_485_760.0, "10MiB/s"),
            ("5/m", 5.0, "5/m"),
            ("0%", 0.0, "0%"),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert!((quantity.value - value).abs() < 1e-9, "{text}: {quantity:?}");
            assert_eq!(quantity.to_string(), shown, "{text}");
            assert_eq!(Quantity::parse(shown).unwrap(), quantity, "{text}");
        }
    }

    #[test]
    fn a_wrong_unit_gets_a_correction() {
        for (text, help) in [
            ("80 percent", "write a number and its unit"),
            ("10GB", "write `10GiB`"),
            ("10 gb", "write `10GiB`"),
            ("1k", "write `1KiB`"),
            ("5/d", "write a number and its unit"),
            ("", "write a number and its unit"),
            ("%", "write a number and its unit"),
            ("1.2.3s", "write a number and its unit"),
        ] {
            assert!(Quantity::parse(text).unwrap_err().help.contains(help), "{text}: {:?}", Quantity::parse(text));
        }
    }

    #[test]
    fn a_comparison_sets_the_side_and_whether_the_threshold_counts() {
        let parsed = |text| {
            let threshold = Threshold::parse(text).unwrap();
            (threshold.direction(), threshold.limit().inclusive, threshold.to_string())
        };
        assert_eq!(parsed("80%"), (None, true, "80%".to_owned()));
        assert_eq!(parsed("> 5/s"), (Some(Direction::Above), false, "> 5/s".to_owned()));
        assert_eq!(parsed("<=10GiB"), (Some(Direction::Below), true, "<= 10GiB".to_owned()));
    }
}
