//! The index over the numeric ranges of one field: finds the ranges that contain a number.

use std::collections::BTreeMap;

use super::condition::Range;
use super::hash::{self, HashedMap};
use super::number::Decimal;

/// The numeric ranges of one field.
///
/// Ranges with one bound are sorted by that bound, lower and upper bounds separately. A number is then in all ranges
/// whose lower bound is before the number, and in all ranges whose upper bound is after it.
///
/// Ranges with two bounds are stored in grids. All cells of a grid have the same width, a power of two (the scale of
/// the grid). A range is stored in a grid whose cells are at least as wide as the range, so the range covers only a few
/// cells. To find the ranges that contain a number, one cell of each grid is read.
///
/// Cell numbers are computed with doubles. Rounding to doubles keeps the order of numbers, so no range is missed. A
/// range that was found although it does not contain the number is rejected when the pattern is verified.
#[derive(Default)]
pub(super) struct Ranges {
    /// By lower bound: ranges without an upper bound, and ranges too wide for a grid.
    by_low: BTreeMap<Decimal, Vec<u32>>,
    /// By upper bound: ranges without a lower bound.
    by_high: BTreeMap<Decimal, Vec<u32>>,
    /// The alternatives of the ranges in each cell, by [`cell_key`].
    cells: HashedMap<Vec<u32>>,
    /// The scales that have ranges, as exponents of two, ascending.
    scales: Vec<i32>,
    len: usize,
}

impl Ranges {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, range: &Range, alternative: u32) {
        self.len += 1;
        match (&range.low, &range.high) {
            (Some((low, _)), Some((high, _))) => {
                let (from, to) = (low.to_f64(), high.to_f64());
                match cell_scale(from, to) {
                    Some(scale) => {
                        if let Err(at) = self.scales.binary_search(&scale) {
                            self.scales.insert(at, scale);
                        }
                        let last = cell_number(to, scale);
                        let mut at = cell_number(from, scale);
                        while at <= last {
                            self.cells.entry(cell_key(at, scale)).or_default().push(alternative);
                            at += 1.0;
                        }
                    }
                    None => self.by_low.entry(low.decimal()).or_default().push(alternative),
                }
            }
            (Some((low, _)), None) => self.by_low.entry(low.decimal()).or_default().push(alternative),
            (None, Some((high, _))) => self.by_high.entry(high.decimal()).or_default().push(alternative),
            (None, None) => {}
        }
    }

    /// Finds the ranges that are stored by one bound: those with one bound, and those too wide for a grid. Calls
    /// `found` with the alternative of each range that contains at least one value of the field, and also with the
    /// alternatives of some ranges that contain none. `least` and `greatest` are the least and the greatest value of
    /// the field.
    pub(super) fn find_one_sided(&self, least: Decimal, greatest: Decimal, mut found: impl FnMut(u32)) {
        let mut each = |alternatives: &Vec<u32>| alternatives.iter().for_each(|alternative| found(*alternative));
        if !self.by_low.is_empty() {
            self.by_low.range(..=greatest).for_each(|(_, alternatives)| each(alternatives));
        }
        if !self.by_high.is_empty() {
            self.by_high.range(least..).for_each(|(_, alternatives)| each(alternatives));
        }
    }

    /// Finds the ranges that are stored in grids. Calls `found` with the alternative of each range that contains the
    /// number, and also with the alternatives of some ranges that do not. [`Ranges::find_one_sided`] finds the other
    /// ranges. `text` is the number as the event writes it.
    pub(super) fn find(&self, text: &str, mut found: impl FnMut(u32)) {
        let mut each = |alternatives: &Vec<u32>| alternatives.iter().for_each(|alternative| found(*alternative));
        if let (false, Ok(number)) = (self.scales.is_empty(), text.parse::<f64>()) {
            for scale in &self.scales {
                if let Some(alternatives) = self.cells.get(&cell_key(cell_number(number, *scale), *scale)) {
                    each(alternatives);
                }
            }
        }
    }
}

/// Returns the scale of the grid for a range: its cell width as an exponent of two. Cells are at least as wide as the
/// range, and wide enough that cell numbers are exact in a double. Returns `None` for ranges that are too wide for a
/// grid.
fn cell_scale(from: f64, to: f64) -> Option<i32> {
    // A range whose width is a power of two gets cells of this width, others the next power of two.
    let has_fraction = (to - from).to_bits() & FRACTION != 0;
    let width = binary_exponent(to - from) + i32::from(has_fraction);
    let exact = binary_exponent(from).max(binary_exponent(to)) - 50;
    let scale = width.max(exact).max(-1000);
    ((to - from).is_finite() && scale < 1000).then_some(scale)
}

/// The bits of a double after its sign and its exponent.
const FRACTION: u64 = (1 << 52) - 1;

/// The binary exponent of a double, without its bias.
fn binary_exponent(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

fn cell_number(value: f64, scale: i32) -> f64 {
    (value * 2f64.powi(-scale)).floor()
}

fn cell_key(cell: f64, scale: i32) -> u64 {
    // Adding 0.0 turns -0.0 into 0.0.
    hash::mix((cell + 0.0).to_bits(), scale as u64)
}

#[cfg(test)]
mod tests {
    use super::super::tests::matches;
    use serde_json::{Value, json};

    #[test]
    fn a_range_contains_its_bounds_also_where_doubles_round_them_in_different_ways() {
        // The first digits alone are in the middle between two doubles. The later digits decide which double is
        // nearest.
        let beyond = "9007199254740993.00000000000000000000000000000000000000001";
        for (low, high) in [(format!("-{beyond}"), "-9007199254740990"), ("9007199254740990".to_owned(), beyond)] {
            let numbers: [Value; 2] = [&low, high].map(|text| serde_json::from_str(text).unwrap());
            let pattern = json!({ "a": [{ "numeric": [">=", numbers[0], "<=", numbers[1]] }] });
            for number in &numbers {
                assert!(matches(&pattern, &json!({ "a": number })), "{number} in {pattern}");
            }
        }
    }
}
