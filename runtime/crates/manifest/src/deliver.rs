//! `deliver`: a function without code, which sends each event to an endpoint.

use super::diagnostics::{ValueError, excerpt};
use super::hmac::HmacFormat;
use super::parser::one_of;
use super::secret::{SecretList, SecretRef};
use super::template::Template;
use super::trust::Trust;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::time::Duration;

mod field;
mod rate;
mod url;

pub use field::Field;
pub use rate::Rate;
pub use url::EndpointUrl;

/// Requests to an endpoint: one for each attempt to deliver an event.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Deliver {
    /// URL of the endpoint. Path and query can have placeholders: `{data.FIELD}`, an attribute of the event such as
    /// `{subject}`, and `{secret.NAME}`. Values of the event are percent-encoded; secrets are not.
    #[schemars(with = "String", regex(pattern = "^https?://"))]
    pub url: EndpointUrl,
    /// Method of the requests.
    #[serde(default)]
    pub method: Method,
    /// Headers of the requests, by name. Values can have placeholders, such as `Bearer {secret.NAME}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub headers: BTreeMap<String, Template<Field>>,
    /// How the event becomes a CloudEvents request: `structured` puts the whole event into the body; `binary` puts its
    /// data into the body and its attributes into headers. The default is `structured`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Body of the requests, in place of the event: a text, or a map or list that becomes JSON. Texts in it can have
    /// placeholders. In JSON, a text that is only a placeholder is replaced by its value, which keeps its JSON type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyTemplate>,
    /// Signature of the requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sign: Option<Sign>,
    /// Secrets by name, for the placeholders `{secret.NAME}`. Placeholders can also name the secrets under `allow`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretRef>,
    /// Addresses and certificate authorities that are accepted in addition to public addresses and the certificate
    /// authorities of the machine.
    #[serde(flatten)]
    pub trust: Trust,
    /// Largest number of requests per unit of time, such as `10/s` or `300/m`. Without this key, the rate is limited
    /// only after an outage of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", regex(pattern = "^[0-9]+/[smh]$"))]
    pub rate: Option<Rate>,
}

/// Method of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(rename = "DeliverMethod")]
pub enum Method {
    /// `POST`
    #[default]
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
}

/// Mode of the CloudEvents HTTP binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "DeliverMode")]
pub enum Mode {
    /// The body is the event in JSON form, `application/cloudevents+json`.
    #[default]
    Structured,
    /// The body is the data of the event; its attributes are headers.
    Binary,
}

/// Body with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyTemplate {
    /// A text. Values are inserted without escaping.
    Text(Template<Field>),
    /// A JSON value.
    Json(JsonTemplate),
}

/// JSON value with placeholders in its texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonTemplate {
    /// Null, a boolean or a number.
    Value(serde_json::Value),
    /// A text. If the text is only a placeholder, it is replaced by the placeholder's value, which keeps its JSON type.
    Text(Template<Field>),
    /// A list.
    List(Vec<JsonTemplate>),
    /// An object, in the order of the manifest.
    Object(Vec<(String, JsonTemplate)>),
}

/// Signature of the requests: exactly one of these keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    /// The headers `webhook-id`, `webhook-timestamp` and `webhook-signature` of Standard Webhooks. `webhook-id` is the
    /// id of the delivery, so it is equal for all attempts.
    StandardWebhooks(StandardWebhooks),
    /// An HMAC of the body in one header.
    Hmac(Hmac),
}

/// Signature by Standard Webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "StandardWebhooksSignature", deny_unknown_fields)]
pub struct StandardWebhooks {
    /// Location of the secret. The secret is `whsec_…` for HMAC-SHA256, or `whsk_…`, the private key, for Ed25519.
    /// While the secret is rotated, write a list: each request then has one signature for each secret.
    pub secret: SecretList,
}

/// Signature by HMAC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "HmacSignature", deny_unknown_fields)]
pub struct Hmac {
    /// Form of the signature.
    #[serde(flatten)]
    pub format: HmacFormat,
    /// Location of the secret.
    pub secret: SecretRef,
}

impl Sign {
    /// Returns the locations of the secrets, in the order of the manifest.
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Self::StandardWebhooks(settings) => settings.secret.iter().map(|secret| &secret.location).collect(),
            Self::Hmac(settings) => vec![&settings.secret],
        }
    }
}

impl Deliver {
    /// Returns the mode of the requests; `None` if a `body` replaces the event.
    pub fn cloudevents_mode(&self) -> Option<Mode> {
        if self.body.is_some() { None } else { Some(self.mode.unwrap_or_default()) }
    }

    /// Returns the locations of all secrets, including those of the signature.
    pub fn all_secrets(&self) -> impl Iterator<Item = &SecretRef> {
        self.secrets.values().chain(self.sign.iter().flat_map(Sign::secrets))
    }

    /// Returns the templates of URL, headers and body.
    pub fn templates(&self) -> impl Iterator<Item = &Template<Field>> {
        let mut all: Vec<_> = std::iter::once(self.url.path()).chain(self.headers.values()).collect();
        match &self.body {
            Some(BodyTemplate::Text(text)) => all.push(text),
            Some(BodyTemplate::Json(json)) => json.collect_texts(&mut all),
            None => {}
        }
        all.into_iter()
    }
}

impl JsonTemplate {
    pub(crate) fn collect_texts<'a>(&'a self, into: &mut Vec<&'a Template<Field>>) {
        match self {
            Self::Value(_) => {}
            Self::Text(text) => into.push(text),
            Self::List(items) => items.iter().for_each(|item| item.collect_texts(into)),
            Self::Object(members) => members.iter().for_each(|(_, value)| value.collect_texts(into)),
        }
    }
}

impl Method {
    /// Returns the method as written in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    pub(crate) fn parse(text: &str) -> Result<Self, ValueError> {
        let all = [Self::Post, Self::Put, Self::Patch, Self::Delete];
        match all.into_iter().find(|method| method.as_str().eq_ignore_ascii_case(text)) {
            Some(method) if method.as_str() == text => Ok(method),
            Some(method) => {
                let message = format!("`{}` is not a method", excerpt(text));
                Err(ValueError::new(message, format!("write `{}`", method.as_str())))
            }
            None => {
                let message = format!("events cannot be delivered with the method `{}`", excerpt(text));
                Err(ValueError::new(message, "write `POST`, `PUT`, `PATCH` or `DELETE`"))
            }
        }
    }
}

impl Mode {
    pub(crate) fn parse(text: &str) -> Result<Self, ValueError> {
        one_of(text, "a mode", [("structured", Self::Structured), ("binary", Self::Binary)])
    }
}

impl Serialize for BodyTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => text.serialize(serializer),
            Self::Json(json) => json.serialize(serializer),
        }
    }
}

impl Serialize for JsonTemplate {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Value(value) => value.serialize(serializer),
            Self::Text(text) => text.serialize(serializer),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(members) => serializer.collect_map(members.iter().map(|(name, value)| (name, value))),
        }
    }
}

impl JsonSchema for BodyTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BodyTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "object", "array"] })
    }
}

/// The time between two requests at the lowest rate, `1/h`.
const INTERVAL_MAX: Duration = Duration::from_secs(3600);
