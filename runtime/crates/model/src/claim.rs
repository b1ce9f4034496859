//! Recognises sources and types of events that seem to belong to an app or to the runtime, in every spelling.
//!
//! The source of an event is a URI reference (CloudEvents 1.0, section 3.1). Evoke compares sources byte by byte, but a
//! user or another system could read `/shop/%63harge`, `//shop/charge` or `http://localhost/SHOP/charge` as
//! `/shop/charge`. So a producer that is not allowed to use `/shop/charge` cannot use these spellings either.

use crate::hex_byte;

/// The first segment of the sources that belong to the runtime itself, and the first part of its event types.
pub const RUNTIME_NAME: &str = "evoke";

/// The names of the apps to which a `source` attribute could seem to belong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SourceNames {
    /// The first segment of the path, if the URI has no authority or its authority means this machine. `shop` for
    /// `//shop/charge`, which looks like a path.
    pub local: Option<String>,
    /// The authority and the first segment of the path, if the authority means another machine.
    pub remote: Option<(String, String)>,
}

/// Returns the names of the apps to which the attribute `source` could seem to belong. Percent-encoding is decoded
/// until none is left, upper case becomes lower case, and empty segments and dot segments are removed (RFC 3986,
/// section 6.2.2). The time is proportional to the length of `source`.
pub fn source_names(source: &str) -> SourceNames {
    let decoded = decode_all(source).to_ascii_lowercase().replace('\\', "/");
    let reference = decoded.split(['?', '#']).next().unwrap_or_default().trim();
    let rest = match reference.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => {
            // After a scheme that is not in this list, as in `urn:shop:1`, only text that begins with a slash can be a
            // path of this runtime.
            if !rest.starts_with('/') && !matches!(scheme, "http" | "https" | "ws" | "wss" | "file") {
                return SourceNames::default();
            }
            rest
        }
        _ => reference,
    };
    let Some(after) = rest.strip_prefix("//") else {
        return SourceNames { local: first_segment(rest), remote: None };
    };
    let (authority, path) = after.split_once('/').unwrap_or((after, ""));
    let segment = first_segment(path);
    if is_this_machine(authority) {
        return SourceNames { local: segment, remote: None };
    }
    // In `//shop/charge`, `shop` is an authority, but a careless reader takes the text for the path `/shop/charge`.
    let local = if rest.len() == reference.len() { first_segment(rest) } else { None };
    SourceNames { local, remote: segment.map(|segment| (authority.to_owned(), segment)) }
}

/// Returns true if a type belongs to the runtime: `evoke`, or `evoke.` and any text after it, in any case and
/// percent-encoding.
pub fn is_runtime_type(type_: &str) -> bool {
    let decoded = decode_all(type_).to_ascii_lowercase();
    decoded.trim().strip_prefix(RUNTIME_NAME).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Decodes percent-encoding until none is left: `%252F` becomes `/`.
fn decode_all(text: &str) -> String {
    let mut bytes: Vec<u8> = Vec::with_capacity(text.len());
    for byte in text.bytes() {
        bytes.push(byte);
        // A decoded byte and the bytes before it can form another escape.
        while let Some(&[b'%', high, low]) = bytes.last_chunk() {
            let Some(decoded) = hex_byte([high, low]) else { break };
            bytes.truncate(bytes.len() - 3);
            bytes.push(decoded);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Returns true if a text is a URI scheme (RFC 3986, section 3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|char: char| char.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// Returns true if an authority (RFC 3986, section 3.2) means this machine.
fn is_this_machine(authority: &str) -> bool {
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(address) => address.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    let host = host.trim_end_matches('.');
    let is_own = |address: std::net::IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    };
    if host.is_empty() || host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    match host.parse() {
        Ok(address) => is_own(address),
        // Browsers read `127.1` and `0x7f000001` as IPv4 addresses. The name of another machine does not end in a label
        // that starts with a digit, so a host that ends in such a label counts as this machine.
        Err(_) => host.rsplit('.').next().is_some_and(|label| label.starts_with(|char: char| char.is_ascii_digit())),
    }
}

/// Removes the dot segments of a path, and returns its first segment without parameters (`;…`).
fn first_segment(path: &str) -> Option<String> {
    let mut segments: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment.split(';').next().unwrap_or_default().trim() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    segments.first().map(|segment| (*segment).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_source_of_an_app_has_the_name_of_the_app() {
        for source in [
            "/shop",
            "/shop/",
            "/shop/charge",
            "/shop/charge/",
            "shop/charge",
            "./shop/charge",
            "../shop/charge",
            "/./shop/charge",
            "/x/../shop/charge",
            "/..//shop/charge",
            "//shop/charge",
            "///shop/charge",
            "/SHOP/charge",
            "/%73hop/charge",
            "/%2573hop/charge",
            "/%252573hop/charge",
            "%2Fshop%2Fcharge",
            "/x/%2e%2e/shop/charge",
            "/shop%2Fcharge",
            "/shop%5ccharge",
            "\\shop\\charge",
            "/shop?x",
            "/shop#x",
            "/shop/charge?x#y",
            "/shop%3Fx",
            "/shop;v=1/charge",
            " /shop/charge ",
            "/ shop/charge",
            "/%20shop%20/charge",
            "http:shop/charge",
            "http:/shop/charge",
            "http:///shop/charge",
            "http://localhost/shop/charge",
            "HTTP://LOCALHOST:8080/shop/charge",
            "https://user@localhost/shop/charge",
            "http://a.localhost./shop/charge",
            "http://127.0.0.1/shop/charge",
            "http://127.9.9.9:1/shop/charge",
            "http://[::1]:8080/shop/charge",
            "http://[::ffff:127.0.0.1]/shop/charge",
            "http://0.0.0.0/shop/charge",
            "http://127.1/shop/charge",
            "http://0x7f000001/shop/charge",
            "http://2130706433/shop/charge",
            "//localhost/shop/charge",
            "file:///shop/charge",
            "evoke:/shop/charge",
        ] {
            assert_eq!(source_names(source).local.as_deref(), Some("shop"), "{source}");
        }
    }

    #[test]
    fn a_source_of_another_machine_has_no_local_name() {
        for source in
            ["https://partner.example/shop/orders", "https://PARTNER.example/%73hop", "ws://partner.example/shop"]
        {
            let names = source_names(source);
            assert_eq!(names.local, None, "{source}");
            assert_eq!(names.remote, Some(("partner.example".into(), "shop".into())), "{source}");
        }
        for source in ["urn:shop:charge", "mailto:shop@partner.example", "", "/", "https://partner.example", "."] {
            assert_eq!(source_names(source), SourceNames::default(), "{source}");
        }
        let both = SourceNames { local: Some("a".into()), remote: Some(("a".into(), "shop".into())) };
        assert_eq!(source_names("//a/shop"), both);
    }

    #[test]
    fn a_long_source_of_escapes_is_decoded_in_linear_time() {
        let source = format!("/%{}73hop", "25".repeat(500_000));
        assert_eq!(source_names(&source).local.as_deref(), Some("shop"));
    }

    #[test]
    fn types_of_the_runtime_are_recognised_in_every_spelling() {
        for type_ in
            ["evoke.timer.tick", "evoke.", "evoke", "Evoke.Timer", "EVOKE.x", "%65voke.x", "evoke%2Ex", " evoke.x"]
        {
            assert!(is_runtime_type(type_), "{type_}");
        }
        for type_ in ["evoked.x", "io.evoke.x", "revoke", "order.evoke.", "evoke-demo.x", ""] {
            assert!(!is_runtime_type(type_), "{type_}");
        }
    }
}
