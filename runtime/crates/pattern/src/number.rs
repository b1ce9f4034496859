//! JSON numbers as exact decimals.

use std::cmp::Ordering;

/// The number of significant digits stored. If a later digit is not zero, the flag `truncated` is set.
const DIGITS_MAX: u32 = 38;

/// A decimal number in canonical form, `0.digits × 10^point`. `300`, `300.0` and `3.0e2` have the same canonical form.
/// Two numbers of the same sign are compared field by field.
///
/// 38 significant digits are stored. A number of a pattern has at most 20 digits: it is a 64-bit integer, or the
/// shortest decimal that identifies its double. A number of an event may have more than 38. If its digits after the
/// 38th are not all zero, it compares as slightly larger in magnitude than its stored digits. So equality and order
/// between a number of an event and a number of a pattern are exact, however many digits the event's number has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decimal {
    /// -1, 0 or 1. The number `-0` is stored as `0`.
    sign: i8,
    /// Non-zero digits follow the 38th.
    truncated: bool,
    /// The position of the decimal point, counted from the first significant digit.
    point: i32,
    /// The 38 digits, left-aligned, as the upper and lower half of a `u128`. The field is not one `u128`, because the
    /// alignment of a `u128` would double the size of the struct.
    high: u64,
    low: u64,
}

/// The largest distance of the decimal point in either direction; a larger distance is replaced by this one. In the
/// numbers of patterns the distance is at most about 400. So a replaced distance is still larger than theirs, and every
/// comparison with them gives the same result.
const POINT_MAX: i64 = 1_000_000_000;

impl Decimal {
    const ZERO: Self = Self { sign: 0, truncated: false, point: 0, high: 0, low: 0 };

    /// Parses a number of the JSON grammar (RFC 8259 section 6). For other text the result is unspecified, but the
    /// function does not panic.
    pub(super) fn parse(text: &[u8]) -> Self {
        let (negative, text) = match text.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, text),
        };
        let mut digits: u128 = 0;
        let mut leading: u64 = 0;
        let mut count: u32 = 0;
        let mut truncated = false;
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
                            truncated |= digit != 0;
                        }
                        point += i64::from(!fraction);
                    } else {
                        point -= i64::from(fraction);
                    }
                }
                b'.' => fraction = true,
                _ => {
                    point = point.saturating_add(exponent(text.get(at..).unwrap_or_default()));
                    break;
                }
            }
        }
        if count == 0 {
            return Self::ZERO;
        }
        if count <= 19 {
            digits = u128::from(leading);
        }
        digits *= 10u128.pow(DIGITS_MAX - count);
        Self {
            sign: if negative { -1 } else { 1 },
            truncated,
            point: point.clamp(-POINT_MAX, POINT_MAX) as i32,
            high: (digits >> 64) as u64,
            low: digits as u64,
        }
    }

    /// Converts a number of a pattern.
    pub(super) fn from_json(number: &serde_json::Number) -> Self {
        Self::parse(number.to_string().as_bytes())
    }

    /// The nearest double. The conversion is monotonic: a larger number never gives a smaller double.
    pub(super) fn to_f64(self) -> f64 {
        let digits = (u128::from(self.high) << 64) | u128::from(self.low);
        let sign = if self.sign < 0 { "-" } else { "" };
        format!("{sign}0.{digits:038}e{}", self.point).parse().unwrap_or(0.0)
    }

    /// Words to hash; equal numbers have equal words.
    pub(super) fn words(self) -> [u64; 3] {
        [self.high, self.low, ((self.point as u64) << 8) ^ (self.sign as u64) ^ (u64::from(self.truncated) << 62)]
    }

    /// Compares like the absolute value.
    fn magnitude(&self) -> (i32, u64, u64, bool) {
        (self.point, self.high, self.low, self.truncated)
    }
}

/// Parses the exponent after `e` or `E`. Saturates beyond [`POINT_MAX`], where larger exponents make no difference.
fn exponent(text: &[u8]) -> i64 {
    let (negative, text) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let mut value: i64 = 0;
    for byte in text {
        value = (value * 10 + i64::from(byte.wrapping_sub(b'0') % 10)).min(POINT_MAX * 4);
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
