//! The check `http`: the response to a GET request.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use evoke_egress::{Error, Limits, ResponseBody, empty};
use evoke_manifest::Place;
use evoke_manifest::parser::{Node, Reader, Table, Value, ValueError, excerpt};
use evoke_manifest::units::DurationText;
use evoke_model::destination::{AddressRange, Target};
use evoke_model::event::find_value;
use evoke_threshold::Level;
use http_body_util::BodyExt as _;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::quantity::Unit;
use super::super::resources::Resources;
use super::endpoint::{self, Endpoint};
use super::{Finding, Found, Measure};

/// Maximum number of bytes of a body that are searched or parsed.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Sends a GET request, and reads how long the response takes, or a number from its body. Redirects are not followed.
/// The state is critical if there is no response, or if the response is not the expected one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields, rename = "HttpReading")]
pub(in super::super) struct Http {
    /// The URL, `http://` or `https://`.
    #[schemars(length(min = 1))]
    url: String,
    /// The expected status, or a list of statuses. Without this key, any status from 200 to 299 is expected.
    #[serde(default)]
    #[schemars(schema_with = "status_schema")]
    status: Vec<u16>,
    /// A text that the body must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    contains: Option<String>,
    /// A field of a JSON body, such as `queue.length`. Its number is read instead of the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    json: Option<String>,
    /// A PEM file with certificate authorities that are trusted in addition to those of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ca: Option<PathBuf>,
    /// The longest wait for the whole response.
    #[serde(default = "endpoint::timeout_default", with = "DurationText")]
    timeout: Duration,
    /// IP addresses and ranges that the check may connect to although they are not on the public internet.
    #[serde(default, serialize_with = "endpoint::serialize_addresses")]
    #[schemars(with = "Vec<String>")]
    addresses: Vec<AddressRange>,
    #[serde(skip)]
    target: Option<Target>,
}

fn status_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let one = serde_json::json!({ "type": "integer", "minimum": 100, "maximum": 599 });
    schemars::json_schema!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }], "default": [] })
}

pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Http> {
    let example = "`http: { url: \"https://shop.example/health\" }`";
    let mut table = Table::read(reader, node, place.key_span, "HttpReading", "`http`", example)?;
    let url = table.required(reader, "url", &["uri", "address", "path"], "`url: \"https://HOST/PATH\"`");
    let url = url.and_then(|node| Some((reader.parse_text(node, "`url`", parse_url)?, node.span)));
    let status = table.optional(reader, "status").map(|node| status(reader, node)).unwrap_or_default();
    let contains = table.optional(reader, "contains").and_then(|node| reader.text(node, "`contains`"));
    let json = table.optional(reader, "json").and_then(|node| reader.text(node, "`json`"));
    let ca = endpoint::ca(reader, &mut table, place);
    let target = url.as_ref().map(|((_, target), span)| (target, *span));
    let (timeout, addresses) = endpoint::limits(reader, &mut table, target);
    table.reject_unknown_keys(reader, |key| match key {
        "path" => Some("to accept requests, write `http` directly below the name of the source, not in `monitor`"),
        "match" | "body" => Some("did you mean `contains`?"),
        "field" => Some("did you mean `json`?"),
        _ => None,
    });
    let ((url, target), _) = url?;
    let (contains, json) = (contains.map(str::to_owned), json.map(str::to_owned));
    Some(Http { url, status, contains, json, ca, timeout, addresses, target: Some(target) })
}

fn parse_url(text: &str) -> Result<(String, Target), ValueError> {
    let malformed = |message: String| ValueError::new(message, "write a URL such as `https://shop.example/health`");
    let (scheme, rest) =
        text.split_once("://").ok_or_else(|| malformed(format!("`{}` is not a URL", excerpt(text))))?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let target = Target::parse(scheme, authority).map_err(|error| malformed(error.message))?;
    // The client sends only URLs that are valid for the `http` crate.
    http::Uri::try_from(text).map_err(|error| malformed(format!("`{}` is not a URL: {error}", excerpt(text))))?;
    Ok((text.to_owned(), target))
}

fn status(reader: &mut Reader<'_>, node: &Node) -> Vec<u16> {
    let one = |reader: &mut Reader<'_>, node: &Node| {
        reader.integer(node, "`status`", 100..=599).and_then(|status| u16::try_from(status).ok())
    };
    match &node.value {
        Value::List(items) => items.iter().filter_map(|item| one(reader, item)).collect(),
        _ => one(reader, node).into_iter().collect(),
    }
}

impl Http {
    pub(super) fn measure(&self) -> Measure {
        let units = if self.json.is_some() { Unit::ALL } else { &[Unit::Seconds] };
        Measure::above(units).with_own_levels()
    }

    /// Returns the subject: the URL without its query, because the query may contain secrets.
    pub(super) fn subject(&self) -> String {
        self.url.split(['?', '#']).next().unwrap_or_default().to_owned()
    }

    pub(super) async fn read(&self, resources: &Arc<Resources>, remembered: &mut Option<Endpoint>) -> Vec<Finding> {
        vec![Finding::new(self.subject(), self.request(resources, remembered).await)]
    }

    async fn request(&self, resources: &Resources, remembered: &mut Option<Endpoint>) -> Result<Found, String> {
        let target = self.target.as_ref().ok_or("no URL")?;
        let endpoint = Endpoint::of(remembered, resources, target, &self.addresses, self.ca.as_ref()).await?;
        let request = http::Request::get(&self.url).header("user-agent", "evoke-monitor").body(empty());
        let request = request.map_err(|error| error.to_string())?;
        let started = Instant::now();
        let limits =
            Limits { connect_timeout: self.timeout, first_byte_timeout: self.timeout, ..Limits::within(self.timeout) };
        let response = match endpoint.owner.send(request, &limits).await {
            Ok(response) => response,
            Err(error) => return endpoint::failure(&error).map(Found::critical),
        };
        let (head, body) = response.into_parts();
        let taken = started.elapsed().as_secs_f64();
        let status = head.status.as_u16();
        let is_expected = if self.status.is_empty() { head.status.is_success() } else { self.status.contains(&status) };
        if !is_expected {
            return Ok(Found {
                value: self.json.is_none().then_some(taken),
                ..Found::critical(format!("the status is {status}"))
            });
        }
        if self.contains.is_none() && self.json.is_none() {
            return Ok(Found::value(taken));
        }
        let body = match read_body(body).await {
            Ok(body) => body,
            Err(error) => return endpoint::failure(&error).map(Found::critical),
        };
        Ok(self.check_body(&body, taken))
    }

    fn check_body(&self, body: &[u8], taken: f64) -> Found {
        let is_found = |text: &str| String::from_utf8_lossy(body).contains(text);
        if let Some(text) = self.contains.as_deref().filter(|text| !is_found(text)) {
            let value = self.json.is_none().then_some(taken);
            return Found { value, ..Found::critical(format!("the body does not contain `{}`", excerpt(text))) };
        }
        let Some(field) = &self.json else { return Found::value(taken) };
        let path: Vec<&str> = field.split('.').collect();
        // `json` is the JSON text of the value. A string has its quotes there, so only a number parses as a number.
        let number =
            find_value(body, &path).and_then(|json| json.parse().ok()).filter(|number: &f64| number.is_finite());
        match number {
            Some(value) => Found { value: Some(value), at_least: Level::Ok, detail: None },
            None => Found::critical(format!("the body has no number in the JSON field `{}`", excerpt(field))),
        }
    }
}

/// Returns the first [`BODY_BYTES_MAX`] bytes of a body.
async fn read_body(mut body: ResponseBody) -> Result<Vec<u8>, Error> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            let room = BODY_BYTES_MAX - read.len();
            read.extend_from_slice(data.get(..room).unwrap_or(&data));
            if read.len() >= BODY_BYTES_MAX {
                break;
            }
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(contains: Option<&str>, json: Option<&str>) -> Http {
        let (url, target) = parse_url("https://shop.example/health?key=1").unwrap();
        Http {
            url,
            status: Vec::new(),
            contains: contains.map(str::to_owned),
            json: json.map(str::to_owned),
            ca: None,
            timeout: Duration::from_secs(1),
            addresses: Vec::new(),
            target: Some(target),
        }
    }

    #[test]
    fn a_number_of_the_body_is_read() {
        let body = br#"{"queue": {"lengths": [3, 4.5]}, "up": true}"#;
        assert_eq!(http(None, Some("queue.lengths.1")).check_body(body, 0.1), Found::value(4.5));
        assert_eq!(http(None, Some("0")).check_body(b"[-1e3]", 0.1), Found::value(-1000.0));
        for (field, body) in [("up", &body[..]), ("none.at", body), ("queue.lengths.2", body), ("queue", b"no json")] {
            assert_eq!(http(None, Some(field)).check_body(body, 0.1).at_least, Level::Critical, "{field}");
        }
    }

    /// `serde_json` parses such a string as JSON when it builds a value, with a new limit of depth.
    #[test]
    fn json_texts_in_a_body_are_not_parsed() {
        let body = br#"{"a": 1, "b": {"$serde_json::private::RawValue": "{\"c\": 2}"}}"#;
        assert_eq!(http(None, Some("a")).check_body(body, 0.1), Found::value(1.0));
        assert_eq!(http(None, Some("b.c")).check_body(body, 0.1).at_least, Level::Critical);
    }

    #[test]
    fn a_body_must_contain_the_text() {
        assert_eq!(http(Some("all good"), None).check_body(b"<p>all good</p>", 0.1), Found::value(0.1));
        assert_eq!(http(Some("all good"), None).check_body(b"<p>bad</p>", 0.1).at_least, Level::Critical);
    }

    #[test]
    fn the_subject_has_no_query() {
        assert_eq!(http(None, None).subject(), "https://shop.example/health");
        for wrong in ["shop.example", "ftp://shop.example/", "https://user@shop.example/", "https://"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
