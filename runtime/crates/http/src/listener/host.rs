//! The value of `Host` (RFC 9112, section 3.2): a host and an optional port, as in a URI (RFC 3986, section 3.2.2).

use std::net::Ipv6Addr;

use http::Request;
use http::header::{HOST, HeaderValue};

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

/// Returns true if a request has several `Host` headers, if its `Host` header differs from the host in its target, or
/// if one of these two values is not a host. The target of an HTTP/2 request has a host in `:authority` (RFC 9113,
/// section 8.3.1). The target of an HTTP/1 request has a host only in the absolute form (RFC 9112, section 3.2.2).
/// `framing.rs` has already checked the `Host` headers of HTTP/1.
pub(super) fn is_ambiguous<B>(request: &Request<B>) -> bool {
    let mut hosts = request.headers().get_all(HOST).iter().map(HeaderValue::as_bytes);
    let (host, target) = (hosts.next(), request.uri().authority().map(|authority| authority.as_str().as_bytes()));
    let differs = host.zip(target).is_some_and(|(host, target)| !host.eq_ignore_ascii_case(target));
    differs || hosts.next().is_some() || host.or(target).is_some_and(|host| !is_host(host))
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
    fn the_host_of_the_target_is_a_host_and_equal_to_the_header() {
        let is_ambiguous = |target: &str, host: Option<&str>| {
            let mut request = Request::get(target).body(()).unwrap();
            request.headers_mut().extend(host.map(|host| (HOST, host.parse().unwrap())));
            is_ambiguous(&request)
        };
        for (target, host) in [
            ("/", None),
            ("/", Some("a")),
            ("http://a/", None),
            ("http://a:80/", Some("A:80")),
            ("//b/", Some("a")),
            ("/?http://b/", Some("a")),
        ] {
            assert!(!is_ambiguous(target, host), "{target} {host:?}");
        }
        for (target, host) in [
            ("http://b/", Some("a")),
            ("http://a:80/", Some("a")),
            ("http://user@a/", Some("a")),
            ("http://user@a/", None),
            ("http://user@a/", Some("user@a")),
            ("http://a!b/", None),
            ("/", Some("a!b")),
        ] {
            assert!(is_ambiguous(target, host), "{target} {host:?}");
        }
    }

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
