//! What is JSON and what is not, in the manner of a conformance suite: each case as the value of a field that is asked
//! for, of one that is not, and inside the data of an event.

use serde_json::json;

use super::super::{DataView, EventView, Matcher};
use super::pattern;

const REFUSED: &[&str] = &[
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

const REFUSED_BYTES: &[&[u8]] = &[
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

const TAKEN: &[&str] = &[
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

/// Reads a value in each place; all must agree.
fn is_taken(value: &[u8]) -> bool {
    let mut matcher = Matcher::default();
    matcher.insert((), &pattern(&json!({ "data": { "x": [1], "y": { "a": ["b"] } }, "x": { "a": ["b"] } })));
    let around = |before: &str, after: &str| [before.as_bytes(), value, after.as_bytes()].concat();
    let mut taken = Vec::new();
    for text in [
        around("{\"other\":", "}"),
        around("{\"x\":", "}"),
        around("{\"data\":{\"x\":", "}}"),
        around("{\"data\":{\"y\":[", "]}}"),
    ] {
        taken.push(matcher.matches_json(&text).is_ok());
    }
    taken.push(matcher.matches(&EventView::new([], DataView::Json(value))).is_ok());
    let data = around("{\"x\":", "}");
    taken.push(matcher.matches(&EventView::new([], DataView::Json(&data))).is_ok());
    let empty: Matcher<()> = Matcher::default();
    taken.push(empty.matches(&EventView::new([], DataView::Json(value))).is_ok());
    let first = taken[0];
    // What closes or opens the surroundings is judged with them.
    assert!(taken.iter().all(|one| *one == first) || !taken[4], "{}: {taken:?}", String::from_utf8_lossy(value));
    taken[4]
}

#[test]
fn what_is_no_json_is_refused_everywhere() {
    for text in REFUSED {
        assert!(!is_taken(text.as_bytes()), "{text:?} is taken");
    }
    for bytes in REFUSED_BYTES {
        assert!(!is_taken(bytes), "{bytes:?} is taken");
    }
}

#[test]
fn what_is_json_is_taken_everywhere() {
    for text in TAKEN {
        assert!(is_taken(text.as_bytes()), "{text:?} is refused");
    }
}

#[test]
fn every_cut_of_an_event_is_refused() {
    let mut matcher = Matcher::default();
    matcher.insert((), &pattern(&json!({ "a": { "b": [1] }, "s": ["x"] })));
    let text = r#" {"a": [{"b": -1.5e3}, {"b": [true, null]}], "s": "\u00e9\n€", "other": {"k": [1, "v"]}}"#;
    for end in 0..text.len() {
        assert!(matcher.matches_json(&text.as_bytes()[..end]).is_err(), "{:?}", text.get(..end));
    }
    assert!(matcher.matches_json(text.as_bytes()).is_ok());
}

#[test]
fn an_event_is_an_object() {
    let matcher: Matcher<()> = Matcher::default();
    for text in ["1", "[]", "\"a\"", "null"] {
        let error = matcher.matches_json(text.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "an event is a JSON object at byte 0");
    }
}

#[test]
fn levels_beyond_128_are_refused_without_a_deep_stack() {
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
fn of_two_members_with_one_name_the_last_counts() {
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
fn escapes_are_read_and_a_lone_surrogate_is_a_replacement_character() {
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
fn the_error_says_where() {
    let matcher: Matcher<()> = Matcher::default();
    for (text, message) in [
        ("{\"a\": tru}", "expected a value at byte 6"),
        ("{\"a\": 01}", "a number has no leading zero at byte 7"),
        ("{} x", "something follows the end of the JSON text at byte 3"),
        ("{\"a\": \"\\q\"}", "unknown escape within a string at byte 8"),
    ] {
        assert_eq!(matcher.matches_json(text.as_bytes()).unwrap_err().to_string(), message);
    }
}
