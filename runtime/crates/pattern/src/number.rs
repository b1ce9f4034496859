//! JSON numbers as exact decimals.

use std::cmp::Ordering;

/// The number of significant digits that a [`Decimal`] stores.
const DIGITS_MAX: u32 = 38;
/// The powers of ten from 10⁰ to 10³⁸. A lookup takes less time than the multiplications of `pow`, and every number of an
/// event needs a power.
const POWERS_OF_TEN: [u128; DIGITS_MAX as usize + 1] = {
    let mut powers = [1; DIGITS_MAX as usize + 1];
    let mut exponent = 1;
    while exponent < powers.len() {
        powers[exponent] = powers[exponent - 1] * 10;
        exponent += 1;
    }
    powers
};
/// The limit of `Decimal::point`, in either direction. If the decimal point is at least this number of digits away from
/// the first significant digit, a [`Decimal`] stores no digits.
const POINT_MAX: i64 = 1_000_000_000;
/// Exponents beyond this limit count as the limit, so that calculations with exponents do not overflow. No text in
/// memory has so many digits that they could compensate for such an exponent.
const EXPONENT_MAX: i128 = 10_i128.pow(36);

/// The leading part of a decimal number in canonical form, `0.digits × 10^point`. `300`, `300.0` and `3.0e2` have the
/// same canonical form. Two numbers of the same sign are compared field by field.
///
/// 38 significant digits are stored. The flag `inexact` is set if later digits are not zero, or if the decimal point is
/// so far away that no digits are stored. Equal numbers always have equal decimals, and the order of decimals never
/// contradicts the order of numbers. Two different numbers have equal decimals only if both are inexact;
/// [`NumberRef`] then compares their texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decimal {
    /// -1, 0 or 1. The number `-0` is stored as `0`.
    sign: i8,
    inexact: bool,
    /// The position of the decimal point, counted from the first significant digit.
    point: i32,
    /// The 38 digits, left-aligned, as the upper and lower half of a `u128`. The field is not one `u128`, because the
    /// alignment of a `u128` would double the size of the struct.
    high: u64,
    low: u64,
}

impl Decimal {
    const ZERO: Self = Self { sign: 0, inexact: false, point: 0, high: 0, low: 0 };

    /// Parses a number of the JSON grammar (RFC 8259 section 6). For other text the result is unspecified, but the
    /// function does not panic.
    pub(super) fn parse(text: &[u8]) -> Self {
        let (negative, text) = match text.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, text),
        };
        let sign = if negative { -1 } else { 1 };
        if let Some((digits, count, point)) = short(text) {
            return if digits == 0 { Self::ZERO } else { Self::aligned(sign, false, point, u128::from(digits), count) };
        }
        let mut digits: u128 = 0;
        let mut leading: u64 = 0;
        let mut count: u32 = 0;
        let mut inexact = false;
        let mut point: i64 = 0;
        let mut fraction = false;
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            at += 1;
            match byte {
                b'0'..=b'9' => {
                    let digit = byte - b'0';
                    if count > 0 || digit != 0 {
                        if count < 19 {
                            leading = leading * 10 + u64::from(digit);
                            count += 1;
                        } else if count < DIGITS_MAX {
                            if count == 19 {
                                digits = u128::from(leading);
                            }
                            digits = digits * 10 + u128::from(digit);
                            count += 1;
                        } else {
                            inexact |= digit != 0;
                        }
                        point += i64::from(!fraction);
                    } else {
                        point -= i64::from(fraction);
                    }
                }
                b'.' => fraction = true,
                _ => {
                    let exponent = exponent(text.get(at..).unwrap_or_default());
                    point =
                        point.saturating_add(i64::try_from(exponent).unwrap_or(exponent.signum() as i64 * i64::MAX));
                    break;
                }
            }
        }
        if count == 0 {
            return Self::ZERO;
        }
        if point.saturating_abs() >= POINT_MAX {
            let point = if point < 0 { -POINT_MAX } else { POINT_MAX } as i32;
            return Self { sign, inexact: true, point, high: 0, low: 0 };
        }
        if count <= 19 {
            digits = u128::from(leading);
        }
        Self::aligned(sign, inexact, point as i32, digits, count)
    }

    /// Returns the decimal with `count` digits, the first of which is not 0.
    fn aligned(sign: i8, inexact: bool, point: i32, digits: u128, count: u32) -> Self {
        let digits = digits * POWERS_OF_TEN.get((DIGITS_MAX - count) as usize).unwrap_or(&1);
        Self { sign, inexact, point, high: (digits >> 64) as u64, low: digits as u64 }
    }

    /// The double nearest to the decimal, which must be exact.
    fn to_f64(self) -> f64 {
        let sign = if self.sign < 0 { "-" } else { "" };
        let digits = (u128::from(self.high) << 64) | u128::from(self.low);
        format!("{sign}0.{digits:038}e{}", self.point).parse().unwrap_or(0.0)
    }

    /// The input of the hash function. Equal numbers have equal words.
    pub(super) fn words(self) -> [u64; 3] {
        [self.high, self.low, ((self.point as u64) << 8) ^ (self.sign as u64) ^ (u64::from(self.inexact) << 62)]
    }

    /// Returns true if the decimal does not determine the number, so its text is needed for comparisons.
    pub(super) fn is_inexact(self) -> bool {
        self.inexact
    }

    /// A key that orders decimals by their absolute value.
    fn magnitude(&self) -> (i32, u64, u64, bool) {
        (self.point, self.high, self.low, self.inexact)
    }
}

/// Parses a number of at most 19 bytes without a sign and without an exponent, as nearly all are. Returns its digits
/// without leading zeros, their number, and the position of the decimal point after the first of them.
#[inline]
fn short(text: &[u8]) -> Option<(u64, u32, i32)> {
    if text.len() > 19 {
        return None;
    }
    let (mut digits, mut count, mut point) = (0, 0, 0);
    let mut fraction = false;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit < 10 {
            digits = digits * 10 + u64::from(digit);
            let is_significant = digits != 0;
            count += u32::from(is_significant);
            // Digits of the integer move the point to the right, zeros before the first other digit to the left.
            point += i32::from(is_significant & !fraction) - i32::from(!is_significant & fraction);
        } else if *byte == b'.' {
            fraction = true;
        } else {
            return None;
        }
    }
    Some((digits, count, point))
}

/// Parses the exponent after `e` or `E`. Saturates at [`EXPONENT_MAX`].
fn exponent(text: &[u8]) -> i128 {
    let (negative, text) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let mut value: i128 = 0;
    for byte in text {
        value = (value * 10 + i128::from(byte.wrapping_sub(b'0') % 10)).min(EXPONENT_MAX);
    }
    if negative { -value } else { value }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        self.sign.cmp(&other.sign).then_with(|| match self.sign {
            1 => self.magnitude().cmp(&other.magnitude()),
            -1 => other.magnitude().cmp(&self.magnitude()),
            _ => Ordering::Equal,
        })
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A number: its decimal and, if the decimal is inexact, its text. Comparisons are exact.
#[derive(Clone, Copy, Debug)]
pub(super) struct NumberRef<'a> {
    pub(super) decimal: Decimal,
    /// The number's text; not read if the decimal is exact.
    pub(super) text: &'a str,
}

impl Ord for NumberRef<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.decimal.cmp(&other.decimal).then_with(|| {
            if !self.decimal.inexact {
                return Ordering::Equal;
            }
            let order = Digits::of(self.text).cmp(&Digits::of(other.text));
            if self.decimal.sign < 0 { order.reverse() } else { order }
        })
    }
}

impl PartialOrd for NumberRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for NumberRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for NumberRef<'_> {}

/// A number of a pattern.
#[derive(Clone, Debug)]
pub(super) struct Number {
    decimal: Decimal,
    /// The number's text; `None` if the decimal is exact.
    text: Option<Box<str>>,
}

impl Number {
    /// Converts a number of a pattern.
    pub(super) fn from_json(number: &serde_json::Number) -> Self {
        let text = number.to_string();
        let decimal = Decimal::parse(text.as_bytes());
        Self { decimal, text: decimal.inexact.then(|| text.into()) }
    }

    pub(super) fn decimal(&self) -> Decimal {
        self.decimal
    }

    /// Returns the double nearest to the number, as the parser of the standard library returns it for the number's
    /// text. The result is infinite beyond the range of doubles. The conversion is monotonic: a larger number never
    /// gives a smaller double.
    pub(super) fn to_f64(&self) -> f64 {
        match &self.text {
            // The decimal has only some of the digits. The double nearest to these digits can differ from the double
            // nearest to the number.
            Some(text) => text.parse().unwrap_or(0.0),
            None => self.decimal.to_f64(),
        }
    }

    pub(super) fn view(&self) -> NumberRef<'_> {
        NumberRef { decimal: self.decimal, text: self.text.as_deref().unwrap_or_default() }
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        self.view().cmp(&other.view())
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Number {}

/// The absolute value of a number's text, `0.digits × 10^point`.
struct Digits<'a> {
    /// From the first significant digit up to the exponent; can contain the decimal point.
    mantissa: &'a [u8],
    point: i128,
}

impl<'a> Digits<'a> {
    fn of(text: &'a str) -> Self {
        let text = text.strip_prefix('-').unwrap_or(text).as_bytes();
        let end = text.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(text.len());
        let (mantissa, rest) = text.split_at(end);
        let dot = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len()) as i128;
        let first = mantissa.iter().position(|byte| matches!(byte, b'1'..=b'9')).unwrap_or(mantissa.len());
        let mut point = dot - first as i128;
        if point < 0 {
            point += 1; // the difference also counts the decimal point, which is not a digit
        }
        point += exponent(rest.get(1..).unwrap_or_default());
        Self { mantissa: mantissa.get(first..).unwrap_or_default(), point }
    }

    fn iter(&self) -> impl Iterator<Item = u8> {
        self.mantissa.iter().copied().filter(|byte| *byte != b'.')
    }

    fn cmp(&self, other: &Self) -> Ordering {
        self.point.cmp(&other.point).then_with(|| {
            let (mut left, mut right) = (self.iter(), other.iter());
            loop {
                let (a, b) = (left.next(), right.next());
                if a.is_none() && b.is_none() {
                    return Ordering::Equal;
                }
                match a.unwrap_or(b'0').cmp(&b.unwrap_or(b'0')) {
                    Ordering::Equal => {}
                    other => return other,
                }
            }
        })
    }
}

/// The longest run of zeros that [`canonical_number`] writes out.
const ZEROS_MAX: i128 = 40;

/// Returns the canonical text of a JSON number. All texts of the same number have the same canonical text: `12` for
/// `12`, `12.0` and `1.2e1`. The result is at most about 50 characters longer than the number of significant digits.
/// For text that is not a JSON number the result is unspecified.
#[must_use]
pub fn canonical_number(text: &str) -> String {
    let parts = Digits::of(text);
    let digits: Vec<u8> = parts.iter().collect();
    let length = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    let digits = String::from_utf8_lossy(digits.get(..length).unwrap_or_default());
    let sign = if text.starts_with('-') { "-" } else { "" };
    let (point, count) = (parts.point, length as i128);
    let zeros = |count: i128| "0".repeat(usize::try_from(count).unwrap_or(0));
    match point {
        _ if count == 0 => "0".to_owned(),
        _ if point >= count && point - count <= ZEROS_MAX => format!("{sign}{digits}{}", zeros(point - count)),
        _ if point > 0 && point < count => {
            let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
            format!("{sign}{whole}.{fraction}")
        }
        _ if point <= 0 && point > -ZEROS_MAX => format!("{sign}0.{}{digits}", zeros(-point)),
        _ => format!("{sign}0.{digits}e{point}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        Number::from_json(&text.parse().unwrap())
    }

    #[test]
    fn numbers_of_any_size_have_an_exact_order() {
        let digits = "9".repeat(5_000);
        let long = [
            "-3e3000000000000000000000".to_owned(),
            "-2e3000000000000000000000".to_owned(),
            "-1e1000000000".to_owned(),
            format!("-{digits}1"),
            format!("-{digits}"),
            "-1".to_owned(),
            "1e-2000000000".to_owned(),
            "1e-1999999999".to_owned(),
            format!("0.{}1", "0".repeat(3_000)),
            format!("1.{}1", "0".repeat(60)),
            format!("1.{}2", "0".repeat(60)),
            "99999999999999999999".to_owned(),
            "100000000000000000000".to_owned(),
            digits.clone(),
            format!("{digits}.5"),
            format!("{digits}1"),
            "1e999999999".to_owned(),
            "1e1000000000".to_owned(),
            "5e2000000000".to_owned(),
            "3e3000000000".to_owned(),
        ];
        for (i, a) in long.iter().enumerate() {
            for (j, b) in long.iter().enumerate() {
                assert_eq!(number(a).cmp(&number(b)), i.cmp(&j), "{a:.40} and {b:.40}");
            }
        }
    }

    #[test]
    fn texts_of_one_number_are_equal_and_have_one_canonical_text() {
        let long = "123456789012345678901234567890123456789012345";
        for (texts, canonical) in [
            (vec!["0", "-0", "0.0", "0e99", "-0.00E-7"], "0".to_owned()),
            (vec!["12", "12.0", "1.2e1", "0.12E+2", "120e-1"], "12".to_owned()),
            (vec!["-0.05", "-5e-2", "-0.0500"], "-0.05".to_owned()),
            (vec![long, &format!("{long}.000"), &format!("{long}0e-1")], long.to_owned()),
            (vec!["1e999999999", "10e999999998", "0.1e1000000000"], "0.1e1000000000".to_owned()),
            (vec!["1e-999999999999"], "0.1e-999999999998".to_owned()),
        ] {
            for text in &texts {
                assert_eq!(canonical_number(text), canonical, "{text}");
                assert_eq!(number(text), number(texts[0]), "{text}");
                assert_eq!(number(&canonical_number(text)), number(text), "{text}");
                assert_eq!(number(text).decimal().words(), number(texts[0]).decimal().words(), "{text}");
            }
        }
    }
}
