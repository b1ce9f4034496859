//! Reads triggers: the entries of a function's `on:`.

use super::{Context, source};
use crate::diagnostics::excerpt;
use crate::model::{EventPattern, Trigger, TriggerSource};
use crate::names::Name;
use crate::parser::{Node, Reader, Table, Value, join_with_and, join_with_or, nearest};
use crate::source::{Settings, Source, SourceKind};
use crate::source_text::Span;
use evoke_model::runtime_events::SOURCE;
use evoke_pattern::{Pattern, PatternError, ReservedValues, Segment};
use std::collections::HashMap;

/// The types and sources of the runtime's own events. A trigger receives these events only if its pattern names their
/// type or source exactly.
const RUNTIME_VALUES: [ReservedValues<'static>; 2] =
    [ReservedValues { field: "type", prefix: "evoke." }, ReservedValues { field: "source", prefix: SOURCE }];

pub(super) fn triggers(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, function: &str) -> Vec<Trigger> {
    let items = match &node.value {
        Value::Scalar(_) => {
            reader.error(
                node.span,
                format!("`on` must be a list of triggers, found {}", node.describe()),
                suggest_trigger(context, node),
            );
            return Vec::new();
        }
        _ => {
            let help = "add a trigger, such as `- events: { type: [order.placed] }`";
            reader.nonempty_list(node, "`on`", &format!("function `{}` would never run", excerpt(function)), help)
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
            format!("a trigger must be a map of keys and values, found {}", node.describe()),
            suggest_trigger(context, node),
        );
        return None;
    }
    let example = "`events: { type: [order.placed] }`";
    let mut table = Table::read(reader, node, node.span, "Trigger", "a trigger", example)?;
    let events_span = table.key_span("events");
    let events = table.optional(reader, "events").and_then(|node| events(reader, node, events_span));
    let source_node = table.optional(reader, "source");
    let kind = source::read_kind(reader, context, &mut table);
    let private = context.kinds.keys().find(|key| table.has(key));
    if let (Some(key), true) = (private, table.has("source")) {
        let message = "a trigger can have only one source";
        let help = "write a separate trigger for each source, starting with `- `";
        reader.error_with_related(table.key_span(key), message, help, (table.key_span("source"), "the other source"));
    }
    if table.is_empty() {
        let message = format!("{} needs `events` or a source", table.what());
        reader.error(table.span(), message, format!("write {example} or `source: NAME`"));
    }
    table.reject_unknown_keys(reader, |key| match key {
        "type" | "pattern" | "event" | "data" | "subject" => {
            Some("put the pattern under `events`, as in `events: { type: [order.placed] }`")
        }
        _ => source::hint(context, key),
    });
    let source = if let Some(node) = source_node {
        TriggerSource::Shared(shared_source_name(reader, context, node)?)
    } else if private.is_some() {
        TriggerSource::Private(private_source(context, function, kind?, node.span, counts))
    } else {
        TriggerSource::Any
    };
    Some(Trigger { index, source, events, span: node.span })
}

/// Returns a help text that suggests a trigger in place of a plain string.
fn suggest_trigger(context: &Context<'_>, node: &Node) -> String {
    let text = match &node.value {
        Value::Scalar(scalar) => scalar.text.as_str(),
        _ => "",
    };
    if context.sources.contains(text) {
        return format!("write `- source: {text}`");
    }
    let type_ =
        if text.is_empty() || text.contains(char::is_whitespace) { "order.placed".to_owned() } else { excerpt(text) };
    format!("to match events by type, write `- events: {{ type: [{type_}] }}`")
}

fn private_source(
    context: &Context<'_>,
    function: &str,
    (kind, settings): (&'static dyn SourceKind, Settings),
    span: Span,
    counts: &mut HashMap<&'static str, usize>,
) -> Source {
    // Each kind has its own counter, so a new trigger of another kind does not change the names of the existing private
    // sources. The names must not change, because the store keeps the progress of a source under its URI, which
    // contains the name.
    let count = counts.entry(kind.key()).or_default();
    *count += 1;
    let name = Name::new_unchecked(&format!("{}-{count}", kind.key()));
    let uri = context.uri(&format!("{function}/{name}"));
    Source { name, uri, kind, settings, span }
}

/// Reads the key `source` of a trigger, which names a shared source.
fn shared_source_name(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node) -> Option<Name> {
    if matches!(node.value, Value::Map(_)) {
        let kinds = join_with_or(context.kinds.keys());
        let help = format!("put {kinds} directly in the trigger, or declare the source under `sources`");
        reader.error(node.span, "`source` must be the name of a source, found a map", help);
        return None;
    }
    let text = reader.text(node, "`source`")?;
    if context.sources.contains(text) {
        return Name::parse(text).ok();
    }
    let tail = text.rsplit('/').next().unwrap_or(text);
    let help = if context.functions.contains(tail) {
        format!(
            "`{tail}` is a function; for the events it publishes, write `events: {{ source: [{}] }}`",
            context.uri(tail)
        )
    } else if context.sources.contains(tail) {
        format!("write only its name: `{tail}`")
    } else if let Some(similar) = nearest(text, context.sources.iter().copied()) {
        format!("did you mean `{similar}`?")
    } else if context.sources.is_empty() {
        "the manifest declares no sources; declare the source under `sources`".to_owned()
    } else {
        format!("the manifest declares {}", join_with_and(context.sources.iter().copied().take(10)))
    };
    reader.error(node.span, format!("unknown source `{}`", excerpt(text)), help);
    None
}

pub(super) fn events(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<EventPattern> {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("a pattern must be a map from fields to values, found {}", node.describe());
        reader.error(node.span, message, "to match events by type, write `{ type: [order.placed] }`");
        return None;
    }
    let json = match node.to_json() {
        Ok(json) => json,
        Err(span) => {
            reader.error(
                span,
                "a pattern cannot contain infinity or NaN: the JSON of an event has no such numbers",
                "write a finite number",
            );
            return None;
        }
    };
    // A valid pattern that no CloudEvent can match is also a mistake.
    let checked = Pattern::parse(&json).and_then(|pattern| match pattern.never_in_cloudevents() {
        never if never.is_empty() => Ok(pattern),
        never => Err(never),
    });
    match checked {
        Ok(pattern) => {
            for PatternError { path, message, help } in pattern.hints(&RUNTIME_VALUES) {
                let help = help.unwrap_or_else(|| "check the spelling".to_owned());
                reader.warning(span_at_path(node, span, &path), message, help);
            }
            let mut text_spans = HashMap::new();
            collect_text_spans(node, &mut text_spans);
            Some(EventPattern { json, pattern, text_spans })
        }
        Err(errors) => {
            for PatternError { path, message, help } in errors {
                let span = span_at_path(node, span, &path);
                reader.error(
                    span,
                    message,
                    help.unwrap_or_else(|| "write the value of the field as a list of values and operators".to_owned()),
                );
            }
            None
        }
    }
}

/// Collects the span of the first occurrence of each string in a pattern.
fn collect_text_spans(node: &Node, text_spans: &mut HashMap<String, Span>) {
    match &node.value {
        Value::Scalar(scalar) => {
            text_spans.entry(scalar.text.clone()).or_insert(node.span);
        }
        Value::List(items) => items.iter().for_each(|item| collect_text_spans(item, text_spans)),
        Value::Map(entries) => entries.iter().for_each(|entry| collect_text_spans(&entry.node, text_spans)),
    }
}

/// Returns the span of the element at `path` inside a pattern. If the element does not exist, returns the span of the
/// longest existing part of the path. `span` is the span of the whole pattern.
fn span_at_path(mut node: &Node, mut span: Span, path: &[Segment]) -> Span {
    for segment in path {
        let next = match (segment, &node.value) {
            (Segment::Key(key), Value::Map(entries)) => {
                entries.iter().find(|entry| entry.key == *key).map(|entry| (&*entry.node, entry.key_span))
            }
            (Segment::Index(index), Value::List(items)) => items.get(*index).map(|item| (&**item, item.span)),
            _ => None,
        };
        let Some((inner, key_span)) = next else {
            return span;
        };
        span = match inner.value {
            Value::Scalar(_) => inner.span,
            Value::List(_) | Value::Map(_) => key_span,
        };
        node = inner;
    }
    span
}
