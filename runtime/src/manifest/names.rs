//! Names, and what names a part of an event.

use super::diagnostics::{Wrong, shown};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Name of an app, a source or a function: `[a-z][a-z0-9-]{0,62}`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

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
        let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let goes_on = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if starts && goes_on && text.len() <= NAME_LENGTH_MAX {
            return Ok(Self(text.into()));
        }
        let rule = "lower-case letters, digits and hyphens, a letter first, at most 63";
        let help = match name_like(text) {
            Some(name) => format!("write `{name}`: names have {rule}"),
            None => format!("names have {rule}"),
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
    let cut = name.get(..NAME_LENGTH_MAX).unwrap_or(&name).trim_end_matches('-');
    (!cut.is_empty()).then(|| cut.to_owned())
}

/// The context attributes of CloudEvents 1.0 that a value can be ordered by.
pub(super) const ATTRIBUTES: [&str; 7] = ["id", "source", "type", "subject", "time", "datacontenttype", "dataschema"];

impl OrderBy {
    /// Takes the name of a context attribute, or `data.` and the names of fields with dots between them.
    pub fn parse(text: &str) -> Result<Self, Wrong> {
        let example = "write an attribute such as `subject`, or a field of the data such as `data.customer`";
        if text == "data" {
            return Err(Wrong::new(
                "`data` alone is not something to order by",
                "say which field, as in `data.customer`",
            ));
        }
        if let Some(path) = text.strip_prefix("data.") {
            let fields: Vec<String> = path.split('.').map(str::to_owned).collect();
            if fields.iter().any(String::is_empty) {
                return Err(Wrong::new(format!("`{}` has an empty part", shown(text)), example));
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
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Ok(Self::Attribute(text.to_owned()));
        }
        let field = text.trim_start_matches(['$', '.']).trim_start_matches("data.");
        let help = match Self::parse(&format!("data.{field}")) {
            Ok(_) if !text.is_empty() => format!("for the field of the data write `data.{field}`"),
            _ => example.to_owned(),
        };
        Err(Wrong::new(format!("`{}` is not an attribute of an event", shown(text)), help))
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
            "description": "Lower-case letters, digits and hyphens; starts with a letter; at most 63 long.",
            "pattern": "^[a-z][a-z0-9-]{0,62}$"
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_fits_a_uri_and_others_get_the_nearest() {
        for text in ["a", "shop", "order-flow-2", "a-"] {
            assert_eq!(Name::parse(text).unwrap().as_str(), text);
        }
        let help = |text: &str| Name::parse(text).unwrap_err().help;
        assert!(help("Order Flow").starts_with("write `order-flow`"));
        assert!(help("9lives").starts_with("write `lives`"));
        assert!(help("ö").starts_with("names have"));
        assert!(help(&"x".repeat(64)).starts_with(&format!("write `{}`", "x".repeat(63))));
    }

    #[test]
    fn order_is_by_an_attribute_or_by_a_field_of_the_data() {
        assert_eq!(OrderBy::parse("subject").unwrap(), OrderBy::Attribute("subject".to_owned()));
        assert_eq!(OrderBy::parse("data.a.b").unwrap(), OrderBy::Data(vec!["a".to_owned(), "b".to_owned()]));
        for text in ["", "data", "data.", "data..a", "data.a[0]", "Subject", "$.data.a", "a.b"] {
            assert!(OrderBy::parse(text).is_err(), "{text}");
        }
        assert_eq!(OrderBy::parse("$.data.a").unwrap_err().help, "for the field of the data write `data.a`");
    }
}
