//! Grants of a function: the event types it may publish, the origins it may call, and the limits of its state.

use super::diagnostics::{ValueError, excerpt};
use super::units::ByteSize;
use evoke_model::claim::is_runtime_type;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::fmt;

/// Glob of event types: `*` matches any number of characters, also none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TypeGlob(String);

/// An origin that a function may send requests to: scheme, host and port, as in `https://api.example.com:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOrigin {
    /// True for the scheme https, false for http.
    pub https: bool,
    /// Host name in lower case, IPv4 address, or IPv6 address in brackets.
    pub host: String,
    /// Port. Default: 443 for https, 80 for http.
    pub port: u16,
}

/// Limits of a function's state: values stored by key, in a bucket of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(rename = "State", deny_unknown_fields)]
pub struct StateLimits {
    /// Whether the function can also use the bucket that all functions of the app share.
    pub shared: bool,
    /// Largest number of keys in a bucket.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_keys: u32,
    /// Largest value, at most 4MiB.
    pub max_value: ByteSize,
    /// Largest total size of a bucket: keys and values together.
    pub max_total: ByteSize,
}

impl TypeGlob {
    /// Parses a glob.
    ///
    /// # Errors
    /// The text is empty, contains white space or control characters, or matches only types of the runtime (`evoke.*`).
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text.is_empty() {
            return Err(ValueError::new(
                "the event type is empty",
                "write a type such as `payment.done`, or `payment.*`",
            ));
        }
        if text.chars().any(|char| char.is_whitespace() || char.is_control()) {
            return Err(ValueError::new(
                format!("the event type `{}` contains white space", excerpt(text)),
                "write each type as a separate entry: `[payment.done, payment.failed]`",
            ));
        }
        let literal = text.split('*').next().unwrap_or_default();
        if is_runtime_type(literal) && (literal.contains('.') || literal == text) {
            return Err(ValueError::new(
                format!("the event type `{}` belongs to the runtime", excerpt(text)),
                "write a type that does not begin with `evoke.`, such as `payment.done`",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the message and the help text of the warning about a glob that seems to mean something else.
    pub(crate) fn advice(&self) -> Option<(String, String)> {
        let text = self.0.as_str();
        if let Some(part) = text.split('.').find(|part| matches!(*part, "#" | ">" | "+" | "?" | "%")) {
            let message = format!("`{part}` in the event type `{}` only matches the character `{part}`", excerpt(text));
            let corrected: Vec<_> = text.split('.').map(|other| if other == part { "*" } else { other }).collect();
            return Some((message, format!("`*` matches any characters: write `{}`", excerpt(&corrected.join(".")))));
        }
        if text.contains([',', ';', '|']) {
            let message = format!("`{}` is one event type, not several", excerpt(text));
            return Some((message, "write each type as a separate entry: `[payment.done, payment.failed]`".to_owned()));
        }
        if text.split('.').any(str::is_empty) {
            let message = format!("the event type `{}` has an empty part between its dots", excerpt(text));
            let corrected: Vec<_> = text.split('.').filter(|part| !part.is_empty()).collect();
            return Some((
                message,
                format!("write `{0}`, or `{0}.*` for all types below", excerpt(&corrected.join("."))),
            ));
        }
        None
    }

    /// Returns the glob as written in the manifest.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if the glob matches `type_`. The time is at most proportional to the product of the two lengths.
    /// Uses no recursion.
    pub fn matches(&self, type_: &str) -> bool {
        let (glob, text) = (self.0.as_bytes(), type_.as_bytes());
        let (mut at_glob, mut at_text) = (0, 0);
        // The glob offset after the last star, and the end of the text that this star matches so far.
        let mut last_star: Option<(usize, usize)> = None;
        while at_text < text.len() {
            match glob.get(at_glob) {
                Some(b'*') => {
                    at_glob += 1;
                    last_star = Some((at_glob, at_text));
                }
                Some(byte) if Some(byte) == text.get(at_text) => {
                    at_glob += 1;
                    at_text += 1;
                }
                _ => {
                    let Some((after_star, run_end)) = last_star else {
                        return false;
                    };
                    at_glob = after_star;
                    at_text = run_end + 1;
                    last_star = Some((after_star, at_text));
                }
            }
        }
        glob.get(at_glob..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
    }
}

impl HttpOrigin {
    /// Parses `scheme://host` or `scheme://host:port`.
    ///
    /// # Errors
    /// Another scheme than http and https, a path, credentials, a wildcard, or an invalid host or port.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let example = "write scheme, host and port, as in `https://api.example.com:443`";
        let not_an_origin = || format!("`{}` is not a valid origin", excerpt(text));
        let Some((scheme, rest)) = text.split_once("://") else {
            let help = match Self::parse(&format!("https://{text}")) {
                Ok(_) => format!("write `https://{text}`"),
                Err(_) => example.to_owned(),
            };
            return Err(ValueError::new(format!("the origin `{}` has no scheme", excerpt(text)), help));
        };
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => {
                let message = format!("a function cannot send requests to `{}`", excerpt(text));
                return Err(ValueError::new(message, "only `http://` and `https://` origins can be granted"));
            }
        };
        if let Some(at) = rest.find(['/', '?', '#']) {
            let origin = rest.get(..at).unwrap_or("");
            let message = format!("`{}` has a path, but only a whole origin can be granted", excerpt(text));
            return Err(ValueError::new(message, format!("write `{scheme}://{origin}`")));
        }
        if rest.contains('*') {
            let message = format!("{}: wildcards are not supported", not_an_origin());
            return Err(ValueError::new(message, "list each host that the function calls"));
        }
        let authority: http::uri::Authority = rest.parse().map_err(|_| ValueError::new(not_an_origin(), example))?;
        if rest.contains('@') {
            let message = format!("{}: credentials are not allowed in it", not_an_origin());
            return Err(ValueError::new(
                message,
                "remove the part before `@`; give credentials to the function with `secrets`",
            ));
        }
        let host = authority.host().to_ascii_lowercase();
        let port = match (rest.get(authority.host().len()..).unwrap_or(""), authority.port_u16()) {
            ("", _) => {
                if https {
                    443
                } else {
                    80
                }
            }
            (_, Some(port)) if port != 0 => port,
            _ => {
                return Err(ValueError::new(not_an_origin(), "write a port from 1 to 65535 after the colon"));
            }
        };
        if host.is_empty() {
            return Err(ValueError::new(not_an_origin(), example));
        }
        Ok(Self { https, host, port })
    }
}

impl Default for StateLimits {
    fn default() -> Self {
        Self { shared: false, max_keys: 100_000, max_value: ByteSize(1 << 20), max_total: ByteSize(64 << 20) }
    }
}

impl fmt::Display for HttpOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.https { "https" } else { "http" }, self.host, self.port)
    }
}

impl Serialize for HttpOrigin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_type_glob_matches_any_number_of_characters() {
        for (glob, matching, other) in [
            ("payment.*", &["payment.done", "payment."][..], &["payment", "xpayment.done"][..]),
            ("*", &["", "a", "a.b"], &[]),
            ("a*b*c", &["abc", "a1b2c", "abbcc"], &["ab", "acb", "abcd"]),
            ("*.done", &["x.done", ".done"], &["done", "x.done."]),
            ("exact", &["exact"], &["exac", "exactly"]),
            ("**", &["", "anything"], &[]),
        ] {
            let glob = TypeGlob::parse(glob).unwrap();
            matching.iter().for_each(|type_| assert!(glob.matches(type_), "{} {type_}", glob.as_str()));
            other.iter().for_each(|type_| assert!(!glob.matches(type_), "{} {type_}", glob.as_str()));
        }
        let long = TypeGlob::parse(&"a*".repeat(1000)).unwrap();
        assert!(!long.matches(&"b".repeat(100_000)), "matching a long glob must stay fast");
    }

    #[test]
    fn an_origin_is_only_scheme_host_and_port() {
        for (text, canonical) in [
            ("https://api.example.com:443", "https://api.example.com:443"),
            ("https://API.example.com", "https://api.example.com:443"),
            ("http://localhost", "http://localhost:80"),
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("https://[::1]:8443", "https://[::1]:8443"),
        ] {
            assert_eq!(HttpOrigin::parse(text).unwrap().to_string(), canonical);
        }
        for text in [
            "",
            "example.com",
            "https://",
            "https://a/b",
            "https://a?b",
            "https://a#b",
            "https://u@a",
            "https://a:0",
            "https://a:",
            "https://a:x",
            "https://a:65536",
            "https://*.a",
            "ws://a",
            "https://a b",
            "https://:443",
            "https://[::1",
        ] {
            assert!(HttpOrigin::parse(text).is_err(), "{text}");
        }
    }
}
