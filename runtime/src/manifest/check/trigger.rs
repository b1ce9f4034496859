//! Triggers: the entries of a function's `on:`.

use super::{Context, source};
use crate::manifest::diagnostics::shown;
use crate::manifest::model::{Events, Origin, Source, SourceKind, Trigger};
use crate::manifest::names::Name;
use crate::manifest::read::Reader;
use crate::manifest::source_text::Span;
use crate::manifest::suggest::{choices, nearest};
use crate::manifest::tree::{Node, Value};
use crate::pattern::{Pattern, PatternError, Segment};
use std::collections::HashMap;

pub(super) fn triggers(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, function: &str) -> Vec<Trigger> {
    let items = match &node.value {
        Value::Scalar(_) => {
            reader.error(
                node.span,
                format!("`on` is a list of triggers, this is {}", node.described()),
                trigger_for(context, node),
            );
            return Vec::new();
        }
        _ => {
            let help = "add a trigger, such as `- events: { type: [order.placed] }`";
            reader.filled_list(node, "`on`", &format!("function `{}` would never run", shown(function)), help)
        }
    };
    let mut counts = HashMap::new();
    let mut triggers = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if reader.is_full() {
            break;
        }
        triggers.extend(trigger(reader, context, item, function, index, &mut counts));
    }
    triggers
}

fn trigger(
    reader: &mut Reader<'_>,
    context: &Context<'_>,
    node: &Node,
    function: &str,
    index: usize,
    counts: &mut HashMap<&'static str, usize>,
) -> Option<Trigger> {
    if matches!(node.value, Value::Scalar(_)) {
        reader.error(
            node.span,
            format!("a trigger has keys, this is {}", node.described()),
            trigger_for(context, node),
        );
        return None;
    }
    let example = "`events: { type: [order.placed] }`";
    let mut table = reader.table(node, node.span, "Trigger", "a trigger", example)?;
    let events_place = table.key_span("events");
    let events = table.optional(reader, "events").and_then(|node| events(reader, node, events_place));
    let source_node = table.optional(reader, "source");
    let kind = source::one_kind(reader, context, &mut table);
    let private = source::KINDS.iter().map(|(key, _)| *key).find(|key| table.has(key));
    if let (Some(key), true) = (private, table.has("source")) {
        let message = "a trigger with two sources";
        let help = "make each a trigger of its own: `- ` before each";
        reader.error_beside(table.key_span(key), message, help, (table.key_span("source"), "the other source"));
    }
    if table.is_empty() {
        let message = format!("{} that names no events and no source", table.what());
        reader.error(table.place(), message, format!("write {example} or `source: NAME`"));
    }
    source::refuse_monitor(reader, &mut table);
    table.close(reader, |key| match key {
        "type" | "pattern" | "event" | "data" | "subject" => {
            Some("a pattern goes under `events`, as in `events: { type: [order.placed] }`")
        }
        "cron" | "every" => Some("a schedule goes under `timer`, as in `timer: { every: 1m }`"),
        _ => None,
    });
    let origin = if let Some(node) = source_node {
        Origin::Shared(reference(reader, context, node)?)
    } else if private.is_some() {
        Origin::Private(private_source(context, function, kind?, node.span, counts))
    } else {
        Origin::Any
    };
    Some(Trigger { index, origin, events, span: node.span })
}

/// What to write instead of a trigger that is only a text.
fn trigger_for(context: &Context<'_>, node: &Node) -> String {
    let text = match &node.value {
        Value::Scalar(scalar) => scalar.text.as_str(),
        _ => "",
    };
    if context.sources.contains(text) {
        return format!("write `- source: {text}`");
    }
    let type_ =
        if text.is_empty() || text.contains(char::is_whitespace) { "order.placed".to_owned() } else { shown(text) };
    format!("for events of a type write `- events: {{ type: [{type_}] }}`")
}

fn private_source(
    context: &Context<'_>,
    function: &str,
    kind: SourceKind,
    span: Span,
    counts: &mut HashMap<&'static str, usize>,
) -> Source {
    // Counted for each kind, so that a trigger of another kind put before it does not rename it: what a
    // source has seen is remembered under its uri.
    let count = counts.entry(kind.key()).or_default();
    *count += 1;
    let name = Name::trusted(&format!("{}-{count}", kind.key()));
    let uri = context.uri(&format!("{function}/{name}"));
    Source { name, uri, kind, span }
}

/// The shared source that a trigger names.
fn reference(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node) -> Option<Name> {
    if matches!(node.value, Value::Map(_)) {
        let help = "put `http`, `files` or `timer` into the trigger itself, or declare the source under `sources`";
        reader.error(node.span, "`source` is the name of a source, this is keys and values", help);
        return None;
    }
    let text = reader.text(node, "`source`")?;
    if context.sources.contains(text) {
        return Name::parse(text).ok();
    }
    let tail = text.rsplit('/').next().unwrap_or(text);
    let help = if context.functions.contains(tail) {
        format!("`{tail}` is a function; for what it publishes write `events: {{ source: [{}] }}`", context.uri(tail))
    } else if context.sources.contains(tail) {
        format!("write its name alone: `{tail}`")
    } else if let Some(meant) = nearest(text, context.sources.iter().copied()) {
        format!("did you mean `{meant}`?")
    } else if context.sources.is_empty() {
        "the manifest declares no sources; add it under `sources`".to_owned()
    } else {
        format!("the manifest declares {}", choices(context.sources.iter().copied().take(10)).replace(" or ", " and "))
    };
    reader.error(node.span, format!("there is no source `{}`", shown(text)), help);
    None
}

fn events(reader: &mut Reader<'_>, node: &Node, place: Span) -> Option<Events> {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("a pattern is written as fields and their values, this is {}", node.described());
        reader.error(node.span, message, "for events of a type write `{ type: [order.placed] }`");
        return None;
    }
    let json = match node.to_json() {
        Ok(json) => json,
        Err(span) => {
            reader.error(
                span,
                "a pattern has no infinities and no NaN: an event's JSON cannot have them",
                "write a number",
            );
            return None;
        }
    };
    // A pattern that no event of the bus can match is a mistake, however well it is written.
    let checked = Pattern::parse(&json).and_then(|pattern| match pattern.never_in_cloudevents() {
        never if never.is_empty() => Ok(pattern),
        never => Err(never),
    });
    match checked {
        Ok(pattern) => {
            let mut places = HashMap::new();
            note_places(node, &mut places);
            Some(Events { json, pattern, places })
        }
        Err(errors) => {
            for PatternError { path, message, help } in errors {
                let span = place_of(node, place, &path);
                reader.error(
                    span,
                    message,
                    help.unwrap_or_else(|| "a field takes a list of values and operators".to_owned()),
                );
            }
            None
        }
    }
}

/// Where each text of a pattern first stands.
fn note_places(node: &Node, places: &mut HashMap<String, Span>) {
    match &node.value {
        Value::Scalar(scalar) => {
            places.entry(scalar.text.clone()).or_insert(node.span);
        }
        Value::List(items) => items.iter().for_each(|item| note_places(item, places)),
        Value::Map(entries) => entries.iter().for_each(|entry| note_places(&entry.node, places)),
    }
}

/// The place in the manifest of a path inside a pattern, or of as much of it as there is.
fn place_of(mut node: &Node, mut place: Span, path: &[Segment]) -> Span {
    for segment in path {
        let next = match (segment, &node.value) {
            (Segment::Key(key), Value::Map(entries)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| (&*entry.node, entry.key_span))
            }
            (Segment::Index(index), Value::List(items)) => items.get(*index).map(|item| (&**item, item.span)),
            _ => None,
        };
        let Some((inner, span)) = next else {
            return place;
        };
        place = match inner.value {
            Value::Scalar(_) => inner.span,
            Value::List(_) | Value::Map(_) => span,
        };
        node = inner;
    }
    place
}
