//! Names of apps, sources, functions and headers, and the event fields that `order_by` can name.

use super::diagnostics::{ValueError, excerpt};
use http::HeaderName;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Name of an app, a source or a function: `[a-z][a-z0-9-]{0,62}`. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// The event field whose value is the order key: events with the same value are handled one after another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderBy {
    /// A context attribute of the event, such as `subject` or an extension.
    Attribute(String),
    /// A field inside the event's JSON data: its path, outermost name first.
    Data(Vec<String>),
}

const NAME_LENGTH_MAX: usize = 63;

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// The text is not a valid name; the help suggests the nearest valid one.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let first_valid = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let all_valid = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if first_valid && all_valid && text.len() <= NAME_LENGTH_MAX {
            return Ok(Self(text.into()));
        }
        let rule = "a name has at most 63 lower-case letters, digits and hyphens, and starts with a letter";
        let help = match nearest_valid_name(text) {
            Some(name) => format!("write `{name}`; {rule}"),
            None => rule.to_owned(),
        };
        Err(ValueError::new(format!("`{}` is not a valid name", excerpt(text)), help))
    }

    /// Makes a name without checking the text. The caller guarantees that the text is a valid name.
    pub(super) fn new_unchecked(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the name as a string slice.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Parses the name of a header.
///
/// # Errors
/// The text has characters that a name cannot have.
pub fn header_name(text: &str) -> Result<HeaderName, ValueError> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        let message = format!("`{}` is not the name of a header", excerpt(text));
        ValueError::new(message, "use letters, digits and hyphens, as in `x-api-key`")
    })
}

/// Writes the name of a header as a string.
///
/// # Errors
/// The errors of the serializer.
pub fn header_text<S: Serializer>(header: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(header.as_str())
}

/// Returns a valid name made from `text`; `None` if no character of `text` can be in a name.
fn nearest_valid_name(text: &str) -> Option<String> {
    let mut name = String::new();
    for char in text.chars() {
        let char = char.to_ascii_lowercase();
        if char.is_ascii_lowercase() || (char.is_ascii_digit() && !name.is_empty()) {
            name.push(char);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    let cut = name.get(..NAME_LENGTH_MAX).unwrap_or(&name).trim_end_matches('-');
    (!cut.is_empty()).then(|| cut.to_owned())
}

/// The context attributes of CloudEvents 1.0 that `order_by` can name.
pub(super) const ATTRIBUTES: [&str; 7] = ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];

/// Extension attributes that the CloudEvents project documents, as of version 1.0.2, and Evoke's own `principal`, the
/// verified sender.
pub(super) const KNOWN_EXTENSIONS: [&str; 17] = [
    "authid",
    "authtype",
    "causationid",
    "correlationid",
    "dataref",
    "deprecated",
    "expirytime",
    "partitionkey",
    "principal",
    "recordedtime",
    "sampledrate",
    "sequence",
    "sequencetype",
    "severitynumber",
    "severitytext",
    "traceparent",
    "tracestate",
];

impl OrderBy {
    /// Parses the name of a context attribute, or `data.` followed by field names separated by dots.
    ///
    /// # Errors
    /// Any other text; the help suggests a valid form.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let example = "write an attribute such as `subject`, or a field of the data such as `data.customer`";
        if text == "data" {
            return Err(ValueError::new(
                "`order_by: data` does not name a field of the data",
                "add the name of a field, as in `data.customer`",
            ));
        }
        if let Some(path) = text.strip_prefix("data.") {
            let fields: Vec<String> = path.split('.').map(str::to_owned).collect();
            if fields.iter().any(String::is_empty) {
                return Err(ValueError::new(format!("`{}` has an empty field name", excerpt(text)), example));
            }
            if path.contains(['[', ']', '*', '$']) || path.chars().any(char::is_whitespace) {
                let message = format!("`{}` is not a valid field path", excerpt(text));
                return Err(ValueError::new(
                    message,
                    "write field names separated by dots, as in `data.order.customer`",
                ));
            }
            return Ok(Self::Data(fields));
        }
        // CloudEvents 1.0, section "Naming conventions": lower-case letters and digits.
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Ok(Self::Attribute(text.to_owned()));
        }
        let field = text.trim_start_matches(['$', '.']).trim_start_matches("data.");
        let help = match Self::parse(&format!("data.{field}")) {
            Ok(_) if !text.is_empty() => format!("to order by a field of the data, write `data.{field}`"),
            _ => example.to_owned(),
        };
        Err(ValueError::new(format!("`{}` is not a valid event attribute", excerpt(text)), help))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
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

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for OrderBy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Name {
    fn schema_name() -> Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "At most 63 lower-case letters, digits and hyphens; starts with a letter.",
            "pattern": "^[a-z][a-z0-9-]{0,62}$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_names_parse_and_invalid_ones_get_a_suggestion() {
        for text in ["a", "shop", "order-flow-2", "a-"] {
            assert_eq!(Name::parse(text).unwrap().as_str(), text);
        }
        let help = |text: &str| Name::parse(text).unwrap_err().help;
        assert!(help("Order Flow").starts_with("write `order-flow`"));
        assert!(help("9lives").starts_with("write `lives`"));
        assert!(help("ö").starts_with("a name has"));
        assert!(help(&"x".repeat(64)).starts_with(&format!("write `{}`", "x".repeat(63))));
    }

    #[test]
    fn order_by_names_an_attribute_or_a_field_of_the_data() {
        assert_eq!(OrderBy::parse("subject").unwrap(), OrderBy::Attribute("subject".to_owned()));
        assert_eq!(OrderBy::parse("data.a.b").unwrap(), OrderBy::Data(vec!["a".to_owned(), "b".to_owned()]));
        for text in ["", "data", "data.", "data..a", "data.a[0]", "Subject", "$.data.a", "a.b"] {
            assert!(OrderBy::parse(text).is_err(), "{text}");
        }
        assert_eq!(OrderBy::parse("$.data.a").unwrap_err().help, "to order by a field of the data, write `data.a`");
    }
}
