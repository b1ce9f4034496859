//! The value of `Host` (RFC 9112, section 3.2): a host and an optional port, as in a URI (RFC 3986, section 3.2.2).

use std::net::Ipv6Addr;

use http::Request;
use http::header::HOST;

/// Returns true if `value` is a host, with or without a port. RFC 3986 also allows the characters ``!$&'()*+,;=`` in a
/// registered name; they are refused, because real host names do not contain them, and attackers use them to confuse
/// servers. An empty host is refused, because RFC 9110 (section 4.2.1) forbids it.
pub(super) fn is_host(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else { return false };
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return address.parse::<Ipv6Addr>().is_ok() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    !name.is_empty() && is_name(name.as_bytes()) && is_port(port)
}

/// Returns true if an HTTP/2 request has several headers `Host`, or one that differs from `:authority` (RFC 9113,
/// section 8.3.1). For HTTP/1, `framing.rs` checks this.
pub(super) fn is_ambiguous<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), request.uri().authority()) {
        (None, _) => false,
        (Some(host), Some(authority)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => true,
        (Some(host), _) => hosts.next().is_some() || !is_host(host.as_bytes()),
    }
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && (text.is_empty() || text.parse::<u16>().is_ok())
}

fn is_name(mut name: &[u8]) -> bool {
    while let Some((&byte, rest)) = name.split_first() {
        name = match byte {
            b'%' => match rest.split_at_checked(2) {
                Some((hex, rest)) if hex.iter().all(u8::is_ascii_hexdigit) => rest,
                _ => return false,
            },
            _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => rest,
            _ => return false,
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses_with_an_optional_port() {
        for host in
            ["a", "a.example.", "A-b_c.example:80", "127.0.0.1:8080", "[::1]", "[::1]:65535", "x%20y", "a:", "~x"]
        {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":80",
            "a b",
            "a/b",
            "a\\b",
            "u@a",
            "a,b",
            "a?b",
            "a#b",
            "a:b",
            "a:80:80",
            "a:65536",
            "a:-1",
            "a:+1",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "::1",
            "a%2",
            "a%zz",
            "é",
            "<a>",
            "a\"",
            "*",
            "a\u{7f}",
            "a\tb",
        ] {
            assert!(!is_host(host.as_bytes()), "{host:?}");
        }
        assert!(!is_host(b"\xff"));
    }
}
