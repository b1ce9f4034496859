//! The PROXY protocol, versions 1 and 2. A proxy sends a header at the start of a connection to name the client.
//! HAProxy's `doc/proxy-protocol.txt` specifies the header.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The longest header in bytes. The addresses take at most 216 bytes; the rest is for the optional values of version 2.
pub(in crate::listener) const HEADER_MAX: usize = 4096;

/// The longest header of version 1, with its line end.
const V1_MAX: usize = 107;
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The length of the fixed part in bytes: the signature (12), version and command (1), address family and transport
/// (1), and the length of the rest (2).
const V2_HEAD: usize = 16;

/// The result of parsing the first bytes of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::listener) enum Parsed {
    /// The bytes are the beginning of a header, and its rest is missing.
    Incomplete,
    /// The header ends after `length` bytes.
    Complete {
        /// The client's address; `None` if the connection is one of the proxy itself, such as a health check, or if the
        /// proxy does not know the client.
        client: Option<SocketAddr>,
        length: usize,
    },
    /// The bytes are not a valid header, for this reason.
    Invalid(&'static str),
}

/// Parses the header at the start of `bytes`.
pub(in crate::listener) fn parse(bytes: &[u8]) -> Parsed {
    let is_start_of = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, wanted)| byte == wanted);
    if is_start_of(V2_SIGNATURE) {
        return if bytes.len() < V2_HEAD { Parsed::Incomplete } else { version_2(bytes) };
    }
    if !is_start_of(b"PROXY ") {
        return Parsed::Invalid(
            "it does not begin with a PROXY header; make the proxy send one, or start Evoke without `--proxy-protocol`",
        );
    }
    let line = bytes.get(..bytes.len().min(V1_MAX)).unwrap_or_default();
    match line.windows(2).position(|end| end == b"\r\n") {
        Some(end) => version_1(line.get(..end).unwrap_or_default(), end + 2),
        None if bytes.len() >= V1_MAX => Parsed::Invalid("its PROXY header of version 1 has no line end in 107 bytes"),
        None => Parsed::Incomplete,
    }
}

fn version_1(line: &[u8], length: usize) -> Parsed {
    let invalid = Parsed::Invalid("its PROXY header of version 1 has no valid TCP4 or TCP6 addresses and ports");
    let Ok(line) = std::str::from_utf8(line) else { return invalid };
    let fields: Vec<&str> = line.split(' ').collect();
    let port = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if is_number { text.parse::<u16>().ok() } else { None }
    };
    match *fields.as_slice() {
        // The rest of a line with `UNKNOWN` is ignored.
        ["PROXY", "UNKNOWN", ..] => Parsed::Complete { client: None, length },
        ["PROXY", family, source, destination, source_port, destination_port] => {
            let addresses = match family {
                "TCP4" => {
                    source.parse::<Ipv4Addr>().ok().zip(destination.parse::<Ipv4Addr>().ok()).map(|(a, _)| a.into())
                }
                "TCP6" => {
                    source.parse::<Ipv6Addr>().ok().zip(destination.parse::<Ipv6Addr>().ok()).map(|(a, _)| a.into())
                }
                _ => None,
            };
            match (addresses, port(source_port), port(destination_port)) {
                (Some(ip), Some(port), Some(_)) => Parsed::Complete { client: Some(SocketAddr::new(ip, port)), length },
                _ => invalid,
            }
        }
        _ => invalid,
    }
}

/// Parses a header of version 2. `bytes` has at least [`V2_HEAD`] bytes.
fn version_2(bytes: &[u8]) -> Parsed {
    let Some((&[command, family, high, low], rest)) =
        bytes.get(V2_SIGNATURE.len()..).and_then(|b| b.split_first_chunk())
    else {
        return Parsed::Incomplete;
    };
    let size = usize::from(u16::from_be_bytes([high, low]));
    let length = V2_HEAD + size;
    if length > HEADER_MAX {
        return Parsed::Invalid("its PROXY header of version 2 is longer than 4096 bytes");
    }
    if !matches!(command, 0x20 | 0x21) {
        return Parsed::Invalid("its PROXY header of version 2 has an unknown command");
    }
    let Some(addresses) = rest.get(..size) else { return Parsed::Incomplete };
    if command == 0x20 {
        return Parsed::Complete { client: None, length };
    }
    let client = match family {
        // 0x11 is TCP over IPv4, and 0x21 is TCP over IPv6. Both have the source address, the destination address, and
        // the two ports.
        0x11 => addresses.first_chunk::<12>().map(|&[a, b, c, d, _, _, _, _, high, low, _, _]| {
            SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([high, low]))
        }),
        0x21 => addresses.first_chunk::<36>().and_then(|all| {
            let ip = Ipv6Addr::from(*all.first_chunk::<16>()?);
            Some(SocketAddr::new(ip.into(), u16::from_be_bytes([*all.get(32)?, *all.get(33)?])))
        }),
        // The address family is unspecified.
        0x00 => return Parsed::Complete { client: None, length },
        _ => return Parsed::Invalid("its PROXY header of version 2 is not for TCP over IPv4 or IPv6"),
    };
    match client {
        Some(client) => Parsed::Complete { client: Some(client), length },
        None => Parsed::Invalid("its PROXY header of version 2 has incomplete addresses"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(client: &str, length: usize) -> Parsed {
        Parsed::Complete { client: client.parse().ok(), length }
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn v2_ipv4() -> Vec<u8> {
        v2(0x21, 0x11, &[192, 0, 2, 7, 192, 0, 2, 8, 0x1f, 0x90, 0, 80])
    }

    #[test]
    fn both_versions_name_the_client() {
        let line = b"PROXY TCP4 192.0.2.7 192.0.2.8 8080 80\r\nGET";
        assert_eq!(parse(line), complete("192.0.2.7:8080", line.len() - 3));
        let line = b"PROXY TCP6 2001:db8::7 ::1 65535 0\r\n";
        assert_eq!(parse(line), complete("[2001:db8::7]:65535", line.len()));
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), complete("", 15));
        assert_eq!(parse(b"PROXY UNKNOWN ffff::1 x 1 2\r\n"), complete("", 29));

        assert_eq!(parse(&[&v2_ipv4()[..], b"GET"].concat()), complete("192.0.2.7:8080", 28));
        let mut addresses = [0; 36];
        addresses[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        addresses[32..34].copy_from_slice(&443_u16.to_be_bytes());
        // Optional values follow the addresses.
        let header = v2(0x21, 0x21, &[&addresses[..], &[0x04, 0, 1, 0]].concat());
        assert_eq!(parse(&header), complete("[2001:db8::7]:443", 56));
        assert_eq!(parse(&v2(0x20, 0x11, &[0; 12])), complete("", 28));
        assert_eq!(parse(&v2(0x20, 0, &[])), complete("", 16));
        assert_eq!(parse(&v2(0x21, 0, &[1, 2, 3])), complete("", 19));
    }

    #[test]
    fn every_part_of_a_header_is_incomplete() {
        for header in [&b"PROXY TCP4 192.0.2.7 192.0.2.8 8080 80\r\n"[..], &v2_ipv4()] {
            for end in 0..header.len() {
                assert_eq!(parse(&header[..end]), Parsed::Incomplete, "{end} of {header:?}");
            }
        }
    }

    #[test]
    fn anything_else_is_invalid() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"proxy TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
            b"PROXYTCP4",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 1\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2 \r\n",
            b"PROXY TCP4  192.0.2.7 192.0.2.8 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 65536 2\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 +1 2\r\n",
            b"PROXY TCP4 192.0.2.7 192.0.2.8 1 x\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n",
            b"PROXY TCP4 192.0.2.07 192.0.2.8 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 a.example 1 2\r\n",
            b"PROXY UDP4 192.0.2.7 192.0.2.8 1 2\r\n",
            b"PROXY \r\n",
            b"PROXY TCP4 \xff\r\n",
            &endless,
            b"\r\n\r\n\0\r\nQUIX",
            &v2(0x11, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x12, &[0; 12]),
            &v2(0x21, 0x31, &[0; 216]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x21, &[0; 35]),
            &v2(0x21, 0x11, &[0; HEADER_MAX]),
        ] {
            assert!(matches!(parse(bytes), Parsed::Invalid(_)), "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
