//! Reads http, files and timer sources, shared and private.

use super::{Context, timer};
use crate::diagnostics::{ValueError, excerpt};
use crate::model::{FilesSource, HttpSource, Method, Source, SourceKind};
use crate::names::Name;
use crate::read::Reader;
use crate::source_text::Span;
use crate::suggest::nearest;
use crate::table::Table;
use crate::tree::{Entry, Node};
use crate::units::ByteSize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// The key of each source kind, with an example.
pub(super) const KINDS: [(&str, &str); 3] = [
    ("http", "`http: { path: /checkout }`"),
    ("files", "`files: { path: ./inbox }`"),
    ("timer", "`timer: { every: 1m }`"),
];

/// Range of `max_body` and `max_content`. The bus is for small events: pass larger content by reference.
const SIZE_RANGE: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize(64 << 20);
const SETTLE_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// Paths are rarely longer, and the cost of compiling a glob grows with its length.
const GLOB_BYTES_MAX: usize = 512;
/// Largest number of sources of an app. Each one needs a task, a file watch or a route while the app runs.
const SOURCES_MAX: usize = 1_000;

/// Reads one entry of `sources`.
pub(super) fn shared(reader: &mut Reader<'_>, context: &Context<'_>, entry: &Entry) -> Option<Source> {
    let name = reader.ok_or_report(entry.key_span, Name::parse(&entry.key));
    let what = format!("source `{}`", excerpt(&entry.key));
    let mut table = reader.table(&entry.node, entry.key_span, "Source", what, KINDS[0].1)?;
    let kind = read_kind(reader, context, &mut table);
    if table.is_empty() {
        let message = format!("{} has no kind", table.what());
        reader.error(table.span(), message, format!("add {}, {} or {}", KINDS[0].1, KINDS[1].1, KINDS[2].1));
    }
    reject_monitor(reader, &mut table);
    table.reject_unknown_keys(reader, |key| match key {
        "file" | "folder" | "watch" => Some("to watch a folder, write `files: { path: FOLDER }`"),
        "cron" | "schedule" => Some("for a schedule, write `timer: { cron: \"0 2 * * *\" }`"),
        "every" | "interval" => Some("for an interval, write `timer: { every: 1m }`"),
        "path" => Some("put the path under the kind of the source, as in `http: { path: /checkout }`"),
        _ => None,
    });
    let (kind, name) = (kind?, name?);
    let uri = context.uri(name.as_str());
    Some(Source { name, uri, kind, span: entry.key_span })
}

/// Reports the key `monitor`: the manifest language has monitor sources, but this version does not support them.
pub(super) fn reject_monitor(reader: &mut Reader<'_>, table: &mut Table<'_>) {
    let message = "monitor sources are not supported in this version";
    table.reject_key(reader, "monitor", message, "remove it; the supported kinds are `http`, `files` and `timer`");
}

/// Reads the source kind of a source or trigger, if it has one. Reports an error if it has more than one.
pub(super) fn read_kind(reader: &mut Reader<'_>, context: &Context<'_>, table: &mut Table<'_>) -> Option<SourceKind> {
    let mut first: Option<Span> = None;
    let mut kind = None;
    for (key, _) in KINDS {
        let Some(node) = table.optional(reader, key) else {
            continue;
        };
        let span = table.key_span(key);
        if let Some(first) = first {
            let message = format!("{} has more than one source kind", table.what());
            let help = "write a separate source or trigger for each kind";
            reader.error_with_related(span, message, help, (first, "the other kind"));
        }
        first = first.or(Some(span));
        reader.sources += 1;
        if reader.sources > SOURCES_MAX {
            if reader.sources == SOURCES_MAX + 1 {
                let message = format!("the app has more than {SOURCES_MAX} sources");
                reader.error(span, message, "split it into several apps, or let functions share sources");
            }
            continue;
        }
        let read = match key {
            "http" => http(reader, node, span).map(SourceKind::Http),
            "files" => files(reader, context, node, span).map(SourceKind::Files),
            _ => timer::timer(reader, node, span).map(SourceKind::Timer),
        };
        kind = kind.or(read);
    }
    kind
}

fn http(reader: &mut Reader<'_>, node: &Node, span: Span) -> Option<HttpSource> {
    let mut table = reader.table(node, span, "HttpSource", "an http source", "`{ path: /checkout }`")?;
    let path = table.required(reader, "path", &[], "`path: /NAME`, the URL path of the requests");
    let path = path.and_then(|node| reader.parse_text(node, "`path`", http_path));
    let methods = match table.optional(reader, "methods") {
        Some(node) => methods(reader, node),
        None => HttpSource::default_methods(),
    };
    let type_ = table.optional(reader, "type").and_then(|node| reader.parse_text(node, "`type`", event_type));
    let max_body = table.optional(reader, "max_body").and_then(|node| reader.size(node, "`max_body`", SIZE_RANGE));
    let max_body = max_body.unwrap_or_else(crate::model::event_size);
    table.reject_unknown_keys(reader, |key| match key {
        "method" => Some("write the methods as a list: `methods: [POST]`"),
        "port" | "host" | "listen" => Some("set the listen address with `evoke up --http ADDRESS`"),
        _ => None,
    });
    Some(HttpSource { path: path?, methods, type_, max_body })
}

fn http_path(text: &str) -> Result<String, ValueError> {
    let message = || format!("`{}` is not a valid request path", excerpt(text));
    if text.contains("://") {
        return Err(ValueError::new(
            message(),
            "write only the path, as in `/checkout`; set the host with `evoke up --http`",
        ));
    }
    if let Some(at) = text.find(['?', '#']) {
        let path = text.get(..at).unwrap_or("");
        return Err(ValueError::new(message(), format!("remove everything after the path: `{}`", excerpt(path))));
    }
    if !text.starts_with('/') {
        return Err(ValueError::new(message(), format!("start it with a slash: `/{}`", excerpt(text))));
    }
    // RFC 3986, section 3.3: the characters that a path can have unescaped. A request never contains others.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if let Some(char) = text.chars().find(|char| !u8::try_from(*char).is_ok_and(is_allowed)) {
        let message = format!("{}: `{}` must be escaped", message(), excerpt(&char.to_string()));
        let mut bytes = [0; 4];
        let escaped: String = char.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect();
        return Err(ValueError::new(message, format!("write `{escaped}` instead")));
    }
    if let Some(placeholder) = text.split('/').find(|part| part.starts_with(':') || *part == "*") {
        let message = format!("{}: the placeholder `{}` is not supported", message(), excerpt(placeholder));
        return Err(ValueError::new(
            message,
            "write a fixed path, because paths are compared exactly; put variable parts in the body",
        ));
    }
    Ok(text.to_owned())
}

fn event_type(text: &str) -> Result<String, ValueError> {
    if text.chars().any(|char| char.is_whitespace() || char.is_control()) {
        let message = format!("the event type `{}` contains white space", excerpt(text));
        let joined: String = text.split_whitespace().collect::<Vec<_>>().join(".");
        return Err(ValueError::new(message, format!("write `{}`", excerpt(&joined))));
    }
    Ok(text.to_owned())
}

fn methods(reader: &mut Reader<'_>, node: &Node) -> Vec<Method> {
    let help = "write `[POST]`, or remove the key";
    let items = reader.nonempty_list(node, "`methods`", "the source would accept no requests", help);
    let mut methods = Vec::new();
    for item in items {
        let Some(method) = reader.parse_text(item, "a method", method) else {
            continue;
        };
        if methods.contains(&method) {
            reader.error(item.span, format!("duplicate method `{}`", method.as_str()), "remove one of them");
        } else {
            methods.push(method);
        }
    }
    methods
}

fn method(text: &str) -> Result<Method, ValueError> {
    let names = Method::ALL.map(Method::as_str);
    if let Some(method) = Method::ALL.into_iter().find(|method| method.as_str() == text) {
        return Ok(method);
    }
    let help = match nearest(text, names) {
        Some(similar) => format!("write `{similar}`"),
        None => format!("write one of {}", names.join(", ")),
    };
    Err(ValueError::new(format!("`{}` is not a supported HTTP method", excerpt(text)), help))
}

fn files(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, span: Span) -> Option<FilesSource> {
    let mut table = reader.table(node, span, "FilesSource", "a files source", "`{ path: ./inbox }`")?;
    let path_node =
        table.required(reader, "path", &["folder", "dir", "directory"], "`path: ./FOLDER`, the folder to watch");
    let path = path_node.and_then(|node| Some((node, reader.text(node, "`path`")?)));
    let path = path.and_then(|(node, text)| folder(reader, context, node, text));
    let include = match table.optional(reader, "include") {
        Some(node) => {
            let help = "write `[\"**/*\"]`, or remove the key";
            let items = reader.nonempty_list(node, "`include`", "the source would watch no files", help);
            globs(reader, items)
        }
        None => FilesSource::default_include(),
    };
    let exclude = table.optional(reader, "exclude").map(|node| reader.list(node, "`exclude`"));
    let exclude = globs(reader, exclude.unwrap_or_default());
    let settle = table.optional(reader, "settle").and_then(|node| reader.duration(node, "`settle`", SETTLE_RANGE));
    let content = table.optional(reader, "content").and_then(|node| reader.boolean(node, "`content`")).unwrap_or(false);
    let max_content =
        table.optional(reader, "max_content").and_then(|node| reader.size(node, "`max_content`", SIZE_RANGE));
    if table.has("max_content") && !content {
        let help = "add `content: true`, or remove `max_content`";
        reader.warning(
            table.key_span("max_content"),
            "`max_content` has no effect: the event does not contain the file content",
            help,
        );
    }
    let existing = table.optional(reader, "existing").and_then(|node| reader.boolean(node, "`existing`"));
    table.reject_unknown_keys(reader, |key| match key {
        "recursive" => Some("remove it: subfolders are always watched; to exclude them, write `include: [\"*\"]`"),
        "pattern" | "glob" | "match" => Some("to select files, write `include: [\"**/*.csv\"]`"),
        "ignore" => Some("to ignore files, write `exclude: [\"**/*.tmp\"]`"),
        "debounce" | "delay" => Some("to set how long a file must be unchanged, write `settle: 200ms`"),
        "max_body" => Some("did you mean `max_content`?"),
        _ => None,
    });
    Some(FilesSource {
        path: path?,
        include,
        exclude,
        settle: settle.unwrap_or_else(FilesSource::default_settle),
        content,
        max_content: max_content.unwrap_or_else(crate::model::event_size),
        existing: existing.unwrap_or_else(FilesSource::default_existing),
    })
}

fn folder(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, text: &str) -> Option<PathBuf> {
    if text.contains(['*', '?']) {
        let message = format!("`{}` is not a folder: `path` does not support wildcards", excerpt(text));
        reader.error(node.span, message, "write the path of the folder, and select files with `include`");
        return None;
    }
    let path = context.folder.join(text);
    if path.is_file() {
        let message = format!("`{}` is a file, not a folder", excerpt(text));
        reader.error(node.span, message, "write the path of its folder, and select files with `include`");
        return None;
    }
    Some(path)
}

fn globs(reader: &mut Reader<'_>, items: &[Rc<Node>]) -> Vec<String> {
    items.iter().filter_map(|item| reader.parse_text(item, "a glob", glob)).collect()
}

fn glob(text: &str) -> Result<String, ValueError> {
    if text.len() > GLOB_BYTES_MAX {
        let message = format!("the glob `{}` is longer than {GLOB_BYTES_MAX} bytes", excerpt(text));
        return Err(ValueError::new(message, "write several globs"));
    }
    let relative = text.trim_start_matches("./").trim_start_matches('/');
    if relative.len() < text.len() {
        let message = format!("the glob `{}` can never match: globs are relative to the folder", excerpt(text));
        return Err(ValueError::new(message, format!("write `{}`", excerpt(relative))));
    }
    if text.split('/').any(|part| part == "..") {
        let message = format!("the glob `{}` can never match: `..` is outside the folder", excerpt(text));
        return Err(ValueError::new(message, "set `path` to the parent folder"));
    }
    match globset::GlobBuilder::new(text).literal_separator(true).build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            let message = format!("`{}` is not a valid glob: {}", excerpt(text), error.kind());
            Err(ValueError::new(
                message,
                "`*` matches any characters, `**` any folders, `?` one character, `[ab]` one of `a` and `b`, `{a,b}` either text",
            ))
        }
    }
}
