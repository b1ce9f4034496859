//! The kind `files` in a manifest: its settings and their parser.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use evoke_manifest::parser::{Node, Reader, Table, ValueError, excerpt};
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
    /// A changed file becomes an event after it has not changed for this long.
    #[serde(default = "default_settle", with = "DurationText")]
    pub settle: Duration,
    /// Whether the event contains the content of the file.
    #[serde(default)]
    pub content: bool,
    /// Largest file content in an event.
    #[serde(default = "content_size_default")]
    pub max_content: ByteSize,
    /// Largest file that becomes an event. Larger files are not read; the source reports them and is degraded.
    #[serde(default = "default_max_size")]
    pub max_size: ByteSize,
    /// Whether the content of files with several hard links is read. A producer who may link other users' files into
    /// the folder could otherwise read them through the events.
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

/// Hashing this much takes a few seconds.
fn default_max_size() -> ByteSize {
    ByteSize(1 << 30)
}

fn default_existing() -> bool {
    true
}

/// Up to 1 PiB.
const MAX_SIZE_RANGE: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize(1 << 50);
const SETTLE_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
/// Paths are rarely longer, and the cost of compiling a glob grows with its length.
const GLOB_BYTES_MAX: usize = 512;

impl SourceKind for FilesKind {
    fn key(&self) -> &'static str {
        "files"
    }

    fn description(&self) -> &'static str {
        "Changes of files in a folder become events."
    }

    fn private_description(&self) -> &'static str {
        "Private files source: only this function receives its events."
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
    let include = match table.optional(reader, "include") {
        Some(node) => {
            let help = "write `[\"**/*\"]`, or remove the key";
            let items = reader.nonempty_list(node, "`include`", "the source would watch no files", help);
            globs(reader, items)
        }
        None => default_include(),
    };
    let exclude = table.optional(reader, "exclude").map(|node| reader.list(node, "`exclude`"));
    let exclude = globs(reader, exclude.unwrap_or_default());
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
        include,
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
    let path = place.folder.join(text);
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
