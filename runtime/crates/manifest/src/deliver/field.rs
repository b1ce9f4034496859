//! The names of values in the templates of `deliver`.

use crate::diagnostics::{ValueError, excerpt};

/// A value that a placeholder inserts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// A context attribute of the event, such as `id`, `type` or an extension.
    Attribute(String),
    /// A field of JSON data: its path, the outermost name first. An empty path means all of the data, JSON or not.
    Data(Vec<String>),
    /// The secret with this name.
    Secret(String),
}

impl Field {
    /// Parses `data`, `data.FIELD`, `secret.NAME`, or the name of a context attribute.
    ///
    /// # Errors
    /// Any other text; the help suggests a valid form.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let not_a_value = || format!("`{{{}}}` is not a value of an event", excerpt(text));
        if text == "data" {
            return Ok(Self::Data(Vec::new()));
        }
        if let Some(path) = text.strip_prefix("data.") {
            let names: Vec<String> = path.split('.').map(str::to_owned).collect();
            if names.iter().any(String::is_empty) || path.contains(['[', ']', '*']) {
                let help = "write field names separated by dots, as in `{data.order.customer}`";
                return Err(ValueError::new(not_a_value(), help));
            }
            return Ok(Self::Data(names));
        }
        if let Some(name) = text.strip_prefix("secret.") {
            return match name {
                "" => Err(ValueError::new(
                    "`{secret.}` does not name a secret",
                    "write the name of a secret, as in `{secret.API_KEY}`",
                )),
                name => Ok(Self::Secret(name.to_owned())),
            };
        }
        // CloudEvents 1.0, section "Naming conventions".
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Ok(Self::Attribute(text.to_owned()));
        }
        let help = match text.strip_prefix("event.").or_else(|| text.strip_prefix("$.")) {
            Some(rest) if Self::parse(rest).is_ok() => format!("write `{{{rest}}}`"),
            _ => "write an attribute such as `{subject}`, a field such as `{data.customer}`, or `{secret.NAME}`; for the \
                  character `{`, write `{{`"
                .to_owned(),
        };
        Err(ValueError::new(not_a_value(), help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_an_attribute_a_field_of_the_data_or_a_secret() {
        let path = |names: &[&str]| Field::Data(names.iter().map(|name| (*name).to_owned()).collect());
        for (text, field) in [
            ("id", Field::Attribute("id".into())),
            ("traceparent", Field::Attribute("traceparent".into())),
            ("data", path(&[])),
            ("data.a", path(&["a"])),
            ("data.a-b.C d", path(&["a-b", "C d"])),
            ("secret.API_KEY", Field::Secret("API_KEY".into())),
        ] {
            assert_eq!(Field::parse(text).unwrap(), field, "{text}");
        }
        for text in ["Id", "data.", "data..a", "data.a[0]", "secret.", "event.id", "$.data.a", "\"a\": 1", "header.x"] {
            assert!(Field::parse(text).is_err(), "{text}");
        }
        assert_eq!(Field::parse("event.data.a").unwrap_err().help, "write `{data.a}`");
    }
}
