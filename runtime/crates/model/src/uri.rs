//! The grammar of URIs and URI references of RFC 3986.

use std::net::Ipv6Addr;

/// Returns true if `text` is a URI reference (section 4.1): a URI such as `urn:shop:1`, or a relative reference such as
/// `/shop/checkout`, which can also be empty.
#[must_use]
pub fn is_uri_reference(text: &str) -> bool {
    let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    if ![fragment, query].into_iter().all(|part| has_only(part, "/?:@")) {
        return false;
    }
    // A colon in the first segment must be the end of a scheme, because a relative reference cannot have a colon in its
    // first segment (section 4.2).
    let path = match path.split('/').next().and_then(|first| first.split_once(':')) {
        Some((scheme, _)) if !is_scheme(scheme) => return false,
        Some((scheme, _)) => path.get(scheme.len() + 1..).unwrap_or_default(),
        None => path,
    };
    let Some(rest) = path.strip_prefix("//") else { return has_only(path, "/:@") };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    is_authority(authority) && has_only(path, "/:@")
}

/// Returns true if `text` is a URI (section 3): a reference with a scheme.
#[must_use]
pub fn is_uri(text: &str) -> bool {
    text.split(['/', '?', '#']).next().is_some_and(|first| first.contains(':')) && is_uri_reference(text)
}

/// Returns true if a character can occur in a URI reference.
#[must_use]
pub fn is_uri_char(char: char) -> bool {
    is_unreserved(char) || is_delimiter(char) || "%:/?#[]@".contains(char)
}

fn is_unreserved(char: char) -> bool {
    char.is_ascii_alphanumeric() || "-._~".contains(char)
}

/// Returns true for a character of `sub-delims` (section 2.2).
fn is_delimiter(char: char) -> bool {
    "!$&'()*+,;=".contains(char)
}

/// Returns true if a text has only unreserved characters, delimiters, complete percent-encodings and the characters in
/// `more`.
fn has_only(text: &str, more: &str) -> bool {
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let is_valid = match char {
            '%' => (0..2).all(|_| chars.next().is_some_and(|digit| digit.is_ascii_hexdigit())),
            char => is_unreserved(char) || is_delimiter(char) || more.contains(char),
        };
        if !is_valid {
            return false;
        }
    }
    true
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "+-.".contains(char))
}

/// Returns true for `user@host:port` (section 3.2). The user and the port are optional, and the host can be empty.
fn is_authority(text: &str) -> bool {
    let (user, rest) = text.split_once('@').unwrap_or(("", text));
    let (is_host, port) = match rest.strip_prefix('[') {
        Some(literal) => match literal.split_once(']') {
            Some((address, after)) => (is_ip_literal(address), after),
            None => return false,
        },
        None => {
            let (name, port) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
            (has_only(name, ""), port)
        }
    };
    let is_port =
        port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    is_host && is_port && has_only(user, ":")
}

/// Returns true for the text between the square brackets of an IP literal (section 3.2.2).
fn is_ip_literal(address: &str) -> bool {
    let Some(future) = address.strip_prefix(['v', 'V']) else { return address.parse::<Ipv6Addr>().is_ok() };
    let is_version = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_address = |text: &str| {
        !text.is_empty() && text.chars().all(|char| is_unreserved(char) || is_delimiter(char) || char == ':')
    };
    future.split_once('.').is_some_and(|(version, address)| is_version(version) && is_address(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_references_with_a_scheme() {
        for text in [
            "https://github.com/cloudevents",
            "mailto:cncf-wg-serverless@lists.cncf.io",
            "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66",
            "HTTP://user:pass@partner.example:8080/a;b=1/../c?q=/?#f/?",
            "http://[::1]:8080/",
            "http://[::ffff:1.2.3.4]",
            "http://[v1.a:b]/",
            "http://",
            "file:///a",
            "x:",
            "a+b-c.1:%C3%A9",
            "https://partner.example:/",
        ] {
            assert!(is_uri(text) && is_uri_reference(text), "{text}");
            assert!(text.chars().all(is_uri_char), "{text}");
        }
        for text in [
            "/cloudevents/spec/pull/123",
            "1-555-123-4567",
            "#fragment",
            "?query",
            "",
            ".",
            "../a",
            "//authority/path",
            "a/b:c",
            "./b:c",
            "/a%20b",
            "aws.ec2",
            "/a?b:c",
        ] {
            assert!(is_uri_reference(text) && !is_uri(text), "{text}");
        }
    }

    #[test]
    fn other_characters_and_incomplete_parts_are_rejected() {
        for text in [
            " ",
            "/a b",
            "/a ",
            "/\u{e9}",
            "/a\\b",
            "/a\"b",
            "/<a>",
            "/a|b",
            "/a^b",
            "/a`b",
            "/{a}",
            "/a\n",
            "%",
            "/a%2",
            "/a%zz",
            "/a%%20",
            "/a?b c",
            "/a#b#c",
            "/a[1]",
            "/a?b[1]",
            ":",
            ":a",
            "1:a",
            "a_b:c",
            "\u{e9}:c",
            "http://[::1",
            "http://[::1]x",
            "http://[1.2.3.4]",
            "http://[fe80::1%25eth0]",
            "http://[v.a]",
            "http://[v1.]",
            "http://a:b",
            "http://a:80:80",
            "http://a@b@c",
            "http://a b/",
        ] {
            assert!(!is_uri_reference(text) && !is_uri(text), "{text}");
        }
    }
}
