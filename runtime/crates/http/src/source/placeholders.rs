//! Placeholders in the settings of an http source, such as `github.{header.x-github-event}`. This module parses them
//! and reports mistakes in a manifest. [`super::attributes`] replaces them by values of a request.
//!
//! | placeholder | value |
//! |---|---|
//! | `{header.NAME}` | a header of the request; a repeated header is refused |
//! | `{query.NAME}` | a parameter of the query string, decoded; a repeated parameter is refused |
//! | `{path.NAME}` | a parameter of the path, percent-decoded |
//! | `{data.a.b}` | a string, number or Boolean in the JSON data of the event |
//!
//! A request is refused with 400 if a value is missing or empty and its placeholder has no default.
//!
//! `type`, `subject` and `id` only apply to raw bodies, because CloudEvents already have these attributes. `attributes`
//! are set on every event of the source and replace the attributes of the same names that a producer sends, so patterns
//! can rely on them.

use std::collections::BTreeMap;

use http::HeaderName;

use super::path::PathPattern;
use evoke_manifest::Template;
use evoke_manifest::parser::{Node, Reader, ValueError, excerpt, nearest};
use evoke_model::claim::is_runtime_type;
use evoke_model::event::{PRINCIPAL, TYPE_BYTES_MAX, is_excluded_char};

/// The most attributes that a source can set.
const ATTRIBUTES_MAX: usize = 20;

/// The kinds of placeholders. The name of a placeholder begins with its kind, followed by a dot.
const ROOTS: [&str; 4] = ["header", "query", "path", "data"];

/// A template over the values of a request.
pub type RequestTemplate = Template<RequestValue>;

/// A value of a request that a placeholder can name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestValue {
    /// `header.NAME`
    Header(HeaderName),
    /// `query.NAME`
    Query(String),
    /// `path.NAME`
    Path(String),
    /// `data.a.b`: the path of member names.
    Data(Vec<String>),
}

impl RequestValue {
    /// Parses the name of a placeholder in a source with this path. If `path` is `None`, for example because the path
    /// has an error, every path parameter is accepted.
    fn parse(name: &str, path: Option<&PathPattern>) -> Result<Self, ValueError> {
        let (root, rest) = name.split_once('.').unwrap_or((name, ""));
        let shown = excerpt(name);
        let wrong = |help: String| Err(ValueError::new(format!("`{{{shown}}}` is not a placeholder"), help));
        if ROOTS.contains(&root) && rest.is_empty() {
            let example = if root == "data" { "{data.FIELD}".to_owned() } else { format!("{{{root}.NAME}}") };
            return wrong(format!("write `{example}`"));
        }
        match root {
            "header" => match HeaderName::try_from(rest) {
                Ok(name) => Ok(Self::Header(name)),
                Err(_) => wrong("write the name of a header, as in `{header.x-request-id}`".to_owned()),
            },
            "query" => Ok(Self::Query(rest.to_owned())),
            "path" => {
                let names: Vec<&str> = path.into_iter().flat_map(PathPattern::names).collect();
                if path.is_none() || names.contains(&rest) {
                    return Ok(Self::Path(rest.to_owned()));
                }
                let message = format!("`{{{shown}}}`: the path has no parameter `{}`", excerpt(rest));
                let help = match nearest(rest, names.iter().copied()) {
                    Some(similar) => format!("did you mean `{{path.{similar}}}`?"),
                    None if names.is_empty() => format!("declare it: `path: /…/{{{}}}`", excerpt(rest)),
                    None => {
                        let names: Vec<_> = names.iter().map(|name| format!("`{{path.{name}}}`")).collect();
                        format!("the path has {}", names.join(", "))
                    }
                };
                Err(ValueError::new(message, help))
            }
            "data" => {
                let fields: Vec<String> = rest.split('.').map(str::to_owned).collect();
                if fields.iter().any(String::is_empty) || rest.contains(['[', ']', '*', '$']) {
                    return wrong("write field names separated by dots, as in `{data.order.customer}`".to_owned());
                }
                Ok(Self::Data(fields))
            }
            _ => {
                let other = match root.trim_start_matches('$') {
                    "headers" | "request" => Some("header"),
                    "params" | "param" | "parameters" => Some("path"),
                    "body" | "json" | "form" | "payload" | "event" => Some("data"),
                    root => nearest(root, ROOTS),
                };
                wrong(match other {
                    Some(other) if !rest.is_empty() => format!("did you mean `{{{other}.{}}}`?", excerpt(rest)),
                    _ => "write `{header.NAME}`, `{query.NAME}`, `{path.NAME}` or `{data.FIELD}`, or `{{` for the character `{`"
                        .to_owned(),
                })
            }
        }
    }
}

/// Parses a template, and checks the rules that apply to every attribute.
fn parse(text: &str, path: Option<&PathPattern>) -> Result<RequestTemplate, ValueError> {
    let template = Template::parse(text, |name| RequestValue::parse(name, path))?;
    if let Some(char) = template.texts().flat_map(str::chars).find(|char| is_excluded_char(*char)) {
        let message = format!("`{}` contains U+{:04X}", excerpt(text), u32::from(char));
        return Err(ValueError::new(message, "remove it: attributes cannot contain control characters"));
    }
    Ok(template)
}

/// Returns the warnings about a valid template, each with a help text.
fn advice(template: &RequestTemplate) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for placeholder in template.placeholders() {
        if let RequestValue::Header(name) = &placeholder.name
            && ["authorization", "proxy-authorization", "cookie"].contains(&name.as_str())
        {
            let message =
                format!("`{{{}}}` stores the credentials of clients in events", excerpt(&placeholder.written));
            found.push((message, "use another value of the request".to_owned()));
        }
    }
    let between = |text: &str| Some(text.split_once("{{")?.1.split_once("}}")?.0.trim().to_owned());
    if let Some(inner) = between(template.as_str()).filter(|inner| RequestValue::parse(inner, None).is_ok()) {
        let inner = excerpt(&inner);
        let message = format!("`{{{{{inner}}}}}` is the text `{{{inner}}}`: `{{{{` stands for the character `{{`");
        found.push((message, format!("write `{{{inner}}}` for the value")));
    }
    found
}

pub(super) fn parse_type(reader: &mut Reader<'_>, node: &Node, path: Option<&PathPattern>) -> Option<RequestTemplate> {
    reader.parse_advised(node, "`type`", |text| type_template(text, path), type_advice)
}

/// Returns the warnings about the template of an event type: those that apply to the template of any attribute, and one
/// if the type contains a `*`.
fn type_advice(template: &RequestTemplate) -> Vec<(String, String)> {
    let mut found = advice(template);
    if template.texts().any(|text| text.contains('*')) {
        let message = format!("`{}` is one type, with the character `*` in it", excerpt(template.as_str()));
        let help = "write the whole type, such as `order.placed`, or a placeholder, as in `order.{header.x-event}`";
        found.push((message, help.to_owned()));
    }
    found
}

fn type_template(text: &str, path: Option<&PathPattern>) -> Result<RequestTemplate, ValueError> {
    let template = parse(text, path)?;
    // Each type begins with the text before the first placeholder.
    let start = template.glob().split('*').next().unwrap_or_default();
    if is_runtime_type(template.fixed().unwrap_or(start)) && (template.fixed().is_some() || start.contains('.')) {
        let message = format!("the event type `{}` belongs to the runtime", excerpt(text));
        return Err(ValueError::new(message, "write a type that does not begin with `evoke.`, such as `order.placed`"));
    }
    if template.fixed().is_some_and(|fixed| fixed.len() > TYPE_BYTES_MAX) {
        let message = format!("the event type `{}` has more than {TYPE_BYTES_MAX} bytes", excerpt(text));
        return Err(ValueError::new(message, "write a shorter type, such as `order.placed`"));
    }
    if template.texts().flat_map(str::chars).any(char::is_whitespace) {
        let message = format!("the event type `{}` contains white space", excerpt(text));
        let joined: String = text.split_whitespace().collect::<Vec<_>>().join(".");
        return Err(ValueError::new(message, format!("write `{}`", excerpt(&joined))));
    }
    Ok(template)
}

pub(super) fn parse_subject(
    reader: &mut Reader<'_>,
    node: &Node,
    path: Option<&PathPattern>,
) -> Option<RequestTemplate> {
    reader.parse_advised(node, "`subject`", |text| parse(text, path), advice)
}

pub(super) fn parse_id(reader: &mut Reader<'_>, node: &Node, path: Option<&PathPattern>) -> Option<RequestTemplate> {
    let without_value = |template: &RequestTemplate| template.placeholders().all(|one| one.default.is_some());
    let template = |text: &str| {
        let template = parse(text, path)?;
        if template.fixed().is_some() {
            let message = format!("all events would have the id `{}`", excerpt(text));
            let help =
                "use a value that differs for each event, as in `{header.x-request-id}`: each id is stored only once";
            return Err(ValueError::new(message, help));
        }
        Ok(template)
    };
    let all_advice = |template: &RequestTemplate| {
        let mut found = advice(template);
        if without_value(template) {
            let message =
                "requests without the placeholders' values have the same id, and all but the first are duplicates";
            found
                .push((message.to_owned(), "remove a default: a request without the value is then refused".to_owned()));
        }
        found
    };
    reader.parse_advised(node, "`id`", template, all_advice)
}

pub(super) fn parse_attributes(
    reader: &mut Reader<'_>,
    node: &Node,
    path: Option<&PathPattern>,
) -> BTreeMap<String, RequestTemplate> {
    let mut attributes = BTreeMap::new();
    let entries = reader.entries(node, "`attributes`", "`{ team: \"{path.team}\" }`");
    if entries.len() > ATTRIBUTES_MAX {
        let message = format!("`attributes` has {} attributes", entries.len());
        reader.error(node.span, message, format!("set at most {ATTRIBUTES_MAX}"));
        return attributes;
    }
    for entry in entries {
        let name = reader.ok_or_report(entry.key_span, attribute_name(&entry.key));
        let what = format!("the attribute `{}`", excerpt(&entry.key));
        let template = reader.parse_advised(&entry.node, &what, |text| parse(text, path), advice);
        attributes.extend(name.zip(template));
    }
    attributes
}

/// Checks the name of an extension attribute that a source sets.
fn attribute_name(name: &str) -> Result<String, ValueError> {
    let wrong = |help: String| {
        let message = format!("`{}` is not the name of an extension attribute", excerpt(name));
        Err(ValueError::new(message, help))
    };
    match name {
        "type" | "subject" | "id" => wrong(format!("write `{name}` beside `attributes`")),
        "source" => wrong("remove it: the source of these events is `/APP/NAME`".to_owned()),
        "time" | "specversion" | "datacontenttype" | "dataschema" => wrong("remove it: Evoke sets it".to_owned()),
        "data" | "data_base64" => wrong("remove it: the data of an event is the body of its request".to_owned()),
        PRINCIPAL => wrong("use another name: `auth` sets this attribute to the verified sender".to_owned()),
        "traceparent" | "tracestate" => wrong("remove it: Evoke copies it from the header of the request".to_owned()),
        _ if !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) => {
            Ok(name.to_owned())
        }
        _ => {
            let corrected = name.to_ascii_lowercase().replace(|char: char| !char.is_ascii_alphanumeric(), "");
            wrong(match corrected.as_str() {
                "" => "use lower-case letters and digits".to_owned(),
                corrected => format!("use lower-case letters and digits: `{}`", excerpt(corrected)),
            })
        }
    }
}

#[cfg(test)]
mod tests;
