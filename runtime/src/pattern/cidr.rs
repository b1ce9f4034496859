//! Blocks of IP addresses (RFC 4632; RFC 4291 section 2.3).

use std::net::IpAddr;

/// An address as bits, left-aligned. IPv4 and IPv6 stay apart: `::ffff:10.0.0.1` is not in `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) v6: bool,
    bits: u128,
}

/// An address block such as `10.0.0.0/24` or `2001:db8::/32`. Bits behind the prefix are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    start: Address,
    pub(super) length: u8,
}

impl Address {
    /// Reads an address in its usual text form; `None` for any other text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // The longest is an IPv6 address with an IPv4 tail: 45 characters.
        if text.len() > 45 || !text.starts_with(|char: char| char.is_ascii_hexdigit() || char == ':') {
            return None;
        }
        Some(match text.parse::<IpAddr>().ok()? {
            IpAddr::V4(address) => Self { v6: false, bits: u128::from(address.to_bits()) << 96 },
            IpAddr::V6(address) => Self { v6: true, bits: address.to_bits() },
        })
    }

    /// The first `length` bits, for hashing.
    pub(super) fn block(self, length: u8) -> [u64; 3] {
        let bits = self.bits & mask(length);
        [(bits >> 64) as u64, bits as u64, u64::from(length) << 1 | u64::from(self.v6)]
    }
}

impl Cidr {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address = Address::parse(address)?;
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length: u8 = length.parse().ok()?;
        let longest = if address.v6 { 128 } else { 32 };
        (length <= longest).then_some(Self { start: address, length })
    }

    pub(super) fn contains(&self, address: Address) -> bool {
        self.start.v6 == address.v6 && (self.start.bits ^ address.bits) & mask(self.length) == 0
    }

    pub(super) fn v6(&self) -> bool {
        self.start.v6
    }

    /// As [`Address::block`] of every address in it.
    pub(super) fn block(&self) -> [u64; 3] {
        self.start.block(self.length)
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}
