//! The index is keyed by 64-bit hashes alone. Whatever a hash leads to is verified against the event, so a collision,
//! also a provoked one, costs a comparison and changes no result. That is why speed is all that is asked of it.

use std::hash::{BuildHasherDefault, Hasher};

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd6e8_feb8_6659_fd93;
const C: u64 = 0xa076_1d64_78bd_642f;

/// The product of two words, folded to one: mixes every bit of both.
pub(super) fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a ^ A) * u128::from(b ^ B);
    (product as u64) ^ ((product >> 64) as u64)
}

/// The hash of a text.
pub(super) fn bytes(text: &[u8]) -> u64 {
    let mut hash = C ^ text.len() as u64;
    let mut rest = text;
    while rest.len() > 16 {
        let (head, tail) = rest.split_at(16);
        hash = mix(word(head, 0) ^ hash, word(head, 8));
        rest = tail;
    }
    match rest.len() {
        8.. => mix(word(rest, 0) ^ hash, word(rest, rest.len() - 8)),
        4..=7 => mix(half(rest, 0) ^ hash, half(rest, rest.len() - 4)),
        _ => {
            let few = rest.iter().fold(0u64, |few, byte| (few << 8) | u64::from(*byte));
            mix(few ^ hash, C)
        }
    }
}

/// The hash of three words.
pub(super) fn words([a, b, c]: [u64; 3]) -> u64 {
    mix(mix(a, b), c)
}

fn word(text: &[u8], at: usize) -> u64 {
    text.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

fn half(text: &[u8], at: usize) -> u64 {
    text.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |chunk| u64::from(u32::from_le_bytes(*chunk)))
}

/// A map whose keys are hashes already.
pub(super) type HashedMap<V> = std::collections::HashMap<u64, V, BuildHasherDefault<AlreadyHashed>>;

/// Takes a `u64` key as its own hash.
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
