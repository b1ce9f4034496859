//! Header values that can have placeholders for secrets, such as `Bearer {secret.API_KEY}`.

use super::diagnostics::{ValueError, excerpt};
use serde::{Serialize, Serializer};

/// The value of a header. The value can have placeholders `{secret.NAME}`, which are replaced by the values of secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderTemplate {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Secret(String),
}

impl HeaderTemplate {
    /// Parses the value of a header.
    ///
    /// # Errors
    /// The value has characters that a header cannot have, or a placeholder for something other than a secret.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        if text.chars().any(|char| char.is_control() && char != '\t') {
            let message = format!("the value `{}` of a header contains a control character", excerpt(text));
            return Err(ValueError::new(message, "write the value in one line, without control characters"));
        }
        let (mut parts, mut rest) = (Vec::new(), text);
        let mut literal = String::new();
        while let Some((before, after)) = rest.split_once('{') {
            literal.push_str(before);
            rest = after;
            let Some((inner, after)) = after.split_once('}').filter(|(inner, _)| is_placeholder(inner)) else {
                literal.push('{');
                continue;
            };
            let Some(name) = inner.strip_prefix("secret.").filter(|name| !name.is_empty()) else {
                let message = format!("the placeholder `{{{}}}` cannot be used in a header", excerpt(inner));
                return Err(ValueError::new(message, "only secrets can be inserted: write `{secret.NAME}`"));
            };
            if !literal.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut literal)));
            }
            parts.push(Part::Secret(name.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    /// Returns the names of the secrets in the value.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Secret(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Returns the value with the secrets inserted. Returns `None` if `secret` returns `None` for one of the names.
    pub fn fill<'a>(&self, secret: impl Fn(&str) -> Option<&'a str>) -> Option<String> {
        self.parts.iter().try_fold(String::new(), |value, part| {
            Some(match part {
                Part::Text(text) => value + text,
                Part::Secret(name) => value + secret(name)?,
            })
        })
    }
}

/// Returns true if the text between braces looks like a placeholder: names with dots between them.
fn is_placeholder(inner: &str) -> bool {
    inner.starts_with(|char: char| char.is_ascii_alphabetic())
        && inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

impl Serialize for HeaderTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_secrets_are_inserted() {
        let template = HeaderTemplate::parse("Basic {secret.USER}:{secret.KEY-2}; {} { \"a\": 1 } {").unwrap();
        assert_eq!(template.secrets().collect::<Vec<_>>(), ["USER", "KEY-2"]);
        let filled = template.fill(|name| Some(if name == "USER" { "{secret.KEY-2}" } else { "k" }));
        assert_eq!(filled.as_deref(), Some("Basic {secret.KEY-2}:k; {} { \"a\": 1 } {"));
        assert_eq!(template.fill(|_| None), None);
        assert_eq!(HeaderTemplate::parse("plain").unwrap().fill(|_| None).as_deref(), Some("plain"));
        for text in ["{header.x}", "a {name} b", "{secret.}", "{secrets.A}", "two\nlines", "\0"] {
            assert!(HeaderTemplate::parse(text).is_err(), "{text}");
        }
    }
}
