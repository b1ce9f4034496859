//! What a function is granted: types that it may publish, origins that it may call, state that it may keep.

use super::diagnostics::{Wrong, shown};
use super::units::ByteSize;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use std::fmt;

/// Glob of event types: `*` stands for any run of characters, also none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct TypeGlob(String);

/// Where a function may send requests: scheme, host and port, as in `https://api.example.com:443`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOrigin {
    /// Whether the scheme is https; else it is http.
    pub https: bool,
    /// Host name in lower case, IPv4 address, or IPv6 address in brackets.
    pub host: String,
    /// Port; where none is written 443 for https and 80 for http.
    pub port: u16,
}

/// What a function may keep: values by key, in a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(deny_unknown_fields)]
pub struct State {
    /// Whether it also has the bucket that the functions of the app share.
    pub shared: bool,
    /// How many keys a bucket may have.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_keys: u32,
    /// Largest value, at most 4MiB.
    pub max_value: ByteSize,
    /// How much a bucket may hold, keys and values together.
    pub max_total: ByteSize,
}

impl TypeGlob {
    /// Takes any text that is not empty and has no white space.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        if text.is_empty() {
            return Err(Wrong::new(
                "an event type cannot be empty",
                "write a type such as `payment.done`, or `payment.*`",
            ));
        }
        if text.chars().any(|char| char.is_whitespace() || char.is_control()) {
            return Err(Wrong::new(
                format!("the event type `{}` has white space in it", shown(text)),
                "write each type as an entry of its own: `[payment.done, payment.failed]`",
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The glob as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it takes this type. Linear in the two lengths' product at worst, no recursion.
    pub fn matches(&self, type_: &str) -> bool {
        let (glob, text) = (self.0.as_bytes(), type_.as_bytes());
        let (mut at_glob, mut at_text) = (0, 0);
        let mut last_star: Option<(usize, usize)> = None; // after the star, and where its run ends so far
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
    /// Takes `scheme://host` or `scheme://host:port` and nothing behind it.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let example = "write scheme, host and port, as in `https://api.example.com:443`";
        let not_an_origin = || format!("`{}` is not an origin", shown(text));
        let Some((scheme, rest)) = text.split_once("://") else {
            let help = match Self::parse(&format!("https://{text}")) {
                Ok(_) => format!("write `https://{text}`"),
                Err(_) => example.to_owned(),
            };
            return Err(Wrong::new(format!("the origin `{}` has no scheme", shown(text)), help));
        };
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => {
                let message = format!("a function cannot send to `{}`", shown(text));
                return Err(Wrong::new(message, "only `http://` and `https://` can be granted"));
            }
        };
        if let Some(at) = rest.find(['/', '?', '#']) {
            let origin = rest.get(..at).unwrap_or("");
            let message = format!("`{}` has a path; only whole origins can be granted", shown(text));
            return Err(Wrong::new(message, format!("write `{scheme}://{origin}`")));
        }
        if rest.contains('*') {
            let message = format!("{}: a host cannot be a wildcard", not_an_origin());
            return Err(Wrong::new(message, "name each host that the function calls"));
        }
        let authority: http::uri::Authority = rest.parse().map_err(|_| Wrong::new(not_an_origin(), example))?;
        if rest.contains('@') {
            let message = format!("{}: credentials do not belong in it", not_an_origin());
            return Err(Wrong::new(message, "leave out what is before `@`; give it to the function with `secrets`"));
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
                return Err(Wrong::new(not_an_origin(), "write a port from 1 to 65535 behind the colon"));
            }
        };
        if host.is_empty() {
            return Err(Wrong::new(not_an_origin(), example));
        }
        Ok(Self { https, host, port })
    }
}

impl Default for State {
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
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_type_glob_takes_any_run_of_characters_for_a_star() {
        for (glob, takes, refuses) in [
            ("payment.*", &["payment.done", "payment."][..], &["payment", "xpayment.done"][..]),
            ("*", &["", "a", "a.b"], &[]),
            ("a*b*c", &["abc", "a1b2c", "abbcc"], &["ab", "acb", "abcd"]),
            ("*.done", &["x.done", ".done"], &["done", "x.done."]),
            ("exact", &["exact"], &["exac", "exactly"]),
            ("**", &["", "anything"], &[]),
        ] {
            let glob = TypeGlob::parse(glob).unwrap();
            takes.iter().for_each(|type_| assert!(glob.matches(type_), "{} {type_}", glob.as_str()));
            refuses.iter().for_each(|type_| assert!(!glob.matches(type_), "{} {type_}", glob.as_str()));
        }
        let many = TypeGlob::parse(&"a*".repeat(1000)).unwrap();
        assert!(!many.matches(&"b".repeat(100_000)), "and no glob takes long");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_and_nothing_else() {
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
