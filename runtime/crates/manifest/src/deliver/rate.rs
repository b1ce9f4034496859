//! Rates of requests.

use super::INTERVAL_MAX;
use crate::diagnostics::{ValueError, excerpt};
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// A number of requests in a second, a minute or an hour, written as `10/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: u32,
    unit: char,
}

/// The largest number in a rate.
const COUNT_MAX: u32 = 100_000;

impl Rate {
    /// Parses a rate such as `10/s`, `300/m` or `1000/h`.
    ///
    /// # Errors
    /// The text has another form, or the count is 0 or more than 100,000.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let example = "write a whole number from 1 to 100000 and a unit, s, m or h, as in `10/s` or `300/m`";
        let invalid = || ValueError::new(format!("`{}` is not a rate", excerpt(text)), example);
        let (count, unit) = text.split_once('/').ok_or_else(invalid)?;
        let is_number = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        let count = if is_number { count.parse().ok() } else { None };
        match (count, unit) {
            (Some(count @ 1..=COUNT_MAX), "s") => Ok(Self { count, unit: 's' }),
            (Some(count @ 1..=COUNT_MAX), "m") => Ok(Self { count, unit: 'm' }),
            (Some(count @ 1..=COUNT_MAX), "h") => Ok(Self { count, unit: 'h' }),
            _ => Err(invalid()),
        }
    }

    /// Returns the shortest time between two requests.
    pub fn interval(self) -> Duration {
        let unit = match self.unit {
            'h' => INTERVAL_MAX,
            'm' => Duration::from_secs(60),
            _ => Duration::from_secs(1),
        };
        unit / self.count
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.unit)
    }
}

impl Serialize for Rate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_in_a_unit_of_time() {
        for (text, interval) in [
            ("10/s", Duration::from_millis(100)),
            ("300/m", Duration::from_millis(200)),
            ("1/h", Duration::from_secs(3600)),
            ("100000/s", Duration::from_micros(10)),
        ] {
            let rate = Rate::parse(text).unwrap();
            assert_eq!((rate.interval(), rate.to_string().as_str()), (interval, text));
        }
        for text in ["", "10", "10/d", "0/s", "100001/s", "-1/s", "+1/s", "1.5/s", "10 /s", "10/s/s", "/s"] {
            assert!(Rate::parse(text).is_err(), "{text}");
        }
    }
}
