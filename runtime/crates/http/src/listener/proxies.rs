//! Trusted proxies name the client in headers of a request. The listener uses these headers in the requests of trusted
//! proxies, and removes them from the requests of all other peers.

mod forwarded;
mod protocol;

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

pub(super) use forwarded::Client;
pub(super) use protocol::{HEADER_MAX, Parsed, parse};

/// The proxies in front of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// The addresses of the proxies.
    pub networks: Vec<Network>,
    /// True if each connection of a proxy begins with a header of the PROXY protocol, version 1 or 2.
    pub protocol: bool,
}

impl Proxies {
    /// Returns true if the address is that of a proxy.
    pub fn is_trusted(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// Returns true if connections from this address must begin with a header of the PROXY protocol.
    pub(super) fn has_header(&self, address: IpAddr) -> bool {
        self.protocol && self.is_trusted(address)
    }
}

/// A block of IP addresses, such as `10.0.0.0/8`, `2001:db8::/32` or `192.0.2.7`. An IPv4 address in the form of IPv6,
/// such as `::ffff:192.0.2.7`, counts as the IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && network(address, self.prefix) == self.address
    }
}

/// Returns the address with all bits after the prefix set to zero.
fn network(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0)).into()),
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("`{text}` is not an IP address block; write one such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address = address.parse::<IpAddr>().map_err(|_| expected())?;
        if address != address.to_canonical() {
            return Err(format!("`{text}` is an IPv4 address in the form of IPv6; write {}", address.to_canonical()));
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => {
                prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(expected)?
            }
            Some(_) => return Err(expected()),
            None => longest,
        };
        let whole = network(address, prefix);
        if whole != address {
            return Err(format!(
                "`{text}` has nonzero bits after its first {prefix} bits; write {whole}/{prefix}, or {address} for one \
                 address"
            ));
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_contains_its_own_addresses_only() {
        let contains =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("192.0.2.6/31", "192.0.2.7", "192.0.2.8"),
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::1"),
            ("::1", "::1", "::2"),
        ] {
            assert!(contains(network, inside), "{network} {inside}");
            assert!(!contains(network, outside), "{network} {outside}");
        }
    }

    #[test]
    fn a_wrong_block_is_refused_with_what_would_be_right() {
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0/8",
            "proxy.example",
            "::/129",
            "10.0.0.0/256",
            "10.0.0.1 ",
        ] {
            assert!(wrong.parse::<Network>().unwrap_err().contains("write one such as"), "{wrong}");
        }
        assert!("10.1.2.3/8".parse::<Network>().unwrap_err().contains("write 10.0.0.0/8, or 10.1.2.3"));
        assert!("::ffff:10.0.0.1".parse::<Network>().unwrap_err().contains("write 10.0.0.1"));
        assert_eq!("2001:db8::/32".parse::<Network>().unwrap().to_string(), "2001:db8::/32");
    }
}
