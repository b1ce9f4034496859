//! Patterns and events that cost much work to match. Each event has the default maximum size.

use serde_json::{Map, Value, json};

const EVENT_BYTES: usize = 1 << 20;

/// A name, a pattern, and the data of an event.
type Hostile = (&'static str, Value, String);

/// Returns data that starts with `before` and ends with `after`. Elements between them fill the data up to the maximum
/// size.
fn fill(before: &str, after: &str, mut element: impl FnMut(usize) -> String) -> String {
    let mut data = before.to_owned();
    for number in 0.. {
        let next = element(number);
        if data.len() + next.len() + after.len() + 1 > EVENT_BYTES {
            break;
        }
        if number > 0 {
            data.push(',');
        }
        data += &next;
    }
    data + after
}

fn items(element: impl FnMut(usize) -> String) -> String {
    fill("{\"items\":[", "]}", element)
}

fn list<T: Into<Value>>(count: usize, entry: impl Fn(usize) -> T) -> Value {
    (0..count).map(entry).map(Into::into).collect()
}

/// Returns a pattern that applies a list to each element of `items`.
fn of_items(list: Value) -> Value {
    json!({ "data": Map::from_iter([("items".to_owned(), list)]) })
}

/// Returns a pattern on the fields of an array's elements, with three nested `$or` of ten alternatives each.
fn combinations(alternative: fn(&str, usize) -> Value) -> Value {
    let or = |name: &'static str, more: Option<Value>| {
        list(10, move |n| {
            let mut alternative = json!({ name: [alternative(name, n)] });
            if let (Some(object), Some(more)) = (alternative.as_object_mut(), &more) {
                object.insert("$or".to_owned(), more.clone());
            }
            alternative
        })
    };
    let inner = or("c", None);
    let middle = or("b", Some(inner));
    json!({ "data": { "items": { "$or": or("a", Some(middle)) } } })
}

pub(crate) fn all() -> Vec<Hostile> {
    let disjoint = |n: usize| {
        let value = |which: usize| if n % 3 == which { n / 3 % 10 } else { 99 };
        format!("{{\"a\":{},\"b\":{},\"c\":{}}}", value(0), value(1), value(2))
    };
    let two_of_three = |n: usize| {
        let value = |which: usize| if n % 3 == which { 99 } else { n / 3 % 10 };
        format!("{{\"a\":{},\"b\":{},\"c\":{}}}", value(0), value(1), value(2))
    };
    let many_values = |n: usize| {
        let values = |seed: usize| list(5, |at| (n * (seed + at * 7) + at) % 10);
        let which = n % 3;
        let part = |at: usize| if which == at { json!([]) } else { values(3 + at) };
        format!("{{\"a\":{},\"b\":{},\"c\":{}}}", part(0), part(1), part(2))
    };
    let long = |text: &str| format!("{{\"items\":\"{}\"}}", text.repeat(EVENT_BYTES / text.len() - 2));
    let two_arrays = json!({ "data": { "$or": list(10, |n| json!({ "items": { "a": [n], "b": [n] } })),
        "more": { "$or": list(10, |n| json!({ "c": [n], "$or": list(10, |m| json!({ "d": [n + m] })) })) } } });
    vec![
        ("1,000 combinations, disjoint", combinations(|_, n| json!(n)), items(disjoint)),
        ("1,000 combinations, two of three", combinations(|_, n| json!(n)), items(two_of_three)),
        ("1,000 combinations, anything-but", combinations(|_, n| json!({ "anything-but": [n, 99] })), items(disjoint)),
        ("1,000 combinations, many values", combinations(|_, n| json!(n)), items(many_values)),
        (
            "two arrays",
            two_arrays,
            fill("{\"items\":[", "],\"more\":[{\"c\":1,\"d\":0}]}", |n| {
                format!("{{\"a\":{},\"b\":{}}}", n % 10, (n + 1) % 10)
            }),
        ),
        (
            "1,000 alternatives of two fields",
            json!({ "data": { "$or": list(1000, |n| json!({ "items": { "a": [n], "b": [n] } })) } }),
            items(|n| format!("{{\"a\":{},\"b\":{}}}", n % 1000, (n + 1) % 1000)),
        ),
        (
            "700 alternatives of ranges",
            json!({ "data": { "$or": list(700, |n| json!({ "items": { "a": [{ "numeric": [">", n] }], "b": [{ "numeric": ["<", n] }] } })) } }),
            items(|n| format!("{{\"a\":{},\"b\":{}}}", n % 700, n % 700)),
        ),
        (
            "1,900 ranges",
            of_items(list(1_900, |n| json!({ "numeric": [">", -2 * n as i64 - 2, "<", -2 * n as i64 - 1] }))),
            items(|n| format!("{}", n % 10)),
        ),
        ("9,000 numbers", of_items(list(9_000, |n| -(n as i64) - 1)), items(|n| format!("{}", n % 10))),
        (
            "numbers of 1,000 digits",
            of_items(list(60, |n| {
                serde_json::from_str::<Value>(&format!("{}{n}", "7".repeat(1_000))).unwrap_or_default()
            })),
            items(|n| format!("{}{}", "7".repeat(1_000), n + 100)),
        ),
        (
            "2,000 blocks",
            of_items(list(2_000, |n| json!({ "cidr": format!("11.{}.{}.0/24", n / 256, n % 256) }))),
            items(|n| format!("\"10.1.1.{}\"", n % 10)),
        ),
        (
            "2,000 prefixes",
            of_items(list(2_000, |n| json!({ "prefix": format!("ab{n}") }))),
            items(|_| "\"ab\"".to_owned()),
        ),
        (
            "1,000 folded suffixes",
            of_items(list(1_000, |n| json!({ "suffix": { "equals-ignore-case": format!("Ü{n}") } }))),
            items(|_| "\"éü\"".to_owned()),
        ),
        (
            "anything-but, 5,000 texts",
            of_items(
                json!([{ "anything-but": list(5_000, |n| if n == 0 { "a".to_owned() } else { format!("x{n}") }) }]),
            ),
            items(|_| "\"a\"".to_owned()),
        ),
        (
            "anything-but, 1,200 times a prefix",
            of_items(list(1_200, |n| json!({ "anything-but": { "prefix": ["a", n.to_string()] } }))),
            items(|_| "\"a\"".to_owned()),
        ),
        (
            "64 wildcards, short texts",
            of_items(list(64, |n| json!({ "wildcard": format!("*b*a*{n}*") }))),
            items(|n| format!("\"ab{n}\"")),
        ),
        (
            "64 wildcards, short equal texts",
            of_items(list(64, |n| json!({ "wildcard": format!("*b*a*{n}*") }))),
            items(|_| "\"ab\"".to_owned()),
        ),
        ("64 wildcards, one long text", of_items(list(64, |n| json!({ "wildcard": format!("*a*b{n}*") }))), long("a")),
        (
            "64 wildcards, long periodic text",
            of_items(list(64, |n| json!({ "wildcard": format!("*{}b{}*", "aab".repeat(7), "ab".repeat(n % 8)) }))),
            long("aab"),
        ),
        (
            "64 wildcards with 15 stars",
            of_items(list(64, |n| json!({ "wildcard": format!("{}*b{n}", "*ab".repeat(14)) }))),
            long("aab"),
        ),
        (
            "64 wildcards with 15 stars, texts",
            of_items(list(64, |n| json!({ "wildcard": format!("{}*b{n}", "*ab".repeat(14)) }))),
            items(|n| format!("\"{}{n}\"", "aab".repeat(15))),
        ),
        (
            "2 wildcards with 1,000 bytes, texts",
            of_items(list(2, |n| json!({ "wildcard": format!("{}*{n}", "*a".repeat(1_000)) }))),
            items(|_| format!("\"{}\"", "a".repeat(1_100))),
        ),
        (
            "31 alternatives of two fields",
            json!({ "data": { "$or": list(31, |n| json!({ "items": { "a": [n], "b": [n] } })) } }),
            items(|n| format!("{{\"a\":{},\"b\":{}}}", n % 31, (n + 1) % 31)),
        ),
        (
            "15 ranges",
            of_items(list(15, |n| json!({ "numeric": ["<", -(n as i64)] }))),
            items(|n| format!("{}", n % 10)),
        ),
        (
            "2,400 fields",
            {
                let mut fields = Map::from_iter([("a".to_owned(), json!([1])), ("b".to_owned(), json!([1]))]);
                fields.extend((0..2_400).map(|n| (format!("x{n}"), json!([{ "exists": false }]))));
                json!({ "data": { "items": fields } })
            },
            items(|n| if n < 2_400 { format!("{{\"x{n}\":0}}") } else { format!("{{\"{}\":1}}", ["a", "b"][n % 2]) }),
        ),
        (
            "500 prefixes times 500 suffixes",
            json!({ "data": { "$or": list(1_000, |n| {
                let affix = ["prefix", "suffix"][n % 2];
                json!({ "items": { "a": [{ affix: (n / 2).to_string() }], "b": [{ "exists": true }] } })
            }) } }),
            items(|n| format!("{{\"a\":\"{}\"}}", n.wrapping_mul(7_919) % 1_000_000)),
        ),
        (
            "500 lists in two alternatives, two values",
            json!({ "data": { "$or": list(1_000, |n| json!({ "items": { "a": [{ "numeric": [">", n % 500] }], "b": [n] } })) } }),
            items(|n| format!("{{\"a\":[{},{}],\"b\":[{n}]}}", n % 500, n / 500)),
        ),
        (
            "anything-but, 64 wildcards",
            of_items(
                json!([{ "anything-but": { "wildcard": list(64, |n| format!("*a*b{n}*")) } }, { "exists": false }]),
            ),
            long("aaaaaaaaaaaaaaab"),
        ),
        (
            "deep arrays",
            json!({ "data": { "items": { "a": [1], "b": [1], "c": [1] } } }),
            items(|n| format!("{}{{\"{}\":1,\"b\":2}}{}", "[".repeat(120), ["a", "c"][n % 2], "]".repeat(120))),
        ),
        (
            "arrays of one element",
            combinations(|_, n| json!(n)),
            items(|n| format!("[{{\"{}\":{}}}]", ["a", "b", "c"][n % 3], n % 10)),
        ),
        (
            "arrays of 32 fields",
            json!({ "data": { "$or": list(30, |n| json!({ "$or": list(30, |m| {
                json!({ "items": { format!("{n}"): [1], format!("{m}"): [{ "numeric": [">", 0] }], "x": [{ "exists": false }] } })
            }) })) } }),
            items(|n| {
                let elements: Vec<String> = (0..33).map(|m| format!("{{\"{}\":{}}}", (n + m) % 30, m % 2)).collect();
                format!("[{}]", elements.join(","))
            }),
        ),
        (
            "1,000 lists of anything-but and numbers",
            json!({ "data": { "$or": list(1_000, |n| {
                let values: Vec<usize> = (0..2).map(|m| n + 1_000 * m).collect();
                json!({ "items": { "a": [{ "anything-but": values }], "b": [n, n + 1_000] } })
            }) } }),
            items(|n| format!("{{\"a\":{},\"b\":[{},{}]}}", n % 5_000, 3_000 + n % 7, 3_000 + n % 1_000)),
        ),
        (
            "one deep array",
            combinations(|_, n| json!(n)),
            fill(&format!("{{\"items\":{}", "[".repeat(120)), &format!("{}}}", "]".repeat(120)), disjoint),
        ),
        (
            "deep arrays with siblings",
            combinations(|_, n| json!(n)),
            items(|n| format!("{}{{\"a\":{},\"b\":2}}{}", "[{\"a\":99},".repeat(60), n % 10, "]".repeat(60))),
        ),
        (
            "absence in each element",
            combinations(|name, n| if name == "c" { json!({ "exists": false }) } else { json!(n) }),
            items(|n| format!("{{\"a\":{},\"b\":{},\"c\":0}}", n % 10, n / 10 % 10)),
        ),
    ]
}
