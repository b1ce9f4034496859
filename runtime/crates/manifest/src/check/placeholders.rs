//! Reports placeholders of other tools, such as `${VARIABLE}`, because Evoke does not replace them when it reads a
//! manifest. For Evoke's own templates, whose placeholders are replaced by values of requests and events, see
//! [`crate::template`].

use crate::diagnostics::{Diagnostic, Severity, excerpt};
use crate::parser::{Node, Reader, Value};
use crate::source_text::Span;
use std::collections::HashSet;

/// The way in which a value of the manifest is used.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// A value that Evoke reads.
    Setting,
    /// A template of Evoke, in which `{{` is the character `{`.
    Template,
    /// A value that a function reads. The function can use the value as a template of its own.
    Text,
}

/// Reports every placeholder, such as `${VARIABLE}` or `{{ name }}`. Removes other errors about the same value, because
/// the placeholder is their probable cause.
pub(super) fn report(reader: &mut Reader<'_>, root: &Node) {
    let mut found = Vec::new();
    find(root, Place::Setting, &mut found);
    let errors: HashSet<Span> =
        found.iter().filter(|(.., place)| *place != Place::Text).map(|(span, ..)| *span).collect();
    if !errors.is_empty() {
        reader.found.retain(|other| other.span.is_none_or(|span| !errors.contains(&span)));
    }
    for (span, placeholder, place) in found {
        if reader.is_full() {
            break;
        }
        let message = format!("`{}` is not replaced: a manifest has no variables", excerpt(&placeholder));
        let help = "write the value itself; a function gets the value of an environment variable with \
                    `allow: { secrets: { KEY: { env: VARIABLE } } }`";
        let severity = if place == Place::Text { Severity::Warning } else { Severity::Error };
        let diagnostic = Diagnostic { severity, ..Diagnostic::error(reader.source, span, message) };
        reader.found.push(diagnostic.help(help));
    }
}

fn find(node: &Node, place: Place, found: &mut Vec<(Span, String, Place)>) {
    match &node.value {
        Value::Scalar(scalar) => {
            if let Some(placeholder) = placeholder(&scalar.text, place) {
                found.push((node.span, placeholder.to_owned(), place));
            }
        }
        Value::List(items) => items.iter().for_each(|item| find(item, place, found)),
        Value::Map(entries) => {
            for entry in entries {
                match entry.key.as_str() {
                    // A shell runs the command of `build` and replaces its variables. The values of the other keys
                    // here, among them the patterns in `events`, have checks of their own, with better help texts.
                    "build" | "env" | "component" | "file" | "path" | "include" | "exclude" | "events"
                        if place == Place::Setting => {}
                    "type" | "subject" | "id" | "attributes" | "body" | "headers" if place == Place::Setting => {
                        find(&entry.node, Place::Template, found);
                    }
                    "config" => find(&entry.node, Place::Text, found),
                    _ => find(&entry.node, place, found),
                }
            }
        }
    }
}

/// Returns the first placeholder in a text. A function can use a text of [`Place::Text`] as a template. In such a text,
/// a placeholder counts only if it is the whole text, or if it is `${NAME}` with a name in capital letters.
fn placeholder(text: &str, place: Place) -> Option<&str> {
    let within = |open: &str, close: &str| {
        let (before, rest) = text.split_once(open)?;
        let (inner, after) = rest.split_once(close)?;
        Some((text.get(before.len()..text.len() - after.len())?, inner))
    };
    if let Some((placeholder, inner)) = within("${", "}") {
        let name = inner.split([':', '-', '?', '=']).next().unwrap_or_default();
        let is_variable = |is_allowed: fn(u8) -> bool| {
            !name.is_empty() && !name.starts_with(|char: char| char.is_ascii_digit()) && name.bytes().all(is_allowed)
        };
        let is_upper = is_variable(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        let is_any = is_variable(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_upper || (is_any && (place != Place::Text || placeholder == text)) {
            return Some(placeholder);
        }
    }
    if place == Place::Template {
        return None;
    }
    let (placeholder, inner) = within("{{", "}}")?;
    let inner = inner.trim();
    let is_name = !inner.is_empty()
        && inner.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b' ' | b'-' | b'|'));
    (is_name && (place == Place::Setting || placeholder == text)).then_some(placeholder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_found_and_other_text_is_not() {
        for text in ["${PORT}", "x-${name}", "${PORT:-8080}", "{{ name }}", "/a/{{.Values.path}}", "{{ x | quote }}"] {
            assert!(placeholder(text, Place::Setting).is_some(), "{text}");
        }
        assert!(placeholder("x-${name}", Place::Template).is_some());
        assert_eq!(placeholder("a {{ name }}", Place::Template), None);
        for text in ["", "$5", "${}", "${", "${a b}", "{{}}", "{{", "{a}", "{\"a\":{\"b\":{}}}", "a}}b{{c"] {
            assert_eq!(placeholder(text, Place::Setting), None, "{text}");
        }
    }

    #[test]
    fn a_template_for_a_function_is_no_mistake() {
        for text in ["Dear {{name}}", "a ${name} b", "Hello {{ first }} {{ last }}"] {
            assert_eq!(placeholder(text, Place::Text), None, "{text}");
        }
        for text in ["{{ name }}", "${name}", "https://${HOST}/x"] {
            assert!(placeholder(text, Place::Text).is_some(), "{text}");
        }
    }
}
