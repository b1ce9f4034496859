//! Reads the parts of a test that `evoke test --from` takes from the recording of an attempt: the readings of clocks,
//! the seed of random numbers, and bytes that are not JSON.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value as Json;

use super::super::Recorded;
use super::{json, point_in_time};
use crate::diagnostics::{ValueError, excerpt};
use crate::parser::{Node, Reader, Table};
use crate::source_text::Span;
use evoke_model::recording::{BucketReads, Content, Reads, Seed};

const EXAMPLE: &str = "`{ random: … }`, as `evoke test --from` writes it";

pub(super) fn recorded(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<Recorded> {
    let mut table = Table::read(reader, node, span, "Recorded", "`recorded`", EXAMPLE)?;
    let mut text = |reader: &mut Reader<'_>, key: &'static str| {
        let node = table.optional(reader, key)?;
        reader.text(node, &format!("`{key}`")).map(str::to_owned)
    };
    let (delivery, trigger) = (text(reader, "delivery"), text(reader, "trigger"));
    let replay = table.optional(reader, "replay").and_then(|node| reader.boolean(node, "`replay`"));
    let mut times = |reader: &mut Reader<'_>, key: &'static str| {
        let items = table.optional(reader, key).map(|node| reader.list(node, &format!("`{key}`"))).unwrap_or_default();
        let time = |item: &std::rc::Rc<Node>| reader.parse_text(item, "a recorded time", point_in_time);
        items.iter().filter_map(time).collect::<Vec<_>>()
    };
    let (wall, published) = (times(reader, "wall"), times(reader, "published"));
    let nanos = |at: &jiff::Timestamp| u64::try_from(at.as_nanosecond()).unwrap_or_default();
    let monotonic = table.optional(reader, "monotonic");
    let monotonic = monotonic.map(|node| reader.list(node, "`monotonic`")).unwrap_or_default();
    let monotonic_ns = monotonic.iter().filter_map(|item| number(reader, item)).collect();
    let polls = table.optional(reader, "polls").map(|node| reader.list(node, "`polls`")).unwrap_or_default();
    let polls = polls.iter().map(|item| {
        let indexes = reader.list(item, "the result of a poll").iter();
        indexes.filter_map(|item| u32::try_from(number(reader, item)?).ok()).collect()
    });
    let polls = polls.collect();
    let random = table.optional(reader, "random").and_then(|node| reader.parse_text(node, "`random`", seed));
    let mut bucket = |reader: &mut Reader<'_>, key: &'static str| {
        let span = table.key_span(key);
        table.optional(reader, key).and_then(|node| bucket(reader, node, span, key)).unwrap_or_default()
    };
    let (state, shared_state) = (bucket(reader, "state"), bucket(reader, "shared_state"));
    table.reject_unknown_keys(reader, |key| match key {
        "clock" | "time" => {
            Some("put readings under `wall` and `monotonic`; for a fixed time, write `clock` in the test itself")
        }
        "seed" => Some("did you mean `random`?"),
        _ => None,
    });
    let reads = Reads {
        wall_ns: wall.iter().map(nanos).collect(),
        monotonic_ns,
        published_ms: published.iter().map(|at| at.as_millisecond()).collect(),
        polls,
        random,
        state,
        shared_state,
        http: Vec::new(),
    };
    Some(Recorded { delivery, trigger, replay: replay.unwrap_or(false), reads })
}

/// Reads the sizes of the parts of a body.
pub(super) fn parts(reader: &mut Reader<'_>, node: &Node) -> Vec<u32> {
    let sizes = reader.list(node, "`body_parts`").iter();
    sizes.filter_map(|size| u32::try_from(number(reader, size)?).ok()).collect()
}

fn bucket(reader: &mut Reader<'_>, node: &Node, span: Span, key: &str) -> Option<BucketReads> {
    let what = format!("`recorded.{key}`");
    let mut table = Table::read(reader, node, span, "RecordedState", what, "`{ keys: [a, b] }`")?;
    let values = table.optional(reader, "raw").map(|node| raw(reader, node, "`raw`")).unwrap_or_default();
    let keys = table.optional(reader, "keys").map(|node| reader.list(node, "`keys`")).unwrap_or_default();
    let keys = keys.iter().filter_map(|item| reader.text(item, "a key").map(str::to_owned)).collect();
    let usage_node = table.optional(reader, "usage");
    let usage = usage_node.map(|node| reader.list(node, "`usage`")).unwrap_or_default();
    let usage: Vec<u64> = usage.iter().filter_map(|item| number(reader, item)).collect();
    table.reject_unknown_keys(reader, |_| None);
    let usage = match (usage_node, usage.as_slice()) {
        (_, [keys, bytes]) => Some((*keys, *bytes)),
        (Some(node), _) => {
            reader.error(
                node.span,
                "`usage` must have two numbers",
                "write the number of keys and the number of bytes: `[1, 20]`",
            );
            None
        }
        (None, _) => None,
    };
    let values = values.into_iter().map(|(key, bytes)| (key, Some(Content(bytes)))).collect();
    Some(BucketReads { values, keys, usage })
}

/// Reads bytes by key. The bytes are written as a text, or as a map with the key `base64`.
pub(super) fn raw(reader: &mut Reader<'_>, node: &Node, what: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in reader.entries(node, what, "`{ KEY: text }`") {
        match json(reader, &entry.node) {
            Some(Json::String(text)) => drop(found.insert(entry.key.clone(), text.into_bytes())),
            Some(Json::Object(_)) => {
                let example = "`{ base64: aGVsbG8= }`";
                let what = format!("the value of `{}`", excerpt(&entry.key));
                let Some(mut table) = Table::read(reader, &entry.node, entry.key_span, "Bytes", what, example) else {
                    continue;
                };
                let bytes = table.required(reader, "base64", &[], example).and_then(|node| base64(reader, node));
                table.reject_unknown_keys(reader, |_| None);
                found.extend(bytes.map(|bytes| (entry.key.clone(), bytes)));
            }
            Some(_) => {
                let message =
                    format!("the value of `{}` must be a text, found {}", excerpt(&entry.key), entry.node.describe());
                reader.error(entry.node.span, message, "write a text in quotes, or `{ base64: aGVsbG8= }`");
            }
            None => {}
        }
    }
    found
}

/// Reads bytes in base64.
pub(super) fn base64(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<u8>> {
    let decoded = match json(reader, node)? {
        Json::String(text) => BASE64.decode(text).ok(),
        _ => None,
    };
    if decoded.is_none() {
        reader.error(
            node.span,
            "the bytes are not in base64",
            "write base64 with padding, in quotes, as in `\"aGVsbG8=\"`",
        );
    }
    decoded
}

fn number(reader: &mut Reader<'_>, node: &Node) -> Option<u64> {
    let number = json(reader, node)?.as_u64();
    if number.is_none() {
        let message = format!("this value must be 0 or a positive whole number, found {}", node.describe());
        reader.error(node.span, message, "write 0 or a positive whole number");
    }
    number
}

fn seed(text: &str) -> Result<Seed, ValueError> {
    Seed::parse(text).ok_or_else(|| {
        let message = format!("`{}` is not a seed of random numbers", excerpt(text));
        ValueError::new(message, "write 64 hexadecimal digits, in quotes")
    })
}
