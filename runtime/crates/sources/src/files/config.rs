//! The kind `files` in a manifest: its settings and their parser.

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::globs::{self, List};
use evoke_manifest::parser::{Node, Reader, Span, Table, excerpt};
use evoke_manifest::paths::check_path;
use evoke_manifest::source::{CONTENT_SIZE_RANGE, content_size_default};
use evoke_manifest::units::DurationText;
use evoke_manifest::{ByteSize, Place, Settings, SourceKind};

/// The kind `files`.
#[derive(Debug)]
pub struct FilesKind;

/// Files that are created, changed or removed in a folder and its subfolders become events.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct FilesSource {
    /// Folder to watch, with all its subfolders.
    #[schemars(length(min = 1))]
    pub path: PathBuf,
    /// Globs of the files to watch, relative to the folder.
    #[serde(default = "default_include")]
    #[schemars(length(min = 1))]
    pub include: Vec<String>,
    /// Globs of files to ignore, even if they match `include`.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// How long a file must be unchanged before its change becomes an event.
    #[serde(default = "default_settle", with = "DurationText")]
    pub settle: Duration,
    /// Whether the event contains the content of the file.
    #[serde(default)]
    pub content: bool,
    /// Maximum size of the content in an event. The event of a larger file has no content.
    #[serde(default = "content_size_default")]
    pub max_content: ByteSize,
    /// Maximum size of a file. Larger files are not read and cause no events; the source reports them and is degraded.
    #[serde(default = "default_max_size")]
    pub max_size: ByteSize,
    /// Whether the content of files with several hard links is read. If so, a user who can link the files of other
    /// users into the folder can read these files through the events.
    #[serde(default)]
    pub hard_links: bool,
    /// Whether files that exist at the first start become events too.
    #[serde(default = "default_existing")]
    pub existing: bool,
}

fn default_include() -> Vec<String> {
    vec!["**/*".to_owned()]
}

fn default_settle() -> Duration {
    Duration::from_millis(200)
}

/// 1 GiB: hashing a file of this size takes a few seconds.
fn default_max_size() -> ByteSize {
    ByteSize(1 << 30)
}

fn default_existing() -> bool {
    true
}

/// From 1 byte to 1 PiB.
const MAX_SIZE_RANGE: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize(1 << 50);
const SETTLE_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);

impl SourceKind for FilesKind {
    fn key(&self) -> &'static str {
        "files"
    }

    fn description(&self) -> &'static str {
        "Changes of files in a folder become events."
    }

    fn private_description(&self) -> &'static str {
        "Private source for files: only this function receives its events."
    }

    fn example(&self) -> &'static str {
        "`files: { path: ./inbox }`"
    }

    fn hint(&self, key: &str) -> Option<&'static str> {
        match key {
            "file" | "folder" | "watch" => Some("to watch a folder, write `files: { path: FOLDER }`"),
            _ => None,
        }
    }

    fn parse(&self, reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Settings> {
        parse(reader, node, place).map(Settings::new)
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<FilesSource>()
    }
}

fn parse(reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<FilesSource> {
    let mut table = Table::read(reader, node, place.key_span, "FilesSource", "a files source", "`{ path: ./inbox }`")?;
    let path_node =
        table.required(reader, "path", &["folder", "dir", "directory"], "`path: ./FOLDER`, the folder to watch");
    let path = path_node.and_then(|node| Some((node, reader.text(node, "`path`")?)));
    let path = path.and_then(|(node, text)| folder(reader, place, node, text));
    let include: Vec<(String, Option<Span>)> = match table.optional(reader, "include") {
        Some(node) => {
            let help = "write `[\"**/*\"]`, or remove the key";
            let items = reader.nonempty_list(node, "`include`", "the source would watch no files", help);
            read_globs(reader, items, List::Include).into_iter().map(|(glob, span)| (glob, Some(span))).collect()
        }
        None => default_include().into_iter().map(|glob| (glob, None)).collect(),
    };
    let exclude = table.optional(reader, "exclude").map(|node| reader.list(node, "`exclude`"));
    let exclude = read_globs(reader, exclude.unwrap_or_default(), List::Exclude);
    let exclude: Vec<String> = exclude.into_iter().map(|(glob, _)| glob).collect();
    check_excluded(reader, &include, &exclude, table.key_span("exclude"));
    let settle = table.optional(reader, "settle").and_then(|node| reader.duration(node, "`settle`", SETTLE_RANGE));
    let content = table.optional(reader, "content").and_then(|node| reader.boolean(node, "`content`")).unwrap_or(false);
    let max_content =
        table.optional(reader, "max_content").and_then(|node| reader.size(node, "`max_content`", CONTENT_SIZE_RANGE));
    if table.has("max_content") && !content {
        let help = "add `content: true`, or remove `max_content`";
        reader.warning(
            table.key_span("max_content"),
            "`max_content` has no effect: the event does not contain the file content",
            help,
        );
    }
    let max_size = table.optional(reader, "max_size");
    let max_size = max_size.and_then(|node| reader.size(node, "`max_size`", MAX_SIZE_RANGE));
    let hard_links = table.optional(reader, "hard_links");
    let hard_links = hard_links.and_then(|node| reader.boolean(node, "`hard_links`")).unwrap_or(false);
    if hard_links && !content {
        let message = "`hard_links` has no effect: the event does not contain the file content";
        reader.warning(table.key_span("hard_links"), message, "add `content: true`, or remove `hard_links`");
    }
    let existing = table.optional(reader, "existing").and_then(|node| reader.boolean(node, "`existing`"));
    table.reject_unknown_keys(reader, |key| match key {
        "recursive" => Some("remove it: subfolders are always watched; to exclude them, write `include: [\"*\"]`"),
        "pattern" | "glob" | "match" => Some("to select files, write `include: [\"**/*.csv\"]`"),
        "ignore" => Some("to ignore files, write `exclude: [\"**/*.tmp\"]`"),
        "debounce" | "delay" => Some("to set how long a file must be unchanged, write `settle: 200ms`"),
        "max_body" => Some("did you mean `max_content`?"),
        "max_file_size" | "size_max" => Some("did you mean `max_size`?"),
        "follow_links" | "follow_symlinks" | "symlinks" => {
            Some("remove it: symbolic links are never followed; to read hard links, write `hard_links: true`")
        }
        _ => None,
    });
    Some(FilesSource {
        path: path?,
        include: include.into_iter().map(|(glob, _)| glob).collect(),
        exclude,
        settle: settle.unwrap_or_else(default_settle),
        content,
        max_content: max_content.unwrap_or_else(content_size_default),
        max_size: max_size.unwrap_or_else(default_max_size),
        hard_links,
        existing: existing.unwrap_or_else(default_existing),
    })
}

fn folder(reader: &mut Reader<'_>, place: &Place<'_>, node: &Node, text: &str) -> Option<PathBuf> {
    if text.contains(['*', '?']) {
        let message = format!("`{}` is not a folder: `path` does not support wildcards", excerpt(text));
        reader.error(node.span, message, "write the path of the folder, and select files with `include`");
        return None;
    }
    reader.ok_or_report(node.span, check_path(place.folder, text))?;
    let path = place.folder.join(text);
    let shown = excerpt(text);
    let unreadable = match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => {
            let message = format!("`{shown}` is a file, not a folder");
            reader.error(node.span, message, "write the path of its folder, and select files with `include`");
            return None;
        }
        Ok(found) if !found.is_dir() => {
            let message = format!("`{shown}` is a pipe, a socket or a device, not a folder");
            reader.error(node.span, message, "write the path of a folder");
            return None;
        }
        Ok(_) => std::fs::read_dir(&path).err(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let help = "create it, or correct the path (relative to the manifest); until then, the source is degraded";
            reader.warning(node.span, format!("the folder `{shown}` does not exist"), help);
            None
        }
        Err(error) if error.kind() == ErrorKind::NotADirectory => {
            let message = format!("`{shown}` is not a folder: a part of its path is a file");
            reader.error(node.span, message, "write the path of a folder");
            return None;
        }
        Err(error) => Some(error),
    };
    if let Some(error) = unreadable {
        let help = "allow the user that runs Evoke to read the folder; the source is degraded until then";
        reader.warning(node.span, format!("the folder `{shown}` cannot be read: {error}"), help);
    }
    Some(path)
}

/// Reads the globs of a list. Returns each glob with its span.
fn read_globs(reader: &mut Reader<'_>, items: &[Rc<Node>], list: List) -> Vec<(String, Span)> {
    let glob = |item: &Rc<Node>| {
        let glob = reader.parse_advised(item, "a glob", |text| globs::parse(text, list), |glob| globs::advice(glob))?;
        Some((glob, item.span))
    };
    items.iter().filter_map(glob).collect()
}

/// Reports globs of `include` whose files are all excluded. `span` is the span of the key `exclude`.
fn check_excluded(reader: &mut Reader<'_>, include: &[(String, Option<Span>)], exclude: &[String], span: Span) {
    let texts: Vec<String> = include.iter().map(|(glob, _)| glob.clone()).collect();
    let excluded = globs::excluded(&texts, exclude);
    if excluded.len() == include.len() && !include.is_empty() {
        let message = "`exclude` excludes every file that `include` matches: the source would watch no files";
        reader.error(span, message, "remove a glob of `exclude` that matches all these files, or make it narrower");
        return;
    }
    for (glob, span) in excluded.into_iter().filter_map(|index| include.get(index)) {
        let Some(span) = span else { continue };
        let message = format!("`exclude` excludes every file that `{}` matches", excerpt(glob));
        reader.warning(*span, message, "remove this glob, or remove the glob of `exclude` that matches the same files");
    }
}
