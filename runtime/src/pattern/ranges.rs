//! The numeric ranges of one field: which of them hold a number.

use std::collections::BTreeMap;

use super::condition::Range;
use super::hash::{self, HashedMap};
use super::number::Decimal;

/// Ranges open to one side are sorted by their bound: those that hold a number are exactly the ones up to it. Ranges
/// closed on both sides lie in a grid whose cells are as wide as the next power of two, so that each lies in at most a
/// few cells of its own scale; a number looks into one cell a scale. The grid calculates with doubles, which round
/// monotonically and so never lose a range; what it finds is verified.
#[derive(Default)]
pub(super) struct Ranges {
    from: BTreeMap<Decimal, Vec<u32>>,
    to: BTreeMap<Decimal, Vec<u32>>,
    cells: HashedMap<Vec<u32>>,
    /// The scales in use, each a power of two; sorted.
    scales: Vec<i32>,
    len: usize,
}

impl Ranges {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, range: &Range, branch: u32) {
        self.len += 1;
        match (&range.low, &range.high) {
            (Some((low, _)), Some((high, _))) => {
                let (from, to) = (low.to_f64(), high.to_f64());
                match scale(from, to) {
                    Some(scale) => {
                        if let Err(at) = self.scales.binary_search(&scale) {
                            self.scales.insert(at, scale);
                        }
                        let last = cell(to, scale);
                        let mut at = cell(from, scale);
                        while at <= last {
                            self.cells.entry(key(at, scale)).or_default().push(branch);
                            at += 1.0;
                        }
                    }
                    None => self.from.entry(*low).or_default().push(branch),
                }
            }
            (Some((low, _)), None) => self.from.entry(*low).or_default().push(branch),
            (None, Some((high, _))) => self.to.entry(*high).or_default().push(branch),
            (None, None) => {}
        }
    }

    /// Calls back with every range that holds the number, and a few that do not. `text` is the number as written.
    pub(super) fn find(&self, number: Decimal, text: &str, mut found: impl FnMut(u32)) {
        let mut each = |branches: &Vec<u32>| branches.iter().for_each(|branch| found(*branch));
        if !self.from.is_empty() {
            self.from.range(..=number).for_each(|(_, branches)| each(branches));
        }
        if !self.to.is_empty() {
            self.to.range(number..).for_each(|(_, branches)| each(branches));
        }
        if let (false, Ok(number)) = (self.scales.is_empty(), text.parse::<f64>()) {
            for scale in &self.scales {
                if let Some(branches) = self.cells.get(&key(cell(number, *scale), *scale)) {
                    each(branches);
                }
            }
        }
    }
}

/// The exponent of the cells for a range: not narrower than the range, and wide enough that cell numbers stay exact.
/// `None` for ranges that are too wide for it.
fn scale(from: f64, to: f64) -> Option<i32> {
    let width = exponent(to - from) + 1;
    let exact = exponent(from).max(exponent(to)) - 50;
    let scale = width.max(exact).max(-1000);
    ((to - from).is_finite() && scale < 1000).then_some(scale)
}

/// The binary exponent of a double.
fn exponent(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7ff) as i32 - 1023
}

fn cell(value: f64, scale: i32) -> f64 {
    (value * 2f64.powi(-scale)).floor()
}

fn key(cell: f64, scale: i32) -> u64 {
    // Zero has two signs.
    hash::mix((cell + 0.0).to_bits(), scale as u64)
}
