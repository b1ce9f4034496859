//! Fills templates with values of events and secrets.

use std::borrow::Cow;

use evoke_manifest::deliver::{Field, JsonTemplate};
use evoke_manifest::template::{RenderError, Template};
use evoke_model::event::{Data, Event};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::SecretValues;

/// Largest body in bytes. Without this bound, a template that repeats large data of an event could make a huge body.
pub(super) const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest size of a header value in bytes.
pub(super) const HEADER_BYTES_MAX: usize = 8 * 1024;
/// Largest size of a path and its query together, in bytes.
const PATH_BYTES_MAX: usize = 8 * 1024;

/// All characters except the unreserved ones (RFC 3986, section 2.3), so that a value stays one part of a path or of a
/// query.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An event and the secrets, from which templates take their values.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    pub(super) event: &'a Event,
    pub(super) secrets: &'a SecretValues,
}

impl<'a> Values<'a> {
    /// Renders the path and the query of a URL. Values of the event are percent-encoded, secrets are not. In the path,
    /// an empty value counts as missing: otherwise `/users/{data.id}` could become the path of all users.
    pub(super) fn path(self, template: &Template<Field>) -> Result<String, String> {
        let (in_path, mut at) = (template.placeholders_before('?'), 0);
        let value = |field: &Field| {
            at += 1;
            let is_in_path = at <= in_path;
            match field {
                Field::Secret(name) => Ok(self.secret(name)),
                field => match self.text(field).filter(|text| !(is_in_path && text.is_empty())) {
                    // Servers resolve the segments `.` and `..`, so the request would reach another path. Some servers
                    // decode `%2F` and `%5C` before they do so.
                    Some(text) if is_in_path && text.split(['/', '\\']).any(is_dots) => {
                        Err("has a part of only dots, which would change the path")
                    }
                    text => Ok(text.map(|text| utf8_percent_encode(&text, ENCODED).to_string().into())),
                },
            }
        };
        template.render(PATH_BYTES_MAX, value).map_err(|error| describe(&error, "the URL"))
    }

    /// Renders the value of a header.
    pub(super) fn header(self, name: &str, template: &Template<Field>) -> Result<String, String> {
        let value = |field: &Field| match self.value(field) {
            Some(text) if text.chars().any(char::is_control) => Err("contains a control character"),
            text => Ok(text),
        };
        template.render(HEADER_BYTES_MAX, value).map_err(|error| describe(&error, &format!("the header `{name}`")))
    }

    /// Renders a text body.
    pub(super) fn text_body(self, template: &Template<Field>) -> Result<String, String> {
        let value = |field: &Field| Ok::<_, &str>(self.value(field));
        template.render(BODY_BYTES_MAX, value).map_err(|error| describe(&error, "the body"))
    }

    /// Renders a JSON body. A string that consists of one placeholder for JSON data becomes that data, with its JSON
    /// type. In any other string, the values become parts of the string.
    pub(super) fn json_body(self, template: &JsonTemplate) -> Result<String, String> {
        let mut body = String::new();
        self.write_json(template, &mut body)?;
        Ok(body)
    }

    fn write_json(self, template: &JsonTemplate, body: &mut String) -> Result<(), String> {
        match template {
            JsonTemplate::Value(value) => body.push_str(&value.to_string()),
            JsonTemplate::Text(text) => match self.json_value(text) {
                Some(json) => body.push_str(&json),
                None => body.push_str(&quoted(&self.text_body(text)?)),
            },
            JsonTemplate::List(items) => {
                body.push('[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        body.push(',');
                    }
                    self.write_json(item, body)?;
                }
                body.push(']');
            }
            JsonTemplate::Object(members) => {
                body.push('{');
                for (at, (name, value)) in members.iter().enumerate() {
                    if at > 0 {
                        body.push(',');
                    }
                    body.push_str(&quoted(name));
                    body.push(':');
                    self.write_json(value, body)?;
                }
                body.push('}');
            }
        }
        if body.len() > BODY_BYTES_MAX {
            return Err(format!("the body has more than {} MiB", BODY_BYTES_MAX >> 20));
        }
        Ok(())
    }

    /// Returns the JSON text of the value if the template is one placeholder of JSON data.
    fn json_value(self, template: &Template<Field>) -> Option<Cow<'a, str>> {
        let mut placeholders = template.placeholders();
        let (only, None) = (placeholders.next()?, placeholders.next()) else { return None };
        match &only.name {
            Field::Data(path) if template.glob() == "*" => Some(self.event.data.field(path)?.into()),
            _ => None,
        }
    }

    /// Returns a value as text; `None` if the event does not have it, or if it is null.
    fn value(self, field: &Field) -> Option<Cow<'a, str>> {
        match field {
            Field::Secret(name) => self.secret(name),
            field => self.text(field),
        }
    }

    fn secret(self, name: &str) -> Option<Cow<'a, str>> {
        self.secrets.get(name).map(|value| value.as_str().into())
    }

    /// Returns a value of the event as text: a JSON string without quotes, and another JSON value as its JSON text.
    fn text(self, field: &Field) -> Option<Cow<'a, str>> {
        let event = self.event;
        match field {
            Field::Attribute(name) => {
                event.attributes().find(|(other, _)| other == name).map(|(_, value)| value.into())
            }
            Field::Data(path) => match &event.data {
                Data::Text(text) if path.is_empty() => Some(text.as_str().into()),
                data => match data.field(path)? {
                    "null" => None,
                    json if json.starts_with('"') => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
                    json => Some(json.into()),
                },
            },
            Field::Secret(_) => None,
        }
    }
}

fn is_dots(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|byte| byte == b'.')
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Describes why a template cannot be rendered. Values are never part of the message.
fn describe(error: &RenderError<&str>, what: &str) -> String {
    match error {
        RenderError::Missing(name) => {
            format!("the event has no value for `{{{name}}}` in {what}; for a default, write `{{{name}|DEFAULT}}`")
        }
        RenderError::TooLong => format!("{what} would be too long"),
        RenderError::Value(name, reason) => format!("the value of `{{{name}}}` in {what} {reason}"),
    }
}
