//! Order keys: a function handles events with the same key one after another.
//!
//! # The key of a value
//! - An attribute, or a string in the data: the text itself.
//! - A number: its canonical text without rounding ([`canonical_number`]). `1`, `1.0` and `10e-1` have the key `1`; two
//!   numbers have the same key only if they are equal, however many digits they have. The string of the canonical text
//!   has the same key as the number: producers may write an identifier as `1` or as `"1"`. The strings `"1.0"` and
//!   `"01"` have other keys.
//! - `true` or `false`: this word.
//! - An object or an array: its JSON text without white space, with the members of objects sorted by name and with
//!   canonical numbers ([`canonical_json`]).
//! - There is no key if the value is `null`, if the field or attribute is missing, or if the data is not a JSON object.
//!   Such an event is not ordered with any other event.
//!
//! A producer chooses the length of these texts, and the store keeps each key in a row, in an index and in memory. So
//! if the text is longer than 256 bytes, the key is `sha256:` and the SHA-256 of the text in hexadecimal.
//!
//! If an object has several members with the same name, the last one counts. An unpaired surrogate is read as U+FFFD.
//! Patterns follow the same two rules.
//!
//! Earlier versions wrote other keys for some values: numbers such as `1.0`, numbers with an exponent or with more than
//! 64 bits, objects and arrays with such numbers, and texts of more than 256 bytes. The store keeps the key of each
//! delivery. So deliveries that were stored with another key before an upgrade are not ordered with later deliveries.

use sha2::{Digest as _, Sha256};

use evoke_model::event::{Event, PRINCIPAL};
use evoke_model::hex;
use evoke_pattern::{canonical_json, canonical_number};

/// The part of an event that is its order key. A function handles events with the same key one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBy {
    /// An attribute of the event, such as `subject` or an extension.
    Attribute(String),
    /// A field of the event's JSON data, given as the path of member names.
    Data(Vec<String>),
}

/// Maximum length of a key in bytes.
const KEY_BYTES_MAX: usize = 256;

/// Returns the order key of an event, or `None` if the event is not ordered.
pub(super) fn order_key(event: &Event, by: &OrderBy) -> Option<String> {
    let key = text(event, by)?;
    if key.len() <= KEY_BYTES_MAX {
        return Some(key);
    }
    let digest: [u8; 32] = Sha256::digest(key).into();
    Some(format!("sha256:{}", hex(&digest)))
}

fn text(event: &Event, by: &OrderBy) -> Option<String> {
    match by {
        OrderBy::Attribute(name) if name == PRINCIPAL => event.principal.as_deref().map(str::to_owned),
        OrderBy::Attribute(name) => event.attributes().find(|(n, _)| n == name).map(|(_, value)| value.to_owned()),
        OrderBy::Data(path) => key(event.data.field(path)?),
    }
}

/// Returns the key of a JSON value.
fn key(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        // serde_json rejects a string only if it has an unpaired surrogate. The canonical text has U+FFFD instead.
        b'"' => {
            let text = |json: &str| serde_json::from_str::<String>(json);
            text(json).or_else(|_| text(&canonical_json(json).unwrap_or_default())).ok()
        }
        b'n' => None,
        b'-' | b'0'..=b'9' => Some(canonical_number(json)),
        b't' | b'f' => Some(json.to_owned()),
        // An object or an array. The value is valid JSON, because the router has checked the data.
        _ => canonical_json(json).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evoke_model::event::Data;

    fn key_at(path: &str, json: &str) -> Option<String> {
        let event = Event { data: Data::Json(json.to_owned().into()), ..Event::default() };
        order_key(&event, &OrderBy::Data(path.split('.').map(str::to_owned).collect()))
    }

    fn key_of(value: &str) -> Option<String> {
        key_at("a.b", &format!(r#"{{"x":[1,{{"a":2}}],"a":{{"c":null,"b":{value}}},"y":{{"b":3}}}}"#))
    }

    #[test]
    fn equal_numbers_have_one_key_however_they_are_written() {
        for (key, numbers) in [
            ("1", &["1", "1.0", "1.000", "1e0", "1E+0", "10e-1", "0.1e1", "0.0001e4", "\"1\""][..]),
            ("0", &["0", "-0", "0.0", "0e99", "-0.000e-5"]),
            ("-1.5", &["-1.5", "-1.50", "-15e-1", "-0.15E1"]),
            ("100", &["100", "1e2", "100.00", "1.0e+2"]),
            ("0.001", &["0.001", "1e-3", "0.0010", "10e-4"]),
            ("0.0000001", &["0.0000001", "1e-7", "10E-8"]),
            ("0.125e61", &["1.25e60", "125e58", "0.125e61"]),
            ("18446744073709551617", &["18446744073709551617", "18446744073709551617.0"]),
            ("9007199254740993", &["9007199254740993", "9007199254740993.0"]),
            ("0.1000000000000000055511151231257827", &["0.1000000000000000055511151231257827"]),
        ] {
            for number in numbers {
                assert_eq!(key_of(number).as_deref(), Some(key), "{number}");
            }
        }
    }

    #[test]
    fn the_principal_is_a_key_and_an_attribute_of_its_name_is_not() {
        let by = OrderBy::Attribute(PRINCIPAL.to_owned());
        let claimed = Event { extensions: [(PRINCIPAL.to_owned(), "x".to_owned())].into(), ..Event::default() };
        assert_eq!(order_key(&claimed, &by), None);
        let verified = Event { principal: Some("github".into()), ..claimed };
        assert_eq!(order_key(&verified, &by).as_deref(), Some("github"));
        let pattern = |json| evoke_pattern::Pattern::parse(&json).unwrap();
        let [named, any] =
            [serde_json::json!({ "principal": ["x"] }), serde_json::json!({ "principal": [{ "exists": true }] })]
                .map(pattern);
        assert!(!named.matches(&(&verified).into()).unwrap() && any.matches(&(&verified).into()).unwrap());
        let claimed = Event { principal: None, ..verified };
        assert!(!named.matches(&(&claimed).into()).unwrap() && !any.matches(&(&claimed).into()).unwrap());
    }

    #[test]
    fn different_values_have_different_keys() {
        let values = [
            "1",
            "10",
            "-1",
            "0.1",
            "0",
            "1e1000",
            "1e1001",
            "1e-1000",
            "9007199254740992",
            "9007199254740993",
            "\"1.0\"",
            "\"01\"",
            "\"\"",
            "true",
            "false",
            "{}",
            "[]",
            "[1]",
            "{\"a\":1}",
        ];
        let keys: std::collections::BTreeSet<_> = values.iter().map(|value| key_of(value).unwrap()).collect();
        assert_eq!(keys.len(), values.len(), "{keys:?}");
    }

    #[test]
    fn strings_words_objects_and_arrays_have_their_text_as_key() {
        assert_eq!(key_of(r#""a\u00fc\"b""#).as_deref(), Some("aü\"b"));
        assert_eq!(key_of("true").as_deref(), Some("true"));
        assert_eq!(key_of(r#"{ "b": [1, 2], "a": "x" }"#).as_deref(), Some(r#"{"a":"x","b":[1,2]}"#));
        assert_eq!(key_of("[1.0, 1e400]").as_deref(), Some("[1,0.1e401]"));
    }

    #[test]
    fn every_value_that_an_event_can_have_has_a_key() {
        let deep = format!("{}1{}", "[".repeat(126), "]".repeat(126));
        for (value, key) in [
            (r#""a\ud800b""#, "a\u{fffd}b"),
            (r#"["\udc00"]"#, "[\"\u{fffd}\"]"),
            (r#"{"$serde_json::private::Number":"x"}"#, r#"{"$serde_json::private::Number":"x"}"#),
            (&deep, &deep),
        ] {
            assert_eq!(key_of(value).as_deref(), Some(key));
        }
        // Members beside the field, whose names are not valid Unicode.
        assert_eq!(key_at("b", r#"{"\ud800":0,"b":"x","\ud800x":1}"#).as_deref(), Some("x"));
    }

    #[test]
    fn a_missing_field_and_null_have_no_key() {
        assert_eq!(key_of("null"), None);
        for json in ["{}", "[]", "1", "null", r#"{"a":1}"#, r#"{"a":[{"b":1}]}"#, r#"{"a":{"B":1}}"#, r#"{"a.b":1}"#] {
            assert_eq!(key_at("a.b", json), None, "{json}");
        }
        assert_eq!(order_key(&Event::default(), &OrderBy::Data(vec!["a".to_owned()])), None);
    }

    #[test]
    fn the_last_of_two_members_with_the_same_name_counts() {
        assert_eq!(key_at("a", r#"{"a":1,"b":0,"\u0061":2}"#).as_deref(), Some("2"));
        assert_eq!(key_at("a", r#"{"a":1,"a":null}"#), None);
    }

    #[test]
    fn a_value_of_any_length_has_a_short_key_of_its_own() {
        let long = |digit: &str| digit.repeat(100_000);
        let text = |digit: &str| format!("\"{}\"", long(digit));
        let list = |digit: &str| format!("[{}{digit}]", "1,".repeat(100_000));
        let values = [long("7"), long("8"), text("a"), text("b"), list("2"), list("3")];
        let keys: std::collections::BTreeSet<_> = values.iter().map(|value| key_of(value).unwrap()).collect();
        assert_eq!(keys.len(), values.len());
        assert!(keys.iter().all(|key| key.starts_with("sha256:") && key.len() == 71), "{keys:?}");
        // A number and the string of its canonical text have one key, however long they are.
        assert_eq!(key_of(&long("7")), key_of(&text("7")));
        for length in [KEY_BYTES_MAX, KEY_BYTES_MAX + 1] {
            let subject = "s".repeat(length);
            let event = Event { subject: Some(subject.clone()), ..Event::default() };
            let key = order_key(&event, &OrderBy::Attribute("subject".to_owned())).unwrap();
            assert_eq!(key == subject, length <= KEY_BYTES_MAX, "{length}");
        }
    }
}
