//! The URL of an endpoint.

use super::Field;
use crate::diagnostics::{ValueError, excerpt};
use crate::template::Template;
use evoke_model::destination::Target;
use serde::{Serialize, Serializer};
use std::fmt;

/// The URL of an endpoint. Path and query can have placeholders. Scheme, host and port cannot have placeholders,
/// because they decide where the function may send requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointUrl {
    target: Target,
    /// Path and query; begins with `/`.
    path: Template<Field>,
}

impl EndpointUrl {
    /// Parses an absolute URL with the scheme http or https.
    ///
    /// # Errors
    /// Another scheme, credentials, an invalid host or port, a placeholder before the path, a fragment, or characters
    /// that a URL cannot have.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let Some((scheme, rest)) = text.split_once("://") else {
            let help = match Self::parse(&format!("https://{text}")) {
                Ok(_) => format!("write `https://{}`", excerpt(text)),
                Err(_) => "write the URL with its scheme, as in `https://api.example.com/hooks`".to_owned(),
            };
            return Err(ValueError::new(format!("the URL `{}` has no scheme", excerpt(text)), help));
        };
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if authority.contains(['{', '}']) {
            let message = format!("the URL `{}` has a placeholder in its host", excerpt(text));
            return Err(ValueError::new(message, "write the host itself: only path and query can have placeholders"));
        }
        let target = Target::parse(scheme, authority).map_err(|error| ValueError::new(error.message, error.help))?;
        if let Some((before, _)) = text.split_once('#') {
            let message = format!("the URL `{}` has a fragment, which is never sent", excerpt(text));
            return Err(ValueError::new(message, format!("write `{}`", excerpt(before))));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let path = Template::parse(&path, Field::parse)?;
        let wrong = path.texts().flat_map(str::chars).find(|char| !is_url_char(*char));
        if let Some(char) = wrong {
            let message = format!("the URL `{}` contains `{}`", excerpt(text), char.escape_debug());
            return Err(ValueError::new(message, "percent-encode it, as in `%20` for a space"));
        }
        Ok(Self { target, path })
    }

    /// Returns scheme, host and port.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Returns the URL for the status and for messages: without path and query, which often contain a token.
    pub fn shown(&self) -> String {
        match self.path.as_str() {
            "/" => self.target.to_string(),
            _ => format!("{}/…", self.target),
        }
    }

    /// Returns path and query.
    pub fn path(&self) -> &Template<Field> {
        &self.path
    }
}

/// Returns true if path and query of a URL can have the character (RFC 3986, section 3).
fn is_url_char(char: char) -> bool {
    char.is_ascii_graphic() && !matches!(char, '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' | '#')
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.target, self.path)
    }
}

impl Serialize for EndpointUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_fixed_host_and_placeholders_after_it() {
        for (text, written, shown) in [
            ("https://crm.example", "https://crm.example/", "https://crm.example"),
            ("https://CRM.example:443/a/b?c=d", "https://crm.example/a/b?c=d", "https://crm.example/…"),
            ("http://127.0.0.1:80?x", "http://127.0.0.1/?x", "http://127.0.0.1/…"),
            (
                "https://hooks.example/s/{secret.PATH}?t={secret.T}",
                "https://hooks.example/s/{secret.PATH}?t={secret.T}",
                "https://hooks.example/…",
            ),
            ("https://a.example/{data.id}", "https://a.example/{data.id}", "https://a.example/…"),
        ] {
            let url = EndpointUrl::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.shown().as_str()), (written, shown));
        }
        for text in [
            "",
            "crm.example/hooks",
            "ftp://crm.example/",
            "https:///x",
            "https://u:p@crm.example/",
            "https://{data.host}/x",
            "https://crm.{secret.A}/x",
            "https://crm.example:{data.port}/",
            "https://crm.example/x#y",
            "https://crm.example/a b",
            "https://crm.example/é",
            "https://crm.example/{",
            "https://crm.example/{header.x}",
            "https://crm.example\\@evil.example/",
        ] {
            assert!(EndpointUrl::parse(text).is_err(), "{text}");
        }
        assert_eq!(EndpointUrl::parse("crm.example/hooks").unwrap_err().help, "write `https://crm.example/hooks`");
    }
}
