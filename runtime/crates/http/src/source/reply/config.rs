//! The setting `reply` of an http source.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;

use evoke_manifest::TypeGlob;
use evoke_manifest::parser::{Node, Reader, Table, Value, ValueError, excerpt, nearest};
use evoke_manifest::units::DurationText;

/// The allowed values of `timeout`. Proxies and load balancers often end a request after about a minute.
const TIMEOUT_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

/// The request waits for an event that a function publishes because of the request. This event is the response: its
/// data is the body, and its attribute `httpstatus` the status (default 200).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct ReplyEvent {
    /// Type of the event; `*` matches any number of characters.
    #[schemars(with = "String", length(min = 1))]
    pub event: TypeGlob,
    /// Longest wait after the event of the request is stored, at most 1m. If no such event is published in this time,
    /// the response is 202.
    #[serde(default = "default_timeout", with = "DurationText")]
    pub timeout: Duration,
}

fn default_timeout() -> Duration {
    Duration::from_secs(5)
}

/// Parses the value of `reply`. Returns `None` for the default `accepted`, and after an error.
pub(in crate::source) fn parse(reader: &mut Reader<'_>, node: &Node) -> Option<ReplyEvent> {
    let example = "`{ event: order.done, timeout: 5s }`";
    if !matches!(node.value, Value::Map(_)) {
        reader.parse_text(node, "`reply`", |text| match text {
            "accepted" => Ok(()),
            _ => {
                let help = match nearest(text, ["accepted"]) {
                    Some(similar) => format!("did you mean `{similar}`?"),
                    None => format!("write `accepted`, or {example} to wait for an event"),
                };
                Err(ValueError::new(format!("`{}` is not a valid value of `reply`", excerpt(text)), help))
            }
        });
        return None;
    }
    let mut table = Table::read(reader, node, node.span, "ReplyEvent", "`reply`", example)?;
    let event =
        table.required(reader, "event", &["type", "types", "events"], "`event: TYPE`, the type of the response");
    let event = event.and_then(|node| reader.parse_text(node, "`event`", TypeGlob::parse));
    let timeout = table.optional(reader, "timeout").and_then(|node| reader.duration(node, "`timeout`", TIMEOUT_RANGE));
    table.reject_unknown_keys(reader, |key| match key {
        "type" | "types" | "events" => Some("write the type of the response as `event: order.done`"),
        "status" => Some("the function sets the status as the attribute `httpstatus` of the event"),
        _ => None,
    });
    Some(ReplyEvent { event: event?, timeout: timeout.unwrap_or_else(default_timeout) })
}

/// The schema of `reply`.
pub(in crate::source) fn schema(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "anyOf": [{ "const": "accepted" }, generator.subschema_for::<ReplyEvent>()] })
}
