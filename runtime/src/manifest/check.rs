//! Walks the tree of a manifest to its checked form, noting every mistake on the way.

mod cron;
mod function;
mod source;
mod timer;
mod trigger;
mod whole;

use super::diagnostics::{Diagnostic, shown};
use super::model::Manifest;
use super::names::Name;
use super::read::Reader;
use super::source_text::SourceText;
use super::tree::{Entry, Node, Resolved, Value};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The version of the language that this Evoke reads.
const VERSION: u64 = 1;

/// Makes the checked form. It means nothing when an error was found.
pub(super) fn manifest(root: &Node, source: &Arc<SourceText>, found: &mut Vec<Diagnostic>) -> Option<Manifest> {
    read(&mut Reader::new(source, found), root)
}

/// What is around a source, a function or a trigger while it is read.
struct Context<'t> {
    /// The app, where its name is one.
    app: Option<Name>,
    folder: &'t Path,
    /// Names of the shared sources and of the functions as they are written, right or wrong.
    sources: BTreeSet<&'t str>,
    functions: BTreeSet<&'t str>,
}

impl Context<'_> {
    /// `/<app>/<name>`.
    fn uri(&self, name: &str) -> String {
        format!("/{}/{name}", self.app.as_ref().map_or("", Name::as_str))
    }
}

pub(super) fn read(reader: &mut Reader<'_>, root: &Node) -> Option<Manifest> {
    let example = "`evoke: 1`, `app: NAME` and `functions:`, each on a line of its own";
    let mut table = reader.table(root, root.span, "Manifest", "the manifest", example)?;
    let example = "`evoke: 1`, the version of the language it is written in";
    let evoke = table.required(reader, "evoke", &["version"], example);
    if evoke.is_some_and(|node| !version(reader, node)) {
        return None; // another version has other keys: nothing more can be said of them
    }
    let app = table.required(reader, "app", &["name"], "`app: NAME`; the sources of its events start with `/NAME/`");
    let app = app.and_then(|node| reader.parsed(node, "`app`", Name::parse));
    let sources = match table.optional(reader, "sources") {
        Some(node) => reader.entries(node, "sources", "`checkout: { http: { path: /checkout } }`"),
        None => &[],
    };
    let functions = match table.optional(reader, "functions") {
        Some(node) => reader.entries(node, "functions", "`charge: { component: charge.wasm, on: [...] }`"),
        None => &[],
    };
    table.close(reader, |key| match key {
        "version" => Some("the version of the language is the value of `evoke`"),
        "name" => Some("the name of the app is the value of `app`"),
        "triggers" | "events" | "on" => Some("a function's triggers are its `on`"),
        _ => None,
    });
    shared_names(reader, sources, functions);

    let path = reader.source.path.clone();
    let folder = folder_of(&path);
    let context = Context {
        app,
        folder: &folder,
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
    let open = names.map(|name| context.uri(name)).collect();
    let app = context.app.clone();
    let named = app.is_some();
    let app = app.unwrap_or_else(|| Name::trusted("app"));
    let manifest = Manifest { evoke: 1, app, sources, functions, folder, path };
    whole::http_paths(reader, &manifest);
    if named {
        whole::event_sources(reader, &manifest, &open);
    }
    if !reader.has_errors() {
        whole::event_types(reader, &manifest);
        whole::cycles(reader, &manifest);
    }
    Some(manifest)
}

/// The folder that relative paths start from; the current one for a bare file name.
fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn version(reader: &mut Reader<'_>, node: &Node) -> bool {
    let number = match &node.value {
        Value::Scalar(scalar) => match scalar.resolve() {
            Resolved::Number(number) => Some(number),
            _ => None,
        },
        _ => None,
    };
    match number.as_ref().map(serde_json::Number::as_u64) {
        Some(Some(VERSION)) => true,
        Some(version) => {
            let version = version.map_or_else(|| "that".to_owned(), |version| version.to_string());
            let message = format!("this Evoke reads version {VERSION} of the language, not version {version}");
            reader.error(node.span, message, format!("write `evoke: {VERSION}`, or use an Evoke that reads the other"));
            false
        }
        None => {
            let message = format!("`evoke` is the version of the language, this is {}", node.described());
            reader.error(node.span, message, format!("write `evoke: {VERSION}`"));
            true
        }
    }
}

/// Sources and functions share the names behind `/<app>/`.
fn shared_names(reader: &mut Reader<'_>, sources: &[Entry], functions: &[Entry]) {
    let sources: HashMap<&str, &Entry> = sources.iter().map(|entry| (entry.key.as_str(), entry)).collect();
    for function in functions {
        if let Some(source) = sources.get(function.key.as_str()) {
            let message = format!("`{}` is the name of a source and of a function", shown(&function.key));
            let help = "rename one of them: both would be the source of events as `/APP/NAME`";
            reader.error_beside(function.key_span, message, help, (source.key_span, "the source"));
        }
    }
}
