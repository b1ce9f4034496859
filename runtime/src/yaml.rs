//! Writes JSON values as YAML.

use serde_json::{Map, Value};

use evoke_manifest::parser::{Resolved, Scalar};
use evoke_model::text::is_deceptive;

/// Values up to this number of characters, with their indentation, are written on one line.
const LINE_CHARS_MAX: usize = 100;

/// Returns the lines of a map in block style, each indented by this number of spaces.
pub(crate) fn block<'a>(entries: impl IntoIterator<Item = (&'a str, &'a Value)>, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for (key, value) in entries {
        let key = scalar(key);
        let prefix = " ".repeat(indent);
        let flow = flow(value);
        match value {
            Value::Object(map) if is_long(&flow, indent) => {
                lines.push(format!("{prefix}{key}:"));
                lines.extend(block(ordered(map), indent + 2));
            }
            Value::Array(items) if is_long(&flow, indent) => {
                lines.push(format!("{prefix}{key}:"));
                items.iter().for_each(|item| lines.extend(list_item(item, indent + 2)));
            }
            _ => lines.push(format!("{prefix}{key}: {flow}")),
        }
    }
    lines
}

/// Returns the lines of an entry of a list.
fn list_item(item: &Value, indent: usize) -> Vec<String> {
    let prefix = " ".repeat(indent);
    let flow = flow(item);
    match item {
        Value::Object(map) if is_long(&flow, indent) => {
            let mut lines = block(ordered(map), indent + 2);
            if let Some(first) = lines.first_mut() {
                *first = format!("{prefix}- {}", first.trim_start());
            }
            lines
        }
        _ => vec![format!("{prefix}- {flow}")],
    }
}

fn is_long(flow: &str, indent: usize) -> bool {
    flow.chars().count() + indent > LINE_CHARS_MAX
}

/// Returns a value on one line.
pub(crate) fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) if map.is_empty() => "{}".to_owned(),
        Value::Object(map) => {
            let entries = ordered(map).map(|(key, value)| format!("{}: {}", scalar(key), flow(value)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::String(text) => scalar(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Returns the entries of a map. The entries that identify the map, such as `type`, come first, and the data comes
/// last.
fn ordered(map: &Map<String, Value>) -> impl Iterator<Item = (&str, &Value)> {
    const FIRST: [&str; 4] = ["type", "method", "url", "subject"];
    const LAST: [&str; 3] = ["data", "data_base64", "body"];
    let of = |keys: &'static [&str]| keys.iter().filter_map(|key| map.get_key_value(*key));
    let others = map.iter().filter(|(key, _)| !FIRST.contains(&key.as_str()) && !LAST.contains(&key.as_str()));
    of(&FIRST).chain(others).chain(of(&LAST)).map(|(key, value)| (key.as_str(), value))
}

/// Writes text as a YAML scalar. Leaves out the quotes if a YAML parser reads the same text without them, both in block
/// style and in braces.
fn scalar(text: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || " _-./:@=&%+~".contains(char);
    let starts_plain = text.starts_with(|char: char| char.is_alphanumeric() || char == '/');
    let is_text = Scalar { text: text.to_owned(), plain: true }.resolve() == Resolved::Text(text);
    let is_ambiguous = text.ends_with([' ', ':']) || text.contains(": ") || text.contains("  ");
    if starts_plain && is_text && !is_ambiguous && text.chars().all(is_plain) {
        return text.to_owned();
    }
    // JSON in a text is easier to read in single quotes, which need no escapes.
    if text.contains('"') && !text.chars().any(is_escaped) {
        return format!("'{}'", text.replace('\'', "''"));
    }
    // A JSON string is also a valid YAML string in double quotes, except for characters that YAML does not allow.
    let json = Value::from(text).to_string();
    let escape = |char: char| match is_escaped(char) {
        true => format!("\\u{:04x}", u32::from(char)),
        false => char.to_string(),
    };
    json.chars().map(escape).collect()
}

/// Returns true for characters that YAML does not allow, that are not visible, or that can deceive the reader of a
/// terminal.
fn is_escaped(char: char) -> bool {
    let is_other = matches!(char, '\u{2028}' | '\u{2029}' | '\u{fe00}'..='\u{feff}' | '\u{fff0}'..='\u{ffff}');
    is_deceptive(char) || is_other
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use evoke_manifest::TestFile;

    #[test]
    fn what_is_written_is_read_back() {
        let long = "a word ".repeat(20);
        let values = json!({
            "texts": ["", " ", " \"'' ", "{\"a\": \"it's\"}", "\"\t\"", "a", "a: b", "a:", "a #b", "- a", "{a}", "x, y", "null", "true", "7", "1e3", "~", "POST https://a:80/b?c=d",
                "grün 😀", "a\u{61c}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}b", "{\"a\": \"\u{202e}\"}", "\u{0}\t\n\"\\\u{7f}\u{85}\u{2028}\u{feff}\u{fffe}", "2026-01-01T00:00:00Z", "*a", "&a", "!a", "%a", "@a", "a  b", "yes"],
            "a: b": { "": [[{}], []], "numbers": [0, -1.50, 1e300], "x": null, "y": false },
            "long": [{ "type": long, "data": { "text": long, "list": [long, long] } }, long, [long, long]],
        });
        let number = r#"{"n": 123456789012345678901234567890.10}"#;
        for value in [values, serde_json::from_str(number).unwrap(), json!({ "k": {} })] {
            let map = value.as_object().unwrap();
            let block = block(map.iter().map(|(key, value)| (key.as_str(), value)), 6).join("\n");
            assert!(!block.replace('\n', "").contains(is_deceptive), "{block}");
            for state in [format!("\n{block}\n"), format!(" {}\n", flow(&value))] {
                let text = format!("tests:\n  a:\n    state:{state}");
                let file = TestFile::parse(&text, Path::new("a.test.yaml"));
                let file = file.unwrap_or_else(|errors| panic!("{errors}\n{text}"));
                let read: Map<_, _> = file.tests[0].state.clone().unwrap().value.into_iter().collect();
                assert_eq!(Value::Object(read), value, "{text}");
            }
        }
    }

    #[test]
    fn short_values_are_on_one_line_and_say_first_what_they_are() {
        let value = json!([{ "data": { "total": 42 }, "subject": "ada", "type": "payment.taken" }, "info ada pays 42"]);
        assert_eq!(
            block([("published", &value)], 2),
            ["  published: [{ type: payment.taken, subject: ada, data: { total: 42 } }, info ada pays 42]"]
        );
    }
}
