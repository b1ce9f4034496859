//! Reads the earlier names of functions.

use super::Context;
use crate::diagnostics::{ValueError, excerpt};
use crate::model::{EarlierName, Manifest};
use crate::names::Name;
use crate::parser::{Node, Reader};
use crate::source_text::Span;
use std::collections::HashMap;

/// Reads the earlier names of `function`. Reports a name that another function of the manifest has now, because that
/// function keeps its own data.
pub(super) fn earlier_names(
    reader: &mut Reader<'_>,
    context: &Context<'_>,
    node: &Node,
    function: &str,
) -> Vec<EarlierName> {
    let mut names = Vec::new();
    for item in reader.list(node, "`was`") {
        let app = context.app.as_ref().map_or("", Name::as_str);
        let Some(name) = reader.parse_text(item, "an earlier name", |text| earlier_name(app, text)) else { continue };
        let text = name.as_str();
        if text == function {
            let message = format!("`{}` is the present name of the function", excerpt(text));
            reader.error(item.span, message, "write the earlier names of the function, or remove `was`");
        } else if context.functions.contains(text) {
            let message = format!(
                "`{0}` cannot take over the data of `{1}`, which is still in the manifest",
                excerpt(function),
                text
            );
            let help = format!(
                "remove `{text}` from `was`; to take over its data, remove the function `{text}` from the manifest"
            );
            reader.error(item.span, message, help);
        } else {
            names.push(EarlierName { name, span: item.span });
        }
    }
    names
}

fn earlier_name(app: &str, text: &str) -> Result<Name, ValueError> {
    let Some((of_app, name)) = text.trim_start_matches('/').split_once('/') else { return Name::parse(text) };
    let message = format!("`{}` is not the name of a function of this app", excerpt(text));
    Err(match Name::parse(name) {
        Ok(name) if of_app == app => ValueError::new(message, format!("write only its name: `{name}`")),
        _ => ValueError::new(
            message,
            "a function takes over the data of functions of its own app only; `evoke pending move` moves pending \
             deliveries from another app",
        ),
    })
}

/// Reports earlier names that are listed twice: only one function can take over the data of a name.
pub(super) fn check_unique(reader: &mut Reader<'_>, manifest: &Manifest) {
    let mut listed: HashMap<&str, (&Name, Span)> = HashMap::new();
    for function in &manifest.functions {
        for earlier in &function.was {
            let name = earlier.name.as_str();
            let Some((other, span)) = listed.insert(name, (&function.name, earlier.span)) else { continue };
            let message = match *other == function.name {
                true => format!("`{name}` is listed twice"),
                false => format!("`{name}` is an earlier name of both `{other}` and `{}`", function.name),
            };
            let help = "remove one of the two entries: only one function can take over the data stored under a name";
            reader.error_with_related(earlier.span, message, help, (span, "first listed here"));
        }
    }
}
