//! Ranges of numbers and of addresses as blocks: runs of keys that share their leading bits. A value is looked up by
//! the block that it is in at each size of block there is, as text is by its prefixes.

use std::net::IpAddr;
use std::ops::Bound;

use super::condition::Scalar;
use super::number::Number;
use super::text::Cidr;

/// The most blocks that stand for one range: half of them at each end, to come close to it.
const COVER_MAX: usize = 16;

/// What the keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Numbers,
    V4,
    V6,
}

/// The keys that are `prefix` when their last `level` bits are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) kind: Kind,
    pub(super) level: u8,
    pub(super) prefix: u128,
}

/// The key of a value: that of a number, or of the address that a string is.
pub(super) fn key(scalar: Scalar<'_>) -> Option<(Kind, u128)> {
    match scalar {
        Scalar::Number(number) => Some((Kind::Numbers, ordered(number).into())),
        // The longest text of an IPv6 address has 45 characters.
        Scalar::String(text) if text.len() <= 45 => text.parse().ok().map(address),
        _ => None,
    }
}

fn address(address: IpAddr) -> (Kind, u128) {
    match address {
        IpAddr::V4(address) => (Kind::V4, address.to_bits().into()),
        IpAddr::V6(address) => (Kind::V6, address.to_bits()),
    }
}

/// A number's bits in an order that is that of the numbers; numbers that are one `f64` have one key.
fn ordered(number: Number) -> u64 {
    let bits = number.to_f64().to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// The block of what shares `bits` leading bits with an address.
pub(super) fn of_cidr(block: &Cidr) -> Block {
    let (kind, key) = address(block.network);
    let width = if kind == Kind::V4 { 32 } else { 128 };
    let level = width - block.bits.min(width);
    Block { kind, level, prefix: key.checked_shr(level.into()).unwrap_or(0) }
}

/// Blocks that together have every number of a range, and few others.
pub(super) fn of_range(range: &(Bound<Number>, Bound<Number>)) -> Vec<Block> {
    let end = |bound: &Bound<Number>, open: u64| match bound {
        Bound::Unbounded => open,
        Bound::Included(number) | Bound::Excluded(number) => ordered(*number),
    };
    let prefixes = cover(end(&range.0, 0), end(&range.1, u64::MAX));
    prefixes.into_iter().map(|(level, prefix)| Block { kind: Kind::Numbers, level, prefix: prefix.into() }).collect()
}

/// Blocks from `low` to `high` and somewhat beyond, as (level, prefix), none within another.
fn cover(low: u64, high: u64) -> Vec<(u8, u64)> {
    // Two neighbours at most, of the least size that reaches both ends.
    let level = (0..63).find(|level| (high >> level).saturating_sub(low >> level) <= 1).unwrap_or(63);
    let mut blocks = Vec::with_capacity(COVER_MAX);
    if low >> level == high >> level {
        return vec![(level, low >> level)];
    }
    // Each end keeps halving the block that sticks out over it: a half beyond the end is dropped, and one that is
    // wholly inside becomes a block of its own.
    let low_max = if high == u64::MAX { COVER_MAX - 1 } else { COVER_MAX / 2 };
    for (end, outside, side) in [(low, 0, low_max), (high, 1, COVER_MAX)] {
        let (mut at, mut prefix) = (level, end >> level);
        let edge = if outside == 0 { 0 } else { u64::MAX };
        while at > 0 && blocks.len() + 1 < side && (end ^ edge) & ((1 << at) - 1) != 0 {
            at -= 1;
            prefix = end >> at;
            if prefix & 1 == outside {
                blocks.push((at, prefix ^ 1));
            }
        }
        blocks.push((at, prefix));
    }
    blocks
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn has(blocks: &[(u8, u64)], key: u64) -> usize {
        blocks.iter().filter(|(level, prefix)| key >> level == *prefix).count()
    }

    #[test]
    fn a_cover_has_each_key_of_its_range_once() {
        let ends =
            [0, 1, 2, 5, 6, 7, 8, 100, 127, 128, 1 << 40, (1 << 62) + 3, u64::MAX / 2, 1 << 63, u64::MAX - 1, u64::MAX];
        for low in ends {
            for high in ends.into_iter().filter(|high| *high >= low) {
                let blocks = cover(low, high);
                assert!(blocks.len() <= COVER_MAX, "{low} {high} {blocks:?}");
                for key in ends.into_iter().chain([low, high, low + (high - low) / 2, low + (high - low) / 3]) {
                    let count = has(&blocks, key);
                    assert!(
                        count <= 1 && (count == 1 || !(low..=high).contains(&key)),
                        "{low} {high} {key} {blocks:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_cover_reaches_little_beyond_its_range() {
        let number = |float| Number::from_float(float);
        let is_in = |low: Bound<Number>, high, float: f64| {
            let (_, key) = key(Scalar::Number(number(float))).unwrap();
            of_range(&(low, high)).iter().any(|block| key >> block.level == block.prefix)
        };
        let (low, high) = (Bound::Excluded(number(20.0)), Bound::Included(number(30.0)));
        assert!(is_in(low, high, 20.5) && is_in(low, high, 30.0) && !is_in(low, high, 19.0) && !is_in(low, high, 32.5));
        let zero = Bound::Excluded(number(0.0));
        assert!(is_in(zero, high, 1e-9) && !is_in(zero, high, -1e-9) && !is_in(zero, high, 40.0));
        assert!(is_in(low, Bound::Unbounded, 1e300) && !is_in(low, Bound::Unbounded, 15.0));
    }
}
