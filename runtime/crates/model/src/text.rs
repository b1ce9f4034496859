//! Texts for users: numbers with their nouns and verbs, and untrusted text, which can be long and can have characters
//! that deceive a reader.

use std::borrow::Cow;
use std::fmt::{Display, Write as _};

/// The number of characters that [`parser_message`] keeps at the start and at the end of a long message. The end names
/// the expected form and the position.
const PARSER_START_CHARS_MAX: usize = 100;
const PARSER_END_CHARS_MAX: usize = 400;

/// Formats a number with its noun, which gets a plural ending unless the number is 1: `1 delivery`, `2 dead letters`.
pub fn count(n: impl TryInto<u64>, noun: &str) -> String {
    let n = n.try_into().unwrap_or(u64::MAX);
    let (stem, ending) = match noun.strip_suffix('y') {
        Some(stem) if n != 1 && !stem.ends_with(['a', 'e', 'o', 'u']) => (stem, "ies"),
        _ if n != 1 => (noun, "s"),
        _ => (noun, ""),
    };
    format!("{n} {stem}{ending}")
}

/// Returns `one` if the number is 1, else `many`: the verb that fits a number, as in `1 delivery waits`.
pub fn fitting<'a>(n: impl TryInto<u64>, one: &'a str, many: &'a str) -> &'a str {
    if n.try_into().unwrap_or(u64::MAX) == 1 { one } else { many }
}

/// Cuts a text to `chars_max` characters, and marks the cut with `…`.
pub fn cut(text: &str, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// Returns the message of a parser, such as an error of serde_json. If the message is long, its middle is left out.
/// Messages about a value of a wrong type, and about an unknown name, repeat the whole value or name, which can be
/// megabytes long.
pub fn parser_message(error: &impl Display) -> String {
    let message = error.to_string();
    let start = message.char_indices().nth(PARSER_START_CHARS_MAX);
    let end = message.char_indices().nth_back(PARSER_END_CHARS_MAX - 1);
    match (start, end) {
        (Some((start, _)), Some((end, _))) if start < end => {
            let part = |range: Option<&str>| range.unwrap_or_default().to_owned();
            part(message.get(..start)) + "…" + &part(message.get(end..))
        }
        _ => message,
    }
}

/// Returns true if a character can move the cursor of a terminal, change its colours, or change the order in which text
/// is shown: control characters (U+0000–U+001F, U+007F–U+009F) and bidirectional formatting characters.
pub fn is_deceptive(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes the deceptive characters ([`is_deceptive`]) beyond U+007E in JSON text, as in `\u009b`. JSON can contain
/// these only within strings, so the value does not change. White space between JSON tokens does not change.
pub fn escape_json(json: &str) -> Cow<'_, str> {
    let is_escaped = |c: char| c >= '\u{7f}' && is_deceptive(c);
    if !json.contains(is_escaped) {
        return json.into();
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_escaped(c) {
            // Writing to a string cannot fail. Four digits suffice: no escaped character is above U+FFFF.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_and_verbs_agree_with_their_numbers() {
        assert_eq!(
            [count(1u64, "delivery"), count(2u64, "delivery"), count(0u64, "event"), count(3usize, "key")],
            ["1 delivery", "2 deliveries", "0 events", "3 keys"]
        );
        assert_eq!([0u32, 1, 2].map(|n| fitting(n, "waits", "wait")), ["wait", "waits", "wait"]);
    }

    #[test]
    fn a_text_is_cut_by_its_characters() {
        assert_eq!(["", "ü", "üü", "üüa"].map(|text| cut(text, 2)), ["", "ü", "üü", "üü…"]);
    }

    #[test]
    fn the_message_of_a_parser_keeps_its_start_and_its_end() {
        let long = serde_json::json!({ "name": "\u{7f}".repeat(1_000_000) }).to_string();
        let error = serde_json::from_str::<std::collections::BTreeMap<String, u8>>(&long).unwrap_err();
        let message = parser_message(&error);
        assert_eq!(message.chars().count(), PARSER_START_CHARS_MAX + 1 + PARSER_END_CHARS_MAX);
        assert!(message.starts_with("invalid type: string \"") && message.contains("\", expected u8 at line 1 column"));
        let whole = "ü".repeat(PARSER_START_CHARS_MAX + PARSER_END_CHARS_MAX);
        assert_eq!(parser_message(&whole), whole);
    }

    #[test]
    fn escaped_json_has_no_deceptive_characters_and_the_same_value() {
        let value = "a\u{1b}[2J\u{7f}\u{9b}\u{61c}\u{200e}\u{200f}\u{202e}\u{2066}ü\u{1f600}\n";
        let json = serde_json::json!({ value: value }).to_string();
        let escaped = escape_json(&json);
        assert!(!escaped.contains(is_deceptive), "{escaped}");
        assert!(escaped.contains(r"\u001b[2J\u007f\u009b\u061c\u200e\u200f\u202e\u2066ü"), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap()[value], value);
        assert!(matches!(escape_json("{\n  \"a\": \"ü\"\n}"), Cow::Borrowed(_)));
    }
}
