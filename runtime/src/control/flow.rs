//! The sources, triggers and functions of the active manifests, as data for a graph.

use serde::Serialize;
use serde_json::Value;

use super::functions::{full_name, trigger_name};
use super::kinds::Kind;
use evoke_manifest::{Checked, Function, Source, SourceText, Span, Trigger, TriggerSource};
use evoke_model::clock::{UnixMs, rfc3339};

/// Maximum number of lines of the manifest that are shown for a trigger.
const LINES_MAX: usize = 40;
/// Number of next times that are shown for a timer.
const NEXT_TIMES: usize = 3;

/// The graph of the active manifests: sources, functions and the event types that connect them.
#[derive(Debug, Serialize)]
pub(crate) struct Graph {
    sources: Vec<SourceNode>,
    functions: Vec<FunctionNode>,
}

#[derive(Debug, Serialize)]
struct SourceNode {
    /// The attribute `source` of the events of this source.
    uri: String,
    app: String,
    kind: &'static str,
    /// The only function that receives the events; absent if every function may receive them.
    #[serde(skip_serializing_if = "Option::is_none")]
    private_to: Option<String>,
    /// The event types that the manifest names; `*` matches any characters. Empty if the kind of the source determines
    /// the types.
    types: Vec<String>,
    /// The next times at which a timer fires, RFC 3339.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    next: Vec<String>,
    /// The settings of the source in the manifest, with references in place of the values of secrets.
    settings: Value,
}

#[derive(Debug, Serialize)]
struct FunctionNode {
    /// `app/function`.
    name: String,
    app: String,
    /// The event types that the function may publish; `*` matches any characters.
    publishes: Vec<String>,
    triggers: Vec<TriggerNode>,
    /// The settings of the function in the manifest, with defaults, and with references in place of the values of
    /// secrets.
    settings: Value,
    /// Path of the manifest, and the line of the function.
    file: String,
    line: usize,
}

#[derive(Debug, Serialize)]
struct TriggerNode {
    /// The name of the trigger, such as `on[0]`.
    name: String,
    /// The source from which the event must come; absent if events of all sources match.
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    /// The event types that the pattern allows; absent if the pattern does not name all types exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    types: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<Value>,
    /// The line of the manifest where the trigger begins.
    line: usize,
    /// The lines of the trigger in the manifest.
    text: String,
}

/// Returns the graph of the manifests. It contains, for each timer, the next times after `now_ms` at which the timer
/// fires.
pub(super) fn graph(manifests: &[Checked], now_ms: UnixMs) -> Graph {
    let sources = manifests.iter().flat_map(|checked| {
        checked
            .manifest
            .all_sources()
            .map(|(source, owner)| source_node(checked, source, owner, now_ms))
            .collect::<Vec<_>>()
    });
    let functions = manifests.iter().flat_map(|checked| {
        checked.manifest.functions.iter().map(|function| function_node(checked, function)).collect::<Vec<_>>()
    });
    Graph { sources: sources.collect(), functions: functions.collect() }
}

fn source_node(checked: &Checked, source: &Source, owner: Option<&Function>, now_ms: UnixMs) -> SourceNode {
    let next = match Kind::of(source.kind) {
        Some(Kind::Task(kind)) => kind.next_times(&source.settings, now_ms, NEXT_TIMES),
        Some(Kind::Listener(_)) | None => Vec::new(),
    };
    SourceNode {
        uri: source.uri.clone(),
        app: checked.manifest.app.as_str().to_owned(),
        kind: source.kind.key(),
        private_to: owner.map(|function| full_name(&checked.manifest, function)),
        types: source.kind.event_types(&source.settings).into_iter().map(str::to_owned).collect(),
        next: next.into_iter().map(rfc3339).collect(),
        // Never fails: manifests always serialise.
        settings: serde_json::to_value(source).unwrap_or_default(),
    }
}

fn function_node(checked: &Checked, function: &Function) -> FunctionNode {
    FunctionNode {
        name: full_name(&checked.manifest, function),
        app: checked.manifest.app.as_str().to_owned(),
        publishes: function.allow.publish.iter().map(|glob| glob.as_str().to_owned()).collect(),
        triggers: function.triggers.iter().map(|trigger| trigger_node(checked, trigger)).collect(),
        settings: serde_json::to_value(function).unwrap_or_default(),
        file: checked.source.path.display().to_string(),
        line: checked.source.position(function.spans.name.start).line,
    }
}

fn trigger_node(checked: &Checked, trigger: &Trigger) -> TriggerNode {
    let pattern = trigger.events.as_ref().map(|events| &events.pattern);
    TriggerNode {
        name: trigger_name(trigger.index).to_string(),
        source: match &trigger.source {
            TriggerSource::Any => None,
            TriggerSource::Shared(name) => checked.manifest.source(name.as_str()).map(|source| source.uri.clone()),
            TriggerSource::Private(source) => Some(source.uri.clone()),
        },
        types: pattern.and_then(|pattern| pattern.exact_values("type")),
        pattern: trigger.events.as_ref().map(|events| events.json.clone()),
        line: checked.source.position(trigger.span.start).line,
        text: lines(&checked.source, trigger.span),
    }
}

/// Returns the lines of a span, without the indentation that they share.
fn lines(source: &SourceText, span: Span) -> String {
    let (first, last) = (source.position(span.start).line, source.position(span.end).line);
    let last = last.min(first + LINES_MAX - 1);
    let text = |line| source.text.get(source.line_range(line)).unwrap_or_default().trim_end();
    let lines: Vec<&str> = (first..=last).map(text).collect();
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let shared = lines.iter().filter(|line| !line.is_empty()).map(indent).min().unwrap_or_default();
    let cut: Vec<&str> = lines.iter().map(|line| line.get(shared..).unwrap_or_default()).collect();
    cut.join("\n").trim_end().to_owned()
}
