//! Sources: http, files and timer, shared ones and those of one function.

use super::Context;
use crate::manifest::diagnostics::{Wrong, shown};
use crate::manifest::forms::TimerForm;
use crate::manifest::model::{
    FilesSource, HttpSource, Method, Missed, Schedule, Source, SourceKind, TimerSource,
};
use crate::manifest::names::Name;
use crate::manifest::read::{Reader, Table};
use crate::manifest::source_text::Span;
use crate::manifest::suggest::nearest;
use crate::manifest::tree::{Entry, Node, Value};
use crate::manifest::units::ByteSize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
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
const INTERVALS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(366 * 86_400);
const MISSED_MAX: u32 = 10_000;
const MISSED_ALL: u32 = 1_000;

/// A source that the manifest declares under a name.
pub(super) fn shared(reader: &mut Reader<'_>, context: &Context<'_>, entry: &Entry) -> Option<Source> {
    let name = reader.checked(entry.key_span, Name::parse(&entry.key));
    let what = format!("source `{}`", shown(&entry.key));
    let mut table = reader.table(&entry.node, entry.key_span, "SourceKind", what, KINDS[0].1)?;
    let kind = one_kind(reader, context, &mut table);
    if kind.is_none() && !KINDS.iter().any(|(key, _)| table.has(key)) && !table.has("monitor") {
        let message = format!("{} does not say what it is", table.what());
        reader.error(table.place(), message, format!("give it {}, {} or {}", KINDS[0].1, KINDS[1].1, KINDS[2].1));
    }
    close(reader, table);
    let (kind, name) = (kind?, name?);
    let uri = context.uri(name.as_str());
    Some(Source { name, uri, kind, span: entry.key_span })
}

/// Closes a table that may have held a kind of source.
pub(super) fn close(reader: &mut Reader<'_>, table: Table<'_>) {
    table.close(reader, |key| match key {
        "monitor" => Some("monitor sources are not available in this version; there are `http`, `files` and `timer`"),
        "file" | "folder" | "watch" => Some("files of a folder are `files: { path: FOLDER }`"),
        "cron" | "schedule" => Some("a schedule is `timer: { cron: \"0 2 * * *\" }`"),
        "every" | "interval" => Some("an interval is `timer: { every: 1m }`"),
        "path" => Some("a path belongs to a kind of source, as in `http: { path: /checkout }`"),
        _ => None,
    });
}

/// The one kind that a table has, read. More than one is an error.
pub(super) fn one_kind(reader: &mut Reader<'_>, context: &Context<'_>, table: &mut Table<'_>) -> Option<SourceKind> {
    let mut first: Option<Span> = None;
    let mut kind = None;
    for (key, _) in KINDS {
        let Some(node) = table.optional(reader, key) else { continue };
        let span = table.key_span(key);
        if let Some(first) = first {
            let message = format!("{} is two things at once", table.what());
            let help = "make each a source, or a trigger, of its own";
            reader.error_beside(span, message, help, (first, "this too"));
        }
        first = first.or(Some(span));
        let read = match key {
            "http" => http(reader, node, span).map(SourceKind::Http),
            "files" => files(reader, context, node, span).map(SourceKind::Files),
            _ => timer(reader, node, span).map(SourceKind::Timer),
        };
        kind = kind.or(read);
    }
    kind
}

fn http(reader: &mut Reader<'_>, node: &Node, place: Span) -> Option<HttpSource> {
    let mut table = reader.table(node, place, "HttpSource", "an http source", "`{ path: /checkout }`")?;
    let path = table.required(reader, "path", "`path: /NAME`, where requests come in");
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
        return Err(Wrong::new(message(), "write the path alone, as in `/checkout`; the host is said with `evoke up --http`"));
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
    let items = reader.list(node, "`methods`");
    if items.is_empty() && matches!(node.value, Value::List(_)) {
        reader.error(node.span, "`methods` is empty: nothing could come in", "write `[POST]`, or leave the key out");
    }
    let mut methods = Vec::new();
    for item in items {
        let Some(method) = reader.parsed(item, "a method", method) else { continue };
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
    let path_node = table.required(reader, "path", "`path: ./FOLDER`, the folder whose files are events");
    let path = path_node.and_then(|node| Some((node, reader.text(node, "`path`")?)));
    let path = path.and_then(|(node, text)| folder(reader, context, node, text));
    let include = match table.optional(reader, "include") {
        Some(node) => globs(reader, node, "`include`"),
        None => FilesSource::default_include(),
    };
    if let (true, Some(node)) = (include.is_empty(), table.optional(reader, "include")) {
        if matches!(&node.value, Value::List(items) if items.is_empty()) {
            reader.error(node.span, "`include` is empty: no file would count", "write `[\"**/*\"]`, or leave the key out");
        }
    }
    let exclude = table.optional(reader, "exclude").map(|node| globs(reader, node, "`exclude`")).unwrap_or_default();
    let settle = table.optional(reader, "settle").and_then(|node| reader.duration(node, "`settle`", SETTLES));
    let content = table.optional(reader, "content").and_then(|node| reader.boolean(node, "`content`")).unwrap_or(false);
    let max_content = table.optional(reader, "max_content").and_then(|node| reader.size(node, "`max_content`", SIZES));
    if table.has("max_content") && !content {
        let help = "add `content: true`, or remove `max_content`";
        reader.warning(table.key_span("max_content"), "`max_content` does nothing: the event does not carry the content", help);
    }
    let existing = table.optional(reader, "existing").and_then(|node| reader.boolean(node, "`existing`"));
    table.close(reader, |key| match key {
        "recursive" => Some("remove it: folders below the folder are always watched; `include: [\"*\"]` takes only its own files"),
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

fn globs(reader: &mut Reader<'_>, node: &Node, what: &str) -> Vec<String> {
    let items = reader.list(node, what);
    items.iter().filter_map(|item| reader.parsed(item, "a glob", glob)).collect()
}

fn glob(text: &str) -> Result<String, Wrong> {
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
            Err(Wrong::new(message, "`*` is any run of characters, `**` any folders, `?` one character, `[ab]` one of these, `{a,b}` either"))
        }
    }
}

fn timer(reader: &mut Reader<'_>, node: &Node, place: Span) -> Option<TimerSource> {
    let mut table = reader.table(node, place, "Timer", "a timer", "`{ every: 1m }` or `{ cron: \"0 2 * * *\" }`")?;
    let cron_node = table.optional(reader, "cron");
    let cron = cron_node.and_then(|node| reader.parsed(node, "`cron`", cron));
    let timezone = table.optional(reader, "timezone").and_then(|node| reader.parsed(node, "`timezone`", timezone));
    let every_node = table.optional(reader, "every");
    let every = every_node.and_then(|node| reader.duration(node, "`every`", INTERVALS));
    let missed = table.optional(reader, "missed").and_then(|node| missed(reader, node)).unwrap_or_default();
    match (table.has("cron"), table.has("every")) {
        (false, false) => reader.error(table.place(), "a timer without a schedule", "add `every: 1m` or `cron: \"0 2 * * *\"`"),
        (true, true) => {
            let other = (table.key_span("cron"), "the other schedule");
            reader.error_beside(table.key_span("every"), "a timer has one schedule, this has two", "keep `cron` or `every`", other);
        }
        (false, true) if table.has("timezone") => {
            let message = "`timezone` does nothing beside `every`: an interval has no time zone";
            reader.error(table.key_span("timezone"), message, "remove it, or write a `cron` expression instead of `every`");
        }
        _ => {}
    }
    table.close(reader, |key| match key {
        "tz" | "time_zone" | "zone" => Some("did you mean `timezone`?"),
        "interval" | "period" => Some("did you mean `every`?"),
        "schedule" => Some("did you mean `cron`?"),
        _ => None,
    });
    let schedule = match (cron, every) {
        (Some(expr), _) => Schedule::Cron { expr, timezone: timezone.unwrap_or_else(TimerForm::default_timezone) },
        (None, Some(every)) => Schedule::Every { every },
        (None, None) => return None,
    };
    Some(TimerSource { schedule, missed })
}

fn cron(text: &str) -> Result<String, Wrong> {
    const FIELDS: &str = "minute, hour, day of month, month, day of week";
    let fields = text.split_whitespace().count();
    if !text.starts_with('@') && !(5..=6).contains(&fields) {
        let message = format!("a cron expression has 5 fields, or 6 with seconds first; `{}` has {fields}", shown(text));
        return Err(Wrong::new(message, format!("the fields are {FIELDS}, as in `0 2 * * *`: every day at 02:00")));
    }
    let parser = croner::parser::CronParser::builder().seconds(croner::parser::Seconds::Optional).build();
    let wrong = |why: String| {
        let order = if fields == 6 { format!("second, {FIELDS}") } else { FIELDS.to_owned() };
        Wrong::new(format!("`{}` is not a cron expression: {why}", shown(text)), format!("the fields are {order}"))
    };
    let parsed = parser.parse(text).map_err(|error| wrong(cron_reason(&error)))?;
    // Whether there is a next time at all. The rarest day, 29 February on a given weekday, comes back within
    // 40 years; croner searches to the year 5000, and starting late keeps the search for no day short.
    let day = jiff::civil::date(4950, 1, 1).at(0, 0, 0, 0);
    parsed.find_next_occurrence(&day, true).map_err(|_| {
        let message = format!("the cron expression `{}` has no time at all: no such day is in the calendar", shown(text));
        Wrong::new(message, "choose a day that the month has")
    })?;
    Ok(text.to_owned())
}

fn cron_reason(error: &croner::errors::CronError) -> String {
    use croner::errors::CronError;
    let text = match error {
        CronError::InvalidPattern(text) | CronError::IllegalCharacters(text) | CronError::ComponentError(text) => text.clone(),
        other => other.to_string(),
    };
    let text = shown(text.trim_end_matches('.'));
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

fn timezone(text: &str) -> Result<String, Wrong> {
    if jiff::tz::TimeZone::get(text).is_ok() {
        return Ok(text.to_owned());
    }
    let database = jiff::tz::db();
    let known: Vec<String> = database.available().map(|name| name.as_str().to_owned()).collect();
    let city = |name: &&String| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(text));
    let help = match nearest(text, known.iter().map(String::as_str)).or(known.iter().find(city).map(String::as_str)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None if known.is_empty() => "this machine has no time zone database; install the package `tzdata`".to_owned(),
        None => "write a name of the IANA database, such as `Europe/Berlin` or `UTC`".to_owned(),
    };
    Err(Wrong::new(format!("there is no time zone `{}`", shown(text)), help))
}

fn missed(reader: &mut Reader<'_>, node: &Node) -> Option<Missed> {
    if matches!(node.value, Value::Map(_)) {
        let mut table = reader.table(node, node.span, "MissedAtMost", "`missed`", "`all`")?;
        let all = table.required(reader, "all", "`all: N`, how many ticks are made up for at most");
        let all = all.and_then(|node| reader.integer(node, "`all`", 1..=MISSED_MAX));
        table.close(reader, |_| None);
        return all.map(Missed::All);
    }
    reader.parsed(node, "`missed`", |text| match text {
        "none" => Ok(Missed::None),
        "last" => Ok(Missed::Last),
        "all" => Ok(Missed::All(MISSED_ALL)),
        _ => {
            let help = match nearest(text, ["none", "last", "all"]) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "write `none`, `last`, `all` or `{ all: 100 }`".to_owned(),
            };
            Err(Wrong::new(format!("`{}` does not say what becomes of missed ticks", shown(text)), help))
        }
    })
}
