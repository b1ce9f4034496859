//! Sources: http, files and timer, shared ones and those of one function.

use super::{Context, timer};
use crate::manifest::diagnostics::{Wrong, shown};
use crate::manifest::model::{FilesSource, HttpSource, Method, Source, SourceKind};
use crate::manifest::names::Name;
use crate::manifest::read::Reader;
use crate::manifest::source_text::Span;
use crate::manifest::suggest::nearest;
use crate::manifest::table::Table;
use crate::manifest::tree::{Entry, Node};
use crate::manifest::units::ByteSize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

/// The keys that say what a source is, with what one looks like.
pub(super) const KINDS: [(&str, &str); 3] = [
    ("http", "`http: { path: /checkout }`"),
    ("files", "`files: { path: ./inbox }`"),
    ("timer", "`timer: { every: 1m }`"),
];

/// A body or content larger than this does not fit a bus of small events; it goes by reference.
const SIZES: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize(64 << 20);
const SETTLES: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// A path is hardly longer, and what a glob costs to compile grows with it.
const GLOB_BYTES_MAX: usize = 512;
/// Each source is a task, a watch or a route while the app runs.
const SOURCES_MAX: usize = 1_000;

/// A source that the manifest declares under a name.
pub(super) fn shared(reader: &mut Reader<'_>, context: &Context<'_>, entry: &Entry) -> Option<Source> {
    let name = reader.checked(entry.key_span, Name::parse(&entry.key));
    let what = format!("source `{}`", shown(&entry.key));
    let mut table = reader.table(&entry.node, entry.key_span, "Source", what, KINDS[0].1)?;
    let kind = one_kind(reader, context, &mut table);
    if table.is_empty() {
        let message = format!("{} does not say what it is", table.what());
        reader.error(table.place(), message, format!("give it {}, {} or {}", KINDS[0].1, KINDS[1].1, KINDS[2].1));
    }
    refuse_monitor(reader, &mut table);
    table.close(reader, |key| match key {
        "file" | "folder" | "watch" => Some("files of a folder are `files: { path: FOLDER }`"),
        "cron" | "schedule" => Some("a schedule is `timer: { cron: \"0 2 * * *\" }`"),
        "every" | "interval" => Some("an interval is `timer: { every: 1m }`"),
        "path" => Some("a path belongs to a kind of source, as in `http: { path: /checkout }`"),
        _ => None,
    });
    let (kind, name) = (kind?, name?);
    let uri = context.uri(name.as_str());
    Some(Source { name, uri, kind, span: entry.key_span })
}

/// The language has monitors, this version does not.
pub(super) fn refuse_monitor(reader: &mut Reader<'_>, table: &mut Table<'_>) {
    let message = "monitor sources are not available in this version";
    table.refuse(reader, "monitor", message, "remove it; there are `http`, `files` and `timer` sources");
}

/// The one kind that a table has, read. More than one is an error.
pub(super) fn one_kind(reader: &mut Reader<'_>, context: &Context<'_>, table: &mut Table<'_>) -> Option<SourceKind> {
    let mut first: Option<Span> = None;
    let mut kind = None;
    for (key, _) in KINDS {
        let Some(node) = table.optional(reader, key) else {
            continue;
        };
        let span = table.key_span(key);
        if let Some(first) = first {
            let message = format!("{} is two things at once", table.what());
            let help = "make each a source, or a trigger, of its own";
            reader.error_beside(span, message, help, (first, "this too"));
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

fn http(reader: &mut Reader<'_>, node: &Node, place: Span) -> Option<HttpSource> {
    let mut table = reader.table(node, place, "HttpSource", "an http source", "`{ path: /checkout }`")?;
    let path = table.required(reader, "path", &[], "`path: /NAME`, where requests come in");
    let path = path.and_then(|node| reader.parsed(node, "`path`", http_path));
    let methods = match table.optional(reader, "methods") {
        Some(node) => methods(reader, node),
        None => HttpSource::default_methods(),
    };
    let type_ = table.optional(reader, "type").and_then(|node| reader.parsed(node, "`type`", event_type));
    let max_body = table.optional(reader, "max_body").and_then(|node| reader.size(node, "`max_body`", SIZES));
    let max_body = max_body.unwrap_or_else(crate::manifest::model::event_size);
    table.close(reader, |key| match key {
        "method" => Some("the methods are a list: `methods: [POST]`"),
        "port" | "host" | "listen" => Some("where Evoke listens is said with `evoke up --http ADDRESS`"),
        _ => None,
    });
    Some(HttpSource { path: path?, methods, type_, max_body })
}

fn http_path(text: &str) -> Result<String, Wrong> {
    let message = || format!("`{}` is not the path of a request", shown(text));
    if text.contains("://") {
        return Err(Wrong::new(
            message(),
            "write the path alone, as in `/checkout`; the host is said with `evoke up --http`",
        ));
    }
    if let Some(at) = text.find(['?', '#']) {
        let path = text.get(..at).unwrap_or("");
        return Err(Wrong::new(message(), format!("leave out what is behind the path: `{}`", shown(path))));
    }
    if !text.starts_with('/') {
        return Err(Wrong::new(message(), format!("start it with a slash: `/{}`", shown(text))));
    }
    // RFC 3986, section 3.3: what a path may have without being escaped; anything else never comes in a request.
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&byte);
    if let Some(char) = text.chars().find(|char| !u8::try_from(*char).is_ok_and(legal)) {
        let message = format!("{}: `{}` must be escaped in it", message(), shown(&char.to_string()));
        let mut bytes = [0; 4];
        let escaped: String = char.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect();
        return Err(Wrong::new(message, format!("write `{escaped}` for it")));
    }
    if let Some(parameter) = text.split('/').find(|part| part.starts_with(':') || *part == "*") {
        let message = format!("{}: it has the placeholder `{}`", message(), shown(parameter));
        return Err(Wrong::new(message, "a path is taken exactly as it stands; put what varies into the body"));
    }
    Ok(text.to_owned())
}

fn event_type(text: &str) -> Result<String, Wrong> {
    if text.chars().any(|char| char.is_whitespace() || char.is_control()) {
        let message = format!("the event type `{}` has white space in it", shown(text));
        let fixed: String = text.split_whitespace().collect::<Vec<_>>().join(".");
        return Err(Wrong::new(message, format!("write `{}`", shown(&fixed))));
    }
    Ok(text.to_owned())
}

fn methods(reader: &mut Reader<'_>, node: &Node) -> Vec<Method> {
    let help = "write `[POST]`, or leave the key out";
    let items = reader.filled_list(node, "`methods`", "nothing could come in", help);
    let mut methods = Vec::new();
    for item in items {
        let Some(method) = reader.parsed(item, "a method", method) else {
            continue;
        };
        if methods.contains(&method) {
            reader.error(item.span, format!("`{}` is here twice", method.as_str()), "remove one of them");
        } else {
            methods.push(method);
        }
    }
    methods
}

fn method(text: &str) -> Result<Method, Wrong> {
    let names = Method::ALL.map(Method::as_str);
    if let Some(method) = Method::ALL.into_iter().find(|method| method.as_str() == text) {
        return Ok(method);
    }
    let help = match nearest(text, names) {
        Some(meant) => format!("write `{meant}`"),
        None => format!("there are {}", names.join(", ")),
    };
    Err(Wrong::new(format!("`{}` is not a method that a source takes", shown(text)), help))
}

fn files(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, place: Span) -> Option<FilesSource> {
    let mut table = reader.table(node, place, "FilesSource", "a files source", "`{ path: ./inbox }`")?;
    let path_node = table.required(
        reader,
        "path",
        &["folder", "dir", "directory"],
        "`path: ./FOLDER`, the folder whose files are events",
    );
    let path = path_node.and_then(|node| Some((node, reader.text(node, "`path`")?)));
    let path = path.and_then(|(node, text)| folder(reader, context, node, text));
    let include = match table.optional(reader, "include") {
        Some(node) => {
            let help = "write `[\"**/*\"]`, or leave the key out";
            let items = reader.filled_list(node, "`include`", "no file would count", help);
            globs(reader, items)
        }
        None => FilesSource::default_include(),
    };
    let exclude = table.optional(reader, "exclude").map(|node| reader.list(node, "`exclude`"));
    let exclude = globs(reader, exclude.unwrap_or_default());
    let settle = table.optional(reader, "settle").and_then(|node| reader.duration(node, "`settle`", SETTLES));
    let content = table.optional(reader, "content").and_then(|node| reader.boolean(node, "`content`")).unwrap_or(false);
    let max_content = table.optional(reader, "max_content").and_then(|node| reader.size(node, "`max_content`", SIZES));
    if table.has("max_content") && !content {
        let help = "add `content: true`, or remove `max_content`";
        reader.warning(
            table.key_span("max_content"),
            "`max_content` does nothing: the event does not carry the content",
            help,
        );
    }
    let existing = table.optional(reader, "existing").and_then(|node| reader.boolean(node, "`existing`"));
    table.close(reader, |key| match key {
        "recursive" => {
            Some("remove it: folders below the folder are always watched; `include: [\"*\"]` takes only its own files")
        }
        "pattern" | "glob" | "match" => Some("the files that count are `include: [\"**/*.csv\"]`"),
        "ignore" => Some("the files that do not count are `exclude: [\"**/*.tmp\"]`"),
        "debounce" | "delay" => Some("how long a file must rest is `settle: 200ms`"),
        "max_body" => Some("did you mean `max_content`?"),
        _ => None,
    });
    Some(FilesSource {
        path: path?,
        include,
        exclude,
        settle: settle.unwrap_or_else(FilesSource::default_settle),
        content,
        max_content: max_content.unwrap_or_else(crate::manifest::model::event_size),
        existing: existing.unwrap_or_else(FilesSource::default_existing),
    })
}

fn folder(reader: &mut Reader<'_>, context: &Context<'_>, node: &Node, text: &str) -> Option<PathBuf> {
    if text.contains(['*', '?']) {
        let message = format!("`{}` is not a folder: `path` has no wildcards", shown(text));
        reader.error(node.span, message, "name the folder, and say with `include` which files count");
        return None;
    }
    let path = context.folder.join(text);
    if path.is_file() {
        let message = format!("`{}` is a file, not a folder", shown(text));
        reader.error(node.span, message, "name its folder, and say with `include` which files count");
        return None;
    }
    Some(path)
}

fn globs(reader: &mut Reader<'_>, items: &[Rc<Node>]) -> Vec<String> {
    items.iter().filter_map(|item| reader.parsed(item, "a glob", glob)).collect()
}

fn glob(text: &str) -> Result<String, Wrong> {
    if text.len() > GLOB_BYTES_MAX {
        let message = format!("the glob `{}` is longer than {GLOB_BYTES_MAX} bytes", shown(text));
        return Err(Wrong::new(message, "write several globs"));
    }
    let relative = text.trim_start_matches("./").trim_start_matches('/');
    if relative.len() < text.len() {
        let message = format!("the glob `{}` can never match: it is relative to the folder", shown(text));
        return Err(Wrong::new(message, format!("write `{}`", shown(relative))));
    }
    if text.split('/').any(|part| part == "..") {
        let message = format!("the glob `{}` can never match: `..` leaves the folder", shown(text));
        return Err(Wrong::new(message, "watch the folder above with `path`"));
    }
    match globset::GlobBuilder::new(text).literal_separator(true).build() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => {
            let message = format!("`{}` is not a glob: {}", shown(text), error.kind());
            Err(Wrong::new(
                message,
                "`*` is any run of characters, `**` any folders, `?` one character, `[ab]` one of these, `{a,b}` either",
            ))
        }
    }
}
