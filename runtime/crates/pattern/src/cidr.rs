//! CIDR blocks of IP addresses (RFC 4632; RFC 4291 section 2.3).

use std::net::IpAddr;

/// An IP address as left-aligned bits. An IPv4 address and an IPv6 address are never equal. For example, the IPv6
/// address `::ffff:10.0.0.1` is not in the IPv4 block `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    pub(super) is_v6: bool,
    bits: u128,
}

/// An address block such as `10.0.0.0/24` or `2001:db8::/32`. Address bits after the prefix are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cidr {
    address: Address,
    /// The number of prefix bits: at most 32 for IPv4, 128 for IPv6.
    pub(super) length: u8,
}

impl Address {
    /// Parses an address in its standard text form; returns `None` for any other text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // The longest form is an IPv6 address that ends with an IPv4 address: 45 characters.
        if text.len() > 45 || !text.starts_with(|char: char| char.is_ascii_hexdigit() || char == ':') {
            return None;
        }
        Some(match text.parse::<IpAddr>().ok()? {
            IpAddr::V4(address) => Self { is_v6: false, bits: u128::from(address.to_bits()) << 96 },
            IpAddr::V6(address) => Self { is_v6: true, bits: address.to_bits() },
        })
    }

    /// The input of the hash function for a prefix: the first `length` bits, the length and the IP version.
    pub(super) fn prefix_words(self, length: u8) -> [u64; 3] {
        let bits = self.bits & mask(length);
        [(bits >> 64) as u64, bits as u64, u64::from(length) << 1 | u64::from(self.is_v6)]
    }
}

impl Cidr {
    /// Parses `ADDRESS/LENGTH`; returns `None` for any other text.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let address = Address::parse(address)?;
        if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let length: u8 = length.parse().ok()?;
        let longest = if address.is_v6 { 128 } else { 32 };
        (length <= longest).then_some(Self { address, length })
    }

    pub(super) fn contains(&self, address: Address) -> bool {
        self.address.is_v6 == address.is_v6 && (self.address.bits ^ address.bits) & mask(self.length) == 0
    }

    /// The first and the last address in the block.
    pub(super) fn bounds(&self) -> (Address, Address) {
        let Address { is_v6, bits } = self.address;
        let (mask, all) = (mask(self.length), mask(if is_v6 { 128 } else { 32 }));
        (Address { is_v6, bits: bits & mask }, Address { is_v6, bits: (bits & mask) | (all & !mask) })
    }

    pub(super) fn is_v6(&self) -> bool {
        self.address.is_v6
    }

    /// The words that [`Address::prefix_words`] returns for every address in the block.
    pub(super) fn prefix_words(&self) -> [u64; 3] {
        self.address.prefix_words(self.length)
    }
}

fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}
