//! Every mistake in a pattern is named, with its place and what would be right.

use serde_json::{Value, json};

use super::super::{Pattern, PatternError, Segment};

/// Mistakes as `path: message | help`.
fn mistakes(pattern: &Value) -> Vec<String> {
    let Err(errors) = Pattern::parse(pattern) else { panic!("{pattern} is taken") };
    let step = |segment: &Segment| match segment {
        Segment::Key(key) => format!(".{key}"),
        Segment::Index(index) => format!("[{index}]"),
    };
    let line = |error: &PatternError| {
        let path: String = error.path.iter().map(step).collect();
        format!("{path}: {} | {}", error.message, error.help.as_deref().unwrap_or("NO HELP"))
    };
    errors.iter().map(line).collect()
}

#[test]
fn each_mistake_says_how_to_write_it_right() {
    for (pattern, path, message, help) in [
        (json!(["x"]), "", "a pattern is an object of fields, this is a list", "{\"type\":"),
        (json!({}), "", "an empty object", "name a field"),
        (json!({ "a": {} }), ".a", "an empty object", "\"exists\": true"),
        (json!({ "a": [] }), ".a", "an empty list matches nothing", "leave the field out"),
        (json!({ "a": "x" }), ".a", "takes a list of what matches, this is a string", "write [\"x\"]"),
        (json!({ "a": { "b": 5 } }), ".a.b", "this is a number", "write [5]"),
        (json!({ "a": { "prefix": "x" } }), ".a", "`prefix` is an operator", "write [{\"prefix\":\"x\"}]"),
        (json!({ "a": { "numeric": [">", 1] } }), ".a", "`numeric` is an operator", "write [{\"numeric\":[\">\",1]}]"),
        (json!({ "a": [["x"]] }), ".a[0]", "not lists", "list the values themselves"),
        (json!({ "a": ["x", {}] }), ".a[1]", "holds one operator, this one has 0", "write one object for each"),
        (json!({ "a": [{ "prefix": "x", "suffix": "y" }] }), ".a[0]", "this one has 2", "matches either"),
        (json!({ "a": [{ "prefx": "x" }] }), ".a[0].prefx", "there is no operator `prefx`", "did you mean `prefix`?"),
        (
            json!({ "a": [{ "anything_but": "x" }] }),
            ".a[0].anything_but",
            "no operator",
            "did you mean `anything-but`?",
        ),
        (json!({ "a": [{ "Exists": true }] }), ".a[0].Exists", "no operator", "did you mean `exists`?"),
        (json!({ "a": [{ "zzz": true }] }), ".a[0].zzz", "no operator", "the operators here are prefix, suffix"),
        (
            json!({ "a": [{ "prefix": 5 }] }),
            ".a[0].prefix",
            "`prefix` takes a string, this is a number",
            "{\"prefix\": \"text\"}",
        ),
        (json!({ "a": [{ "suffix": ["x"] }] }), ".a[0].suffix", "this is a list", "one object for each"),
        (
            json!({ "a": [{ "prefix": { "suffix": "x" } }] }),
            ".a[0].prefix.suffix",
            "cannot stand inside",
            "equals-ignore-case",
        ),
        (
            json!({ "a": [{ "prefix": { "equals-ignore-case": 1 } }] }),
            ".a[0].prefix.equals-ignore-case",
            "takes a string",
            "write",
        ),
        (json!({ "a": [{ "wildcard": "a**b" }] }), ".a[0].wildcard", "`**`", "write one `*`"),
        (json!({ "a": [{ "wildcard": "a\\b" }] }), ".a[0].wildcard", "backslash", "`\\\\`"),
        (json!({ "a": [{ "wildcard": "a\\" }] }), ".a[0].wildcard", "backslash", "`\\\\`"),
        (
            json!({ "a": [{ "exists": "yes" }] }),
            ".a[0].exists",
            "takes true or false, this is a string",
            "{\"exists\": true}",
        ),
        (json!({ "a": [{ "cidr": "10.0.0.1" }] }), ".a[0].cidr", "the `/`", "10.0.0.0/24"),
        (json!({ "a": [{ "cidr": "10.0.0/8" }] }), ".a[0].cidr", "no IP address", "10.0.0.0/24"),
        (json!({ "a": [{ "cidr": "10.0.0.0/33" }] }), ".a[0].cidr", "from 0 to 32", "10.0.0.0/24"),
        (json!({ "a": [{ "cidr": "::/129" }] }), ".a[0].cidr", "from 0 to 128", "2001:db8::/32"),
        (json!({ "a": [{ "cidr": "::/+1" }] }), ".a[0].cidr", "from 0 to 128", "2001:db8::/32"),
        (json!({ "a": [{ "cidr": 10 }] }), ".a[0].cidr", "takes a string", "10.0.0.0/24"),
        (json!({ "a": [{ "numeric": 5 }] }), ".a[0].numeric", "takes a list of comparisons", "[\"=\", 3]"),
        (json!({ "a": [{ "numeric": [">"] }] }), ".a[0].numeric", "once or twice", "[\"=\", 3]"),
        (json!({ "a": [{ "numeric": ["!=", 1] }] }), ".a[0].numeric[0]", "this is \"!=\"", "[\"=\", 3]"),
        (
            json!({ "a": [{ "numeric": [">", "1"] }] }),
            ".a[0].numeric[1]",
            "takes a number, this is a string",
            "[\"=\", 3]",
        ),
        (json!({ "a": [{ "numeric": [">", 1, ">", 2] }] }), ".a[0].numeric[2]", "a lower bound once", "\"<=\", 5"),
        (json!({ "a": [{ "numeric": ["=", 1, "<", 2] }] }), ".a[0].numeric[0]", "`=` stands alone", "[\"=\", 3]"),
        (json!({ "a": [{ "numeric": [">", 5, "<", 3] }] }), ".a[0].numeric", "can never match", "below the upper"),
        (json!({ "a": [{ "numeric": [">=", 5, "<", 5] }] }), ".a[0].numeric", "can never match", "below the upper"),
        (json!({ "a": [{ "anything-but": [] }] }), ".a[0].anything-but", "excludes nothing", "exists"),
        (json!({ "a": [{ "anything-but": null }] }), ".a[0].anything-but", "strings or numbers, this is null", "write"),
        (json!({ "a": [{ "anything-but": ["x", 1] }] }), ".a[0].anything-but", "not both", "write"),
        (json!({ "a": [{ "anything-but": ["x", ["y"]] }] }), ".a[0].anything-but[1]", "this is a list", "write"),
        (
            json!({ "a": [{ "anything-but": { "numeric": ["=", 1] } }] }),
            ".a[0].anything-but.numeric",
            "cannot stand inside",
            "prefix",
        ),
        (
            json!({ "a": [{ "anything-but": { "prefix": "" } }] }),
            ".a[0].anything-but.prefix",
            "no string can ever match",
            "write",
        ),
        (
            json!({ "a": [{ "anything-but": { "suffix": [1] } }] }),
            ".a[0].anything-but.suffix[0]",
            "takes a string",
            "write",
        ),
        (json!({ "$or": {} }), ".$or", "takes a list of objects, this is an object", "{\"$or\": ["),
        (json!({ "$or": [{ "a": [1] }] }), ".$or", "two objects or more, this list has 1", "{\"$or\": ["),
        (json!({ "$or": [{ "a": [1] }, ["b"]] }), ".$or[1]", "lists objects of fields, this is a list", "{\"$or\": ["),
        (json!({ "$or": [{ "a": [1] }, {}] }), ".$or[1]", "an empty object", "name a field"),
        (
            json!({ "x": { "$or": [{ "a": [1] }, { "prefix": ["b"] }] } }),
            ".x.$or[1].prefix",
            "is an operator",
            "name the field",
        ),
    ] {
        let mistakes = mistakes(&pattern);
        let first = mistakes.first().unwrap();
        assert!(
            first.starts_with(&format!("{path}: ")) && first.contains(message) && first.contains(help),
            "{pattern}: {mistakes:#?}"
        );
    }
}

#[test]
fn all_mistakes_are_found_at_once() {
    let found = mistakes(&json!({ "a": "x", "b": [{ "prefx": 1 }, { "cidr": 1 }], "c": { "d": [] }, "$or": [1, 2] }));
    let paths: Vec<_> = found.iter().map(|line| line.split(": ").next().unwrap()).collect();
    let mut sorted = paths.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [".$or[0]", ".$or[1]", ".a", ".b[0].prefx", ".b[1].cidr", ".c.d"]);
}

#[test]
fn limits_are_those_of_the_contract() {
    let of_size = |size: usize| json!({ "a": ["x".repeat(size - r#"{"a":[""]}"#.len())] });
    assert!(Pattern::parse(&of_size(64 * 1024)).is_ok());
    let too_large = mistakes(&of_size(64 * 1024 + 1));
    assert!(too_large[0].contains("the pattern has 65537 bytes; the most is 65536"), "{too_large:?}");

    let of_depth = |depth: usize| (0..depth).fold(json!(["x"]), |inner, _| json!({ "a": inner }));
    assert!(Pattern::parse(&of_depth(32)).is_ok());
    assert!(mistakes(&of_depth(33))[0].contains("at most 32 deep"));
    let of_ors =
        |depth: usize| (0..depth).fold(json!({ "a": ["x"] }), |inner, _| json!({ "$or": [inner, { "b": [1] }] }));
    assert!(Pattern::parse(&of_ors(31)).is_ok());
    assert!(mistakes(&of_ors(32))[0].contains("at most 32 deep"));
}

#[test]
fn exact_values_are_those_of_a_top_level_list_of_strings() {
    let pattern =
        Pattern::parse(&json!({ "type": ["a", "b"], "source": ["c", { "prefix": "d" }], "data": { "type": ["e"] } }))
            .unwrap();
    assert_eq!(pattern.exact_values("type"), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(pattern.exact_values("source"), None);
    assert_eq!(pattern.exact_values("data"), None);
    assert_eq!(pattern.exact_values("id"), None);
    let any_case = Pattern::parse(&json!({ "type": [{ "equals-ignore-case": "a" }] })).unwrap();
    assert_eq!(any_case.exact_values("type"), None);
}
