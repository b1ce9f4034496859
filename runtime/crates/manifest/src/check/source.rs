//! Reads the sources of a manifest, shared and private. The kind of a source, such as `files`, parses the settings of
//! the source.

use super::Context;
use crate::diagnostics::excerpt;
use crate::names::Name;
use crate::parser::{Entry, Reader, Table};
use crate::source::{Place, Settings, Source, SourceKind};
use crate::source_text::Span;

/// Largest number of sources of an app. Each one needs a task, a file watch or a route while the app runs.
const SOURCES_MAX: usize = 1_000;

/// Reads one entry of `sources`.
pub(super) fn shared(reader: &mut Reader<'_>, context: &Context<'_>, entry: &Entry) -> Option<Source> {
    let name = reader.ok_or_report(entry.key_span, Name::parse(&entry.key));
    let what = format!("source `{}`", excerpt(&entry.key));
    let examples: Vec<&str> = context.kinds.iter().map(SourceKind::example).collect();
    let example = examples.first().copied().unwrap_or_default();
    let mut table = Table::read(reader, &entry.node, entry.key_span, "Source", what, example)?;
    let kind = read_kind(reader, context, &mut table);
    if table.is_empty() {
        let message = format!("{} has no kind", table.what());
        let examples = match examples.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        reader.error(table.span(), message, format!("add {examples}"));
    }
    table.reject_unknown_keys(reader, |key| hint(context, key));
    let ((kind, settings), name) = (kind?, name?);
    let uri = context.uri(name.as_str());
    Some(Source { name, uri, kind, settings, span: entry.key_span })
}

/// Returns a help text for a wrong key, from the first kind that has one.
pub(super) fn hint(context: &Context<'_>, key: &str) -> Option<&'static str> {
    context.kinds.iter().find_map(|kind| kind.hint(key))
}

/// Reads the kind and the settings of a shared source, or of the private source of a trigger. Returns `None` if the map
/// has no kind, or if mistakes leave no usable settings. Reports an error if the map has more than one kind.
pub(super) fn read_kind(
    reader: &mut Reader<'_>,
    context: &Context<'_>,
    table: &mut Table<'_>,
) -> Option<(&'static dyn SourceKind, Settings)> {
    let mut first: Option<Span> = None;
    let mut found = None;
    for kind in context.kinds.iter() {
        let Some(node) = table.optional(reader, kind.key()) else {
            continue;
        };
        let key_span = table.key_span(kind.key());
        if let Some(first) = first {
            let message = format!("{} has more than one source kind", table.what());
            let help = "write a separate source or trigger for each kind";
            reader.error_with_related(key_span, message, help, (first, "the other kind"));
        }
        first = first.or(Some(key_span));
        reader.sources += 1;
        if reader.sources > SOURCES_MAX {
            if reader.sources == SOURCES_MAX + 1 {
                let message = format!("the app has more than {SOURCES_MAX} sources");
                reader.error(key_span, message, "split it into several apps, or let functions share sources");
            }
            continue;
        }
        let settings = kind.parse(reader, node, &Place { key_span, folder: context.folder });
        found = found.or(settings.map(|settings| (kind, settings)));
    }
    found
}
