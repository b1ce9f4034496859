//! The hash function of the index.
//!
//! The index is keyed by 64-bit hashes only. Each pattern that the index finds through a hash is then verified against
//! the event. So a collision costs one more comparison but never changes a result, even if an attacker provokes it. The
//! hash function is therefore chosen for speed and not for collision resistance.

use std::hash::{BuildHasherDefault, Hasher};

// Odd constants with well-mixed bits.
const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd6e8_feb8_6659_fd93;
const C: u64 = 0xa076_1d64_78bd_642f;

/// Multiplies two words and XORs the two halves of the product with each other, so that every bit of the inputs affects
/// the result.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ A) * u128::from(b ^ B);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hashes a byte string of any length.
pub(super) fn bytes(text: &[u8]) -> u64 {
    let mut hash = C ^ text.len() as u64;
    let mut rest = text;
    while rest.len() > 16 {
        let (head, tail) = rest.split_at(16);
        hash = mix(read_u64(head, 0) ^ hash, read_u64(head, 8));
        rest = tail;
    }
    match rest.len() {
        8.. => mix(read_u64(rest, 0) ^ hash, read_u64(rest, rest.len() - 8)),
        4..=7 => mix(read_u32(rest, 0) ^ hash, read_u32(rest, rest.len() - 4)),
        _ => {
            let value = rest.iter().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
            mix(value ^ hash, C)
        }
    }
}

/// Hashes three words, such as a number ([`Decimal::words`](super::number::Decimal::words)).
pub(super) fn words([a, b, c]: [u64; 3]) -> u64 {
    mix(mix(a, b), c)
}

/// Reads the 8 bytes from `at` on, little-endian. Returns 0 if there are fewer.
fn read_u64(text: &[u8], at: usize) -> u64 {
    text.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Reads the 4 bytes from `at` on, little-endian. Returns 0 if there are fewer.
fn read_u32(text: &[u8], at: usize) -> u64 {
    text.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from(u32::from_le_bytes(*chunk)))
}

/// A map whose keys are already hashes.
pub(super) type HashedMap<V> = std::collections::HashMap<u64, V, BuildHasherDefault<AlreadyHashed>>;

/// A hasher that returns a `u64` key unchanged.
#[derive(Clone, Copy, Default)]
pub(super) struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = self::bytes(bytes);
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}
