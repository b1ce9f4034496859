//! Small texts of a manifest with a form of their own: names, globs of types, origins, keys of order.

use super::diagnostics::{Wrong, shown};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Name of an app, a source or a function: `[a-z][a-z0-9-]{0,62}`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

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

/// Where a function's component is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComponentRef {
    /// The file, resolved against the manifest's folder.
    pub path: PathBuf,
    /// What its SHA-256 must be.
    pub sha256: Option<[u8; 32]>,
}

/// What decides which events are handled one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// A context attribute of the event, such as `subject` or an extension.
    Attribute(String),
    /// A field inside the event's JSON data, from the outside in.
    Data(Vec<String>),
}

const NAME_LENGTH_MAX: usize = 63;

impl Name {
    /// Takes a name that is well formed.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let starts = text
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_lowercase());
        let goes_on = text
            .bytes()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if starts && goes_on && text.len() <= NAME_LENGTH_MAX {
            return Ok(Self(text.into()));
        }
        let rule = "a name has lower-case letters, digits and hyphens, starts with a letter and is at most 63 long";
        let help = match name_like(text) {
            Some(name) => format!("write `{name}`: {rule}"),
            None => rule.to_owned(),
        };
        Err(Wrong::new(format!("`{}` is not a name", shown(text)), help))
    }

    /// Takes what is known to be well formed.
    pub(super) fn trusted(text: &str) -> Self {
        Self(text.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The nearest well-formed name.
fn name_like(text: &str) -> Option<String> {
    let mut name = String::new();
    for char in text.chars() {
        let char = char.to_ascii_lowercase();
        if char.is_ascii_lowercase() || (char.is_ascii_digit() && !name.is_empty()) {
            name.push(char);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let cut = name
        .get(..NAME_LENGTH_MAX)
        .unwrap_or(&name)
        .trim_end_matches('-');
    (!cut.is_empty()).then(|| cut.to_owned())
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
        if text
            .chars()
            .any(|char| char.is_whitespace() || char.is_control())
        {
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
        glob.get(at_glob..)
            .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
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
            return Err(Wrong::new(
                format!("the origin `{}` has no scheme", shown(text)),
                help,
            ));
        };
        let https = match scheme {
            "https" => true,
            "http" => false,
            _ => {
                let message = format!("a function cannot send to `{}`", shown(text));
                return Err(Wrong::new(
                    message,
                    "only `http://` and `https://` can be granted",
                ));
            }
        };
        if let Some(at) = rest.find(['/', '?', '#']) {
            let origin = rest.get(..at).unwrap_or("");
            let message = format!(
                "`{}` has a path; only whole origins can be granted",
                shown(text)
            );
            return Err(Wrong::new(message, format!("write `{scheme}://{origin}`")));
        }
        if rest.contains('*') {
            let message = format!("{}: a host cannot be a wildcard", not_an_origin());
            return Err(Wrong::new(
                message,
                "name each host that the function calls",
            ));
        }
        let authority: http::uri::Authority = rest
            .parse()
            .map_err(|_| Wrong::new(not_an_origin(), example))?;
        if rest.contains('@') {
            let message = format!("{}: credentials do not belong in it", not_an_origin());
            return Err(Wrong::new(
                message,
                "leave out what is before `@`; give it to the function with `secrets`",
            ));
        }
        let host = authority.host().to_ascii_lowercase();
        let port = match (
            rest.get(authority.host().len()..).unwrap_or(""),
            authority.port_u16(),
        ) {
            ("", _) => {
                if https {
                    443
                } else {
                    80
                }
            }
            (_, Some(port)) if port != 0 => port,
            _ => {
                return Err(Wrong::new(
                    not_an_origin(),
                    "write a port from 1 to 65535 behind the colon",
                ));
            }
        };
        if host.is_empty() {
            return Err(Wrong::new(not_an_origin(), example));
        }
        Ok(Self { https, host, port })
    }
}

impl ComponentRef {
    /// Takes the path of a `.wasm` or `.wat` file, optionally with `@sha256:` and 64 hexadecimal digits.
    /// The path is as written, not yet resolved.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        if let Some((scheme, _)) = text.split_once("://") {
            let message = format!("`{scheme}://` components are not available in this version");
            return Err(Wrong::new(
                message,
                "write the path of a `.wasm` or `.wat` file",
            ));
        }
        let (path, sha256) = match text.split_once('@') {
            None => (text, None),
            Some((path, digest)) => (path, Some(parse_digest(digest)?)),
        };
        let lower = path.to_ascii_lowercase();
        if !lower.ends_with(".wasm") && !lower.ends_with(".wat") {
            let message = format!(
                "`{}` is not a component: it is neither `.wasm` nor `.wat`",
                shown(path)
            );
            return Err(Wrong::new(
                message,
                "write the path of the built `.wasm` file; how it is built goes into `build`",
            ));
        }
        Ok(Self {
            path: path.into(),
            sha256,
        })
    }
}

fn parse_digest(text: &str) -> Result<[u8; 32], Wrong> {
    let wrong = |message: String| {
        Wrong::new(
            message,
            "write `@sha256:` and the 64 digits that `sha256sum FILE` prints",
        )
    };
    let Some(digits) = text.strip_prefix("sha256:") else {
        return Err(wrong(format!(
            "`@{}` is not a digest this version knows",
            shown(text)
        )));
    };
    if digits.len() != 64 {
        return Err(wrong(format!(
            "a SHA-256 has 64 hexadecimal digits, this has {}",
            digits.chars().count()
        )));
    }
    let mut digest = [0; 32];
    for (byte, pair) in digest.iter_mut().zip(digits.as_bytes().chunks(2)) {
        let pair = std::str::from_utf8(pair)
            .ok()
            .filter(|pair| pair.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let value = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        *byte = value.ok_or_else(|| wrong(format!("`{}` is not hexadecimal", shown(digits))))?;
    }
    Ok(digest)
}

/// The context attributes of CloudEvents 1.0 that a value can be ordered by.
pub(super) const ATTRIBUTES: [&str; 7] = [
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
];

impl OrderBy {
    /// Takes the name of a context attribute, or `data.` and the names of fields with dots between them.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let example =
            "write an attribute such as `subject`, or a field of the data such as `data.customer`";
        if text == "data" {
            return Err(Wrong::new(
                "`data` alone is not something to order by",
                "say which field, as in `data.customer`",
            ));
        }
        if let Some(path) = text.strip_prefix("data.") {
            let fields: Vec<String> = path.split('.').map(str::to_owned).collect();
            if fields.iter().any(String::is_empty) {
                return Err(Wrong::new(
                    format!("`{}` has an empty part", shown(text)),
                    example,
                ));
            }
            if path.contains(['[', ']', '*', '$']) || path.chars().any(char::is_whitespace) {
                let message = format!("`{}` is not the path of a field", shown(text));
                return Err(Wrong::new(
                    message,
                    "write names of fields with dots between them, as in `data.order.customer`",
                ));
            }
            return Ok(Self::Data(fields));
        }
        // CloudEvents 1.0, section "Naming conventions": lower-case letters and digits.
        if !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        {
            return Ok(Self::Attribute(text.to_owned()));
        }
        let field = text
            .trim_start_matches(['$', '.'])
            .trim_start_matches("data.");
        let help = match Self::parse(&format!("data.{field}")) {
            Ok(_) if !text.is_empty() => format!("for the field of the data write `data.{field}`"),
            _ => example.to_owned(),
        };
        Err(Wrong::new(
            format!("`{}` is not an attribute of an event", shown(text)),
            help,
        ))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for HttpOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}:{}",
            if self.https { "https" } else { "http" },
            self.host,
            self.port
        )
    }
}

impl fmt::Display for ComponentRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        if let Some(digest) = &self.sha256 {
            f.write_str("@sha256:")?;
            digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for OrderBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(name) => f.write_str(name),
            Self::Data(fields) => write!(f, "data.{}", fields.join(".")),
        }
    }
}

macro_rules! serialize_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )*};
}

serialize_as_text!(Name, HttpOrigin, ComponentRef, OrderBy);

impl JsonSchema for Name {
    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "Lower-case letters, digits and hyphens; starts with a letter; at most 63 long.",
            "pattern": "^[a-z][a-z0-9-]{0,62}$"
        })
    }
}
