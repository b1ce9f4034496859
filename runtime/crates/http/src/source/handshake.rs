//! The validation request of CloudEvents senders (HTTP 1.1 Web Hooks for Event Delivery 1.0.2, section 4), for sources
//! with `handshake:`. A sender asks with OPTIONS whether it may send events; the response allows it and gives the
//! allowed rate. Evoke never calls the `WebHook-Request-Callback` of a sender.

use bytes::Bytes;
use http::header::ALLOW;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use schemars::JsonSchema;
use serde::Serialize;

use super::cloudevents::single;
use crate::problem::Problem;
use evoke_manifest::parser::{Node, Reader, Span, Table, ValueError, excerpt};

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// The CloudEvents senders that get permission to send events when they ask for it with `WebHook-Request-Origin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Handshake {
    /// Names of senders as they send them in `WebHook-Request-Origin`, such as `events.example`, or `*` for every
    /// sender.
    #[schemars(length(min = 1), inner(length(min = 1)))]
    pub origins: Vec<String>,
    /// The number of requests that a sender may send each minute. Without `rate`, there is no limit. Evoke sends the
    /// rate to senders and does not enforce it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rate: Option<u32>,
}

impl Handshake {
    /// Parses the value of `handshake`.
    pub(super) fn parse(reader: &mut Reader<'_>, node: &Node, key_span: Span) -> Option<Self> {
        let example = "`{ origins: [events.example] }`";
        let mut table = Table::read(reader, node, key_span, "Handshake", "`handshake`", example)?;
        let origins = table.required(reader, "origins", &["origin"], "`origins: [events.example]`");
        let origins = origins.map(|node| {
            let help = "list a sender, or remove `handshake`";
            let items = reader.nonempty_list(node, "`origins`", "no sender would be allowed", help);
            items.iter().filter_map(|item| reader.parse_text(item, "a sender", sender)).collect()
        });
        let rate = table.optional(reader, "rate").and_then(|node| reader.integer(node, "`rate`", 1..=1_000_000));
        table.reject_unknown_keys(reader, |key| match key {
            "origin" => Some("did you mean `origins`?"),
            "allowed_rate" => Some("did you mean `rate`?"),
            _ => None,
        });
        Some(Self { origins: origins?, rate })
    }

    /// Returns the response to a validation request.
    pub(super) fn respond(&self, headers: &HeaderMap) -> Result<Response<Full<Bytes>>, Problem> {
        let origin = single(headers, &REQUEST_ORIGIN).map_err(Problem::malformed)?.unwrap_or_default();
        let granted =
            self.origins.iter().find(|allowed| *allowed == "*" || allowed.as_bytes().eq_ignore_ascii_case(origin));
        let granted = match granted.map(String::as_str) {
            Some("*") => HeaderValue::from_static("*"),
            Some(_) => HeaderValue::from_bytes(origin).unwrap_or_else(|_| HeaderValue::from_static("*")),
            None => {
                let detail = format!(
                    "the sender `{}` may not send events to this source; to allow the sender, add it to `handshake.origins` in the manifest",
                    excerpt(&String::from_utf8_lossy(origin))
                );
                return Err(Problem::new(StatusCode::FORBIDDEN, detail));
            }
        };
        let mut response = Response::new(Full::default());
        let headers = response.headers_mut();
        headers.insert(ALLOWED_ORIGIN, granted);
        headers.insert(ALLOWED_RATE, self.rate.map_or(HeaderValue::from_static("*"), HeaderValue::from));
        headers.insert(ALLOW, HeaderValue::from_static("POST"));
        Ok(response)
    }
}

/// Returns true for a request that asks whether its sender may send events.
pub(super) fn is_validation(headers: &HeaderMap) -> bool {
    headers.contains_key(REQUEST_ORIGIN)
}

/// Checks the name of a sender: a host name (section 4.1.1), or `*`.
fn sender(text: &str) -> Result<String, ValueError> {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let is_name = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'))
    };
    if text == "*" || (host == text && is_name(text)) {
        return Ok(text.to_owned());
    }
    let help = if is_name(host) {
        format!("write only the host: `{host}`")
    } else {
        "write a host such as `events.example`, or `*`".to_owned()
    };
    Err(ValueError::new(format!("`{}` is not the name of a sender", excerpt(text)), help))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn respond(origins: &[&str], rate: Option<u32>, origin: &str) -> Result<[String; 3], u16> {
        let handshake = Handshake { origins: origins.iter().map(|origin| (*origin).to_owned()).collect(), rate };
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ORIGIN, origin.parse().unwrap());
        let response = handshake.respond(&headers).map_err(|problem| problem.status.as_u16())?;
        assert_eq!(response.status(), 200);
        Ok([ALLOWED_ORIGIN, ALLOWED_RATE, ALLOW].map(|name| response.headers()[name].to_str().unwrap().to_owned()))
    }

    #[test]
    fn a_listed_sender_gets_its_name_and_the_rate() {
        let granted = ["Events.example", "120", "POST"].map(str::to_owned);
        assert_eq!(respond(&["events.example"], Some(120), "Events.example"), Ok(granted));
        let any = ["*", "*", "POST"].map(str::to_owned);
        assert_eq!(respond(&["*"], None, "whoever"), Ok(any));
        for origin in ["other.example", "events.example.evil", "*", ""] {
            assert_eq!(respond(&["events.example"], None, origin), Err(403), "{origin}");
        }
    }

    #[test]
    fn a_sender_is_a_host() {
        for text in ["*", "events.example", "localhost:8080"] {
            assert!(sender(text).is_ok(), "{text}");
        }
        assert!(sender("https://events.example/x").unwrap_err().help.contains("`events.example`"));
        for text in ["*.example", "a b", ""] {
            assert!(sender(text).is_err(), "{text}");
        }
    }
}
