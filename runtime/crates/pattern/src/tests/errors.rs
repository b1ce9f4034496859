//! Every mistake that a pattern can have, with its place, message and help.

use serde_json::{Map, Value, json};

use super::super::Pattern;
use super::pattern;

fn mistakes(source: &Value) -> Vec<String> {
    Pattern::parse(source).expect_err("the pattern must be rejected").iter().map(ToString::to_string).collect()
}

#[test]
fn each_mistake_is_reported_with_its_place_and_a_correction() {
    for (source, expected) in [
        (
            json!("x"),
            "pattern: a pattern must be an object of fields, not a string (write an object such as {\"type\": [\"order.placed\"]})",
        ),
        (
            json!({}),
            "pattern: an empty object never matches (name a field; to match every event write {\"source\": [{\"prefix\": \"\"}]})",
        ),
        (
            json!({ "a": {} }),
            "a: an empty object never matches (name a field; to match every event write {\"source\": [{\"prefix\": \"\"}]})",
        ),
        (json!({ "a": "x" }), "a: `a` is a string, but a field takes a list of values and operators (write [\"x\"])"),
        (
            json!({ "a": { "b": 5 } }),
            "a.b: `b` is a number, but a field takes a list of values and operators (write [5])",
        ),
        (
            json!({ "a": [] }),
            "a: the list of `a` is empty, so it never matches (name at least one value; to match events without the field write [{\"exists\": false}])",
        ),
        (
            json!({ "a": [["x"]] }),
            "a[0]: a list inside a list never matches (write the values directly in the field's list)",
        ),
        (
            json!({ "a": { "prefix": "x" } }),
            "a: the operator `prefix` of `a` must be inside a list (write [{\"prefix\":\"x\"}])",
        ),
        (
            json!({ "a": { "numeric": [">", 0] } }),
            "a: the operator `numeric` of `a` must be inside a list (write [{\"numeric\":[\">\",0]}])",
        ),
        (
            json!({ "a": { "anything-but": ["b"] } }),
            "a: the operator `anything-but` of `a` must be inside a list (write [{\"anything-but\":[\"b\"]}])",
        ),
        (json!({ "a": [{ "prefx": "x" }] }), "a[0].prefx: unknown operator `prefx` (did you mean `prefix`?)"),
        (json!({ "a": [{ "Exists": true }] }), "a[0].Exists: unknown operator `Exists` (did you mean `exists`?)"),
        (
            json!({ "a": [{ "between": 1 }] }),
            "a[0].between: unknown operator `between` (use one of `anything-but`, `cidr`, `equals-ignore-case`, `exists`, `numeric`, `prefix`, `suffix`, `wildcard`)",
        ),
        (
            json!({ "a": [{}] }),
            "a[0]: an object in this place must have an operator (use one of `anything-but`, `cidr`, `equals-ignore-case`, `exists`, `numeric`, `prefix`, `suffix`, `wildcard`)",
        ),
        (
            json!({ "a": [{ "prefix": "x", "suffix": "y" }] }),
            "a[0]: an entry must have exactly one operator (to match any of them write {\"prefix\": \"x\"}, {\"suffix\": \"y\"})",
        ),
        (json!({ "a": [{ "prefix": 5 }] }), "a[0].prefix: `prefix` takes a string, not a number (write \"5\")"),
        (
            json!({ "a": [{ "suffix": ["x", "y"] }] }),
            "a[0].suffix: `suffix` takes a string, not a list (to match any of them write {\"suffix\": \"x\"}, {\"suffix\": \"y\"})",
        ),
        (
            json!({ "a": [{ "prefix": { "wildcard": "x*" } }] }),
            "a[0].prefix.wildcard: the operator `wildcard` is not allowed here (use one of `equals-ignore-case`)",
        ),
        (json!({ "a": [{ "exists": "yes" }] }), "a[0].exists: `exists` takes true or false, not a string"),
        (
            json!({ "a": [{ "wildcard": "a**b" }] }),
            "a[0].wildcard: two `*` are next to each other (one `*` matches any number of characters)",
        ),
        (
            json!({ "a": [{ "wildcard": "a\\b" }] }),
            "a[0].wildcard: a backslash must be followed by `*` or `\\` (to match a backslash write \"\\\\\\\\\" in JSON)",
        ),
        (json!({ "a": [{ "numeric": 5 }] }), "a[0].numeric: `numeric` takes a list, not a number"),
        (
            json!({ "a": [{ "numeric": ["!=", 5] }] }),
            "a[0].numeric[0]: \"!=\" is not a comparison; use =, <, <=, > or >= (write [\">\", 0], [\"=\", 5] or [\">=\", 0, \"<\", 10])",
        ),
        (
            json!({ "a": [{ "numeric": [">", "5"] }] }),
            "a[0].numeric[1]: \"5\" is not a number (write [\">\", 0], [\"=\", 5] or [\">=\", 0, \"<\", 10])",
        ),
        (
            json!({ "a": [{ "numeric": [] }] }),
            "a[0].numeric: [] is neither a comparison nor a range (write [\">\", 0], [\"=\", 5] or [\">=\", 0, \"<\", 10])",
        ),
        (
            json!({ "a": [{ "numeric": [">", 5, "<", 3] }] }),
            "a[0].numeric: the range [\">\",5,\"<\",3] contains no number, so it never matches (the lower bound must be less than the upper bound)",
        ),
        (
            json!({ "a": [{ "numeric": [">=", 5, "<", 5] }] }),
            "a[0].numeric: the range [\">=\",5,\"<\",5] contains no number, so it never matches (the lower bound must be less than the upper bound)",
        ),
        (
            json!({ "a": [{ "cidr": "10.0.0.1" }] }),
            "a[0].cidr: \"10.0.0.1\" is not a block of IP addresses (to match this one address write \"10.0.0.1/32\")",
        ),
        (
            json!({ "a": [{ "cidr": "10.0.0.0/33" }] }),
            "a[0].cidr: \"10.0.0.0/33\" is not a block of IP addresses (write \"10.0.0.0/24\" (at most /32) or, for IPv6, \"2001:db8::/32\" (at most /128))",
        ),
        (
            json!({ "a": [{ "anything-but": [] }] }),
            "a[0].anything-but: the list of `anything-but` is empty (to match any value write {\"exists\": true})",
        ),
        (
            json!({ "a": [{ "anything-but": ["x", 1] }] }),
            "a[0].anything-but: `anything-but` mixes strings and numbers (use a list of only strings or only numbers, as in EventBridge)",
        ),
        (
            json!({ "a": [{ "anything-but": [null] }] }),
            "a[0].anything-but[0]: `anything-but` takes strings or numbers, not null",
        ),
        (
            json!({ "a": [{ "anything-but": { "wildcard": [] } }] }),
            "a[0].anything-but.wildcard: the list of `wildcard` is empty",
        ),
        (
            json!({ "$or": {} }),
            "$or: `$or` takes a list of objects, not an object (write a list of alternatives: [{…}, {…}])",
        ),
        (
            json!({ "$or": [{ "a": [1] }] }),
            "$or: `$or` needs at least two alternatives (add another alternative, or write the fields without `$or`)",
        ),
        (
            json!({ "$or": [{ "a": [1] }, 2] }),
            "$or[1]: an alternative of `$or` must be an object, not a number (write {\"FIELD\": [\"value\"]})",
        ),
        (
            json!({ "$or": [{ "numeric": ["=", 1] }, { "a": [1] }] }),
            "$or[0].numeric: `numeric` is an operator, but an object of `$or` must name fields (name the field: {\"FIELD\": [{\"numeric\": …}]})",
        ),
    ] {
        assert_eq!(mistakes(&source), [expected], "{source}");
    }
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let found = mistakes(&json!({ "a": "x", "b": [{ "prefx": 1 }, { "cidr": 1 }], "c": { "d": [] }, "$or": [1, 2] }));
    assert_eq!(found.len(), 6, "{found:#?}");
}

#[test]
fn patterns_over_a_limit_are_rejected() {
    let sized = |size: usize| json!({ "a": ["x".repeat(size - r#"{"a":[""]}"#.len())] });
    assert!(Pattern::parse(&sized(64 * 1024)).is_ok());
    assert!(mistakes(&sized(64 * 1024 + 1))[0].contains("65537 bytes"));

    let deep = |depth: usize| (0..depth).fold(json!(["x"]), |inner, _| json!({ "a": inner }));
    assert!(Pattern::parse(&deep(64)).is_ok());
    assert!(mistakes(&deep(65))[0].contains("deeper than 64"));
    assert!(mistakes(&deep(300))[0].contains("deeper than 64"));

    let either = |n: usize| json!([{ (format!("a{n}")): [1] }, { (format!("b{n}")): [1] }]);
    let ors = |count: usize| (0..count).fold(json!({ "x": [1] }), |inner, n| json!({ "$or": either(n), "y": inner }));
    assert!(Pattern::parse(&ors(9)).is_ok());
    assert!(mistakes(&ors(10))[0].contains("more than 1000 combinations of `$or` alternatives"));

    let wildcards = |count: usize| json!({ "a": vec![json!({ "wildcard": "*x*" }); count] });
    assert!(Pattern::parse(&wildcards(64)).is_ok());
    assert!(mistakes(&wildcards(65))[0].contains("65 wildcards"));
    let long = |bytes: usize| json!({ "a": [{ "wildcard": format!("*{}*", "x".repeat(bytes)) }] });
    assert!(Pattern::parse(&long(2048)).is_ok());
    assert_eq!(
        mistakes(&long(2049)),
        [
            "pattern: the wildcards of the pattern have 2049 bytes together, more than the limit of 2048 (use `prefix` and `suffix` where possible, or split the pattern into several patterns)"
        ]
    );
}

/// The limit of the size bounds the text of a pattern. The memory and the work for the pattern are limited, too.
#[test]
fn a_short_pattern_with_long_paths_or_many_mistakes_takes_little_memory_and_time() {
    let long = "k".repeat(30_000);
    let many = mistakes(&json!({ &long: vec![json!([]); 11_000] }));
    assert_eq!(many.len(), 51);
    assert_eq!(many[50], "pattern: the pattern has 10950 more mistakes, which are not listed");

    let below =
        |count: usize| json!({ &long: (0..count).map(|n| (format!("f{n}"), json!([1]))).collect::<Map<_, _>>() });
    assert!(Pattern::parse(&below(10)).is_ok());
    let found = mistakes(&below(3_000));
    assert!(
        found.len() == 1 && found[0].contains("the paths to all fields have more than 1 MiB together"),
        "{found:?}"
    );

    // 900 alternatives, and with each of them 4,000 further fields.
    let alternatives: Vec<_> = (0..900).map(|n| json!({ "a": [n] })).collect();
    let mut fields: Map<_, _> = (0..4_000).map(|n| (format!("f{n}"), json!([1]))).collect();
    fields.insert("$or".to_owned(), alternatives.into());
    let found = mistakes(&fields.into());
    let expected = "the combinations of `$or` alternatives have more than 65536 fields together";
    assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
}

#[test]
fn exact_values_are_the_strings_that_a_pattern_requires() {
    let source = json!({ "type": ["b", "a"], "source": ["c", { "prefix": "d" }], "data": { "type": ["e"] } });
    let plain = pattern(&source);
    assert_eq!(plain.source(), &source);
    assert_eq!(plain.exact_values("type"), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(plain.exact_values("source"), None);
    assert_eq!(plain.exact_values("id"), None);
    let each = pattern(&json!({ "$or": [{ "type": ["a"] }, { "type": ["b"], "x": [1] }] }));
    assert_eq!(each.exact_values("type"), Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(pattern(&json!({ "$or": [{ "type": ["a"] }, { "x": [1] }] })).exact_values("type"), None);
}

#[test]
fn fields_that_no_cloudevent_has_are_reported() {
    let lint =
        |source: &Value| pattern(source).never_in_cloudevents().iter().map(ToString::to_string).collect::<Vec<_>>();
    assert!(lint(&json!({ "type": ["a"], "data": { "detail-type": [1] }, "x9": [{ "exists": false }] })).is_empty());
    for (source, expected) in [
        (json!({ "detail-type": ["x"] }), "`type`"),
        (json!({ "detail": { "a": ["x"] } }), "payload of a CloudEvent is in `data`"),
        (json!({ "My_Field": ["x"] }), "lower-case"),
        (json!({ "Source": ["x"] }), "(did you mean `source`?)"),
        (json!({ "type": [{ "anything-but": { "wildcard": "*" } }] }), "attributes are strings"),
        (json!({ "customer": { "id": ["x"] } }), "never match as an object"),
        (json!({ "type": [5] }), "quote the values"),
        (json!({ "subject": [{ "numeric": [">", 1] }] }), "attributes are strings"),
    ] {
        let found = lint(&source);
        assert!(found.len() == 1 && found[0].contains(expected), "{source}: {found:?}");
    }
}
