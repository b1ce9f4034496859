//! Numbers as JSON writes them, compared exactly.

use std::cmp::Ordering;

/// Significant digits kept of a number; what stands behind them is only remembered as "more".
const DIGITS: u32 = 38;

/// A decimal number in canonical form: `0.digits × 10^point`, so that `300`, `300.0` and `3.0e2` are the same value
/// and order is the order of the fields.
///
/// Precision: 38 significant digits. A pattern's number never has more than 20 (it is a 64-bit integer, or the
/// shortest decimal that names its double), and what an event's number has behind its 38th digit still counts as
/// "a little more". So equality and order against a pattern are exact, however long the event's number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Decimal {
    /// -1, 0 or 1; `-0` is `0`.
    sign: i8,
    /// Non-zero digits follow behind the 38th.
    more: bool,
    /// Where the decimal point stands, counted from the first significant digit.
    point: i32,
    /// 38 digits, left-aligned, as the two halves of a `u128` (which would double the size by its alignment).
    high: u64,
    low: u64,
}

/// Beyond any exponent that differs from another in a comparison with a pattern's number (±400).
const FAR: i64 = 1_000_000_000;

impl Decimal {
    const ZERO: Self = Self { sign: 0, more: false, point: 0, high: 0, low: 0 };

    /// Reads a number of the JSON grammar (RFC 8259 section 6). Other text gives some number, never a panic.
    pub(super) fn parse(text: &[u8]) -> Self {
        let (negative, text) = match text.split_first() {
            Some((b'-', rest)) => (true, rest),
            _ => (false, text),
        };
        let mut digits: u128 = 0;
        let mut head: u64 = 0;
        let mut count: u32 = 0;
        let mut more = false;
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
                            head = head * 10 + u64::from(digit);
                            count += 1;
                        } else if count < DIGITS {
                            if count == 19 {
                                digits = u128::from(head);
                            }
                            digits = digits * 10 + u128::from(digit);
                            count += 1;
                        } else {
                            more |= digit != 0;
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
            digits = u128::from(head);
        }
        digits *= 10u128.pow(DIGITS - count);
        Self {
            sign: if negative { -1 } else { 1 },
            more,
            point: point.clamp(-FAR, FAR) as i32,
            high: (digits >> 64) as u64,
            low: digits as u64,
        }
    }

    /// The number of a pattern.
    pub(super) fn of(number: &serde_json::Number) -> Self {
        Self::parse(number.to_string().as_bytes())
    }

    /// The nearest double; never decreases where the number increases.
    pub(super) fn to_f64(self) -> f64 {
        let digits = (u128::from(self.high) << 64) | u128::from(self.low);
        let sign = if self.sign < 0 { "-" } else { "" };
        format!("{sign}0.{digits:038}e{}", self.point).parse().unwrap_or(0.0)
    }

    /// What equal numbers have in common, for hashing.
    pub(super) fn words(self) -> [u64; 3] {
        [self.high, self.low, ((self.point as u64) << 8) ^ (self.sign as u64) ^ (u64::from(self.more) << 62)]
    }

    fn magnitude(&self) -> (i32, u64, u64, bool) {
        (self.point, self.high, self.low, self.more)
    }
}

/// The digits behind `e` or `E`; saturates, as only its being far away counts then.
fn exponent(text: &[u8]) -> i64 {
    let (negative, text) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let mut value: i64 = 0;
    for byte in text {
        value = (value * 10 + i64::from(byte.wrapping_sub(b'0') % 10)).min(FAR * 4);
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
