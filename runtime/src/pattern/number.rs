//! Numbers that compare by value, whatever their notation: `300`, `300.0` and `3e2` are one number.

use std::cmp::Ordering;
use std::fmt;

/// A number in an order that is exact for every integer of 64 bits and every `f64`: 2^53 and 2^53 + 1 differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    /// The largest integer that is not above the number; at the ends of the range, any number beyond them. In two
    /// halves, which saves every condition the 16 bytes that the alignment of an `i128` would take.
    floor: (i64, u64),
    /// What the number is above `floor`; beyond the range of `floor`, the number itself.
    rest: f64,
}

impl Number {
    pub(super) fn from_integer(integer: i128) -> Self {
        Self::new(integer, 0.0)
    }

    fn new(floor: i128, rest: f64) -> Self {
        Self { floor: ((floor >> 64) as i64, floor as u64), rest }
    }

    fn floor(self) -> i128 {
        i128::from(self.floor.0) << 64 | i128::from(self.floor.1)
    }

    /// `float` is not NaN: JSON has none.
    pub(super) fn from_float(float: f64) -> Self {
        /// 2^126: below it, the floor of a float is exact in `i128`.
        const EXACT: f64 = 85_070_591_730_234_615_865_843_651_857_942_052_864.0;
        if float >= EXACT {
            Self::new(i128::MAX, float)
        } else if float <= -EXACT {
            Self::new(i128::MIN, float)
        } else {
            let floor = float.floor();
            // `+ 0.0` turns a negative zero into zero.
            Self::new(floor as i128, float - floor + 0.0)
        }
    }

    pub(super) fn from_json(number: &serde_json::Number) -> Self {
        match (number.as_i64(), number.as_u64()) {
            (Some(integer), _) => Self::from_integer(integer.into()),
            (_, Some(integer)) => Self::from_integer(integer.into()),
            _ => Self::from_float(number.as_f64().unwrap_or(f64::INFINITY)),
        }
    }

    /// Reads text that is known to follow the grammar of RFC 8259, section 6. Integers beyond 64 bits and all other
    /// numbers become the nearest `f64`, as they do in a pattern.
    pub(super) fn from_text(text: &str) -> Self {
        if text.len() < 19
            && let Some(integer) = short_integer(text)
        {
            return Self::from_integer(integer.into());
        }
        match text.parse::<i128>() {
            Ok(integer) if i64::try_from(integer).is_ok() || u64::try_from(integer).is_ok() => {
                Self::from_integer(integer)
            }
            _ => Self::from_float(text.parse().unwrap_or(f64::INFINITY)),
        }
    }

    /// The nearest `f64`.
    pub(super) fn to_f64(self) -> f64 {
        match self.floor() {
            i128::MIN | i128::MAX => self.rest,
            floor => floor as f64 + self.rest,
        }
    }

    /// Bits that are equal for equal numbers.
    pub(super) fn bits(self) -> (u128, u64) {
        (self.floor() as u128, self.rest.to_bits())
    }
}

/// An integer of fewer than 19 characters, which cannot overflow; `None` when there is a fraction or an exponent.
fn short_integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let mut value = 0i64;
    for byte in digits.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + i64::from(byte - b'0');
    }
    Some(if negative { -value } else { value })
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.floor(), self.rest) {
            (floor, 0.0) => write!(f, "{floor}"),
            (i128::MIN | i128::MAX, float) => write!(f, "{float:e}"),
            _ => write!(f, "{}", self.to_f64()),
        }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.floor.cmp(&other.floor).then_with(|| self.rest.total_cmp(&other.rest))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn notation_does_not_matter() {
        for same in
            [["300", "300.0"], ["300", "3e2"], ["-0", "0.0"], ["-0.0", "0"], ["0.5", "5E-1"], ["-1.5", "-15e-1"]]
        {
            assert_eq!(Number::from_text(same[0]), Number::from_text(same[1]), "{same:?}");
        }
    }

    #[test]
    fn the_order_is_that_of_the_values() {
        let ascending = [
            "-1e400",
            "-1e300",
            "-18446744073709551616",
            "-9223372036854775808",
            "-9223372036854775807",
            "-2",
            "-1.5",
            "-1",
            "-0.25",
            "0",
            "1e-320",
            "0.1",
            "1",
            "1.5",
            "9007199254740992",
            "9007199254740993",
            "18446744073709551614",
            "18446744073709551615",
            "1e30",
            "1e300",
            "1e400",
        ];
        for pair in ascending.windows(2) {
            assert!(Number::from_text(pair[0]) < Number::from_text(pair[1]), "{pair:?}");
        }
        for text in ascending {
            let Ok(json) = serde_json::from_str::<serde_json::Number>(text) else { continue };
            assert_eq!(Number::from_json(&json), Number::from_text(text), "{text}");
        }
    }
}
