//! Probable mistakes in correct patterns.

use serde_json::{Value, json};

use super::super::ReservedValues;
use super::pattern;

const RESERVED: [ReservedValues<'static>; 2] =
    [ReservedValues { field: "type", prefix: "evoke." }, ReservedValues { field: "source", prefix: "/evoke" }];

fn hints(source: &Value) -> Vec<String> {
    pattern(source).hints(&RESERVED).iter().map(ToString::to_string).collect()
}

#[test]
fn each_probable_mistake_is_found_at_its_place() {
    let variable = "(write the value itself: a pattern is compared as it is written)";
    for (source, hint) in [
        (
            json!({ "tpye": ["order.placed"] }),
            "tpye: `tpye` is not an attribute of CloudEvents, so it matches only an extension of that name (did you mean `type`?)".to_owned(),
        ),
        (
            json!({ "$or": [{ "sources": ["/a"] }, { "type": ["b"] }] }),
            "$or[0].sources: `sources` is not an attribute of CloudEvents, so it matches only an extension of that name (did you mean `source`?)".to_owned(),
        ),
        (
            json!({ "dta": { "total": [1] } }),
            "dta: `dta` is not an attribute of CloudEvents, so it matches only an extension of that name (did you mean `data`?)".to_owned(),
        ),
        (
            json!({ "type": ["a", "order.*"] }),
            "type[1]: \"order.*\" is compared as it is written: `*` is not a wildcard here (did you mean {\"wildcard\": \"order.*\"}?)".to_owned(),
        ),
        (
            json!({ "data": { "file": [{ "anything-but": ["**.png"] }] } }),
            "data.file[0].anything-but[0]: \"**.png\" is compared as it is written: `*` is not a wildcard here (did you mean {\"anything-but\": {\"wildcard\": \"*.png\"}}?)".to_owned(),
        ),
        (
            json!({ "type": [{ "prefix": "order.*" }] }),
            "type[0].prefix: `prefix` compares `*` as a character, not as a wildcard (write \"order.\" without the `*`)".to_owned(),
        ),
        (
            json!({ "type": [{ "prefix": "${TYPE}" }] }),
            format!("type[0].prefix: `${{TYPE}}` is not replaced by the value of a variable {variable}"),
        ),
        (
            json!({ "data": { "user": ["x", "a-${USER_1}"] } }),
            format!("data.user[1]: `${{USER_1}}` is not replaced by the value of a variable {variable}"),
        ),
        (
            json!({ "type": [{ "prefix": "order." }, { "prefix": "evoke.delivery" }] }),
            "type[1].prefix: this never matches: a `type` that starts with `evoke.` is matched only by its full value (write the values of `type` in full, without an operator)".to_owned(),
        ),
        (
            json!({ "source": [{ "wildcard": "/evoke*" }] }),
            "source[0].wildcard: this never matches: a `source` that starts with `/evoke` is matched only by its full value (write the values of `source` in full, without an operator)".to_owned(),
        ),
    ] {
        assert_eq!(hints(&source), [hint], "{source}");
    }
}

#[test]
fn good_patterns_have_no_hints() {
    for source in [
        json!({ "type": ["order.placed"], "source": [{ "prefix": "/shop/" }], "subject": [{ "wildcard": "a*z" }] }),
        json!({ "traceparent": [{ "exists": true }], "partitionkey": ["a"], "sequence": ["1"], "state": ["x"], "uid": ["a"] }),
        json!({ "data": { "tpye": ["a"], "note": ["5 * 3", "*"], "price": ["$5", "${}", "${a-b}", "{x}"] } }),
        json!({ "type": [{ "prefix": "evoke." }], "source": ["/evoke"] }),
        json!({ "type": ["evoke.delivery.dead"] }),
        json!({ "type": [{ "prefix": "evo" }, { "wildcard": "*" }, { "anything-but": { "prefix": "evoke." } }] }),
        json!({ "data": { "x": [{ "suffix": "*" }, 1, null, { "cidr": "10.0.0.0/8" }] } }),
    ] {
        let found = hints(&source);
        let only_suffix = found.iter().all(|hint| hint.contains("data.x[0].suffix"));
        assert!(only_suffix, "{source}: {found:?}");
    }
}

#[test]
fn the_number_of_hints_is_bounded() {
    let list: Vec<String> = (0..3_000).map(|n| format!("{n}.*")).collect();
    assert_eq!(hints(&json!({ "type": list })).len(), 20);
}
