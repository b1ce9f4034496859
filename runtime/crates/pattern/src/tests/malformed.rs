//! Valid and invalid JSON, in the style of a conformance suite. Each case is tried as the value of a field that a
//! pattern tests, as the value of another field, and as the data of an event.

use serde_json::json;

use super::super::{DataView, EventView, Matcher};
use super::pattern;

const INVALID: &[&str] = &[
    "",
    " ",
    "{",
    "[",
    "]",
    "}",
    "[1",
    "[1,",
    "[1,]",
    "[,1]",
    "[1,,2]",
    "[1 2]",
    "[1}",
    "{\"a\":1]",
    "{\"a\":1,}",
    "{\"a\"}",
    "{\"a\":}",
    "{:1}",
    "{,}",
    "{a:1}",
    "{'a':1}",
    "{1:1}",
    "{\"a\" 1}",
    "{\"a\"::1}",
    "{\"a\":1 \"b\":2}",
    "{null:1}",
    "'a'",
    "\"",
    "\"a",
    "\"\\",
    "\"\\\"",
    "\"\\a\"",
    "\"\\x00\"",
    "\"\\u\"",
    "\"\\u0\"",
    "\"\\u00\"",
    "\"\\u000\"",
    "\"\\u000g\"",
    "\"\\U0041\"",
    "\"\\ud800\\u\"",
    "\"\\u-123\"",
    "\"\\u+123\"",
    "\"\n\"",
    "\"\t\"",
    "\"\u{0}\"",
    "\"\u{1f}\"",
    "01",
    "-01",
    "00",
    "-",
    "+1",
    "1.",
    ".1",
    "-.1",
    "1.e1",
    "1e",
    "1e+",
    "1E-",
    "1ee1",
    "1e1.5",
    "0x1",
    "1_000",
    "1,5",
    "--1",
    "1-1",
    "NaN",
    "nan",
    "Infinity",
    "-Infinity",
    "inf",
    "True",
    "TRUE",
    "tru",
    "truee",
    "nul",
    "nulll",
    "none",
    "undefined",
    "1 2",
    "1 x",
    "\"a\"b",
    "// c\n1",
    "/* c */1",
    "1 // c",
    "\u{feff}1",
    "\u{a0}1",
    "1\u{2028}",
    "\u{c}1",
    "\u{b}1",
    "\\u0031",
    "[\"a\\\\\"a]",
    "{\"a\":1}}",
    "[1]]",
    "*",
    "&",
    "(1)",
    "<a>",
    "[1;2]",
    "=1",
];

const INVALID_BYTES: &[&[u8]] = &[
    b"\"\xff\"",
    b"\"\xc0\x80\"",
    b"\"\xc3\"",
    b"\"\xc3\x28\"",
    b"\"\xed\xa0\x80\"",
    b"\"\xf4\x90\x80\x80\"",
    b"\"\xf8\x88\x80\x80\x80\"",
    b"\"\xe2\x82\"",
    b"\"\xf0\x28\x8c\xbc\"",
    b"\xff1",
    b"1\xff",
    b"{\"\xff\":1}",
    b"[\xff]",
    b"\xef\xbb\xbf1",
    b"\xfe\xff\x00\x31",
    b"1\x00",
    b"\x00",
    b"[\"\x80\"]",
];

const VALID: &[&str] = &[
    "0",
    "-0",
    "1",
    "-1",
    "10",
    "0.1",
    "-0.0",
    "1e1",
    "1E1",
    "1e+1",
    "1e-1",
    "1.5E-10",
    "1e400",
    "-1e400",
    "1e-400",
    "123456789012345678901234567890",
    "null",
    "true",
    "false",
    "\"\"",
    "\"a\"",
    "\" \"",
    "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
    "\"\\u0000\"",
    "\"\\u00e9\\u20AC\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "\"\\udc00\\ud800\"",
    "\"\\ud800a\"",
    "\"\u{7f}\"",
    "\"é€😀\"",
    "\"\u{2028}\u{feff}\"",
    "[]",
    "[ ]",
    "{}",
    "{ }",
    " [ 1 , 2 ] ",
    "\t\r\n 1 \t\r\n",
    "[[],{}]",
    "{\"\":0}",
    "{\"a\":{\"b\":[null]}}",
    "{\"a\":1,\"a\":2}",
    "{\"\\u0061\":1}",
    "[1,[2,[3]]]",
];

/// Returns true if an event with this value is accepted. Tries the value in each place and checks that the results
/// agree.
fn is_accepted(value: &[u8]) -> bool {
    let mut matcher = Matcher::default();
    matcher.insert((), &pattern(&json!({ "data": { "x": [1], "y": { "a": ["b"] } }, "x": { "a": ["b"] } })));
    let surround = |before: &str, after: &str| [before.as_bytes(), value, after.as_bytes()].concat();
    let mut accepted = Vec::new();
    for text in [
        surround("{\"other\":", "}"),
        surround("{\"x\":", "}"),
        surround("{\"data\":{\"x\":", "}}"),
        surround("{\"data\":{\"y\":[", "]}}"),
    ] {
        accepted.push(matcher.matches_json(&text).is_ok());
    }
    accepted.push(matcher.matches(&EventView::new([], DataView::Json(value))).is_ok());
    let data = surround("{\"x\":", "}");
    accepted.push(matcher.matches(&EventView::new([], DataView::Json(&data))).is_ok());
    let empty: Matcher<()> = Matcher::default();
    accepted.push(empty.matches(&EventView::new([], DataView::Json(value))).is_ok());
    let first = accepted[0];
    // A value that is not valid alone can be valid in one of the places, because its brackets can pair with the
    // brackets around it.
    assert!(
        accepted.iter().all(|result| *result == first) || !accepted[4],
        "{}: {accepted:?}",
        String::from_utf8_lossy(value)
    );
    accepted[4]
}

#[test]
fn invalid_json_is_rejected_in_every_place() {
    for text in INVALID {
        assert!(!is_accepted(text.as_bytes()), "{text:?} is accepted");
    }
    for bytes in INVALID_BYTES {
        assert!(!is_accepted(bytes), "{bytes:?} is accepted");
    }
}

#[test]
fn valid_json_is_accepted_in_every_place() {
    for text in VALID {
        assert!(is_accepted(text.as_bytes()), "{text:?} is rejected");
    }
}

#[test]
fn every_truncated_event_is_rejected() {
    let mut matcher = Matcher::default();
    matcher.insert((), &pattern(&json!({ "a": { "b": [1] }, "s": ["x"] })));
    let text = r#" {"a": [{"b": -1.5e3}, {"b": [true, null]}], "s": "\u00e9\n€", "other": {"k": [1, "v"]}}"#;
    for end in 0..text.len() {
        assert!(matcher.matches_json(&text.as_bytes()[..end]).is_err(), "{:?}", text.get(..end));
    }
    assert!(matcher.matches_json(text.as_bytes()).is_ok());
}

#[test]
fn an_event_must_be_an_object() {
    let matcher: Matcher<()> = Matcher::default();
    for text in ["1", "[]", "\"a\"", "null"] {
        let error = matcher.matches_json(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "an event must be a JSON object at byte 0");
    }
}

#[test]
fn nesting_deeper_than_128_is_rejected_without_a_deep_stack() {
    let mut matcher = Matcher::default();
    matcher.insert((), &pattern(&json!({ "data": ["x"] })));
    for (open, close) in [("[", "]"), ("{\"data\":", "}")] {
        for (depth, wanted) in [(128, true), (129, false), (1_000_000, false)] {
            let text = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            assert_eq!(
                matcher.matches(&EventView::new([], DataView::Json(text.as_bytes()))).is_ok(),
                wanted,
                "{open} {depth}"
            );
        }
        let unclosed = open.repeat(1_000_000);
        assert!(matcher.matches_json(unclosed.as_bytes()).is_err());
    }
}

#[test]
fn the_last_of_two_members_with_one_name_counts() {
    let mut matcher = Matcher::default();
    for (key, source) in [
        json!({ "a": [1] }),
        json!({ "a": [2] }),
        json!({ "a": { "b": [3] } }),
        json!({ "a": { "b": [{ "exists": false }] } }),
    ]
    .iter()
    .enumerate()
    {
        matcher.insert(key, &pattern(source));
    }
    for (text, wanted) in [
        (r#"{"a": 1, "a": 2}"#, vec![1, 3]),
        (r#"{"a": 2, "\u0061": 1}"#, vec![0, 3]),
        (r#"{"a": {"b": 3}, "a": 1}"#, vec![0, 3]),
        (r#"{"a": 1, "a": {"b": 3}}"#, vec![2]),
        (r#"{"a": {"b": 3}, "a": {"c": 3}}"#, vec![3]),
        (r#"{"a": {"b": 4}, "a": [{"b": 4, "b": 3}, 1]}"#, vec![0, 2]),
        (r#"{"a": [{"b": 3}, {"b": 3}], "a": []}"#, vec![3]),
        (r#"{"a": [{"b": 3, "b": 4}, {"b": 4}]}"#, vec![]),
    ] {
        assert_eq!(matcher.matches_json(text.as_bytes()).unwrap(), wanted, "{text}");
    }
}

#[test]
fn escapes_are_decoded_and_a_lone_surrogate_becomes_a_replacement_character() {
    let mut matcher = Matcher::default();
    matcher.insert(0, &pattern(&json!({ "a": ["é😀\n/"] })));
    matcher.insert(1, &pattern(&json!({ "a": ["\u{fffd}x"] })));
    matcher.insert(2, &pattern(&json!({ "a": ["\u{fffd}\u{fffd}"] })));
    for (text, wanted) in [
        (r#"{"a": "\u00e9\uD83D\ude00\n\/"}"#, vec![0]),
        (r#"{"\u0061": "é😀\u000a/"}"#, vec![0]),
        (r#"{"a": "\ud800x"}"#, vec![1]),
        (r#"{"a": "\udc00\ud800"}"#, vec![2]),
        (r#"{"a": "\ud800\ud800"}"#, vec![2]),
    ] {
        assert_eq!(matcher.matches_json(text.as_bytes()).unwrap(), wanted, "{text}");
    }
}

#[test]
fn an_error_names_the_byte_position() {
    let matcher: Matcher<()> = Matcher::default();
    for (text, message) in [
        ("{\"a\": tru}", "expected a value at byte 6"),
        ("{\"a\": 01}", "a number must not have a leading zero at byte 7"),
        ("{} x", "unexpected text after the JSON value at byte 3"),
        ("{\"a\": \"\\q\"}", "unknown escape inside a string at byte 8"),
    ] {
        assert_eq!(matcher.matches_json(text.as_bytes()).unwrap_err().to_string(), message);
    }
}
