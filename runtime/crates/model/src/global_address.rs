//! Decides which addresses are on the public internet.
//!
//! These addresses are not public:
//! - addresses that the IANA registries of special-purpose addresses (RFC 6890 and its successors) list as not globally
//!   reachable
//! - multicast and reserved addresses
//! - IPv6 addresses that contain an IPv4 address
//! - the metadata services of cloud providers

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why an address is not on the public internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotGlobal(&'static str);

impl fmt::Display for NotGlobal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// A network: its first address, the length of its prefix, and its description.
type V4 = ([u8; 4], u32, &'static str);
type V6 = ([u16; 8], u32, &'static str);

/// IPv4 ranges that are not on the public internet. The first range that contains an address gives the reason, so a
/// range stands before the larger ranges that contain it.
const V4_RANGES: &[V4] = &[
    ([169, 254, 169, 254], 32, "the metadata service of cloud machines"),
    ([100, 100, 100, 200], 32, "the metadata service of cloud machines"),
    ([168, 63, 129, 16], 32, "a service of the cloud's host"),
    ([0, 0, 0, 0], 32, "unspecified (this machine)"),
    ([0, 0, 0, 0], 8, "reserved for \"this network\""),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "shared by a provider's network (CGNAT)"),
    ([127, 0, 0, 0], 8, "this machine (loopback)"),
    ([169, 254, 0, 0], 16, "link-local"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "reserved for protocols"),
    ([192, 0, 2, 0], 24, "for documentation"),
    ([192, 88, 99, 0], 24, "a 6to4 relay"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "for benchmarks"),
    ([198, 51, 100, 0], 24, "for documentation"),
    ([203, 0, 113, 0], 24, "for documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([255, 255, 255, 255], 32, "broadcast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// IPv6 ranges that are not on the public internet. The first range that contains an address gives the reason, so a
/// range stands before the larger ranges that contain it.
const V6_RANGES: &[V6] = &[
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, "unspecified (this machine)"),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, "this machine (loopback)"),
    ([0, 0, 0, 0, 0, 0xffff, 0, 0], 96, "an IPv4 address in IPv6 form"),
    ([0, 0, 0, 0, 0xffff, 0, 0, 0], 96, "an IPv4 address in IPv6 form"),
    ([0, 0, 0, 0, 0, 0, 0, 0], 96, "an IPv4 address in IPv6 form"),
    ([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96, "translated to IPv4 (NAT64)"),
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, "translated to IPv4 (NAT64)"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 32, "a tunnel to IPv4 (Teredo)"),
    ([0x2001, 2, 0, 0, 0, 0, 0, 0], 48, "for benchmarks"),
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, "reserved for protocols"),
    ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32, "for documentation"),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, "for documentation"),
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, "a tunnel to IPv4 (6to4)"),
    ([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 128, "the metadata service of cloud machines"),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, "private (unique local)"),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, "link-local"),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, "private (site-local)"),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, "multicast"),
];

/// All global unicast addresses of IPv6 are in this range. Addresses outside the range are reserved.
const V6_GLOBAL: V6 = ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, "reserved");

/// Returns the reason why an address is not on the public internet; `None` for a public address.
pub fn not_global(address: IpAddr) -> Option<NotGlobal> {
    match address {
        IpAddr::V4(address) => {
            V4_RANGES.iter().find(|range| contains_v4(range, address)).map(|range| NotGlobal(range.2))
        }
        IpAddr::V6(address) => {
            let special = V6_RANGES.iter().find(|range| contains_v6(range, address));
            special.or((!contains_v6(&V6_GLOBAL, address)).then_some(&V6_GLOBAL)).map(|range| NotGlobal(range.2))
        }
    }
}

fn contains_v4((network, prefix, _): &V4, address: Ipv4Addr) -> bool {
    let shift = 32 - prefix;
    u32::from_be_bytes(*network) >> shift == address.to_bits() >> shift
}

fn contains_v6((network, prefix, _): &V6, address: Ipv6Addr) -> bool {
    let shift = 128 - prefix;
    Ipv6Addr::from(*network).to_bits() >> shift == address.to_bits() >> shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_range_is_refused_at_both_ends_and_its_neighbours_are_not() {
        for (address, reason) in [
            ("0.0.0.0", "unspecified"),
            ("0.255.255.255", "this network"),
            ("10.0.0.0", "private"),
            ("10.255.255.255", "private"),
            ("100.64.0.0", "CGNAT"),
            ("100.127.255.255", "CGNAT"),
            ("100.100.100.200", "metadata"),
            ("127.0.0.1", "loopback"),
            ("127.255.255.255", "loopback"),
            ("168.63.129.16", "cloud"),
            ("169.254.0.0", "link-local"),
            ("169.254.169.254", "metadata"),
            ("169.254.255.255", "link-local"),
            ("172.16.0.0", "private"),
            ("172.31.255.255", "private"),
            ("192.0.0.0", "reserved"),
            ("192.0.2.1", "documentation"),
            ("192.88.99.1", "6to4"),
            ("192.168.0.0", "private"),
            ("192.168.255.255", "private"),
            ("198.18.0.0", "benchmarks"),
            ("198.19.255.255", "benchmarks"),
            ("198.51.100.1", "documentation"),
            ("203.0.113.255", "documentation"),
            ("224.0.0.1", "multicast"),
            ("239.255.255.255", "multicast"),
            ("240.0.0.0", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::2", "IPv4"),
            ("::127.0.0.1", "IPv4"),
            ("::8.8.8.8", "IPv4"),
            ("::ffff:127.0.0.1", "IPv4"),
            ("::ffff:8.8.8.8", "IPv4"),
            ("::ffff:0:8.8.8.8", "IPv4"),
            ("64:ff9b::7f00:1", "NAT64"),
            ("64:ff9b::808:808", "NAT64"),
            ("64:ff9b:1::1", "NAT64"),
            ("100::1", "reserved"),
            ("2001::1", "Teredo"),
            ("2001:2::1", "benchmarks"),
            ("2001:1ff::1", "reserved"),
            ("2001:db8::1", "documentation"),
            ("3fff::1", "documentation"),
            ("2002:7f00:1::1", "6to4"),
            ("4000::1", "reserved"),
            ("5f00::1", "reserved"),
            ("fc00::1", "private"),
            ("fd00:ec2::254", "metadata"),
            ("fdff::1", "private"),
            ("fe80::1", "link-local"),
            ("febf::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
        ] {
            let found = not_global(address.parse().unwrap()).map(|reason| reason.to_string());
            assert!(found.as_deref().is_some_and(|found| found.contains(reason)), "{address}: {found:?}");
        }
        for address in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2003::1",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert_eq!(not_global(address.parse().unwrap()), None, "{address}");
        }
    }
}
