//! Converts the tree of a manifest to the model and reports every mistake.

mod cross_checks;
mod deliver;
mod function;
mod grant_spans;
mod http_grant;
mod limits;
mod placeholders;
mod record;
mod secrets;
mod source;
mod trigger;
mod was;

use super::diagnostics::excerpt;
use super::model::{EventPattern, Manifest};
use super::names::Name;
use super::parser::{Entry, Node, Reader, Resolved, Table, Value, ValueError};
use super::source::Registry;
use evoke_model::claim::RUNTIME_NAME;
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// Version of the manifest language that this Evoke supports.
const VERSION: u64 = 1;

/// Parts of the manifest that are needed to read a source, a function or a trigger.
struct Context<'t> {
    /// Name of the app, if it is valid.
    app: Option<Name>,
    folder: &'t Path,
    /// Kinds of sources that the manifest can have.
    kinds: &'t Registry,
    /// Names of the shared sources as written, valid or not.
    sources: BTreeSet<&'t str>,
    /// Names of the functions as written, valid or not.
    functions: BTreeSet<&'t str>,
}

impl Context<'_> {
    /// Returns `/<app>/<name>`.
    fn uri(&self, name: &str) -> String {
        format!("/{}/{name}", self.app.as_ref().map_or("", Name::as_str))
    }
}

/// Converts the tree to a manifest and reports every mistake. If an error was reported, the caller must not use the
/// manifest.
pub(super) fn read(reader: &mut Reader<'_>, root: &Node, kinds: &Registry) -> Option<Manifest> {
    let example = "`evoke: 1`, `app: NAME` and `functions:`, each on a line of its own";
    let mut table = Table::read(reader, root, root.span, "Manifest", "the manifest", example)?;
    let example = "`evoke: 1`, the version of the manifest language";
    let evoke = table.required(reader, "evoke", &["version"], example);
    if evoke.is_some_and(|node| !check_version(reader, node)) {
        return None; // another version can have other keys, so further errors would be misleading
    }
    let app = table.required(reader, "app", &["name"], "`app: NAME`; the sources of its events start with `/NAME/`");
    let app = app.and_then(|node| reader.parse_text(node, "`app`", app_name));
    let sources = match table.optional(reader, "sources") {
        Some(node) => reader.entries(node, "`sources`", "`checkout: { http: { path: /checkout } }` under it"),
        None => &[],
    };
    let functions = match table.optional(reader, "functions") {
        Some(node) => reader.entries(node, "`functions`", "`charge: { component: charge.wasm, on: [...] }` under it"),
        None => &[],
    };
    let limits_span = table.key_span("limits");
    let limits = table.optional(reader, "limits").and_then(|node| limits::limits(reader, node, limits_span));
    table.reject_unknown_keys(reader, |key| match key {
        "descendants" | "descendants_bytes" | "descendants_max" => Some("put it under `limits`"),
        "limit" | "quota" | "quotas" => Some("did you mean `limits`?"),
        "version" => Some("write the version of the manifest language as `evoke: 1`"),
        "name" => Some("write the name of the app as `app: NAME`"),
        "triggers" | "events" | "on" => Some("write the triggers of a function under its key `on`"),
        _ => None,
    });
    reject_shared_names(reader, sources, functions);

    let path = reader.source.path.clone();
    let folder = folder_of(&path);
    let context = Context {
        app,
        folder: &folder,
        kinds,
        sources: sources.iter().map(|entry| entry.key.as_str()).collect(),
        functions: functions.iter().map(|entry| entry.key.as_str()).collect(),
    };
    let read_sources =
        sources.iter().map_while(|entry| (!reader.is_full()).then(|| source::shared(reader, &context, entry)));
    let sources = read_sources.flatten().collect();
    let read_functions =
        functions.iter().map_while(|entry| (!reader.is_full()).then(|| function::function(reader, &context, entry)));
    let functions = read_functions.flatten().collect();
    let names = context.sources.union(&context.functions);
    let public_uris = names.map(|name| context.uri(name)).collect();
    let app = context.app.clone();
    let has_app_name = app.is_some();
    let app = app.unwrap_or_else(|| Name::new_unchecked("app"));
    let manifest = Manifest { evoke: 1, app, sources, functions, limits: limits.unwrap_or_default(), folder, path };
    cross_checks::sources_of_each_kind(reader, &manifest, kinds);
    was::check_unique(reader, &manifest);
    if has_app_name {
        cross_checks::event_sources(reader, &manifest, &public_uris);
    }
    if !reader.has_errors() {
        cross_checks::event_types(reader, &manifest);
        cross_checks::cycles(reader, &manifest);
    }
    placeholders::report(reader, root);
    Some(manifest)
}

/// Reads an event pattern that is not part of a manifest.
pub(super) fn pattern(reader: &mut Reader<'_>, root: &Node) -> Option<EventPattern> {
    trigger::events(reader, root, root.span)
}

/// Parses the name of the app. Rejects `evoke`, because sources that begin with `/evoke` belong to the runtime.
fn app_name(text: &str) -> Result<Name, ValueError> {
    if text == RUNTIME_NAME {
        return Err(ValueError::new(
            "an app cannot have the name `evoke`, which is reserved for the runtime",
            "write another name",
        ));
    }
    Name::parse(text)
}

/// Returns the folder in which relative paths start; the current folder for a bare file name.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn check_version(reader: &mut Reader<'_>, node: &Node) -> bool {
    let number = match &node.value {
        Value::Scalar(scalar) => match scalar.resolve() {
            Resolved::Number(number) => Some(number),
            _ => None,
        },
        _ => None,
    };
    match number {
        Some(number) if number.as_u64() == Some(VERSION) => true,
        Some(number) => {
            let message =
                format!("this Evoke supports version {VERSION} of the manifest language, not version {number}");
            let help = format!("write `evoke: {VERSION}`, or use a release of Evoke that supports the other version");
            reader.error(node.span, message, help);
            false
        }
        None => {
            let message = format!("`evoke` must be the version of the manifest language, found {}", node.describe());
            reader.error(node.span, message, format!("write `evoke: {VERSION}`"));
            true
        }
    }
}

/// Reports each name that a source and a function share. The events of the source and the events that the function
/// publishes would have the same `source` attribute, `/<app>/<name>`.
fn reject_shared_names(reader: &mut Reader<'_>, sources: &[Entry], functions: &[Entry]) {
    let sources: HashMap<&str, &Entry> = sources.iter().map(|entry| (entry.key.as_str(), entry)).collect();
    for function in functions {
        if let Some(source) = sources.get(function.key.as_str()) {
            let name = excerpt(&function.key);
            let message = format!("a source and a function have the same name `{name}`");
            let help = format!(
                "rename the source or the function: otherwise the events of the source and the events that the \
                 function publishes would have the same `source` attribute, `/APP/{name}`"
            );
            reader.error_with_related(function.key_span, message, help, (source.key_span, "the source"));
        }
    }
}
