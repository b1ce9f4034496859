//! Sets the event attributes that a source makes from values of a request.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

use http::HeaderMap;

use super::accept::ClaimPolicy;
use super::cloudevents::single;
use super::config::HttpSource;
use super::form;
use super::memory::REQUEST_BYTES;
use super::path::PathParameters;
use super::placeholders::{RequestTemplate, RequestValue};
use crate::problem::Problem;
use evoke_manifest::template::RenderError;
use evoke_model::event::{Event, is_excluded_char};

/// The longest id that is made from a request, in bytes. An `Idempotency-Key` has the same limit.
const ID_MAX: usize = 256;
/// The bytes that an event, and each of its extension attributes ([`EXTENSION_BYTES`]), takes in addition to its texts;
/// rounded up.
const EVENT_BYTES: usize = 512;
const EXTENSION_BYTES: usize = 64;
/// The longest attribute that is made from a request, except the id ([`ID_MAX`]), in bytes.
const ATTRIBUTE_MAX: usize = 1_024;

/// Returns an estimate of the memory of an event, in bytes. The data is not included, because it is counted with the
/// body.
fn memory_of(event: &Event) -> usize {
    event.size() - event.data.as_bytes().len() + EVENT_BYTES + event.extensions.len() * EXTENSION_BYTES
}

/// Returns an estimate of the memory of a request with these events, without their data, in bytes.
pub(super) fn memory_of_request(events: &[Event]) -> usize {
    events.iter().map(memory_of).sum::<usize>().max(REQUEST_BYTES)
}

/// The templates that a source fills in for each event. A fixed `type` is not one of them.
#[derive(Debug)]
pub(super) struct Templates {
    type_: Option<RequestTemplate>,
    subject: Option<RequestTemplate>,
    id: Option<RequestTemplate>,
    attributes: BTreeMap<String, RequestTemplate>,
}

/// The parts of a request from which placeholders take their values.
pub(super) struct RequestValues<'r> {
    pub(super) headers: &'r HeaderMap,
    pub(super) query: Query<'r>,
    pub(super) parameters: Option<&'r PathParameters>,
}

/// The query of a request. The query is parsed only once, because a batch needs its fields for each event.
pub(super) struct Query<'r> {
    text: &'r str,
    /// The value of each field; `None` if it is sent more than once.
    fields: OnceCell<HashMap<Cow<'r, str>, Option<Cow<'r, str>>>>,
}

impl<'r> Query<'r> {
    pub(super) fn new(text: Option<&'r str>) -> Self {
        Self { text: text.unwrap_or_default(), fields: OnceCell::new() }
    }

    /// Returns the value of a field: `None` without the field, and `Some(None)` if it is sent more than once.
    fn field(&self, name: &str) -> Option<Option<&str>> {
        let fields = self.fields.get_or_init(|| {
            let mut fields = HashMap::new();
            for (name, value) in form::fields(self.text) {
                fields.entry(name).and_modify(|value| *value = None).or_insert(Some(value));
            }
            fields
        });
        fields.get(name).map(Option::as_deref)
    }
}

impl Templates {
    /// Returns the templates of a source; `None` if its events need none.
    pub(super) fn of(source: &HttpSource) -> Option<Self> {
        let type_ = source.type_.as_ref().filter(|type_| type_.fixed().is_none());
        let has_any =
            type_.is_some() || source.subject.is_some() || source.id.is_some() || !source.attributes.is_empty();
        has_any.then(|| Self {
            type_: type_.cloned(),
            subject: source.subject.clone(),
            id: source.id.clone(),
            attributes: source.attributes.clone(),
        })
    }

    /// Returns true if the attribute contains a header of the request. Such an attribute can differ when a client
    /// repeats a request, because proxies give some headers, such as a request id, a new value for each request.
    pub(super) fn is_of_header(&self, attribute: &str) -> bool {
        let is_header = |name: &RequestValue| matches!(name, RequestValue::Header(_));
        let template = self.attributes.get(attribute);
        template.is_some_and(|template| template.placeholders().any(|placeholder| is_header(&placeholder.name)))
    }

    /// Sets the attributes of an event. `is_raw` is false for CloudEvents, which have their own type, subject and id.
    /// `index` is the position of the event in a batch.
    pub(super) fn apply(
        &self,
        event: &mut Event,
        is_raw: bool,
        request: &RequestValues<'_>,
        policy: &ClaimPolicy,
        index: Option<usize>,
    ) -> Result<(), Problem> {
        let render = |attribute: &str, template: &RequestTemplate, event: &Event, max| {
            request.render(attribute, template, event, max).map_err(|Refused { detail, placeholder }| {
                let detail = match index {
                    Some(index) => format!("event {index}: {detail}"),
                    None => detail,
                };
                let problem = Problem::malformed(detail).with_member("attribute", attribute);
                match placeholder {
                    Some(placeholder) => problem.with_member("placeholder", placeholder),
                    None => problem,
                }
            })
        };
        if is_raw {
            if let Some(template) = &self.type_ {
                let type_ = render("type", template, event, ATTRIBUTE_MAX)?;
                policy.check_made_type(&type_)?;
                event.type_ = type_;
            }
            if let Some(template) = &self.subject {
                event.subject = Some(render("subject", template, event, ATTRIBUTE_MAX)?);
            }
            if let Some(template) = &self.id {
                event.id = render("id", template, event, ID_MAX)?;
            }
        }
        for (name, template) in &self.attributes {
            let value = render(name, template, event, ATTRIBUTE_MAX)?;
            event.extensions.insert(name.clone(), value);
        }
        Ok(())
    }
}

/// Why an attribute has no value.
struct Refused {
    detail: String,
    /// The name of the placeholder, as written in the manifest.
    placeholder: Option<String>,
}

impl RequestValues<'_> {
    fn render(
        &self,
        attribute: &str,
        template: &RequestTemplate,
        event: &Event,
        max: usize,
    ) -> Result<String, Refused> {
        let is_type = attribute == "type";
        let value = |name: &RequestValue| {
            let value = self.value(name, event)?.filter(|value| !value.is_empty());
            // Characters outside visible ASCII could make one type look like another type.
            if is_type && value.as_ref().is_some_and(|value| !value.bytes().all(|byte| byte.is_ascii_graphic())) {
                return Err("it must have only visible ASCII characters: letters, digits, punctuation".to_owned());
            }
            Ok(value)
        };
        let refused = |detail, placeholder| Refused { detail, placeholder };
        let result = template.render(max, value).map_err(|error| match error {
            RenderError::Missing(name) => {
                let detail =
                    format!("`{{{name}}}` is missing, and the `{attribute}` of the event needs it: {}", ask(&name));
                refused(detail, Some(name))
            }
            RenderError::Value(name, error) => {
                refused(format!("`{{{name}}}` cannot be in the `{attribute}` of the event: {error}"), Some(name))
            }
            RenderError::TooLong => {
                refused(format!("the `{attribute}` of the event would be longer than {max} bytes"), None)
            }
        })?;
        if result.is_empty() {
            return Err(refused(format!("the `{attribute}` of the event would be empty"), None));
        }
        if let Some(char) = result.chars().find(|char| is_excluded_char(*char)) {
            let detail = format!(
                "the `{attribute}` of the event would contain U+{:04X}; send it without this character, because attributes cannot contain control characters or noncharacters",
                u32::from(char)
            );
            return Err(refused(detail, None));
        }
        Ok(result)
    }

    /// Returns a value of the request, or the reason why it cannot be used.
    fn value<'v>(&'v self, name: &RequestValue, event: &'v Event) -> Result<Option<Cow<'v, str>>, String> {
        match name {
            RequestValue::Header(name) => match single(self.headers, name)? {
                Some(value) => match std::str::from_utf8(value) {
                    Ok(text) => Ok(Some(Cow::Borrowed(text))),
                    Err(_) => Err("it is not UTF-8; encode it as UTF-8".to_owned()),
                },
                None => Ok(None),
            },
            RequestValue::Query(name) => match self.query.field(name) {
                Some(None) => Err("it is sent more than once".to_owned()),
                Some(Some(value)) if value.contains('\u{fffd}') => {
                    Err("it is not UTF-8 after percent-decoding; percent-encode UTF-8".to_owned())
                }
                value => Ok(value.flatten().map(Cow::Borrowed)),
            },
            RequestValue::Path(name) => Ok(self.parameters.and_then(|all| all.get(name)).map(Cow::Borrowed)),
            RequestValue::Data(path) => match event.data.field(path) {
                Some(json) => scalar(json),
                None => Ok(None),
            },
        }
    }
}

/// Returns the text of a JSON string, number or Boolean; `None` for null.
fn scalar(json: &str) -> Result<Option<Cow<'_, str>>, String> {
    match json.as_bytes().first() {
        Some(b'"') => match serde_json::from_str::<String>(json) {
            Ok(text) => Ok(Some(Cow::Owned(text))),
            Err(error) => Err(format!("it is not valid text: {error}")),
        },
        Some(b'{' | b'[') => Err("it is an object or a list; send a string, a number, true or false".to_owned()),
        Some(b'n') | None => Ok(None),
        Some(_) => Ok(Some(Cow::Borrowed(json))),
    }
}

/// Returns the instruction for a client that did not send a value.
fn ask(name: &str) -> String {
    match name.split_once('.') {
        Some(("header", name)) => format!("send the header `{name}`"),
        Some(("query", name)) => format!("add `{name}=VALUE` to the query"),
        Some(("data", path)) => format!("send JSON with the field `{path}`"),
        _ => "send a path in which this part is not empty".to_owned(),
    }
}

#[cfg(test)]
mod tests;
